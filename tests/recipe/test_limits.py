"""Recipes that would take for ever, or more memory than there is: each is refused at once, with the limit's name."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recipe_toys import GOOD, toys

from recipe.mutated_recipes import mutated, tried
from trainkit.recipe.limits import MOST_FILES
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d0.toml").write_text(GOOD)
    Path("loop.toml").symlink_to("loop.toml")


def refused(text: str, *sets: str) -> str:
    """The first line that is said about a recipe; saying it must not take long."""
    Path("x.toml").write_text(text)
    began = time.process_time()
    with pytest.raises(InvalidRecipe) as caught:
        resolve("x.toml", sets)
    assert time.process_time() - began < 5  # a second on an idle machine
    assert len(str(caught.value)) < 400_000
    return str(caught.value).splitlines()[0]


def doubling(first: str, following: str) -> str:
    """Settings of which each refers to the one before, several times."""
    lines = [f"a{number} = {following.format('${data.extra.a' + str(number - 1) + '}')}" for number in range(1, 30)]
    return GOOD + "\n".join(["[data.extra]", f"a0 = {first}", *lines])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (doubling('"lol"', '"{0}{0}{0}{0}{0}{0}{0}{0}"'), "expand to more than 1000000 characters"),
        (doubling("[1]", '["{0}", "{0}"]'), "expand to more than 100000 values"),
        (GOOD + "[data.extra]\na0 = 1\n" + "".join(f'a{i + 1} = "${{data.extra.a{i}}}"\n' for i in range(40)),
         "refer to each other more than 32 times in a row"),
        ("[x]\n" + ".".join(["a"] * 400_000) + " = 1\n", "at most 32 tables"),
        ("x = " + "[" * 3000 + "]" * 3000, "at most 32 tables"),
        ("x = " + "{a = " * 150_000, "at most 32 tables"),
        (GOOD + f"[x]\ny = {'9' * 5000}\n", "a word of 5000 characters; a key or a number may have 200"),
        (GOOD + f"[groups.{'k' * 3000}]\n", "a word of 3000 characters; a key or a number may have 200"),
        (GOOD + f'[groups."{"é " * 3000}"]\n', "a key of 6000 characters; it may have 200"),
        (GOOD + "[x]\ny = 9223372036854775808\n", "x.y: a whole number must lie between -2^63 and 2^63 - 1"),
        (GOOD + "[x]\ny = [1, -9223372036854775809]\n", "x.y[1]: a whole number must lie between"),
        (GOOD + f"# {'x' * 1_000_000}\n", "bytes, and a recipe may have 1000000"),
        ('x = """' + '\\"""' * 200_000, "this is not TOML"),
        ("x = " + "''''" * 200_000, "this is not TOML"),
        ('extends = ["~nobody-is-here/x"]\n', "no file can have this name: "),
        ('extends = ["a\\u0000b"]\n', "no file can have this name: "),
        (f'extends = ["{"a" * 5000}"]\n', "no file can have this name: "),
        ('extends = ["loop.toml"]\n', "extends[0]: "),
        (GOOD.replace('"square"', '":x"'), "losses.data.use: \":x\" names no class"),
        (GOOD.replace('"square"', '"..:x"'), "losses.data.use: \"..:x\" names no class"),
        (GOOD + "[x]\ny = \x00\n", "this is not TOML"),
    ],
)  # fmt: skip
def test_a_recipe_that_passes_a_limit_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refused(text)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"run.epochs={'9' * 5000}", "a word of 5000 characters"),
        ("data.extra=" + "[" * 3000 + "]" * 3000, "at most 32 tables"),
        (".".join("a" * 900) + "=1", "a key of 900 parts"),
        ("run.seed=18446744073709551616", "run.seed: a whole number must lie between"),
        ("run.epochs=9223372036854775807", "run.epochs: must be at most 1000000, got 9223372036854775807"),
        ("model.use=..:x", '"..:x" names no class'),
        (f"run.name={'a' * 300}", "run.name: must be a name of a folder, of at most 200 bytes; it has 300"),
        ('run.name="a\\u202eb"', "run.name: must be a valid name of a folder"),
    ],
)
def test_so_is_a_setting_of_the_command_line(setting: str, message: str) -> None:
    said = refused(GOOD, setting)
    assert message in said
    assert said.startswith("--set ")


def test_a_file_that_many_recipes_extend_is_read_once_and_there_may_be_only_so_many_files() -> None:
    for number in range(1, 60):
        Path(f"d{number}.toml").write_text(f'extends = ["d{number - 1}.toml", "d{number - 1}.toml"]\n')
    Path("x.toml").write_text('extends = ["d59.toml"]\n')
    assert resolve("x.toml").recipe.run.epochs == 10
    Path("d0.toml").write_text("[")
    assert "d0.toml:1:2: error: this is not TOML" in refused('extends = ["d59.toml"]\n')
    for number in range(1, 2 * MOST_FILES):
        Path(f"d{number}.toml").write_text(f'extends = ["d{number - 1}.toml"]\n')
    assert f"more than {MOST_FILES} recipes are extended" in refused(f'extends = ["d{2 * MOST_FILES - 1}.toml"]\n')


def test_long_unknown_words_are_not_compared_with_each_other() -> None:
    words = ["".join(random.Random(seed).choices("abcdefgh", k=190)) for seed in range(300)]
    text = GOOD + "[data.extra]\n" + "".join(f'"{word}" = "${{data.extra.{word[::-1]}}}"\n' for word in words)
    assert "is not set in this recipe" in refused(text)
    assert "unknown key" in refused(GOOD + "".join(f"[{word}]\n" for word in words))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "utf-16"])
def test_what_is_no_text_file_is_no_recipe_and_is_not_waited_for(kind: str) -> None:
    path = Path("odd.toml")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(InvalidRecipe, match=r"cannot be read|save it as UTF-8"):
        resolve(path)


@pytest.mark.no_cover  # others reach these lines sooner
def test_a_long_line_is_shown_around_the_mistake_only() -> None:
    Path("x.toml").write_text(GOOD + f'[data.extra]\nx = [{"1, " * 30_000}"${{run.sed}}"{", 2" * 30_000}]\n')
    with pytest.raises(InvalidRecipe) as caught:
        resolve("x.toml")
    line, marks = str(caught.value).splitlines()[1:3]
    assert len(line) < 250
    assert line[marks.index("^") : marks.rindex("^") + 1] == '"${run.sed}"'


@pytest.mark.no_cover  # others reach these lines sooner
def test_no_changed_recipe_leads_to_another_error() -> None:
    parts = '[groups.body]\nlr = 1e-3\nstart_epoch = 2\n[hooks.watch]\nuse = "watch"\n[loggers.diary]\nuse = "diary"\n'
    for seed in range(500):
        rng = random.Random(seed)
        assert tried(mutated(GOOD + parts, rng)) is None, f"seed {seed}"
