"""Names under which people know components from other programs, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Collection

_ALIASES = {
    "plateau": "reduce_on_plateau",
    "reducelronplateau": "reduce_on_plateau",
    "cosineannealing": "cosine",
    "cosineannealinglr": "cosine",
    "onecyclelr": "one_cycle",
    "poly": "polynomial",
    "polylr": "polynomial",
    "polynomiallr": "polynomial",
    "constant": "none",
    "constantlr": "none",
    "diceloss": "dice",
    "dicemetric": "dice",
    "diceceloss": "dice_ce",
    "focalloss": "focal",
    "tverskyloss": "tversky",
    "l1loss": "l1",
    "mae": "l1",
    "totalvariation": "tv",
    "basicunet": "plain_unet",
    "residualencoderunet": "resenc_unet",
    "slidingwindowinferer": "sliding_window",
    "simpleinferer": "plain",
    "gradientclipping": "clip_gradients",
    "clipgradnorm": "clip_gradients",
    "summarywriter": "tensorboard",
}
"""Other name, in small letters and without marks -> name here. A name stands here only if both mean the same."""


_STEP_LR = 'use = "torch", name = "StepLR", arguments = { step_size = 30 }'
_MULTI_STEP_LR = 'use = "torch", name = "MultiStepLR", arguments = { milestones = [30, 60] }'
_EXPONENTIAL_LR = 'use = "torch", name = "ExponentialLR", arguments = { gamma = 0.95 }'
_WARM_UP = 'use = "cosine", warmup = 5; every schedule has a warm-up of its own, in ticks'
_SQUARES = 'squares of differences are taken by "amplitude" (of amplitudes) and "intensity", for patterns'

_WAYS = {
    "trainkit.schedulers": {
        "step": _STEP_LR,
        "steplr": _STEP_LR,
        "multistep": _MULTI_STEP_LR,
        "multisteplr": _MULTI_STEP_LR,
        "exponential": _EXPONENTIAL_LR,
        "exponentiallr": _EXPONENTIAL_LR,
        "cosineannealingwarmrestarts": 'use = "torch", name = "CosineAnnealingWarmRestarts", arguments = { T_0 = 10 }',
        "linearlr": 'use = "torch", name = "LinearLR"; for a warm-up: warmup = 5, in any schedule',
        "linear": 'use = "polynomial", power = 1.0; it falls in a straight line',
        "warmup": _WARM_UP,
        "linearwarmup": _WARM_UP,
        "warmupcosine": 'use = "cosine", warmup = 5',
        "cosinewarmup": 'use = "cosine", warmup = 5',
    },
    "trainkit.optimizers": {
        name.lower(): f'use = "torch", name = "{name}"'
        for name in ("RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Adafactor", "Rprop")
    },
    "trainkit.losses": dict.fromkeys(("mse", "mseloss", "l2", "l2loss"), _SQUARES),
}
"""Kind -> name, as above, for which there is no component here -> what to write instead."""


def way_to(kind: str, name: str) -> str | None:
    """Return what a recipe writes for a name that is no component here; None: it is not known.

    Args:
        kind: The group of entry points, for example ``trainkit.schedulers``.
        name: The name.

    Example:
        >>> way_to("trainkit.optimizers", "RMSprop")
        'use = "torch", name = "RMSprop"'
    """
    return _WAYS.get(kind, {}).get(_plain(name))


def known_as(name: str, known: Collection[str]) -> str | None:
    """Return the known name that another one stands for; None: there is none, or more than one.

    Capitals and marks make no difference, so ``UNet`` stands for ``unet``, and ``one-cycle`` for ``one_cycle``.

    Args:
        name: A name that is not known.
        known: The known ones.

    Example:
        >>> known_as("ReduceLROnPlateau", ["cosine", "reduce_on_plateau"])
        'reduce_on_plateau'
        >>> known_as("ReduceLROnPlateau", ["cosine"])
    """
    plain = _plain(name)
    alike = {each for each in known if _plain(each) == plain}
    if not alike and (other := _ALIASES.get(plain)) in known:
        return other
    return alike.pop() if len(alike) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[-_ .]", "", name).lower()
