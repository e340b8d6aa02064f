"""The errors that users see; each message says what is wrong, where, and what to do next.

The command line prints only the message, never a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LONGEST_COMPARED = 100
_MOST_COMPARED = 5000
_LONGEST_LIST = 3000


class TrainkitError(Exception):
    """Base class of all errors that a user can fix. The user sees only the message."""

    exit_code = 1


class RecipeError(TrainkitError):
    """The recipe or the command line is wrong; nothing was started."""

    exit_code = 2


class ComponentError(RecipeError):
    """A component is unknown, ambiguous, or cannot be imported."""


class DataError(TrainkitError):
    """A data file is missing, damaged, or does not fit the settings."""


class CheckpointError(TrainkitError):
    """A checkpoint is missing, damaged, or does not fit the run."""


class DeviceError(TrainkitError):
    """The device has too little memory, or does not support an operation."""


class ProcessError(TrainkitError):
    """Another process of the run failed."""


class LostProcessError(ProcessError):
    """Another process of the run ended without a word, or did not answer in time."""


class PartError(TrainkitError):
    """A part of a run (a hook, loss, metric, model, data, …) raised an exception that is not a `TrainkitError`.

    Attributes:
        log: The file that holds the traceback; None: no file does.
    """

    log: Path | None = None


class DivergedError(TrainkitError):
    """A training ran away with its settings: a search of weights leaves that weight out, and goes on."""


class NonFiniteError(DivergedError):
    """A loss, a gradient or a parameter is NaN or infinite.

    Attributes:
        epoch_step: The step of the epoch, counted from 0, whose value it is; None: of no step, or not known.
    """

    epoch_step: int | None = None


def exit_in_words(error: SystemExit) -> str:
    """Return what a part did that called ``sys.exit``."""
    return f"called sys.exit({error.code!r}), which ends the whole program"


def blame(error: Exception, where: str) -> NoReturn:
    """Raise the exception of a part of the run again, with a message that names the part. Call it in ``except``.

    A `TrainkitError` is raised unchanged.

    Args:
        error: What the part raised.
        where: Name of the part in the recipe and what it was doing, for example "hooks.ema, in on_step_end".

    Raises:
        PartError: The message consists of ``where`` and the type and message of ``error``.
    """
    if isinstance(error, TrainkitError):
        raise
    raise PartError(f"{where}: {type(error).__name__}: {error}") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint for a message about an unknown name: the nearest known name if there is one, else all of them.

    Args:
        word: The unknown name.
        known: The known names.

    Example:
        >>> did_you_mean("cosin", ["cosine", "none"])
        'did you mean "cosine"?'
        >>> did_you_mean("x", ["cosine", "none"])
        'known here: cosine, none'
    """
    names = sorted(known)
    # Comparing takes the product of the lengths: nobody mistypes words that are this long, or one of so many.
    comparable = [each for each in names if len(each) <= _LONGEST_COMPARED] if len(names) <= _MOST_COMPARED else []
    near = get_close_matches(word, comparable, n=1, cutoff=0.6) if len(word) <= _LONGEST_COMPARED else []
    if near:
        return f'did you mean "{near[0]}"?'
    text = ", ".join(names)
    shown = text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST]}… ({len(names)} in all)"
    return f"known here: {shown}" if names else "nothing is known here"
