"""What a run saves in a checkpoint: each key, with its type and range.

A file with a right digest may still come from another tool or version, or from somebody who means harm. Its content is
therefore held to `Content` before any of it is used. A key that is saved in `engine/every_run/saving.py` is declared
here, with a default if older checkpoints lack it. Keys that are not declared are not used, and not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import optional

from trainkit.checkpoint.file import read
from trainkit.contracts import component
from trainkit.errors import CheckpointError
from trainkit.randomness import check_generator_states
from trainkit.recipe.fields import display_value
from trainkit.recipe.origin import dotted
from trainkit.recipe.structure import Structurer

_MOST = 2**53  # the whole numbers that JSON readers agree on


def _count(least: int = 0) -> Any:
    def check(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
        if not least <= value < _MOST:
            raise ValueError(f"must be at least {least} and below 2^53, got {display_value(value)}")

    return check


def _rate(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"must be a finite number that is not negative, got {value}")


def _clock(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    numbers = list(value) if isinstance(value, list | tuple) else []
    if numbers[3:] == [None]:
        numbers.pop()
    if not 3 <= len(numbers) <= 4 or not all(type(each) is int and 0 <= each < _MOST for each in numbers):
        raise ValueError("must be the epoch and step at which a schedule begins and ends, as whole numbers")


def _tensors(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, list | tuple) or not all(each is None or getattr(each, "ndim", 1) == 0 for each in value):
        raise ValueError("must be a list of scalar tensors")


def _generators(instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, Any]) -> None:
    check_generator_states(value)


@component
class SavedRun:
    """Which run wrote a checkpoint.

    Attributes:
        id: The run's id.
        parent: The checkpoint of another run from which it began.
        recipe: Digest of the resolved recipe.
        variables: Name of an environment variable that the recipe reads -> a mark of its value (`engine.variables`).
    """

    id: str
    parent: Mapping[str, Any] | None = None
    recipe: str = ""
    variables: Mapping[str, str] = attrs.field(factory=dict)


@component
class SavedPart:
    """A component that a run used; see `trainkit.recipe.resolve.UsedComponent`."""

    where: str
    group: str
    use: str
    package: str
    version: str


@component
class SavedParameter:
    """What an optimizer keeps for one parameter.

    Attributes:
        shape: Shape of the parameter.
        state: Name -> value.
    """

    shape: tuple[int, ...]
    state: Mapping[str, Any]


@component
class SavedOptimizer:
    """State of an optimizer.

    Attributes:
        optimizer: Name of its class.
        parameters: Parameter name -> what the optimizer keeps for it.
    """

    optimizer: str
    parameters: Mapping[str, SavedParameter]


@component
class SavedGroupContent:
    """State of a parameter group.

    Attributes:
        stopped_at: The epoch at which a hook stopped it.
        phase: Name of its phase.
        lr: Learning rate from which its schedule starts.
        clock: When its schedule begins and ends; None: it has not started.
        memory: Memory of its schedule.
        parameters: Names of its parameters.
    """

    stopped_at: int | None = attrs.field(default=None, validator=optional(_count()))
    phase: str = ""
    lr: float = attrs.field(validator=_rate)
    clock: Any = attrs.field(validator=optional(_clock))
    memory: Mapping[str, Any]
    parameters: tuple[str, ...]


@component
class SavedMean:
    """A mean over the epoch that was not finished; see `trainkit.state.EpochMean`."""

    values: Any = attrs.field(validator=_tensors)
    sum: float
    count: int = attrs.field(validator=_count())
    must_be_finite: bool


@component
class SavedAverage:
    """The moving average of the weights.

    Attributes:
        model: State of the model with the averaged weights, under the names that its own state has.
        updates: Number of updates that the average covers.
    """

    model: Mapping[str, Any]
    updates: int = attrs.field(validator=_count())


@component
class SavedValues:
    """The values of an epoch; see `trainkit.state.EpochValues`."""

    epoch: int = attrs.field(validator=_count())
    updates: int = attrs.field(validator=_count())
    metrics: Mapping[str, float]


@component
class Content:
    """The content of a checkpoint that a run wrote.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of finished optimizer steps.
        epoch_step: Number of finished steps when the current epoch began.
        skipped: Which finished steps, counted from 0, did not update the parameters.
        steps_per_epoch: Optimizer steps in an epoch.
        evaluated_step: Number of finished steps at the last evaluation; -1: there was none.
        stop_reason: Why the run ends after its current epoch.
        doubts: What makes the result doubtful.
        facts: Facts of the data.
        fingerprint: What tells the data from other data; None in older checkpoints.
        run: Which run wrote the checkpoint.
        recipe: The resolved recipe, as TOML.
        components: The components that the run used.
        conditions: The conditions on which equality to the bit depends.
        generators: States of the global random generators.
        model: State of the model.
        average: The moving average of its weights, which was evaluated in its place; None: there is none. What uses the
            trained model takes `trained_weights`.
        optimizers: Name -> state of an optimizer.
        optimizer: The same in older checkpoints, which had one optimizer.
        groups: Name -> state of a parameter group.
        metrics: The values of the last epoch.
        not_acted_on: With ``validation.beside``, those on which the run acts at the end of this epoch.
        running: Name -> mean over the epoch that was not finished.
        running_of_each: The same for values that processes logged of their own shares of the data: name -> the mean of
            each process.
        parts: Name -> state of another part of the run.
    """

    epoch: int = attrs.field(validator=_count())
    step: int = attrs.field(validator=_count())
    epoch_step: int = attrs.field(validator=_count())
    skipped: tuple[int, ...] = ()
    steps_per_epoch: int = attrs.field(validator=_count(1))
    evaluated_step: int = attrs.field(default=-1, validator=_count(-1))
    stop_reason: str | None = None
    doubts: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None
    fingerprint: Mapping[str, Any] | None = None
    run: SavedRun | None = None
    recipe: str
    components: tuple[SavedPart, ...]
    conditions: Mapping[str, Any]
    generators: Mapping[str, Any] = attrs.field(validator=_generators)
    model: Mapping[str, Any]
    average: SavedAverage | None = None
    optimizers: Mapping[str, SavedOptimizer] | None = None
    optimizer: SavedOptimizer | None = None
    groups: Mapping[str, SavedGroupContent]
    metrics: Mapping[str, float]
    not_acted_on: tuple[SavedValues, ...] = ()
    running: Mapping[str, SavedMean]
    running_of_each: Mapping[str, tuple[SavedMean, ...]] = attrs.Factory(dict)
    parts: Mapping[str, Any]


def read_run(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that a run wrote, whole, undamaged and of the declared form.

    Raises:
        CheckpointError: The file cannot be read, or its content is not that of a run.
    """
    content = read(path)
    check(content, path)
    if content["generators"]["torch"] is None or any(None in mean["values"] for mean in content["running"].values()):
        raise CheckpointError(f"{path} does not hold what a run saves: a tensor is missing")
    return content


