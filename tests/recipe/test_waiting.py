"""Parts that wait longer for a value to improve than the run lasts, against what the parts do when they are driven."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import le
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from recipe_toys import GOOD, toys

from trainkit import Hook, MetricName, Monitor
from trainkit.hooks.early_stopping import EarlyStopping
from trainkit.hooks.stop_group import StopGroup
from trainkit.recipe.resolve import resolve_text
from trainkit.recipe.waiting import never_acting
from trainkit.state import EpochValues
from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau
from trainkit_segmentation.metrics.hd95 import HD95

PLATEAU = 'scheduler={ use = "reduce_on_plateau", patience = 3 }'
BESIDE = ("validation.beside=true",)
EARLY = 'hooks.early={ use = "early_stopping", patience = 3 }'


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


def said(*sets: str, steps_per_epoch: int | None = None) -> list[str]:
    """Return the severity, the setting, the message and the hint of each finding."""
    recipe = resolve_text(GOOD, Path.cwd(), sets).recipe
    return [
        f"{each.severity} {'.'.join(map(str, each.where))}: {each.message}. {each.hint}"
        for each in never_acting(recipe, steps_per_epoch)
    ]


def test_a_plateau_that_can_never_reduce_is_said_with_numbers_and_with_what_to_paste() -> None:
    assert said(PLATEAU, "run.epochs=5") == [
        "warning scheduler.patience: ReduceOnPlateau can never reduce the learning rate: patience 3 needs 5 values of "
        "val/loss before the last epoch, and the 5 epochs of the run have 4. paste patience = 1, or epochs = 6 in [run]"
    ]
    assert said(PLATEAU, "run.epochs=6") == []


def test_numbers_beyond_every_run_are_not_counted_one_by_one() -> None:
    looked_at = []

    def patience(hook: EarlyStopping, epochs: Iterator[int], first_epoch: int) -> None:
        looked_at.append(sum(1 for _ in epochs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EarlyStopping, "first_end", patience)
        (text,) = said(EARLY, "run.epochs=5", f"hooks.early.patience={2**63 - 1}")
        assert said(EARLY, "run.epochs=1000000", f"hooks.early.patience={2**63 - 1}") == []
    assert "needs more values of val/loss before the last epoch" in text
    assert max(looked_at) <= 20_000


def test_the_largest_whole_number_of_toml_is_a_patience() -> None:
    (text,) = said(f'scheduler={{ use = "reduce_on_plateau", patience = {2**63 - 1} }}')
    assert "patience" in text


def test_check_shows_it_at_the_line_of_the_setting() -> None:
    text = GOOD.replace('use = "flat"', 'use = "reduce_on_plateau"\npatience = 30')
    (note,) = resolve_text(text, Path.cwd()).notes
    assert "can never reduce" in str(note)
    assert "    patience = 30\n" in str(note)


@pytest.mark.measured_every(10)
@pytest.mark.parametrize("epochs", range(1, 12))
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("beside", [False, True])
def test_the_warning_comes_exactly_where_a_value_that_never_improves_changes_no_rate(
    epochs: int, every: int, warmup: int, beside: bool
) -> None:
    if warmup >= epochs:
        return  # such a warm-up is an error
    schedule = ReduceOnPlateau(patience=1)
    memory: Any = {}
    observed: Any = {}
    rates = []
    for epoch in range(epochs):
        rates.append(schedule.at(epoch, epochs, 1.0, memory).lr)
        before = observed
        if epoch >= warmup and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
            observed = schedule.observe(observed, {"val/loss": 1.0}, Monitor())
        memory = before if beside else observed
    table = f'scheduler={{ use = "reduce_on_plateau", patience = 1, warmup = {warmup} }}'
    warned = said(table, f"run.epochs={epochs}", f"validation.every_epochs={every}", *BESIDE * beside)
    assert bool(warned) == (min(rates) == 1.0)


def stops(settings: Hook, epochs: int, every: int, starts: tuple[int, ...] = (0,), beside: bool = False) -> int | None:
    """Drive a hook with a value that never improves; return the epoch after which it stops something."""
    part: Any = settings.build(SimpleNamespace())  # type: ignore[arg-type]
    state: Any = SimpleNamespace(stop_reason=None, monitor=Monitor(), groups={}, stopped=None)
    state.stop = lambda reason: setattr(state, "stopped", state.epoch)
    state.stop_group = lambda name, reason: state.stop(reason)
    before: tuple[EpochValues, ...] = ()
    for epoch in range(epochs):
        state.epoch = epoch
        state.groups = {
            f"g{n}": SimpleNamespace(active=start <= epoch, start_epoch=start, trains_in=partial(le, start))
            for n, start in enumerate(starts)
        }
        metrics = {"val/loss": 1.0} if (epoch + 1) % every == 0 or epoch + 1 == epochs else {}
        own = (EpochValues(epoch, epoch, metrics),)
        state.values_to_act_on, before = before if beside else own, own
        part.on_epoch_end(state)
        if state.stopped is not None:
            return epoch
    return None


@pytest.mark.measured_every(10)
@pytest.mark.parametrize("epochs", range(1, 16))
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("beside", [False, True])
def test_an_early_stop_that_cannot_come_before_the_end_is_said(
    epochs: int, every: int, start: int, beside: bool
) -> None:
    groups = ["groups.body={}", f"groups.head={{ start_epoch = {start} }}"] if start and epochs > start else []
    wanted = stops(EarlyStopping(patience=3), epochs, every, (0, start if groups else 0), beside)
    warned = said(EARLY, *groups, f"run.epochs={epochs}", f"validation.every_epochs={every}", *BESIDE * beside)
    assert bool(warned) == (wanted is None or wanted == epochs - 1)


@pytest.mark.parametrize("beside", [False, True])
def test_the_patience_for_a_group_counts_in_the_epochs_of_the_group(beside: bool) -> None:
    hook = 'hooks.stop={ use = "stop_group", group = "head", patience = 3 }'
    groups = ("groups.body={}", "groups.head={ start_epoch = 4 }")
    for epochs in range(5, 14):
        wanted = stops(StopGroup(group="g1", patience=3), epochs, 1, (0, 4), beside)
        warned = said(hook, *groups, f"run.epochs={epochs}", *BESIDE * beside)
        assert bool(warned) == (wanted is None or wanted == epochs - 1), epochs


def test_a_schedule_that_can_act_in_some_groups_and_phases_only_is_a_note_that_names_the_others() -> None:
    groups = ("groups.body={ then = { finish = { start_epoch = 18, lr = 1e-3 } } }", "groups.head={ start_epoch = 17 }")
    assert said(PLATEAU, *groups, "run.epochs=20") == [
        "note scheduler.patience: patience 3 is too long to reduce the learning rate of group body, phase finish "
        "(the 2 epochs after the first 18), group head (the 3 epochs after the first 17). "
    ]


def test_a_schedule_of_a_group_is_held_to_the_epochs_of_that_group() -> None:
    own = 'groups.head={ start_epoch = 16, scheduler = { use = "reduce_on_plateau", patience = 3 } }'
    (found,) = said("groups.body={}", own, "run.epochs=20")
    assert found.startswith("warning groups.head.scheduler.patience: ReduceOnPlateau can never reduce")
    assert "the 4 epochs after the first 16 have 3. paste patience = 0, or epochs = 22 in [run]" in found


def test_rarer_validations_are_counted_and_more_of_them_are_proposed() -> None:
    (found,) = said(PLATEAU, "run.epochs=20", "validation.every_epochs=5")
    assert "needs 5 values of val/loss before the last epoch, and the 20 epochs of the run have 3." in found
    assert "paste patience = 0, or every_epochs = 1 in [validation], or epochs = 26 in [run]" in found


def test_a_value_of_training_comes_every_epoch_however_rare_validation_is() -> None:
    table = 'scheduler={ use = "reduce_on_plateau", patience = 3, metric = "train/loss" }'
    assert said(table, "run.epochs=6", "validation.every_epochs=5") == []
    assert len(said(table, "run.epochs=5", "validation.every_epochs=5")) == 1


def test_a_metric_that_is_measured_rarely_is_counted_as_often_as_it_is_measured() -> None:
    recipe = resolve_text(GOOD, Path.cwd(), (PLATEAU, "run.epochs=9")).recipe
    for every, doubtful in ((1, False), (2, True)):
        metrics = {"distance": HD95(every_epochs=every)}
        watching = attrs.evolve(recipe, metrics=metrics, monitor=Monitor(metric=MetricName("val/hd95")))
        assert bool(list(never_acting(watching))) == doubtful


def test_what_depends_on_the_steps_in_an_epoch_is_said_only_once_they_are_known() -> None:
    in_steps = (PLATEAU, "run.steps=40")
    assert said(*in_steps) == []
    assert said(*in_steps, steps_per_epoch=4) == []
    (found,) = said(*in_steps, steps_per_epoch=10)
    assert "the 4 epochs of the run have 3. paste patience = 0" in found
    by_steps = (PLATEAU, "run.epochs=6", "validation.every_epochs=0", "validation.every_steps=6")
    assert said(*by_steps) == []
    assert said(*by_steps, steps_per_epoch=6) == []
    assert len(said(*by_steps, steps_per_epoch=2)) == 1
    assert len(said(PLATEAU, "run.steps=5")) == 1


def test_a_schedule_without_patience_and_a_run_that_is_never_validated_add_nothing() -> None:
    assert said("run.epochs=1") == []
    assert said(PLATEAU, "run.epochs=3", "validation.every_epochs=0") == []  # another rule warns of that
