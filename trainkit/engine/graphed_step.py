"""Makes optimizer steps by repeating what was recorded of one: one call instead of hundreds for each step.

The first steps of each kind are made as usual, the next one is recorded, and those that follow are repeated, also in
later epochs. Recordings are given up when other groups train, or with other settings of an optimizer, and when a
parameter, a buffer or the memory of an optimizer has got another place in memory, which no step does.

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
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch.autograd.graph import increment_version

from trainkit.engine.batches import each_tensor
from trainkit.engine.operations import TooMuchError
from trainkit.engine.step import Step
from trainkit.engine.torch_hooks import are_hooked
from trainkit.errors import PartError, TrainkitError, blame
from trainkit.events import fire
from trainkit.randomness import generators_kept
from trainkit.recipe.root import MOST_RECORDINGS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.graphs import Graphs
    from trainkit.events import Listener

_LOGGER = logging.getLogger("trainkit")

_MOST_KINDS = 64  # of which it is known how often they came: each step may be of a kind of its own


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
        keepers: Names of parts that may keep outputs or gradients from step to step. If one listens to a step, no step
            is recorded, unless that is demanded.
        **kwargs: What `Step` takes.
    """

    def __init__(self, *args: Any, graphs: Graphs, keepers: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._graphs, self._keepers = graphs, keepers
        self._may_record = True
        self._is_kept = False
        self._starts: tuple[Listener, ...] = ()
        self._is_heard = False
        self._of_model: tuple[Listener, ...] = ()
        self._kinds: dict[Hashable, _Recorded | int] = {}  # how many steps were made as usual so far
        self._repeats: _Recorded | None = None
        self._stage: Hashable = None
        self._places: list[int] = []
        self._made = self._repeated = 0  # steps since the epoch began
        self._is_said = False

    def left_of(self, events: Mapping[str, tuple[Listener, ...]]) -> tuple[Listener, ...]:
        """Take over what the model does after a step; return what the others do then."""
        is_heard = bool(events["backward_end"])
        listening = [each for event in ("step_start", "backward_end", "step_end") for each in events[event]]
        self._is_kept = any(each.where.partition(",")[0] in self._keepers for each in listening)
        self._is_kept |= are_hooked(self._state.model, self._optimizers.members.values())
        self._starts = tuple(each for each in events["step_start"] if each.where.startswith("model,"))
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
        if self._graphs.is_demanded and self._made > 2 and not (self._repeated or self._is_said):
            self._is_said = True
            _LOGGER.warning(
                "run.%s = true, but of %d steps none could be repeated: steps are alike if their batches have the same "
                "shapes and differ in tensors alone, and if no momentum changes from step to step",
                self._graphs.key,
                self._made,
            )
        self._made = self._repeated = 0
        if self._graphs.within_an_epoch:
            self._forget_counts()
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
        return [each.data_ptr() for each in self._changing()]

    def _changing(self) -> list[Tensor]:
        """Return what a step may change."""
        model = self._state.model
        of_optimizers = (each.state.values() for each in self._optimizers.members.values())
        kept = [value for states in of_optimizers for state in states for value in state.values()]
        return [*model.parameters(), *model.buffers(), *(each for each in kept if isinstance(each, torch.Tensor))]

    def _forget_counts(self) -> None:
        self._kinds = {kind: each for kind, each in self._kinds.items() if isinstance(each, _Recorded)}

    def _give_up(self) -> None:
        if any(isinstance(each, _Recorded) for each in self._kinds.values()):
            self._graphs.wait()
        self._kinds, self._repeats, self._places = {}, None, []

    def gradients(self, batches: Sequence[Batch]) -> None:
        """Compute the gradients for a batch, ``state.batch``; if nothing listens to them, update as well."""
        state = self._state
        batch = state.batch
        assert batch is not None
        self._made += 1
        self._repeats = recorded = self._recorded(batch)
        if recorded is None:
            values: Mapping[str, Tensor] = {}

            def compute() -> None:
                nonlocal values
                values = self._compute([batch])

            self._graphs.warm_up(compute)
            self._log(values)
            return
        self._repeated += 1
        try:
            recorded.gradients()
        except Exception as error:
            blame(error, "model and losses, in a step that is repeated")
        if recorded.update is None:
            _note_changes(recorded)
        for parameter, slope in recorded.slopes:
            parameter.grad = slope
        row = recorded.values.clone()  # the recording's own is overwritten by the next step
        state.batch, state.outputs = recorded.batch, recorded.outputs
        state.loss, *of_losses = row.unbind() if recorded.names else (row,)
        self._log(dict(zip(recorded.names, of_losses, strict=True)))

    def _recorded(self, batch: Batch) -> _Recorded | None:
        """Return a recording that has got a batch; None: its step is to be made as usual."""
        is_kept = self._is_kept and not self._graphs.is_demanded
        if is_kept or not self._may_record or (kind := self._kind(batch)) is None:
            return None
        found = self._kinds.get(kind, 0)
        if isinstance(found, _Recorded):
            for kept, new in zip(_leaves(found.batch), _leaves(batch), strict=True):
                if isinstance(kept, torch.Tensor):
                    kept.copy_(new, non_blocking=True)
            return found
        if found < self._graphs.usual_steps or self._steps_left() < self._graphs.least_left or self._are_enough():
            if len(self._kinds) >= _MOST_KINDS:
                self._forget_counts()
            self._kinds[kind] = found + 1
            return None
        try:
            recorded = self._kinds[kind] = self._record(batch)
        except PartError as error:
            if self._graphs.is_demanded:
                raise
            if not isinstance(error.__cause__, TooMuchError):
                _LOGGER.info("steps are made one by one: %s", error)
            self._may_record = False
            self._begin_anew(batch)
            return None
        return recorded

    def _begin_anew(self, batch: Batch) -> None:
        """Let the model forget what it has noted of a step that could not be recorded."""
        state = self._state
        state.batch, state.outputs, state.loss = batch, None, None
        with generators_kept():
            fire(self._starts, state)

    def update(self) -> None:
        """Update the parameters, and let the model do what it does after a step.

        Raises:
            PartError: A hook has removed a gradient that the recorded step has.
        """
        repeats, key = self._repeats, self._graphs.key
        if repeats is None:
            self._graphs.warm_up(self._finish)
        elif repeats.update is not None:
            for parameter, slope in repeats.slopes:
                if parameter.grad is None:
                    raise PartError(
                        f"run.{key} = true, but a hook has removed the gradient of a parameter, which a step that is "
                        f"repeated cannot leave out; set run.{key} = false"
                    )
                if parameter.grad is not slope:  # a hook has put another one in its place
                    slope.copy_(parameter.grad)
            try:
                repeats.update()
            except Exception as error:
                blame(error, "optimizer and model, in a step that is repeated")
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
        state, key = self._state, self._graphs.key
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
            update, changing = None, self._changing()
            if self._is_heard:
                gradients = self._graphs.record(compute, changing)
                update = self._graphs.record(self._finish, changing)
            else:
                gradients = self._graphs.record(whole, changing)
        except Exception as error:
            raise PartError(
                f"run.{key} = true, but the step cannot be recorded: {_told(error)}\nset run.{key} = false"
            ) from error
        if _drawn_by_host(state.context.device) != before:
            raise PartError(
                f"run.{key} = true, but model or losses draw random numbers on the CPU, which would be the same "
                f"ones in each step that is repeated; set run.{key} = false"
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

    def _steps_left(self) -> int:
        """Return how many steps are left until other groups train."""
        state = self._state
        changes = (each for group in state.groups.values() for each in (group.start_epoch, group.stop_epoch))
        end = min((each for each in changes if each is not None and each > state.epoch), default=state.epochs)
        return (min(end, state.epochs) - state.epoch) * state.steps_per_epoch - state.steps_in_epoch

    def _are_enough(self) -> bool:
        """Return whether one more recording would take too much memory: each keeps that of a step."""
        return sum(isinstance(each, _Recorded) for each in self._kinds.values()) == MOST_RECORDINGS

    def _kind(self, batch: Batch) -> Hashable:
        """Return what tells whether a step can be made by repeating another one; None: it cannot."""
        tell = getattr(self._state.model, "step_variant", None)
        variant: Hashable = () if tell is None else tell(self._state)
        if variant is None:
            return None
        leaves = tuple(_without_values(each) for each in _leaves(batch))
        return leaves, self._optimizers.settings_without_rates(), variant


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
