"""Colours stay apart for every kind of vision, and scale bars have the lengths that they name."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainkit import SAFE_ON_DARK, SAFE_ON_WHITE, scale_bar
from trainkit.drawing.png import png

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", IEEE
# Trans. Vis. Comput. Graph. 15 (2009) 1291: linear RGB at severity 1.0.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour: str, vision: str) -> np.ndarray:
    """Return CIELAB (D65) of a colour as a kind of vision sees it."""
    stored = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    seen = XYZ_OF_RGB @ np.clip(VISIONS[vision] @ linear, 0, 1) / XYZ_OF_RGB.sum(axis=1)
    x, y, z = np.where(seen > 216 / 24389, np.cbrt(seen), (24389 / 27 * seen + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_simulation_gives_what_is_known():
    np.testing.assert_allclose(lab("#ff0000", "normal"), [53.24, 80.09, 67.20], atol=0.01)
    for vision in VISIONS:
        np.testing.assert_allclose(lab("#808080", vision)[1:], 0, atol=0.1)  # grey stays grey
    red, green = lab("#d62728", "deuteranopia"), lab("#2ca02c", "deuteranopia")
    assert np.linalg.norm(red - green) < 8  # matplotlib's red and green are the mistake to avoid


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("palette", "apart"), [(SAFE_ON_DARK, 22.0), (SAFE_ON_WHITE, 15.0)])
def test_each_two_colours_of_a_palette_stay_apart(palette: tuple[str, ...], apart: float, vision: str):
    seen = {colour: lab(colour, vision) for colour in palette}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(palette, 2)}
    assert min(distances.values()) >= apart, min(distances, key=distances.__getitem__)


def test_colours_are_lighter_than_black_and_darker_than_white_where_they_are_used():
    assert min(lab(colour, vision)[0] for colour in SAFE_ON_DARK for vision in VISIONS) > 35
    assert max(lab(colour, vision)[0] for colour in SAFE_ON_WHITE for vision in VISIONS) < 80


@given(width=st.integers(2, 20000), size=st.one_of(st.none(), st.floats(1e-13, 1e-2)))
def test_a_scale_bar_is_1_2_or_5_times_a_power_of_ten_and_takes_a_good_part_of_the_width(width, size):
    bar = scale_bar(width, size)
    number, unit = bar.label.split(" ")
    assert f"{float(number):.0e}"[0] in "125"
    assert float(number) == pytest.approx(float(f"{float(number):.0e}"))
    units = {"Å": 1e-10, "nm": 1e-9, "µm": 1e-6, "mm": 1e-3}
    assert bar.pixels == pytest.approx(float(number) if size is None else float(number) * units[unit] / size)
    if size is not None or width > 4:
        assert 0.3 * width / 2.5 * (1 - 1e-9) <= bar.pixels <= 0.3 * width * (1 + 1e-9)


@pytest.mark.parametrize(
    ("width", "size", "label"),
    [
        *((200, 0.4e-10, "2 nm"), (64, 0.1e-10, "1 Å"), (64, 0.02e-10, "0.2 Å"), (500, 3e-8, "2 µm")),
        *(
            (240, 1e-3, "50 mm"),
            (512, 0.7e-3, "100 mm"),
            (35, 1e-3, "10 mm"),
            (9, 1e-3, "2 mm"),
            (1000, 5e-7, "100 µm"),
        ),
        (100, None, "20 pixels"),
    ],
)
def test_scale_bars_are_labelled_as_people_would(width, size, label):
    assert scale_bar(width, size).label == label


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (9, 1, 3), (31, 17, 3)])
def test_other_programs_read_the_pixels_of_a_picture(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    whole = rng.integers(0, 256, (*shape[:2], 4), dtype=np.uint8)
    for image in (whole[:, :, :3], whole[::-1, :, 1:], np.zeros(shape, np.uint8)):
        file = Image.open(io.BytesIO(png(image)))
        file.verify()  # checksums
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


def test_a_picture_is_encoded_once_and_a_changed_one_anew():
    shades, image = [], np.zeros((4, 5, 3), np.uint8)
    for shade in range(20):
        image[:] = shade  # as of a part that draws all its pictures into the same array
        assert png(image) is png(image)
        shades.append(int(np.asarray(Image.open(io.BytesIO(png(image)))).max()))
    assert shades == list(range(20))
    assert Image.open(io.BytesIO(png(image.reshape(5, 4, 3)))).size == (4, 5)
