"""A measured transfer function of the detector: against a convolution by scipy, and what its file may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.measured_mtf import read_mtf
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.physics.detector import blurred
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CPU = torch.device("cpu")
FREQUENCY = np.linspace(0, 0.72, 400)


def lorentzian(frequency: np.ndarray) -> np.ndarray:
    """The transfer function of light that spreads with long tails."""
    return 1 / (1 + (frequency / 0.3) ** 2)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["comma", "blanks", "nyquist", "npy", "whole", "middle"])
@pytest.mark.parametrize("shape", [(24, 20), (15, 18)])
def test_patterns_are_convolved_with_the_detectors_response_whatever_form_its_mtf_has(kind, shape, tmp_path):
    rows, columns = np.meshgrid(*(np.fft.fftfreq(size) for size in shape), indexing="ij")
    whole = lorentzian(np.hypot(rows, columns))
    response = np.fft.fftshift(np.fft.ifft2(whole).real)
    patterns = np.random.default_rng(1).random((2, *shape)) ** 8
    expected = np.stack([ndimage.convolve(each, response, mode="wrap") for each in patterns])
    unit = "nyquist" if kind == "nyquist" else "cycles_per_pixel"
    if kind in ("npy", "whole", "middle"):
        path = tmp_path / "mtf.npy"
        table = np.stack([FREQUENCY, lorentzian(FREQUENCY)], axis=1)
        np.save(path, {"npy": table, "whole": 3 * whole, "middle": np.fft.fftshift(whole)}[kind])
    else:
        parted, factor = (", " if kind == "comma" else "  "), (2 if kind == "nyquist" else 1)
        lines = [f"{factor * f:.9f}{parted}{100 * lorentzian(f):.9f}" for f in FREQUENCY]
        path = written(tmp_path / "mtf.txt", "\n".join(["# a camera", "frequency" + parted + "MTF", *lines, ""]))
    mtf = read_mtf(path, unit)
    assert not [*mtf.doubts(unit)]
    assert mtf.at_nyquist() == pytest.approx(lorentzian(0.5), abs=0.02)
    found = blurred(torch.from_numpy(patterns), mtf.transfer(shape, torch.float64, CPU)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_table_that_begins_above_0_is_continued_to_1_there(tmp_path):
    mtf = read_mtf(written(tmp_path / "mtf.csv", "0.1,0.9\n0.5,0.4\n"), "cycles_per_pixel")
    transfer = mtf.transfer((20, 20), torch.float64, CPU)
    np.testing.assert_allclose(transfer[0, [0, 1, 2, 10]], [1.0, 0.95, 0.9, 0.4])
    assert float(transfer[10, 10]) == 0.4  # beyond the table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,1\n0.5,0.4,3\n", r"mtf\.csv:2 .* does not hold two numbers"),
        ("hello\n", "no table of two columns"),
        ("0,1\n0.5,0.4\n0.5,0.3\n", "each frequency must be there once"),
        ("0,1\n0.5,nan\n", "not finite"),
        ("0,1\n50,0.4\n", "up to 50 cycles per pixel"),
        ("0,0\n0.5,0.4\n", "above 0 at frequency 0"),
    ],
)
def test_a_file_that_is_no_mtf_is_refused_in_one_sentence(text, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read_mtf(written(tmp_path / "mtf.csv", text), "cycles_per_pixel")


def test_arrays_of_another_shape_or_without_a_middle_are_refused(tmp_path):
    whole = np.ones((8, 6))
    whole[0, 0] = 2.0
    np.save(tmp_path / "mtf.npy", whole)
    with pytest.raises(DataError, match="8 × 6 values, but the patterns have 8 × 8"):
        read_mtf(tmp_path / "mtf.npy", "cycles_per_pixel").transfer((8, 8), torch.float32, CPU)
    np.save(tmp_path / "mtf.npy", np.roll(whole, 1))
    with pytest.raises(DataError, match=r"largest at \[0, 1\]"):
        read_mtf(tmp_path / "mtf.npy", "cycles_per_pixel")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,1\n1.0,0.3\n", 'detector_mtf_unit = "nyquist"'),
        ("0,1\n0.3,0.5\n", "ends at 0.3"),
        ("0,1\n0.2,1.4\n0.6,0\n", "rises to 1.4"),
    ],
)
def test_what_looks_wrong_is_doubted_by_check_and_said_by_a_run(text, said, tmp_path, caplog):
    path = written(tmp_path / "mtf.csv", text)
    recipe = resolve_text(small_recipe(f'detector_mtf = "{path}"'), tmp_path).recipe
    seen = [each for each in recipe.model.inspect(recipe, "headers") if isinstance(each, Problem)]
    assert [said in each.message for each in seen] == [True]
    recipe.model.build(recipe.data.build(Context(0, CPU, Path())))
    assert said in caplog.text


def test_a_model_with_a_measured_mtf_expects_patterns_blurred_by_it(tmp_path):
    data = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24).build(Context(0, CPU, Path()))
    batch, path = {"index": torch.arange(5)}, written(tmp_path / "mtf.csv", "0,1\n0.5,0.4\n0.75,0.2\n")
    sharp = Ptychography(probe=Aperture()).build(data)(batch)["intensities"].detach()
    found = Ptychography(probe=Aperture(), detector_mtf=path).build(data)(batch)["intensities"].detach()
    transfer = read_mtf(path, "cycles_per_pixel").transfer((24, 24), torch.float32, CPU)
    torch.testing.assert_close(found, blurred(sharp, transfer))
    assert float((found - sharp).abs().max()) > 0.05 * float(sharp.max())


def test_an_mtf_beside_a_gaussian_or_a_unit_without_an_mtf_is_refused(tmp_path):
    path = written(tmp_path / "mtf.csv", "0,1\n0.5,0.4\n")
    with pytest.raises(RecipeError, match="takes the place of detector_blur_pixels"):
        resolve_text(small_recipe(f'detector_mtf = "{path}"\ndetector_blur_pixels = 0.5'), tmp_path)
    with pytest.raises(RecipeError, match="has no effect without detector_mtf"):
        resolve_text(small_recipe('detector_mtf_unit = "nyquist"'), tmp_path)
