"""Steps on a CPU are repeated without their Python: nobody who trains, or listens, can tell but by the time."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import recorder
from clients.replays import never_alike, results
from clients.toy_run import TOY, resume, run
from same import differences
from torch import nn

from engine.test_graphed_step import MISTAKES, TOLD, UNHEARD, WITH_PYTHON
from trainkit import Optimizer, State, component
from trainkit.engine import operations
from trainkit.engine.build import build
from trainkit.engine.graphed_step import GraphedStep
from trainkit.engine.listed_operations import ListedOperations
from trainkit.engine.live_run import LiveRun
from trainkit.engine.operations import NotRecordableError, TooMuchError
from trainkit.engine.run_folder import created
from trainkit.processes.place import Place
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

PROMISED = UNHEARD.replace("cuda_graph = true", 'device = "cpu"')
HEARD = TOLD.replace("cuda_graph = true", 'device = "cpu"')
LONG = ("run.epochs=8",)  # of four steps each; the first four are made as usual


@component
class Silent(recorder.Recorder):
    """A hook that does not say what it keeps."""

    phase = "observe"


class LivePastTorch(torch.optim.Optimizer):
    """Changes parameters through arrays that look at their memory, as code in C does."""

    looks: list[Any] | None = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.looks is None:
            self.looks = [each.detach().numpy() for group in self.param_groups for each in group["params"]]
        for look in self.looks:
            look *= 0.9


@component
class PastTorch(Optimizer):
    """Promises what it does not keep."""

    steps_can_be_recorded = True

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return LivePastTorch([dict(group) for group in groups], {"lr": self.lr})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    recorder.forget()
    monkeypatch.setattr(ListedOperations, "least_left", 10)
    yield
    recorder.forget()


@pytest.fixture
def repetitions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps were repeated, for each epoch that ended."""
    ended: list[int] = []
    leave = GraphedStep.leave_epoch

    def noted(step: GraphedStep) -> None:
        ended.append(step._repeated)
        leave(step)

    monkeypatch.setattr(GraphedStep, "leave_epoch", noted)
    return ended


def trained(*sets: str, text: str = PROMISED) -> LiveRun:
    return run(*LONG, *sets, text=text).run


def test_steps_are_repeated_from_the_fifth_on_to_the_same_bits(repetitions: list[int]) -> None:
    repeated = trained()
    assert repetitions == [0] + [4] * 7
    with never_alike():
        by_themselves = trained()
    assert repetitions[8:] == [0] * 8
    assert differences(results(repeated), results(by_themselves)) == []


def test_without_repetitions_rates_are_numbers_and_only_the_last_digits_change() -> None:
    sgd = ("optimizer.use=sgd", "optimizer.lr=0.01")
    repeated, usual = trained(*sgd), trained(*sgd, "run.repeat_steps=false")
    assert usual.graphs is None
    torch.testing.assert_close(dict(repeated.state.model.state_dict()), dict(usual.state.model.state_dict()))


def test_a_resume_inside_an_epoch_which_repeats_other_steps_ends_with_the_same_bits(repetitions: list[int]) -> None:
    whole = trained("checkpoint.every_steps=1", "checkpoint.keep_last=99")
    files = {int(each.stem.split("-")[1]): each for each in (whole.state.folder / "checkpoints").glob("step-*")}
    for step in (3, 18, 29):
        (copy := Path(f"from-{step}")).mkdir()
        (copy / files[step].name).write_bytes(files[step].read_bytes())
        assert differences(results(resume(copy / files[step].name).run), results(whole)) == []
    assert max(repetitions) == 4


def test_a_hook_that_does_not_promise_to_keep_nothing_gets_outputs_of_its_own(repetitions: list[int]) -> None:
    def all_outputs(text: str) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []

        def keep(state: State) -> None:
            assert state.outputs is not None
            kept.append(state.outputs["y"].detach())

        recorder.ACTIONS["step_end"] = keep
        trained(text=text)
        return kept

    promised = all_outputs(HEARD)
    assert max(repetitions) == 4
    assert any(one is not two and torch.equal(one, two) for one, two in pairwise(promised))
    repetitions.clear()
    silent = all_outputs(
        HEARD.replace("engine.test_graphed_step:RecordedRecorder", "engine.test_repeated_steps:Silent")
    )
    assert max(repetitions) == 0
    assert not any(torch.equal(one, two) for one, two in pairwise(silent))


