"""Finds detector pixels that did not measure: marked, hot, dead, stuck or saturated ones, and outliers in time.

The idea: what a beam makes on a detector is at least as wide as the probe's own Fourier transform, so a pixel that is
many times brighter than nearly all of its neighbours shows no light. Values that mean "not measured" are those that
counts cannot have, or that lie at the end of what the type of the numbers can hold.

Shapes: B = frames of a piece, K = frames of the sample, V, U = rows and columns of a frame as it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import isfinite, prod
from typing import Any

import attrs
import numpy as np
import xxhash
from numpy.typing import NDArray

from trainkit import free_host_memory, percent_in_words
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.prepare_live import equal_to

_SAMPLE_BYTES = {True: 2**26, False: 2**24}  # of a look at every frame, and of a short one
_SHARE_OF_MEMORY = 24  # the sample takes this part of what is free at most, since a few copies of it are made
_MOST_SAMPLED = 256  # frames
_PIECE_BYTES = 2**22
_DISTINCT = 64  # values that are told apart
_SUPPORT = 2  # of the eight neighbours, this many may be brighter than the one that a pixel is compared with: the
# outermost pixel of a small disc has three bright ones
_HOT = 8.0  # times that neighbour
_BEYOND = 2.5  # times the brightest light, for outliers in time
_SURELY_HOT = 20.0  # times the second brightest neighbour, where the direct beam may be
_SURE = 6.0  # standard errors
_HARMS = 2e-5  # of a pattern's total
_FAR = 2.0  # times the lowest value of a noise
_NOISY = 0.2  # of the pixels: if as many are negative at times, that is noise
_GAP = 12  # pixels, up to which an unlit place between lit ones is a gap
_LISTED = 200  # pixels that a line names


@attrs.define(eq=False)
class Pixels:
    """What the values of each stored pixel are, where they count.

    Attributes:
        num: Number of frames that were looked at.
        total: Number of frames that there are.
        dtype: Their dtype.
        used_VU: Which pixels the patterns are made of, and are not known to be bad in all of them.
        seen_VU: In how many frames a pixel counts.
        low_VU: The lowest finite value of a pixel.
        high_VU: The highest one.
        whole: Whether all finite values are whole numbers.
        negative: How often each negative value occurs.
        negative_VU: In how many frames a pixel is negative.
        odd_VU: For each value at the end of the dtype's range, and nan, inf, -inf: in how many frames a pixel has it.
        sample_KVU: Intensities of some frames; NaN where they do not count.
        beam: The pixel of the zero frequency.
        wraps: Whether frames wrap around, because that pixel is at the corner.
        clips: Whether what falls below 0 becomes 0, because a background is subtracted.
        repeated: Patterns that are equal to the one before, where there is light; those that are left out do not count.
        told: How often each value occurs that is told to mean "not measured".
        values: Number of all values that were looked at.
    """

    num: int
    total: int
    dtype: np.dtype[Any]
    used_VU: NDArray[np.bool_]
    seen_VU: NDArray[np.int64]
    low_VU: NDArray[np.float64]
    high_VU: NDArray[np.float64]
    sample_KVU: NDArray[np.float32]
    beam: tuple[int, int] = (0, 0)
    wraps: bool = False
    clips: bool = False
    whole: bool = True
    negative: Counter[float] = attrs.Factory(Counter)
    negative_VU: NDArray[np.int64] = attrs.Factory(lambda self: np.zeros_like(self.seen_VU), takes_self=True)
    odd_VU: dict[float, NDArray[np.int64]] = attrs.Factory(dict)
    repeated: list[int] = attrs.Factory(list)
    told: dict[float, int] = attrs.Factory(dict)
    values: int = 0


def look_at_pixels(patterns: PreparedPatterns, every: bool) -> Pixels:
    """Look at the stored values of all frames, or of a few hundred that are evenly spread.

    Args:
        patterns: The patterns; what their preparation leaves out is not looked at.
        every: Whether to look at all frames; the sample is small anyway.
    """
    frame = patterns.frame_shape
    room = min(_SAMPLE_BYTES[every], free_host_memory() // _SHARE_OF_MEMORY)
    num_sampled = max(2, min(len(patterns), _MOST_SAMPLED, room // (4 * prod(frame))))
    sampled = np.unique(np.linspace(0, len(patterns) - 1, num_sampled).round().astype(np.int64))
    used_VU = patterns.preparation.used()
    sample = [_intensities(patterns, part, used_VU) for part in _parts(sampled, frame)]
    beam, wraps = patterns.preparation.beam()
    found = Pixels(
        num=len(patterns) if every else len(sampled),
        total=len(patterns),
        dtype=patterns.exposures.dtype,
        used_VU=used_VU,
        seen_VU=np.zeros(frame, np.int64),
        low_VU=np.full(frame, np.inf),
        high_VU=np.full(frame, -np.inf),
        sample_KVU=np.concatenate(sample),
        beam=beam,
        wraps=wraps,
        clips=patterns.preparation.background is not None,
        told=dict.fromkeys(patterns.preparation.bad_values, 0),
    )
    before = b""
    for part in _parts(np.arange(len(patterns)) if every else sampled, frame):
        before = _add(found, patterns, part, every, before)
    return found


def _parts(points: NDArray[np.int64], frame: tuple[int, ...]) -> list[NDArray[np.int64]]:
    size = max(1, _PIECE_BYTES // (8 * prod(frame)))
    return np.split(points, range(size, len(points), size))


def _intensities(
    patterns: PreparedPatterns, points: NDArray[np.int64], used_VU: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return intensities, NaN where they do not count; a background is subtracted, and what is negative stays so."""
    frames_BVU, bad_BVU = patterns.stored(points)
    values_BVU = patterns.preparation.unclipped(frames_BVU, bad_BVU)
    values_BVU[:, ~used_VU] = np.nan
    values_BVU[~np.isfinite(values_BVU)] = np.nan
    return values_BVU


