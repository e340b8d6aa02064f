"""Writes lines of a recipe to paste: they add to ``prepare`` and ``leave_out``, and keep what these say already."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

import attrs

from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.pairing import Pairing
from trainkit_ptychography.scans.prepare import Prepare

_Settings = TypeVar("_Settings", Prepare, LeaveOut)


class Lines:
    """Writes lines, each of which takes the place of the recipe's, so that the last one holds what all of them add.

    Args:
        prepare: What the recipe says.
        leave_out: What the recipe says.
    """

    def __init__(self, prepare: Prepare | None = None, leave_out: LeaveOut | None = None) -> None:
        self._prepare, self._leave_out = prepare or Prepare(), leave_out or LeaveOut()

    @property
    def changed_preparation(self) -> dict[str, Any]:
        """Settings of ``prepare`` that are not the default, after all that was added."""
        return _said(self._prepare)

    def prepare(self, **new: Any) -> str:
        """Return ``prepare = { … }`` with new settings; what is new in a list is added to it."""
        self._prepare = _added(self._prepare, new)
        return _line("prepare", self._prepare)

    def pairing(self, pairing: Pairing) -> str:
        """Return ``pairing = { … }``; it takes the place of the recipe's."""
        return _line("pairing", pairing)

    def leave_out(self, **new: Any) -> str:
        """Return ``leave_out = { … }`` with new settings; what is new in a list is added to it."""
        self._leave_out = _added(self._leave_out, new)
        return _line("leave_out", self._leave_out)


def _added(settings: _Settings, new: dict[str, Any]) -> _Settings:
    changed: _Settings = attrs.evolve(
        cast(Any, settings), **{name: _together(getattr(settings, name), value) for name, value in new.items()}
    )
    return changed


def _together(old: Any, new: Any) -> Any:
    """Return a new value, or an old list with what is new in it."""
    if not isinstance(new, list | tuple):
        return new
    known = {_written(each) for each in old}
    return (*old, *(each for each in new if _written(each) not in known))


def _said(settings: Prepare | LeaveOut | Pairing) -> dict[str, Any]:
    fields = attrs.fields(cast(Any, type(settings)))
    return {each.name: value for each in fields if (value := getattr(settings, each.name)) != each.default}


def _line(key: str, settings: Prepare | LeaveOut | Pairing) -> str:
    said = [f"{name} = {_written(value)}" for name, value in _said(settings).items()]
    return f"{key} = {{ {', '.join(said)} }}"


def _written(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).lower()  # true, nan, -inf, 1e-05
