"""Says which classes are missing: from a split, or from all cases of a source; and what can be done about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from trainkit import some_of

_LEAST_CASES = 3  # of a source; with fewer, a class may well be absent from all


def problem_of_absent(
    classes: Sequence[str], present: Mapping[str, Mapping[str, int]], may_be_absent: Sequence[str]
) -> str | None:
    """Return a sentence on the classes that are in no case although they must be; None: there are none.

    Args:
        classes: All classes.
        present: Case -> class -> number of voxels.
        may_be_absent: The classes that no case must have.
    """
    absent = [k for k in absent_classes(classes, present) if k not in may_be_absent]
    if not absent:
        return None
    one = len(absent) == 1
    which = f"class {_quoted(absent)} is" if one else f"classes {_quoted(absent)} are"
    it, output = ("it", "its output") if one else ("them", "their outputs")
    rest = [each for each in classes if each not in absent]
    without = f", train without {it}: data.classes = [{_quoted(rest)}]" if rest else ""
    kept = _quoted([*may_be_absent, *absent])
    return f"{which} in no case: check the label values{without}, or keep {output}: data.may_be_absent = [{kept}]"


def note_on_absent(classes: Sequence[str], present: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return a sentence on the classes that are in no case, and are kept; None: there are none."""
    absent = absent_classes(classes, present)
    if not absent:
        return None
    verb, output, them = ("is", "an output", "it") if len(absent) == 1 else ("are", "outputs", "them")
    return (
        f"{some_of(absent)} {verb} in no case, and {output} of the network all the same (data.may_be_absent): it "
        f"learns not to find {them}, except where data.annotated leaves {them} out, and no mean of scores counts {them}"
    )


def absent_classes(classes: Sequence[str], present: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the classes that are in no case."""
    return [k for k in classes if not any(voxels[k] for voxels in present.values())]


def doubts_about_classes(
    classes: Sequence[str], division: Mapping[str, Sequence[str]], present: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    """Yield which classes a split lacks, and why if no other division could help.

    Args:
        classes: All classes.
        division: Split -> names of its cases.
        present: Case -> class -> number of voxels.
    """
    kept = absent_classes(classes, present)  # on purpose, see `problem_of_absent`
    for split, cases in division.items():
        if absent := [k for k in classes if k not in kept and not any(present[name][k] for name in cases)]:
            one = len(absent) == 1
            consequence = "cannot be learned" if split == "train" else f"{'has' if one else 'have'} no score there"
            alone = all(sum(bool(voxels[k]) for voxels in present.values()) == 1 for k in absent)
            reason = f", because only one case has {'it' if one else 'each'}" if alone else ""
            what = f"{some_of(absent)}: {'it' if one else 'they'}"
            yield f'no case of the split "{split}" has {what} {consequence}{reason}'


def doubts_about_sources(
    classes: Sequence[str],
    patterns: Mapping[str, Sequence[str]] | None,
    annotated: Mapping[str, frozenset[str]] | None,
    present: Mapping[str, Mapping[str, int]],
) -> Iterator[str]:
    """Yield which classes are in no case of a whole source, where cases of several sources are told apart by name.

    Args:
        classes: All classes.
        patterns: What ``data.annotated`` says. The lines to paste keep it, and each holds what those before it add.
        annotated: Case -> the classes that were annotated in it; None: all.
        present: Case -> class -> number of voxels.
    """
    sources: dict[str, list[str]] = {}
    for name in present:
        sources.setdefault(re.split(r"[\W_]*\d", name, maxsplit=1)[0], []).append(name)
    if not all(sources) or any(len(names) < _LEAST_CASES for names in sources.values()):
        return  # the names do not tell sources apart
    having = {
        source: {k: sum(bool(present[name][k]) for name in names) for k in classes} for source, names in sources.items()
    }
    usual = [k for k in classes if any(2 * having[source][k] >= len(names) for source, names in sources.items())]
    said = dict(patterns or {})
    for source, names in sources.items():
        known = [k for k in classes if annotated is None or any(k in annotated[name] for name in names)]
        lacking = [k for k in usual if k in known and not having[source][k]]
        rest = [k for k in known if k not in lacking]
        if not lacking or not rest:
            continue
        pattern = _pattern_of(source, names, present)
        said = {old: of for old, of in said.items() if not any(fnmatchcase(name, old) for name in names)}
        said[pattern] = rest
        line = ", ".join(f"{_quoted([old])} = [{_quoted(of)}]" for old, of in said.items())
        one = len(lacking) == 1
        yield (
            f"{some_of(lacking)} {'is' if one else 'are'} in none of the {len(names)} cases {pattern}, but usual in "
            f"others: if {'it was' if one else 'they were'} not annotated there, say so: data.annotated = {{ {line} }}"
        )


def _pattern_of(source: str, names: Sequence[str], every: Iterable[str]) -> str:
    """Return a pattern that fits all cases of a source, and no other case."""
    ends = {re.split(r"\d", name[len(source) :], maxsplit=1)[0] for name in names}
    between = ends.pop() if len(ends) == 1 else ""
    for pattern in (f"{source}*", f"{source}{between}*", f"{source}{between}[0-9]*"):
        if sum(fnmatchcase(name, pattern) for name in every) == len(names):
            return pattern
    return f"{source}{between}[0-9]*"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in names)