def _add(found: Pixels, patterns: PreparedPatterns, points: NDArray[np.int64], every: bool, before: bytes) -> bytes:
    frames_BVU, bad_BVU = patterns.stored(points)
    out_BVU = patterns.preparation.unmeasured(frames_BVU, bad_BVU)
    live_BVU = np.broadcast_to(found.used_VU, frames_BVU.shape)
    if out_BVU is not None:
        live_BVU = live_BVU & ~out_BVU
    if found.dtype.kind == "f":
        for value in (np.nan, np.inf, -np.inf):
            of_value = np.isnan(frames_BVU) if np.isnan(value) else frames_BVU == value
            _count(found, value, of_value & live_BVU)
        live_BVU = live_BVU & np.isfinite(frames_BVU)
        if found.whole:
            found.whole = bool((np.floor(frames_BVU) == frames_BVU)[live_BVU].all())
    elif found.dtype.kind in "iu":
        top = int(np.iinfo(found.dtype).max)
        for value in (top, top - 1):
            _count(found, float(value), (frames_BVU == value) & live_BVU)
    if found.dtype.kind in "if":
        negative_BVU = (frames_BVU < 0) & live_BVU
        if negative_BVU.any():
            found.negative_VU += negative_BVU.sum(axis=0)
            values, counts = np.unique(frames_BVU[negative_BVU], return_counts=True)
            for value, count in zip(values[:_DISTINCT].tolist(), counts[:_DISTINCT].tolist(), strict=True):
                found.negative[float(value)] += count
    found.values += frames_BVU.size
    for value in found.told:
        found.told[value] += int(equal_to(frames_BVU, value).sum())
    found.seen_VU += live_BVU.sum(axis=0)
    values_BVU = frames_BVU.astype(np.float64)
    found.low_VU = np.minimum(found.low_VU, np.where(live_BVU, values_BVU, np.inf).min(axis=0))
    found.high_VU = np.maximum(found.high_VU, np.where(live_BVU, values_BVU, -np.inf).max(axis=0))
    if every:
        for point, frame_VU in zip(points, frames_BVU, strict=True):
            digest = xxhash.xxh3_128_digest(np.ascontiguousarray(frame_VU).tobytes())
            if digest == before and frame_VU.any():
                found.repeated.append(int(point))
            before = digest
    return before


def _count(found: Pixels, value: float, of_value_BVU: NDArray[np.bool_]) -> None:
    if of_value_BVU.any():
        found.odd_VU[value] = found.odd_VU.get(value, np.zeros_like(found.seen_VU)) + of_value_BVU.sum(axis=0)


# ---- what is said about them ----------------------------------------------------------------------------------------


