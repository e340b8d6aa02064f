"""Resolves a recipe: reads, merges, structures and checks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

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
from trainkit.recipe.references import escaped, interpolate
from trainkit.recipe.root import Recipe, defaults
from trainkit.recipe.search import SEARCH, Parameter, SearchSpace, chosen
from trainkit.recipe.search_reading import read_search
from trainkit.recipe.shipped import named_recipe
from trainkit.recipe.source import Layer, PathString, as_sets, layer_of_tables, read, read_settings
from trainkit.recipe.structure import AllowCode, structure
from trainkit.recipe.sweep import SWEEP, SweepPoint, distinct_stems, equal_runs, in_which, points
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
        layer: The recipe before its references were replaced, without ``[search]``.
        point: What tells it apart from the other runs of its sweep; None: it is of no sweep.
        other_names: Names that the run has where it is started with other recipe files, or alone (`resolve_all`).
        search: What ``trainkit tune`` searches; None: the recipe has no ``[search]``.
    """

    recipe: Recipe
    tree: dict[str, Any]
    origins: Mapping[Where, Origin]
    notes: tuple[Finding, ...]
    used: tuple[UsedComponent, ...]
    source: str
    layer: Layer
    point: SweepPoint | None = None
    other_names: tuple[str, ...] = ()
    search: SearchSpace | None = None

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
        path: The file, or the name of a recipe (`named_recipe`).
        sets: The values of ``--set``, for example "a.b=c".
        allow_code: Which ``use = "module:Class"`` may be imported: all, none, or those listed.

    Raises:
        InvalidRecipe: The recipe has mistakes; the message shows all of them with their places.
    """
    path, said = named_recipe(path)
    found = _resolved(_of_file(path), str(path), path.stem, sets, allow_code)
    return attrs.evolve(found, notes=(*_notes_of_choice(path, said), *found.notes))


def resolve_each(path: Path | str, sets: Sequence[str] = (), *, allow_code: AllowCode = True) -> list[Resolved]:
    """Resolve a recipe file that may have a table ``[sweep]``, and return the recipe of each of its runs.

    Args:
        path: The file, or the name of a recipe (`named_recipe`).
        sets: The values of ``--set``, for example "a.b=c".
        allow_code: Which ``use = "module:Class"`` may be imported: all, none, or those listed.

    Raises:
        InvalidRecipe: A run has mistakes; the message shows all mistakes of all runs.
    """
    path, said_of_choice = named_recipe(path)
    layers = _merged(_of_file(path), path.stem, sets)
    layers = layers._replace(found=[*_notes_of_choice(path, said_of_choice), *layers.found])
    if SWEEP not in layers.whole.tree:
        return [_checked(layers.whole, layers.found, str(path), allow_code)]
    made, found = points(layers.whole, layers.sets, path.stem)
    if SEARCH in layers.whole.tree:
        found.append(Finding("a recipe has either [sweep] or [search]", (SEARCH,), at="key"))
        made = []
    found = [*layers.found, *(each.located(layers.whole.origins, str(path)) for each in found)]
    without = attrs.evolve(
        layers.whole, tree={k: each for k, each in layers.whole.tree.items() if k not in (SWEEP, SEARCH)}
    )
    if not made:  # the rest of the recipe is checked all the same
        try:
            _checked(without, found, str(path), allow_code)
        except InvalidRecipe as error:
            found = error.findings
        raise InvalidRecipe(each for each in found if each.severity == "error")
    runs: list[Resolved] = []
    seen = [(point.name, each) for each in found for point in made]
    for point in made:
        try:
            run = _checked(merge(without, point.layer), [], str(path), allow_code)
            runs.append(attrs.evolve(run, point=SweepPoint(run.recipe.run.dir, point.values)))
            seen += [(point.name, note) for note in run.notes]
        except InvalidRecipe as error:
            seen += [(point.name, mistake) for mistake in error.findings]
    said = in_which(seen, len(made))
    mistakes = [each for each in said.values() if each.severity == "error"]
    equal = equal_runs((each.recipe.run.name, each.tree) for each in runs)
    mistakes += [each.located(layers.whole.origins, str(path)) for each in equal]
    if mistakes:
        raise InvalidRecipe(mistakes)
    return [attrs.evolve(run, notes=tuple(said[str(each)] for each in (*found, *run.notes))) for run in runs]


def resolve_all(paths: Sequence[Path | str], sets: Sequence[str] = ()) -> list[Resolved]:
    """Resolve several recipe files, each of which may have a table ``[sweep]``.

    Files that give their runs, or their sweeps, one name get names that say from which file they are: NAME-FILE.

    Raises:
        InvalidRecipe: A recipe has mistakes; the message shows all mistakes of all recipes.
    """
    resolved: dict[Path, list[Resolved]] = {}
    findings: list[Finding] = []
    for path in dict.fromkeys(map(Path, paths)):
        try:
            resolved[path] = resolve_each(path, sets)
        except InvalidRecipe as error:
            findings += error.findings
    if findings:
        raise InvalidRecipe(findings)
    named: dict[tuple[Path, str], list[Path]] = {}
    for path, runs in resolved.items():
        named.setdefault(_place_and_name(runs[0]), []).append(path)
    for (_, name), files in named.items():
        own = dict(zip(files, (f"{name}-{each}" for each in distinct_stems(files)), strict=True))
        for path in files:
            if len(files) > 1:
                runs = resolve_each(path, [*sets, *as_sets({"run": {"name": escaped(own[path])}})])
                said = f"{len(files)} of the recipes have the name {name}; this one is called {own[path]}"
                note = Finding(said, ("run", "name"), "note", origin=Origin(str(path)))
                resolved[path] = [attrs.evolve(each, notes=(*each.notes, note)) for each in runs]
            if resolved[path][0].point is None:
                other = name if len(files) > 1 else own[path]
                resolved[path] = [attrs.evolve(each, other_names=(other,)) for each in resolved[path]]
    return [each for path in paths for each in resolved[Path(path)]]


def _place_and_name(run: Resolved) -> tuple[Path, str]:
    """Return the folder and the name that a recipe file gives to its run, or to its sweep."""
    if run.point is None:
        return run.recipe.run.dir, run.recipe.run.name
    return run.point.folder.parent, run.point.folder.name.removesuffix(f"_{SWEEP}")


def _notes_of_choice(path: Path, said: str | None) -> list[Finding]:
    return [] if said is None else [Finding(said, severity="note", origin=Origin(str(path)))]


def _of_file(path: Path) -> Callable[[], Layer]:
    return lambda: merge_parents(load(path, str(path)), (path.resolve(),))


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


def changed(whole: Resolved, tables: Mapping[str, Any]) -> Resolved:
    """Return a recipe with other values of some settings, for a run that is derived from the run of the recipe.

    Args:
        whole: The recipe.
        tables: The settings that differ, as ``--set`` would give them; "drop" is a list of keys.

    Raises:
        InvalidRecipe: A setting is wrong.
    """
    named = [used.use for used in whole.used if ":" in used.use]
    sets = tuple(as_sets(tables))
    return resolve_text(write(whole.tree), Path.cwd(), sets, source=whole.source, allow_code=named, resolved=True)


def varied(
    resolved: Resolved,
    parameters: tuple[Parameter, ...],
    choose: Callable[[Parameter], Any],
    own: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Resolved, dict[str, str]]:
    """Return a recipe with values of searched keys, and these values in words.

    Args:
        resolved: The recipe.
        parameters: The searched keys, in order.
        choose: Returns the value of a key; for one with choices, the number of its choice.
        own: Further settings, as nested tables.

    Raises:
        InvalidRecipe: With these values, the recipe has mistakes.
    """
    layer, values = chosen(resolved.layer, parameters, choose)
    layer = merge(layer, layer_of_tables(own, f"[{SEARCH}]"))
    words = {each.name: each.value_in_words(values[each.name]) for each in parameters if each.name in values}
    return _checked(layer, [], resolved.source, True), words


def write(tree: Mapping[str, Any]) -> str:
    """Return a recipe's tree as TOML, with short lists of plain values on one line."""

    def on_one_line(items: re.Match[str]) -> str:
        plain_items = [each.strip().removesuffix(",") for each in items[1][:-1].split("\n")]
        line = f"[{', '.join(plain_items)}]"
        return line if len(line) <= 80 else items[0]

    return _LIST.sub(on_one_line, tomli_w.dumps(tree))


