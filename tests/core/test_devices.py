"""What a machine with a GPU would find out, found out without one.

Tensors on torch's device "meta" have a shape and no values: who reads one, as a host that waits for its GPU would,
gets an error. So a step that runs there does not wait for the device; and a watcher sees that no operation takes one
tensor from there and another from the CPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from clients.replays import OfCuda
from clients.warm import Warm
from ptychography.test_recorded_steps import CASES, THICK
from segmentation.test_models import SMALL, volumes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from without_pictures import no_pictures_of_ptychography

from core.test_shipped_recipes import MADE_UP
from trainkit.console import Console
from trainkit.engine import build as engine
from trainkit.engine import run_folder
from trainkit.engine import step as engine_step
from trainkit.engine.devices import repeatability_doubt
from trainkit.engine.live_run import LiveRun
from trainkit.engine.loop import _train_epoch
from trainkit.engine.start import start
from trainkit.engine.verify import verify
from trainkit.groups.optimizers import Optimizers
from trainkit.optimizers.scaled_steps_live import ScaledStepsOptimizer
from trainkit.processes.exchange import Exchange
from trainkit.processes.place import ALONE, Place
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped
from trainkit_ptychography.models.mask_watch import MaskWatch
from trainkit_ptychography.preflight.watch import GeometryWatch

ALL_AT_ONCE = ("groups.probe.start_epoch=0", "groups.dr.start_epoch=0")
MOVES = {"aten::_to_copy", "aten::copy_"}
UNREPEATABLE = re.compile(
    r"aten::(nll_loss|_ctc_loss|put_$|histc|median$|cumsum$|max_unpool|grid_sampler_.*backward|avg_pool3d_backward"
    r"|_?adaptive_(avg|max)_pool.d_backward|fractional_max_pool.d_backward|reflection_pad.d_backward"
    r"|upsample_(linear1d|bilinear2d|bicubic2d|trilinear3d)_backward|_embedding_bag)"
)
"""What has no deterministic form on CUDA, by the documentation of ``torch.use_deterministic_algorithms`` (2.13)."""


class Watcher(TorchDispatchMode):
    """Refuses operations on tensors of several devices, but for single numbers, which every device takes.

    Attributes:
        unrepeatable: The operations seen that have no deterministic form on CUDA.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unrepeatable: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        name = func._schema.name
        if len({each.device for each in tensors if each.dim() > 0}) > 1 and name not in MOVES:
            raise RuntimeError(f"{func} on several devices: {[(each.shape, each.device) for each in tensors]}")
        if UNREPEATABLE.match(name) and any(each.is_floating_point() for each in tensors):
            self.unrepeatable.add(name)
        return func(*args, **(kwargs or {}))


OTHERWISE = [
    *[("segmentation_synthetic", f'losses.only={{ use = "{use}" }}') for use in ("dice", "focal", "tversky")],
    ("segmentation_synthetic", 'hooks.clip={ use = "clip_gradients", max_norm = 1.0 }', "run.accumulate=2"),
    ("segmentation_synthetic", "ema={ decay = 0.9 }", "run.activation_checkpointing=true", "run.shards=2"),
    ("segmentation_synthetic", "optimizer.use=adamw", 'scheduler={ use = "one_cycle", by = "step" }'),
    (
        "nnunet_like",
        "data.augmentation.on=device",
        "data.augmentation.affine.probability=1.0",
        "data.augmentation.elastic={ probability = 1.0 }",
        *[
            f"data.augmentation.{name}.probability=1.0"
            for name in ("noise", "blur", "contrast", "low_resolution", "inverted_gamma")
        ],
    ),
    ("ptycho_staged", "losses.data.use=poisson", 'losses.tv={ use = "tv" }', "model.probe.modes=3"),
    ("ptycho_staged", "losses.data.use=intensity", 'losses.near={ use = "position_anchor", sigma_pixels = 1.0 }'),
    ("ptycho_staged", "groups.scan={ lr = 1e-4, start_epoch = 0 }", "optimizer.use=sgd"),
    ("ptycho_staged", "data.batches=compact", "model.object.kind=phase_only"),
    (
        "ptycho_hash",
        'losses.tv={ use = "tv" }',
        "model.object.interpolation=smoothstep",
        "drop=['model.object.fine_from']",
    ),
    ("ptycho_siemens", "data.patterns_on=host"),
    ("ptycho_staged", 'hooks.clip={ use = "clip_gradients", max_norm = 1.0 }', "run.shards=4"),
]


