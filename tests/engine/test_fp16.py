"""fp16 with a scaled loss, held against a loop that is written by hand with torch's own scaler and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from clients.toy import Line
from clients.toy_run import TOY, lines, resume, run
from same import differences, same, trained

from trainkit import Context, NonFiniteError, RecipeError, State
from trainkit.checkpoint import file as checkpoint
from trainkit.engine.build import build
from trainkit.recipe.resolve import resolve_text

FP16 = ("run.precision=fp16", "run.threads=1", "run.epochs=4", "checkpoint.keep_last=1000")
POLYNOMIAL = 'scheduler={ use = "polynomial", by = "step", power = 1.0 }'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def by_hand(model: Any, clip: float | None, accumulate: int) -> tuple[list[int], Any]:
    """Four epochs of four batches, as the documentation of torch.amp writes them; return the skipped steps."""
    data = Line().build(Context(0, torch.device("cpu"), Path()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=16 // accumulate, power=1.0)
    scaler = torch.amp.GradScaler("cpu")
    skipped = []
    for step in range(16 // accumulate):
        optimizer.zero_grad()
        for part in range(accumulate):
            epoch, number = divmod(step * accumulate + part, 4)
            batch = data.batch(epoch, number)
            with torch.autocast("cpu", dtype=torch.float16):
                loss = (model(batch)["y"] - batch["y"]).square().mean() / accumulate
            scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped.append(step)
        else:
            schedule.step()
    return skipped, scaler.state_dict()


@pytest.mark.parametrize(("clip", "accumulate"), [(None, 1), (0.5, 1), (0.5, 2)])
def test_a_run_is_the_loop_of_torchs_documentation_to_the_bit_with_clipping_and_accumulation(
    clip: float | None, accumulate: int
) -> None:
    sets = [*FP16, POLYNOMIAL, 'optimizer={ use = "sgd", lr = 0.05, momentum = 0.9 }', f"run.accumulate={accumulate}"]
    sets += [] if clip is None else [f'hooks.clip={{ use = "clip_gradients", max_norm = {clip} }}']
    state = run(*sets).run.state
    torch.manual_seed(0)
    model = resolve_text(TOY, Path.cwd()).recipe.model.build(None)
    skipped, scaler = by_hand(model, clip, accumulate)
    assert skipped  # the first scale, 2^16, is too large for these points
    assert state.skipped == skipped
    assert same(dict(state.model.state_dict()), dict(model.state_dict()))
    newest = state.folder / "checkpoints" / "epoch-0004.safetensors"
    assert checkpoint.read(newest)["parts"]["scaler"] == scaler
    assert lines(state.folder)[0]["train/skipped"] == len([s for s in skipped if s < 4 // accumulate]) * accumulate / 4


def test_a_skipped_step_is_no_tick_of_a_schedule_by_steps() -> None:
    rates: list[float] = []
    recorder.ACTIONS["backward_end"] = lambda state: rates.append(state.groups["other"].lr)
    state = run(*FP16, POLYNOMIAL, "optimizer.lr=0.16").run.state
    updates = 0
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(0.16 * (1 - updates / 16), rel=1e-12)
        updates += step not in state.skipped
    assert updates == state.updates < 16 == state.step


@pytest.mark.slow
def test_it_resumes_to_the_same_bits_from_every_step_skipped_ones_among_them() -> None:
    recorder.ACTIONS["step_end"] = lambda state: state.save("every step")
    sets = (*FP16, POLYNOMIAL, "run.accumulate=3", 'hooks.clip={ use = "clip_gradients", max_norm = 0.5 }')
    whole = run(*sets).run.state
    assert {0} <= set(whole.skipped) < set(range(8))
    recorder.ACTIONS.clear()
    last = whole.folder / "checkpoints" / "epoch-0004.safetensors"
    for file in sorted(set(last.parent.glob("*.safetensors")) - {last}):
        state = resume(file).run.state
        ended = checkpoint.read(state.folder / "checkpoints" / last.name)
        assert differences(trained(ended), trained(checkpoint.read(last))) == [], file.name
        told = [[{**line, "seconds": 0} for line in lines(each.folder)] for each in (state, whole)]
        assert told[0] == told[1], file.name


def test_gradients_that_no_scale_makes_finite_end_the_run_and_the_message_names_bf16() -> None:
    def overflow(state: State) -> None:
        for parameter in state.model.parameters():
            parameter.register_hook(lambda gradient: gradient * float("inf"))

    recorder.ACTIONS["run_start"] = overflow
    with pytest.raises(NonFiniteError, match=r"(?s)gradients of step 32 .*scaled down to 1.53e-05.*bf16"):
        run(*FP16, "run.epochs=20")


def test_a_loss_that_is_not_finite_ends_the_run_as_in_fp32_although_its_step_was_skipped() -> None:
    def spoil(state: State) -> None:
        if state.step == 2:
            assert state.batch is not None
            state.batch["y"].fill_(float("nan"))

    recorder.ACTIONS["step_start"] = spoil
    with pytest.raises(NonFiniteError, match="nan after 2 steps of the epoch"):
        run(*FP16)


def test_a_run_of_which_many_steps_were_skipped_is_doubtful() -> None:
    def overflow(state: State) -> None:
        if state.step % 4 == 0:
            assert state.batch is not None
            state.batch["x"].mul_(1e4)

    recorder.ACTIONS["step_start"] = overflow
    outcome = run(*FP16, "run.epochs=40")
    (doubt,) = outcome.run.state.doubts
    assert doubt.startswith(f"{len(outcome.run.state.skipped)} of 160 steps did not update the parameters")


def test_a_model_with_complex_parameters_is_refused_by_name() -> None:
    text = TOY.replace("clients.toy:Perceptron", "clients.bigger:Complex")
    with pytest.raises(RecipeError, match="the parameter phase is complex64"):
        build(resolve_text(text, Path.cwd(), FP16), Path.cwd())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_forward_loss_and_evaluation_run_in_the_precision(precision: str) -> None:
    seen = set()

    def look(state: State) -> None:
        assert state.outputs is not None
        seen.add((state.split, state.outputs["y"].dtype))

    recorder.ACTIONS["backward_end"] = recorder.ACTIONS["validation_step_end"] = look
    run(f"run.precision={precision}", "run.epochs=1")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == {(None, dtype), ("val", dtype)}
