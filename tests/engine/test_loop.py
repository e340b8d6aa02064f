from __future__ import annotations

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients import recorder
from clients.toy_run import TOY, lines, resume, run
from PIL import Image

import trainkit.engine.loop
import trainkit.events
from trainkit import ComponentError, DeviceError, NonFiniteError, PartError, RecipeError, State
from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine.resume import resume as resume_from
from trainkit.engine.start import ExitCode


@pytest.fixture(autouse=True)
def _nothing_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_events_happen_in_the_order_that_their_docstring_gives() -> None:
    run("run.epochs=1", "data.use=clients.toy:Line")
    happened = list(dict.fromkeys(event for event, _, _ in recorder.SEEN))
    assert happened == [
        event for event in trainkit.events.EVENTS if event not in ("resume", "group_stop", "late_values")
    ]
    steps = [event for event, _, _ in recorder.SEEN if event in ("step_start", "backward_end", "step_end")]
    assert steps == ["step_start", "backward_end", "step_end"] * 4


def test_the_docstrings_name_exactly_the_events() -> None:
    events = set(trainkit.events.EVENTS)
    for text in (trainkit.events.__doc__, trainkit.engine.loop.__doc__):
        named = set(
            re.findall(
                r"\b(?:run|group|epoch|step|backward|validation|validation_step)_(?:start|stop|end)\b", text or ""
            )
        )
        named |= {
            event
            for event in ("resume", "picture", "checkpoint", "late_values")
            if re.search(rf"^ +{event}\b", text or "", re.M)
        }
        assert named == events


def test_epochs_and_steps_count_what_is_finished() -> None:
    ending = run()
    assert ("epoch_start", 1, 4) in recorder.SEEN
    assert ("epoch_end", 1, 8) in recorder.SEEN
    assert ("checkpoint", 2, 8) in recorder.SEEN
    assert (ending.run.state.epoch, ending.run.state.step) == (2, 8)
    assert [line["finished_epochs"] for line in lines(ending.run.state.folder)] == [1, 2]


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps() -> None:
    losses: list[torch.Tensor] = []
    recorder.ACTIONS["step_end"] = lambda state: losses.append(state.loss.detach())  # type: ignore[union-attr]
    ending = run("run.epochs=1")
    expected = np.mean([float(loss) for loss in losses])
    assert lines(ending.run.state.folder)[0]["train/loss"] == pytest.approx(expected, rel=1e-12)


def test_a_mean_over_more_values_than_are_kept_apart_is_still_the_mean() -> None:
    from trainkit.state import EpochMean

    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    running = EpochMean()
    for value in values:
        running.add(value)
    assert len(running.values) < 300
    assert running.mean() == pytest.approx(values.double().mean().item(), rel=1e-12)


def test_the_validation_loss_is_the_mean_over_items() -> None:
    ending = run("run.epochs=1")
    state = ending.run.state
    (batch,) = state.data.evaluate("val")
    with torch.no_grad():
        expected = (state.model.eval()(batch)["y"] - batch["y"]).square().mean()
    assert state.metrics["val/loss"] == pytest.approx(float(expected), rel=1e-6)


def test_a_loss_that_becomes_nan_is_named_with_epoch_group_and_last_good_checkpoint() -> None:
    def poison(state: State) -> None:
        if state.step == 6:
            for parameter in state.groups["other"].parameters.values():
                parameter.data.fill_(math.nan)

    recorder.ACTIONS["step_end"] = poison
    with pytest.raises(NonFiniteError) as caught:
        run("run.epochs=3")
    (folder,) = Path("runs/toy").iterdir()
    message = str(caught.value)
    assert "after 1 epoch (" in message
    assert "nan after 2 steps of the epoch" in message
    assert "not finite: other" in message
    assert str(folder / "checkpoints/epoch-0001.safetensors") in message
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["epoch-0001.safetensors"]


def test_a_loss_that_is_nan_in_the_first_step_is_not_blamed_on_the_learning_rate() -> None:
    def poison(state: State) -> None:
        next(iter(state.model.parameters())).data.fill_(math.nan)

    recorder.ACTIONS["run_start"] = poison
    with pytest.raises(NonFiniteError, match="first step, before any learning rate acted") as caught:
        run()
    assert "smaller learning rate" not in str(caught.value)


def full(state: State) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nA hint of torch's.")


def refused(state: State) -> None:
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))  # has no deterministic form, on any device


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            full,
            r"^after 1 epoch \(\d+ steps\): the memory of cpu is full: CUDA .* 2.00 GiB.\nlower data.batch",
        ),
        (
            refused,
            r"^after 1 epoch \(\d+ steps\): run.deterministic = true, but torch has no deterministic algorithm",
        ),
    ],
)
def test_a_device_that_gives_up_is_told_with_what_to_do_and_the_last_good_checkpoint(
    trouble: Any, message: str
) -> None:
    recorder.ACTIONS["step_end"] = lambda state: trouble(state) if state.step == 6 else None
    try:
        with pytest.raises(DeviceError, match=message) as caught:
            run("run.epochs=3", "run.deterministic=true")
    finally:
        torch.use_deterministic_algorithms(False)
    (folder,) = Path("runs/toy").iterdir()
    assert str(folder / "checkpoints/epoch-0001.safetensors") in str(caught.value)
    assert "Traceback" in (folder / "log.txt").read_text()
    recorder.ACTIONS.clear()
    ending = resume(folder, "run.deterministic=false")
    assert ending is not None
    assert ending.run.state.epoch == 3


