"""Pictures for people: what they show, how large they are, and that drawing changes nothing of a run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from trainkit import Context, Monitor, State
from trainkit_ptychography.models.output import show
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.output import object_pictures, probe_picture, resolution_picture, scan_pictures
from trainkit_ptychography.output.frame import Box, Frame, angle_bar, limits_of
from trainkit_ptychography.output.illumination import illumination, lit, scanned_part
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

GENERATOR = np.random.default_rng(2)
UNDER = "a run"


@pytest.fixture(scope="module")
def drawn() -> tuple[State, dict[str, Any], torch.Tensor, torch.Tensor]:
    """The pictures of a run, and the random states before and after."""
    small = SimulatedDiffraction(scan_shape=(6, 5), detector_size=24)
    data = small.build(Context(0, torch.device("cpu"), Path()))
    model: Any = Ptychography(probe=Aperture(modes=2)).build(data)
    with torch.no_grad():
        model.object.maps[0] = torch.linspace(0, 1, model.object.maps.shape[2])
        model.object.maps[1, 20:24, 20:24] = 0.2
    context = Context(0, torch.device("cpu"), Path("runs/name/2026-id"))
    state = State(context, 2, model, data, {}, Monitor(), closing=True)
    before, random_before = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    np.random.seed(3)
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    show(model.reconstruction(), data, state, model)
    assert (np.random.get_state()[1] == numpy_before).all()  # type: ignore[index,union-attr]
    return state, before, random_before, torch.get_rng_state()


def test_a_run_shows_object_probe_positions_and_patterns_at_the_size_of_a_slide(drawn):
    state, *_ = drawn
    assert set(state.pictures) == {"object_phase", "object_amplitude", "object", "probe", "positions", "patterns"}
    for image in state.pictures.values():
        assert image.shape[1] == 1440
        assert 600 < image.shape[0] < 1700
        assert len(np.unique(image[::3, ::3].astype(int) @ [1, 256, 65536])) > 20  # colours


def test_drawing_changes_neither_the_model_nor_a_random_state(drawn):
    state, before, random_before, random_after = drawn
    assert torch.equal(random_before, random_after)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_an_amplitude_that_is_the_same_everywhere_is_not_drawn():
    ones = np.ones((20, 30))
    assert object_pictures.amplitude(ones, ones > 0, 0.4, UNDER) is None


def shades(image: np.ndarray, shape: tuple[int, int], left: float, width: float, top: float) -> np.ndarray:
    """Return the shade in the middle of each pixel of an image that is shown from (left, top), in inches, on."""
    step = 120 * width / shape[1]
    rows = (120 * top + step * (np.arange(shape[0]) + 0.5)).astype(int)
    columns = (120 * left + step * (np.arange(shape[1]) + 0.5)).astype(int)
    return image[np.ix_(rows, columns)].astype(int)


def test_phases_are_grey_in_their_order_between_the_limits_of_what_was_lit():
    phase = GENERATOR.normal(0, 0.01, (30, 30))
    phase[:5] = 40.0  # a margin that nothing lit
    lit_HW = np.ones((30, 30), dtype=bool)
    lit_HW[:5] = False
    image = object_pictures.phase(phase, lit_HW, 0.4, UNDER)
    grey = shades(image, (30, 30), 0.35, 9.0, 0.95)
    assert (grey[:5] == 255).all()
    seen, values = grey[5:, :, 0].ravel(), phase[5:].ravel()
    assert (np.diff(seen[np.argsort(values)]) >= 0).all()
    assert len(np.unique(seen)) > 100  # a weak phase uses all of the contrast


@pytest.mark.parametrize("rows", [28, 90, 350, 2000])  # enlarged with sharp edges, enlarged, and made smaller
def test_an_image_fills_its_box_as_it_was_given_whatever_its_size(rows):
    frame = Frame(6.0, "title", "subtitle")
    down, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, 2 * rows), indexing="ij")
    frame.image(Box(1.0, 1.2, 8.0, 4.0), np.ma.masked_where(down > 0.75, across), bad="#ff0000", vmin=0.0, vmax=1.0)
    image = frame.pixels().astype(int)
    assert image.shape == (720, 1440, 3)
    inside = image[144:624, 120:1080]
    expected = 255 * (np.arange(960) + 0.5) / 960
    assert np.abs(inside[8:340, 8:-8] - expected[None, 8:-8, None]).max() <= 255 * 0.75 / rows + 2
    assert (inside[376:-4, 4:-4] == (255, 0, 0)).all()
    outline = (image[144, 120:1080], image[624, 120:1080], image[144:624, 120], image[144:624, 1080])
    assert all(each.max() < 90 for each in outline)
    around = (image[143, 100:1100], image[625, 100:1100], image[130:640, 119], image[130:640, 1081])
    assert all((each == 255).all() for each in around)


def test_colours_of_the_complex_object_tell_phases_apart_and_fall_to_black_with_the_amplitude():
    phase = np.repeat(np.linspace(-0.01, 0.01, 30)[None], 30, axis=0)
    amplitude = np.repeat(np.linspace(0.0, 1.0, 30)[:, None], 30, axis=1)
    image = object_pictures.both(phase, amplitude, np.ones((30, 30), dtype=bool), 0.4, UNDER)
    width = 12 - 2 * 0.35 - 2.6
    colours = shades(image, (30, 30), 0.35, width, 0.95)
    assert colours[0].max() < 10
    assert colours[-1, 0, 2] > colours[-1, 0, 0] + 150  # blue
    assert colours[-1, -1, 0] > colours[-1, -1, 2] + 150  # orange


def test_light_is_the_sum_of_the_probes_wherever_they_stood_and_none_wraps_around():
    probe = GENERATOR.normal(size=(2, 7, 6)) + 1j * GENERATOR.normal(size=(2, 7, 6))
    positions = np.array([[0.0, 0.0], [5.2, 9.9], [5.0, 10.0], [11.0, 12.0]])
    expected = np.zeros((12, 13))
    for row, column in np.rint(positions).astype(int):
        for (y, x), light in np.ndenumerate((np.abs(probe) ** 2).sum(0)):
            place = (row + y - 3, column + x - 3)
            if 0 <= place[0] < 12 and 0 <= place[1] < 13:
                expected[place] += light
    light = illumination(probe, positions, (12, 13))
    np.testing.assert_allclose(light, expected, atol=1e-12)
    assert (
        lit(light, positions) == (light >= 0.1 * np.median([light[0, 0], light[5, 10], light[5, 10], light[11, 12]]))
    ).all()


def test_a_scan_in_the_corner_of_an_object_is_cut_out_with_a_tenth_around():
    rows, columns = scanned_part(np.array([[10.0, 20.0], [30.0, 25.0]]), (100, 26))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (8, 33, 18, 26)


def test_limits_leave_room_where_nothing_varies():
    assert limits_of(np.full(5, 2.0), 0.5) == (1.75, 2.25)
    assert limits_of(np.array([np.nan, np.inf]), 1.0) == (-0.5, 0.5)


def test_bars_of_fourier_space_are_in_mrad_or_per_angstrom_or_pixels():
    assert angle_bar(64, 0.4, 0.04176).label == "20 mrad"  # 64 pixels are 104 mrad
    assert angle_bar(64, 0.4, 0.04176).pixels == pytest.approx(20 / (1e3 * 0.04176 / 25.6))
    assert angle_bar(64, 0.4, None).label == "0.5 1/Å"
    assert angle_bar(64, None, None).label == "10 pixels"


def test_slices_and_sections_of_a_thick_object_are_drawn_whatever_is_known_of_it():
    phase = GENERATOR.random((15, 20, 31))
    nowhere = np.zeros((20, 31), dtype=bool)
    for size, spacing, lit_HW in ((0.4, 8.0, ~nowhere), (None, None, nowhere)):
        for draw in (object_pictures.slices, object_pictures.depth):
            assert draw(phase, lit_HW, size, spacing, UNDER).shape[1] == 1440


def test_the_section_goes_through_the_row_and_the_column_that_vary_most(monkeypatch):
    phase = 0.01 * GENERATOR.random((4, 20, 31))
    phase[1, 12, ::2], phase[2, :, 7] = 1.0, 0.5
    phase[:, 3] = 50.0
    lit_HW = np.ones((20, 31), dtype=bool)
    lit_HW[3] = False  # what is brightest was never lit
    written = []
    monkeypatch.setattr(object_pictures.Frame, "text", lambda _, left, top, words, **style: written.append(words))
    object_pictures.depth(phase, lit_HW, 0.4, 8.0, UNDER)
    assert [each for each in written if "through" in each] == [
        "through row 12 of the picture of the phase",
        "through column 7 of the picture of the phase",
    ]


@pytest.mark.parametrize("modes", [1, 2, 3, 8])
def test_probes_of_any_number_of_modes_fit_on_a_slide(modes):
    probe = GENERATOR.normal(size=(modes, 16, 20)) + 1j
    assert probe_picture.probe(probe, 0.4, 0.04, UNDER).shape[1] == 1440


def test_powers_are_shares_of_the_scan_that_a_mode_belongs_to(monkeypatch):
    probe = np.sqrt([3.0, 1.0, 8.0, 2.0])[:, None, None] * np.ones((4, 16, 16)) + 0j
    written = []
    monkeypatch.setattr(probe_picture.Frame, "text", lambda _, left, top, words, **style: written.append(words))
    probe_picture.probe(probe, 0.4, 0.04, UNDER, num_scans=2)
    assert [each for each in written if "%" in each] == [
        *("scan 1\nmode 1: 75.00 %", "scan 1\nmode 2: 25.00 %", "scan 2\nmode 1: 80.00 %", "scan 2\nmode 2: 20.00 %"),
    ]
    assert written[0] == "Probes of 2 scans, 2 modes with their shares of the power"


def test_headings_of_six_probes_do_not_run_into_each_other(monkeypatch):
    places = []
    text = probe_picture.Frame.text

    def kept(frame, left, top, words, **style):
        text(frame, left, top, words, **style)
        if "%" in words:
            places.append(frame.figure.texts[-1].get_window_extent(frame.figure.canvas.get_renderer()))

    monkeypatch.setattr(probe_picture.Frame, "text", kept)
    probe_picture.probe(np.ones((6, 16, 16)) + 0j, 0.4, 0.04, UNDER, num_scans=2)
    assert len(places) == 6
    assert all(left.x1 < right.x0 for left, right in pairwise(places))


def test_phases_of_noise_are_not_shown(monkeypatch):
    probe = 0.02 * (GENERATOR.normal(size=(1, 32, 32)) + 1j * GENERATOR.normal(size=(1, 32, 32)))
    probe[0, 12:20, 12:20] = 1.0
    shown = []
    image = probe_picture.Frame.image
    monkeypatch.setattr(
        probe_picture.Frame, "image", lambda *given, **how: shown.append(given[2]) or image(*given, **how)
    )
    probe_picture.probe(probe, 0.4, 0.04, UNDER)
    (phase,) = (each for each in shown[:2] if isinstance(each, np.ma.MaskedArray))
    assert not phase.mask[12:20, 12:20].any()
    assert phase.mask.sum() > 0.98 * (32**2 - 8**2)


@pytest.mark.parametrize("extent", [(0.0, 0.0), (0.0, 30.0), (20.0, 30.0)])
def test_maps_of_a_point_a_line_and_an_area_are_drawn(extent):
    places = GENERATOR.random((40, 2)) * extent
    moved = places + GENERATOR.normal(0, 0.1, places.shape)
    assert scan_pictures.displacements(places, moved, places, np.arange(35), 0.4, UNDER).shape[1] == 1440
    assert scan_pictures.displacements(places, places, None, np.arange(40), None, UNDER).shape[1] == 1440
    residual = GENERATOR.random(40)
    residual[5] = np.nan
    assert scan_pictures.residuals(places, residual, [7], None, None, UNDER).shape[1] == 1440
    assert scan_pictures.residuals(places, np.full(40, np.nan), [], np.arange(40), 0.4, UNDER).shape[1] == 1440


@pytest.mark.parametrize(("moved", "times"), [(0.1, "10"), (0.01, "100"), (1e-5, "100,000"), (0.0, "10")])
def test_arrows_are_ten_times_as_long_or_longer_where_they_could_not_be_seen(moved, times, monkeypatch):
    places = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij"), -1).reshape(-1, 2)
    titles = []
    original = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **style: titles.append(text) or original(axes, text))
    way = np.where(np.arange(36) % 2, moved, -moved)[:, None] * [1.0, 0.0]
    scan_pictures.displacements(places, places + way, None, np.arange(36), 1.0, UNDER)
    assert titles[0] == f"arrows are {times} times as long as the displacements"


def test_a_wide_map_has_a_large_unit_and_its_small_displacements_a_small_one(monkeypatch):
    said = []
    for name in ("set_xlabel", "set_title"):
        monkeypatch.setattr(Axes, name, lambda _, text, **__: said.append(text))
    row, column = np.divmod(np.arange(36), 6)
    places = np.stack([row, column], axis=1) * 40.0
    moved = places + 0.02 * np.where(column % 2, 1.0, -1.0)[:, None]
    scan_pictures.displacements(places, moved, places, np.arange(36), 100.0, UNDER)  # 2 µm wide, moved by 2 Å
    assert {"column / µm", "displacement / Å", "error of a coordinate / Å", "rms of a coordinate 2 Å"} <= set(said)


def test_pixels_that_do_not_count_are_grey_in_a_pattern():
    measured, mask = np.zeros((1, 16, 16)), np.ones((1, 16, 16), dtype=bool)
    measured[0, :4, :4], mask[0, 8, 8] = 10.0, False  # the pixel at the upper left when zero is in the middle
    image = scan_pictures.patterns(measured, measured, mask, ["0"], angle_bar(16, None, None), UNDER)
    step = 120 * 3.2 / 16
    top, left = int(120 * (0.95 + 0.35) + step / 2), int(120 * (0.35 + 0.95) + step / 2)
    assert image[top, left].tolist() == [153, 153, 153]
    assert image[top, left + int(step)].max() < 10


def test_a_resolution_is_drawn_with_and_without_a_crossing_and_a_truth():
    frequency = np.arange(1, 11) / 20
    phases = (GENERATOR.random((20, 24)), GENERATOR.random((20, 24)))
    limits = {"1 bit": np.full(10, 0.3), "1/2 bit": np.full(10, 0.2)}
    for size, periods, true in (
        (0.4, {"1 bit": 4.0, "1/2 bit": 3.0}, (frequency, frequency)),
        (None, {"1 bit": None, "1/2 bit": None}, None),
    ):
        curve = resolution_picture.Curve(frequency, 1 - frequency, limits, true)
        assert resolution_picture.resolution(curve, periods, phases, size, "FRC", UNDER).shape[1] == 1440
