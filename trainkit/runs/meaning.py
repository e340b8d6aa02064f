"""Tells whether the monitored values of two runs mean the same, so that one may be called better than the other.

A value depends on the data that are evaluated and on what computes it: losses, metrics, inference, hooks. If one of
these differs, or nobody can tell whether it does, the values are not ranked. What the runs are compared *for*, such as
the model, the optimizer, learning rates or a moving average of the weights, may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from trainkit.engine.changes import Redefinitions, setting_changes, without_moves
from trainkit.engine.fingerprint import other_data
from trainkit.engine.resume_report import other_facts
from trainkit.engine.saved_recipe import resolve_saved
from trainkit.errors import TrainkitError
from trainkit.recipe.references import readers
from trainkit.recipe.resolve import Resolved, write
from trainkit.runs.record import RunRecord
from trainkit.runs.settings import differing
from trainkit.words import some_of

_COMPUTE = ("data", "losses", "metrics", "inference", "hooks")
"""Tables of a recipe that can change what a value means."""


def why_not_comparable(one: RunRecord, other: RunRecord) -> list[str]:
    """Return why the monitored values of two runs do not mean the same, or may not; [] if they do."""
    first, second = one.monitor, other.monitor
    if first is None or second is None:
        return [f"{(one if first is None else other).folder}: its [monitor] cannot be read"]
    if first != second:
        return [f"what is monitored differs: {first.metric} ({first.mode}) and {second.metric} ({second.mode})"]
    return why_another_meaning(one, other, first.metric)


def why_another_meaning(one: RunRecord, other: RunRecord, name: str) -> list[str]:
    """Return why a value does not mean the same in two runs, or may not; [] if it does.

    Args:
        one: A run.
        other: Another run.
        name: The value's full name, for example "val/loss".
    """
    if name.startswith("lr/"):
        return []
    data, more = data_of(one), data_of(other)
    if data is None or more is None:
        run = one if data is None else other
        return [f"{run.folder} does not say with which data it was computed (it has no checkpoint)"]
    try:
        reasons = _by_declarations(one, other, name, data, more)
    except (TrainkitError, ValueError) as error:
        reasons = _by_text(one, other, str(error).splitlines()[0])
    return [*reasons, *_of_environment(one, other), *_of_seed(one, other, name, data, more)]


def data_of(run: RunRecord) -> Mapping[str, Any] | None:
    """Return ``fingerprint`` and ``facts`` of the data of a run's last start; None: they are not recorded."""
    known = run.starts[-1].get("data") if run.starts else None
    if isinstance(known, Mapping) and isinstance(known.get("fingerprint"), Mapping):
        return known
    header = run.newest_header
    if header is None or not isinstance(header.get("fingerprint"), Mapping):
        return None
    return {"fingerprint": header["fingerprint"], "facts": header.get("facts")}


def _by_declarations(
    one: RunRecord, other: RunRecord, name: str, data: Mapping[str, Any], more: Mapping[str, Any]
) -> list[str]:
    first, second = resolved_of(one), resolved_of(other)
    changes = setting_changes(write(first.tree), second)
    changes = without_moves(changes, second.recipe, data["fingerprint"], more["fingerprint"])
    changes = [each for each in changes if each.where[0] != "ema"]  # the weights that a run yields are its own affair
    facts = (each.get("facts") if isinstance(each.get("facts"), Mapping) else None for each in (data, more))
    news = [*other_facts(*facts), *other_data(data["fingerprint"], more["fingerprint"])]
    settings = Redefinitions(changes, (), second.recipe, first.recipe).why(name)
    return [_as_difference(each) for each in (*([] if settings is None else [settings]), *news)]


def _as_difference(change: str) -> str:
    """Return what is said of a change in a resumed run, as a difference between two runs."""
    for said, instead in (("has changed", "differs"), ("have changed", "differ"), (", was ", " and ")):
        change = change.replace(said, instead)
    return change.removeprefix("warning: ")


def _by_text(one: RunRecord, other: RunRecord, why: str) -> list[str]:
    """Compare the tables as they are written, because nothing is known of what their settings mean."""
    tables = [
        {key: value for key, value in run.settings.items() if key.partition(".")[0] in _COMPUTE} for run in (one, other)
    ]
    found = differing(tables)
    return [f"{some_of(found)} differ, and their meaning cannot be looked up ({why})"] if found else []


def _of_environment(one: RunRecord, other: RunRecord) -> Iterator[str]:
    """Yield a reason for each environment variable that decides what values mean, whose value nobody wrote down."""
    for name, key in {**_read_from_environment(one), **_read_from_environment(other)}.items():
        yield f"{key} reads the environment variable {name}, which may have had another value"


def _read_from_environment(run: RunRecord) -> dict[str, str]:
    found = {}
    for key, value in run.settings.items():
        if key.partition(".")[0] in _COMPUTE and not key.endswith((".path", ".folder")):
            for _, name in readers(value):
                found[name] = key
    return found


def _of_seed(
    one: RunRecord, other: RunRecord, name: str, data: Mapping[str, Any], more: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a reason if the runs have other seeds, and their data do not say which items they hold out."""
    if name.startswith("train/"):
        return
    seeds = [run.settings.get("run.seed") for run in (one, other)]
    is_known = all(isinstance(seed, int) for seed in seeds)
    says = all(any(not key.startswith("data.") for key in each["fingerprint"]) for each in (data, more))
    if says or (is_known and seeds[0] == seeds[1]):
        return
    yield "run.seed differs, and the data do not say whether the same items were held out"


@lru_cache(maxsize=1024)
def _resolved(text: str, components: str) -> Resolved:
    return resolve_saved(text, json.loads(components), "the run's recipe", (), False)


def resolved_of(run: RunRecord) -> Resolved:
    """Return the recipe of a run as settings of the components that are installed now.

    Raises:
        TrainkitError: It cannot be read, or names components that are not installed.
        ValueError: It is damaged.
    """
    used = run.starts[-1].get("components") if run.starts else None
    return _resolved(run.recipe or "", json.dumps(used if isinstance(used, list) else []))


def blocks(runs: Sequence[RunRecord]) -> list[tuple[list[RunRecord], list[str]]]:
    """Return runs in groups within which monitored values mean the same.

    Returns:
        The runs of each group, and why they are not ranked with those of the first group.
    """
    found: list[tuple[list[RunRecord], list[str]]] = []
    of_signature: dict[str, list[RunRecord]] = {}
    for run in runs:
        signature = _signature(run)
        if signature is not None and signature in of_signature:
            of_signature[signature].append(run)
            continue
        reasons: list[str] = []
        for number, (members, _) in enumerate(found):
            against = why_not_comparable(members[0], run)
            if not against:
                members.append(run)
                break
            reasons = reasons if number else against
        else:
            members = [run]
            found.append((members, reasons))
        if signature is not None:
            of_signature[signature] = members
    return found


def _signature(run: RunRecord) -> str | None:
    """Return a text that is equal only for runs whose values mean the same; None: there is none."""
    data = data_of(run)
    if run.monitor is None or data is None or _read_from_environment(run):
        return None
    says = any(not key.startswith("data.") for key in data["fingerprint"])
    tables = {key: value for key, value in run.settings.items() if key.partition(".")[0] in _COMPUTE}
    seed = None if says else run.settings.get("run.seed")
    return repr((run.monitor, sorted(tables.items()), seed, sorted(data["fingerprint"].items()), data.get("facts")))
