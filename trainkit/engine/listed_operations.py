"""Takes down the operations of a step on a CPU, and performs them again without the Python that asked for them.

Between the operations of a step stand the look-ups of modules, autograd, and the loops of optimizers; where arrays are
small, they take longer than the operations. What is repeated are the same operations on the same memory, so results
have the same bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainkit.engine.operations import Call, NotRecordableError, Place, TooMuchError, function_of
from trainkit.garbage import not_collected

_READS = {"tolist", "numpy", "item", "__array__", "__bool__", "__int__", "__float__", "__index__"}
_OF_NUMBERS = {"aten::lift_fresh", "aten::lift_fresh_copy"}  # of Python's, which would be the same in each step
_OTHER_PLACES = {"aten::set_", "aten::resize_", "aten::resize_as_"}
_OF_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view}


class ListedOperations:
    """Makes recordings on a CPU; see `trainkit.engine.graphs.Graphs`."""

    key = "repeat_steps"
    usual_steps = 4
    least_left = 64  # to take a step of ptychography down takes what fifteen repetitions save; batches have two sizes
    within_an_epoch = False
    is_demanded = False
    most_bytes = 2**28  # a step that makes more hardly feels its Python; all of it is kept while it is taken down

    def __init__(self) -> None:
        self._unproven = 2  # what computes past torch does so in each step: gradients and update are proven once

    def warm_up(self, operations: Callable[[], None]) -> None:
        """Perform operations."""
        operations()

    def record(self, operations: Callable[[], None], changing: Iterable[Tensor] = ()) -> Callable[[], None]:
        """Take operations down; afterwards, tensors and random generators are as they were before.

        Args:
            operations: The operations.
            changing: All that they may change, whether torch sees it or not.

        Raises:
            NotRecordableError: They read a value, make a tensor of numbers, or compute something that torch does not
                see.
            TooMuchError: They make too much.
        """
        recorder = _Recorder(self.most_bytes, changing)
        with not_collected():
            try:
                with _NoReads(), recorder:
                    operations()
                repeat = recorder.function(proven=self._unproven > 0)
                self._unproven = max(self._unproven - 1, 0)
            finally:
                recorder.put_back()

        def repeat_without_autograd() -> None:
            with torch.no_grad():
                repeat()

        return repeat_without_autograd

    def wait(self) -> None:
        """Do nothing: a CPU is done with an operation when it returns."""


class _NoReads(TorchFunctionMode):
    """Refuses to read a tensor, because what Python makes of its value would be the same in each step."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READS and not hasattr(args[0], "is_of_numbers"):
            raise NotRecordableError(f"a tensor is read ({name})")
        result = func(*args, **(kwargs or {}))
        if name == "arange":  # as lists of axes are made, for example
            result.is_of_numbers = True
        return result


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Performs operations, and takes them down.

    Args:
        most_bytes: What they may make.
        changing: What they may change past torch.
    """

    def __init__(self, most_bytes: int, changing: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most_bytes, self._bytes = most_bytes, 0
        self._calls: list[Call] = []
        self._tensors: dict[Place, Tensor] = {}
        # By the id of a tensor, which another one may get: what a step lets go of is not held. Autograd copies a
        # gradient that somebody else holds, and all memory of a step together is much.
        self._places: dict[int, tuple[Place, weakref.ref[Tensor]]] = {}
        self._made: dict[int, StorageWeakRef] = {}  # by addresses, which no other memory gets while there are these
        self._outside: dict[int, torch.UntypedStorage] = {}
        self._before: dict[int, torch.UntypedStorage] = {}
        self._generators: dict[torch.Generator, Tensor] = {}
        self._generator(torch.default_generator)
        for each in changing:
            self._place(each, is_made=False)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip torch's compiler, torch would import it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _differs(func):
            raise NotRecordableError(f"{func} would not be the same in each step")
        kwargs = kwargs or {}
        args_there = [self._with_places(each) for each in args]
        kwargs_there = {key: self._with_places(each) for key, each in kwargs.items()}
        result = func(*args, **kwargs)
        self._calls.append(Call(func, args_there, kwargs_there, self._with_places(result, are_made=True)))
        return result

    def _with_places(self, value: Any, are_made: bool = False) -> Any:
        """Return a value with places for tensors.

        Args:
            value: What an operation takes or returns.
            are_made: Whether memory that was not seen yet was made by the operation.
        """
        if isinstance(value, Tensor):
            return self._place(value, are_made)
        if isinstance(value, list | tuple):
            return [self._with_places(each, are_made) for each in value]
        if isinstance(value, torch.Generator):
            self._generator(value)
        return value

    def _generator(self, generator: torch.Generator) -> None:
        if generator not in self._generators:
            self._generators[generator] = generator.get_state()

    def _place(self, tensor: Tensor, is_made: bool) -> Place:
        known = self._places.get(id(tensor))
        if known is not None and known[1]() is tensor:
            return known[0]
        memory = self._memory(tensor.untyped_storage(), is_made)
        place = Place(
            memory,
            int(tensor.storage_offset()),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor.is_conj(),
            tensor.is_neg(),
        )
        self._places[id(tensor)] = place, weakref.ref(tensor)
        if memory not in self._made and place not in self._tensors:
            self._tensors[place] = tensor.detach()
        return place

    def _memory(self, storage: torch.UntypedStorage, is_made: bool) -> int:
        """Return a number for memory that nothing else has or had."""
        memory: int = storage._cdata
        if memory in self._made or memory in self._outside:
            return memory
        self._bytes += storage.nbytes()
        if self._bytes > self._most_bytes:
            raise TooMuchError(f"it makes more than {self._most_bytes} bytes")
        if is_made:
            self._made[memory] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        else:  # also of what is only read: not each operation says what it changes (BatchNorm's statistics)
            self._outside[memory] = storage
            self._before[memory] = storage.clone()  # type: ignore[no-untyped-call]
        return memory

    def put_back(self) -> None:
        """Give what is outside the content that it had."""
        for memory, content in self._before.items():
            self._outside[memory].copy_(content)
        for generator, state in self._generators.items():
            generator.set_state(state)

    def function(self, *, proven: bool) -> Callable[[], None]:
        """Return what performs the operations again. What was made, and nobody holds now, is made anew each time.

        Args:
            proven: Whether it is made sure of that this gives what they have given.

        Raises:
            NotRecordableError: It gives something else.
        """
        lasting = {memory: storage for memory, weak in self._made.items() if (storage := _held(weak)) is not None}
        if proven:
            results = [*self._outside.values(), *lasting.values()]
            given = [_content(each).clone() for each in results]
            self.put_back()
            with torch.no_grad():
                function_of(self._calls, self._tensors, lasting, are_spoilt=True)()
            if not all(torch.equal(_content(each), then) for each, then in zip(results, given, strict=True)):
                raise NotRecordableError("its operations alone do not give what it gave: it computes past torch")
        return function_of(self._calls, self._tensors, lasting)


def _held(memory: StorageWeakRef) -> torch.UntypedStorage | None:
    """Return memory, if somebody holds it."""
    if memory.expired():  # type: ignore[no-untyped-call]
        return None
    storage: torch.UntypedStorage = torch.UntypedStorage._new_with_weak_ptr(memory.cdata)
    return storage


def _content(storage: torch.UntypedStorage) -> Tensor:
    """Return the bytes of memory."""
    return torch.empty(0, dtype=torch.uint8).set_(storage)


@cache
def _differs(operation: OpOverload) -> bool:
    """Return whether what an operation returns may differ from step to step in more than the values of tensors."""
    name = operation._schema.name
    return not _OF_VALUES.isdisjoint(operation.tags) or name in _OF_NUMBERS or name in _OTHER_PLACES