class _Layers(NamedTuple):
    """The layers of a recipe, merged.

    Attributes:
        whole: All of them, before references are replaced.
        sets: That of ``--set``.
        found: What is wrong with ``--set``.
    """

    whole: Layer
    sets: Layer
    found: list[Finding]


def _resolved(
    own: Callable[[], Layer], source: str, name: str, sets: Sequence[str], allow_code: AllowCode, resolved: bool = False
) -> Resolved:
    whole, _, found = _merged(own, name, sets)
    if SWEEP in whole.tree:
        hint = f"trainkit run, check and plan take sweeps; --set 'drop=[\"{SWEEP}\"]' leaves it out"
        several = Finding("describes several runs, and this command takes the recipe of one", (SWEEP,), at="key")
        raise InvalidRecipe([*found, attrs.evolve(several, hint=hint).located(whole.origins, source)])
    return _checked(whole, found, source, allow_code, resolved)


def _merged(own: Callable[[], Layer], name: str, sets: Sequence[str]) -> _Layers:
    settings, found = read_settings(sets)
    try:
        merged = merge(Layer(defaults(name), {}), own())
    except InvalidRecipe as error:
        raise InvalidRecipe([*found, *error.findings]) from error
    return _Layers(merge(merged, settings), settings, found)


def _checked(
    layer: Layer, before: Sequence[Finding], source: str, allow_code: AllowCode, resolved: bool = False
) -> Resolved:
    base = attrs.evolve(layer, tree={key: each for key, each in layer.tree.items() if key != SEARCH})
    recipe, written, found = _structured(base, allow_code, resolved)
    found = [*before, *found]
    tree = None if any(each.severity == "error" for each in found) else to_tables(recipe, written)
    search = None
    if SEARCH in layer.tree:
        merged, circular = interpolate(layer)
        found += [each for each in circular if each.where[:1] == (SEARCH,)]
        try:
            search, mistakes = read_search(
                layer,
                base,
                merged.tree[SEARCH],
                recipe,
                tree,
                lambda variant: [e for e in _structured(variant, allow_code, resolved)[2] if e.severity == "error"],
            )
        except Exception:  # of a recipe with mistakes, parts are missing, as for any other rule
            if tree is not None:
                raise
            mistakes = []
        found += mistakes
    found = in_order(finding.located(layer.origins, source) for finding in found)
    if mistakes := [finding for finding in found if finding.severity == "error"]:
        raise InvalidRecipe(mistakes)
    assert tree is not None
    return Resolved(recipe, tree, base.origins, tuple(found), _used(recipe, tree), source, base, search=search)


def _structured(layer: Layer, allow_code: AllowCode, resolved: bool) -> tuple[Recipe, dict[str, Any], list[Finding]]:
    """Return the settings of a recipe, its tables with references replaced, and what is wrong with it."""
    merged, found = interpolate(layer)
    texts = {where: origin.text for where, origin in merged.origins.items() if origin.text is not None}
    recipe, mistakes = structure(merged.tree, allow_code, texts)
    found += mistakes
    if not resolved:
        found += _secret_names(merged.tree)
    found += rules.findings(recipe, complete=all(each.severity == "note" for each in found))
    return recipe, merged.tree, found


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
