"""Resolution by Fourier ring correlation between two halves: the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
from attrs.validators import ge, optional

from trainkit import Agreement, Data, Halver, RecipeError, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe

_OF_A_HALF = ("object", "other")  # groups that a half reconstructs, or that are empty


@component
class FourierRing(Halver):
    """Fourier ring correlation (FRC) between reconstructions from two halves of a scan.

    The resolution is the period at which the correlation falls below the threshold of one bit (and of half a bit) of
    information in a Fourier pixel of both halves together. The scanned part of the complex transmission is compared;
    it is tapered at its edges, and a shift and a ramp and offset of the phase are taken out.

    It says how far noise, and with ``of = "points"`` the sampling of the scan, leave the result in doubt. What is wrong
    with both halves alike agrees in both: a pixel that is too large, a wrong geometry or distance, a model that lacks
    something. Halves that begin with the probe and positions of the run cost less, and share their errors too, which
    follow the noise of both halves: with few electrons, the figure is too good.

    Attributes:
        of: "points": every second scan point, on a grid like the fields of a chessboard; each half sees the specimen
            half as densely. "counts": every count falls to one of the halves by chance; the patterns must be counts.
        begin: "nothing": each half is reconstructed as the run was, with a probe and positions of its own. "finished":
            both keep the probe, the positions and all else of the run but the object, and reconstruct that alone.
        epochs: Epochs of each half; as many as the run has if not given.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("h5py",)

    of: Literal["points", "counts"] = "points"
    begin: Literal["nothing", "finished"] = "nothing"
    epochs: int | None = attrs.field(default=None, validator=optional(ge(1)))

    def check(self, recipe: Recipe) -> None:
        """Check that enough was scanned.

        Raises:
            DataError: Too little was, or the data cannot be read.
        """
        from trainkit_ptychography.resolution.fourier_ring_live import compared_part

        if isinstance(recipe.data, DiffractionData):
            compared_part(recipe.data.read().scan.positions_N2)

    def changes(self, recipe: Recipe, checkpoint: Path, half: int) -> Mapping[str, Any]:
        """Return what makes a recipe that of a half.

        Raises:
            RecipeError: The recipe is of a half already, or there would be nothing to share.
        """
        if not isinstance(recipe.data, DiffractionData):
            raise RecipeError(f"resolution: {type(recipe.data).__name__} holds no diffraction patterns")
        if recipe.data.half is not None:
            raise RecipeError("resolution: this run is one with half of the data already (data.half)")
        changes: dict[str, Any] = {"data": {"half": {"of": self.of, "part": half}}}
        if self.epochs is not None:
            changes["run"] = {"epochs": self.epochs}
        if self.begin == "finished":
            shared = [name for name in recipe.model.groups() or () if name not in _OF_A_HALF]
            changes["initial_weights"] = {"path": str(checkpoint), "take": shared}
            changes["drop"] = [f"groups.{name}" for name in shared if name in recipe.groups]
            if recipe.initial_weights is not None:
                changes["drop"].append("initial_weights")
        return changes

    def compare(self, recipe: Recipe, one: Path, other: Path) -> Agreement:
        """Compare the objects of both halves.

        Raises:
            DataError: They cannot be compared.
        """
        from trainkit_ptychography.resolution.fourier_ring_live import compare

        return compare(self, recipe, one, other)
