"""Writes weights as safetensors."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, view_as_real

from trainkit.contracts import TrainedModel
from trainkit.errors import RecipeError
from trainkit.export.metadata import as_text
from trainkit.words import bytes_in_words


def write(trained: TrainedModel, path: Path) -> list[str]:
    """Write the weights of a model, and return a sentence.

    Raises:
        RecipeError: The model has no weights.
    """
    tensors = {name: value for name, value in trained.weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RecipeError(f"{trained.name}: the model has no weights that could be written")
    complex_ones = sorted(name for name, value in tensors.items() if value.is_complex())
    others = {name: value for name, value in trained.weights.items() if not isinstance(value, Tensor)}
    about = {
        **trained.about,
        **({"complex": complex_ones} if complex_ones else {}),
        **({"state_without_tensors": others} if others else {}),
    }
    # Tensors that share memory are refused by safetensors: each is written on its own.
    written = {
        name: (view_as_real(value.resolve_conj()) if name in complex_ones else value).detach().clone().contiguous()
        for name, value in tensors.items()
    }
    save_file(written, path, {"format": "pt", **as_text(about)})
    size = bytes_in_words(sum(value.nbytes for value in written.values()))
    pairs = f"; complex, as pairs of real numbers: {', '.join(complex_ones)}" if complex_ones else ""
    return [f"{len(written)} tensors, {size}{pairs}"]
