"""Learning rates in memory of the device, for steps that are recorded once and repeated with other rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from trainkit.groups.optimizers import Optimizers


class DeviceRates:
    """The learning rates of all groups of all optimizers: numbers of one tensor, of which each group holds its own.

    A recorded step has the place of a rate, and so follows what is written there. All rates that have changed go to
    the device by one copy. They are float32, as torch's fused kernels require it.

    Args:
        optimizers: The optimizers, before their first step and before a state is loaded into them.
        device: The device of their parameters.
    """

    def __init__(self, optimizers: Optimizers, device: torch.device) -> None:
        entries = [entry for member in optimizers.members.values() for entry in member.param_groups]
        self._rates = [float(entry["lr"]) for entry in entries]
        self._on_device = torch.tensor(self._rates, dtype=torch.float32, device=device)
        self._place = {id(entry): place for place, entry in enumerate(entries)}
        self._has_changed = False
        for place, entry in enumerate(entries):
            entry["lr"] = self._on_device[place]
            if "capturable" in entry:  # torch: that the optimizer counts its steps on the device, too
                entry["capturable"] = device.type == "cuda"
        for member in optimizers.members.values():  # it would warn of the steps that are not recorded
            vars(member)["_warned_capturable_if_run_uncaptured"] = True

    def set(self, entry: dict[str, Any], lr: float) -> None:
        """Set the rate of an optimizer's entry for a group, from the next `write` on."""
        place = self._place[id(entry)]
        self._has_changed |= self._rates[place] != lr
        self._rates[place] = lr

    def write(self) -> None:
        """Bring the rates to the device, if one has changed, without waiting for it."""
        if self._has_changed:
            self._has_changed = False
            self._on_device.copy_(torch.tensor(self._rates, dtype=torch.float32), non_blocking=True)
