"""How the axes of an image may point: along those of the patient in any order and direction, or oblique."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial.transform import Rotation


def directions() -> list[np.ndarray]:
    """Return the 48 orientations along the axes, and some oblique ones."""
    axes = [
        np.diag(signs)[:, list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    return [*axes, *(Rotation.random(random_state=seed).as_matrix() for seed in range(6))]
