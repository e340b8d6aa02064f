"""Roots of few counts, which the amplitude loss compares: what they lose, held against random numbers and a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptychography.small_recipe import small_recipe
from trainkit import Problem
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.scans.few_counts import counts_in, misfit_of_noise, variance_of_root
from trainkit_ptychography.scans.scan import Recording, Scan


def test_the_variance_of_a_root_is_that_of_random_counts() -> None:
    expected = np.array([0.02, 0.1, 1.0, 3.0, 15.0, 40.0])
    drawn = np.random.default_rng(0).poisson(expected, (400_000, len(expected)))
    assert variance_of_root(expected) == pytest.approx(np.sqrt(drawn).var(axis=0), rel=0.04)
    far = np.square(np.sqrt(drawn) - np.sqrt(expected)).mean(axis=0)
    assert misfit_of_noise(expected) == pytest.approx(far, rel=0.04)


def said(*sets: str) -> list[str | Problem]:
    recipe = resolve_text(small_recipe(), Path.cwd(), ("data.scan_shape=[8, 8]", *sets)).recipe
    return [each for each in recipe.losses["data"].inspect(recipe, "all") if isinstance(each, str | Problem)]


def test_the_amplitude_loss_is_doubted_where_counts_are_few_and_no_other_loss_is() -> None:
    (doubt,) = said("data.dose_per_square_angstrom=1e4")
    assert isinstance(doubt, Problem)
    assert 'use = "poisson"' in doubt.message
    (line,) = said("data.dose_per_square_angstrom=1e5")
    assert isinstance(line, str)
    assert 'use = "poisson"' in line
    assert said("data.dose_per_square_angstrom=1e7") == []
    assert said("losses.data.use=poisson") == []


def test_a_gain_that_makes_each_electron_several_counts_hides_nothing() -> None:
    generator = np.random.default_rng(0)
    expected_YX = np.full((16, 16), 0.1)
    expected_YX[4:12, 4:12] = 20.0
    counts_NYX = generator.poisson(expected_YX, (40, 16, 16)).astype(np.float32)
    scan = Scan(positions_N2=np.zeros((40, 2)), source="here")
    plain = counts_in(Recording(counts_NYX, scan))
    assert plain is not None
    assert plain.per_pattern == pytest.approx(expected_YX.sum(), rel=0.02)
    for gain in (37, 37.3, 0.25, 1 / 3, 3e-7):
        gained = counts_in(Recording(np.float32(gain) * counts_NYX, scan))
        assert gained is not None
        assert gained.unit == pytest.approx(gain, rel=1e-6)
        assert gained[1:] == pytest.approx(plain[1:], rel=1e-5)


@pytest.mark.parametrize("spoil", ["noise", "gain of each pixel", "negative", "no counts"])
def test_values_that_are_no_multiples_are_no_counts(spoil: str) -> None:
    generator = np.random.default_rng(0)
    values_NYX = generator.poisson(3.0, (40, 16, 16)).astype(np.float32)
    if spoil == "noise":
        values_NYX = 37.3 * values_NYX + np.abs(generator.normal(0, 1, values_NYX.shape)).astype(np.float32)
    elif spoil == "gain of each pixel":
        values_NYX *= generator.normal(1, 0.05, (16, 16)).astype(np.float32)
    elif spoil == "negative":
        values_NYX = 37.3 * values_NYX - 0.5
    else:
        values_NYX = generator.exponential(3.0, values_NYX.shape).astype(np.float32)
    assert counts_in(Recording(values_NYX, Scan(positions_N2=np.zeros((40, 2)), source="here"))) is None


@pytest.mark.slow
def test_by_as_much_as_it_says_the_phase_is_too_weak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainkit.console import Console
    from trainkit.engine.start import start
    from trainkit.recipe.resolve import resolve

    monkeypatch.chdir(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes" / "ptycho_unknown_geometry.toml"
    small = ("data.scan_shape=[14, 14]", "run.device=cpu", "run.threads=1", "model.probe.defocus_angstrom=60")
    gains = {}
    for loss in ("amplitude", "poisson"):
        state = start(resolve(recipe, (*small, f"losses.data.use={loss}")), Console(quiet=True)).run.state
        gains[loss] = state.metrics["truth/phase_gain"]
    (line,) = said("data.dose_per_square_angstrom=1e5", "data.detector_size=48")
    weaker = float(str(line).partition("would be about ")[2].split(" %")[0]) / 100
    assert gains["amplitude"] / gains["poisson"] == pytest.approx(1 - weaker, abs=0.06)