def test_parameters_that_are_not_finite_are_never_saved() -> None:
    def poison(state: State) -> None:
        if state.step == 4:
            next(iter(state.groups["other"].parameters.values())).data[0, 0] = math.inf

    recorder.ACTIONS["epoch_end"] = poison
    with pytest.raises(NonFiniteError, match="not finite"):
        run()
    (folder,) = Path("runs/toy").iterdir()
    assert not list((folder / "checkpoints").iterdir())


def test_an_interruption_inside_an_epoch_saves_and_a_resume_ends_as_if_nothing_had_happened() -> None:
    whole = run("run.epochs=3", text=TOY).run.state

    def stop(state: State) -> None:
        if state.step == 6:
            state.interrupt("the test says so")

    recorder.ACTIONS["step_end"] = stop
    stopped = run("run.epochs=3")
    assert stopped.newest is not None
    assert stopped.newest.name == "step-00000006.safetensors"
    assert stopped.run.state.ended == "stopped: the test says so"
    recorder.ACTIONS.clear()
    resumed = resume(stopped.run.state.folder)
    assert resumed is not None
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.run.state.model.state_dict()[name], tensor)
    one, other = lines(whole.folder), lines(resumed.run.state.folder)
    assert [{**line, "seconds": 0} for line in one] == [{**line, "seconds": 0} for line in other]


def test_a_signal_finishes_the_step_saves_and_is_told_apart_by_the_exit_code() -> None:
    def interrupt(state: State) -> None:
        if state.step == 1:
            signal.raise_signal(signal.SIGTERM)

    recorder.ACTIONS["step_start"] = interrupt
    before = signal.getsignal(signal.SIGTERM)
    ending = run()
    assert ending.code is ExitCode.STOPPED
    assert ending.run.state.step == 2
    assert ending.newest is not None
    assert checkpoint.read(ending.newest)["step"] == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_a_module_keeps_what_it_remembers() -> None:
    text = TOY.replace("clients.toy:Squares", "clients.remembering:Remembering")
    whole = run("run.epochs=3", "checkpoint.keep_last=9", text=text).run.state
    ending = resume(whole.folder / "checkpoints" / "epoch-0001.safetensors")
    assert ending is not None
    assert lines(ending.run.state.folder)[-1]["train/loss"] == lines(whole.folder)[-1]["train/loss"]


def test_a_save_that_is_asked_for_is_made_after_the_step() -> None:
    def ask(state: State) -> None:
        if state.step == 1:
            state.save("the test says so")

    recorder.ACTIONS["step_start"] = ask
    ending = run()
    assert (ending.run.state.folder / "checkpoints" / "step-00000002.safetensors").is_file()


def test_only_the_checkpoints_asked_for_are_kept() -> None:
    values = iter([5.0, 1.0, 4.0, 3.0, 2.0, 2.5, 2.6])
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": next(values)})
    ending = run("run.epochs=7", "checkpoint.keep_last=2", "checkpoint.keep_every=4", "checkpoint.best=1")
    kept = sorted(path.stem for path in (ending.run.state.folder / "checkpoints").iterdir())
    assert kept == ["epoch-0002", "epoch-0004", "epoch-0006", "epoch-0007"]
    assert ending.best == (1.0, 2, None)


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 5.0)])
def test_the_best_by_the_monitor_is_kept_and_a_value_that_is_no_number_never_is(mode: str, best: float) -> None:
    seen = [float("nan"), 3.0, best, 4.0, float("nan"), float("inf"), 3.5]
    values = iter(seen)
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": next(values)})
    ending = run("run.epochs=7", "checkpoint.keep_last=1", "checkpoint.best=1", f"monitor.mode={mode}")
    folder = ending.run.state.folder
    assert sorted(path.stem for path in (folder / "checkpoints").iterdir()) == ["epoch-0003", "epoch-0007"]
    assert ending.best == (best, 3, None)
    assert [line["val/loss"] for line in lines(folder)] == [None, 3.0, best, 4.0, None, None, 3.5]


def test_a_picture_is_written_under_the_number_of_finished_epochs() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    image[1, 2] = (255, 128, 0)
    recorder.ACTIONS["picture"] = lambda state: state.picture("dot", image)
    ending = run("run.epochs=3", "pictures.every_epochs=2")
    figures = ending.run.state.folder / "figures"
    assert sorted(path.name for path in figures.iterdir()) == ["dot-0002.png", "dot-0003.png"]
    assert np.array_equal(np.asarray(Image.open(figures / "dot-0002.png")), image)


