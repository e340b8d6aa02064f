"""Which parameters a group takes, by patterns of their names.

A pattern is a name with wildcards ("encoder.*", see `fnmatch`). One that begins with "!" takes away what it matches.
One group can take the rest, that is every parameter that no other group names: ``"rest"``, or a list that begins with
"*" or with a "!" pattern, such as ``["!*.bias"]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal

from trainkit.errors import RecipeError, did_you_mean
from trainkit.words import some_of

Patterns = Literal["rest"] | tuple[str, ...]
"""The setting ``parameters`` of a group."""


def takes_rest(patterns: Patterns) -> bool:
    """Return whether a group takes every parameter that no other group names.

    Example:
        >>> takes_rest(("!*.bias",)), takes_rest(("*", "!*.bias")), takes_rest(("*.bias",))
        (True, True, False)
    """
    return patterns == "rest" or patterns[0] == "*" or patterns[0].startswith("!")


def match_groups(patterns: Mapping[str, Patterns], names: Iterable[str]) -> dict[str, list[str]]:
    """Return group -> the names of its parameters, in their order in the model.

    Args:
        patterns: Group -> its patterns; at most one group takes the rest.
        names: The names of all trainable parameters.

    Raises:
        RecipeError: A pattern matches nothing, nothing is left for the group that takes the rest, or a parameter is in
            no group or in two.

    Example:
        >>> match_groups({"biases": ("*.bias",), "others": "rest"}, ["a.weight", "a.bias", "b"])
        {'biases': ['a.bias'], 'others': ['a.weight', 'b']}
    """
    names = list(names)
    owner: dict[str, str] = {}
    for group, given in sorted(patterns.items(), key=lambda item: takes_rest(item[1])):  # who takes the rest comes last
        listed = () if given == "rest" else given
        named = _matching(group, [each for each in listed if not each.startswith("!")], names)
        taken_away = _matching(group, [each for each in listed if each.startswith("!")], names)
        candidates = set(names) - set(owner) if takes_rest(given) else named
        members = [name for name in names if name in candidates - taken_away]
        if not members:
            raise RecipeError(f"groups.{group}.parameters: no parameter is left for this group")
        for name in members:
            if name in owner:
                raise RecipeError(
                    f'parameter "{name}" is in two groups, {owner[name]} and {group}; '
                    f'"!{name}" among the parameters of one takes it away'
                )
            owner[name] = group
    if left := [name for name in names if name not in owner]:
        raise RecipeError(
            f"these trainable parameters are in no group: {some_of(left)}; give them to one of {', '.join(patterns)}, "
            'or to a group of their own with parameters = "rest"'
        )
    return {group: [name for name in names if owner[name] == group] for group in patterns}


def _matching(group: str, patterns: Iterable[str], names: list[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        matches = {name for name in names if fnmatchcase(name, wanted)}
        if not matches:
            hint = did_you_mean(wanted, names)
            raise RecipeError(f'groups.{group}.parameters: "{pattern}" matches no parameter; {hint}')
        found |= matches
    return found
