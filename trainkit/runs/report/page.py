"""Puts the report on a run together as one page of HTML, which needs no other file and no network.

Everything in it that comes from a recipe, a log or the name of a file is escaped (`markup`). In addition, the page
forbids the browser to run any script but its own, and to load anything (Content-Security-Policy).
"""

from __future__ import annotations

import csv
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any

from trainkit.engine.run_folder import LOG, recipe_of_start
from trainkit.files.reading import read_small
from trainkit.recipe.resolve import write
from trainkit.runs.comparison import conditions_of
from trainkit.runs.history import events, when_in_words
from trainkit.runs.origins import DEFAULT, ancestors, origins
from trainkit.runs.record import RunRecord
from trainkit.runs.report.charts import Curve, chart, timeline
from trainkit.runs.report.markup import Markup, joined, table, tag, text
from trainkit.runs.report.pictures import Picture, Pictures, pictures_of
from trainkit.runs.values import Place
from trainkit.version import __version__
from trainkit.words import after_epochs, bytes_in_words, duration, number_of

_SAID = re.compile(r"(?:^|\s)((?:warning|doubtful): .*)")
_MOST_SAID = 100
_MOST_ROWS = 500
_MOST_BYTES = 1 << 26
_LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")
_FILE_AND_LINE = re.compile(r"(?P<path>[^:]+):(?P<line>\d+)")
_GOOD, _BAD = ("finished", "running"), ("failed", "diverged", "doubtful", "killed")


