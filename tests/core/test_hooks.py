"""The built-in hooks and plain inference."""

from __future__ import annotations

import json
import math
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit import Context, Group, Monitor, RecipeError, State
from trainkit.engine.every_run.progress_chart import Curve, _panels, draw
from trainkit.events import fire, listeners
from trainkit.hooks.clip_gradients import ClipGradients
from trainkit.hooks.early_stopping import EarlyStopping
from trainkit.inference.plain import Plain
from trainkit.state import EpochValues

CONTEXT = Context(seed=0, device=torch.device("cpu"), folder=Path("nowhere"))


class Sky(torch.nn.Module):
    """Two groups, one of them complex, as an object and its probe are."""

    def __init__(self) -> None:
        super().__init__()
        self.ground = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        self.stars = torch.nn.Parameter(torch.tensor([6.0 + 8.0j, 0.0j]))

    def forward(self, batch: Any) -> dict[str, Any]:
        return {"light": self.ground.sum() + self.stars.abs().sum() + batch["index"].sum()}


def state_of(starts: dict[str, int | None] | None = None, monitor: Monitor | None = None) -> State:
    model = Sky()
    starts = {"ground": 0, "stars": 0} if starts is None else starts
    groups = {
        name: Group({name: getattr(model, name)}, lr=0.1, active=True, start_epoch=start, stop_epoch=100)
        for name, start in starts.items()
    }
    data: Any = None
    return State(CONTEXT, epochs=100, model=model, data=data, groups=groups, monitor=monitor or Monitor())


# ---- clip_gradients -------------------------------------------------------------------------------------------------


