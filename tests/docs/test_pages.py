"""The documentation does what it says: its commands and code are run, its recipes checked.

`tests/docs/pages.py` says how a page tells which of its blocks are run.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli
from clients.warm import Warm
from without_geometry_search import no_geometry_search
from without_pictures import no_pictures_of_ptychography

from docs import presumed
from docs.commands import Line, arguments_of, lines, mistake_in, recipes_and_sets
from docs.pages import NOTE, PAGES, ROOT, RUN, Block, blocks, commands_in_text, named, tokens
from trainkit import RecipeError
from trainkit.recipe.resolve import resolve, resolve_all
from trainkit.recipe.shipped import shipped

NOT_RECIPES = ("pyproject.toml", "tombi.toml")


def shell(block: Block) -> str:
    """Return the commands of a block, each on the line where it stands."""
    if block.language == "console":
        return "\n".join(line[2:] if line.startswith("$ ") else "" for line in block.text.splitlines())
    return block.text if block.language == "sh" else ""


def calls(block: Block) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the arguments of each call of trainkit in a block, with the number of the line in the page."""
    for line in lines(shell(block)):
        for call in line.calls:
            if (arguments := arguments_of(call)) is not None:
                yield block.line + line.number, arguments


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_names_its_language(page: Path) -> None:
    assert [block.place for block in blocks(page) if not block.language] == []


def unknown_commands(page: Path) -> list[str]:
    """Return what is wrong with commands of a page, each with its line."""
    wrong = []
    for block in blocks(page):
        for number, arguments in calls(block):
            if mistake := mistake_in(arguments):
                wrong.append(f"{named(page)}:{number}: trainkit {' '.join(arguments)}: {mistake}")
    for number, text in commands_in_text(page):
        for line in lines(re.sub(r"\s*…", "", text)):
            arguments = arguments_of(line.calls[0])
            if arguments and (mistake := mistake_in(arguments, whole=False)):
                wrong.append(f"{named(page)}:{number}: {text}: {mistake}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    assert unknown_commands(page) == []


@pytest.mark.parametrize("page", RUN, ids=named)
def test_settings_of_commands_that_are_not_run_are_those_of_the_recipe(page: Path) -> None:
    for block in blocks(page):
        for number, arguments in calls(block):
            if block.not_run and arguments[0] in ("check", "plan", "run", "slurm", "tune"):
                given, sets = recipes_and_sets(arguments)
                for path in given:
                    name = presumed.OTHER_NAMES.get(path.name, path.stem)
                    if name in shipped():
                        assert refused(shipped()[name], sets) == "", f"{named(page)}:{number}"


def refused(recipe: Path, sets: list[str]) -> str:
    """Return what is wrong with a recipe, or ""; data that it leaves to the reader may be anywhere."""
    try:
        resolve_all([recipe], sets)
    except RecipeError as error:
        if '"path" is missing' not in str(error):
            return str(error)
        try:
            resolve_all([recipe], ["data.path=somewhere", *sets])
        except RecipeError as still:
            return str(still)
    return ""


def needs_a_path(name: str) -> bool:
    """Return whether a recipe leaves it to the reader where the data are."""
    try:
        resolve(shipped()[name])
    except RecipeError as error:
        return '"path" is missing' in str(error)
    return False


def composed(block: Block, folder: Path) -> Path:
    """Write a part of a recipe onto that recipe, each line with the number that it has in the page."""
    base, path = folder / "base.toml", folder / block.page.with_suffix(".toml").name
    lines = [f'extends = ["{shipped()[block.onto]}"]', f"drop = {json.dumps(block.without)}"]
    lines += ['data.path = "somewhere"'] * needs_a_path(block.onto)
    base.write_text("\n".join(lines), encoding="utf-8")
    path.write_text("\n" * (block.line - 2) + 'extends = ["base.toml"]\n' + block.text, encoding="utf-8")
    return path


TABLES = [block for page in RUN for block in blocks(page) if block.language == "toml" and not block.not_run]


@pytest.mark.parametrize("block", TABLES, ids=lambda block: block.place)
def test_tables_of_a_recipe_are_without_mistakes(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert block.onto or block.title, "say of which recipe it is a part: <!-- onto NAME -->, or which file it is"
    if block.onto:
        for other in blocks(block.page):  # code that it may name
            if other.language == "python" and other.title:
                (tmp_path / other.title).write_text(other.text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        with modules_of_their_own(tmp_path):
            resolve(composed(block, tmp_path))
    else:
        tomli.loads(block.text)  # a whole recipe is checked where its page is run


@contextmanager
def modules_of_their_own(folder: Path) -> Iterator[None]:
    """Forget the modules of a folder afterwards."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
        for name, module in list(sys.modules.items()):
            if str(folder) in (getattr(module, "__file__", None) or ""):
                del sys.modules[name]


class Reader:
    """Someone who follows a page from top to bottom in a folder."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.not_run:
            if block.language == "python":
                compile(block.padded, self.page, "exec")
        elif block.title:
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
            if block.language == "toml" and block.title not in NOT_RECIPES:
                resolve_all([Path(block.title)])
        elif block.language == "sh":
            for line in lines(block.text):
                self.type(line, f"{named(self.page)}:{block.line + line.number}")
        elif block.language == "python":
            try:
                exec(compile(block.padded, self.page, "exec"), self.names)
            except Exception as error:
                frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(self.page)]
                at = frames[-1].lineno if frames else block.line
                pytest.fail(f"{named(self.page)}:{at}: {type(error).__name__}: {error}")
        elif block.language == "json":
            json.loads(block.text)

    def type(self, line: Line, place: str) -> None:
        """Run a line of shell; calls of trainkit in this process, which has imported torch."""
        arguments = arguments_of(line.calls[0])
        if arguments is not None and len(line.calls) == 1:
            code, said = trainkit(arguments, self.folder / line.out if line.out else None)
        else:
            done = subprocess.run(["bash", "-c", line.text], capture_output=True, text=True, timeout=300)
            code, said = done.returncode, done.stdout + done.stderr
        if code not in (0, 3):  # 3: small data are too noisy for a result that nobody doubts
            pytest.fail(f"{place}: exit code {code}: {line.text.strip()}\n{said[-3000:]}")


def trainkit(arguments: tuple[str, ...], out: Path | None = None) -> tuple[int, str]:
    """Run the command line: exit code and output."""
    from trainkit.cli import main

    said, errors, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["trainkit", *arguments])
        patch.setattr("trainkit.cli.ignore_from_now_on", lambda: None)  # signals of the tests themselves
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    if out is not None:
        out.write_text(said.getvalue(), encoding="utf-8")
    return code, said.getvalue() + errors.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of a reader who has the recipes, made small, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("PATH", os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "home").mkdir()
    found = presumed.recipes(tmp_path)
    for module in ("recipe.shipped", "recipe.layers", "interactive.run"):
        monkeypatch.setattr(f"trainkit.{module}.shipped", lambda: found)
    with no_pictures_of_ptychography(), no_geometry_search(), presumed.graphs_of_one_size():
        yield tmp_path


def is_run(page: Path) -> bool:
    """Return whether a page has anything to do for a reader."""
    return any(
        not block.not_run and (block.language in ("sh", "python") or (block.language == "toml" and block.title))
        for block in blocks(page)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if is_run(page)], ids=named)
