"""Recipes with random slips: each is resolved, or refused by an InvalidRecipe with a place, in a second of CPU time.

As a script: ``python tests/recipe/mutated_recipes.py 100000``, on the recipes that come with trainkit.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text, write
from trainkit.recipe.shipped import shipped

ODD = (
    "nan", "inf", "-1", "0", "1e400", "9223372036854775807", "-9223372036854775808", "9" * 5000, "1.5", "true", '""',
    '"x"', '"\\u0000"', '"a\\u001b[2J"', '"${run.name}"', '"${run"', '"${env.NONE}"', '"$${"', '"a:b"', '"..:x"', '":"',
    '"/"', '"none/none"', "[]", "[[]]", "[1, \"a\", []]", "{}", '{ use = "none" }', "{ use = 3 }", "2026-01-01",
    "07:32:00", '"' + "é" * 5000 + '"', "[" * 40 + "]" * 40, '"~nobody/x"', '["a", "a"]',
)  # fmt: skip
TOKENS = (
    "\x00",
    "\ufeff",
    "\r",
    "=",
    '"',
    "'",
    '"""',
    "[",
    "]]",
    "{",
    "}",
    ".",
    ",",
    "#",
    "\n",
    "\\",
    "${",
    "ü",
    "use",
    "\ud7ff",
)


def mutated(text: str, rng: random.Random) -> str:
    """Return a recipe with one to four random changes."""
    for _ in range(rng.randint(1, 4)):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        way = rng.random()
        if way < 0.55:  # another value
            settings = [number for number, line in enumerate(lines) if re.match(r"[^#\[]*=", line)]
            if settings:
                at = rng.choice(settings)
                lines[at] = lines[at].partition("=")[0] + "= " + rng.choice(ODD)
        elif way < 0.65:
            del lines[at]
        elif way < 0.75:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif way < 0.85:  # another key
            lines[at] = (
                rng.choice(("x", "use", "lr", "epochs", '"é"', "a.b.c", "start_epoch")) + " = " + rng.choice(ODD)
            )
        else:
            place = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + rng.choice(TOKENS) + lines[at][place + rng.randint(0, 3) :]
        text = "\n".join(lines)
    return text


def tried(text: str) -> str | None:
    """Resolve a recipe; return what was wrong with how that went, or None."""
    began = time.process_time()
    said = ""
    try:
        found = resolve_text(text, Path.cwd())
        again = resolve_text(write(found.tree), Path.cwd(), resolved=True)
        if write(again.tree) != write(found.tree):
            said = "the resolved recipe is not the same recipe"
    except InvalidRecipe as error:
        internal = [each.message for each in error.findings if "while it was checked" in each.message]
        said = internal[0] if internal else ""
    except Exception as error:  # what is looked for
        said = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    return said or (f"took {seconds:.1f} s" if seconds > 1 else None)


def main(number: str, texts: Sequence[str] = ()) -> None:
    """Try so many changed recipes, and print what went wrong."""
    texts = texts or [path.read_text(encoding="utf-8") for path in shipped().values()]
    wrong: dict[str, int] = {}
    slowest = 0.0
    for seed in range(int(number)):
        rng = random.Random(seed)
        began = time.process_time()
        if why := tried(mutated(rng.choice(texts), rng)):
            if why not in wrong:
                sys.stdout.write(f"seed {seed}: {why}\n")
                sys.stdout.flush()
            wrong[why] = wrong.get(why, 0) + 1
        slowest = max(slowest, time.process_time() - began)
    sys.stdout.write(f"{number} recipes, {sum(wrong.values())} wrong, the slowest took {slowest:.2f} s\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
