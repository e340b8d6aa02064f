"""``trainkit schema``: writes the JSON Schema with which editors complete and check recipes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trainkit.cli.output import echo
from trainkit.registry import entry_point_groups


@click.command(
    epilog="\b\nExamples:\n"
    "  trainkit schema --out recipe.schema.json\n"
    "  trainkit schema --out recipes/recipe.schema.json\n\n"
    "A recipe that begins with `#:schema ./recipe.schema.json` is then completed and checked while it is written, in "
    "editors that know TOML: see docs/editors.md."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.  [default: print it]")
def command(out: Path | None) -> None:
    """Write the JSON Schema of recipes: the keys of all installed components, with types, ranges, defaults, meanings.

    Write it again after plugins were installed or updated. A schema that was written before is replaced; any other file
    is not.
    """
    from trainkit.cli.plugin_inspection import refuse_harmful, unknown_groups
    from trainkit.errors import RecipeError
    from trainkit.files.writing import written_whole
    from trainkit.recipe.schema import TITLE, recipe_schema

    refuse_harmful(entry_point_groups())
    schema, broken = recipe_schema()
    text = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    for each in broken:
        echo(f"warning: any keys are allowed beside it: {each}", err=True)
    for each in unknown_groups():
        echo(f"warning: it is not in the schema: {each}", err=True)
    if out is None:
        echo(text, nl=False)
        return
    if out.exists():
        try:
            found = json.loads(out.read_text(encoding="utf-8"))
            ours = isinstance(found, dict) and found.get("title") == TITLE
        except (OSError, ValueError):
            ours = False
        if not ours:
            raise RecipeError(f"{out} is there already, and is no schema of recipes; give another name to --out")
    try:
        with written_whole(out) as path:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{out} cannot be written: {error.strerror}") from error
    echo(f"{out}: a recipe beside it that begins with  #:schema ./{out.name}  is checked by editors (docs/editors.md)")