def trained_weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of the model with which its values were computed, and which prediction and export use.

    This is the moving average if the run had one (``[ema]``), else the model as it was trained.

    Args:
        content: The content of a checkpoint.
    """
    average = content.get("average")
    weights: Mapping[str, Any] = content["model"] if average is None else average["model"]
    return weights


def check(content: Mapping[str, Any], path: Path) -> None:
    """Make sure that a checkpoint's content is of the declared form.

    Args:
        content: The content; None may stand in place of each tensor (`trainkit.checkpoint.file.read_header`).
        path: The file, for messages.

    Raises:
        CheckpointError: It is not; the message names the keys.
    """
    structurer = Structurer(allow_code=False)
    structurer.settings(content, Content, ())
    wrong = [
        f"{dotted(finding.where)}: {finding.message}" if finding.where else finding.message
        for finding in structurer.findings
        if finding.message != "unknown key"
    ]
    if not wrong:
        wrong = _contradictions(content)
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path} does not hold what a run saves: {'; '.join(wrong[:3])}{more}")


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """Return what in a content contradicts something else in it."""
    wrong = []
    inside = content["step"] - content["epoch_step"]
    if not 0 <= inside <= content["steps_per_epoch"]:
        wrong.append(f"step: {inside} steps of an epoch of {content['steps_per_epoch']} are finished")
    if content.get("evaluated_step", -1) > content["step"]:
        wrong.append("evaluated_step: lies after step")
    skipped = content.get("skipped", ())
    if sorted({*skipped}) != [*skipped] or (skipped and not 0 <= skipped[0] <= skipped[-1] < content["step"]):
        wrong.append("skipped: must be numbers of finished steps, in order")
    if content.get("optimizers") is None and content.get("optimizer") is None:
        wrong.append('"optimizers" is missing')
    return wrong
