"""Records steps as a CUDA graph does, without CUDA: operations with the tensors that they got, and no Python.

`Listed` records them as a run on a CPU does, and counts.

`Replays` takes the place of `trainkit.engine.graphs.CudaGraphs`. What is repeated are the very operations that were
recorded, on the very tensors. So whatever Python made of a value (a learning rate, a number of a step, a branch, a
tensor of numbers of the host) stays as it was when the step was recorded, and the result differs from that of steps
that are made one by one.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from same import differences
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from trainkit.engine import build
from trainkit.engine.graphed_step import GraphedStep
from trainkit.engine.graphs import CudaGraphs, FromOutside, Graphs, tensors_in
from trainkit.engine.listed_operations import ListedOperations
from trainkit.engine.live_run import LiveRun

READS = {"tolist", "numpy", "item", "__array__", "__bool__", "__int__", "__float__", "__index__", "cpu"}
"""Methods of a tensor that wait for its device; on the CPU, some of them ask for no operation."""

FROM_HOST = {"aten::lift_fresh", "aten::lift_fresh_copy"}
"""What torch does to a tensor that was made of numbers of the host: on CUDA, a copy that waits."""


class NotRecordableError(RuntimeError):
    """A CUDA graph could not record this."""


class _NoReads(TorchFunctionMode):
    """Refuses to read a tensor, unless it was made without naming a device: it is one of the host."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in READS and isinstance(args[0], torch.Tensor) and not hasattr(args[0], "is_of_host"):
            raise NotRecordableError(f"{name} reads a tensor")
        result = func(*args, **kwargs)
        if name == "arange" and kwargs.get("device") is None:
            result.is_of_host = True
        return result


class Recording(FromOutside):
    """Performs operations, and records them.

    Attributes:
        calls: Operation, arguments, keyword arguments, and what it returned.
        before: Storages from outside, and their content before the first operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        self.is_spoilt = False

    def found(self, storage: torch.UntypedStorage) -> None:
        super().found(storage)
        self.before.append((storage, storage.clone()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.intersection(func.tags)
        if tags or name in FROM_HOST:
            raise NotRecordableError(f"{name}: {', '.join(map(str, tags)) or 'made of numbers of the host'}")
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def put_back(self) -> None:
        """Give what is outside the content that it had."""
        for storage, content in self.before:
            storage.copy_(content)
        self.before.clear()

    def spoil(self) -> None:
        """Give what was made a content that nobody can have meant: on CUDA, nothing is computed yet."""
        for _, _, _, result in self.calls:
            for tensor in tensors_in(result):
                if (storage := tensor.untyped_storage()).data_ptr() not in self.storages:
                    storage.fill_(0xEE)

    def repeat(self) -> None:
        """Perform the recorded operations on the recorded tensors, as they are now."""
        if not self.is_spoilt:  # what is recorded right after this, in the same step, needs its values
            self.is_spoilt = True
            self.spoil()
        for func, args, kwargs, recorded in self.calls:
            result = func(*args, **kwargs)
            aliases = [each.alias_info is not None for each in func._schema.returns]
            if any(aliases):  # a view, or one of the arguments
                continue
            for kept, new in zip(tree_leaves(recorded), tree_leaves(result), strict=True):
                if isinstance(kept, torch.Tensor):
                    assert kept.stride() == new.stride()
                    kept.copy_(new)


class OfCuda:
    """What the engine asks of all recordings on CUDA."""

    key = CudaGraphs.key
    usual_steps = CudaGraphs.usual_steps
    least_left = CudaGraphs.least_left
    within_an_epoch = CudaGraphs.within_an_epoch
    is_demanded = CudaGraphs.is_demanded


class Replays(OfCuda):
    """Makes recordings on the CPU.

    Attributes:
        recorded: The recordings.
        repeats: How often one was performed.
        inside: Whether one is being made or performed.
        waited_after: How many of the recordings there were when it was last waited for them.
    """

    def __init__(self) -> None:
        self.recorded: list[Recording] = []
        self.repeats: Counter[int] = Counter()
        self.inside = False
        self.waited_after = 0

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def warm_up(self, operations: Callable[[], None]) -> None:
        """Perform them."""
        operations()

    def record(self, operations: Callable[[], None], changing: Iterable[torch.Tensor] = ()) -> Callable[[], None]:
        """Record them: nothing has changed afterwards."""
        recording, random = Recording(), torch.get_rng_state()
        with self._inside(), _NoReads(), recording:
            operations()
        torch.set_rng_state(random)
        recording.put_back()
        number = len(self.recorded)
        self.recorded.append(recording)

        def repeat() -> None:
            self.repeats[number] += 1
            with self._inside(), torch.no_grad():
                recording.repeat()

        return repeat

    def wait(self) -> None:
        """Nothing is left to be done."""
        self.waited_after = len(self.recorded)


class Listed(ListedOperations):
    """Makes recordings on the CPU, as a run there does, already of the second step; what it cannot record is an error.

    Attributes:
        recorded: The recordings.
        repeats: How often one was performed.
    """

    usual_steps = 1
    least_left = 0
    is_demanded = True
    most_bytes = 2**40

    def __init__(self) -> None:
        super().__init__()
        self._unproven = 10**6  # all are
        self.recorded: list[Callable[[], None]] = []
        self.repeats: Counter[int] = Counter()

    def record(self, operations: Callable[[], None], changing: Iterable[torch.Tensor] = ()) -> Callable[[], None]:
        """Record them."""
        number, recording = len(self.recorded), super().record(operations, changing)
        self.recorded.append(recording)

        def repeat() -> None:
            self.repeats[number] += 1
            recording()

        return repeat


@contextlib.contextmanager
def recording_with(graphs: Graphs, device: str = "cpu") -> Iterator[None]:
    """Let runs with ``cuda_graph = true`` be on a device as if it were CUDA, and take these recordings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "choose_device", lambda *_: torch.device(device))
        patch.setattr(build, "graphs_of", lambda recipe, device: graphs if recipe.run.cuda_graph else None)
        yield


@contextlib.contextmanager
def never_alike() -> Iterator[None]:
    """Let no step be of the kind of another one, so that each is made by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphedStep, "_kind", lambda step, batch: object())
        yield


def results(run: LiveRun) -> dict[str, Any]:
    """Return all that a training has changed."""
    states = {
        f"{name} {number} {key}": value
        for name, optimizer in run.optimizers.members.items()
        for number, state in enumerate(optimizer.state.values())
        for key, value in state.items()
    }
    return {"model": run.state.model.state_dict(), "optimizers": states, "metrics": run.state.metrics}


def repeated_to_the_same_bits(
    train: Callable[[], LiveRun], recordings: type[Replays | Listed] = Replays
) -> Replays | Listed:
    """Train twice, with steps that are repeated and with steps that are not, and compare all that has changed."""
    graphs = recordings()
    with recording_with(graphs):
        repeated = train()
        with never_alike():
            by_themselves = train()
    assert sum(graphs.repeats.values()) > 5
    assert differences(results(repeated), results(by_themselves)) == []
    return graphs
