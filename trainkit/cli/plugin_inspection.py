"""Looks at installed components: what each does, and what is wrong with it.

Those of trainkit itself are imported here. Those of others are imported in a process of their own, with a time limit:
what hangs, ends the process, prints, or changes something for all, does so there, and is pointed out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from trainkit import registry
from trainkit.errors import ComponentError, did_you_mean
from trainkit.registry import RegisteredComponent

PACKAGE = "trainkit"
_AT_ONCE = 4  # packages
TIME_LIMIT = 15.0  # seconds, for the import of one component

_Registered = tuple[str, RegisteredComponent]
"""An entry-point group, and a component in it."""


class Seen(NamedTuple):
    """What was found out about a component.

    Attributes:
        text: The first sentence of its docstring; empty if it cannot be imported.
        error: Why it cannot be used; None: it can.
        remarks: What else is worth knowing about it.
        is_harmful: Whether its import ends the process, or does not come to an end.
    """

    text: str
    error: str | None
    remarks: tuple[str, ...] = ()
    is_harmful: bool = False


def look_at(components: Iterable[_Registered]) -> dict[_Registered, Seen]:
    """Return what there is to say about components, in the order in which they are given."""
    components = list(components)
    foreign = [each for each in components if each[1].package != PACKAGE]
    found = {each: _described(*each) for each in components if each[1].package == PACKAGE}
    packages: dict[str, list[_Registered]] = {}
    for each in foreign:
        packages.setdefault(each[1].package, []).append(each)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for seen in threads.map(_look_elsewhere, packages.values()):
            found |= seen
    return {each: found[each] for each in components}


def refuse_harmful(groups: Iterable[str]) -> None:
    """Have components never be imported here that end or stop the process which imports them.

    A command that imports all components of some kinds calls it first. What merely fails to be imported is left to it.

    Args:
        groups: The entry-point groups of these kinds.
    """
    foreign = [(group, each) for group in groups for each in registry.registered(group) if each.package != PACKAGE]
    for (_, component), seen in look_at(foreign).items():
        if seen.is_harmful and seen.error is not None:
            registry.refuse(component, seen.error.partition("cannot be imported: ")[2] or seen.error)


def _described(group: str, component: RegisteredComponent) -> Seen:
    """Return what is to say about a component that can be imported without harm."""
    from trainkit.recipe.docstrings import first_sentence

    try:
        cls = component.load()
    except ComponentError as error:
        return Seen("", str(error))
    return Seen(first_sentence(cls), _misplaced(group, component, cls))


def _misplaced(group: str, component: RegisteredComponent, cls: type) -> str | None:
    """Return why a class cannot be used as what it is registered as; None: it can."""
    from trainkit.contracts import KINDS, Component

    if not issubclass(cls, Component):
        return f"{component.value} is no component: it derives from no kind of trainkit"
    own = getattr(cls, "entry_points", None)
    if own == group:
        return None
    known = {each.entry_points for each in KINDS} | {each for each in (own,) if each}  # type: ignore[attr-defined]
    said = f"{component.package} registers it in {group}, but its kind is looked for in {own}"
    return (
        said if group in known else f"{said}; no kind of component has the group {group}: {did_you_mean(group, known)}"
    )


def unknown_groups() -> list[str]:
    """Return a sentence for each component that is registered in a group which no kind of component has."""
    from trainkit.contracts import KINDS

    found = []
    known = {each.entry_points for each in KINDS}  # type: ignore[attr-defined]
    groups = registry.entry_point_groups()
    known |= {group for group in groups if any(each.package == PACKAGE for each in registry.registered(group))}
    for group in groups:
        near = get_close_matches(group, known, n=1, cutoff=0.8)
        if group not in known and near:
            found += [
                f'"{each.name}" of {each.package} is registered in {group}; did you mean "{near[0]}"?'
                for each in registry.registered(group)
            ]
    return found


# ---- in a process of its own ----------------------------------------------------------------------------------------


def _look_elsewhere(components: Sequence[_Registered]) -> dict[_Registered, Seen]:
    """Return what there is to say about components of a package, each of which may end the process that imports it."""
    found: dict[_Registered, Seen] = {}
    left = list(components)
    while left:
        lines, ending = _run(left)
        for each, line in zip(left, lines, strict=False):
            found[each] = Seen(line["text"], line["error"], tuple(line["remarks"]), line["is_harmful"])
        left = left[len(lines) :]
        if left:  # the first of them ended the process, or was not finished in time
            found[left[0]] = Seen("", f"{left[0][1].value} cannot be imported: {ending}", is_harmful=True)
            left = left[1:]
    return found


def _run(components: Sequence[_Registered]) -> tuple[list[dict[str, Any]], str]:
    """Import components in a new process; return what it said of each before it ended, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder, "answers")
        answers.touch()
        named = json.dumps([[group, *each] for group, each in components])
        child = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import answer; answer()", named, str(answers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        limit = TIME_LIMIT * len(components) if len(components) > 1 else TIME_LIMIT
        try:
            code = child.wait(min(limit, 2 * TIME_LIMIT))
            ending = f"the process that imports it ends with exit code {code}"
        except subprocess.TimeoutExpired:
            ending = f"its import takes longer than {TIME_LIMIT:g} s"
        finally:
            child.kill()
            child.wait()
        lines = [line for line in answers.read_text(encoding="utf-8").split("\n")[:-1] if line]
        return [json.loads(line) for line in lines], ending


def answer() -> None:
    """Import the components that the command line names, and write a line about each; the main function of `_run`."""
    named, file = sys.argv[1:]
    with open(file, "a", encoding="utf-8") as answers:
        for group, *each in json.loads(named):
            try:
                seen = _described(group, RegisteredComponent(*each))
            except KeyboardInterrupt:
                seen = Seen("", "its import raises KeyboardInterrupt", is_harmful=True)
            remarks = registry.side_effects(each[1].partition(":")[0])
            line = {"text": seen.text, "error": seen.error, "remarks": remarks, "is_harmful": seen.is_harmful}
            answers.write(json.dumps(line) + "\n")
            answers.flush()
