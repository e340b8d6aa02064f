"""Finds the mistakes of an edit before a run is asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.engine import journal
from trainkit.engine.resumed_groups import ask_early
from trainkit.engine.saved_recipe import recipe_then, resolve_saved
from trainkit.errors import RecipeError

if TYPE_CHECKING:
    from trainkit.engine.identity import Identity
    from trainkit.engine.journal import OnExtend
    from trainkit.recipe.structure import AllowCode


def refuse_edit(
    folder: Path,
    identity: Identity,
    newest: Mapping[str, Any] | None,
    sets: Sequence[str],
    epoch: int | None,
    on_extend: OnExtend | None,
    allow_code: AllowCode,
) -> None:
    """Make sure that a run can go on with other settings, as far as its files tell.

    Args:
        folder: The run folder.
        identity: What run it is.
        newest: The header of its newest checkpoint; None: there is none yet.
        sets: The settings.
        epoch: The number of finished epochs after which they are to take effect; None: the next time.
        on_extend: How learning rates are to continue.
        allow_code: Which classes that the recipe names as ``module:Class`` may be imported.

    Raises:
        RecipeError: The changed recipe has mistakes, the epoch is over, or ``on_extend`` must be given.
    """
    if identity.recipe is None:
        raise RecipeError(
            f"{folder}: an older version of trainkit wrote it, so its recipe is not known; stop the run, "
            "and resume it with other settings"
        )
    if epoch is not None and newest is not None and newest["epoch"] >= epoch:
        raise RecipeError(
            f"{folder}: {newest['epoch']} epochs are finished already, so nothing can be changed after {epoch}"
        )
    waiting = [each for each in journal.read(folder) if each.do == "edit" and each.is_open]
    components = newest["components"] if newest is not None else ()
    before = (*journal.sets_of(waiting),)
    resolved = resolve_saved(identity.recipe, components, f"the recipe of {folder}", (*before, *sets), allow_code)
    if epoch is not None and epoch > resolved.recipe.run.num_epochs():
        raise RecipeError(f"{folder}: the run ends after {resolved.recipe.run.num_epochs()} epochs, before {epoch}")
    if on_extend is None and newest is not None:
        then, _ = recipe_then(identity.recipe, components, resolved, allow_code)
        ask_early(resolved.recipe, then, newest)
