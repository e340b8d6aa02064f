"""Resolves a recipe: reads, merges, structures and checks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from trainkit import registry
from trainkit.contracts import Component
from trainkit.recipe import rules
from trainkit.recipe.fields import is_kind
from trainkit.recipe.layers import load, merge, merge_parents
from trainkit.recipe.origin import DEFAULT, Origin, dotted
from trainkit.recipe.positions import Where
from trainkit.recipe.problems import Finding, InvalidRecipe, in_order
from trainkit.recipe.references import interpolate
from trainkit.recipe.root import Recipe, defaults
from trainkit.recipe.source import Layer, PathString, read, read_settings
from trainkit.recipe.structure import AllowCode, structure
from trainkit.recipe.tables import to_tables, walk_settings

_LIST = re.compile(r"\[\n((?: {4}[^\n\[\]{}]*,\n)+)\]")


@attrs.frozen
class UsedComponent:
    """A component that a recipe uses.

    Attributes:
        where: Its place in the recipe, for example "losses.data".
        group: The entry-point group of its kind.
        use: Its name in the recipe.
        package: The distribution that it belongs to; "" for a class that is named ``module:Class``.
        version: That distribution's version.
    """

    where: str
    group: str
    use: str
    package: str
    version: str


@attrs.frozen
class Resolved:
    """A recipe without mistakes.

    Attributes:
        recipe: The settings.
        tree: The same settings as tables: every setting, every ``use``, absolute paths, and references where values of
            environment variables are used. It resolves to an equal recipe.
        origins: Where each setting comes from; a setting that is not in it is a default (see `origin`).
        notes: Warnings and notes.
        used: The components.
        source: The name of the recipe in messages.
    """

    recipe: Recipe
    tree: dict[str, Any]
    origins: Mapping[Where, Origin]
    notes: tuple[Finding, ...]
    used: tuple[UsedComponent, ...]
    source: str

    def origin(self, where: Where) -> Origin:
        """Return where a setting comes from."""
        return self.origins.get(where, DEFAULT)

    @property
    def resume_options(self) -> str:
        """The options that ``trainkit resume`` needs for a checkpoint of this recipe, each after a space."""
        return " --allow-code" if any(":" in used.use for used in self.used) else ""


def resolve(path: Path | str, sets: Sequence[str] = (), *, allow_code: AllowCode = True) -> Resolved:
    """Read, merge, structure and check a recipe file.

    Args:
        path: The file.
        sets: The values of ``--set``, for example "a.b=c".
        allow_code: Which ``use = "module:Class"`` may be imported: all, none, or those listed.

    Raises:
        InvalidRecipe: The recipe has mistakes; the message shows all of them with their places.
    """
    path = Path(path)

    def own() -> Layer:
        return merge_parents(load(path, str(path)), (path.resolve(),))

    return _resolved(own, str(path), path.stem, sets, allow_code)


def resolve_all(paths: Iterable[Path | str], sets: Sequence[str] = ()) -> list[Resolved]:
    """Resolve several recipe files.

    Raises:
        InvalidRecipe: A recipe has mistakes; the message shows all mistakes of all recipes.
    """
    resolved, findings = [], []
    for path in paths:
        try:
            resolved.append(resolve(path, sets))
        except InvalidRecipe as error:
            findings += error.findings
    if findings:
        raise InvalidRecipe(findings)
    return resolved


def resolve_text(
    text: str,
    folder: Path,
    sets: Sequence[str] = (),
    *,
    source: str = "recipe",
    name: str = "run",
    allow_code: AllowCode = True,
    resolved: bool = False,
) -> Resolved:
    """Resolve the text of a recipe, for example from a checkpoint or a run folder.

    Args:
        text: The recipe.
        folder: The folder that relative paths in it start from.
        sets: The values of ``--set``.
        source: The name of the recipe in messages.
        name: The name of the run if the recipe does not give it.
        allow_code: Which ``use = "module:Class"`` may be imported: all, none, or those listed.
        resolved: Whether the recipe is a resolved one (`write`), in which no other files and settings are referred to.

    Raises:
        InvalidRecipe: The recipe has mistakes.
    """

    def own() -> Layer:
        return merge_parents(read(text, source, folder, resolved=resolved))

    return _resolved(own, source, name, sets, allow_code, resolved)


def write(tree: Mapping[str, Any]) -> str:
    """Return a recipe's tree as TOML, with short lists of plain values on one line."""

    def on_one_line(items: re.Match[str]) -> str:
        plain_items = [each.strip().removesuffix(",") for each in items[1][:-1].split("\n")]
        line = f"[{', '.join(plain_items)}]"
        return line if len(line) <= 80 else items[0]

    return _LIST.sub(on_one_line, tomli_w.dumps(tree))


def _resolved(
    own: Callable[[], Layer], source: str, name: str, sets: Sequence[str], allow_code: AllowCode, resolved: bool = False
) -> Resolved:
    settings, found = read_settings(sets)
    try:
        merged = merge(Layer(defaults(name), {}), own())
    except InvalidRecipe as error:
        raise InvalidRecipe([*found, *error.findings]) from error
    merged, circular = interpolate(merge(merged, settings))
    found += circular
    texts = {where: origin.text for where, origin in merged.origins.items() if origin.text is not None}
    recipe, mistakes = structure(merged.tree, allow_code, texts)
    found += mistakes
    if not resolved:
        found += _secret_names(merged.tree)
    found += rules.findings(recipe, complete=not found)
    found = in_order(finding.located(merged.origins, source) for finding in found)
    if mistakes := [finding for finding in found if finding.severity == "error"]:
        raise InvalidRecipe(mistakes)
    tree = to_tables(recipe, merged.tree)
    return Resolved(recipe, tree, merged.origins, tuple(found), _used(recipe, tree), source)


def _secret_names(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find a name of a run that holds the value of an environment variable, which the run folder would then show."""
    run = tree.get("run")
    name = run.get("name") if isinstance(run, Mapping) else None
    if isinstance(name, PathString) and name.written is not None:
        by_shell = name.written.replace("${env.", "${")
        yield Finding(
            "the run folder has this name, and values of environment variables are written nowhere",
            ("run", "name"),
            hint=f'if the value may be seen, let the shell insert it: --set run.name="{by_shell}"',
        )


def _used(recipe: Recipe, tree: Mapping[str, Any]) -> tuple[UsedComponent, ...]:
    used = []
    for where, part, declared in walk_settings(recipe):
        if isinstance(part, Component) and is_kind(declared):
            table: Any = tree
            for key in where:
                table = table[key]
            group, use = declared.entry_points, table["use"]
            found = None if ":" in use else registry.locate(group, use)
            package, version = (found.package, found.version) if found else ("", "")
            used.append(UsedComponent(dotted(where), group, use, package, version))
    return tuple(used)
