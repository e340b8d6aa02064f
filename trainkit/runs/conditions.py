"""Conditions by which runs are chosen and ordered: ``groups.dr.lr>0.1``, ``state=finished``, ``val/dice>=0.8``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import tomli

from trainkit.errors import RecipeError, did_you_mean
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import NOT_SET

_CONDITION = re.compile(r"\s*(.+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

FIELDS: Mapping[str, Callable[[RunRecord], Any]] = {
    "name": lambda run: run.name,
    "id": lambda run: run.id,
    "state": lambda run: run.state.name,
    "epochs": lambda run: run.values.epochs,
    "steps": lambda run: run.values.steps,
    "best": lambda run: NOT_SET if run.best is None else run.best.value,
    "seconds": lambda run: run.seconds,
    "created": lambda run: run.identity.created,
    "parent": lambda run: NOT_SET if run.parent is None else run.parent.run,
}
"""What can be asked for besides settings and values: name -> what a run has there."""


@attrs.frozen
class Condition:
    """A condition on a run.

    Attributes:
        key: A field, a setting, or the name of a value, of which the last one counts.
        relation: "=", "!=", "<", "<=", ">" or ">=".
        value: What it is compared with.
        text: How the condition was written.
    """

    key: str
    relation: str
    value: Any
    text: str

    def holds(self, run: RunRecord) -> bool:
        """Return whether a run fulfils the condition; one without such a key fulfils "!=" alone.

        Raises:
            RecipeError: The values have no order.
        """
        here = value_of(run, self.key)
        if self.relation in ("=", "!="):
            return _equal(here, self.value) == (self.relation == "=")
        if here is NOT_SET:
            return False
        if not _is_ordered(here, self.value):
            raise RecipeError(f"--where '{self.text}': {self.key} is {here!r} in {run.folder}, which is no number")
        return bool(_COMPARE[self.relation](here, self.value))


def read_condition(text: str) -> Condition:
    """Return the condition that a text describes.

    Raises:
        RecipeError: It describes none.

    Example:
        >>> found = read_condition("groups.dr.lr>0.1")
        >>> found.key, found.relation, found.value
        ('groups.dr.lr', '>', 0.1)
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise RecipeError(f"--where '{text}': write KEY=VALUE or, for example, groups.dr.lr>0.1 (in quotes)")
    key, relation, written = found.groups()
    value = _value(written)
    if relation in _COMPARE and not isinstance(value, int | float) and key != "created":
        raise RecipeError(f"--where '{text}': \"{written}\" is no number")
    return Condition(key, "=" if relation == "==" else relation, value, text)


def _value(written: str) -> Any:
    try:
        return tomli.loads(f"value = {written}")["value"]
    except tomli.TOMLDecodeError:
        return written


def value_of(run: RunRecord, key: str) -> Any:
    """Return a field, a setting, or the last value of a name; `NOT_SET`: the run has none."""
    if key in FIELDS:
        return FIELDS[key](run)
    if key in run.settings:
        return run.settings[key]
    last = run.values.last(key) if "/" in key else None
    return NOT_SET if last is None else last.value


def refuse_unknown_keys(keys: Iterable[str], runs: Sequence[RunRecord], option: str) -> None:
    """Refuse keys that no run has, which are misspelt.

    Raises:
        RecipeError: A key is unknown; the message says which one may be meant.
    """
    for key in keys:
        if runs and key not in FIELDS and all(value_of(run, key) is NOT_SET for run in runs):
            known = {*FIELDS, *(each for run in runs for each in (*run.settings, *run.values.names))}
            raise RecipeError(f'{option}: no run has "{key}"; {_hint(key, known)}')


def _hint(key: str, known: set[str]) -> str:
    ending = sorted(each for each in known if each.endswith(f".{key}") or each.endswith(f"/{key}"))
    if ending:
        return f"did you mean {' or '.join(ending[:4])}?"
    hint = did_you_mean(key, known)
    return hint if hint.startswith("did") else "write a setting such as optimizer.lr, or one of " + ", ".join(FIELDS)


def _equal(here: Any, value: Any) -> bool:
    if isinstance(here, bool) or isinstance(value, bool):
        return here is value
    return bool(here == value) or (isinstance(here, str) and here == str(value))


def _is_ordered(here: Any, value: Any) -> bool:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (here, value))
    return numbers or (isinstance(here, str) and isinstance(value, str))
