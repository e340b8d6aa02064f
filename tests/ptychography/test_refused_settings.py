"""What a model that computes complex numbers makes of settings that other models can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve_text

TEXT = """
trainkit = 1
[run]
epochs = 2
[data]
use = "diffraction_simulated"
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
"""


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRecipe, match=r"run.precision: .*complex numbers.*torch cannot scale their gradients"):
        resolve_text(TEXT, Path.cwd(), ["run.precision=fp16"])


def test_an_average_of_the_weights_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRecipe, match=r"cannot be used with \[ema\]: validation fits the positions"):
        resolve_text(TEXT, Path.cwd(), ["ema.decay=0.9"])


def test_bf16_is_only_noted_to_have_no_effect() -> None:
    (note,) = resolve_text(TEXT, Path.cwd(), ["run.precision=bf16"]).notes
    assert "bf16 changes nothing" in str(note)
