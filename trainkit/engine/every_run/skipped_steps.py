"""Says at the end of a run with fp16 if many of its steps were skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.state import State

_CALIBRATION = 24
"""Skipped steps in which the scaler may find its scale: it halves it from 2^16 on, and less than 2^-8 is unusual."""

_MOST = 0.1
"""The largest share of skipped steps that a run may have beyond these."""


class SkippedSteps(Live):
    """Part of runs with ``precision = "fp16"``: judges how many steps did not update the parameters."""

    def on_run_end(self, state: State) -> None:
        """Call the result doubtful if the parameters were updated in clearly fewer steps than the recipe asks for."""
        number = len(state.skipped)
        if number > _CALIBRATION and number > _MOST * state.step:
            state.doubt(
                f"{number} of {state.step} steps did not update the parameters, because gradients overflowed in fp16; "
                'run.precision = "bf16" has the range of fp32'
            )
