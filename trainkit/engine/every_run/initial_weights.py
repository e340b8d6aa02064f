"""Loads the weights that [initial_weights] names when a run begins. A resumed run has its weights already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.errors import DataError, blame
from trainkit.weights import load_weights, read_weights, weights_of
from trainkit.words import number_of, some_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from trainkit.contracts import Model
    from trainkit.recipe.root import InitialWeights
    from trainkit.state import Group, State
    from trainkit.weights import Weights

_LOGGER = logging.getLogger("trainkit")


@attrs.frozen
class BeginWithWeights:
    """Loads initial weights.

    Attributes:
        settings: Which weights.
        model: Settings of the model.
        group_of: Returns the parameter group of a name in the model's state.
    """

    settings: InitialWeights
    model: Model
    group_of: Callable[[str], str]

    def on_run_start(self, state: State) -> None:
        """Load the weights, before any other part sees the model."""
        if state.step:
            return
        network = state.model

        def adapt(weights, facts):  # type: ignore[no-untyped-def]
            try:
                return self.model.adapt_weights(weights, network, facts, state.data)
            except Exception as error:
                blame(error, "model, in adapt_weights")

        loaded = load_weights(network, _read(self.settings.path, state.folder), self.settings, self.group_of, adapt)
        for line in loaded.lines:
            _LOGGER.info("%s", line)
        for line in _frozen_without_training(state.groups, loaded.anew, self.group_of):
            _LOGGER.warning("%s", line)


def _frozen_without_training(
    groups: Mapping[str, Group], anew: Iterable[str], group_of: Callable[[str], str]
) -> Iterator[str]:
    """Yield a sentence for each group that does not train at first, though some of its weights are not from the file.

    Args:
        groups: Group -> its state.
        anew: Names of the weights that are not, or not wholly, from the file.
        group_of: Returns the parameter group of a name.
    """
    for name, group in groups.items():
        if not group.trains_in(0) and (its := [each for each in anew if group_of(each) == name]):
            start = group.start_epoch
            until = "in this run" if start is None else f"in the first {number_of(start, 'epoch')}"
            yield (
                f"group {name} does not train {until}, and not all of its weights are from the file: "
                f"{some_of(its)}; if these have random values, let it train from the start"
            )


def _read(path: Path, own: Path) -> Weights:
    """Return the weights in a file, or in the checkpoint of a run that would predict.

    Args:
        path: The file, the run folder, or the folder of a run's name.
        own: The folder of the run that begins, which may have the same name.

    Raises:
        DataError: The path stands for several checkpoints, or the file cannot be read.
        CheckpointError: There is no good checkpoint.
    """
    if not path.is_dir():
        return read_weights(path)
    files = find_checkpoints([path], Choice(), _LOGGER.info, besides=own).files
    if len(files) > 1:
        members = ", ".join(str(file) for file, _ in files)
        raise DataError(f"initial_weights.path: {path} is an ensemble of {len(files)} models; name one: {members}")
    return weights_of(*files[0])


def group_of_names(model: nn.Module, parameters: Mapping[str, Mapping[str, nn.Parameter]]) -> Callable[[str], str]:
    """Return a function from a name in a model's state to its parameter group.

    A buffer belongs to the group of the parameters of its module; "" if there are none.

    Args:
        model: The model.
        parameters: Group -> name -> parameter.
    """
    groups = {name: group for group, members in parameters.items() for name in members}
    of_module: dict[str, str] = {}
    for name, group in groups.items():
        of_module.setdefault(name.rpartition(".")[0], group)

    def group_of(name: str) -> str:
        return groups.get(name) or of_module.get(name.rpartition(".")[0], "")

    return group_of