@pytest.mark.parametrize(
    "hook",
    [
        lambda model, call: model.register_forward_hook(lambda *_: call()),
        lambda model, call: next(model.parameters()).register_hook(lambda _: call()),
        lambda model, call: next(model.parameters()).register_post_accumulate_grad_hook(lambda _: call()),
        lambda model, call: setattr(model, "forward", _calling(call, model.forward)),
    ],
)
def test_what_torch_calls_in_a_step_is_called_in_each(hook: Callable[[nn.Module, Any], Any]) -> None:
    calls: list[None] = []
    recorder.ACTIONS["run_start"] = lambda state: hook(state.model, lambda: calls.append(None))
    trained("validation.every_epochs=0", text=HEARD)
    assert len(calls) >= 32


def _calling(call: Callable[[], None], forward: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any) -> Any:
        call()
        return forward(*args)

    return both


def test_a_model_that_cannot_be_recorded_after_all_trains_as_usual(
    repetitions: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    text = WITH_PYTHON.replace("cuda_graph = true", 'device = "cpu"')
    with caplog.at_level(logging.INFO, logger="trainkit"):
        looked = trained("model.what=looks", text=text)
    assert max(repetitions) == 0
    assert caplog.text.count("steps are made one by one") == 1
    with never_alike():
        assert differences(results(looked), results(trained("model.what=looks", text=text))) == []


@pytest.mark.parametrize("text", [PROMISED, HEARD], ids=["one recording", "one for the update"])
def test_an_optimizer_that_computes_past_torch_is_found_out_and_makes_each_step(
    text: str, repetitions: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    past = "optimizer={ use = 'engine.test_repeated_steps:PastTorch', lr = 1.0 }"
    with caplog.at_level(logging.INFO, logger="trainkit"):
        state = trained(past, "validation.every_epochs=0", text=text).state
    assert "it computes past torch" in caplog.text
    assert max(repetitions) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LivePastTorch, "step", lambda *_: None)
        start = trained(past, "run.repeat_steps=false", "validation.every_epochs=0", text=text).state
    for one, two in zip(state.model.parameters(), start.model.parameters(), strict=True):
        torch.testing.assert_close(one, two * 0.9**32)


def test_steps_that_are_all_of_other_kinds_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.engine.graphed_step._MOST_KINDS", 5)
    with never_alike():
        step = trained().step
    assert isinstance(step, GraphedStep)
    assert 0 < len(step._kinds) <= 5


def test_a_stage_that_is_almost_over_is_not_worth_a_recording(repetitions: list[int]) -> None:
    late = "groups.encoder.start_epoch=3"
    trained(late)
    assert repetitions == [0, 0, 0, 0, 4, 4, 4, 4]  # at the fifth step, eight are left
    repetitions.clear()
    trained("groups.encoder.start_epoch=4")
    assert repetitions == [0, 4, 4, 4, 0, 4, 4, 4]


@pytest.mark.parametrize("processes", [1, 2])
def test_steps_of_several_processes_which_wait_for_each_other_are_made_as_usual(processes: int) -> None:
    small = ("data.scan_shape=[6, 6]", "data.detector_size=24", "run.device=cpu")
    resolved = resolve(shipped()["ptycho_staged"], small)
    with created(resolved) as folder:
        built = build(resolved, folder, place=Place(0, processes))
    assert (built.graphs is None) == (processes == 2)


def test_parts_that_promise_nothing_are_left_alone() -> None:
    assert run(text=TOY).run.graphs is None


def test_a_setting_with_which_steps_cannot_be_recorded_is_no_error() -> None:
    assert trained("run.accumulate=2").graphs is None


# ---- operations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", [*MISTAKES, lambda x: x.resize_(3), lambda x: x.unsqueeze_(0)])
def test_what_would_not_be_the_same_in_each_step_is_refused_and_undone(mistake: Callable[[torch.Tensor], Any]) -> None:
    x = torch.ones(2)
    with pytest.raises(NotRecordableError):
        ListedOperations().record(lambda: mistake(x.mul_(2)))
    assert x.tolist() == [1, 1]


def test_memory_that_is_changed_past_torch_is_found_and_put_back() -> None:
    x = torch.ones(3)
    look = x.numpy()

    def change() -> None:
        look[:] += 1

    with pytest.raises(NotRecordableError, match="computes past torch"):
        ListedOperations().record(change, [x])
    assert x.tolist() == [1, 1, 1]


def test_memory_that_is_filled_past_torch_is_found() -> None:
    total = torch.zeros(4)

    def fill() -> None:
        made = torch.empty(4)
        ctypes.memset(made.data_ptr(), 0, made.nbytes)
        total.add_(made)

    with pytest.raises(NotRecordableError, match="computes past torch"):
        ListedOperations().record(fill)


def test_a_generator_of_ones_own_goes_on_with_each_repetition_and_not_before() -> None:
    generator, usual, drawn = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3), torch.zeros(2)
    again = ListedOperations().record(lambda: drawn.copy_(torch.rand(2, generator=generator)))
    for _ in range(2):
        again()
        assert torch.equal(drawn, torch.rand(2, generator=usual))


