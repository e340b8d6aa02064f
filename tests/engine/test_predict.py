"""Predictions with a toy: which weights are taken, what is skipped, what is said, and what is never replaced."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from clients import toy_run
from clients.toy_run import PARTS

from trainkit import CheckpointError, RecipeError
from trainkit.checkpoint.file import read, write
from trainkit.cli import main
from trainkit.console import Console
from trainkit.engine.prediction.predict import Share, predict
from trainkit.engine.start import ExitCode
from trainkit.engine.trained_checkpoints import Choice
from trainkit.recipe.problems import InvalidRecipe


@pytest.fixture
def site(points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with both runs and three inputs."""
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").symlink_to(points / f"seed-{seed}")
    (tmp_path / "in").mkdir()
    for name, text in (("a", "1 2 3"), ("b", "0 0 1"), ("c", "4 5 6")):
        (tmp_path / "in" / f"{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


def run(capsys: pytest.CaptureFixture[str], *runs: str, **options: Any) -> tuple[ExitCode, str]:
    paths = [Path(each) for each in runs or ("seed-0",)]
    options = {"device": "cpu", "allow_code": True} | options
    code = predict(paths, [options.pop("inputs", Path("in"))], options.pop("out", Path("out")), Console(), **options)
    return code, capsys.readouterr().out


def results(folder: str = "out") -> dict[str, float]:
    return {path.stem: float(path.read_text()) for path in sorted(Path(folder).glob("*.out"))}


def expected(checkpoint: Path, x: list[float]) -> float:
    """The network in NumPy."""
    weights = read(checkpoint)["model"]
    first, offsets, second, offset = (weights[name].double().numpy() for name in NAMES)
    return float((second @ (first @ x + offsets) + offset)[0])


def test_the_weights_are_those_of_the_best_checkpoint_unless_another_is_asked_for(site, capsys):
    losses = [line["train/loss"] for line in toy_run.lines(site / "seed-0")]
    best = losses.index(min(losses)) + 1
    code, said = run(capsys)
    assert code is ExitCode.FINISHED
    assert f"epoch-{best:04d}.safetensors: the best of the run, {min(losses):.5g}" in said
    checkpoints = site / "seed-0" / "checkpoints"
    assert results()["a"] == pytest.approx(expected(checkpoints / f"epoch-{best:04d}.safetensors", [1, 2, 3]), rel=1e-4)
    for out, options, epoch in (("last", Choice(last=True), 3), ("first", Choice(epoch=1), 1)):
        run(capsys, choice=options, out=Path(out))
        assert results(out)["c"] == pytest.approx(
            expected(checkpoints / f"epoch-{epoch:04d}.safetensors", [4, 5, 6]), rel=1e-4
        )


def test_ctrl_c_says_how_far_the_prediction_is_and_nothing_of_a_training(site, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trainkit", "predict", "seed-0", "in", "--out", "out", "--allow-code"])
    monkeypatch.setattr("trainkit.cli.ignore_from_now_on", lambda: None)  # signals of the tests themselves
    monkeypatch.setattr("clients.predicting.LiveSums.predict", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 130
    assert "stopped: 0 of 3 inputs are finished; --continue predicts the others" in said.out
    assert said.err == "stopped\n"


def test_averaged_weights_predict_if_the_run_had_any(site, capsys):
    content = read(site / "seed-0" / "checkpoints" / "epoch-0003.safetensors")
    average = {"model": {name: value / 2 for name, value in content["model"].items()}, "updates": 3}
    write(site / "averaged.safetensors", content | {"average": average})
    run(capsys, "averaged.safetensors")
    write(site / "plain.safetensors", content | {"model": average["model"]})
    assert results()["a"] == pytest.approx(expected(site / "plain.safetensors", [1, 2, 3]), rel=1e-4)


def test_several_runs_and_an_ensemble_by_name_predict_together(site, capsys):
    run(capsys, "seed-0", out=Path("0"), choice=Choice(last=True))
    run(capsys, "seed-1", out=Path("1"), choice=Choice(last=True))
    _, said = run(capsys, "seed-0", "seed-1", choice=Choice(last=True))
    assert "2 models" in said
    mean = {name: (results("0")[name] + results("1")[name]) / 2 for name in "abc"}
    assert results() == pytest.approx(mean, rel=1e-4)
    (site / "runs" / "folds").mkdir(parents=True)
    (site / "runs" / "folds" / "ensemble.json").write_text(
        json.dumps({"members": ["../../seed-0", "../../seed-1"], "scale": 2.0})
    )
    run(capsys, "folds", choice=Choice(last=True), out=Path("folds"))
    assert results("folds") == pytest.approx({name: 2 * value for name, value in mean.items()}, rel=1e-4)
    run(capsys, "folds", choice=Choice(last=True), out=Path("set"), sets=["predict.scale=1"])
    assert results("set") == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"members": []}', "must be a list of paths"),
        ('{"members": ["/etc"]}', "/etc must be relative"),
        ("{", "cannot be read as the list of an ensemble"),
        ("{}", 'has no "members"'),
        ('{"members": ["../seed-0"], "scales": 2}', "unknown key"),
    ],
)
def test_a_mistake_in_the_list_of_an_ensemble_is_one_message(site, capsys, content, said):
    (site / "folds").mkdir()
    (site / "folds" / "ensemble.json").write_text(content)
    with pytest.raises((CheckpointError, InvalidRecipe), match=said):
        run(capsys, "folds")
    assert not Path("out").exists()