@pytest.mark.measured_every(10)
@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model:UserWarning")
@pytest.mark.no_cover  # the same steps as those of many other tests
@pytest.mark.parametrize(
    ("name", "sets"),
    [*((n, ()) for n in sorted(MADE_UP) if not n.endswith("_static")), *((n, s) for n, *s in OTHERWISE)],
)
def test_a_step_stays_on_its_device_and_never_waits_for_it(
    name: str, sets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, watcher = epoch_without_values(name, sets, tmp_path, monkeypatch)
    assert run.state.step == run.state.steps_per_epoch
    assert not watcher.unrepeatable


def epoch_without_values(
    name: str,
    sets: Sequence[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Place = ALONE,
    watcher: TorchDispatchMode | None = None,
) -> tuple[LiveRun, Watcher]:
    """Train an epoch of a recipe on the device without values, and return the run and who watched it."""
    made_up = MADE_UP[name](folder)  # may train weights to begin with
    monkeypatch.setattr(engine, "choose_device", lambda *_: torch.device("meta"))
    monkeypatch.setattr(GeometryWatch, "warn", lambda watch: None)  # looks at values before the first step
    monkeypatch.setattr(MaskWatch, "judge", lambda watch, state: None)  # looks at values once, after the first step
    at_once = ALL_AT_ONCE if name.startswith("ptycho") else ()
    in_fp32 = "run.precision=fp32"  # torch has no autocast for this device
    resolved = resolve(shipped()[name], (*made_up, *at_once, in_fp32, *sets))
    with run_folder.created(resolved) as into:
        run = engine.build(resolved, into, place=place)
    run.emit("run_start")
    with Watcher() as standing, watcher or contextlib.nullcontext():
        _train_epoch(run)
    return run, standing


class OnDevice(TorchDispatchMode):
    """Refuses operations on any tensor of the host: a recorded step would keep its number, or wait for its copy."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                raise RuntimeError(f"{func} takes a tensor of the host: {tensor.shape} {tensor.dtype}")
        return func(*args, **(kwargs or {}))


class RecordsNothing(OfCuda):
    """Makes recordings on the device without values, where nothing would have to be repeated."""

    def __init__(self) -> None:
        self.recordings = 0

    def warm_up(self, operations: Callable[[], None]) -> None:
        operations()

    def record(self, operations: Callable[[], None], changing: object = ()) -> Callable[[], None]:
        self.recordings += 1
        with OnDevice():
            operations()
        return lambda: None

    def wait(self) -> None:
        pass


def without_those_of_torch(optimizers: Optimizers) -> Optimizers:
    own = {name: each for name, each in optimizers.members.items() if isinstance(each, ScaledStepsOptimizer)}
    left = Optimizers(own)
    left.choose([name for name, each in own.items() if each in optimizers._stepped])
    return left


READ_WHEN_BUILT = ("an object from data", "a detector")  # they look at patterns before the first step
RECORDED = {
    **{name: (name,) for name in sorted(MADE_UP) if name.startswith("ptycho")},
    **{f"thin, {case}": ("ptycho_staged", *sets) for case, sets in CASES.items() if case not in READ_WHEN_BUILT},
    **{f"thick, {case}": ("ptycho_thick_simulated", *sets) for case, sets in THICK.items()},
    "volumes": ("segmentation_synthetic", 'losses.only={ use = "focal" }'),
    "an average": ("segmentation_synthetic", "ema={ decay = 0.9 }"),
}


@pytest.mark.measured_every(10)
@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model:UserWarning")
@pytest.mark.no_cover
@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_step_takes_no_tensor_of_the_host(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *sets = RECORDED[case]
    monkeypatch.chdir(tmp_path)
    graphs = RecordsNothing()
    monkeypatch.setattr(engine, "graphs_of", lambda *_: graphs)
    backend = ("model.object.backend=torch",) if "hash" in name else ()
    # Optimizers of torch have no fused form on this device, and without one, they read the learning rate.
    step = Optimizers.step
    monkeypatch.setattr(Optimizers, "step", lambda them: step(without_those_of_torch(them)))
    epoch_without_values(name, ("run.cuda_graph=true", "data.batch_size=3", *backend, *sets), tmp_path, monkeypatch)
    assert graphs.recordings


FOUR = "data.batch_size=4"
DICE = 'losses.only={ use = "dice", batch_dice = true }'  # needs sums of all parts before its gradient


@pytest.mark.filterwarnings("ignore:.*to a meta parameter in the current model:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("segmentation_synthetic", (FOUR, "data.steps_per_epoch=4")),
        ("segmentation_synthetic", (FOUR, "data.steps_per_epoch=4", DICE)),
        ("ptycho_staged", ("data.batch_size=6",)),
        ("ptycho_hash", ("data.batch_size=6",)),
    ],
)
def test_a_step_of_two_processes_waits_for_no_value_and_adds_up_once_whatever_it_accumulates(
    name: str, sets: tuple[str, ...], shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(Exchange, "sum_of_processes", lambda exchange, own: sent.append(own) or own)
    monkeypatch.setattr(Exchange, "_reduced", lambda exchange, numbers, how: list(numbers))  # among hosts
    monkeypatch.setattr(Exchange, "gather", lambda exchange, value: [value, value])
    monkeypatch.setattr(engine_step, "check_divided", lambda *_: None)  # looks at values once, in the first step
    numbers = set()
    for accumulate in (1, 2):
        sent.clear()
        given = (*sets, f"run.shards={shards}", f"run.accumulate={accumulate}")
        run, watcher = epoch_without_values(name, given, tmp_path, monkeypatch, Place(0, 2, 0, "torchrun"))
        assert run.state.step == run.state.steps_per_epoch
        assert run.state.context.exchange.num_parts == max(shards, 2)
        assert not watcher.unrepeatable
        assert {each.device.type for each in sent} == {"meta"}
        numbers.add((len(sent) / run.state.step, sum(each.numel() for each in sent) / run.state.step))
    assert len(numbers) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(MADE_UP))
def test_on_cuda_a_run_computes_what_it_does_on_the_cpu_and_resumes_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ends_as_on_the_cpu_and_resumes(name, tmp_path, "cuda")


@pytest.mark.slow
def test_what_is_asked_of_cuda_holds_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: Warm) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainkit.engine.verify.subprocess", warm)  # new processes that need not import torch
    ends_as_on_the_cpu_and_resumes("ptycho_staged", tmp_path, "cpu")


def ends_as_on_the_cpu_and_resumes(name: str, folder: Path, device: str) -> None:
    sets = (*MADE_UP[name](folder), "run.epochs=2", "run.deterministic=true", "checkpoint.keep_last=1000")
    if name.startswith("ptycho"):
        sets = (*sets, *ALL_AT_ONCE)
    losses = []
    try:
        for there in ("cpu", device):
            with no_pictures_of_ptychography():
                ending = start(resolve(shipped()[name], (*sets, f"run.device={there}")), Console(quiet=True))
            assert ending.run.state.context.device.type == there
            losses.append(ending.run.state.metrics["train/loss"])
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)
        said: list[str] = []
        resolved = resolve(shipped()[name], (*sets, f"run.device={device}"))
        assert verify(resolved, epochs=2, num_stops=1, say=said.append), "\n".join(said)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_network_but_those_that_interpolate_or_average_can_be_repeated_on_cuda(name: str) -> None:
    side = 64 if name == "swin_unetr" else 32
    network = SMALL[name].build(volumes(side)).to("meta")
    image = torch.zeros(2, 1, side, side, side, device="meta")
    with Watcher() as watcher:
        sum(head.sum() for head in network({"image": image}).values()).backward()
    kinds = {"segresnet": {"aten::upsample_trilinear3d_backward"}, "resenc_unet": {"aten::avg_pool3d_backward"}}
    assert watcher.unrepeatable == kinds.get(name.removeprefix("anisotropic "), set())


@pytest.mark.parametrize(
    "mistake",
    [
        lambda there, here: there[0].item(),
        lambda there, here: bool((there > 0).any()),
        lambda there, here: there[there > 0],
        lambda there, here: there + here,
        lambda there, here: there @ here,
        lambda there, here: there.index_select(0, here.long()),
        lambda there, here: there[here.long()],
    ],
)
def test_the_mistakes_that_only_a_gpu_would_show_are_noticed(mistake: Any) -> None:
    with Watcher(), pytest.raises((RuntimeError, NotImplementedError)):
        mistake(torch.zeros(3, device="meta"), torch.zeros(3))


def test_a_run_says_where_it_would_not_repeat_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    assert repeatability_doubt(cpu, deterministic=False) is None
    assert repeatability_doubt(cuda, deterministic=True) is None
    assert "on CUDA without run.deterministic = true" in str(repeatability_doubt(cuda, deterministic=False))
    assert "on MPS" in str(repeatability_doubt(mps, deterministic=True))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "repeatability_doubt", lambda device, deterministic: f"{device}, {deterministic}")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    resolved = resolve(
        shipped()["ptycho_staged"], ("run.deterministic=true", "run.device=cpu", "data.scan_shape=[5, 5]")
    )
    try:
        with caplog.at_level(logging.INFO, logger="trainkit"):
            engine.build(resolved, tmp_path)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert "cpu, True" in caplog.messages
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_an_operation_that_cuda_could_not_repeat_is_noticed() -> None:
    logits, label = torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 4, dtype=torch.int64)
    with Watcher() as watcher:
        torch.nn.functional.cross_entropy(logits, label).backward()
        torch.nn.functional.interpolate(logits, size=8, mode="linear").sum().backward()
        torch.arange(3).cumsum(0)
    assert watcher.unrepeatable == {
        "aten::nll_loss2d_forward",
        "aten::nll_loss2d_backward",
        "aten::upsample_linear1d_backward",
    }
