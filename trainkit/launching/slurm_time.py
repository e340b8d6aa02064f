"""Reads and writes time limits as Slurm does."""

from __future__ import annotations

import re

from trainkit.errors import RecipeError
from trainkit.recipe.root import seconds_of

_FORMS = (
    re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?"),
    re.compile(r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)"),
    re.compile(r"(?P<minutes>\d+)"),
)
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def read_time(text: str) -> int:
    """Return the seconds of a time limit, rounded up to whole minutes, as Slurm counts.

    Args:
        text: As Slurm writes it ("HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS", or minutes alone), or as recipes do
            ("4h", "1d12h").

    Raises:
        RecipeError: It is neither, or it is "A:B": Slurm reads that as minutes and seconds, most people as hours and
            minutes.

    Example:
        >>> read_time("04:00:00"), read_time("1-12"), read_time("4h"), read_time("90")
        (14400, 129600, 14400, 5400)
    """
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        one, other = found.groups()
        raise RecipeError(
            f"--time {text} means {int(one)} minutes and {int(other)} seconds to Slurm: write 00:{one:0>2}:{other:0>2} "
            f"if you mean that, {one:0>2}:{other:0>2}:00 if you mean hours and minutes"
        )
    seconds = seconds_of(text) if not text.isdigit() else None
    match = next((match for form in _FORMS if (match := form.fullmatch(text))), None)
    if match is not None:
        parts = {unit: int(number or 0) for unit, number in match.groupdict().items()}
        bounds = {"seconds": 59, "minutes": 59, "hours": 23} if "days" in parts else {"seconds": 59, "minutes": 59}
        over = [unit for unit, most in bounds.items() if parts.get(unit, 0) > most and len(parts) > 1]
        seconds = None if over else sum(number * _UNITS[unit] for unit, number in parts.items())
    if not seconds:
        raise RecipeError(
            f'--time {text} is no time limit: write HH:MM:SS, D-HH:MM:SS, minutes alone, or for example "4h" or "1d12h"'
        )
    return 60 * -(-int(seconds) // 60)


def write_time(seconds: int) -> str:
    """Return a time as Slurm writes it.

    Example:
        >>> write_time(14400), write_time(129600)
        ('04:00:00', '1-12:00:00')
    """
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock
