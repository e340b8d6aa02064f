"""How much memory a step of training takes, by the sizes of patterns, modes, slices and object (``plan``).

The factors were counted on steps of the model (every tensor that lives at once), and a test counts them again.
The unit is a complex number of single precision for each pixel of each pattern that is computed at once:

    4 + (slices + 2) for each probe mode, with waves stored, as those of a single slice are
    2.5 + 6 for each mode, with waves recomputed

The object takes, besides its values and the optimizer's moments, a gradient and half as much again for each pixel.
"""

from __future__ import annotations

from math import ceil, lcm, prod
from typing import TYPE_CHECKING

from trainkit import StepMemory, bytes_in_words
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.propagators.coarse_slices import slices_in

if TYPE_CHECKING:
    from trainkit_ptychography.models.ptychography import Ptychography
    from trainkit_ptychography.scans.kind import DiffractionData

_COMPLEX, _REAL = 8, 4  # bytes
_MOST_STORED = 256 * 2**20  # bytes of waves, up to which waves = "auto" stores them
_MOMENTS = 2  # of Adam, the most that an optimizer here keeps for each value


def step_memory(model: Ptychography, data: DiffractionData, batch_size: int, epochs: int) -> StepMemory | None:
    """Return what a step takes; None: a part of the model was not counted.

    Args:
        model: The model.
        data: The data.
        batch_size: Number of patterns that are computed at once.
        epochs: Number of epochs of the run.

    Raises:
        DataError: The scan cannot be read.
    """
    probe = model.probe
    uncounted = probe.opr_modes or probe.defocus_spread_angstrom or probe.num_scans() > 1
    if uncounted or not model.object.has_pixels or data.propagation_to_detector().patterns_are_images:
        return None
    patterns, scan = data.read()
    shape_YX = (patterns.shape[1], patterns.shape[2])
    pixels, modes = prod(shape_YX), probe.modes or 1  # a guess most often has one mode
    object_HW = prod(place(scan.positions_N2, shape_YX, model.object_margin).shape_HW)
    values = 2 * object_HW * model.slices * model.object_modes
    weights = _REAL * (values + 2 * len(patterns)) + _COMPLEX * modes * pixels
    stored_bytes = _COMPLEX * modes * batch_size * pixels * model.slices * model.object_modes
    stored = model.waves == "stored" or (model.waves == "auto" and stored_bytes <= _MOST_STORED)
    waves = 4.0 + (model.slices + 2.0) * modes if stored or model.slices == 1 else 2.5 + 6.0 * modes
    step = _COMPLEX * batch_size * pixels * waves * model.object_modes + 1.5 * _REAL * values
    step += 2 * _COMPLEX * modes * pixels  # the probe, its spectrum
    kept = _REAL * len(patterns) * pixels
    on_device = data.patterns_on == "device"
    how = (
        f"the sizes of the {batch_size} patterns that are computed at once, of {modes} modes and {model.slices} slices"
    )
    if not on_device and data.patterns_on == "auto":
        how += f"; the patterns, {bytes_in_words(kept)}, stay on the device too where they fit"
    return StepMemory(
        weights,
        0,
        _MOMENTS * weights,
        kept if on_device else 0,
        round(step),
        how,
        batch=_REAL * batch_size * pixels,
        kinds=_kinds(model, data, batch_size, epochs),
    )


def _kinds(model: Ptychography, data: DiffractionData, batch_size: int, epochs: int) -> int:
    """Return how many kinds of steps there are at most.

    Batches of an epoch differ in size by one pattern, if they differ; and the model passes through fewer slices in
    coarse stages, and imposes some constraints only at some steps (its ``step_variant``).
    """
    epoch = data.epoch_size()
    items = batch_size if epoch is None else epoch.items
    batches = ceil(items / batch_size)
    at_steps = [each for each in model.constraints.values() if each.every_epochs is None]
    until_alike = min(batches, lcm(*(each.every_steps for each in at_steps)))
    variants = {
        (slices_in(number, model.coarse, model.slices), *(each.imposed_at(number, step) for each in at_steps))
        for number in range(epochs)
        for step in range(number * batches + 1, number * batches + 1 + until_alike)
    }
    return len(variants) * (2 if items % batches else 1)
