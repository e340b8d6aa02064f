"""Writes docs/reference/: a page for each kind of component and one for the tables of a recipe, from the settings.

With ``--check``, it names the pages that are stale instead, and ends with exit code 1 if there are any.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trainkit import Monitor, registry
from trainkit.drawing.palette import SAFE_ON_WHITE
from trainkit.groups.schedule import observe_epoch, point
from trainkit.recipe.docstrings import docstring, first_sentence, meanings
from trainkit.recipe.explanation import Setting, settings_of
from trainkit.recipe.language import kinds_of_tables, tables
from trainkit.recipe.root import Recipe

FOLDER = Path(__file__).with_name("reference")
PACKAGE = "trainkit"  # what else is installed here has pages of its own
MADE_BY = "<!-- Made from the settings by `make docs`. Change the docstrings instead. -->"
SCHEDULERS = "trainkit.schedulers"
EPOCHS, WARMUP = 100, 10
EXAMPLES: Mapping[str, Mapping[str, Any]] = {"torch": {"name": "StepLR", "arguments": {"step_size": 25, "gamma": 0.5}}}
"""Settings with which a schedule is drawn, if it has some without a default."""


def pages() -> dict[Path, str]:
    """Return all pages and pictures: path -> text."""
    made = {FOLDER / "recipe.md": recipe_page()}
    for group in groups():
        made[FOLDER / page_of(group)] = kind_page(group)
    for found in components(SCHEDULERS):
        made[FOLDER / picture_of(found.name)] = drawn(found.load()(**EXAMPLES.get(found.name, {})))
    made[FOLDER / "README.md"] = index()
    return made


def groups() -> list[str]:
    """Return the entry-point groups in which trainkit itself registers components."""
    return [each for each in registry.entry_point_groups() if components(each)]


def components(group: str) -> list[registry.RegisteredComponent]:
    """Return trainkit's own components of an entry-point group."""
    return [each for each in registry.registered(group) if each.package == PACKAGE]


def page_of(group: str) -> str:
    """Return the file name of the page of an entry-point group."""
    return f"{group.removeprefix('trainkit.').replace('.', '_')}.md"


def picture_of(name: str) -> str:
    """Return the file name of the picture of a schedule."""
    return f"schedule_{name}.svg"


# ---- pages ----------------------------------------------------------------------------------------------------------


def index() -> str:
    """Return the page that lists all others."""
    lines = [MADE_BY, "# Reference", "", "On the command line: `trainkit show NAME`, for any name below.", ""]
    lines += ["## The tables of a recipe", "", "| table | what it says |", "|---|---|"]
    texts, kinds = meanings(Recipe), kinds_of_tables()
    for name in [*texts, *(each for each in tables() if each not in texts)]:
        if name in kinds:
            text = f"{texts[name]} A component: [{kinds[name].entry_points}]({page_of(kinds[name].entry_points)})"
            lines.append(f"| `[{name}]` | {cell(text)} |")
        elif name in tables():
            cls = tables()[name]
            text = texts.get(name) or meanings(cls).get(name) or first_sentence(cls)
            label = f"`{name}`" if name in ("extends", "drop") else f"`[{name}]`"
            lines.append(f"| [{label}](recipe.md#{name}) | {cell(text)} |")
    lines += ["", "## Components", ""]
    for group in groups():
        names = ", ".join(f"[{each.name}]({page_of(group)}#{each.name})" for each in components(group))
        lines += [f"**[{group}]({page_of(group)})**: {names}", ""]
    return "\n".join(lines).rstrip() + "\n"


def recipe_page() -> str:
    """Return the page of the tables of a recipe that hold settings of their own."""
    lines = [MADE_BY, "# The tables of a recipe", ""]
    for name, cls in tables().items():
        heading = f"## {name}"
        if name == "drop":
            lines += [heading, "", "See [extends](#extends).", ""]
            continue
        lines += [heading, "", markdown(docstring(cls).text), ""]
        lines += settings_table(list(settings_of(cls)))
    return "\n".join(lines).rstrip() + "\n"


def kind_page(group: str) -> str:
    """Return the page of the components of an entry-point group."""
    kind = registry.kind_of(group)
    table = next((name for name, each in kinds_of_tables().items() if each.entry_points == group), None)
    where = f" They stand in `[{table}]`." if table else ""
    lines = [MADE_BY, f"# {group}", "", markdown(docstring(kind).text) if kind else "", ""]
    lines += [f"Each has its name in `use`.{where}", ""]
    common = {each.key for each in settings_of(kind)} if kind else set()
    for found in components(group):
        cls = found.load()
        lines += [f"## {found.name}", "", markdown(docstring(cls).text), ""]
        if group == SCHEDULERS:
            lines += [f"![{found.name} over {EPOCHS} epochs]({picture_of(found.name)})", ""]
        settings = list(settings_of(cls))
        own = [each for each in settings if each.key not in common]
        lines += settings_table([*own, *(each for each in settings if each.key in common)])
    return "\n".join(lines).rstrip() + "\n"


