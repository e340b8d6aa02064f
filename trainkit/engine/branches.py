"""Live parts of the runs of which a search of weights consists (`trainkit.engine.weight_search`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainkit.engine.batches import batches_of, to_device
from trainkit.engine.weight_judgement import FEW_ITEMS
from trainkit.events import Live
from trainkit.files.tables import write_json
from trainkit.randomness import generator_states, restore_generators
from trainkit.recipe.weight_search import branch_epochs, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainkit.contracts import Batch
    from trainkit.engine.live_run import LiveRun
    from trainkit.recipe.root import Recipe
    from trainkit.state import State


_LOGGER = logging.getLogger("trainkit")

BRANCHING = "the branches begin here"
"""Why the run that all branches have in common is interrupted."""

RECORD = "weight_search.json"

_SAME = 1e-3  # by how much the mean of an evaluation's items may differ from the value of the evaluation, relatively


def branch_start(recipe: Recipe, num_epochs: int) -> int:
    """Return how many epochs of a run are finished when its branches begin."""
    return num_epochs - branch_epochs(recipe, num_epochs)


class Trial(Live):
    """Makes a run a trial.

    Args:
        run: The run.
    """

    def __init__(self, run: LiveRun) -> None:
        run.state.is_trial = True


class Branching(Trial):
    """Interrupts a run, with a checkpoint, where the branches begin; warns at once of too few held-out items.

    Args:
        run: The run.
        recipe: The recipe with the weights that are searched.
    """

    def __init__(self, run: LiveRun, recipe: Recipe) -> None:
        super().__init__(run)
        self._recipe = recipe
        self._split = watched(recipe).metric.partition("/")[0]
        self._number = 0
        self._is_counted = False

    def on_validation_step_end(self, state: State) -> None:
        """Count the items."""
        if state.split == self._split and state.batch is not None:
            self._number += len(state.batch["index"])

    def on_validation_end(self, state: State) -> None:
        """Warn if they are few, the first time."""
        if state.split == self._split and not self._is_counted and 0 < self._number < FEW_ITEMS:
            _LOGGER.warning(
                "weights will be chosen by %d held-out items, so the choice will be doubtful; hold out %d or more",
                self._number,
                FEW_ITEMS,
            )
        self._is_counted |= state.split == self._split

    def on_epoch_end(self, state: State) -> None:
        """Interrupt the run after the last epoch before the branches, unless it is interrupted already."""
        if state.epoch + 1 >= branch_start(self._recipe, state.epochs) and not state.interrupted:
            state.interrupt(BRANCHING)


class HeldOutItems(Trial):
    """Keeps the loss of each held-out item at the end of a branch, which shows what a difference of means is worth.

    Args:
        run: The branch.
        metric: The value that decides.
    """

    def __init__(self, run: LiveRun, metric: str) -> None:
        super().__init__(run)
        self._run, self._metric = run, metric
        self.losses: list[float] = []

    def on_epoch_end(self, state: State) -> None:
        """Evaluate each item by itself after the last epoch, if the deciding value is a loss."""
        split, _, name = self._metric.partition("/")
        if not state.is_last_epoch or state.interrupted or name not in ("loss", *self._run.recipe.losses):
            return
        before = generator_states()
        try:
            losses = list(_losses_of_items(self._run, split, name))
        except Exception as error:  # batches of some data cannot be cut into items
            _LOGGER.info("how much single held-out items differ is not known: %s: %s", type(error).__name__, error)
            return
        finally:
            restore_generators(before)
        value = state.metrics[self._metric]
        if losses and abs(sum(losses) / len(losses) - value) <= _SAME * abs(value):
            self.losses = losses

    def state_dict(self) -> dict[str, Any]:
        """Return the losses."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.losses = [float(loss) for loss in saved["losses"]]


@torch.no_grad()
def _losses_of_items(run: LiveRun, split: str, name: str) -> Iterator[float]:
    """Yield a loss of each item of a split, in the order of the data."""
    state, last = run.state, run.recipe.run.channels_last
    state.model.eval()
    with contextlib.ExitStack() as around:
        if run.average is not None:
            around.enter_context(run.average.in_place())
        if run.recipe.run.compile:
            around.enter_context(torch.compiler.set_stance("force_eager"))
        for batch in batches_of(lambda: state.data.evaluate(split), run.data_name, "evaluate"):
            for item in _items(to_device(batch, state.context.device, channels_last=last)):
                with run.autocast():
                    values = run.losses.on_validation(run.inference(state.model, item), item, state.model)
                yield float(values.get(name, values["loss"]))


def _items(batch: Batch) -> Iterator[Batch]:
    number = len(batch["index"])

    def is_of_items(value: Any) -> bool:
        return (isinstance(value, torch.Tensor) and value.ndim > 0) or (
            isinstance(value, Sequence) and not isinstance(value, str)
        )

    for i in range(number):
        yield {
            name: value[i : i + 1] if is_of_items(value) and len(value) == number else value
            for name, value in batch.items()
        }


class SearchRecord(Live):
    """Writes down in the folder of the run how its weights were chosen, and says what makes the choice doubtful.

    Args:
        content: What is written to ``weight_search.json``.
        doubts: Why the choice is doubtful.
    """

    def __init__(self, content: Mapping[str, Any], doubts: Sequence[str]) -> None:
        self._content, self._doubts = content, doubts

    def on_run_start(self, state: State) -> None:
        """Write the record."""
        for doubt in self._doubts:
            state.doubt(doubt)
        try:
            write_json(state.folder / RECORD, self._content)
        except OSError as error:
            _LOGGER.warning("%s cannot be written: %s", state.folder / RECORD, error.strerror or error)
