"""The one family of errors that a person may see; each says what is wrong, where, and what to do next.

The command line prints the message alone, never a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class TrainkitError(Exception):
    """A mistake or a condition that a person can mend. The message is all that they see."""

    exit_code = 1


class RecipeError(TrainkitError):
    """The recipe, or something said on the command line, is wrong; nothing was started."""

    exit_code = 2


class ComponentError(RecipeError):
    """A component is unknown, ambiguous, or cannot be imported."""


class DataError(TrainkitError):
    """A data file is missing, damaged, or does not fit the settings."""


class CheckpointError(TrainkitError):
    """A checkpoint is missing, damaged, or does not fit the run."""


class DeviceError(TrainkitError):
    """The device has too little memory, or cannot do what it is asked."""


class PartError(TrainkitError):
    """A part of a run (a hook, loss, metric, model, data, …) raised something that is no message for a person.

    Attributes:
        log: The file that has the traceback; None: no file has it.
    """

    log: Path | None = None


class NonFiniteError(TrainkitError):
    """A loss or a parameter is NaN or infinite."""


def blame(error: Exception, where: str) -> NoReturn:
    """Raise an exception of a part of the run again, so that its message names the part. Call it in ``except``.

    A message for a person (`TrainkitError`) is raised as it is.

    Args:
        error: What the part raised.
        where: Name of the part in the recipe and what it was doing: "hooks.ema, in on_step_end".

    Raises:
        PartError: With the part, and the exception's own words.
    """
    if isinstance(error, TrainkitError):
        raise
    raise PartError(f"{where}: {type(error).__name__}: {error}") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return what follows an unknown name in a message: the nearest known one, else all of them.

    Args:
        word: What was written.
        known: What could have been written.

    Example:
        >>> did_you_mean("cosin", ["cosine", "none"])
        'did you mean "cosine"?'
        >>> did_you_mean("x", ["cosine", "none"])
        'known here: cosine, none'
    """
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(names)}" if names else "nothing is known here"
