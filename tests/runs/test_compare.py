"""`trainkit compare`: whether values mean the same, which run is better, and where the numbers begin to differ."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clients import toy_run
from PIL import Image
from safetensors.numpy import load_file

from runs.folders import PTYCHOGRAPHY, SPLIT, written
from trainkit.cli.compare import command
from trainkit.cli.runs import command as runs_command
from trainkit.errors import RecipeError
from trainkit.runs.comparison import compare
from trainkit.runs.divergence import checkpoint_divergence, value_divergence
from trainkit.runs.meaning import why_not_comparable
from trainkit.runs.record import RunRecord

FILE = PTYCHOGRAPHY.replace(
    '"diffraction_simulated"',
    """"diffraction_hdf5"
path = "a.h5"
patterns = "data"
positions = "at"
positions_unit = "pixels"
energy_kev = 80.0""",
)
CONTENT = {"data.path": {"bytes": 5, "digest": "d" * 32}, **SPLIT}


def compared(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(command, [*arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("sets", "of_both"),
    [
        (["groups.object.lr=0.3"], []),
        (["optimizer.lr=0.3", "run.epochs=9"], []),
        (["model.object_margin=9"], []),
        (["data.batch_size=7"], []),
        (["run.seed=5"], []),
        (["optimizer.use=sgd"], []),
        (["losses.smooth.use=l1"], []),  # a regulariser, of which val/loss has no part
        (["checkpoint.best=3", "run.name=other"], []),
        (["data.batch_size=7"], ["validation.every_epochs=2"]),
    ],
)
def test_runs_are_ranked_if_they_differ_in_what_they_are_compared_for(
    tmp_path: Path, sets: list[str], of_both: list[str]
) -> None:
    one, other = written(tmp_path / "one", *of_both), written(tmp_path / "other", *of_both, *sets)
    assert why_not_comparable(one, other) == why_not_comparable(other, one) == []


@pytest.mark.parametrize(
    ("sets", "of_both", "said"),
    [
        (["losses.data.use=poisson"], [], "losses.data"),
        (["losses.data.weight=2.0"], [], "losses.data.weight"),
        (["losses.more.use=poisson"], [], "losses.more"),
        (["data.validation_fraction=0.2"], [], "data.validation_fraction"),
        (["data.seed=3"], [], "data.seed"),
        (["monitor.metric=train/loss"], [], "what is monitored differs"),
        (["monitor.mode=max"], [], "what is monitored differs"),
        (["data.batch_size=7"], ["monitor.metric=train/loss"], "data.batch_size"),
    ],
)
def test_runs_are_not_ranked_if_their_values_mean_something_else(
    tmp_path: Path, sets: list[str], of_both: list[str], said: str
) -> None:
    one, other = written(tmp_path / "one", *of_both), written(tmp_path / "other", *of_both, *sets)
    assert said in " ".join(why_not_comparable(one, other))
    assert why_not_comparable(other, one)


def test_the_evaluated_items_decide_not_the_seed(tmp_path: Path) -> None:
    one = written(tmp_path / "one")
    other_items = written(tmp_path / "other_items", "run.seed=5", fingerprint={"the items of val": "b2"})
    assert "the items of val" in " ".join(why_not_comparable(one, other_items))
    silent = [written(tmp_path / name, f"run.seed={name[-1]}", fingerprint={}) for name in ("a0", "b0", "c1")]
    assert why_not_comparable(silent[0], silent[1]) == []
    assert "do not say whether the same items were held out" in " ".join(why_not_comparable(silent[0], silent[2]))
    unknown = written(tmp_path / "unknown", fingerprint=None)
    assert "does not say with which data" in " ".join(why_not_comparable(one, unknown))


def test_the_same_file_at_another_place_is_the_same_and_another_file_at_the_same_place_is_not(tmp_path: Path) -> None:
    one = written(tmp_path / "one", text=FILE, fingerprint=CONTENT)
    moved = written(tmp_path / "moved", "data.path=/b.h5", text=FILE, fingerprint=CONTENT)
    replaced = written(
        tmp_path / "replaced", text=FILE, fingerprint={**CONTENT, "data.path": {"bytes": 5, "digest": "e" * 32}}
    )
    assert why_not_comparable(one, moved) == []
    assert "data.path" in " ".join(why_not_comparable(one, replaced))


def test_a_value_that_an_environment_variable_decided_is_not_taken_for_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHT", "2.0")
    one, other = (written(tmp_path / name, "losses.data.weight=${env.WEIGHT}") for name in ("one", "other"))
    assert "losses.data.weight reads the environment variable WEIGHT" in " ".join(why_not_comparable(one, other))


def test_components_that_are_not_installed_are_compared_by_their_text(tmp_path: Path) -> None:
    runs = [written(tmp_path / name) for name in ("one", "other", "third")]
    for run, weight in zip(runs, (1.0, 1.0, 2.0), strict=True):
        content = json.loads((run.folder / "run.json").read_text())
        content["recipe"] = content["recipe"].replace('use = "amplitude"', f'use = "gone"\nstrength = {weight}')
        (run.folder / "run.json").write_text(json.dumps(content))
    one, other, third = (RunRecord(run.folder) for run in runs)
    assert why_not_comparable(one, other) == []
    assert "losses.data.strength" in " ".join(why_not_comparable(one, third))


def test_sorting_by_the_best_value_keeps_values_of_another_meaning_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, use, value in (("a", "amplitude", 0.3), ("b", "amplitude", 0.2), ("c", "poisson", 0.1)):
        written(Path("runs/scan") / name, f"losses.data.use={use}", values=[{"val/loss": value}])
    said = CliRunner().invoke(runs_command, ["--sort", "best"], catch_exceptions=False).output
    ranked, _, apart = said.partition("not ranked with the runs above")
    assert re.findall(r"^  scan (\w)", ranked, re.MULTILINE) == ["b", "a"]
    assert re.findall(r"^  scan (\w)", apart, re.MULTILINE) == ["c"]


def test_a_run_that_is_not_comparable_is_never_called_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("runs/scan/one"), values=[{"val/loss": 0.3}])
    written(Path("runs/scan/other"), "losses.data.use=poisson", values=[{"val/loss": 0.1}])
    said = compared("one", "other", "--no-plot").output
    assert "NOT RANKED" in said
    assert "best:" not in said
    found = json.loads(compared("one", "other", "--no-plot", "--json").stdout)
    assert (found["comparable"], found["ranking"], found["target"]) == (False, None, None)


def test_the_time_to_a_value_is_that_of_the_epochs_before_it(tmp_path: Path) -> None:
    values = {"one": (0.9, 0.5, 0.4, 0.3), "other": (0.9, 0.8, 0.45, 0.44)}
    runs = [written(tmp_path / name, values=[{"val/loss": v} for v in each]) for name, each in values.items()]
    found = compare(runs)
    assert found.target is not None
    assert found.target.value == 0.44  # the worst of the best
    assert [each.place[:2] for each in found.reached if each] == [(3, 15), (4, 20)]
    assert [each.place.seconds for each in found.reached if each] == [6.0, 8.0]
    assert [run.folder.name for run in found.ranked(runs)] == ["one", "other"]
    assert [each and each.place.epochs for each in compare(runs, "val/loss=0.35").reached] == [4, None]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("train/loss=0.3", "write 'train/loss>=0.3' or 'train/loss<=0.3'"),
        ("val/dice>=0.8", 'no run has a value "val/dice"'),
        ("val/loss=low", "write, for example"),
    ],
)
def test_a_target_whose_direction_or_value_is_not_known_is_refused(tmp_path: Path, to: str, said: str) -> None:
    runs = [written(tmp_path / name, values=[{"val/loss": 0.3, "train/loss": 0.2}]) for name in ("one", "other")]
    with pytest.raises(RecipeError, match=re.escape(said)):
        compare(runs, to)


def test_what_makes_a_ranking_doubtful_is_said(tmp_path: Path) -> None:
    one = written(tmp_path / "one", values=[{"val/loss": 0.3}] * 3, host="a")
    other = written(
        tmp_path / "other",
        values=[{"val/loss": 0.2}],
        ended="failed: DeviceError",
        finished=False,
        error="no memory",
        host="b",
    )
    said = " ".join(compare([one, other]).cautions)
    assert "failed (no memory)" in said
    assert "different lengths: 1, 3 epochs" in said
    assert "computed 3, 1 times" in said
    assert "times are not comparable: host differs" in said
    assert "scatters by chance" in said
    seeds = [written(tmp_path / f"seed{i}", f"run.seed={i}", values=[{"val/loss": 0.3}]) for i in (0, 1)]
    assert "scatters by chance" not in " ".join(compare(seeds).cautions)


@pytest.fixture
def toys(toy_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """The toy runs: one, one with another rate, and one that was resumed from epoch 2 of that."""
    shutil.copytree(toy_runs / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    runs = [RunRecord(path) for path in Path("runs/points").iterdir()]
    return sorted(runs, key=lambda run: run.identity.created)


def test_a_resumed_run_is_equal_to_where_it_began_and_then_differs(toys: list[RunRecord]) -> None:
    _, whole, resumed = toys
    found = value_divergence(whole, resumed)
    assert (found.equal_to, found.at and found.at.epochs) == (2, 3)
    lines = [toy_run.lines(run.folder) for run in (whole, resumed)]
    assert lines[0][1]["train/loss"] == lines[1][1]["train/loss"]
    assert found.values == (lines[0][2]["train/loss"], lines[1][2]["train/loss"])
    assert value_divergence(whole, whole).at is None
    text = " ".join(compared(str(whole.folder), str(resumed.folder), "--no-plot").output.split())
    assert "equal to epoch 2, then train/loss differs at epoch 3" in text
    assert "it began from a checkpoint of A, after 2 epochs" in text


def test_runs_without_a_common_value_are_not_called_equal(tmp_path: Path) -> None:
    one = written(tmp_path / "one", values=[{"val/loss": 0.3, "lr/a": 0.1}])
    other = written(tmp_path / "other", values=[{"train/loss": 0.3, "lr/a": 0.1}])
    assert str(value_divergence(one, other)) == "no epoch is equal, then they have no value in common at epoch 1"


def test_checkpoints_are_compared_bit_for_bit_as_another_reader_finds_them(toys: list[RunRecord]) -> None:
    _, whole, resumed = toys
    found = checkpoint_divergence(whole, resumed)
    assert found.file == "epoch-0003.safetensors"
    one, other = (load_file(run.folder / "checkpoints" / found.file) for run in (whole, resumed))
    differing = {name for name in one if one[name].tobytes() != other[name].tobytes()}
    assert found.differences is not None
    assert set(found.differences.names) == differing
    first = found.differences.names[0]
    assert first.startswith("/model/")
    assert found.differences.largest == pytest.approx(np.abs(one[first].astype(float) - other[first]).max())
    for number in (1, 2):
        name = f"epoch-{number:04d}.safetensors"
        shutil.copy(whole.folder / "checkpoints" / name, resumed.folder / "checkpoints" / name)
    assert checkpoint_divergence(whole, resumed).equal == ["epoch-0001.safetensors", "epoch-0002.safetensors"]


def test_a_damaged_checkpoint_is_no_difference_of_the_training(toys: list[RunRecord]) -> None:
    _, whole, _ = toys
    copy = Path("copy")
    shutil.copytree(whole.folder, copy)
    file = copy / "checkpoints" / "epoch-0003.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = checkpoint_divergence(whole, RunRecord(copy))
    assert found.file is None
    assert "is damaged" in " ".join(found.skipped)
    assert found.equal == [f"epoch-{number:04d}.safetensors" for number in (1, 2, 4)]


@pytest.mark.slow
def test_the_curves_are_one_picture_whose_path_is_said(toys: list[RunRecord]) -> None:
    names = [run.folder.name.rpartition("-")[2] for run in toys]
    result = compared(*names)
    assert max(map(len, result.output.splitlines())) <= 80
    picture = Path(f"compare-{'-'.join(names)}.png")
    assert f"curves: {picture}" in result.output
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
        colours = {colour for _, colour in opened.convert("RGB").getcolors(1 << 20)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= colours
    compared(*names, "--plot", "mine.png")
    assert Path("mine.png").is_file()


def test_one_run_is_no_comparison(toys: list[RunRecord]) -> None:
    result = CliRunner().invoke(command, [str(toys[0].folder), toys[0].id])
    assert result.exit_code == 2
    assert "at least two runs" in result.output


def test_the_origin_of_a_setting_survives_a_resume(toys: list[RunRecord]) -> None:
    found = {each.key: each for each in compare(toys).settings}
    assert found["optimizer.lr"].origins == ["default", "--set optimizer.lr=0.05", "--set optimizer.lr=0.1"]
    resumed = json.loads(compared(*(run.id for run in toys), "--no-plot", "--json").stdout)
    assert resumed["settings"]["optimizer.lr"]["values"] == [0.001, 0.05, 0.1]
