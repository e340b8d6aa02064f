"""Steps of ptychography that are recorded once, and repeated without Python, have the bits of steps made one by one.

`Replays` gets the operations that a device gets: patches are found by their places, as on each device but the CPU.
`Listed` gets those of a CPU.
"""

from __future__ import annotations

import contextlib
from itertools import cycle
from pathlib import Path

import pytest
import torch
from clients.device_paths import as_on_a_device
from clients.made_up_inputs import MADE_UP
from clients.replays import Listed, Replays, never_alike, recording_with, repeated_to_the_same_bits, results
from same import differences
from without_pictures import no_pictures_of_ptychography

from trainkit.engine import build as engine
from trainkit.engine import run_folder
from trainkit.engine.live_run import LiveRun
from trainkit.engine.loop import train
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

STAGED = (
    "data.scan_shape=[6, 6]",
    "data.detector_size=24",
    "data.batch_size=6",  # 34 patterns are trained on, in four batches of 6 and two of 5
    "groups.object={ lr = 1.0 }",
    "groups.probe.start_epoch=1",
    "groups.dr.start_epoch=2",
)
WITH_ADAM = ("groups.object.lr=2e-3", "groups.dr.lr=1e-2", "optimizer.lr=1e-3")
TABLES = ("optimizer", "groups.object", "groups.dr")
ITS_OWN = 'optimizer = { use = "adam" }'
CASES: dict[str, tuple[str, ...]] = {
    "scaled steps": (),
    "scaled steps by step": ("scheduler.by=step",),
    "scaled steps with momentum": ('groups.probe.optimizer={ use = "scaled_steps", momentum = 0.9 }',),
    "adam": ("optimizer.use=adam", *WITH_ADAM),
    "adam by step": ("optimizer.use=adam", *WITH_ADAM, "scheduler.by=step"),
    "adamw": ("optimizer.use=adamw", *WITH_ADAM),
    "sgd": (
        "optimizer.use=sgd",
        "optimizer.momentum=0.5",
        "optimizer.lr=1e-6",
        "groups.object.lr=1e-6",
        "groups.dr.lr=1e-6",
    ),
    "another optimizer later": ("groups.object.then.end={ start_epoch=2, lr=3e-3, optimizer={ use='adam' } }",),
    "gradient norms": ('loggers.lines={ use = "tensorboard", gradient_norm_every_steps = 2 }',),
    "clipped": ('hooks.clip={ use = "clip_gradients", max_norm = 1.0 }',),
    "patterns on the host": ("data.patterns_on=host", "data.batches=compact"),
    "four modes": ("model.probe.modes=4",),
    "amplitude and tv": ("losses.data.use=amplitude", 'losses.tv={ use = "tv", weight = 1e-3 }'),
    "intensity, anchor and l1": (
        "losses.data.use=intensity",
        'losses.near={ use = "position_anchor", sigma_pixels = 1.0 }',
        'losses.l1={ use = "l1", weight = 1e-3 }',
        "groups.dr={ lr = 0.5, start_epoch = 2 }",  # what the anchor adds to the curvature is not counted
    ),
    "phase only": ('model.object.kind="phase_only"',),
    "an object from data": ('model.object={ use = "from_data" }',),
    "a hash encoding": (
        'model.object={ use = "hash_encoding", backend = "torch", fine_from = { start_epoch = 2, stop_epoch = 4 } }',
        f"groups.object={{ {ITS_OWN}, lr = 1e-3 }}",
        "groups.dr.lr=0.1",
    ),
    "two modes of the object": ("model.object_modes=2",),
    "the whole scan": ("groups.scan={ lr = 1e-4, start_epoch = 0 }",),
    "aberrations": (
        'model.probe.trained_aberrations=["C10"]',
        f"groups.aberrations={{ lr = 0.05, start_epoch = 0, {ITS_OWN} }}",
    ),
    "a spread of the defocus": (
        "model.probe.defocus_spread_angstrom=20.0",
        "model.probe.defocus_spread_nodes=3",
        f"groups.defocus_spread={{ lr = 0.5, start_epoch = 0, {ITS_OWN} }}",
    ),
    "a probe that changes": (
        "model.probe.opr_modes=1",
        "groups.opr_modes={ start_epoch = 1 }",
        "groups.opr_weights={ start_epoch = 1 }",
    ),
    "a detector": (
        "model.detector_blur_pixels=0.5",
        "model.background={}",
        f"groups.background={{ start_epoch = 0, lr = 1e-2, {ITS_OWN} }}",
        "model.pattern_intensities=true",
        f"groups.pattern_intensities={{ start_epoch = 0, lr = 1e-3, {ITS_OWN} }}",
    ),
    "limits at every second step": ('model.constraints.c={ use = "limits", max_amplitude = 1.0, every_steps = 2 }',),
    "low_pass": ('model.constraints.c={ use = "low_pass", shortest_period_angstrom = 1.0 }',),
    "gaussian": ('model.constraints.c={ use = "gaussian", sigma_angstrom = 0.2 }',),
    "tv": ('model.constraints.c={ use = "tv", weight_rad = 0.01 }',),
    "probe_support": ('model.constraints.c={ use = "probe_support", radius_angstrom = 4.0 }',),
    "probe_aperture": ('model.constraints.c={ use = "probe_aperture", semiangle_mrad = 25.0 }',),
}
"""What recipes set beside `STAGED`."""

