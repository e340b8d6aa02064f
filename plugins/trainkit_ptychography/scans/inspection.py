"""What ``check --data`` says of a scan: its figures, and what looks wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit import Depth, Problem, Progress, shape_in_words
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import look_at_pixels, told_values
from trainkit_ptychography.scans.scan import Recording, check_shapes, checked
from trainkit_ptychography.scans.summary import doubts, summary


def doubt_about_batches(num: int, batch_size: int, validation_fraction: float) -> str | None:
    """Return what is odd about batches that are larger than the patterns that are trained on; None: they are not.

    Args:
        num: Number of patterns.
        batch_size: Patterns in a step.
        validation_fraction: Share of the patterns that is held out.
    """
    num_train = num - (max(1, round(num * validation_fraction)) if validation_fraction > 0 else 0)  # as `hold_out` does
    if batch_size <= num_train or num_train < 1:  # a run refuses to train on none
        return None
    return (
        f"data.batch_size = {batch_size} is more than the {num_train} patterns that are trained on, so an epoch is one "
        "step with all of them: lower it for more steps"
    )


def inspect(
    recording: Recording, batch_size: int, validation_fraction: float, depth: Depth, slices: int = 1
) -> Iterator[str | Problem | Progress]:
    """Yield a summary of a scan, and doubts about it.

    Args:
        recording: The scan.
        batch_size: Patterns in a step.
        validation_fraction: Share of the patterns that is held out.
        depth: With "headers", the values of patterns are not looked at.
        slices: Slices of the object.

    Raises:
        DataError: A run would refuse the scan.
    """
    patterns = recording.intensities_NYX
    too_large = doubt_about_batches(len(patterns), batch_size, validation_fraction)
    of_batches = [Problem(too_large, "batch_size", "warning")] if too_large else []
    if depth == "headers":
        check_shapes(recording)
        yield f"patterns     {patterns.shape[0]} of {shape_in_words(patterns.shape[1:])} pixels"
        yield "not looked at: the counts in the patterns, and what follows from them (check --data looks at all)"
        yield from of_batches
        return
    num = len(patterns)
    yield Progress(0, num, "patterns")
    seen = checked(recording)
    yield from summary(seen, batch_size, slices)
    yield Progress(num // 2, num, "patterns")  # each is read twice
    yield from of_batches
    found = look_at_pixels(patterns, every=True) if isinstance(patterns, PreparedPatterns) else None
    if found is not None and (told := told_values(found)):
        yield told
    yield from (Problem(each, severity="warning") for each in doubts(seen, found))