def settings_table(settings: Sequence[Setting]) -> Iterator[str]:
    """Yield the lines of a table of settings."""
    if not settings:
        yield from ("It has no settings.", "")
        return
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for each in settings:
        default = "required" if each.required else f"`{each.default_words}`" if each.default_words else ""
        value = each.type_words + (f", {each.range}" if each.range and not each.range.startswith("one of") else "")
        if each.range.startswith("one of"):
            value = each.range
        if each.components_of is not None:
            value += f" ([components]({page_of(each.components_of)}))"
        yield f"| `{each.key}` | {cell(value)} | {cell(default)} | {cell(each.text)} |"
    yield ""


def cell(text: str) -> str:
    """Return a text as Markdown for a cell of a table."""
    parts = text.replace("``", "`").replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def markdown(text: str) -> str:
    """Return the text of a docstring as Markdown: what is indented is shown as it is, and sources in italics."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if lines and (source := re.fullmatch(r"(Sources?):", lines[0])):
            paragraphs.append(f"*{source[1]}:* " + " ".join(map(str.strip, lines[1:])).replace("``", "`"))
            continue
        first = next((number for number, line in enumerate(lines) if line.startswith("    ")), len(lines))
        if first:
            paragraphs.append("\n".join(lines[:first]).replace("``", "`"))
        if lines[first:]:
            paragraphs.append("\n".join(["```text", *textwrap.dedent("\n".join(lines[first:])).splitlines(), "```"]))
    return "\n\n".join(paragraphs)


# ---- pictures of schedules ------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 170, 44, 26, 22


def value_at(epoch: int) -> float:
    """Return the value that schedules look at: it falls for 30 epochs, and no more after them."""
    return max(1.0 - epoch / 40, 0.25)


def rates(scheduler: Any) -> list[float]:
    """Return the learning rate at the beginning of each epoch, in units of the group's."""
    monitor, memory, found = Monitor(), {}, []
    for epoch in range(EPOCHS):
        found.append(point(scheduler, epoch, EPOCHS, 1.0, memory).lr)
        memory = observe_epoch(scheduler, epoch + 1, memory, {monitor.metric: value_at(epoch)}, monitor)
    return found


def drawn(scheduler: Any) -> str:
    """Return a picture (SVG) of a schedule, without and with warm-up, computed as a run computes it."""
    curves = {"as it is": rates(scheduler), f"warmup = {WARMUP}": rates(attrs.evolve(scheduler, warmup=WARMUP))}
    highest = max(max(curve) for curve in curves.values())
    watches = (
        type(scheduler).observe
        is not next(each for each in type(scheduler).__mro__ if "entry_points" in vars(each)).observe
    )
    if watches:
        curves["the value that it watches, scaled"] = [value_at(epoch) * highest for epoch in range(EPOCHS)]
    right, low, high = WIDTH - 14, HEIGHT - BOTTOM, TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<path d="M{LEFT} {high}V{low}H{right}" fill="none" stroke="#555"/>',
    ]
    for epoch in range(0, EPOCHS + 1, 20):
        x = LEFT + (right - LEFT) * epoch / EPOCHS
        parts.append(f'<text x="{x:.0f}" y="{low + 12}" text-anchor="middle">{epoch}</text>')
    for share in (0.0, 0.5, 1.0):
        y = low + (high - low) * share
        parts.append(f'<text x="{LEFT - 4}" y="{y + 3:.0f}" text-anchor="end">{highest * share:.3g}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 3}" text-anchor="end">epoch</text>')
    parts.append(f'<text x="{LEFT - 36}" y="{high - 9}">lr / the group\'s lr</text>')
    x = LEFT + 76
    for (name, curve), colour, dash in zip(curves.items(), SAFE_ON_WHITE, ("", "6 3", "2 3"), strict=False):
        places = " ".join(
            f"{LEFT + (right - LEFT) * epoch / EPOCHS:.1f},{low + (high - low) * rate / highest:.1f}"
            for epoch, rate in enumerate(curve)
        )
        line = f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{places}" {line}/>')
        parts.append(f'<path d="M{x} {high - 12}h20" {line}/><text x="{x + 24}" y="{high - 9}">{name}</text>')
        x += 36 + 6 * len(name)
    return "\n".join([*parts, "</svg>"]) + "\n"


# ---- writing --------------------------------------------------------------------------------------------------------


def stale() -> list[str]:
    """Return what is wrong with the pages that are there."""
    made = pages()
    found = [f"{path.name} is stale" for path, text in made.items() if not _is(path, text)]
    left = {*FOLDER.glob("*.md"), *FOLDER.glob("*.svg")} - made.keys()
    return [*found, *(f"{path.name} is about nothing that there is" for path in sorted(left))]


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main() -> None:
    """Write the pages, or name those that are stale."""
    if "--check" in sys.argv[1:]:
        found = stale()
        sys.stdout.write("".join(f"{each}; run make docs\n" for each in found))
        sys.exit(bool(found))
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in {*FOLDER.glob("*.md"), *FOLDER.glob("*.svg")} - made.keys():
        path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