def test_a_reader_can_follow_a_page(page: Path, folder: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.engine.verify.subprocess", warm)  # new processes that need not import torch
    for package in presumed.EXTRAS.get(page.name, ()):
        pytest.importorskip(package)
    presumed.MADE.get(page.name, lambda: None)()
    if (meanwhile := presumed.TRAIN_MEANWHILE.get(page.name)) is not None:
        earlier = len(list(folder.glob("runs/*/*/metrics.jsonl")))
        training = warm.start("run", f"recipes/{meanwhile}.toml", folder=folder)
        while len(list(folder.glob("runs/*/*/metrics.jsonl"))) == earlier:
            assert training.poll() is None, training.stdout
            time.sleep(0.1)
    reader = Reader(page, folder)
    with modules_of_their_own(folder):
        for block in blocks(page):
            reader.follow(block)
            if "trainkit stop" in block.text:  # which ends the run that trains; what follows is about it
                assert training.wait() == 0, training.stdout


STALE = """
Type `trainkit traim x`, or `trainkit run RECIPE --smoke`.

```sh
trainkit run a.toml \\
  --continue
trainkit plan a.toml --colour    # no such option
python -m trainkit check && echo
```

<!-- onto ptycho_staged -->
```toml
[groups.dr]
speed = 1
```

```python
first = 1
second = absent
```
"""


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    page.write_text(STALE, encoding="utf-8")
    return page


def test_a_command_that_is_gone_is_named_with_page_and_line(stale: Path) -> None:
    found = [mistake.partition(": ")[0] for mistake in unknown_commands(stale)]
    assert found == ["page.md:7", "page.md:8", "page.md:2"]


def test_a_key_that_is_gone_is_named_with_page_and_line(stale: Path, tmp_path: Path) -> None:
    (table,) = (block for block in blocks(stale) if block.language == "toml")
    with pytest.raises(RecipeError, match=r"page\.toml:14:1: error: groups\.dr\.speed: unknown key"):
        resolve(composed(table, tmp_path))


def test_code_that_fails_is_named_with_page_and_line(stale: Path, tmp_path: Path) -> None:
    (code,) = (block for block in blocks(stale) if block.language == "python")
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:19: NameError"):
        Reader(stale, tmp_path).follow(code)


def rows_of_tables(page: Path) -> list[tuple[int, str, list[str]]]:
    """Return the settings in the last column of tables that name their recipe: line, recipe, the row's settings."""
    found: list[tuple[int, str, list[str]]] = []
    onto, last_cell, line = "", 0, 0
    for token, inline in pairwise(tokens(page)):
        if token.type == "html_block" and (note := NOTE.search(token.content.strip())):
            onto = note[2]
        elif token.type == "table_close":
            onto = ""
        elif token.type == "tr_open":
            last_cell, line = 0, token.map[0] + 1 if token.map else line
        elif token.type == "td_open":
            last_cell += 1
            if onto and last_cell == 2:
                said = [each.content for each in inline.children or () if each.type == "code_inline"]
                found.append((line, onto, [each for each in said if " = " in each]))
    return found


SETTINGS = rows_of_tables(ROOT / "docs" / "coming_from.md")


@pytest.mark.parametrize("recipe", sorted({recipe for _, recipe, _ in SETTINGS}))
def test_what_takes_the_place_of_another_programs_key_is_a_setting(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ["data.path=somewhere"] * needs_a_path(recipe)
    wrong, count = [], 0
    for line, name, said in SETTINGS:
        for each in said if name == recipe else ():
            count += 1
            key, _, value = each.partition(" = ")
            if key not in ("use", "extends", "drop") and (
                mistake := refused(shipped()[recipe], [*path, f"{key}={value}"])
            ):
                wrong.append(f"docs/coming_from.md:{line}: {each}: {mistake}")
    assert wrong == []
    assert count > 5
