"""What a run leaves for TensorBoard: each point once, whatever happens to the run, and no chart with two axes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import recorder
from clients.toy_run import PARTS, resume, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from trainkit import PartError, State
from trainkit.loggers import event_files

EPOCHS, STEPS = 6, 4  # steps of an epoch
TEXT = f"""
trainkit = 1
[run]
name = "toy"
epochs = {EPOCHS}
device = "cpu"
{PARTS}
[losses.again]
use = "clients.toy:Squares"
weight = 0.5
[validation]
every_steps = 3
[pictures]
every_epochs = 2
[checkpoint]
every_epochs = 2
keep_last = 10
[groups.first]
parameters = ["0.*"]
stop_epoch = 5
[groups.second]
parameters = ["2.*"]
start_epoch = 3
[scheduler]
use = "cosine"
by = "step"
[hooks.recorder]
use = "clients.recorder:Recorder"
[hooks.clip]
use = "clip_gradients"
max_norm = 1e-3
[loggers.tensorboard]
use = "tensorboard"
every_steps = 2
gradient_norm_every_steps = 3
"""


def shown(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return what TensorBoard shows of a run: writer/tag -> (x, value); times and hyperparameters without values."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for writer in sorted((folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(writer), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
        tags = events.Tags()
        for tag in tags["scalars"]:
            is_time = tag.startswith("time/")
            found[f"{writer.name}/{tag}"] = [(e.step, 0.0 if is_time else e.value) for e in events.Scalars(tag)]
        for tag in tags["images"]:
            found[f"{writer.name}/{tag}"] = [(e.step, e.encoded_image_string) for e in events.Images(tag)]
        for tag in tags["tensors"]:
            found[f"{writer.name}/{tag}"] = [(e.step, "") for e in events.Tensors(tag)]
    return found


def draw(state: State) -> None:
    state.picture("detail", np.full((2, 3, 3), state.epoch, np.uint8), rank=90)
    state.picture("result", np.full((2, 3, 3), state.step, np.uint8), rank=10)


def draw_at_end(state: State) -> None:
    state.picture("residuals", np.full((2, 3, 3), 7, np.uint8))


def only_draw() -> None:
    recorder.ACTIONS.clear()
    recorder.ACTIONS.update({"picture": draw, "run_end": draw_at_end})


@pytest.fixture(autouse=True)
def _pictures() -> None:
    only_draw()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        only_draw()
        return run(text=TEXT).run.state.folder.absolute()


def test_every_value_has_the_name_and_the_place_that_one_expects(whole: Path) -> None:
    charts = shown(whole)
    by_epoch = list(range(1, EPOCHS + 1))
    for name in ("train/loss/total", "val/loss/total", "train/loss/again", "val/loss/squares", "train/lr/second"):
        assert [x for x, _ in charts[name]] == by_epoch, name
    assert charts["train/stages/first_optimization_started"] == [(0, 1.0)]
    assert charts["train/stages/first_optimization_stopped"] == [(5, 1.0)]
    assert charts["train/stages/second_optimization_started"] == [(3, 1.0)]
    assert [x for x, _ in charts["train/grad_norm/second"]] == [4, 5, 6]  # of the epochs in which it trains
    assert [x for x, _ in charts["train/step/loss/total"]] == list(range(2, EPOCHS * STEPS + 1, 2))
    assert [x for x, _ in charts["val/step/loss/total"]] == [x for x in range(3, EPOCHS * STEPS + 1, 3) if x % STEPS]
    assert [x for x, _ in charts["train/pictures/10 result"]] == [2, 4, 6]
    pictures = sorted(name for name in charts if name.startswith("train/pictures/"))  # as TensorBoard sorts them
    assert pictures == ["train/pictures/10 result", "train/pictures/90 detail"]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    values = [line["val/loss"] for line in lines if "seconds" in line]
    assert [value for _, value in charts["val/loss/total"]] == pytest.approx(values)
    best = [min(values[: number + 1]) for number in range(EPOCHS)]
    assert [value for _, value in charts["train/best/val/loss"]] == pytest.approx(best)


def test_no_chart_has_values_of_epochs_and_of_steps(whole: Path) -> None:
    for name, points in shown(whole).items():
        if "/_hparams_/" not in name and not name.endswith("/text_summary"):
            longest = EPOCHS * STEPS if name.partition("/")[2].startswith("step/") else EPOCHS
            assert all(0 <= x <= longest for x, _ in points), name


def test_a_norm_is_that_of_the_gradient_before_it_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the norm of all numbers, in float64, of a recipe that clips to almost nothing."""
    monkeypatch.chdir(tmp_path)
    norms: dict[int, float] = {}

    def look(state: State) -> None:
        if not state.groups["first"].active:
            return
        parameters = state.groups["first"].parameters.values()
        flat = torch.cat([each.grad.double().flatten() for each in parameters if each.grad is not None])
        norms[state.step] = float(flat.square().sum().sqrt())

    text = TEXT.replace('"clip_gradients"\nmax_norm = 1e-3', '"clip_gradients"\nmax_norm = 1e9')
    recorder.ACTIONS["backward_end"] = look
    unclipped = shown(run(text=text).run.state.folder)
    computed = [norms[step] for step in (0, 1, 3)]  # every third of the epoch, and those that are written
    assert unclipped["train/grad_norm/first"][0][1] == pytest.approx(np.mean(computed), rel=1e-5)
    written = [value for _, value in unclipped["train/step/grad_norm/first"]]
    assert written[:2] == pytest.approx([norms[1], norms[3]])
    del recorder.ACTIONS["backward_end"]
    clipped = shown(run(text=TEXT).run.state.folder)
    assert clipped["train/step/grad_norm/first"][0][1] == pytest.approx(norms[1], rel=0.1)  # not 1e-3


