"""The object as an array of pixels: its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import deep_iterable, ge, gt, optional

from trainkit import INPUT_PATH, Problem, component
from trainkit_ptychography.objects.kind import Object, ObjectGeometry
from trainkit_ptychography.scans.files.suffixes import ARRAY_SUFFIXES

if TYPE_CHECKING:
    from torch import nn

    from trainkit import Recipe


@component
class Pixels(Object):
    """One value per pixel for the phase, and one for the absorption: the default, and the fastest.

    Learning rates of about 1e-3 to 1e-2 (rad) suit both. The object begins as vacuum, or with that of a file: our own
    ``result.h5``, a result of PtyRAD or Pty-Chi (HDF5), or any array. It is laid where its file says that it was, of
    another crop or margin too, and resampled if its pixels have another size. Outside of it is vacuum. Slices
    (``name = "object_slices"`` in our results) are merged or split into as many as this run has.

    Attributes:
        kind: "phase_and_amplitude", or "phase_only" for a specimen that absorbs nothing.
        path: The file to begin with: ``.npy``, ``.npz`` or HDF5. If left out, the object begins as vacuum.
        name: Which array or dataset holds the object: complex, (rows, columns) or (slices, rows, columns); of ``.npy``
            the only one. If left out, that of a layout that is known ("object", or PtyRAD's objp and obja).
        holds: Whether the array is the complex "transmission", or a "phase" in rad, real.
        origin_pixels: Position of the array's pixel [0, 0] in the coordinates of the data, in pixels of this run. If
            left out, what the file says (our own results do, and others by the positions of their patterns), else
            [0, 0]: pixel [i, j] is at position (i, j), as ``truth_phase`` of the data.
        vacuum_angstrom: Vacuum in front of the file's slices, and behind them, within this run's thickness: room for a
            specimen that turns out to be thicker, or to lie elsewhere. The defocus is that where the beam enters this
            run's first slice.
        file_pixel_size_angstrom: Size of the array's pixels. If left out, what the file says, else that of this run.
    """

    has_pixels: ClassVar[bool] = True
    takes_slices: ClassVar[bool] = True

    kind: Literal["phase_and_amplitude", "phase_only"] = "phase_and_amplitude"
    path: Path | None = attrs.field(default=None, metadata=INPUT_PATH)
    name: str | None = None
    holds: Literal["transmission", "phase"] = "transmission"
    origin_pixels: tuple[float, float] | None = None
    vacuum_angstrom: tuple[float, float] = attrs.field(default=(0.0, 0.0), validator=deep_iterable(ge(0.0)))
    file_pixel_size_angstrom: float | None = attrs.field(default=None, validator=optional(gt(0.0)))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check what is said of the file to begin with."""
        if self.path is None:
            for key in ("name", "origin_pixels", "file_pixel_size_angstrom"):
                if getattr(self, key) is not None:
                    yield Problem("has no effect without path, the file to begin with", key)
            if any(self.vacuum_angstrom):
                yield Problem("has no effect without path, the file to begin with", "vacuum_angstrom")
        elif any(self.vacuum_angstrom) and getattr(recipe.model, "slices", 1) == 1:
            yield Problem("has no effect on a single slice: raise model.slices, or leave it out", "vacuum_angstrom")
        if self.path is not None and self.path.suffix not in ARRAY_SUFFIXES:
            yield Problem(f'"{self.path.name}" is none of {", ".join(ARRAY_SUFFIXES)}', "path")

    def begins_with(self) -> str | None:
        """Return the file that it begins with; None: it is vacuum."""
        return None if self.path is None else str(self.path)

    def build(self, geometry: ObjectGeometry) -> nn.Module:
        """Make the pixels: vacuum, or the object of a file.

        Raises:
            DataError: The file cannot be read, or its object has no place in this scan.
        """
        from trainkit_ptychography.objects.pixels_live import PixelObject

        made = PixelObject(geometry, absorbs=self.kind == "phase_and_amplitude")
        if self.path is not None:
            from trainkit_ptychography.objects.earlier_live import begin_with

            begin_with(made.pixels(), self, geometry)
        return made