def doubts_of_pixels(found: Pixels, lines: Lines, number: Callable[[int], int] = int) -> Iterator[str]:
    """Yield what looks wrong, each with the line that mends it.

    Args:
        found: What the values of the pixels are.
        lines: Writes the lines.
        number: Returns the number of a pattern in its file.
    """
    marked_VU = np.zeros(found.used_VU.shape, bool)
    for find in (_marked, _stuck):
        for text, pixels_VU in find(found, lines):
            marked_VU |= pixels_VU
            yield text
    sample_KVU = np.where(marked_VU, np.nan, found.sample_KVU)
    lit_KVU, outliers = _outliers(found, sample_KVU, lines)
    yield from outliers
    yield from _saturated(found, lit_KVU, lines)
    level_VU = _mean(lit_KVU)
    dark_VU = _dark(found, level_VU) & ~marked_VU
    if dark_VU.any():
        yield (
            f"{_pixels(dark_VU)} dark in all patterns, between others that are lit: dead, or a gap of the detector; "
            f"{paste(dark_VU, lines)}"
        )
        level_VU = np.where(dark_VU, np.nan, level_VU)
    hot_VU = _hot(found, lit_KVU, level_VU)
    if hot_VU.any():
        around_VU = np.nan_to_num(_support(np.where(hot_VU, np.nan, level_VU), found.wraps))
        least, most = f"{level_VU[hot_VU].min():.3g}", f"{level_VU[hot_VU].max():.3g}"
        yield (
            f"{_pixels(hot_VU)} hot: a mean of {least if least == most else f'{least} to {most}'} over all patterns, "
            f"where nearly all neighbours have less than {around_VU[hot_VU].max():.3g}; {paste(hot_VU, lines)}"
        )
        level_VU = np.where(hot_VU, np.nan, level_VU)
    weak_VU = _weak(found, lit_KVU, level_VU) & ~dark_VU & ~marked_VU
    if weak_VU.any():
        yield f"{_pixels(weak_VU)} much darker than all neighbours in the bright disc; {paste(weak_VU, lines)}"
    if found.repeated and found.whole and len(found.repeated) < found.total - 1:
        num, numbers = len(found.repeated), [number(each) for each in found.repeated]
        what = "1 pattern is equal to the one before" if num == 1 else f"{num} patterns are equal to the one before"
        yield (
            f"{what}, to the last count, as if a frame had been written twice; leave out what was: "
            f"{lines.leave_out(points=numbers) if len(numbers) <= _LISTED else _first(numbers)}"
        )


def marks(found: Pixels, lines: Lines) -> Iterator[str]:
    """Yield what values that counts cannot have look like: markers of pixels, noise around 0, or a mistake."""
    yield from (text for text, _ in _marked(found, lines))


def told_values(found: Pixels) -> str | None:
    """Return how often the values occur that are told to mean "not measured"; None: none is told."""
    said = [f"{_number(value)} is {_share(times, found.values)}" for value, times in found.told.items()]
    return f"bad values   {', '.join(said)}" if said else None


def _share(times: int, values: int) -> str:
    return f"{percent_in_words(times / max(1, values))} of all values" if times else "nowhere"


def impossible_values(found: Pixels) -> Iterator[str]:
    """Yield values that are told to mean "not measured", but that the type of the numbers cannot hold."""
    for value in found.told:
        if not _can_hold(found.dtype, value):
            also = ""
            if found.dtype.kind in "iu" and isfinite(value) and float(value).is_integer():
                wrapped = int(value) % 2 ** (8 * found.dtype.itemsize)
                also = f"; where {_number(value)} was stored as {found.dtype}, it is {wrapped}" if value < 0 else ""
            what = f"{found.dtype}, the type of the patterns, cannot hold"
            yield f"prepare.bad_values has {_number(value)}, which {what}{also}"


