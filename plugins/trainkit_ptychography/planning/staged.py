"""Plans a staged reconstruction: object, then probe, then positions: the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs

from trainkit import (
    Data,
    Figures,
    Planner,
    Problem,
    Progress,
    RecipeError,
    RecipeText,
    Recognised,
    component,
    structure_settings,
)
from trainkit_ptychography.planning.evidence import Evidence
from trainkit_ptychography.preflight.seen_images import Images
from trainkit_ptychography.scans.files.kind import FileDiffraction

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.contents_live import ScanContents

_SIZES = ("pixel_size_angstrom", "dk_per_angstrom", "detector_pixel_um")
_EPOCHS = 30
_THICK = 0.5  # of the depth that patterns resolve: a thinner specimen is explained by one slice as well
_SLICES = 3  # within that depth
_COUPLED = 0.8  # of the epochs
_ANCHORED = 0.45  # of a step, by which positions are likely wrong along each axis
_EPOCHS_OF_IMAGES = 160
_LONGEST_ELECTRON_WAVE = 0.12  # Å, 10 keV


def _is_none(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        raise ValueError("--network: a reconstruction has no network to choose")


@component
class StagedPlanner(Planner):
    """A reconstruction in stages. What the file does not say is a placeholder, which ``check`` refuses.

    A few dozen patterns are looked into: they show where the beam is; where counts are few, counts are compared and not
    their roots; and pixels that did not measure are left out. The object has slices if the file says that the specimen
    is thick, else one.

    Patterns that are images of the specimen get a recipe of the near field, with the beam's divergence as images move
    with the scan. Patterns of photons in the far field begin with a probe from their mean, if no optics are told.

    With ``calibrate``, orientation, defocus, rotation and step are found by trials with a few hundred patterns; energy,
    aperture and the size of a detector pixel must be known.

    ``memory_gb`` decides whether the patterns are streamed when the run begins, and is not needed here; there is one
    network, so ``network`` has no effect and is refused.
    """

    accepts: ClassVar[type[Data]] = FileDiffraction  # type: ignore[type-abstract]
    calibrates: ClassVar[bool] = True

    network: str | None = attrs.field(default=None, validator=_is_none)

    def draft(self, found: Recognised) -> Iterator[str | Progress | Problem | Figures]:
        """Write the recipe."""
        contents: ScanContents | None = found.contents
        if contents is not None:
            seen = {"zero_frequency": contents.beam, "prepare": contents.prepare}
            found = found._replace(settings={**found.settings, **{key: each for key, each in seen.items() if each}})
        images = None if contents is None else _images(found)
        evidence = Evidence()
        if self.calibrate and (images is not None or _is_of_photons(contents)):
            what = "these are images of the specimen" if images is not None else "these are of photons"
            raise RecipeError(
                f"--calibrate tries out geometries for electrons in the far field, and {what}: leave it out, and let "
                "check --data compare the scan with the patterns"
            )
        if self.calibrate:
            from trainkit_ptychography.planning.staged_live import calibrate

            _refuse_what_is_missing(found)
            data = cast(FileDiffraction, structure_settings(found.data, found.settings, "data"))
            for each in calibrate(data, self.picture):
                if isinstance(each, Evidence):
                    evidence = each
                else:
                    yield each
        found = found._replace(settings={**found.settings, **evidence.settings})
        yield from str(_recipe(found, evidence, self.calibrate, images)).split("\n")


def _refuse_what_is_missing(found: Recognised) -> None:
    """Refuse to begin with trials if something is not told that these cannot find out.

    Raises:
        RecipeError: Says what, and how to tell it.
    """
    text = _recipe(found, Evidence(), True)
    missing = {key: why for key, why in text.placeholders.items() if key != "defocus_angstrom"}
    if missing:
        lines = [f"  --set data.{key}=…    {why}" for key, why in missing.items()]
        if {"positions", "raster"} & missing.keys():
            lines.append("  (or --set data.raster.step=… for a scan of rows and columns, or data.positions_path=…)")
        raise RecipeError("\n".join(["--calibrate needs to be told what it does not find in the file:", *lines]))


def _images(found: Recognised) -> Images | None:
    """Return what is known of patterns that are images; None: they are patterns of the far field."""
    from trainkit_ptychography.preflight.seen_images_live import look_for_images

    return look_for_images(cast(FileDiffraction, structure_settings(found.data, found.settings, "data")))


def _is_of_photons(contents: ScanContents | None) -> bool:
    wavelength = None if contents is None else contents.wavelength_angstrom
    return wavelength is not None and wavelength > _LONGEST_ELECTRON_WAVE


def _recipe(found: Recognised, evidence: Evidence, is_calibrated: bool, images: Images | None = None) -> RecipeText:
    contents: ScanContents | None = found.contents
    text = RecipeText()
    text.comment(
        "Found by names and shapes; trainkit check --data holds geometry, orientation and defocus against the patterns."
    )
    for comment in evidence.comments:
        text.comment(comment)
    text.listing(evidence.table)
    text.value("trainkit", 1)
    text.table("run")
    epochs = _EPOCHS if images is None else _EPOCHS_OF_IMAGES
    text.value("epochs", epochs, "of all patterns; a longer run follows a slow decrease of val/loss")
    text.value("seed", 0)
    _write_data(text, found, evidence.reasons, images)
    if images is not None:
        _write_model_of_images(text)
        _write_loss(text, found)
        _write_training_of_images(text)
        _write_rest(text)
        return text
    slices = _slices(contents)
    if is_calibrated and slices > 1:
        _write_model(text, found, 1)
        text.comment(f"Of a thick specimen this defocus is that of the middle: {_told_thickness(contents, slices)}.")
    else:
        _write_model(text, found, slices)
    _write_loss(text, found)
    is_thick = slices > 1 and not is_calibrated
    if not is_thick:
        _write_anchor(text, contents)
    _write_training(text, is_thick, trains_defocus=_is_made_from_lens(found))
    _write_rest(text)
    return text


def _write_rest(text: RecipeText) -> None:
    text.table("checkpoint")
    text.value("every_epochs", 1)
    text.value("keep_last", 3)
    text.table("loggers.tensorboard")
    text.value("use", "tensorboard")


def _write_model_of_images(text: RecipeText) -> None:
    text.table("model")
    text.value("use", "ptychography")
    text.value("probe", {"use": "mean_pattern"}, "the mean of images that move with the specimen shows the beam")


def _write_training_of_images(text: RecipeText) -> None:
    text.table("optimizer")
    text.value("use", "adam")
    text.table("scheduler")
    text.value("use", "cosine", "what has settled stops following the noise")
    text.table("groups.object")
    text.value("lr", 4e-2, "rad")
    text.table("groups.probe")
    text.value("lr", 2e-2)
    text.value("start_epoch", 0, "its phase is not known at first")
    text.table("groups.dr")
    text.value("lr", 2e-2, "pixels")
    text.value("start_epoch", 20, "positions wait until there is an object to hold them against")


def _slices(contents: ScanContents | None) -> int:
    """Return into how many slices the object is divided."""
    if contents is None or contents.thickness_angstrom is None or contents.depth_resolution_angstrom is None:
        return 1
    resolved = contents.thickness_angstrom / contents.depth_resolution_angstrom
    return max(2, round(_SLICES * resolved)) if resolved > _THICK else 1


def _told_thickness(contents: ScanContents | None, slices: int) -> str:
    assert contents is not None  # it says the thickness
    thickness = contents.thickness_angstrom or 0.0
    return (
        f"slices = {slices} and thickness_angstrom = {thickness:g} tell depths apart, with a defocus_angstrom that is "
        f"{thickness / 2:g} larger, as it is where the beam enters; recipes/ptycho_thick.toml shows the rest"
    )


def _write_model(text: RecipeText, found: Recognised, slices: int) -> None:
    contents: ScanContents | None = found.contents
    text.table("model")
    text.value("use", "ptychography")
    if slices > 1:
        assert contents is not None  # it says the thickness
        depth = contents.depth_resolution_angstrom
        text.value("slices", slices, f"{_SLICES} within wavelength / semiangle², {depth:.3g} Å, which patterns resolve")
        text.value("thickness_angstrom", contents.thickness_angstrom, "the file says it")
        text.value("object", {"use": "pixels", "kind": "phase_only"}, "atoms hardly absorb electrons")
    if "probe" in found.settings:
        text.value("probe", {"use": "from_data"}, "the guess that is in the file")
    elif not _is_made_from_lens(found):
        why = 'a beam in focus; "aperture" with semiangle_mrad and defocus_angstrom, or "vacuum", knows more'
        text.value("probe", {"use": "mean_pattern"}, why)
    else:
        probe: dict[str, object] = {"use": "aperture"}
        if slices == 1:
            probe["trained_aberrations"] = ["C10"]
        text.value("probe", probe, "made from semiangle and defocus; modes = 4 for partial coherence")
    if slices == 1:
        return
    assert contents is not None
    text.table("model.constraints.coupling", "what differs from slice to slice is noise at first")
    text.value("use", "slice_coupling")
    text.value("sigma_angstrom", float(f"{(contents.depth_resolution_angstrom or 0.0) / 7:.2g}"))
    text.value("every_epochs", 1)
    text.value("stop_epoch", round(_COUPLED * _EPOCHS), "the last fifth makes slices as sharp as patterns can")
    text.table("model.constraints.positive", "atoms delay electrons; so the mean phase of each slice is known, too")
    text.value("use", "limits")
    text.value("min_phase_rad", 0.0)
    text.value("every_epochs", 1)


def _write_loss(text: RecipeText, found: Recognised) -> None:
    contents: ScanContents | None = found.contents
    text.table("losses.data")
    if found.settings.get("values") == "amplitude":
        text.value("use", "amplitude", "the file holds amplitudes")
    elif contents is None:
        text.value(
            "use", "amplitude", 'patterns could not be looked into yet; "poisson" for counts, where these are few'
        )
    elif contents.counts is None:
        text.value(
            "use", "amplitude", "the patterns hold no counts: some values are negative, or no multiples of another"
        )
    elif contents.counts.are_few:
        text.value("use", "poisson", f"compares counts: {contents.counts.in_words()}")
    else:
        why = f"counts are many, {contents.counts.per_pattern:.3g} in a pattern: roots make their noise even"
        text.value("use", "amplitude", why)


def _write_anchor(text: RecipeText, contents: ScanContents | None) -> None:
    """Write a prior of positions where electrons are few: without it, they follow the noise."""
    if contents is None or contents.counts is None or not contents.counts.are_few or contents.step_angstrom is None:
        return
    text.table("losses.near", "where few electrons tell little of a position, it stays near the one that is given")
    text.value("use", "position_anchor")
    text.value("sigma_angstrom", float(f"{_ANCHORED * contents.step_angstrom:.2g}"), "by how much it is likely wrong")


def _write_training(text: RecipeText, is_thick: bool, trains_defocus: bool) -> None:
    text.table("optimizer")
    if is_thick:
        text.value("use", "adam", "slices change together, and Adam learns how far each pixel may go")
    else:
        text.value("use", "scaled_steps", "gradients divided by the loss's curvature: one rate suits every specimen")
        text.value("damping", 0.3)
    text.table("scheduler")
    text.value("use", "cosine", "what has settled stops following the noise")
    if is_thick:
        text.table("groups.object")
        text.value("lr", 3e-2, "rad")
        text.table("groups.probe")
        text.value("lr", 1e-3)
        text.value("start_epoch", 0)
        text.table("groups.dr")
        text.value("lr", 4e-2, "pixels")
        text.value("start_epoch", 1, "positions wait until there is an object to hold them against")
        return
    text.table("groups.object")
    text.value("lr", 1.5, "of the damped step")
    if trains_defocus:
        text.table("groups.aberrations", "a defocus that was told wrong settles within an epoch or two")
        text.value("optimizer", {"use": "adam"})
        text.value("lr", 7e-2, "rad at the edge of the aperture")
        text.value("start_epoch", 0)
    text.table("groups.probe")
    text.value("start_epoch", 1, "from the start, a wrong probe and an empty object would be mixed up")
    if trains_defocus:
        text.value("lr", 0.5, "slowly: what is not the defocus follows the noise of a batch if it may")
    else:
        text.value("optimizer", {"use": "scaled_steps", "momentum": 0.9}, "repairs a rough guess within a few epochs")
    text.table("groups.dr")
    text.value("start_epoch", 5, "positions wait until there is an object to hold them against")


def _is_made_from_lens(found: Recognised) -> bool:
    """Return whether the probe is that of an aperture, whose defocus is a number that can be trained."""
    return "probe" not in found.settings and not _is_guessed_by_mean(found)


def _is_guessed_by_mean(found: Recognised) -> bool:
    """Return whether nothing is known of the optics of an X-ray scan: that of a zone plate or mirror is seldom told."""
    return (
        _is_of_photons(found.contents) and not {"probe", "semiangle_mrad", "defocus_angstrom"} & found.settings.keys()
    )


def _write_data(
    text: RecipeText, found: Recognised, calibrated: Mapping[str, str], images: Images | None = None
) -> None:
    settings, contents = found.settings, found.contents
    text.table("data")
    text.value("use", found.use)
    reasons = {
        "patterns": "what looks most like patterns, by shape and name",
        "probe": "a guess, by its name",
        "positions": "two numbers for each pattern",
        "raster": "no array of positions, but a scan of rows and columns, whose step the file says",
        "positions_unit": "the name of the array ends in it, or the file says it",
        "values": "by the array's name",
        "zero_frequency": "where a few patterns are brightest",
        **dict.fromkeys(found.told, "as --set says"),
        **calibrated,
    }
    for key, value in settings.items():
        if key == "prepare" and contents is not None:
            for sentence in contents.pixels:
                text.comment(sentence)
        why = reasons.get(key, "" if key in ("path", "prepare") else "the file says it")
        text.value(key, value, why)
    if images is not None and "detector_propagation" not in settings:
        text.comment(
            "Near field: check --data says whether light needs room around the detector, prepare = { pad = … }."
        )
        text.value("detector_propagation", images.table(), images.why)
    if _is_of_photons(contents) and not {"radiation", "wavelength_angstrom"} & settings.keys():
        wave = contents.wavelength_angstrom if contents is not None else None
        text.value("radiation", "photons", f"with a wavelength of {wave:.3g} Å; or is the energy that of electrons?")
    text.value("batch_size", 32 if images is None else 10)
    text.value("validation_fraction", 0.02, "held-out patterns, whose loss tells when to stop")
    if getattr(found.data, "says_geometry", False) or settings.get("reader", {}).get("use") == "ptyd":
        if images is None and not _is_guessed_by_mean(found):
            for key in ("semiangle_mrad", "defocus_angstrom"):
                _ask(text, key, settings)
        return
    if images is None and "zero_frequency" not in settings:
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
    if images is not None or _is_guessed_by_mean(found):
        return
    for key in ("semiangle_mrad", "defocus_angstrom"):
        _ask(text, key, settings)


def _ask(text: RecipeText, key: str, settings: Mapping[str, Any]) -> None:
    asked = {
        "semiangle_mrad": ("half opening angle of the aperture in mrad", "the probe is made from it"),
        "defocus_angstrom": ("underfocus in Å", "as the microscope says it; check --data tries its sign and size"),
    }
    if key not in settings:
        text.placeholder(key, *asked[key])