def clipped(settings: ClipGradients) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both gradients after clipping; before it they are (3, 4), norm 5, and (6 + 8i, 0), norm 10."""
    state = state_of()
    ground, stars = state.model.ground, state.model.stars
    ground.grad, stars.grad = ground.detach().clone(), stars.detach().clone()
    part = settings.build(CONTEXT)
    events = listeners({"hooks.clip": part})
    for event in ("run_start", "backward_end"):
        fire(events[event], state)
    return ground.grad, stars.grad


def test_the_norm_of_all_groups_together_is_brought_to_the_bound():
    ground, stars = clipped(ClipGradients(max_norm=2.0))
    assert math.hypot(ground.norm(), stars.norm()) == pytest.approx(2.0, rel=1e-5)
    assert ground[0] / ground[1] == pytest.approx(3 / 4)
    assert stars.abs()[0] / ground.norm() == pytest.approx(2.0)


def test_each_group_is_brought_to_the_bound_by_itself():
    ground, stars = clipped(ClipGradients(max_norm=7.0, separately=True))
    assert ground.norm() == 5.0
    assert stars.norm() == pytest.approx(7.0, rel=1e-5)


def test_groups_that_are_not_named_keep_their_gradient():
    ground, stars = clipped(ClipGradients(max_norm=1.0, groups=("stars",)))
    assert ground.norm() == 5.0
    assert stars.norm() == pytest.approx(1.0, rel=1e-5)


def test_a_gradient_below_the_bound_is_left_bit_for_bit():
    ground, stars = clipped(ClipGradients(max_norm=12.0))
    assert torch.equal(ground, torch.tensor([3.0, 4.0]))
    assert torch.equal(stars, torch.tensor([6.0 + 8.0j, 0.0j]))


def test_parameters_without_a_gradient_have_no_part_in_the_norm():
    state = state_of()
    state.model.ground.grad = torch.tensor([3.0, 4.0])
    part: Any = ClipGradients(max_norm=1.0).build(CONTEXT)
    part.on_run_start(state)
    part.on_backward_end(state)
    assert state.model.ground.grad.norm() == pytest.approx(1.0, rel=1e-5)
    assert state.model.stars.grad is None


def test_clipping_a_group_that_is_not_there_names_the_nearest():
    part: Any = ClipGradients(groups=("star",)).build(CONTEXT)
    with pytest.raises(RecipeError, match='did you mean "stars"'):
        part.on_run_start(state_of())


# ---- early_stopping -------------------------------------------------------------------------------------------------


def stops_at(settings: EarlyStopping, values: list[float | None], state: State | None = None) -> int | None:
    """Return the epoch after which the run ends; a value of None is an epoch without the metric."""
    state = state or state_of()
    part: Any = settings.build(CONTEXT)
    for epoch, value in enumerate(values):
        state.epoch = epoch
        metrics = {} if value is None else {state.monitor.metric: value}
        state.values_to_act_on = (EpochValues(epoch, epoch, metrics),)
        part.on_epoch_end(state)
        if state.stop_reason:
            return epoch
        saved = json.loads(json.dumps(part.state_dict(), allow_nan=False))  # as if resumed after each epoch
        part = settings.build(CONTEXT)
        part.load_state_dict(saved)
    return None


def test_what_an_older_trainkit_remembered_is_also_forgotten_when_its_value_means_something_else():
    state = state_of()
    state.redefined = lambda name: "the data has changed"
    part: Any = EarlyStopping(metric="val/loss").build(CONTEXT)
    part.load_state_dict({"best": 0.1, "since": 3})
    part.on_resume(state)
    assert (part.best, part.since) == (None, None)


def test_a_run_that_gets_better_is_not_stopped():
    assert stops_at(EarlyStopping(patience=1), [1 / (1 + e) for e in range(50)]) is None


def test_it_stops_when_the_patience_is_used_up():
    assert stops_at(EarlyStopping(patience=3), [5.0, 4.0, 3.0, 3.5, 3.2, 3.0, 1.0]) == 5


def test_the_reason_names_metric_patience_and_best_value():
    state = state_of()
    stops_at(EarlyStopping(patience=2), [0.5, 0.25, 0.3, 0.3], state)
    assert state.stop_reason == "val/loss has not improved for 2 epochs (best 0.25, now 0.3)"


def test_gains_up_to_min_delta_do_not_count():
    falling = [1.0 - 0.0625 * e for e in range(9)]
    assert stops_at(EarlyStopping(patience=2, min_delta=0.1), falling) is None
    assert stops_at(EarlyStopping(patience=2, min_delta=0.125), falling) == 2


def test_a_monitor_that_is_maximised_is_read_that_way():
    rising = [0.1 * e for e in range(10)]
    monitor = Monitor(metric="val/dice", mode="max")
    assert stops_at(EarlyStopping(patience=2), rising, state_of(monitor=monitor)) is None
    assert stops_at(EarlyStopping(patience=2, mode="min"), rising, state_of(monitor=monitor)) == 2


def test_nan_and_infinity_are_no_improvement_but_no_end_of_it_either():
    nan, inf = math.nan, math.inf
    assert stops_at(EarlyStopping(patience=3), [nan, nan, nan, nan]) == 2
    assert stops_at(EarlyStopping(patience=3), [nan, nan, 1.0, nan, 0.5, nan, -inf, 0.4]) is None


def test_patience_is_in_epochs_also_where_the_metric_is_seldom():
    every_third: list[float | None] = [1.0 if e % 3 == 0 else None for e in range(20)]
    assert stops_at(EarlyStopping(patience=5), every_third) == 6


def test_a_stage_still_to_come_is_not_cut_off_and_has_the_whole_patience():
    state = state_of({"ground": 0, "stars": 10})
    assert stops_at(EarlyStopping(patience=3), [1.0] * 30, state) == 12


def test_a_group_that_never_starts_does_not_hold_the_run_up():
    state = state_of({"ground": 0, "stars": None})
    assert stops_at(EarlyStopping(patience=3), [1.0] * 30, state) == 3


def test_a_metric_of_its_own_without_a_mode_is_warned_of():
    recipe: Any = SimpleNamespace(monitor=Monitor())
    (warning,) = EarlyStopping(metric="val/dice").problems(recipe)
    assert (warning.key, warning.severity) == ("metric", "warning")
    assert list(EarlyStopping(metric="val/dice", mode="max").problems(recipe)) == []
    assert list(EarlyStopping(metric="val/loss").problems(recipe)) == []


# ---- plain inference ------------------------------------------------------------------------------------------------


def test_plain_inference_is_the_models_forward():
    model, batch = Sky(), {"index": torch.arange(3)}
    assert torch.equal(Plain().build(None)(model, batch)["light"], model(batch)["light"])


# ---- progress.png ---------------------------------------------------------------------------------------------------


def test_values_of_classes_are_drawn_with_their_mean() -> None:
    names = ["dice", "dice_liver", "dice_liver_tumour", "surface_dice", "surface_dice_liver", "rmse_start", "rmse_end"]
    drawn_in = _panels(names)
    assert {name for name in names if drawn_in[name] == "dice"} == {"dice", "dice_liver", "dice_liver_tumour"}
    assert drawn_in["surface_dice_liver"] == "surface_dice"
    assert drawn_in["rmse_start"] == "rmse_start"


def test_the_chart_has_a_panel_for_losses_for_learning_rates_and_for_each_other_value(tmp_path: Path) -> None:
    values = {"train/loss": [4.0, 1.0], "val/loss": [5.0, 2.0], "lr/object": [1e-3, 0.0], "val/dice": [0.0, 0.5]}
    curves = {name: Curve(array("d", [0, 1]), array("d", each)) for name, each in values.items()}
    for members, panels in ((["train/loss"], 2), (list(values), 3)):
        draw(SimpleNamespace(folder=tmp_path, groups={}, epoch=1), {name: curves[name] for name in members})
        with Image.open(tmp_path / "progress.png") as picture:
            assert picture.size == (700, 240 * panels)
            ink = np.asarray(picture.convert("L")) < 128
        assert not ink[:, -5:].any(), "nothing is cut off at the right"
        assert not ink[:, :2].any(), "nor at the left"
        assert all(ink[240 * i : 240 * (i + 1), 120:680].sum() > 500 for i in range(panels))
