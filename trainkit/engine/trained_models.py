"""Builds trained models from checkpoints alone, without their training data.

Of the recipe in a checkpoint only the tables that a prediction needs are read, so that a package that merely logged the
training need not be installed. Paths in it are not looked at: they are those of another machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import tomli_w
import torch
from torch import nn
from xxhash import xxh3_128

from trainkit.checkpoint.content import trained_weights
from trainkit.contracts import Component, Data, Inference, Member, Model, Predictor
from trainkit.engine.devices import autocast_of
from trainkit.engine.saved_recipe import other_packages, with_packages
from trainkit.errors import CheckpointError, RecipeError, blame
from trainkit.recipe.layers import merge
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.references import interpolate
from trainkit.recipe.root import RunSettings
from trainkit.recipe.rules import missing_modules
from trainkit.recipe.source import Layer, read, read_settings
from trainkit.recipe.structure import Structurer
from trainkit.recipe.tables import to_tables

if TYPE_CHECKING:
    from trainkit.contracts import Batch, Outputs
    from trainkit.engine.trained_checkpoints import Ensemble
    from trainkit.recipe.structure import AllowCode

_PARTS: Mapping[str, type] = {"data": Data, "model": Model, "inference": Inference, "run": RunSettings}
_FORMER = {"model": ("init_from", "init_from_skip")}
"""Settings of older versions that concerned the beginning of a training alone."""
_CHANGEABLE = ("predict", "data", "model", "inference")


@attrs.frozen
class LoadedMembers:
    """What predicts.

    Attributes:
        members: The models.
        weights: Digest of the weights of each, and of all else that decides what it gives.
        settings: How they predict.
        trained_on: The settings of the training data of each, and the seed of its run.
    """

    members: tuple[Member, ...]
    weights: tuple[str, ...]
    settings: Predictor
    trained_on: tuple[tuple[Data, int], ...]


def load_members(ensemble: Ensemble, sets: Sequence[str], device: torch.device, allow_code: AllowCode) -> LoadedMembers:
    """Build the models of checkpoints and load their weights.

    Args:
        ensemble: The checkpoints.
        sets: Changes to the settings, in the form ``predict.key=value``.
        device: The device that the models are brought to.
        allow_code: Which classes that a recipe names as ``module:Class`` may be imported.

    Raises:
        RecipeError: The settings are wrong, or nothing is predicted from such data.
        CheckpointError: A checkpoint lacks what is needed.
    """
    members, weights, trained_on = [], [], []
    settings: Predictor | None = None
    for file, saved in ensemble.files:
        parts = _parts(file, saved, ensemble.settings, sets, allow_code)
        members.append(_member(file, saved, parts, device))
        weights.append(_digest(saved, parts))
        trained_on.append((parts["data"], parts["run"].seed))
        if settings is None:
            settings = parts["predict"]
        elif type(settings) is not type(parts["predict"]):
            raise CheckpointError(f"{file} and {members[0].name} do not predict the same kind of thing")
    assert settings is not None
    return LoadedMembers(tuple(members), tuple(weights), settings, tuple(trained_on))


def read_parts(file: Path, saved: Mapping[str, Any], allow_code: AllowCode) -> dict[str, Any]:
    """Return the settings of data, model, inference and run in a checkpoint's recipe, by table.

    Args:
        file: The checkpoint.
        saved: Its content.
        allow_code: Which classes that the recipe names as ``module:Class`` may be imported.

    Raises:
        RecipeError: The recipe cannot be used here, for example since a package is missing.
    """
    return _parts(file, saved, ({}, ""), (), allow_code, predicts=False)


def build_model(file: Path, saved: Mapping[str, Any], parts: Mapping[str, Any]) -> tuple[Any, nn.Module]:
    """Return the stand-in for the training data, and the model with its trained weights.

    Args:
        file: The checkpoint.
        saved: Its content.
        parts: Settings of data and model.

    Raises:
        CheckpointError: The checkpoint lacks what is needed.
    """
    if saved.get("facts") is None:
        raise CheckpointError(
            f"{file} holds no facts of the training data, so its model cannot be built without the data: an older "
            "trainkit wrote it, or the data has none. Resume the run for an epoch with this version to add them"
        )
    try:
        data = parts["data"].recall(saved["facts"])
        model = parts["model"].build(data)
    except Exception as error:
        blame(error, f"{file}: the model, in build")
    try:
        model.load_state_dict(trained_weights(saved))
    except Exception as error:  # a model's own load_state_dict may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{file}: its weights do not fit the model that its recipe describes, with the versions installed here: "
            f"{reason}"
        ) from error
    return data, model


def _member(file: Path, saved: Mapping[str, Any], parts: Mapping[str, Any], device: torch.device) -> Member:
    data, model = build_model(file, saved, parts)
    model = _InPrecision(model, parts["run"].precision, device).to(device).eval()
    return Member(str(file), model.requires_grad_(False), data, parts["inference"])


class _InPrecision(nn.Module):
    """A model that computes in the precision in which it was trained and evaluated."""

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._autocast = autocast_of(precision, device)

    def forward(self, batch: Batch) -> Outputs:
        with self._autocast():
            outputs: Outputs = self.model(batch)
            return outputs


def _digest(saved: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return a digest of all that decides what a model gives: its weights, its settings, and the facts of its data."""
    settings = [to_tables(parts["model"]), to_tables(parts["inference"]), parts["run"].precision, saved["facts"]]
    digest = xxh3_128(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(trained_weights(saved).items()):
        digest.update(f"\0{name} ".encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _parts(
    file: Path,
    saved: Mapping[str, Any],
    brought: tuple[Mapping[str, Any], str],
    sets: Sequence[str],
    allow_code: AllowCode,
    *,
    predicts: bool = True,
) -> dict[str, Any]:
    """Return the settings of the recipe in a checkpoint that a prediction needs, by table.

    Args:
        file: The checkpoint.
        saved: Its content.
        brought: Settings of [predict] that an ensemble brings along, and the name of their source.
        sets: Changes to the settings.
        allow_code: Which classes that the recipe names as ``module:Class`` may be imported.
        predicts: Whether the settings of [predict] are needed.
    """
    source = f"the recipe in {file}"
    changes, found = read_settings(sets)
    for key in changes.tree:
        if key not in _CHANGEABLE:
            origin = changes.origins[key,]
            tables = ", ".join(f"{each}.…" for each in _CHANGEABLE)
            found.append(Finding(f"has no effect on a prediction; only {tables} can be set", (key,), origin=origin))
    whole = read(with_packages(saved["recipe"], saved["components"]), source, Path.cwd(), resolved=True)
    needed = {
        name: {key: value for key, value in table.items() if key not in _FORMER.get(name, ())}
        for name, table in whole.tree.items()
        if name in (*_PARTS, "predict") and isinstance(table, Mapping)
    }
    layer = Layer(needed, whole.origins)
    if brought[0]:
        layer = merge(layer, read(tomli_w.dumps({"predict": brought[0]}), brought[1], Path.cwd(), resolved=True))
    layer, unknown = interpolate(merge(layer, changes))
    found += [each for each in unknown if each.where[0] != "data"]  # such as the folder of the training data
    texts = {where: origin.text for where, origin in layer.origins.items() if origin.text is not None}
    structurer = Structurer(allow_code, texts)
    parts = {name: structurer.value(layer.tree.get(name, {}), kind, (name,)) for name, kind in _PARTS.items()}
    if predicts and not structurer.findings:
        table = layer.tree.get("predict", {})
        usual = type(parts["data"]).predictor
        if usual is None and "use" not in table:
            raise RecipeError(
                f"{file}: nothing is predicted with {type(parts['data']).__name__}: its models have no new inputs. "
                "Another component can be named with --set predict.use=…"
            )
        parts["predict"] = structurer.value({"use": usual} | table, Predictor, ("predict",))
    found += structurer.findings
    if not found:
        found += [each for name, part in parts.items() if isinstance(part, Component) for each in _lacks(name, part)]
    if found:
        mistakes = InvalidRecipe(each.located(layer.origins, source) for each in found)
        news = list(other_packages(saved["components"]))
        unknown = [each for each in found if each.message == "unknown key" and each.where[0] != "predict"]
        if not sets and (news or unknown):
            advice = (
                f"{source} cannot be used with what is installed here. If a setting does not matter, take it away with "
                "--set 'drop=[\"some.key\"]'"
            )
            raise RecipeError("\n".join([*news, advice, str(mistakes)])) from mistakes
        raise mistakes
    return parts


def _lacks(name: str, part: Component) -> list[Finding]:
    return list(missing_modules((name,), part))
