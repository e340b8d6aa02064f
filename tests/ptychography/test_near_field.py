"""Patterns of the near field are told from those of the far field."""

from __future__ import annotations

import numpy as np
import pytest

from trainkit import DataError
from trainkit_ptychography.scans.near_field import near_field
from trainkit_ptychography.scans.scan import Recording, Scan, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.summary import doubts

GENERATOR = np.random.default_rng(2)
WIDE, SIZE = 96, 48


def smooth(size: int, width: float) -> np.ndarray:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))
    values = np.fft.ifft2(np.fft.fft2(GENERATOR.normal(size=(size, size))) * np.exp(-((frequency * width) ** 2))).real
    return values / values.std()


def shadows(num: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return Fresnel patterns of a phase object behind a structured beam, zero frequency at [0, 0], and positions."""
    phase = 0.4 * smooth(2 * WIDE, 9)
    beam = (1 + 0.3 * smooth(WIDE, 12)) * np.exp(0.5j * smooth(WIDE, 14))
    corners = GENERATOR.integers(0, WIDE, (num, 2))
    frequency = np.fft.fftfreq(WIDE)
    carry = np.exp(-1j * np.pi * 2.5 * (frequency[:, None] ** 2 + frequency**2))  # λ z in pixels²
    edge = (WIDE - SIZE) // 2
    patterns = []
    for row, column in corners:
        wave = beam * np.exp(1j * phase[row : row + WIDE, column : column + WIDE])
        image = np.abs(np.fft.ifft2(np.fft.fft2(wave) * carry)) ** 2
        patterns.append(GENERATOR.poisson(2000 * image[edge:-edge, edge:-edge]))
    return np.fft.ifftshift(np.array(patterns, np.float32), axes=(1, 2)), corners.astype(np.float64)


PATTERNS, CORNERS = shadows()


@pytest.mark.parametrize("turned", [np.eye(2), np.array([[0.0, -3.0], [3.0, 0.0]])])
def test_shadow_images_that_move_along_with_the_scan_are_of_the_near_field(turned):
    said = near_field(PATTERNS, CORNERS @ turned, None)
    assert said is not None
    assert "shifted copies of each other" in said


def test_it_is_said_whether_or_not_the_positions_can_be_right():
    scan = Scan(positions_N2=CORNERS, source="a scan")
    assert any("near-field" in each for each in doubts(checked(Recording(PATTERNS, scan))))
    with pytest.raises(DataError, match="look like near-field patterns"):
        checked(Recording(PATTERNS, Scan(positions_N2=40 * CORNERS, source="a scan")))


def test_patterns_that_do_not_follow_the_scan_are_not_of_the_near_field():
    assert near_field(PATTERNS, GENERATOR.permutation(CORNERS), None) is None
    flat = GENERATOR.poisson(30.0, PATTERNS.shape).astype(np.float32)  # a background alone
    assert near_field(flat, CORNERS, None) is None


def test_a_short_distance_is_a_sign_only_if_light_fills_the_detector():
    flat = GENERATOR.poisson(30.0, PATTERNS.shape).astype(np.float32)
    assert "2.5 times a detector pixel squared" in (near_field(flat, CORNERS, None, 2.5) or "")
    assert near_field(flat, CORNERS, None, 0.3) is None


@pytest.mark.parametrize("defocus", [0.0, 60.0, 600.0])
def test_a_defocused_beam_is_not_taken_for_the_near_field(defocus):
    patterns, scan = SimulatedDiffraction(scan_shape=(8, 8), defocus_angstrom=defocus).read()
    assert near_field(patterns, scan.positions_N2, None, 5.0) is None
