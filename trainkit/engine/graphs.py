"""Records what a step asks its device for, and asks for all of it again by a single call.

On CUDA, that is a graph, which holds operations and the places in memory of what they read and write; on a CPU, it is a
list of operations (`trainkit.engine.listed_operations`). Neither holds Python: what Python does between two operations
is done once, while they are recorded. Whoever records a step (`trainkit.engine.graphed_step`) sees to it that all
that differs from one step to the next is in tensors whose places stay the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainkit.recipe.promises import reasons_against_recordings

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.recipe.root import Recipe

_LOGGER = logging.getLogger("trainkit")


class Graphs(Protocol):
    """Makes recordings of operations.

    Attributes:
        key: The setting in [run] with which they are asked for.
        usual_steps: How many steps of a kind are made as usual before one is recorded.
        least_left: How many steps must be left until other groups train, for a recording to pay.
        within_an_epoch: Whether these, and the one that is recorded, are of the same epoch.
        is_demanded: Whether it is an error if a step cannot be recorded; else it is made as usual.
    """

    key: str
    usual_steps: int
    least_left: int
    within_an_epoch: bool
    is_demanded: bool

    def warm_up(self, operations: Callable[[], None]) -> None:
        """Perform operations, where they would be recorded: what is made once is then made."""
        ...

    def record(self, operations: Callable[[], None], changing: Iterable[Tensor] = ()) -> Callable[[], None]:
        """Record operations without performing them.

        Args:
            operations: The operations.
            changing: All that they may change.

        Returns:
            What performs them, each time it is called, on the same tensors with the content that these have then.
        """
        ...

    def wait(self) -> None:
        """Wait until all recordings that were called are done; only then may one be given up."""
        ...


def graphs_of(recipe: Recipe, device: torch.device) -> Graphs | None:
    """Return what records the steps of a run; None: its steps are not recorded."""
    if recipe.run.cuda_graph and device.type != "cuda":
        _LOGGER.warning("run.cuda_graph = true has no effect: the run is on the device %s", device)
    if recipe.run.cuda_graph and device.type == "cuda":
        return CudaGraphs(device)
    if recipe.run.repeat_steps and device.type == "cpu" and not any(reasons_against_recordings(recipe)):
        from trainkit.engine.listed_operations import ListedOperations

        return ListedOperations()
    return None


class CudaGraphs:
    """Makes CUDA graphs, on a stream of its own, as torch requires it.

    Args:
        device: The CUDA device.
    """

    key = "cuda_graph"
    # After a change of shapes, a library such as cuFFT makes its plans in the first step, which a graph cannot hold.
    usual_steps = 1
    least_left = 0
    within_an_epoch = True
    is_demanded = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, operations: Callable[[], None]) -> None:
        """Perform operations on that stream. Others wait for them, and they for others."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            operations()
        usual.wait_stream(self._stream)

    def record(self, operations: Callable[[], None], changing: Iterable[Tensor] = ()) -> Callable[[], None]:
        """Record operations as a graph. Other threads may use the device meanwhile, for example to load a batch."""
        graph, outside = torch.cuda.CUDAGraph(), FromOutside()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"), outside:
            operations()
        return _Recording(graph, outside)

    def wait(self) -> None:
        """Wait for the device, which may still write into the memory of a graph."""
        torch.cuda.synchronize(self._device)


class _Recording:
    """A CUDA graph, and what it reads: memory that nothing else holds any more would be given to other tensors."""

    def __init__(self, graph: torch.cuda.CUDAGraph, outside: FromOutside) -> None:
        self._graph, self._outside = graph, outside.storages

    def __call__(self) -> None:
        self._graph.replay()


class FromOutside(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the memory that operations use and have not made themselves.

    Attributes:
        storages: Place in memory -> storage.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, torch.UntypedStorage] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tensors_in((args, kwargs)):
            storage = tensor.untyped_storage()
            if (place := storage.data_ptr()) not in self._made and place not in self.storages:
                self.found(storage)
        result = func(*args, **kwargs)
        self._made.update(
            place
            for tensor in tensors_in(result)
            if (place := tensor.untyped_storage().data_ptr()) not in self.storages
        )
        return result

    def found(self, storage: torch.UntypedStorage) -> None:
        """Take in memory that an operation uses for the first time."""
        self.storages[storage.data_ptr()] = storage


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a value, and in lists, tuples and mappings in it."""
    from torch.utils._pytree import tree_leaves

    return [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]
