"""Operations of torch that were taken down, as a function that performs them: one call after the other, no branches.

def repeat():
v0 = f0(c0, 1)         v…: what an operation makes; freed after its last use, as in the step that was taken down
v1 = f1(v0, c1)        c…: tensors that are there all the time, and other arguments
del v0
f2(v1, c2, out=c3)     what somebody holds after the step is written to where it was
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor
from torch._ops import OpOverload

_NOBODYS = 0xEE  # each byte of memory that nobody may read before writing to it


class NotRecordableError(RuntimeError):
    """A step cannot be taken down, because an operation would not be the same in the next one."""


class TooMuchError(NotRecordableError):
    """A step makes so much that its Python does not count."""


class Place(NamedTuple):
    """A tensor: its memory, and how it lies there.

    Attributes:
        memory: A number for its storage.
    """

    memory: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_conj: bool
    is_neg: bool


@attrs.frozen
class Call:
    """An operation that was performed.

    Attributes:
        operation: The operation.
        args: Its arguments, with places for tensors.
        kwargs: Those by name.
        result: What it returned, with places for tensors.
    """

    operation: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any


def function_of(
    calls: Sequence[Call],
    outside: Mapping[Place, Tensor],
    lasting: Mapping[int, torch.UntypedStorage],
    *,
    are_spoilt: bool = False,
) -> Callable[[], None]:
    """Return a function that performs operations again.

    Args:
        calls: The operations.
        outside: The tensors whose memory no operation has made.
        lasting: The memory that operations have made, and that has to have the values that they make.
        are_spoilt: Whether memory that an operation makes without values gets some that nobody can have meant.

    Raises:
        NotRecordableError: An operation has a tensor of which it is not known where it comes from.
    """
    writer = _Writer(outside, lasting, are_spoilt)
    for call in calls:
        writer.add(call)
    return writer.function()


@attrs.frozen
class _Line:
    """A line of the function.

    Attributes:
        text: The line.
        variables: What is used in it, or made.
    """

    text: str
    variables: tuple[str, ...]


class _Writer:
    def __init__(
        self, outside: Mapping[Place, Tensor], lasting: Mapping[int, torch.UntypedStorage], are_spoilt: bool
    ) -> None:
        self._there, self._lasting, self._are_spoilt = dict(outside), lasting, are_spoilt
        self._variables: dict[Place, str] = {}
        self._constants: dict[str, Any] = {}
        self._names: dict[int, str] = {}  # by what a constant is
        self._lines: list[_Line] = []

    def add(self, call: Call) -> None:
        """Write down an operation."""
        if call.operation.namespace == "profiler":
            return
        effect = effect_of(call.operation)
        made = list(places_in(call.result))
        if effect == "view" and all(self._is_there(each) or each in self._variables for each in made):
            return
        used: list[str] = []
        arguments = [self._text(each, used) for each in call.args]
        arguments += [f"{name}={self._text(each, used)}" for name, each in call.kwargs.items()]
        if effect == "writes" or not made:
            self._write(self._called(call.operation, arguments), used)
            return
        if isinstance(call.result, Place) and self._is_there(call.result):
            goal = self._constant(self._there[call.result])
            if "empty" in call.operation._schema.name:  # what is there now will do
                self._spoil(goal, ())
                return
            # A loss with a reduction makes an `out` of no axes as large as its arguments first, and warns of that.
            if call.result.shape and (with_out := _that_writes_to(call.operation)) is not None:
                self._write(self._called(with_out, [*arguments, f"out={goal}"]), used)
            else:
                self._write(f"{goal}.copy_({self._called(call.operation, arguments)})", used)
            return
        copies: dict[str, str] = {}
        goals = self._goals(call.result, copies)
        variables = [*used, *(each for each in goals if each != "_")]
        goal = ", ".join(goals) + ("," if isinstance(call.result, list) else "")
        self._write(f"{goal} = {self._called(call.operation, arguments)}", variables)
        for lasting, variable in copies.items():
            self._write(f"{lasting}.copy_({variable})", [variable])
        if "empty" in call.operation._schema.name:
            self._spoil(goals[0], goals)

    def function(self) -> Callable[[], None]:
        """Return the function."""
        last = {each: number for number, line in enumerate(self._lines) for each in line.variables}
        text = [f"def make({', '.join(self._constants)}):", "    def repeat():", "        pass"]
        for number, line in enumerate(self._lines):
            text.append(f"        {line.text}")
            if over := [each for each in dict.fromkeys(line.variables) if last[each] == number]:
                text.append(f"        del {', '.join(over)}")
        text.append("    return repeat")
        made: dict[str, Any] = {}
        exec("\n".join(text), made)  # nothing but the names and numbers that are written above
        repeat: Callable[[], None] = made["make"](*self._constants.values())
        return repeat

    def _spoil(self, goal: str, variables: Sequence[str]) -> None:
        if self._are_spoilt:
            self._write(f"{goal}.untyped_storage().fill_({_NOBODYS})", variables)

    def _write(self, text: str, variables: Sequence[str]) -> None:
        self._lines.append(_Line(text, tuple(variables)))

    def _called(self, operation: OpOverload, arguments: Sequence[str]) -> str:
        # The overload itself, because what is around it in Python takes a quarter of the time of a small operation.
        return f"{self._constant(operation._op)}({', '.join(arguments)})"

    def _goals(self, result: Any, copies: dict[str, str]) -> list[str]:
        """Return the variables to which the results of an operation go.

        Args:
            result: What it returned.
            copies: Receives the names of what lasts, and the variables from which it is copied.
        """
        goals = []
        for each in result if isinstance(result, list) else [result]:
            if not isinstance(each, Place):
                if any(places_in(each)):
                    raise NotRecordableError("an operation returns lists of tensors beside others")
                goals.append("_")
                continue
            variable = f"v{len(self._variables)}"
            if each in self._variables or self._is_there(each):
                variable = f"w{len(self._lines)}_{len(goals)}"
            if self._is_there(each):
                copies[self._constant(self._there[each])] = variable
            self._variables.setdefault(each, variable)
            goals.append(variable)
        return goals

    def _is_there(self, place: Place) -> bool:
        """Return whether a tensor is there all the time."""
        if place not in self._there and (storage := self._lasting.get(place.memory)) is not None:
            tensor = torch.empty(0, dtype=place.dtype).set_(storage, place.offset, place.shape, place.stride)
            if place.is_conj or place.is_neg:
                tensor = torch._conj(tensor) if place.is_conj else torch._neg_view(tensor)
            self._there[place] = tensor
        return place in self._there

    def _text(self, value: Any, used: list[str]) -> str:
        """Return an argument as it is written, and take note of variables in it."""
        if isinstance(value, Place):
            if self._is_there(value):
                return self._constant(self._there[value])
            if value not in self._variables:
                raise NotRecordableError(f"it is not known where a tensor of shape {value.shape} comes from")
            used.append(self._variables[value])
            return self._variables[value]
        if isinstance(value, list):
            return f"[{', '.join(self._text(each, used) for each in value)}]"
        if value is None or isinstance(value, bool | int):
            return repr(value)
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        if id(value) not in self._names:
            self._names[id(value)] = name = f"c{len(self._constants)}"
            self._constants[name] = value  # which keeps it, and so its number
        return self._names[id(value)]


def places_in(value: Any) -> Iterator[Place]:
    """Yield the places in what an operation takes or returns."""
    if isinstance(value, Place):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from places_in(each)


@cache
def effect_of(operation: OpOverload) -> Literal["writes", "view", "new"]:
    """Return whether an operation only changes arguments, or returns views of one, or makes new tensors."""
    schema = operation._schema
    makes = any(each.alias_info is None for each in schema.returns)
    if any(each.alias_info is not None and each.alias_info.is_write for each in schema.arguments):
        return "new" if makes else "writes"
    return "new" if makes or not schema.returns else "view"  # what returns nothing is a check, for example


@cache
def _that_writes_to(operation: OpOverload) -> OpOverload | None:
    """Return the overload of an operation that writes its result into a tensor; None: there is none."""
    wanted = [(each.name, str(each.type)) for each in operation._schema.arguments]
    packet = operation.overloadpacket
    for each in (getattr(packet, name) for name in packet.overloads()):
        arguments = each._schema.arguments
        others = [(argument.name, str(argument.type)) for argument in arguments if not argument.is_out]
        if others == wanted and [argument.name for argument in arguments if argument.is_out] == ["out"]:
            found: OpOverload = each
            return found
    return None