def _can_hold(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return isfinite(value) and float(value).is_integer() and limits.min <= value <= limits.max


def _marked(found: Pixels, lines: Lines) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    flags = _flags(found)
    if flags:
        flag_VU = found.low_VU <= max(flags)
        yield _of_values(found, flags, np.where(flag_VU, found.negative_VU, 0), lines), flag_VU
    negative_VU = (found.negative_VU > 0) & (found.low_VU > max(flags, default=-np.inf))
    if negative_VU.any():
        if _are_marks(found):
            values = sorted(found.negative, reverse=True)
            yield _of_values(found, values, found.negative_VU, lines), negative_VU
        elif not found.clips:
            share = found.negative_VU.sum() / max(1, found.seen_VU.sum())
            low = min(each for each in found.negative if each not in flags)
            yield (
                f"{percent_in_words(share)} of all values are negative, down to {low:.4g}, as a noise around 0 has it "
                f"when a dark level was subtracted; {lines.prepare(background=0.0)} sets these to 0 (better is a "
                "detector's own threshold)",
                np.zeros_like(negative_VU),
            )
    for value, times_VU in found.odd_VU.items():
        always = bool((times_VU[times_VU > 0] == found.num).all())
        if not isfinite(value) or always:
            yield _of_values(found, [value], times_VU, lines), times_VU > 0
        else:
            yield (
                f"{_pixels(times_VU > 0)} in some patterns at {_number(value)}, the end of what {found.dtype} can "
                f"hold: saturated, or marked as not measured; they do not count there with "
                f"{lines.prepare(bad_values=[value])}",
                times_VU > 0,
            )


def _flags(found: Pixels) -> list[float]:
    """Return values that some pixels have in all frames, far below a noise around 0 that others have."""
    fixed_VU = (found.low_VU == found.high_VU) & (found.low_VU < 0) & (found.negative_VU == found.num)
    noise_VU = (found.negative_VU > 0) & ~fixed_VU
    if found.num < 8 or not fixed_VU.any() or noise_VU.sum() <= _NOISY * found.used_VU.sum():
        return []
    lowest = float(found.low_VU[noise_VU].min())
    return sorted({each for each in found.low_VU[fixed_VU].tolist() if each < _FAR * lowest}, reverse=True)


def _are_marks(found: Pixels) -> bool:
    """Return whether negative values mark pixels: whole numbers, or a few values that pixels have in all frames.

    Where a dark level was subtracted, many pixels are negative, each in some frames only.
    """
    negative_VU = found.negative_VU > 0
    always = float((found.negative_VU[negative_VU] == found.num).mean())
    if found.num > 1 and negative_VU.sum() > _NOISY * found.used_VU.sum() and always < 0.5:
        return False
    if found.dtype.kind == "i":
        return True
    whole = all(value.is_integer() for value in found.negative)
    return len(found.negative) <= 4 and (whole or always > 0.9)


def _of_values(found: Pixels, values: list[float], times_VU: NDArray[np.int64], lines: Lines) -> str:
    there_VU = times_VU > 0
    always = int((times_VU == found.num).sum())
    named = " or ".join(_number(value) for value in values[:6]) + (" or …" if len(values) > 6 else "")
    when = f"in all of {found.num} patterns" if always == there_VU.sum() else f"{always} of them in all patterns"
    return (
        f"{_pixels(there_VU)} {named}, {when}, which is no count: it marks what was not measured (gaps between "
        f"modules, dead or saturated pixels); these pixels do not count with {lines.prepare(bad_values=values)}"
    )


def _stuck(found: Pixels, lines: Lines) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield pixels that have one value in all frames, which is not 0."""
    if found.num < 8:
        return
    fixed_VU = (found.low_VU == found.high_VU) & (found.high_VU > 0) & (found.seen_VU == found.num)
    for times_VU in found.odd_VU.values():
        fixed_VU &= times_VU == 0
    alive_VU = (found.low_VU < found.high_VU) & (found.seen_VU > 0)
    if not fixed_VU.any() or fixed_VU.sum() > 0.2 * alive_VU.sum():
        return  # patterns that are all alike are another matter
    top = float(found.high_VU[alive_VU].max())
    for value in sorted(set(found.high_VU[fixed_VU].tolist()), reverse=True)[:_DISTINCT]:
        these_VU = fixed_VU & (found.high_VU == value)
        if value > top:
            yield _of_values(found, [value], np.where(these_VU, found.num, 0), lines), these_VU
            fixed_VU &= ~these_VU
    if fixed_VU.any():
        line = paste(fixed_VU, lines)
        yield f"{_pixels(fixed_VU)} stuck: each has one and the same value in all patterns; {line}", fixed_VU


def _saturated(found: Pixels, sample_KVU: NDArray[np.float32], lines: Lines) -> Iterator[str]:
    """Yield whether values pile up at the highest of all."""
    if not found.whole or np.isnan(sample_KVU).all():
        return
    top = float(np.nanmax(sample_KVU))
    at_top = int((sample_KVU == top).sum())
    near = np.unique(sample_KVU[(sample_KVU > 0.8 * top) & (sample_KVU < top)], return_counts=True)[1]
    if top >= 50 and at_top >= 10 and at_top > 3 * (near.max() if len(near) else 0):
        pixels_VU = (sample_KVU == top).any(axis=0)
        yield (
            f"{_pixels(pixels_VU)} in some patterns at {_number(top)}, the highest value of all, which {at_top} values "
            "have, many times as many as any value near it: saturated; they do not count there with "
            f"{lines.prepare(bad_above=top - 1)}"
        )


def _outliers(found: Pixels, sample_KVU: NDArray[np.float32], lines: Lines) -> tuple[NDArray[np.float32], list[str]]:
    """Return the sample without single values that no light can have made, and what to say about them."""
    typical_VU = _median(sample_KVU)
    level = float(np.nanmax(_support(typical_VU, found.wraps))) if np.isfinite(typical_VU).any() else 0.0
    if not level > 0:
        return sample_KVU, []
    bright_VU = typical_VU > 0.5 * level
    with np.errstate(invalid="ignore"):
        dense = float((sample_KVU[:, bright_VU] > 0.25 * level).mean()) > 0.5
        reach = 6 * level + (10 * np.sqrt(level) + 10 if found.whole else 0.0)
        high_KVU = sample_KVU > reach
    if not dense or not high_KVU.any():
        return sample_KVU, []
    # A pixel that is high in more than half of the patterns is hot, not hit.
    hit_KVU = high_KVU & (typical_VU <= reach)
    # There must be a gap between light and outliers: few electrons make a few high values, too.
    light = float(np.nanmax(np.where(high_KVU, np.nan, sample_KVU)))
    higher = np.concatenate([[light], np.sort(sample_KVU[hit_KVU])])
    jumps = np.flatnonzero(higher[1:] > _BEYOND * higher[:-1])
    if not len(jumps):
        return sample_KVU, []
    hit_KVU &= sample_KVU > higher[jumps[0]]
    for place in np.flatnonzero(hit_KVU.any(axis=(1, 2))):
        support_VU = _support(sample_KVU[place], found.wraps)
        hit_KVU[place] &= sample_KVU[place] > _HOT * np.nan_to_num(support_VU)
    num = int(hit_KVU.sum())
    if num < 1:
        return sample_KVU, []
    hits = sample_KVU[hit_KVU]
    clean_KVU = np.where(hit_KVU, np.nan, sample_KVU)
    rest = float(higher[jumps[0]])
    border = float(f"{np.sqrt(rest * float(hits.min())):.2g}")
    of = int(hit_KVU.any(axis=(1, 2)).sum())
    return clean_KVU, [
        f"{num} single values in {of} of {len(sample_KVU)} patterns that were looked at are outliers, "
        f"{_number(float(hits.min()))} and more where the brightest light is "
        f"{rest:.3g}: hit by cosmic rays, or flagged; they do not count with {lines.prepare(bad_above=border)}"
    ]


def _hot(found: Pixels, sample_KVU: NDArray[np.float32], level_VU: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return pixels that are much brighter than nearly all of their neighbours."""
    spread_VU = _spread(sample_KVU) / np.sqrt(max(1, len(sample_KVU)))
    total = float(np.nansum(level_VU))
    beam_VU = np.zeros(level_VU.shape, bool)
    near = [(np.arange(-2, 3) + at) % size for at, size in zip(found.beam, level_VU.shape, strict=True)]
    beam_VU[np.ix_(*near)] = True
    hot_VU = np.zeros(level_VU.shape, bool)
    left_VU = level_VU.copy()
    for _ in range(4):
        support_VU = np.maximum(_support(left_VU, found.wraps), 0)
        highest = float(np.nanmax(support_VU)) if np.isfinite(support_VU).any() else 0.0
        nearest_VU = np.maximum(_support(left_VU, found.wraps, 1), 0)
        with np.errstate(invalid="ignore"):
            certain_VU = _SURE * spread_VU + _HARMS * total
            new_VU = left_VU - _HOT * support_VU > certain_VU
            if (support_VU > 0.5 * highest).sum() >= 20:  # a disc so wide that no pixel of it stands alone
                new_VU |= (
                    (left_VU > 2 * nearest_VU) & (left_VU - 2 * nearest_VU > certain_VU) & (left_VU > 0.2 * highest)
                )
            new_VU |= _in_cluster(found, left_VU, certain_VU)
            # The direct beam itself may be hardly wider than a pixel.
            wide = (support_VU > 0.5 * highest).sum() >= 20
            new_VU &= ~beam_VU | (wide & (left_VU > _SURELY_HOT * nearest_VU))
        if not new_VU.any():
            break
        hot_VU |= new_VU
        left_VU[new_VU] = -np.inf  # known to shed no light on their neighbours
        total = float(left_VU[np.isfinite(left_VU)].sum())
    return hot_VU


def _in_cluster(found: Pixels, left_VU: NDArray[np.float64], certain_VU: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return hot pixels that have three hot neighbours: brighter than all light that five neighbours share."""
    support_VU = np.maximum(_support(left_VU, found.wraps, 3), 0)
    shared = float(np.nanmax(np.maximum(_support(left_VU, found.wraps, 4), 0)))
    in_cluster_VU: NDArray[np.bool_] = (left_VU - _HOT * support_VU > certain_VU) & (left_VU > 2 * shared)
    return in_cluster_VU


def _dark(found: Pixels, level_VU: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return pixels that never saw light between others that did, within a few pixels on both sides."""
    unlit_VU = (found.high_VU <= 0) & found.used_VU & (found.seen_VU > 0)
    if not unlit_VU.any() or not np.isfinite(level_VU).any():
        return np.zeros(unlit_VU.shape, bool)
    least = 100.0 * _quantum(found, level_VU) / found.num
    if not found.whole:
        least = max(least, 1e-2 * float(np.nanmax(level_VU)))
    # A hot pixel alone is no light, so one of its neighbours must be lit too.
    shared_VU = np.fmin(level_VU, _support(level_VU, found.wraps, 1))
    lit_VU = np.nan_to_num(shared_VU) > least
    between = [np.zeros(unlit_VU.shape, bool) for _ in range(2)]
    for along in (0, 1):
        sides = []
        for towards in (1, -1):
            reached_VU = np.zeros(unlit_VU.shape, bool)
            for distance in range(1, min(_GAP, unlit_VU.shape[along] - 1) + 1):
                reached_VU |= _moved(lit_VU, along, towards * distance)
            sides.append(reached_VU)
        between[along] = sides[0] & sides[1]
    dark_VU = unlit_VU & (between[0] | between[1])
    rest_VU = unlit_VU | ~found.used_VU  # a gap goes on where there is too little light to tell
    dark_VU |= unlit_VU & (rest_VU.all(axis=1) & (dark_VU.sum(axis=1) > 2))[:, None]
    dark_VU |= unlit_VU & (rest_VU.all(axis=0) & (dark_VU.sum(axis=0) > 2))
    return dark_VU


def _weak(found: Pixels, sample_KVU: NDArray[np.float32], level_VU: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return pixels of a wide bright disc that are much darker than all of their neighbours but one."""
    support_VU = _support(level_VU, found.wraps)
    highest = float(np.nanmax(support_VU)) if np.isfinite(support_VU).any() else 0.0
    if not highest > 0 or (support_VU > 0.5 * highest).sum() < 20:
        return np.zeros(level_VU.shape, bool)
    darkest_VU = -_support(-level_VU, found.wraps, 1)
    # As many counts as its neighbours have would vary by this much.
    noise_VU = np.sqrt(_quantum(found, level_VU) * np.maximum(darkest_VU, 0) / max(1, len(sample_KVU)))
    with np.errstate(invalid="ignore"):
        found_VU: NDArray[np.bool_] = (
            (level_VU < 0.3 * darkest_VU)
            & (darkest_VU > 0.2 * highest)
            & (0.3 * darkest_VU - level_VU > _SURE * noise_VU)
        )
    return found_VU


def _quantum(found: Pixels, level_VU: NDArray[np.float64]) -> float:
    """Return what one count is at most: Poisson noise has a variance of the mean times that, the object adds to it."""
    lit_VU = np.isfinite(level_VU) & (level_VU > 0.1 * np.nanmax(level_VU))
    if not lit_VU.any():
        return 1.0
    ratio = float(np.median(np.square(_spread(found.sample_KVU)[lit_VU]) / level_VU[lit_VU]))
    return max(ratio, 1.0) if found.whole else ratio


# ---- neighbours -----------------------------------------------------------------------------------------------------


def _support(level_VU: NDArray[np.floating], wraps: bool, skipped: int = _SUPPORT) -> NDArray[np.float64]:
    """Return the brightest neighbour of each pixel after ``skipped`` brighter ones.

    A neighbour that is not known (NaN, or beyond the detector) is taken to be one of the brighter ones, as long as
    another is left.
    """
    level_VU = np.asarray(level_VU, np.float64)
    padded = np.pad(level_VU, 1, mode="wrap") if wraps else np.pad(level_VU, 1, constant_values=np.nan)
    height, width = level_VU.shape
    around_8VU = np.stack(
        [padded[1 + v : 1 + v + height, 1 + u : 1 + u + width] for v in (-1, 0, 1) for u in (-1, 0, 1) if v or u]
    )
    unknown_VU = np.isnan(around_8VU).sum(axis=0)
    descending_8VU = -np.sort(-around_8VU, axis=0)  # NaN stands last
    place_VU = np.clip(skipped - unknown_VU, 0, None)
    chosen_VU: NDArray[np.float64] = np.take_along_axis(descending_8VU, place_VU[None], axis=0)[0]
    return chosen_VU


def _moved(values_VU: NDArray[np.bool_], along: int, distance: int) -> NDArray[np.bool_]:
    """Return an array moved along an axis, without wrapping around."""
    moved_VU = np.roll(values_VU, distance, axis=along)
    lost = slice(0, distance) if distance > 0 else slice(distance, None)
    moved_VU[(lost, slice(None)) if along == 0 else (slice(None), lost)] = False
    return moved_VU


def _mean(sample_KVU: NDArray[np.float32]) -> NDArray[np.float64]:
    there_VU = np.isfinite(sample_KVU).sum(axis=0)
    sum_VU = np.nansum(sample_KVU, axis=0, dtype=np.float64)
    return np.asarray(np.where(there_VU > 0, sum_VU / np.maximum(there_VU, 1), np.nan))


def _spread(sample_KVU: NDArray[np.float32]) -> NDArray[np.float64]:
    mean_VU = _mean(sample_KVU)
    return np.asarray(np.sqrt(np.nan_to_num(_mean(np.square(sample_KVU - mean_VU.astype(np.float32))))))


def _median(sample_KVU: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the median over frames; NaN where a pixel never counts."""
    ordered_KVU = np.sort(sample_KVU, axis=0)  # NaN stands last
    middle_VU = np.maximum(np.isfinite(sample_KVU).sum(axis=0) - 1, 0) // 2
    return np.asarray(np.take_along_axis(ordered_KVU, middle_VU[None], axis=0)[0], np.float64)


# ---- words ----------------------------------------------------------------------------------------------------------


def paste(pixels_VU: NDArray[np.bool_], lines: Lines) -> str:
    """Return the line of a recipe that marks pixels as bad, whole rows and columns as such."""
    left_VU = pixels_VU.copy()
    rows = np.flatnonzero(left_VU.all(axis=1)).tolist()
    columns = np.flatnonzero(left_VU.all(axis=0)).tolist()
    left_VU[rows] = False
    left_VU[:, columns] = False
    single = np.argwhere(left_VU).tolist()
    if len(single) > _LISTED:
        return "mark them in an array of the file and name it: prepare.mask = …; the first are " + str(single[:8])[1:-1]
    return f"leave them out: {lines.prepare(bad_rows=rows, bad_columns=columns, bad_pixels=[*map(tuple, single)])}"


def _pixels(pixels_VU: NDArray[np.bool_]) -> str:
    num = int(pixels_VU.sum())
    return "1 pixel is" if num == 1 else f"{num} pixels are"


def _number(value: float) -> str:
    return str(int(value)) if isfinite(value) and float(value).is_integer() and abs(value) < 1e15 else f"{value!r}"


def _first(points: list[int]) -> str:
    return f"the first are {str(points[:20])[1:-1]}"
