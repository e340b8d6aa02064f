"""What ``check --data`` says of a scan: its figures, and what looks wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit import Depth, Problem, Progress, shape_in_words
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import look_at_pixels
from trainkit_ptychography.scans.scan import Recording, check_shapes, checked
from trainkit_ptychography.scans.summary import doubts, summary


def inspect(recording: Recording, batch_size: int, depth: Depth) -> Iterator[str | Problem | Progress]:
    """Yield a summary of a scan, and doubts about it.

    Args:
        recording: The scan.
        batch_size: Patterns in a step.
        depth: With "headers", the values of patterns are not looked at.

    Raises:
        DataError: A run would refuse the scan.
    """
    patterns = recording.intensities_NYX
    if depth == "headers":
        check_shapes(recording)
        yield f"patterns     {patterns.shape[0]} of {shape_in_words(patterns.shape[1:])} pixels"
        yield "not looked at: the counts in the patterns, and what follows from them (check --data looks at all)"
        return
    num = len(patterns)
    yield Progress(0, num, "patterns")
    seen = checked(recording)
    yield from summary(seen, batch_size)
    yield Progress(num // 2, num, "patterns")  # each is read twice
    found = look_at_pixels(patterns, every=True) if isinstance(patterns, PreparedPatterns) else None
    yield from (Problem(each, severity="warning") for each in doubts(seen, found))
