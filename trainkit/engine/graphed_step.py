"""Makes optimizer steps by repeating what was recorded of one: one call instead of hundreds for each step.

The first step of each kind is made as usual, the second is recorded, and those that follow are repeated, also in later
epochs. Recordings are given up when other groups train, or with other settings of an optimizer, and when a parameter, a
buffer or the memory of an optimizer has got another place in memory, which no step does.

Two steps are of the same kind if their batches differ in nothing but the values of tensors, if optimizers have the
same settings apart from the learning rates, and if the model says so (``step_variant``).

    forward, loss, backward                        ┐
    backward_end                                   ├ one recording, if nothing listens to backward_end; else two
    update; the model's on_step_end                ┘
    step_end, for all other parts
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch.autograd.graph import increment_version

from trainkit.engine.batches import each_tensor
from trainkit.engine.step import Step
from trainkit.errors import PartError, TrainkitError
from trainkit.events import fire
from trainkit.recipe.root import MOST_RECORDINGS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.graphs import Graphs
    from trainkit.events import Listener

_LOGGER = logging.getLogger("trainkit")


@attrs.define
class _Recorded:
    """A recorded step.

    Attributes:
        batch: Its batch, into which those of later steps are copied.
        gradients: Computes the gradients; and updates, if that is not by itself.
        update: Updates; None: ``gradients`` does.
        outputs: The model's outputs.
        values: The total loss, and then the value of each loss if there are several (L,).
        names: Names of these losses.
        slopes: Parameters and their gradients.
        changed: Parameters and buffers that a step may change.
    """

    batch: Batch
    gradients: Callable[[], None]
    update: Callable[[], None] | None
    outputs: Outputs | None
    values: Tensor
    names: tuple[str, ...]
    slopes: Sequence[tuple[nn.Parameter, Tensor]]
    changed: Sequence[Tensor]


class GraphedStep(Step):
    """A `Step` of one batch, in one process, which is recorded and repeated. What it computes is the same.

    Args:
        *args: What `Step` takes.
        graphs: Makes recordings.
        **kwargs: What `Step` takes.
    """

    def __init__(self, *args: Any, graphs: Graphs, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._graphs = graphs
        self._is_heard = False
        self._of_model: tuple[Listener, ...] = ()
        self._kinds: dict[Hashable, _Recorded | None] = {}  # None: it was made as usual so far
        self._repeats: _Recorded | None = None
        self._stage: Hashable = None
        self._places: list[int] = []
        self._made = self._repeated = 0  # steps since the epoch began
        self._is_said = False

    def left_of(self, events: Mapping[str, tuple[Listener, ...]]) -> tuple[Listener, ...]:
        """Take over what the model does after a step; return what the others do then."""
        is_heard = bool(events["backward_end"])
        if is_heard != self._is_heard:
            self._give_up()
        self._is_heard = is_heard
        self._of_model = tuple(each for each in events["step_end"] if each.where.startswith("model,"))
        return tuple(each for each in events["step_end"] if each not in self._of_model)

    def enter_epoch(self) -> None:
        """Take over which groups train; give up all recordings if these are others than before."""
        super().enter_epoch()
        training = tuple(name for name, group in self._state.groups.items() if group.active)
        stage = (training, self._optimizers.settings_without_rates())
        if stage != self._stage:
            self._give_up()
            self._stage = stage

    def leave_epoch(self) -> None:
        """Free what steps needed; say so, once, if there was nothing to repeat although there were several steps."""
        if self._made > 2 and not (self._repeated or self._is_said):
            self._is_said = True
            _LOGGER.warning(
                "run.cuda_graph = true, but of %d steps none could be repeated: steps are alike if their batches have "
                "the same shapes and differ in tensors alone, and if no momentum changes from step to step",
                self._made,
            )
        self._made = self._repeated = 0
        self._kinds = {kind: recorded for kind, recorded in self._kinds.items() if recorded is not None}
        super().leave_epoch()

    def pause(self) -> None:
        """Note where what a recording changes lies in memory."""
        super().pause()
        self._repeats = None
        self._places = self._places_now()

    def go_on(self) -> None:
        """Give up all recordings if something has got another place in memory: they would change what was there."""
        super().go_on()
        if self._places != self._places_now():
            self._give_up()

    def _places_now(self) -> list[int]:
        if not self._kinds:
            return []
        model = self._state.model
        of_optimizers = (each.state.values() for each in self._optimizers.members.values())
        kept = [value for states in of_optimizers for state in states for value in state.values()]
        tensors = [*model.parameters(), *model.buffers(), *(each for each in kept if isinstance(each, torch.Tensor))]
        return [each.data_ptr() for each in tensors]

    def _give_up(self) -> None:
        if any(self._kinds.values()):
            self._graphs.wait()
        self._kinds, self._repeats, self._places = {}, None, []

    def gradients(self, batches: Sequence[Batch]) -> None:
        """Compute the gradients for a batch, ``state.batch``; if nothing listens to them, update as well."""
        state = self._state
        batch = state.batch
        assert batch is not None
        self._made += 1
        kind, self._repeats = self._kind(batch), None
        if kind not in self._kinds or self._is_one_too_many(kind):
            self._kinds.setdefault(kind)
            values: Mapping[str, Tensor] = {}

            def compute() -> None:
                nonlocal values
                values = self._compute([batch])

            self._graphs.warm_up(compute)
            self._log(values)
            return
        recorded = self._kinds[kind]
        if recorded is None:
            recorded = self._kinds[kind] = self._record(batch)
        else:
            for kept, new in zip(_leaves(recorded.batch), _leaves(batch), strict=True):
                if isinstance(kept, torch.Tensor):
                    kept.copy_(new, non_blocking=True)
        self._repeats = recorded
        self._repeated += 1
        recorded.gradients()
        if recorded.update is None:
            _note_changes(recorded)
        for parameter, slope in recorded.slopes:
            parameter.grad = slope
        row = recorded.values.clone()  # the recording's own is overwritten by the next step
        state.batch, state.outputs = recorded.batch, recorded.outputs
        state.loss, *of_losses = row.unbind() if recorded.names else (row,)
        self._log(dict(zip(recorded.names, of_losses, strict=True)))

    def update(self) -> None:
        """Update the parameters, and let the model do what it does after a step.

        Raises:
            PartError: A hook has removed a gradient that the recorded step has.
        """
        repeats = self._repeats
        if repeats is None:
            self._graphs.warm_up(self._finish)
        elif repeats.update is not None:
            for parameter, slope in repeats.slopes:
                if parameter.grad is None:
                    raise PartError(
                        "run.cuda_graph = true, but a hook has removed the gradient of a parameter, which a step that "
                        "is repeated cannot leave out; set run.cuda_graph = false"
                    )
                if parameter.grad is not slope:  # a hook has put another one in its place
                    slope.copy_(parameter.grad)
            repeats.update()
            _note_changes(repeats)

    def _finish(self) -> None:
        super().update()
        state = self._state
        state.step += 1  # as at the event; the loop counts it
        try:
            fire(self._of_model, state)
        finally:
            state.step -= 1

    def _record(self, batch: Batch) -> _Recorded:
        """Record a step, without making it.

        Raises:
            PartError: It cannot be recorded.
        """
        state = self._state
        own = each_tensor(batch, torch.clone)
        state.batch, state.outputs, state.loss = own, None, None
        names: tuple[str, ...] = ()
        row: Tensor | None = None

        def compute() -> None:
            nonlocal names, row
            values = self._compute([own])
            assert state.loss is not None
            names, row = tuple(values), state.loss.detach()
            if values:
                row = torch.stack([row, *(each.detach().to(row.dtype) for each in values.values())])

        def whole() -> None:
            compute()
            self._finish()

        before = _drawn_by_host(state.context.device)
        try:
            update = None
            if self._is_heard:
                gradients, update = self._graphs.record(compute), self._graphs.record(self._finish)
            else:
                gradients = self._graphs.record(whole)
        except Exception as error:
            raise PartError(
                f"run.cuda_graph = true, but the step cannot be recorded: {_told(error)}\nset run.cuda_graph = false"
            ) from error
        if _drawn_by_host(state.context.device) != before:
            raise PartError(
                "run.cuda_graph = true, but model or losses draw random numbers on the CPU, which would be the same "
                "ones in each step that is repeated; set run.cuda_graph = false"
            )
        assert row is not None
        slopes = [
            (each, each.grad)
            for group in state.groups.values()
            for each in group.parameters.values()
            if each.grad is not None
        ]
        changed = [*(each for each, _ in slopes), *state.model.buffers()]
        outputs = each_tensor(state.outputs, torch.Tensor.detach)  # their graph is not needed any more
        return _Recorded(own, gradients, update, outputs, row, names, slopes, changed)

    def _is_one_too_many(self, kind: Hashable) -> bool:
        """Return whether recording this kind would take too much memory: each recording keeps that of a step."""
        return self._kinds[kind] is None and sum(each is not None for each in self._kinds.values()) == MOST_RECORDINGS

    def _kind(self, batch: Batch) -> Hashable:
        """Return what tells whether a step can be made by repeating another one."""
        variant = getattr(self._state.model, "step_variant", None)
        return (
            tuple(_without_values(each) for each in _leaves(batch)),
            self._optimizers.settings_without_rates(),
            None if variant is None else variant(self._state),
        )


def _note_changes(recorded: _Recorded) -> None:
    """Let who keeps something that was computed of parameters see that they have changed: a recording does not."""
    for tensor in recorded.changed:
        increment_version(tensor)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what a batch consists of, also within lists, tuples and mappings; of these, keys as well."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _without_values(leaf: Any) -> Hashable:
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    if isinstance(leaf, str | bytes | int | float | None):
        return type(leaf), leaf
    return object()  # what the model would make of it is not known


def _told(error: BaseException) -> str:
    """Return what went wrong first: leaving a graph after an error is another one."""
    while not isinstance(error, TrainkitError) and isinstance(error.__context__, Exception):
        error = error.__context__
    return str(error) if isinstance(error, TrainkitError) else f"{type(error).__name__}: {error}"


def _drawn_by_host(device: torch.device) -> Hashable:
    """Return the state of the random generators that no recording moves on."""
    import numpy as np

    _, words, *rest = np.random.get_state(legacy=True)
    own = b"" if device.type == "cpu" else torch.get_rng_state().numpy().tobytes()
    return random.getstate(), np.asarray(words).tobytes(), tuple(rest), own
