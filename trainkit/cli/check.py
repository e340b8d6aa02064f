"""``trainkit check``: finds every mistake of a recipe at once, within a second and without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

from trainkit.cli import completion
from trainkit.cli.options import GPU_MEMORY, JSON, PROCESSES, SETS
from trainkit.cli.output import Styled, clear_progress, echo, echo_json, joined, show_progress, styled
from trainkit.recipe.origin import dotted
from trainkit.words import some_of

if TYPE_CHECKING:
    from trainkit.contracts import Depth
    from trainkit.recipe.problems import Finding, Severity
    from trainkit.recipe.resolve import Resolved

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


class _Check(click.Command):
    """Understands ``--data=headers`` beside ``--data``, which click takes for a flag."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read ``--data=headers`` as the option ``--data-headers``, and ``--data=all`` as ``--data``."""
        names = {"--data=headers": "--data-headers", "--data=all": "--data"}
        return super().parse_args(context, [names.get(each, each) for each in args])


@click.command(
    cls=_Check,
    epilog="\b\nExamples:\n"
    "  trainkit check recipes/ptycho_staged.toml\n"
    "  trainkit check my_recipe.toml --set data.path=scan.h5 --data\n\n"
    "Exit codes: 0 no mistake (there may be doubts), 1 a run would refuse the data,\n"
    "2 a recipe has a mistake.",
)
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True, shell_complete=completion.recipes)
@SETS
@click.option("--resolved", is_flag=True, help="Print the complete recipe as TOML, and where each value comes from.")
@click.option(
    "--data",
    "depth",
    flag_value="all",
    help="Look at the data as well: sum it up, and name what is wrong or doubtful. "
    "--data=headers takes seconds, and says what it did not look at.",
)
@click.option("--data-headers", "depth", flag_value="headers", hidden=True)
@PROCESSES
@GPU_MEMORY
@click.option("--no-code", is_flag=True, help="Import no class that a recipe names as module:Class.")
@JSON
@click.pass_context
def command(
    context: click.Context,
    recipes: tuple[str, ...],
    sets: tuple[str, ...],
    resolved: bool,
    depth: Depth | None,
    processes: int | None,
    gpu_memory: float | None,
    no_code: bool,
    as_json: bool,
) -> None:
    """Check recipes without running them.

    Every mistake is shown with its file, line and column. Of a recipe with a table [sweep], every run is checked, and
    the runs are listed.

    A class that a recipe names as module:Class is imported to check its settings, and importing runs the code of its
    module. With --no-code, such a class is a mistake instead: use it to look at a recipe that you do not trust.
    """
    from trainkit.recipe.inputs import refuse_missing_inputs
    from trainkit.recipe.limits import MOST_MISTAKES
    from trainkit.recipe.problems import InvalidRecipe
    from trainkit.recipe.resolve import resolve_each
    from trainkit.recipe.structure import NO_CODE

    code = 0
    for recipe in recipes:
        try:
            found = resolve_each(recipe, sets, allow_code=NO_CODE if no_code else True)
            refuse_missing_inputs(found)
            shared = (
                [_shared(each, processes or 1, gpu_memory, depth) for each in found] if processes or gpu_memory else []
            )
        except InvalidRecipe as error:
            count = len(error.findings)
            for finding in error.findings[:MOST_MISTAKES]:
                if as_json:
                    _tell_finding(recipe, finding)
                else:
                    echo(_coloured(finding))
            if as_json:
                echo_json("recipe", recipe=recipe, runs=[], errors=count, doubts=0, lines=[], resolved=None)
            else:
                echo(f"{recipe}: {_count(count, 'mistake')}")
            code = 2
            continue
        more = [note for notes in shared for note in notes]
        if as_json:
            if not _report_as_json(recipe, found, depth, more, resolved):
                code = max(code, 1)
            continue
        text, good = _report(found, depth, more)
        echo(Styled(indent(text, "# ")) if resolved else text)
        for each in found if resolved else ():
            echo(*([f"\n# the run {each.recipe.run.name}\n\n"] if each.point else []), _with_origins(each), nl=False)
        if not good:
            code = max(code, 1)
    context.exit(code)


def _tell_finding(recipe: str, finding: Finding) -> None:
    """Print a finding as an object."""
    mark = finding.mark
    echo_json(
        "finding",
        recipe=recipe,
        severity=finding.severity,
        message=finding.message,
        hint=finding.hint or None,
        key=dotted(finding.where) if finding.where else None,
        file=finding.origin.source if finding.origin else None,
        line=mark.line if mark else None,
        column=mark.column if mark else None,
    )