def test_numbers_that_python_has_made_may_be_read() -> None:
    x, total = torch.ones(2, 3), torch.zeros(2)
    again = ListedOperations().record(lambda: total.add_(x.sum(torch.arange(1, x.ndim).tolist())))
    again()
    assert total.tolist() == [3, 3]


def test_statistics_that_an_operation_changes_without_saying_so_are_put_back() -> None:
    norm = nn.BatchNorm1d(2)
    x = torch.randn(8, 2) + 5
    again = ListedOperations().record(lambda: norm(x))
    assert norm.running_mean.tolist() == [0, 0]
    again()
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
    assert int(norm.num_batches_tracked) == 1


def test_what_somebody_holds_has_the_values_of_the_last_repetition() -> None:
    x, held = torch.arange(1.0, 5.0).view(2, 2), []

    def compute() -> None:
        square = x.square()  # written by an overload with out=
        wave = torch.fft.fft2(x)  # by a copy
        largest, places = x.max(0)  # of two results, both held
        held[:] = [square, square[1], wave, wave.conj(), largest, places, *(x + 1).unbind()]

    again = ListedOperations().record(compute)
    kept = list(held)
    x.copy_(torch.tensor([[7.0, -1.0], [3.0, 9.0]]))
    again()
    repeated = [each.clone() for each in kept]
    compute()
    assert all(torch.equal(one, two) for one, two in zip(repeated, held, strict=True))


def test_an_operation_that_changes_an_argument_and_returns_something_new_does_both() -> None:
    x, mean, variance, total = torch.randn(8, 2) + 5, torch.zeros(2), torch.ones(2), torch.zeros(8, 2)

    def normalise() -> None:
        normal, _, _ = torch.ops.aten._native_batch_norm_legit(x, None, None, mean, variance, True, 0.1, 1e-5)
        total.add_(normal)

    again = ListedOperations().record(normalise)
    again()
    again()
    torch.testing.assert_close(mean, 0.19 * x.mean(0))
    torch.testing.assert_close(total, 2 * (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-4, atol=1e-4)


def test_a_check_is_made_at_each_repetition() -> None:
    x = torch.ones(())
    again = ListedOperations().record(lambda: torch._assert_async(x))
    again()
    x.zero_()
    with pytest.raises(RuntimeError, match="nonzero"):
        again()


def test_what_nobody_holds_takes_no_memory_between_repetitions() -> None:
    x, total = torch.ones(2**20), torch.zeros(())
    again = ListedOperations().record(lambda: total.add_((x * 2 + 1).square().sum()))
    again()
    assert float(total) == 9 * 2**20
    constants = [each.cell_contents for each in again.__closure__[0].cell_contents.__closure__]
    assert sum(each.nbytes for each in constants if isinstance(each, torch.Tensor)) == x.nbytes + total.nbytes


def test_a_step_that_makes_much_is_not_taken_down() -> None:
    x = torch.ones(2**16)

    class Small(ListedOperations):
        most_bytes = x.nbytes + 3 * x.nbytes

    def three() -> None:
        x.add_(1).mul(2).mul(2).mul(2)

    def four() -> None:
        x.add_(1).mul(2).mul(2).mul(2).mul(2)

    Small().record(three)
    with pytest.raises(TooMuchError, match="makes more than"):
        Small().record(four)
    assert float(x[0]) == 1


def test_an_operation_is_performed_by_the_overload_that_writes_into_a_tensor_if_there_is_one() -> None:
    aten = torch.ops.aten
    assert operations._that_writes_to(aten.mul.Tensor) is aten.mul.out
    assert operations._that_writes_to(aten.sum.dim_IntList) is aten.sum.IntList_out
    assert operations._that_writes_to(aten.select.int) is None


def test_taking_a_step_down_does_not_import_torchs_compiler() -> None:
    program = (
        "import sys, torch\n"
        "from trainkit.engine.listed_operations import ListedOperations\n"
        "x = torch.ones(2)\n"
        "ListedOperations().record(lambda: x.add_(1))()\n"
        "assert x.tolist() == [2, 2]\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy"])
def test_a_loss_of_torch_that_is_held_is_repeated_without_a_warning(
    loss: str, capfd: pytest.CaptureFixture[str]
) -> None:
    x, y, held = torch.rand(16, 1, requires_grad=True), torch.rand(16, 1), []
    of_torch = getattr(nn.functional, loss)

    def compute() -> None:
        held[:] = [of_torch(x, y)]
        held[0].backward()

    again = ListedOperations().record(compute)
    (value,) = held
    y.copy_(torch.rand(16, 1))
    again()
    assert torch.equal(value, of_torch(x, y))
    assert capfd.readouterr() == ("", "")
