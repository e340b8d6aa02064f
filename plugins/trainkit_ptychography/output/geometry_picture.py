"""A picture of the geometry that patterns show without a reconstruction: the curl over angles, the fit over defoci."""

from __future__ import annotations

import numpy as np

from trainkit import SAFE_ON_WHITE
from trainkit_ptychography.direct.geometry import DirectGeometry
from trainkit_ptychography.output.frame import HEAD, MARGIN, WIDTH, Box, Frame, Image

_BLUE, _VERMILION = SAFE_ON_WHITE[:2]
_HEIGHT = 4.2  # inches, of a plot
_BETWEEN = 1.1
_TOLD = "0.45"  # grey


def geometry(found: DirectGeometry, subtitle: str) -> Image:
    """Return the picture.

    Args:
        found: What was found.
        subtitle: Of which run it is, and when.
    """
    frame = Frame(HEAD + _HEIGHT + 1.5, "Geometry without a reconstruction", subtitle)
    width = (WIDTH - 2 * MARGIN - 0.6 - _BETWEEN) / 2
    left = MARGIN + 0.6
    if (turn := found.rotation) is not None:
        axes = frame.axes(Box(left, HEAD + 0.2, width, _HEIGHT))
        axes.plot(turn.angles_A, turn.curls_2A[0], color=_BLUE, label="rows and columns as told")
        axes.plot(turn.angles_A, turn.curls_2A[1], color=_VERMILION, label="exchanged")
        axes.axvline(0.0, color=_TOLD, linestyle=":", label="told")
        axes.axvline(turn.degrees, color="black", linestyle="--", label=f"found: {turn.degrees:.1f}°")
        axes.set_xlabel("turn of the scan / degrees", fontsize=11)
        axes.set_ylabel("curl of centres of mass, of its largest", fontsize=11)
        axes.set_ylim(0.0, 1.05)
        axes.legend(fontsize=9, loc="lower right")
    if (defocus := found.defocus) is not None:
        told = found.told_defocus_angstrom
        axes = frame.axes(Box(left + width + _BETWEEN, HEAD + 0.2, width, _HEIGHT))
        here = 0.0 if told is None else told
        axes.plot(here + defocus.changes_D, defocus.explained_D, color=_BLUE)
        axes.axvline(here, color=_TOLD, linestyle=":", label="told")
        best = here + defocus.change_angstrom
        axes.axvline(best, color="black", linestyle="--", label=f"found: {best:.0f} Å")
        axes.axhline(defocus.by_chance, color=_VERMILION, linewidth=0.8, label="most by chance")
        axes.set_xlabel("defocus / Å" if told is not None else "change of the defocus / Å", fontsize=11)
        axes.set_ylabel("share of changes that a weak phase explains", fontsize=11)
        axes.set_ylim(0.0, 1.1 * float(max(np.max(defocus.explained_D), defocus.explained)))
        axes.legend(fontsize=9)
    for number, words in enumerate(found.in_words().rsplit("; ", 1)):
        frame.text(left, HEAD + _HEIGHT + 1.0 + 0.25 * number, words, fontsize=10)
    return frame.pixels()
