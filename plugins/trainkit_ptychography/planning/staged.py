"""Plans a staged reconstruction: object, then probe, then positions: the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from trainkit import Data, Planner, Problem, Progress, RecipeError, RecipeText, component
from trainkit_ptychography.planning.evidence import Evidence
from trainkit_ptychography.scans.files.kind import FileDiffraction

_SIZES = ("pixel_size_angstrom", "dk_per_angstrom", "detector_pixel_um")


@component
class StagedPlanner(Planner):
    """A single-slice reconstruction in stages. What the file does not say is a placeholder, which ``check`` refuses.

    With ``calibrate``, orientation, defocus, rotation and step are found by trials with a few hundred patterns; energy,
    aperture and the size of a detector pixel must be known.

    ``memory_gb`` decides whether the patterns are streamed when the run begins, and is not needed here; there is one
    network, so ``network`` has no effect and is refused.
    """

    accepts: ClassVar[type[Data]] = FileDiffraction  # type: ignore[type-abstract]
    calibrates: ClassVar[bool] = True

    def draft(self, use: str, data: type[Any], settings: Mapping[str, Any]) -> Iterator[str | Progress | Problem]:
        """Write the recipe."""
        if self.network is not None:
            raise RecipeError("--network: a reconstruction has no network to choose")
        evidence = Evidence()
        if self.calibrate:
            from trainkit_ptychography.planning.staged_live import calibrate

            _refuse_what_is_missing(use, data.says_geometry, settings)
            for each in calibrate(data, settings, self.picture):
                if isinstance(each, Evidence):
                    evidence = each
                else:
                    yield each
        settings = {**settings, **evidence.settings}
        yield from str(_recipe(use, data.says_geometry, settings, evidence)).split("\n")


def _refuse_what_is_missing(use: str, says_geometry: bool, settings: Mapping[str, Any]) -> None:
    """Refuse to begin with trials if something is not told that these cannot find out.

    Raises:
        RecipeError: Says what, and how to tell it.
    """
    text = _recipe(use, says_geometry, settings, Evidence())
    missing = {key: why for key, why in text.placeholders.items() if key != "defocus_angstrom"}
    if missing:
        lines = [f"  --set data.{key}=…    {why}" for key, why in missing.items()]
        if {"positions", "raster"} & missing.keys():
            lines.append("  (or --set data.raster.step=… for a scan of rows and columns, or data.positions_path=…)")
        raise RecipeError("\n".join(["--calibrate needs to be told what it does not find in the file:", *lines]))


def _recipe(use: str, says_geometry: bool, settings: Mapping[str, Any], evidence: Evidence) -> RecipeText:
    text = RecipeText()
    text.comment(
        "Found by names and shapes; trainkit check --data holds geometry, orientation and defocus against the patterns."
    )
    for comment in evidence.comments:
        text.comment(comment)
    text.listing(evidence.table)
    text.value("trainkit", 1)
    text.table("run")
    text.value("epochs", 30, "of all patterns; a longer run follows a slow decrease of val/loss")
    text.value("seed", 0)
    _write_data(text, use, says_geometry, settings, evidence.reasons)
    text.table("model")
    text.value("use", "ptychography")
    if "probe" in settings:
        text.value("probe", {"use": "from_data"}, "the guess that is in the file")
    else:
        text.value("probe", {"use": "aperture"}, "made from semiangle and defocus; modes = 4 for partial coherence")
    text.table("losses.data")
    is_amplitude = settings.get("values") == "amplitude"
    why = "the file holds amplitudes" if is_amplitude else '"poisson" for counts, if the detector counts'
    if evidence.are_counts:
        text.value("use", "poisson", "the patterns hold counts: whole numbers")
    else:
        text.value("use", "amplitude", why)
    text.table("optimizer")
    text.value("use", "scaled_steps", "gradients divided by the loss's curvature: one rate suits every specimen")
    text.table("scheduler")
    text.value("use", "cosine", "what has settled stops following the noise")
    text.table("groups.probe")
    text.value("start_epoch", 1, "from the start, a wrong probe and an empty object would be mixed up")
    text.value("optimizer", {"use": "scaled_steps", "momentum": 0.9})
    text.table("groups.dr")
    text.value("start_epoch", 5, "positions wait until there is an object to hold them against")
    text.table("checkpoint")
    text.value("every_epochs", 1)
    text.value("keep_last", 3)
    text.table("loggers.tensorboard")
    text.value("use", "tensorboard")
    return text


def _write_data(
    text: RecipeText, use: str, says_geometry: bool, settings: Mapping[str, Any], found: Mapping[str, str]
) -> None:
    text.table("data")
    text.value("use", use)
    reasons = {
        "patterns": "what looks most like patterns, by shape and name",
        "probe": "a guess, by its name",
        "positions": "two numbers for each pattern",
        "raster": "no array of positions, but a scan of rows and columns, whose step the file says",
        "positions_unit": "the name of the array ends in it, or the file says it",
        "values": "by the array's name",
        "zero_frequency": "where a few patterns are brightest",
        **found,
    }
    for key, value in settings.items():
        why = reasons.get(key, "" if key == "path" else "the file says it, or --set")
        text.value(key, value, why)
    text.value("batch_size", 32)
    text.value("validation_fraction", 0.02, "held-out patterns, whose loss tells when to stop")
    if says_geometry or settings.get("reader", {}).get("use") == "ptyd":
        for key in ("semiangle_mrad", "defocus_angstrom"):
            _ask(text, key, settings)
        return
    if "zero_frequency" not in settings:
        text.placeholder("zero_frequency", "centre, corner or [row, column]", "patterns do not show where the beam is")
    reader = settings.get("reader", {}).get("use")
    if reader == "matlab" and "pattern_axes" not in settings:
        text.placeholder("pattern_axes", "order of the axes, such as yxn", "MATLAB's files do not say it")
    if not {"positions", "raster", "positions_path"} & settings.keys():
        if reader in ("empad", "raw") or str(settings.get("path", "")).endswith(".npy"):
            text.placeholder(
                "raster", "{ step = distance of scan points }", "or positions_path: a file with the points"
            )
        else:
            text.placeholder("positions", "name of the array of positions", "several may be, or none: else raster")
    if "positions_unit" not in settings:
        text.placeholder("positions_unit", "angstrom, nm, um, mm, m or pixels", "the file does not say it")
    if settings.get("positions_unit") != "pixels" and not any(key in settings for key in _SIZES):
        text.placeholder(
            "dk_per_angstrom", "detector pixel in 1/Å", "or pixel_size_angstrom; no line if positions are in pixels"
        )
    if "probe" in settings:
        return
    if "energy_kev" not in settings and "wavelength_angstrom" not in settings:
        text.placeholder("energy_kev", "energy in keV", "of the electrons; for photons, set radiation too")
    for key in ("semiangle_mrad", "defocus_angstrom"):
        _ask(text, key, settings)


def _ask(text: RecipeText, key: str, settings: Mapping[str, Any]) -> None:
    asked = {
        "semiangle_mrad": ("half opening angle of the aperture in mrad", "the probe is made from it"),
        "defocus_angstrom": ("underfocus in Å", "as the microscope says it; check --data tries its sign and size"),
    }
    if key not in settings:
        text.placeholder(key, *asked[key])
