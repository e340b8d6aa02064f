"""``trainkit init`` finds who knows the data, and prints what that data's planner writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from trainkit import (
    ComponentError,
    Data,
    Figures,
    Planner,
    Problem,
    Progress,
    RecipeError,
    RecipeText,
    Recognised,
    component,
    registry,
)
from trainkit.cli.init import command
from trainkit.recipe.recognised import recognised
from trainkit.recipe.schema import DIRECTIVE


@component
class Letters(Data):
    """Files with letters."""

    path: Path

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a file by its ending."""
        return {"path": path} if path.suffix == ".letters" else None

    @classmethod
    def contents(cls, settings: Mapping[str, Any]) -> Iterator[Progress | Problem | str]:
        """Read the letters."""
        yield Progress(1, 2, "letters read")
        letters = Path(settings["path"]).read_text()
        if "?" in letters:
            yield Problem("some letters are not known", severity="warning")
        yield letters

    def build(self, context: Any) -> Any:
        """Nothing is built here."""


class Words(Letters):
    """The same files."""


@component
class Unwell(Data):
    """Fails when it is asked."""

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Fail."""
        raise KeyError("some bug")

    def build(self, context: Any) -> Any:
        """Nothing is built here."""


@component
class Scribe(Planner):
    """Plans for letters."""

    accepts: ClassVar[type[Data]] = Letters

    def draft(self, found: Recognised) -> Iterator[str | Progress | Problem]:
        """Write what was asked."""
        text = RecipeText()
        text.table("data")
        text.value("use", found.use)
        text.value("path", found.settings["path"], f"{len(found.contents)} letters, for {self.memory_gb:g} GB")
        yield from str(text).split("\n")


def register(monkeypatch: pytest.MonkeyPatch, *data: type[Data] | Exception) -> None:
    class Found(registry.RegisteredComponent):
        cls: Any

        def load(self) -> type[Any]:
            if isinstance(self.cls, Exception):
                raise self.cls
            return self.cls

    def registered(group: str) -> tuple[Found, ...]:
        known: list[Any] = [Scribe] if group == Planner.entry_points else list(data)
        found = []
        for each in known:
            one = Found(getattr(each, "__name__", "Broken").lower(), "somewhere:Class", "package", "1")
            one.cls = each
            found.append(one)
        return tuple(found)

    monkeypatch.setattr(registry, "registered", registered)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "a.letters"
    path.write_text("abc")
    return path


def test_the_recipe_is_on_standard_output_alone(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Unwell, ComponentError("cannot be imported"), Letters)
    done = CliRunner().invoke(command, [str(letters), "--memory", "11.5GB"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == [DIRECTIVE, "[data]"]
    assert lines[-1].endswith("# 3 letters, for 11.5 GB")
    assert str(letters) in done.stdout


def test_a_file_is_written_whole_and_never_over_another(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Letters)
    out = letters.with_name("new.toml")
    done = CliRunner().invoke(command, [str(letters), "--out", str(out)])
    assert done.stdout == ""
    assert f"trainkit check --data {out}" in done.stderr
    written = out.read_text()
    assert written.startswith(f"{DIRECTIVE}\n[data]")
    again = CliRunner().invoke(command, [str(letters), "--out", str(out)])
    assert isinstance(again.exception, RecipeError)
    assert "nothing is overwritten" in str(again.exception)
    assert out.read_text() == written


def test_what_a_user_knows_is_told_beside_what_was_recognised(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Letters)
    other = letters.with_name("b.letters")
    other.write_text("abcde")
    done = CliRunner().invoke(command, [str(letters), "--set", f"data.path={other}"])
    assert f'path = "{other}"' in done.stdout
    assert "5 letters" in done.stdout  # contents are those of the data that the user says


def test_a_doubt_about_what_is_in_the_data_is_said_beside_the_recipe(
    letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, Letters)
    letters.write_text("ab?")
    done = CliRunner().invoke(command, [str(letters)])
    assert done.exit_code == 3
    assert "3 letters" in done.stdout
    assert "warning: some letters are not known" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "run.epochs=3"], "says what is known about the data"),
        (["--set", "data.paht=x"], "paht"),
        (["--calibrate"], "nothing about data of this kind is found out by trials"),
        (["--picture", "a.png"], "--picture is what --calibrate draws"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    letters: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    register(monkeypatch, Letters)
    done = CliRunner().invoke(command, [str(letters), *options])
    assert isinstance(done.exception, RecipeError)
    assert said in str(done.exception)


def test_a_doubtful_recipe_is_written_and_the_exit_code_says_it(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubtful(Scribe):
        """Is never sure."""

        def draft(self, found: Recognised) -> Iterator[str | Progress | Problem]:
            yield Problem("the letters may be numbers", severity="warning")
            yield from super().draft(found)

    monkeypatch.setattr("trainkit.cli.init._planners", lambda cls: [Doubtful])
    monkeypatch.setattr(
        "trainkit.cli.init.recognised", lambda path, use: Recognised("letters", Letters, {"path": path})
    )
    done = CliRunner().invoke(command, [str(letters)])
    assert done.exit_code == 3
    assert done.stdout.startswith(f"{DIRECTIVE}\n[data]")
    assert "warning: the letters may be numbers" in done.stderr


def test_what_trials_found_is_one_object_for_programs(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trying(Scribe):
        """Tries something out."""

        calibrates: ClassVar[bool] = True

        def draft(self, found: Recognised) -> Iterator[str | Progress | Problem | Figures]:
            yield Figures({"vowels": 1})
            yield Problem("the vowel may be a number", severity="warning")
            yield from super().draft(found)

    monkeypatch.setattr("trainkit.cli.init._planners", lambda cls: [Trying])
    monkeypatch.setattr(
        "trainkit.cli.init.recognised", lambda path, use: Recognised("letters", Letters, {"path": path})
    )
    out = letters.with_name("new.toml")
    done = CliRunner().invoke(command, [str(letters), "--calibrate", "--json", "--out", str(out)])
    assert done.exit_code == 3
    said = json.loads(done.stdout)
    assert said["text"] == out.read_text()
    del said["text"]
    doubts = ["the vowel may be a number"]
    assert said == {"type": "recipe", "out": str(out), "picture": None, "doubts": doubts, "figures": {"vowels": 1}}


def test_what_nobody_knows_is_refused_with_who_was_asked_and_where_data_are(
    letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, Unwell, Letters)
    with pytest.raises(RecipeError, match=r"recognised by no component of data; asked: unwell, letters") as caught:
        recognised(letters.parent, None)
    assert "unwell: KeyError: 'some bug'" in str(caught.value)


def test_what_two_know_is_a_question(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Letters, Words)
    with pytest.raises(RecipeError, match=r"recognised by .* say which with --data"):
        recognised(letters, None)
    assert recognised(letters, "words")[1] is Words


def test_a_path_to_nothing_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(tmp_path / "nothing")])
    assert "there is no such file or folder" in str(done.exception)


@pytest.mark.parametrize("memory", ["much", "0GB", "8 parsecs"])
def test_a_size_that_is_none_is_refused(letters: Path, monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    register(monkeypatch, Letters)
    done = CliRunner().invoke(command, [str(letters), "--memory", memory])
    assert "--memory is a size such as 8GB" in str(done.exception)


def test_layouts_of_data_are_recognised_by_their_files(tmp_path: Path) -> None:
    from clients import segmentation_cases as made_up

    for folder, name in (
        (made_up.msd(tmp_path / "msd"), "msd"),
        (made_up.nnunet(tmp_path / "nnunet"), "msd"),
        (made_up.brats(tmp_path / "brats", "2023"), "brats"),
        (made_up.totalsegmentator(tmp_path / "total"), "totalsegmentator"),
    ):
        assert recognised(folder, None)[0] == name
    with pytest.raises(RecipeError, match=r"but there are data in it: brats \(brats\), msd \(msd\)"):
        recognised(tmp_path, None)


def test_text_of_a_recipe_is_toml_with_reasons() -> None:
    import tomli

    text = RecipeText()
    text.table("data.preprocessing", "once")
    text.value("a b", {"x": (1, 2.5), "on": True, "path": Path("é\\x")}, "because " * 30)
    text.placeholder("energy_kev", "the energy in keV", "the file does not say it")
    written = str(text)
    assert tomli.loads(written) == {
        "data": {
            "preprocessing": {
                "a b": {"x": [1, 2.5], "on": True, "path": "é\\x"},
                "energy_kev": "<the energy in keV>",
            }
        }
    }
    assert max(map(len, written.splitlines())) <= 120
    assert "# the file does not say it" in written