def fail_at(step: int, text: str) -> None:
    """Start a run that fails after so many steps."""

    def fail(state: State) -> None:
        if state.step == step:
            raise ValueError("no more")

    recorder.ACTIONS["step_end"] = fail
    with pytest.raises(PartError, match="no more"):
        run(text=text)
    del recorder.ACTIONS["step_end"]


def points_alone(charts: dict[str, list[tuple[int, Any]]]) -> dict[str, list[tuple[int, Any]]]:
    return {name: points for name, points in charts.items() if not name.endswith("/text_summary")}


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 11, 12, 17, 19])
def test_what_a_run_wrote_before_it_failed_is_there_once(
    step: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fail_at(step, TEXT)
    (folder,) = Path("runs/toy").iterdir()
    resume(folder)
    charts = shown(folder)
    assert points_alone(charts) == points_alone(shown(whole))
    assert len(charts.get("train/resume/text_summary", ())) == (step > STEPS)  # else nothing was saved


@pytest.mark.slow
@pytest.mark.parametrize(("step", "saved"), [(9, 9), (16, 16)])
def test_an_interrupted_run_continues_its_charts(
    step: int, saved: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recorder.ACTIONS["step_end"] = lambda state: state.interrupt("now") if state.step == step else None
    folder = run(text=TEXT).run.state.folder
    del recorder.ACTIONS["step_end"]
    resume(folder)
    charts = shown(folder)
    assert points_alone(charts) == points_alone(shown(whole))
    assert charts["train/recipe/text_summary"] == [(0, ""), (saved, "")]
    assert charts["train/resume/text_summary"] == [(saved, "")]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, 4])
def test_a_branch_from_an_earlier_epoch_has_the_whole_history_and_leaves_its_parents_alone(
    epoch: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / "runs" / "toy" / whole.name)
    parent = Path("runs/toy") / whole.name
    before = shown(parent)
    branch = resume(parent, epoch=epoch).run.state.folder
    assert branch.name != parent.name
    assert points_alone(shown(branch)) == points_alone(before)
    assert shown(parent) == before


def test_points_of_an_older_version_are_kept_where_they_are(tmp_path: Path) -> None:
    """Its values of steps have a writer of their own, without a prefix, and its epochs are counted from 0."""
    from torch.utils.tensorboard import SummaryWriter

    from trainkit.loggers.tensorboard_live import _keeps

    for writer, places in (("steps", (10, 20, 30)), ("train", (0, 1))):
        with SummaryWriter(str(tmp_path / writer)) as old:
            for place in places:
                old.add_scalar("loss", 1.0, place)
    event_files.carry_over(tmp_path, tmp_path, lambda writer, tag, at: _keeps(writer, tag, at, 2, 20))
    for writer, places in (("steps", [10, 20]), ("train", [0, 1])):
        events = EventAccumulator(str(tmp_path / writer)).Reload()
        assert [event.step for event in events.Scalars("loss")] == places


