"""Learning-rate schedules, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import lazy_names

if TYPE_CHECKING:
    from trainkit_schedulers.cosine import Cosine
    from trainkit_schedulers.none import NoSchedule
    from trainkit_schedulers.one_cycle import OneCycle
    from trainkit_schedulers.polynomial import Polynomial
    from trainkit_schedulers.reduce_on_plateau import ReduceOnPlateau
    from trainkit_schedulers.torch import TorchSchedule
else:  # hidden from type checkers, which would take every name of a module that has __getattr__
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".cosine": ("Cosine",),
            ".none": ("NoSchedule",),
            ".one_cycle": ("OneCycle",),
            ".polynomial": ("Polynomial",),
            ".reduce_on_plateau": ("ReduceOnPlateau",),
            ".torch": ("TorchSchedule",),
        },
    )

__all__ = [
    "Cosine",
    "NoSchedule",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "TorchSchedule",
]
