"""What the parts of a run cost in seconds."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class Prices:
    """What the parts of a run cost, in seconds.

    Attributes:
        steps: Key of a stage -> an optimizer step, with the waiting for its data and what hooks do meanwhile.
        validation: Key of a stage -> an evaluation of all splits.
        pictures: Pictures of one epoch; None: there were none.
        checkpoint: A checkpoint; None: there was none.
        ending: What follows the last epoch; None: the run did not get there.
    """

    steps: Mapping[str, float] = attrs.Factory(dict)
    validation: Mapping[str, float] = attrs.Factory(dict)
    pictures: float | None = None
    checkpoint: float | None = None
    ending: float | None = None
