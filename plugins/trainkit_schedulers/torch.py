"""Any schedule of ``torch.optim.lr_scheduler``, replayed on a private optimizer and kept as a table."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import Memory, Point, Problem, RecipeError, Scheduler, argument_problems, component
from trainkit_schedulers.torch_source import ELSEWHERE, refusal, signatures

if TYPE_CHECKING:
    from trainkit import Recipe

_HORIZON = {"T_max": ("T_max",), "total_steps": ("total_steps", "epochs")}
"""Arguments that are the horizon, unless one of these is given."""

_ABSOLUTE = ("max_lr", "base_lr")  # learning rates that take the place of the group's


@component
class TorchSchedule(Scheduler):
    """Any class of ``torch.optim.lr_scheduler``, by name. For schedules that have no component of their own.

    The class is replayed on a private optimizer with one parameter and kept as a table, so that on resume there is
    nothing to restore. Its arguments count ticks of the group's own clock; ``T_max`` and ``total_steps`` are the
    horizon unless they are given. Classes that are driven by a metric or a function, or made of others, are refused.

    Attributes:
        name: The class, for example "StepLR".
        arguments: Its arguments by name, without the optimizer.
    """

    name: str
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what torch would refuse: the class, an argument, or its type. Torch's source is read, not imported."""
        if reason := refusal(self.name):
            yield Problem(reason, "name")
            return
        known = signatures()[self.name]
        left_out = {key: argument._replace(required=False) for key, argument in known.items() if key in _HORIZON}
        yield from argument_problems(self.name, self.arguments, {**known, **left_out}, ELSEWHERE)
        for key in self.arguments.keys() & known.keys() & {*_ABSOLUTE}:
            yield Problem(f"{key} takes the place of the group's own lr, which is not used", f"arguments.{key}", "note")

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Look up what torch's schedule says.

        Raises:
            RecipeError: Torch refuses the arguments, or its schedule is over before the horizon.
        """
        rates, momenta = _table(self.name, json.dumps(self.arguments, sort_keys=True, default=str), horizon, lr)
        t = min(t, horizon - 1)
        return Point(rates[t], momenta[t] if momenta else None)


@lru_cache(maxsize=64)
def _table(name: str, arguments_json: str, horizon: int, lr: float) -> tuple[array[float], array[float]]:
    """Return learning rate and momentum (empty: it is not cycled) of every tick."""
    if reason := refusal(name):
        raise RecipeError(reason)
    import torch
    from torch.optim import lr_scheduler

    arguments = json.loads(arguments_json)
    for key, any_of in _HORIZON.items():
        if key in signatures()[name] and not any(each in arguments for each in any_of):
            arguments[key] = horizon
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, device="cpu"))], lr=lr, momentum=0.9)
    group = optimizer.param_groups[0]
    rates, momenta = array("d"), array("d")
    try:
        schedule = getattr(lr_scheduler, name)(optimizer, **arguments)
        cycles_momentum = getattr(schedule, "cycle_momentum", False)
        optimizer.step()  # there is no gradient: nothing moves. Torch warns if a schedule steps before its optimizer
        for t in range(horizon):
            if t:
                schedule.step()
            rates.append(float(group["lr"]))
            if cycles_momentum:
                momenta.append(float(group["momentum"]))
    except Exception as error:  # whatever torch says of arguments that the recipe gave it
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"torch's {name} fails at tick {len(rates)} of {horizon} with {arguments}: {reason}"
        ) from error
    for t, rate in enumerate(rates):
        if not 0 <= rate < math.inf:
            raise RecipeError(
                f"torch's {name} gives the learning rate {rate} at tick {t} of {horizon} with {arguments}"
            )
    return rates, momenta