def test_what_is_finished_is_skipped_and_what_has_changed_is_said_and_predicted_again(site, capsys):
    run(capsys, sets=["predict.extra=true"])
    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.out")}
    with pytest.raises(RecipeError, match="holds results of a, b, c; add --continue"):
        run(capsys)
    _, said = run(capsys, go_on=True, sets=["predict.extra=true", "predict.at_once=8"])
    assert said.count("skipped: finished already") == 3
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("*.out")} == times
    (site / "in" / "a.txt").write_text("3 2 1")
    Path("out/b.out").unlink()
    _, said = run(capsys, go_on=True, sets=["predict.extra=true"])
    assert "a is predicted again: the result is of another input" in said
    assert "b is predicted again: b.out is not there any more" in said
    assert said.count("skipped: finished already") == 1
    _, said = run(capsys, go_on=True)
    assert said.count("the result is of other settings") == 3
    assert not list(Path("out/extra").iterdir())  # nothing stale is left beside the new results
    _, said = run(capsys, "seed-1", go_on=True)
    assert said.count("the result is of other weights") == 3


def test_one_bad_input_does_not_end_the_others(site, capsys):
    for name, text in (("bad", "unreadable"), ("broken", "one two"), ("empty", "")):
        (site / "in" / f"{name}.txt").write_text(text)
    code, said = run(capsys)
    assert code is ExitCode.FAILED
    assert sorted(results()) == ["a", "b", "c"]
    end = said.partition("3 inputs failed:")[2]
    assert "  bad: it cannot be read\n" in end
    assert "  broken: ValueError: could not convert string to float: 'one'" in end
    assert "  empty: it is empty\n" in end
    assert "Traceback" not in said
    assert "in predict" in Path("out/.trainkit/log.txt").read_text()  # the traceback
    (site / "in" / "bad.txt").write_text("1 1 1")
    code, said = run(capsys, go_on=True)
    assert said.count("skipped") == 3
    assert "1 input predicted, 3 finished before" in said


def test_parts_are_disjoint_complete_and_the_same_in_any_order(site, capsys):
    run(capsys, out=Path("whole"))
    for part in ("1/2", "2/2"):
        run(capsys, share=Share.parse(part))
    assert results() == results("whole")
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(RecipeError, match="--part must be i/n"):
            Share.parse(wrong)


def test_files_that_were_not_predicted_are_never_replaced(site, capsys):
    Path("out").mkdir()
    Path("out/b.out").write_text("by hand")
    code, said = run(capsys)
    assert code is ExitCode.FAILED
    assert Path("out/b.out").read_text() == "by hand"
    assert "out/b.out is there already, and was not predicted from this input" in said


def test_a_result_whose_move_was_interrupted_is_made_again(site, capsys):
    run(capsys)
    record = Path("out/.trainkit/a.json")
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    (Path("out/.trainkit") / "b.new-0123").mkdir()
    Path("out/.trainkit/b.json").unlink()
    Path("out/b.out").unlink()
    _, said = run(capsys, go_on=True)
    assert "a is predicted again: it was stopped while its result was moved" in said
    assert sorted(results()) == ["a", "b", "c"]
    assert not list(Path("out/.trainkit").glob("*.new-*"))