def _report_as_json(
    recipe: str, found: Sequence[Resolved], depth: Depth | None, more: Sequence[Finding], resolved: bool
) -> bool:
    """Print what is said about a recipe without mistakes as objects, and return whether all its runs would start."""
    from trainkit.recipe.inspection import Inspection, inspect

    notes = list(dict.fromkeys([*(note for each in found for note in each.notes), *more]))
    errors, doubts, lines = 0, sum(note.severity == "warning" for note in notes), []
    for note in notes:
        _tell_finding(recipe, note)
    for same in _alike(found):
        seen = inspect(same[0], depth, show_progress) if depth else Inspection((), ())
        clear_progress()
        for finding in seen.findings:
            _tell_finding(recipe, finding)
        lines += [*map(str, seen.lines), *([] if seen.failure is None else [seen.failure])]
        errors, doubts = errors + seen.num_errors, doubts + seen.num_doubts
    names = [each.recipe.run.name for each in found]
    whole = [_with_origins(each) for each in found] if resolved else None
    echo_json("recipe", recipe=recipe, runs=names, errors=errors, doubts=doubts, lines=lines, resolved=whole)
    return not errors


def _report(found: Sequence[Resolved], depth: Depth | None, more: Sequence[Finding] = ()) -> tuple[Styled, bool]:
    """Return what is said about a recipe without mistakes, or the runs of a sweep, and whether all would start."""
    from trainkit.recipe.inspection import Inspection, inspect
    from trainkit.recipe.sweep import sweep_table

    source = found[0].source
    notes = list(dict.fromkeys([*(note for each in found for note in each.notes), *more]))
    lines: list[str] = [_coloured(note) for note in notes]
    summaries: list[str] = []
    errors, doubts, is_complete = 0, sum(note.severity == "warning" for note in notes), True
    for same in _alike(found):
        seen = inspect(same[0], depth, show_progress) if depth else Inspection((), ())
        clear_progress()
        shown: list[str] = [_coloured(finding) for finding in seen.findings]
        if seen.failure is not None:
            shown += [*seen.lines, joined([f"{source}: ", _label("error"), seen.failure])]
            is_complete &= seen.num_errors > 1
        else:
            summaries += [*([_of_runs(same)] if seen.lines and len(same) < len(found) else []), *seen.lines]
        if shown and len(same) < len(found):
            lines.append(_of_runs(same))
        lines += shown
        errors, doubts = errors + seen.num_errors, doubts + seen.num_doubts
    if not is_complete:
        return joined(lines, "\n"), False
    if errors:
        verdict = f"{_count(errors, 'reason')} to refuse the data"
        verdict += f", {_count(doubts, 'doubt')}" if doubts else ""
    else:
        verdict = _count(doubts, "doubt") if doubts else "fine"
    if found[0].point is None:
        lines.append(f"{source}: {verdict}")
    else:
        lines.append(f"{source}: a sweep of {_count(len(found), 'run')}: {verdict}")
        lines += sweep_table([(each.recipe.run.name, each.point.values) for each in found if each.point])
    return joined([*lines, *summaries], "\n"), not errors


def _shared(found: Resolved, processes: int, limit: float | None, depth: Depth | None) -> Sequence[Finding]:
    """Return what is doubtful about a run of several processes; the data are looked at if that, or a memory, is asked.

    Raises:
        InvalidRecipe: The recipe cannot be run in so many.
    """
    from trainkit.recipe.sharing_inspection import check_sharing, inspect_sharing

    if limit is None and depth is None:
        return check_sharing(found, processes)
    return inspect_sharing(found, processes, limit).findings


_NO_MATTER = ("scheduler", "checkpoint", "loggers", "pictures", "name", "dir", "lr", "lr_factor")
"""Tables, and keys of [run], [optimizer] and [groups], that change nothing of what is seen of the data."""


def _alike(found: Sequence[Resolved]) -> list[list[Resolved]]:
    """Return the runs of a sweep in groups, within each of which looking at the data gives the same."""
    groups: dict[str, list[Resolved]] = {}
    for each in found:
        tables = _without(each.tree, _NO_MATTER)
        for name in ("run", "optimizer", "groups"):
            if isinstance(table := tables.get(name), dict):
                tables[name] = _without(table, _NO_MATTER)
        for name, table in tables.get("groups", {}).items():
            tables["groups"][name] = _without(table, _NO_MATTER)
        groups.setdefault(repr(tables), []).append(each)
    return list(groups.values())


def _without(table: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in names}


def _of_runs(runs: Sequence[Resolved]) -> str:
    return f"in the runs {some_of([each.recipe.run.name for each in runs], 4)}:"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _label(severity: Severity) -> Styled:
    return styled(f"{severity}: ", fg=_COLOURS[severity], bold=True)


def _coloured(finding: Finding) -> Styled:
    label = f"{finding.severity}: "
    before, _, after = str(finding).partition(label)
    return joined([before, _label(finding.severity), after])


def _with_origins(found: Resolved) -> str:
    """Return the complete recipe as TOML, with the origin of each value in a comment after it."""
    from trainkit.recipe.positions import positions
    from trainkit.recipe.resolve import write

    text = write(found.tree)
    lines = text.split("\n")  # as TOML has it; splitlines splits within strings too
    for where, spans in positions(text).items():
        in_table = all(isinstance(part, str) for part in where)
        if in_table and spans.key != spans.value:  # neither a header nor an item of a list
            number = text.count("\n", 0, spans.value[0])
            lines[number] = f"{lines[number]:<39} # {found.origin(where)}"
    return "\n".join(lines)
