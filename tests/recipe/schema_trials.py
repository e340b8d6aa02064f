"""Recipes with one slip each, seen by `check` and by the JSON Schema: what check takes, the schema takes as well.

Unknown keys, wrong types and wrong choices that check refuses, the schema has to refuse.
As a script: ``python tests/recipe/schema_trials.py 3000``, on the recipes that come with trainkit.
"""

from __future__ import annotations

import copy
import random
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w
from jsonschema import Draft7Validator

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text
from trainkit.recipe.schema import recipe_schema
from trainkit.recipe.shipped import shipped

SLIPS = ("another key", "another type", "another word", "another number")
NUMBERS = (-1, 0, 1, 2, 0.5, -0.5, 1.5, 1e9, 3)


@cache
def validator() -> Draft7Validator:
    """Return what judges a recipe by the schema of all that is installed."""
    schema, broken = recipe_schema()
    assert not broken
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def whole(path: Path) -> str:
    """Return the text of a shipped recipe, with the lines about the user's own files filled in."""
    text = path.read_text(encoding="utf-8")
    return text.replace('# path = "…"', f'path = "somewhere{".npz" * ("diffraction_numpy" in text)}"')


def leaves(table: Mapping[str, Any], where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the place of each value of a recipe that is no table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*where, key))
        else:
            yield (*where, key)


def slipped(tree: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Return a recipe with one slip, and what the slip is, and where."""
    made = copy.deepcopy(tree)
    while True:
        where = rng.choice(list(leaves(made)))
        slip = rng.choice(SLIPS)
        table = made
        for key in where[:-1]:
            table = table[key]
        value = table[where[-1]]
        if slip == "another key":
            table[where[-1] + "x"] = table.pop(where[-1])
        elif slip == "another type":
            table[where[-1]] = [[{"a": value}]] if not isinstance(value, bool) else "true"
        elif slip == "another word" and isinstance(value, str):
            table[where[-1]] = value + "x"
        elif slip == "another number" and isinstance(value, int | float) and not isinstance(value, bool):
            table[where[-1]] = rng.choice(NUMBERS)
        else:
            continue
        return made, slip, where


def judged(tree: dict[str, Any], folder: Path) -> str | None:
    """Return why `check` refuses a recipe, or None."""
    try:
        resolve_text(tomli_w.dumps(tree), folder)
    except InvalidRecipe as error:
        return "; ".join(each.message for each in error.findings)
    return None


def written(folder: Path) -> list[Path]:
    """Write the shipped recipes into a folder, whole, and return them."""
    for path in shipped().values():
        (folder / path.name).write_text(whole(path), encoding="utf-8")
    return sorted(folder.glob("*.toml"))


def disagreement(path: Path, seed: int) -> str | None:
    """Return how check and schema disagree about a recipe with a slip; None: they agree, as far as they can."""
    made, slip, where = slipped(tomllib.loads(path.read_text(encoding="utf-8")), random.Random(seed))
    refused = judged(made, path.parent)
    by_schema = next(validator().iter_errors(made), None)
    told = f"{path.stem}: {slip} at {'.'.join(where)}"
    if refused is None and by_schema is not None:
        return f"{told}: check takes it, the schema says: {by_schema.message[:200]}"
    must = slip in ("another key", "another type") or (refused or "").startswith("must be one of")
    is_open = where[0] == "sweep" or list(where[:2]) == ["search", "keys"]  # its keys are those of all recipes
    if refused is not None and by_schema is None and must and not (is_open or beyond_the_schema(refused)):
        return f"{told}: the schema takes it, check says: {refused}"
    return None


def beyond_the_schema(refused: str) -> bool:
    """Return whether only `check` can see a mistake: names that parts of the recipe have to agree about."""
    return any(said in refused for said in ("is not in", "no group", "is not inherited", "there is no", "not known"))


def main(number: str) -> None:
    """Try so many slips, and print the disagreements."""
    with TemporaryDirectory() as folder:
        paths = written(Path(folder))
        found = [said for seed in range(int(number)) if (said := disagreement(paths[seed % len(paths)], seed))]
    sys.stdout.write("".join(f"{each}\n" for each in found) + f"{number} slips, {len(found)} disagreements\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
