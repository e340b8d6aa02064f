"""Sorts every trainable parameter of a built model into exactly one group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainkit.errors import PartError, RecipeError, blame, did_you_mean
from trainkit.recipe.group_epochs import declared_groups
from trainkit.recipe.parameter_patterns import match_groups
from trainkit.words import some_of

if TYPE_CHECKING:
    from torch import nn

    from trainkit.contracts import Model
    from trainkit.recipe.root import Recipe


def assign(
    recipe: Recipe, settings: Model, model: nn.Module
) -> tuple[dict[str, dict[str, nn.Parameter]], dict[str, bool]]:
    """Sort every trainable parameter of a built model into its group.

    Returns:
        Group -> parameter name -> parameter, and group -> whether it trains if no ``start_epoch`` is set.

    Raises:
        RecipeError: A parameter is in no group or in two, a pattern matches nothing, or a group is unknown.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in names}
    trains = dict(declared_groups(recipe) or {})
    if any(group.parameters is not None for group in recipe.groups.values()):
        patterns = {name: group.parameters or () for name, group in recipe.groups.items()}
        matched = match_groups(patterns, parameters)
        groups = {name: {each: parameters[each] for each in members} for name, members in matched.items()}
    else:
        groups = _own_groups(settings, model, names)
        trains = {name: trains.get(name, True) for name in groups}
        for name in recipe.groups:
            if name not in groups:
                raise RecipeError(
                    f"groups.{name}: the model has no parameter group of this name; {did_you_mean(name, groups)}"
                )
    _check_partition(groups, parameters)
    return groups, trains


def _own_groups(settings: Model, model: nn.Module, names: Mapping[int, str]) -> dict[str, dict[str, nn.Parameter]]:
    """Return the trainable parameters of each of the model's own groups.

    Raises:
        PartError: The model fails to say, or names a parameter that it does not have.
    """
    try:
        members = {name: list(each) for name, each in settings.parameter_groups(model).items()}
    except Exception as error:
        blame(error, "model, in parameter_groups")
    known = {id(parameter) for parameter in model.parameters()}
    for name, parameters in members.items():
        if any(id(parameter) not in known for parameter in parameters):
            raise PartError(f"model, in parameter_groups: group {name} has a parameter that is not one of the model's")
    return {name: {names[id(p)]: p for p in each if id(p) in names} for name, each in members.items()}


def _check_partition(groups: Mapping[str, Mapping[str, nn.Parameter]], parameters: Mapping[str, nn.Parameter]) -> None:
    owner: dict[str, str] = {}
    for group, members in groups.items():
        for name in members:
            if name in owner:
                raise RecipeError(f'parameter "{name}" is in two groups, {owner[name]} and {group}; it must be in one')
            owner[name] = group
    if left := [name for name in parameters if name not in owner]:
        raise RecipeError(
            f"these trainable parameters are in no group: {some_of(left)}; add them to one of {', '.join(groups)}"
        )
