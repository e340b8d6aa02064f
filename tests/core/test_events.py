"""Hooks are called by phase, then as they ask with `before` and `after`, then in the order of the recipe."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from trainkit import ComponentError, Context, Hook, Logger, component
from trainkit.events import fire, listeners, order

CONTEXT = Context(seed=0, device=torch.device("cpu"), folder=Path())


@component
class Plain(Hook):
    """A hook that notes its name when a step ends."""

    name: str = "plain"

    def build(self, context: Context) -> object:
        return type("Live", (), {"on_step_end": lambda _, state: state.seen.append(self.name)})()


@component
class Scale(Plain):
    phase: ClassVar[Any] = "mutate"


@component
class Write(Logger):
    name: str = "write"

    def build(self, context: Context) -> object:
        return Plain(name=self.name).build(context)


@component
class BeforeAverage(Plain):
    before: ClassVar[tuple[str, ...]] = ("average",)


@component
class AfterAverage(Plain):
    after: ClassVar[tuple[str, ...]] = ("average",)


@component
class BeforeLast(Plain):
    before: ClassVar[tuple[str, ...]] = ("last", "not_in_this_recipe")


def called(hooks: dict[str, Hook]) -> list[str]:
    """Return the names that the built hooks note when a step ends."""
    state: Any = SimpleNamespace(seen=[])
    fire(listeners({name: hooks[name].build(CONTEXT) for name in order(hooks)})["step_end"], state)
    return state.seen


@pytest.mark.parametrize("names", [*permutations(["first", "average", "last"])])
def test_before_and_after_hold_wherever_the_recipe_has_the_hooks(names: tuple[str, ...]) -> None:
    kinds = {"first": BeforeAverage, "average": Plain, "last": AfterAverage}
    assert called({f"hooks.{name}": kinds[name](name=name) for name in names}) == ["first", "average", "last"]


def test_what_asks_for_nothing_is_called_as_the_recipe_has_it() -> None:
    names = ["c", "a", "d", "b"]
    assert called({f"hooks.{name}": Plain(name=name) for name in names}) == names


def test_a_hook_that_changes_the_run_comes_before_all_that_look_and_a_logger_after_them() -> None:
    hooks = {"loggers.write": Write(), "hooks.first": BeforeAverage(name="first"), "hooks.scale": Scale(name="scale")}
    assert called(hooks) == ["scale", "first", "write"]


def test_only_hooks_of_one_phase_are_ordered_and_names_that_are_not_there_do_not_matter() -> None:
    hooks: dict[str, Hook] = {
        "hooks.average": Scale(name="average"),
        "hooks.first": BeforeAverage(name="first"),
        "hooks.x": BeforeLast(name="x"),
    }
    assert called(hooks) == ["average", "first", "x"]


def test_hooks_that_contradict_each_other_are_named() -> None:
    hooks: dict[str, Hook] = {"hooks.average": BeforeLast(name="average"), "hooks.last": BeforeAverage(name="last")}
    with pytest.raises(ComponentError, match=r"hooks\.(average|last) -> hooks\.(average|last)"):
        order(hooks)
