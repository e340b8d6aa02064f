"""A resume says what is not as it was: the data, the machine, the versions; and nothing else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from clients import recorder
from clients.toy import Line
from clients.toy_run import TOY, resume, run

from trainkit import Context, Exchange, component
from trainkit.checkpoint.file import read_header
from trainkit.console import Console
from trainkit.engine import environment
from trainkit.engine.fingerprint import data_fingerprint, other_data
from trainkit.engine.queue import run_all
from trainkit.processes.place import Place
from trainkit.recipe.resolve import resolve_text

FOLDER = TOY.replace('use = "clients.toy:Line"', 'use = "engine.test_other_conditions:Filed"\npath = "points"')


@component
class Filed(Line):
    """Data of a third party that names files, and says nothing of its own about them."""

    path: Path


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def points(seed: int, path: Path, bytes_per_file: int = 200_000) -> None:
    path.mkdir(exist_ok=True)
    for number in range(3):
        content = np.random.default_rng([seed, number]).integers(0, 256, bytes_per_file, dtype=np.uint8)
        (path / f"{number}.bin").write_bytes(content.tobytes())


@pytest.mark.parametrize("path", ["points", "points/1.bin"])
def test_other_data_of_the_same_size_is_said_and_what_is_best_begins_anew(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points(0, Path("points"))
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0 + state.epoch})
    first = run(f"data.path={path}", text=FOLDER).run.state
    points(1, Path("points"))
    outcome = resume(first.folder, "run.epochs=3", quiet=False)
    assert "warning: the data has changed: data.path is" in capsys.readouterr().out
    assert outcome.best == (3.0, 3, None)


@pytest.mark.parametrize("path", ["points", "points/1.bin"])
def test_the_same_data_in_another_place_with_other_times_is_the_same(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points(0, Path("points"))
    first = run(f"data.path={path}", text=FOLDER).run.state
    shutil.copytree("points", "elsewhere/points", copy_function=shutil.copyfile)
    shutil.rmtree("points")
    (Path("elsewhere/points") / ".hidden").touch()
    os.utime("elsewhere/points/1.bin", (0, 0))
    resume(first.folder, "run.epochs=3", f"data.path=elsewhere/{path}", quiet=False)
    said = capsys.readouterr().out
    assert "the data has changed" not in said
    assert re.search(r"changed: data\.path: .* -> .*elsewhere/.* \(harmless: the same content\)", said)
    assert "begins anew" not in said


def test_a_byte_in_a_small_file_and_the_ends_of_a_large_one_are_seen(tmp_path: Path) -> None:
    recipe = resolve_text(FOLDER, tmp_path).recipe
    Path("points").mkdir()
    file = Path("points/0.bin")
    for size, place in ((1_000_000, 500_001), (9_000_000, 0), (9_000_000, 8_999_999), (1, 0)):
        content = bytearray(size)
        file.write_bytes(content)
        whole = Filed(path=file)
        before = data_fingerprint(_with(recipe, whole), None, "data")
        content[place] = 1
        file.write_bytes(content)
        assert list(other_data(before, data_fingerprint(_with(recipe, whole), None, "data")))


def _with(recipe: Any, data: Line) -> Any:
    import attrs

    return attrs.evolve(recipe, data=data)


def test_another_machine_and_other_versions_are_said_once_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run().run.state
    known = environment.conditions
    monkeypatch.setattr(
        "trainkit.engine.live_run.conditions",
        lambda context, recipe: known(context, recipe) | {"instruction set of the CPU": "OTHER", "numpy": "0.1"},
    )
    resume(first.folder, "run.epochs=3", quiet=False)
    said = [line for line in capsys.readouterr().out.splitlines() if "bit for bit" in line]
    assert len(said) == 2
    assert any("instruction set of the CPU is OTHER, was" in line for line in said)
    assert any("numpy is 0.1, was" in line for line in said)


@pytest.mark.parametrize(("then", "now"), [(None, 2), (2, 1), (None, 1), (2, 2)])
def test_without_shards_another_number_of_processes_is_said(
    then: int | None, now: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = environment.conditions

    def of(world: int | None) -> Callable[..., dict[str, Any]]:
        def conditions(context: Context, recipe: Any) -> dict[str, Any]:
            found = known(context._replace(exchange=Exchange(Place(0, world or 1))), recipe)
            if world is None:  # as of a version that had no several processes
                del found["number of processes"]
            return found

        return conditions

    monkeypatch.setattr("trainkit.engine.live_run.conditions", of(then))
    first = run().run.state
    monkeypatch.setattr("trainkit.engine.live_run.conditions", of(now))
    resume(first.folder, "run.epochs=3", quiet=False)
    said = [line for line in capsys.readouterr().out.splitlines() if "bit for bit" in line]
    was = then or 1
    is_said = [f"  warning: number of processes is {now}, was {was}: the run may not be the same bit for bit"]
    assert said == (is_said if now != was else [])


def test_with_shards_the_number_of_processes_is_no_condition() -> None:
    import torch

    recipe = resolve_text(TOY, Path.cwd()).recipe
    recipe = attrs.evolve(recipe, run=attrs.evolve(recipe.run, shards=2))
    one, two = (Context(0, torch.device("cpu"), Path.cwd(), Exchange(Place(0, world))) for world in (1, 2))
    assert environment.conditions(one, recipe) == environment.conditions(two, recipe)


def test_versions_of_what_the_components_need_are_among_the_conditions() -> None:
    import torch

    text = TOY.replace('"clients.toy:Line"', '"segmentation_synthetic"').replace('"clients.toy:Perceptron"', '"unet"')
    text = text.replace('"clients.toy:Squares"', '"dice"')
    context = Context(0, torch.device("cpu"), folder=Path.cwd())
    found = environment.conditions(context, resolve_text(text, Path.cwd()).recipe)
    assert {"monai", "nibabel", "torch", "numpy", "threads", "instruction set of the CPU"} <= found.keys()


def test_a_resume_without_a_change_mentions_none(capsys: pytest.CaptureFixture[str]) -> None:
    points(0, Path("points"))
    recorder.ACTIONS["step_end"] = lambda state: state.interrupt("the test says so") if state.step == 5 else None
    first = run("scheduler.use=cosine", "run.epochs=3", text=FOLDER).run.state
    recorder.ACTIONS.clear()
    resume(first.folder, quiet=False)
    said = capsys.readouterr().out
    assert not [line for line in said.splitlines() if "changed" in line or " -> " in line or "warning" in line]


def test_what_is_read_from_the_environment_is_said_before_any_part_can_use_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_KEY", "16")
    first = run('data.batch_size="${env.TOY_KEY}"').run.state
    said: list[str] = []
    build = Line.build

    def listen(settings: Any, context: Any) -> Any:
        said.append(capsys.readouterr().out)
        return build(settings, context)

    monkeypatch.setattr(Line, "build", listen)
    resume(first.folder, "run.epochs=3", quiet=False)
    assert "the environment variable TOY_KEY is read for data.batch_size" in said[0]
    assert "TOY_KEY" in (first.folder / "log.txt").read_text()


def test_another_value_of_an_environment_variable_is_a_change_and_only_a_mark_of_it_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_KEY", "16")
    first = run('data.batch_size="${env.TOY_KEY}"').run.state
    monkeypatch.setenv("TOY_KEY", "17")
    second = resume(first.folder, "run.epochs=3", quiet=False).run.state
    said = capsys.readouterr().out
    assert (
        "changed: data.batch_size: ${env.TOY_KEY} has another value than before (the run goes on differently)" in said
    )
    assert "what is best begins anew, because data.batch_size has changed" in said
    resume(second.folder, "run.epochs=4", quiet=False)  # the new value is that of the checkpoint now
    assert "has another value" not in capsys.readouterr().out
    (mark,) = read_header(first.folder / "checkpoints" / "epoch-0004.safetensors")["run"]["variables"].values()
    assert len(mark) == 3, "too short for a guess to be confirmed"


@pytest.mark.parametrize(("setting", "another"), [("data.batch_size", True), ("run.dir", False)])
def test_continue_takes_another_value_for_another_run_unless_it_is_a_path(
    setting: str, another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("16", "17"):
        monkeypatch.setenv("TOY_KEY", value)
        recipe = resolve_text(TOY, Path.cwd(), [f"{setting}=${{env.TOY_KEY}}"])
        Path("16").rename("17") if Path("16").exists() else None
        run_all([recipe], Console(quiet=True), continue_unfinished=True, report=lambda *_: None)
    assert len(list(Path().glob("*/toy/*"))) == 1 + another


def test_a_run_that_stopped_early_and_whose_data_was_moved_stays_ended(capsys: pytest.CaptureFixture[str]) -> None:
    points(0, Path("points"))
    recorder.ACTIONS["epoch_end"] = lambda state: state.stop("enough") if state.epoch == 0 else None
    first = run("run.epochs=3", text=FOLDER).run.state
    recorder.ACTIONS.clear()
    Path("points").rename("moved")
    ended = resume(first.folder, "data.path=moved", quiet=False).run.state
    assert (ended.epoch, ended.step) == (first.epoch, first.step)
    assert "the run ended after 1 epochs: enough; the end of the run is made up for" in capsys.readouterr().out


def test_one_other_byte_in_a_file_of_some_megabytes_is_other_data() -> None:
    path = Path("large.bin")
    path.write_bytes(bytes(20_000_000))
    recipe = resolve_text(FOLDER, Path.cwd(), ["data.path=large.bin"]).recipe
    before = data_fingerprint(recipe, object(), "data")
    with path.open("r+b") as file:
        file.seek(10_100_000)
        file.write(b"x")
    assert list(other_data(before, data_fingerprint(recipe, object(), "data")))