def page(run: RunRecord) -> str:
    """Return the report on a run as HTML."""
    pictures = pictures_of(run.folder)
    sections = [
        ("curves", "Curves", _curves(run)),
        ("stages", "Stages", _stages(run)),
        ("history", "History", _history(run)),
        ("pictures", "Pictures", _pictures(pictures)),
        ("cases", "Cases", _cases(run)),
        ("recipe", "Recipe", _recipe(run)),
        ("starts", "Starts and environment", _starts(run)),
        ("checkpoints", "Checkpoints", _checkpoints(run)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    links = (tag("a", title, href=f"#{name}") for name, title, _ in shown)
    body = joined(
        [
            tag("header", *_header(run)),
            tag("nav", *links, aria_label="sections"),
            *(tag("section", tag("h2", title), content, id=name) for name, title, content in shown),
            tag(
                "footer",
                tag("p", f"Made by trainkit {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.", class_="quiet"),
            ),
        ]
    )
    return _document(f"{run.name} {run.id}", body)


def _document(title: str, body: Markup) -> str:
    style, script = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        Markup(f"<style>{style}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body, Markup(f'<script>{script}</script>')), lang='en')}\n"


def _digest(content: str) -> str:
    return b64encode(sha256(content.encode()).digest()).decode()


def _header(run: RunRecord) -> Iterator[Markup]:
    yield tag("h1", run.name)
    yield tag("p", tag("span", run.id, class_="mono"), f" in {run.folder.absolute()}", class_="quiet")
    state = run.state
    colour = "good" if state.name in _GOOD else "bad" if state.name in _BAD else None
    facts: list[tuple[str, object]] = [("state", tag("span", state.name, class_=colour))]
    length = f" of {run.planned_epochs}" if run.planned_epochs is not None else ""
    facts.append(("finished epochs", f"{run.values.epochs}{length}"))
    steps = f" of {run.planned_steps}" if run.planned_steps is not None else ""
    facts.append(("steps", f"{run.values.steps}{steps}"))
    if run.monitor is not None:
        name = f"best {run.monitor.metric} ({run.monitor.mode})"
        facts.append((name, "none" if run.best is None else f"{run.best.value:.6g} {_after(run.best.place)}"))
    facts.append(("time", duration(run.seconds) + (f" ({run.disturbance})" if run.disturbance else "")))
    if run.created is not None:
        facts.append(("created (UTC)", f"{run.created.astimezone(UTC):%Y-%m-%d %H:%M}"))
    yield tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts")
    if state.why:
        yield tag("p", state.why, class_="said")
    yield from _parents(run)
    said = _said(run)
    if said:
        lines = (tag("p", each, class_="said") for each in said)
        head = tag("summary", f"{len(said)} warning{'s' * (len(said) != 1)} in the log")
        yield tag("details", head, *lines, open="" if len(said) < 4 else None)
    for problem in run.problems:
        yield tag("p", f"This folder is damaged: {problem}", class_="said")


def _after(place: Place) -> str:
    return f"after {number_of(place.steps, 'step')}" if place.inside else after_epochs(place.epochs)


def _parents(run: RunRecord) -> Iterator[Markup]:
    if run.parent is None:
        return
    chain = ancestors(run)
    steps = [f"{run.parent.run or run.parent.checkpoint} {after_epochs(run.parent.epoch)}"]
    steps += [f"{each.parent.run} {after_epochs(each.parent.epoch)}" for each in chain if each.parent is not None]
    places = joined((tag("span", each, class_="mono") for each in steps), ", which began from ")
    yield tag("p", "Began from ", places, ".")
    if not chain:
        yield tag("p", "The folder of that run was not found.", class_="quiet")


def _said(run: RunRecord) -> list[str]:
    try:
        log = read_small(run.folder / LOG, "a log", _MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return []
    found = dict.fromkeys(known[1] for line in log.splitlines() if (known := _SAID.search(line[:4000])))
    kept = list(found)[:_MOST_SAID]
    return kept + ([f"… and {len(found) - len(kept)} more"] if len(found) > len(kept) else [])


# ---- curves and stages ----------------------------------------------------------------------------------------------


def _curves(run: RunRecord) -> Markup:
    values = run.values
    per_epoch = values.steps / values.epochs if values.epochs else 1.0
    curves: dict[str, Curve] = {}
    for name in values.names:
        points = [
            (each.place.steps / per_epoch if each.place.inside else float(each.place.epochs), each.value)
            for each in values.of(name)
        ]
        if points:
            curves[name] = Curve(name, points)
    charts: dict[str, list[Curve]] = {}
    for name, curve in curves.items():
        charts.setdefault(_chart_of(name, curves), []).append(curve)
    order = {"" if run.monitor is None else run.monitor.metric.partition("/")[2]: 1, "loss": 0, "learning rate": 3}
    marks = _marks(run)
    drawn = [
        chart(title, charts[title], marks, is_log=title == "learning rate" or _spans_much(title, charts[title]))
        for title in sorted(charts, key=lambda title: (order.get(title, 2), title))
    ]
    if not any(drawn):
        return Markup("")
    notes = [
        tag("p", f"{name} means something else {after_epochs(epoch)}, and is shown from there.", class_="quiet")
        for name, epoch in values.began.items()
        if name in curves and epoch
    ]
    return joined([tag("div", *drawn, class_="charts"), *notes])


def _chart_of(name: str, curves: Mapping[str, Curve]) -> str:
    """Return the chart of a value: that of the same name in another split, and ``dice`` for ``dice_liver``."""
    if name.startswith("lr/"):
        return "learning rate"
    short = name.partition("/")[2]
    known = {each.partition("/")[2] for each in curves}
    return min((each for each in known if short.startswith(f"{each}_")), key=len, default=short)


def _spans_much(title: str, curves: Sequence[Curve]) -> bool:
    values = [value for each in curves for _, value in each.points]
    return title == "loss" and min(values) > 0 and max(values) > 5 * min(values)


def _stretches(run: RunRecord) -> dict[str, list[tuple[int, int]]]:
    """Return when each group trained: finished epochs before, and after."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name in run.values.names:
        if name.startswith("lr/"):
            stretches = found.setdefault(name.removeprefix("lr/"), [])
            for each in run.values.of(name):
                end = each.place.epochs
                if each.value <= 0 or each.place.inside:
                    continue
                if stretches and stretches[-1][1] == end - 1:
                    stretches[-1] = stretches[-1][0], end
                else:
                    stretches.append((end - 1, end))
    return found


def _marks(run: RunRecord) -> dict[float, str]:
    found: dict[float, list[str]] = {}
    for group, stretches in _stretches(run).items():
        for begin, _ in stretches:
            found.setdefault(begin, []).append(group)
    for key, value in run.settings.items():
        if (known := re.fullmatch(r"groups\.(.+)\.then\.(.+)\.start_epoch", key)) and isinstance(value, int):
            found.setdefault(value, []).append(f"{known[1]}: {known[2]}")
    for event in events(run):
        if event.by and event.what.startswith("edit") and event.epochs:
            found.setdefault(event.epochs, []).append("edit")
    return {epoch: ", ".join(dict.fromkeys(names)) for epoch, names in found.items() if epoch > 0}


def _history(run: RunRecord) -> Markup:
    """Return a table of what happened, if it was more than one start and its end."""
    found = events(run)
    if len(found) < 3:
        return Markup("")
    rows = [(each.time, each.after, tag("code", each.what) if each.by else each.what, each.by) for each in found]
    return table(("when (UTC)", "finished by then", "what", "asked by"), rows)


def _stages(run: RunRecord) -> Markup:
    stretches = _stretches(run)
    drawing = timeline(stretches, run.values.epochs)
    if not drawing:
        return Markup("")
    rows = []
    for group, known in stretches.items():
        trained = ", ".join(f"{begin} to {end}" for begin, end in known) or "never"
        rates = [each.value for each in run.values.of(f"lr/{group}") if each.value > 0]
        rows.append((group, trained, f"{rates[0]:.4g}" if rates else "", f"{rates[-1]:.4g}" if rates else ""))
    head = ("group", "trained from … to … finished epochs", "first learning rate", "last")
    return joined([tag("figure", drawing, class_="stages"), table(head, rows)])


# ---- pictures and tables --------------------------------------------------------------------------------------------


def _pictures(pictures: Pictures) -> Markup:
    figures = [_series(name, series) for name, series in pictures.series.items()]
    notes = [tag("p", note, class_="quiet") for note in pictures.notes]
    if not figures and not notes:
        return Markup("")
    return joined([tag("div", *figures, class_="pictures"), *notes])


def _series(name: str, series: Sequence[Picture]) -> Markup:
    last = len(series) - 1
    images = [
        tag(
            "img",
            src=each.source,
            alt=f"{name}, {each.when}",
            width=each.width,
            height=each.height,
            data_when=each.when,
            hidden=None if number == last else "",
        )
        for number, each in enumerate(series)
    ]
    slider = Markup("")
    if last > 0:
        label = f"time of {name}"
        slider = tag("input", type="range", min=0, max=last, value=last, step=1, aria_label=label, hidden="")
    caption = tag("figcaption", tag("strong", name), ", ", tag("output", series[last].when))
    return tag("figure", caption, slider, *images, class_="picture")


def _cases(run: RunRecord) -> Markup:
    parts = []
    for path in sorted(run.folder.glob("cases*.csv")):
        try:
            content = read_small(path, "a table", _MOST_BYTES).decode(errors="replace")
            rows = list(csv.reader(content.splitlines()))
        except (OSError, ValueError, csv.Error) as error:
            parts.append(tag("p", f"{path.name} cannot be read ({error})", class_="quiet"))
            continue
        if len(rows) > 1:
            of = "of the best checkpoint" if path.stem.endswith("_best") else "of the last evaluation"
            left = len(rows) - 1 - _MOST_ROWS
            more = tag("p", f"{left} more rows are in {path.name}.", class_="quiet") if left > 0 else ""
            shown = table(rows[0], ([_rounded(cell) for cell in row] for row in rows[1 : _MOST_ROWS + 1]))
            is_open = "" if of.endswith("checkpoint") or len(rows) < 40 else None
            head = tag("summary", f"{path.name}: {len(rows) - 1} rows, {of}")
            parts.append(tag("details", head, shown, more, open=is_open))
    return joined(parts)


def _rounded(cell: str) -> str:
    """Return a cell of a table, and of a number with many digits the first five."""
    if not _LONG_NUMBER.fullmatch(cell):
        return cell
    return f"{float(cell):.5g}"


def _recipe(run: RunRecord) -> Markup:
    if not run.settings:
        return Markup("")
    known = origins(run)
    short, notes = _shortened(known)
    own = [(key, value) for key, value in run.settings.items() if known[key] != DEFAULT]
    defaults = [(key, value) for key, value in run.settings.items() if known[key] == DEFAULT]

    def rows(settings: Sequence[tuple[str, Any]]) -> Iterator[tuple[Markup, Markup, str]]:
        for key, value in settings:
            yield tag("code", key), tag("code", _toml(value)), short[key]

    parts = [table(("setting", "value", "from"), rows(own))]
    if defaults:
        head = tag("summary", f"{len(defaults)} settings with their defaults")
        parts.append(tag("details", head, table(("setting", "value", "from"), rows(defaults))))
    parts += [tag("p", note, class_="quiet") for note in notes]
    return joined(parts)


def _shortened(origins: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return where settings come from, in a form that fits a narrow column, and what explains it.

    If there is one file, its lines alone are named; else files are named without their folders, if no two are alike.
    """
    found = {key: known for key, origin in origins.items() if (known := _FILE_AND_LINE.fullmatch(origin))}
    paths = sorted({known["path"] for known in found.values()})
    names = {path: path.rpartition("/")[2] for path in paths}
    if len(paths) == 1:
        lines = {key: f"line {known['line']}" for key, known in found.items()}
        return {**origins, **lines}, [f"Lines are those of {paths[0]}."]
    if len(set(names.values())) < len(names):
        return dict(origins), []
    short = {key: f"{names[known['path']]}:{known['line']}" for key, known in found.items()}
    return {**origins, **short}, [f"{name} is {path}." for path, name in names.items() if name != path]


def _toml(value: Any) -> str:
    return write({"x": value}).removeprefix("x = ").strip()


def _starts(run: RunRecord) -> Markup:
    rows = []
    for number, start in enumerate(run.starts, start=1):
        command = start.get("command")
        written = shlex.join(map(str, command)) if isinstance(command, list) else ""
        ended = str(start.get("ended", "not recorded"))
        where = ", ".join(str(start[key]) for key in ("host", "device") if start.get(key))
        file = recipe_of_start(run.folder, number).name
        began, until = (when_in_words(str(start.get(key) or "")) for key in ("time", "ended_at"))
        rows.append((number, began, until, ended, where, tag("code", written), file))
    conditions = list(conditions_of(run).items())
    if not rows:
        return Markup("")
    return joined(
        [
            table(("start", "began (UTC)", "ended (UTC)", "how", "on", "command", "recipe"), rows),
            tag("h3", "The last start"),
            table(("what", "value"), conditions),
        ]
    )


def _checkpoints(run: RunRecord) -> Markup:
    best = "" if run.best is None else _after(run.best.place)
    rows = []
    for path in run.checkpoints.files():
        try:
            size = bytes_in_words(path.stat().st_size)
        except OSError:
            continue
        kind, _, number = path.stem.partition("-")
        place = number_of(int(number), kind)
        rows.append((text(path.name), place, size, "best" if best == f"after {place}" else ""))
    others = run.checkpoints.others()
    if not rows and not others:
        return Markup("")
    more = tag("p", f"No checkpoints of this run: {', '.join(others)}", class_="quiet") if others else ""
    return joined([table(("file", "after", "size", ""), rows), more])
