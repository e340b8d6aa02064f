"""Colours that can be told apart, also by people who see fewer of them.

A test simulates normal vision, protanopia, deuteranopia and tritanopia, and holds each two colours of a palette against
each other.
"""

from __future__ import annotations

SAFE_ON_DARK = ("#fff02d", "#e14b0f", "#9687ff", "#87ffc3", "#ffb4ff", "#2d965a", "#c369a5", "#96c369")
"""Colours for lines and areas on a dark or grey image: yellow, vermilion, violet, mint, pink, green, mauve, olive.

They were found by a search for the eight bright colours whose smallest difference (CIEDE2000), over all pairs and all
four kinds of vision, is largest: 14.8. Of the palette of Okabe and Ito without black it is 10.9.
"""

SAFE_ON_WHITE = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00", "#000000")
"""Colours for lines on white: blue, vermilion, green, sky blue, purple, orange, black.

Source:
    Okabe and Ito, "Color universal design" (2008), without its yellow, which is too bright for a thin line.
"""