def test_results_are_not_taken_for_inputs(site, capsys):
    with pytest.raises(RecipeError, match="in is an input, so it cannot be the folder of results"):
        run(capsys, out=Path("in"))
    (site / "here").mkdir()
    (site / "here" / "e.txt").write_text("1 1 1")
    _, said = run(capsys, inputs=Path("here/../here/e.txt"), out=Path("elsewhere"))
    assert "1 input predicted" in said
    with pytest.raises(RecipeError, match=r"there is nothing to predict in here/e.txt"):
        run(capsys, inputs=Path("here/e.txt"), out=Path("here"))


def test_two_inputs_of_one_name_are_refused(site, capsys):
    (site / "in" / "A.txt").write_text("1 1 1")
    with pytest.raises(RecipeError, match="two inputs are called"):
        run(capsys)


def test_code_that_a_checkpoint_names_is_imported_only_if_allowed(site, capsys):
    with pytest.raises(InvalidRecipe, match="Add --allow-code to import it"):
        run(capsys, allow_code=False)


def test_what_a_prediction_does_not_need_need_not_be_installed(site, capsys):
    checkpoint = site / "seed-0" / "checkpoints" / "epoch-0003.safetensors"
    content = read(checkpoint)
    content["recipe"] = (
        content["recipe"]
        .replace("clients.recorder:Recorder", "gone:Recorder")
        .replace("clients.toy:Squares", "gone:Loss")
    )
    write(site / "other.safetensors", content)
    assert run(capsys, "other.safetensors")[0] is ExitCode.FINISHED


def test_settings_of_older_versions_are_left_out_or_can_be_dropped(site, capsys):
    content = read(site / "seed-0" / "checkpoints" / "epoch-0003.safetensors")
    head = "[model]\n"
    assert head in content["recipe"]
    write(
        site / "old.safetensors", content | {"recipe": content["recipe"].replace(head, f"{head}init_from_skip = []\n")}
    )
    assert run(capsys, "old.safetensors")[0] is ExitCode.FINISHED
    write(site / "odd.safetensors", content | {"recipe": content["recipe"].replace(head, f"{head}depth = 3\n")})
    with pytest.raises(RecipeError, match=r"(?s)take it away with --set .drop=.*model.depth: unknown key"):
        run(capsys, "odd.safetensors", out=Path("odd"))
    code, _ = run(capsys, "odd.safetensors", out=Path("odd"), sets=['drop=["model.depth"]'])
    assert code is ExitCode.FINISHED


def test_data_from_which_nothing_is_predicted_is_one_message(site, capsys):
    ending = toy_run.run(text=f'trainkit = 1\n[run]\nname = "toy"\nepochs = 1\ndevice = "cpu"\n{PARTS}')
    with pytest.raises(RecipeError, match="nothing is predicted with Line") as error:
        run(capsys, str(ending.run.state.folder))
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["predict.skale=2"], "did you mean"),
        (["run.epochs=2"], "has no effect on a prediction; only predict"),
        (["predict.scale=wide"], "must be a number"),
        (["predict.use=nothing"], 'no component "nothing"'),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(site, capsys, sets, said):
    with pytest.raises(InvalidRecipe, match=said):
        run(capsys, sets=sets)
    assert not Path("out").exists()


def test_a_checkpoint_without_facts_says_what_it_lacks(site, capsys):
    content = read(site / "seed-0" / "checkpoints" / "epoch-0003.safetensors")
    write(site / "old.safetensors", content | {"facts": None})
    with pytest.raises(CheckpointError, match=r"old.safetensors holds no facts of the training data"):
        run(capsys, "old.safetensors")


@pytest.mark.slow
def test_the_command_as_a_person_types_it(site, warm):
    def trainkit(*arguments: str) -> tuple[int, str, str]:
        called = warm.start("predict", *arguments, folder=Path.cwd(), apart=True)
        return called.wait(), called.stdout, called.stderr

    (site / "in" / "bad.txt").write_text("unreadable")
    code, out, err = trainkit(
        "seed-0", "in", "--with", "seed-1", "--out", "out", "--allow-code", "--last", "--set", "predict.scale=2"
    )
    assert (code, err) == (1, "")
    assert "[1/4] a: sum " in out
    assert "  bad: it cannot be read" in out
    for arguments, said in (
        (("seed-0", "gone", "--out", "o"), "error: gone: there is no such file or folder"),
        (("seed-0", "in", "--out", "o", "--part", "3/2"), "error: --part must be i/n"),
        (("seed-0", "in", "--out", "o", "--epoch", "1", "--last"), "--epoch and --last exclude each other"),
        (("seed-0", "in"), "Missing option '--out'"),
    ):
        code, _, err = trainkit(*arguments)
        assert code == 2
        assert said in err
