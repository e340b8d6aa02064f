"""What ``trainkit calibrate`` fitted to held-out items, and whether it holds for a prediction.

    RUN/calibration/calibration.json   settings of [predict] that were fitted, what they were fitted for (digests of the
                                       weights, and other settings of [predict]), and what was measured
    RUN/calibration/cases.csv          what was measured in each case
    RUN/calibration/*.png              pictures of it

RUN is the folder of a run, or that of an ensemble.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from trainkit.contracts import Predictor
from trainkit.errors import DataError
from trainkit.files.reading import read_small
from trainkit.recipe.tables import to_tables
from trainkit.words import some_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainkit.engine.trained_checkpoints import Ensemble
    from trainkit.engine.trained_models import LoadedMembers

FOLDER, FILE = "calibration", "calibration.json"
_FORMAT = 1
_MOST_BYTES = 1 << 24


@attrs.frozen
class Fitted:
    """What was fitted, and for what.

    Attributes:
        predict: Settings of [predict]; empty: none was better than what was there.
        weights: Digest of the weights of each model.
        checkpoints: The names of their files, for messages.
        settings: Settings of [predict] for other values of which the fit does not hold; None: not set.
    """

    predict: Mapping[str, Any]
    weights: tuple[str, ...]
    checkpoints: tuple[str, ...]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the beginning of the content of the file."""
        return {
            "format": _FORMAT,
            "predict": dict(self.predict),
            "fitted_for": {
                "checkpoints": list(self.checkpoints),
                "weights": list(self.weights),
                "predict": dict(self.settings),
            },
        }

    def misfit(self, other: Fitted) -> str | None:
        """Return why this does not hold for another prediction, in words; None: it does.

        Args:
            other: What that prediction is made with.
        """
        if sorted(self.weights) != sorted(other.weights):
            return f"it was fitted for other checkpoints or another [inference]: {some_of(self.checkpoints)}"
        changed = [name for name, value in self.settings.items() if other.settings.get(name) != value]
        shown = [f"{name} is {_shown(other.settings.get(name))}, was {_shown(self.settings[name])}" for name in changed]
        return f"it was fitted for other settings of [predict]: {'; '.join(shown)}" if changed else None


def prediction_of(loaded: LoadedMembers, ensemble: Ensemble, keys: tuple[str, ...] | None = None) -> Fitted:
    """Return what a prediction is made with.

    Args:
        loaded: The models, and how they predict.
        ensemble: Their checkpoints.
        keys: The settings of [predict] that matter; None: all.
    """
    tables = json.loads(json.dumps(to_tables(loaded.settings, None, Predictor)))
    kept = tables if keys is None else {key: tables.get(key) for key in ("use", *keys)}
    return Fitted({}, loaded.weights, tuple(file.name for file, _ in ensemble.files), kept)


def with_fitted_settings(loaded: LoadedMembers, ensemble: Ensemble, say: Callable[[str], None]) -> Predictor:
    """Return how models predict, with what was fitted to their held-out items.

    Args:
        loaded: The models, and how they predict.
        ensemble: Their checkpoints.
        say: Called with a sentence on what was fitted, or why it is not applied.

    Raises:
        DataError: The file of a calibration cannot be read.
    """
    settings = loaded.settings
    if not settings.takes_calibration():
        return settings
    files = [folder / FOLDER / FILE for folder in ensemble.folders]
    there = [file for file in files if file.exists()]
    if not there:
        say("confidence: as the network has it; `trainkit calibrate` fits it to held-out items")
        return settings
    if len(files) > 1:
        say(f"warning: {there[0]} is not applied: several runs are given, and it was fitted for one of them")
        return settings
    fitted = _read(there[0])
    if (why := fitted.misfit(prediction_of(loaded, ensemble))) is not None:
        say(f"warning: {there[0]} is not applied: {why}. Run `trainkit calibrate` for this prediction")
        return settings
    if not fitted.predict:
        say(f"warning: {there[0]} holds nothing to apply: what was fitted was not better on other held-out items")
        return settings
    try:
        calibrated: Predictor = attrs.evolve(cast(Any, settings), **fitted.predict)
    except (TypeError, ValueError, attrs.exceptions.AttrsAttributeNotFoundError) as error:
        raise _unreadable(there[0], error) from error
    say(f"confidence: {', '.join(f'{name} {_shown(value)}' for name, value in fitted.predict.items())}, of {there[0]}")
    return calibrated


def _read(path: Path) -> Fitted:
    """Return what a file says.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = json.loads(read_small(path, "a calibration", _MOST_BYTES))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {_FORMAT}")
        of = content["fitted_for"]
        weights, checkpoints = tuple(of["weights"]), tuple(of["checkpoints"])
        if not all(isinstance(each, str) for each in (*weights, *checkpoints)):
            raise TypeError("a digest and a name are texts")
        return Fitted(dict(content["predict"]), weights, checkpoints, dict(of["predict"]))
    except KeyError as error:
        raise _unreadable(path, f"it lacks {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, why: object) -> DataError:
    return DataError(
        f"{path} cannot be read: {why}. `trainkit calibrate` writes it anew; --temperature none predicts without it"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
