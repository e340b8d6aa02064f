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