def test_a_short_run_has_pictures_of_its_last_epoch_unless_the_recipe_says_how_often() -> None:
    recorder.ACTIONS["picture"] = lambda state: state.picture("dot", np.zeros((4, 5, 3), np.uint8))
    figures = run("run.epochs=21").run.state.folder / "figures"
    assert [path.name for path in figures.iterdir()] == ["dot-0021.png"]


def test_pictures_change_no_random_number_of_the_training() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(state: State) -> None:
        drawn.append((float(np.random.rand()), float(torch.rand(()))))

    recorder.ACTIONS["epoch_end"] = draw
    run("run.epochs=2", "pictures.every_epochs=0")
    recorder.ACTIONS["picture"] = lambda state: torch.rand(int(np.random.rand() * 9) + 1)
    run("run.epochs=2", "pictures.every_epochs=1")
    assert drawn[:2] == drawn[2:]


def test_a_run_that_cannot_be_built_leaves_no_folder_behind() -> None:
    text = TOY.replace("clients.recorder:Recorder", "clients.recorder:Misspelt")
    with pytest.raises(ComponentError, match='on_epoch_ended is not an event; did you mean "epoch_end"'):
        run(text=text)
    assert not list(Path("runs/toy").iterdir())


def test_two_processes_cannot_train_in_one_folder() -> None:
    from trainkit import TrainkitError
    from trainkit.engine.folder_lock import lock

    ending = run()
    with lock(ending.run.state.folder), pytest.raises(TrainkitError, match="in use by another trainkit process"):
        resume(ending.run.state.folder, "run.epochs=3")


def test_a_resume_says_what_differs_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    ending = run()
    resume(ending.run.state.folder, "run.epochs=3", "optimizer.lr=1e-2", quiet=False)
    said = capsys.readouterr().out
    assert "changed: optimizer.lr: 0.001 -> 0.01" in said
    assert "group other: lr after 2 epochs: 0.001 -> 0.01" in said


def test_a_resume_from_an_earlier_checkpoint_opens_a_new_folder_that_names_its_parent() -> None:
    first = run("run.epochs=3").run.state
    parent = first.folder / "checkpoints" / "epoch-0001.safetensors"
    ending = resume(parent)
    assert ending is not None
    folder = ending.run.state.folder
    assert folder != first.folder
    recorded = json.loads((folder / "environment.json").read_text())["starts"][0]["parent"]
    assert Path(recorded).absolute() == parent
    assert [{**line, "seconds": 0} for line in lines(folder)] == [
        {**line, "seconds": 0} for line in lines(first.folder)
    ]


def test_code_that_a_checkpoint_names_is_not_imported_unless_allowed() -> None:
    ending = run()
    with pytest.raises(RecipeError, match="code"):
        resume_from(ending.run.state.folder, Console(quiet=True), sets=("run.epochs=3",))


@pytest.mark.parametrize(("attribute", "value"), [("lr", 1e-3), ("active", False), ("stop_epoch", 1)])
def test_what_a_hook_cannot_change_of_a_group_is_an_error_that_says_who_does(attribute: str, value: Any) -> None:
    def change(state: State) -> None:
        setattr(next(iter(state.groups.values())), attribute, value)

    recorder.ACTIONS["epoch_start"] = change
    with pytest.raises(PartError, match=rf"hooks.recorder, in on_epoch_start.*{attribute} of a group.*scheduler"):
        run()


def test_a_finished_run_has_nothing_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    ending = run()
    assert resume_from(ending.run.state.folder, Console(), allow_code=True) is ExitCode.FINISHED
    assert "nothing is left to do" in capsys.readouterr().out


TWO_GROUPS = TOY.replace(
    "[hooks.recorder]",
    """[groups.first]
parameters = ["0.*"]
[groups.second]
parameters = ["2.*"]
start_epoch = 2
[monitor]
metric = "val/loss"
[hooks.stop_second]
use = "stop_group"
group = "second"
patience = 2
[hooks.recorder]""",
)


def test_a_group_stops_once_the_monitored_value_stalls_and_the_others_go_on() -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})
    ending = run("run.epochs=8", text=TWO_GROUPS)
    rates = [(line["lr/first"] > 0, line["lr/second"] > 0) for line in lines(ending.run.state.folder)]
    assert rates == [(True, epoch in (2, 3, 4)) for epoch in range(8)]


def test_the_run_ends_when_no_group_is_left_to_train() -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})
    ending = run(
        "run.epochs=8", "groups.first.stop_epoch=3", text=TWO_GROUPS.replace("start_epoch = 2", "start_epoch = 1")
    )
    assert ending.run.state.epoch == 4  # the first epoch gives the value that two more do not better
    assert "no group is left to train" in ending.run.state.ended


def test_a_group_that_was_stopped_stays_stopped_after_a_resume() -> None:
    recorder.ACTIONS["validation_end"] = lambda state: state.metrics.update({"val/loss": 1.0})
    whole = run("run.epochs=8", "checkpoint.keep_last=9", text=TWO_GROUPS).run.state
    for finished in (4, 6):
        parent = whole.folder / "checkpoints" / f"epoch-{finished:04d}.safetensors"
        ending = resume(parent)
        assert ending is not None
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(ending.run.state.model.state_dict()[name], tensor)
