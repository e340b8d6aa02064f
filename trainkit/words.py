"""Formats quantities for messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def bytes_in_words(num_bytes: float) -> str:
    """Return a number of bytes with a unit that suits it.

    Example:
        >>> bytes_in_words(3 * 2**20)
        '3 MiB'
    """
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.3g} KiB"
    return f"{num_bytes / 2**20:.3g} MiB" if num_bytes < 1000 * 2**20 else f"{num_bytes / 2**30:.3g} GiB"


def shape_in_words(shape: Iterable[int]) -> str:
    """Return the lengths of an array's axes as text.

    Example:
        >>> shape_in_words((96, 96, 64))
        '96 × 96 × 64'
    """
    return " × ".join(map(str, shape))


def percent_in_words(share: float) -> str:
    """Return a share in percent, with two digits, or more where there are more before the point.

    Example:
        >>> [percent_in_words(share) for share in (0.0123, 0.123, 0.999, 12.3)]
        ['1.2 %', '12 %', '100 %', '1230 %']
    """
    percent = 100 * share
    return f"{percent:.0f} %" if abs(percent) >= 9.95 else f"{percent:.2g} %"


def number_of(number: int, what: str) -> str:
    """Return a number with its noun in the singular or plural.

    Example:
        >>> number_of(1, "epoch"), number_of(2000, "step")
        ('1 epoch', '2,000 steps')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def after_epochs(number: int) -> str:
    """Return when something happens, as all messages count epochs: by how many are finished.

    Example:
        >>> after_epochs(10), after_epochs(0)
        ('after 10 epochs', 'at the start')
    """
    return f"after {number_of(number, 'epoch')}" if number else "at the start"


def some_of(names: Sequence[str], most: int = 8) -> str:
    """Return the first ``most`` names of a list, and how many there are in all if these are not all.

    Example:
        >>> some_of(["a", "b", "c"], most=2)
        'a, b, … (3 in all)'
    """
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def duration(seconds: float) -> str:
    """Return a duration as text: tenths below ten seconds, seconds below a minute, else hours, minutes and seconds.

    Example:
        >>> duration(4.25), duration(42.4), duration(3723)
        ('4.2 s', '42 s', '1:02:03')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