# ---- as TensorBoard serves it, and as a browser shows it ------------------------------------------------------------


def ask(address: str, request: Any = None) -> Any:
    body = None if request is None else json.dumps(request).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TensorBoard's address, which shows two runs that differ in two settings; one of them failed, and was resumed."""
    folder = tmp_path_factory.mktemp("served")
    only_draw()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fail_at(11, TEXT)
        resume(next(Path("runs/toy").iterdir()))
        run("groups.second.lr=0.25", "groups.second.start_epoch=1", text=TEXT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--port", str(port)]
    with subprocess.Popen([*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        address = f"http://localhost:{port}"
        for _ in range(240):
            try:
                if len(ask(f"{address}/data/runs")) == 4:
                    break
            except OSError:
                pass
            time.sleep(0.5)
        yield address
        job.terminate()


@pytest.mark.slow
def test_the_hyperparameters_of_several_runs_are_one_table_in_which_what_differs_comes_first(server: str) -> None:
    experiment = ask(f"{server}/data/plugin/hparams/experiment", {"hparamsLimit": 0})
    columns = experiment["hparamInfos"]
    assert [each["name"] for each in columns if each.get("differs")] == [
        "groups.second.lr",
        "groups.second.start_epoch",
    ]
    assert "optimizer.weight_decay" in {each["name"] for each in columns}
    metrics = [each["name"]["tag"] for each in experiment["metricInfos"]]
    assert metrics[0].startswith("best/val/")
    wanted = {
        "startIndex": 0,
        "sliceSize": 10,
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"hparam": "groups.second.lr"}, {"metric": {"group": "", "tag": "best/val/loss"}}],
    }
    groups = ask(f"{server}/data/plugin/hparams/session_groups", wanted)["sessionGroups"]
    assert sorted(group["hparams"]["groups.second.lr"] for group in groups) == [1e-3, 0.25]
    assert all(isinstance(group["metricValues"][0]["value"], float) for group in groups)


@pytest.fixture
def browser(tmp_path: Path) -> Callable[[str], str]:
    """Opens an address in Chromium, and returns the page that it shows."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt-get install chromium)")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    command += ["--virtual-time-budget=60000", "--window-size=1400,1100"]
    return lambda at: subprocess.run([*command, at], capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.slow
def test_a_browser_shows_the_charts_in_their_groups(server: str, browser: Callable[[str], str]) -> None:
    page = browser(f"{server}/#timeseries")
    for group in ("best", "grad_norm", "loss", "lr", "pictures", "stages", "step", "time"):
        assert f'title="{group}"' in page or f">{group}<" in page or f">{group}/" in page, group


@pytest.mark.slow
def test_a_browser_draws_values_of_steps_once_also_of_a_run_that_failed_and_was_resumed(
    server: str, browser: Callable[[str], str]
) -> None:
    found: list[str] = []
    for _ in range(3):  # charts are drawn after the page, on a busy machine after the browser's time is over
        page = browser(f"{server}/?tagFilter=%5Estep%2Floss%2Ftotal&forceSVG=true&smoothing=0#timeseries")
        if found := re.findall(r'<path d="(M[-\d.,]+(?:L[-\d.,]+)+)"', page):
            break
    lines = [re.findall(r"[-\d.]+,[-\d.]+", line) for line in found]
    train, val = EPOCHS * STEPS // 2, 6  # of a run: every second step; every third, but for those that end an epoch
    assert sorted(map(len, lines)) == [val, val, train, train]
    for line in lines:
        across = [float(point.split(",")[0]) for point in line]
        assert across == sorted(set(across))


def test_the_multiplexer_of_tensorboard_reads_all_writers_of_a_run(whole: Path) -> None:
    runs = EventMultiplexer().AddRunsFromDirectory(str(whole / "tensorboard")).Reload().Runs()
    assert set(runs) == {"train", "val"}