OF_SLICES = ("data.scan_shape=[5, 5]", "data.detector_size=24", "data.batch_size=6", "groups.probe.start_epoch=1")
THICK = {
    "stages": ("model.coarse={ one = { slices = 1, stop_epoch = 3 } }",),
    "waves computed again": ("model.waves=recomputed",),
    "missing_wedge": ('model.constraints.c={ use = "missing_wedge" }',),
    "slice_coupling": ('model.constraints.c={ use = "slice_coupling", sigma_angstrom = 5.0 }',),
}

OF_SHIPPED = {
    name: Replays if "hash" in name else recordings
    for name, recordings in zip((each for each in shipped() if each.startswith("ptycho")), cycle([Replays, Listed]))
}
"""Recipes that come with trainkit -> one kind of recordings: with both, their parts are held by the cases above."""


def trained(
    name: str,
    sets: tuple[str, ...],
    folder: Path,
    recorded: str = "run.cuda_graph=true",
    recordings: type[Replays | Listed] = Replays,
) -> LiveRun:
    """Train a recipe for four epochs, of which the last two have the same groups, and return the run."""
    short = ("run.threads=1", "run.epochs=4", "checkpoint.every_epochs=0", f"run.dir={folder}")
    resolved = resolve(shipped()[name], (*short, *sets, recorded))
    operations = as_on_a_device() if recordings is Replays else contextlib.nullcontext()
    with operations, no_pictures_of_ptychography():
        with run_folder.created(resolved) as into:
            run = engine.build(resolved, into)
        train(run)
    return run


@pytest.mark.parametrize("recordings", [Replays, Listed])
@pytest.mark.parametrize("case", CASES)
def test_steps_of_a_thin_specimen(
    case: str, recordings: type[Replays | Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recordings is Listed and "hash" in case:
        pytest.skip("on a CPU, which pixels are evaluated depends on values")
    monkeypatch.chdir(tmp_path)
    sets = ("drop=['loggers.tensorboard', 'hooks.truth']", *STAGED, *CASES[case])
    graphs = repeated_to_the_same_bits(
        lambda: trained("ptycho_staged", sets, tmp_path, recordings=recordings), recordings
    )
    if not case.startswith("limits") and "hash" not in case:
        is_heard = case in ("gradient norms", "clipped")
        assert len(graphs.recorded) == 3 * 2 * (2 if is_heard else 1)  # in each stage, of both sizes of batches


def test_steps_in_two_threads_are_repeated_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ("drop=['loggers.tensorboard', 'hooks.truth']", *STAGED)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            more = (*sets, f"run.threads={number}")
            graphs = repeated_to_the_same_bits(
                lambda more=more: trained("ptycho_staged", more, tmp_path, recordings=Listed), Listed
            )
            assert len(graphs.recorded) == 6
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("recordings", [Replays, Listed])
@pytest.mark.parametrize("case", THICK)
def test_steps_of_a_thick_specimen(
    case: str, recordings: type[Replays | Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ("drop=['loggers.tensorboard', 'hooks.truth']", *OF_SLICES, *THICK[case])
    repeated_to_the_same_bits(
        lambda: trained("ptycho_thick_simulated", sets, tmp_path, recordings=recordings), recordings
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_SHIPPED)
def test_steps_of_a_shipped_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = OF_SHIPPED[name]
    monkeypatch.chdir(tmp_path)
    backend = ("model.object.backend=torch",) if "hash" in name else ()
    sets = (*MADE_UP[name](tmp_path), "data.batch_size=3", *backend)
    repeated_to_the_same_bits(lambda: trained(name, sets, tmp_path, recordings=recordings), recordings)


@pytest.mark.parametrize("case", ["scaled steps", "scaled steps by step", "adam by step", "sgd"])
def test_they_are_those_of_a_run_without_recordings_but_for_the_last_digits(case: str, tmp_path: Path) -> None:
    sets = ("drop=['loggers.tensorboard', 'hooks.truth']", *STAGED, *CASES[case], "run.epochs=5")
    with recording_with(Replays()):
        recorded = trained("ptycho_staged", sets, tmp_path / "recorded").state.model
        plain = trained("ptycho_staged", sets, tmp_path / "plain", "run.cuda_graph=false").state.model
    torch.testing.assert_close(
        dict(recorded.state_dict()), dict(plain.state_dict()), rtol=1e-4, atol=1e-3 if case.startswith("adam") else 1e-5
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_on_cuda_repeated_steps_have_the_bits_of_steps_made_one_by_one(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    only = "drop=['loggers.tensorboard', 'hooks.truth']"
    sets = (only, *STAGED, "run.device=cuda", "run.deterministic=true", *CASES[case])
    try:
        repeated = trained("ptycho_staged", sets, tmp_path)
        with never_alike():
            by_themselves = trained("ptycho_staged", sets, tmp_path)
    finally:
        torch.use_deterministic_algorithms(False)
    assert differences(results(repeated), results(by_themselves)) == []


@pytest.mark.parametrize(
    ("name", "sets", "said"),
    [
        ("ptycho_hash", (), 'with run.cuda_graph = true, only backend = "torch" can be recorded'),
        (
            "ptycho_thick_simulated",
            ('model.constraints.c={ use = "depth_centre" }',),
            "looks where the specimen is, which run.cuda_graph = true cannot record: set every_epochs = 1",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused(name: str, sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        resolve(shipped()[name], ("run.cuda_graph=true", *sets))
