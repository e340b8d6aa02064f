"""Combines the torch optimizers of a run: one that groups share, and those that single groups have of their own.

Every optimizer holds its groups from the first step. An optimizer is stepped only while one of its groups trains with
it: a parameter may be in several optimizers, one for each phase of its group, and only the current one may change it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import PartError, blame
from trainkit.without_compiler import make_step, no_compiler_imported

if TYPE_CHECKING:
    from torch import nn, optim

    from trainkit.groups.plan import GroupPlan

_OTHERS = ("params", "lr")  # in an entry of ``param_groups``


class Optimizers:
    """Several torch optimizers that are used like one.

    Attributes:
        members: Name -> torch optimizer.
    """

    def __init__(self, members: Mapping[str, optim.Optimizer]) -> None:
        self.members = dict(members)
        self._stepped: tuple[optim.Optimizer, ...] = tuple(self.members.values())
        self._parameters = self._with_plain_gradients()

    def choose(self, names: Collection[str]) -> None:
        """Set which optimizers `step` updates from now on."""
        self._stepped = tuple(optimizer for name, optimizer in self.members.items() if name in names)
        self._parameters = self._with_plain_gradients()

    def _with_plain_gradients(self) -> list[nn.Parameter]:
        """Return all parameters; none, if an optimizer removes gradients in a way of its own."""
        if any(type(each).zero_grad is not torch.optim.Optimizer.zero_grad for each in self.members.values()):
            return []
        groups = [group for each in self.members.values() for group in each.param_groups]
        return list(dict.fromkeys(each for group in groups for each in group["params"]))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters that `step` may update, in one entry, as a ``GradScaler`` of torch expects them."""
        groups = [group for optimizer in self._stepped for group in optimizer.param_groups]
        return [{"params": list(dict.fromkeys(each for group in groups for each in group["params"]))}]

    def step(self) -> bool:
        """Update the parameters of all groups that train.

        Returns:
            True. What a ``GradScaler`` returns instead, if it does not call this method, is None.
        """
        for optimizer in self._stepped:
            make_step(optimizer)
        return True

    def settings_without_rates(self) -> tuple[tuple[str, Any], ...]:
        """Return all numbers, words and truth values with which `step` updates now, apart from learning rates."""
        return tuple(
            (key, value)
            for optimizer in self._stepped
            for group in optimizer.param_groups
            for key, value in group.items()
            if key not in _OTHERS
        )

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self._parameters:  # as torch's method does, which notes each call for the profiler: 9 µs
            parameter.grad = None
        if not self._parameters:
            for optimizer in self.members.values():
                optimizer.zero_grad(set_to_none=True)

    def settings_of(self, name: str, group: str) -> dict[str, Any]:
        """Return the entry of a parameter group in ``param_groups`` of one of the optimizers."""
        found: dict[str, Any] = next(each for each in self.members[name].param_groups if each["name"] == group)
        return found


def build_optimizers(
    plans: Mapping[str, GroupPlan], parameters: Mapping[str, Mapping[str, nn.Parameter]]
) -> Optimizers:
    """Make the optimizers that the phases of the groups name.

    Args:
        plans: Group -> plan.
        parameters: Group -> parameter name -> parameter.

    Raises:
        PartError: One cannot be made, or lacks a group.
    """
    settings = {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, plan in plans.items():
        for phase in plan.phases:
            settings[phase.optimizer_name] = phase.optimizer
            held = groups.setdefault(phase.optimizer_name, [])
            if all(group["name"] != name for group in held):
                held.append({"name": name, "params": list(parameters[name].values()), "lr": phase.lr, **phase.options})
    members = {}
    for name, held in groups.items():
        where = "optimizer" if len(groups) == 1 else f"optimizer of {', '.join(g['name'] for g in held)}"
        try:
            with no_compiler_imported():
                members[name] = made = settings[name].build(held)
            built = sorted(each["name"] for each in made.param_groups)
        except Exception as error:
            blame(error, f"{where}, in build")
        if built != sorted(each["name"] for each in held):
            raise PartError(f"{where}, in build, must take all groups that it is given; it has {', '.join(built)}")
    return Optimizers(members)
