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
from pathlib import Path
from typing import NamedTuple

from trainkit import registry
from trainkit.errors import ComponentError, did_you_mean
from trainkit.registry import RegisteredComponent

PACKAGE = "trainkit"
TIME_LIMIT = 15.0  # seconds, for the import of one component

_Registered = tuple[str, RegisteredComponent]
"""An entry-point group, and a component in it."""


class Seen(NamedTuple):
    """What was found out about a component.

    Attributes:
        text: The first sentence of its docstring; empty if it cannot be imported.
        error: Why it cannot be used; None: it can.
        remarks: What else is worth knowing about it.
    """

    text: str
    error: str | None
    remarks: tuple[str, ...] = ()


def look_at(components: Iterable[_Registered]) -> dict[_Registered, Seen]:
    """Return what there is to say about components, in the order in which they are given."""
    components = list(components)
    foreign = [each for each in components if each[1].package != PACKAGE]
    found = {each: _described(*each) for each in components if each[1].package == PACKAGE}
    packages: dict[str, list[_Registered]] = {}
    for each in foreign:
        packages.setdefault(each[1].package, []).append(each)
    for several in packages.values():
        found |= _look_elsewhere(several)
    return {each: found[each] for each in components}


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


# ---- in a process of its own ----------------------------------------------------------------------------------------


def _look_elsewhere(components: Sequence[_Registered]) -> dict[_Registered, Seen]:
    """Return what there is to say about components of a package, each of which may end the process that imports it."""
    found: dict[_Registered, Seen] = {}
    left = list(components)
    while left:
        lines, ending = _run(left)
        for each, line in zip(left, lines, strict=False):
            found[each] = Seen(line["text"], line["error"], tuple(line["remarks"]))
        left = left[len(lines) :]
        if left:  # the first of them ended the process, or was not finished in time
            found[left[0]] = Seen("", f"{left[0][1].value} cannot be imported: {ending}")
            left = left[1:]
    return found


def _run(components: Sequence[_Registered]) -> tuple[list[dict[str, str]], str]:
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
            watch = _Watch()
            try:
                seen = _described(group, RegisteredComponent(*each))
            except KeyboardInterrupt:
                seen = Seen("", "its import raises KeyboardInterrupt")
            remarks = [*registry.side_effects(each[1].partition(":")[0]), *watch.changes()]
            line = {"text": seen.text, "error": seen.error, "remarks": remarks}
            answers.write(json.dumps(line) + "\n")
            answers.flush()


class _Watch:
    """Sees what an import changes for the whole process."""

    def __init__(self) -> None:
        self._before = self._state()

    def changes(self) -> list[str]:
        """Return a sentence for each change."""
        found = []
        for what, (value, beginning) in self._state().items():
            before = self._before[what][0] if what in self._before else beginning
            if value != before:
                found.append(f"its import changes {what}: {before} → {value}")
        return found

    def _state(self) -> dict[str, tuple[str, str]]:
        """Return what a well-behaved import leaves alone: its name -> how it is, and how Python or torch begin."""
        import random
        import signal
        from hashlib import sha256

        drawn = sha256(repr(random.getstate()).encode()).hexdigest()[:8]
        found = {
            "the working directory": (os.getcwd(), os.getcwd()),
            "the state of Python's random numbers": (drawn, drawn),
            "what Ctrl-C does": (str(signal.getsignal(signal.SIGINT)), ""),
            "what SIGTERM does": (str(signal.getsignal(signal.SIGTERM)), ""),
        }
        if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_default_device"):
            found["torch's default device"] = (str(torch.get_default_device()), "cpu")
            found["whether torch computes gradients"] = (str(torch.is_grad_enabled()), "True")
            found["whether torch is deterministic"] = (str(torch.are_deterministic_algorithms_enabled()), "False")
        return found
