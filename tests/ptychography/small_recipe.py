"""The smallest recipe of a simulated scan, for tests of what settings say of each other."""

from __future__ import annotations


def small_recipe(model: str = "", more: str = "", probe: str = "") -> str:
    """Return the text of a recipe with an aperture probe.

    Args:
        model: Lines of ``[model]``.
        more: Tables after all others.
        probe: Settings of the probe.
    """
    return f"""
trainkit = 1
[run]
epochs = 2
[data]
use = "diffraction_simulated"
scan_shape = [4, 4]
detector_size = 24
[model]
use = "ptychography"
probe = {{ use = "aperture"{probe and ", "}{probe} }}
{model}
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
lr = 1e-3
{more}
"""
