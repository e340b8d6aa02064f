"""What the classes of ``torch.optim.lr_scheduler`` take, read from torch's source text, since importing it is slow."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache

from trainkit import Argument, derives_from, did_you_mean, read_arguments, read_classes

_MODULE = "torch.optim.lr_scheduler"

ELSEWHERE = dict.fromkeys(("optimizer", "last_epoch", "verbose"), "is set by trainkit")
"""Arguments that a recipe does not give."""

_INSTEAD = {
    "ReduceLROnPlateau": 'use = "reduce_on_plateau"',
    "SequentialLR": "the setting warmup, or groups with start_epoch and stop_epoch",
    "ChainedScheduler": "the setting warmup, or groups with start_epoch and stop_epoch",
}


@cache
def signatures() -> Mapping[str, Mapping[str, Argument]]:
    """Return class -> argument -> what is known of it, for every scheduler class.

    Raises:
        RecipeError: Torch is not installed.
    """
    classes = read_classes(_MODULE)
    return {
        name: read_arguments(name, classes)
        for name in classes
        if not name.startswith("_")
        and any(derives_from(name, base, classes) for base in ("LRScheduler", "_LRScheduler"))
    }


def refusal(name: str) -> str | None:
    """Return why a class cannot be used as a function of the clock alone, and what to do instead; None: it can."""
    known = signatures()
    if name not in known:
        return f'torch.optim.lr_scheduler has no scheduler "{name}"; {did_you_mean(name, known)}'
    required = [each.annotation for each in known[name].values() if each.required and each.annotation is not None]
    if "metrics" in read_arguments(name, read_classes(_MODULE), "step"):
        reason = "is driven by a metric, not by the clock alone"
    elif any("Callable" in ast.unparse(annotation) for annotation in required):
        reason = "is driven by a function, which a recipe cannot hold"
    elif "schedulers" in known[name]:
        reason = "is made of other scheduler objects, which a recipe cannot hold"
    else:
        return None
    return f"{name} {reason}; take {_INSTEAD.get(name, 'a scheduler component of your own (one class with `at`)')}"
