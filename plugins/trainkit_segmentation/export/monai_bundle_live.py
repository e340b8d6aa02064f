"""Writes a network as a MONAI bundle.

Shapes: B = patches, C = channels, K = scores, X, Y, Z = voxels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from torch import Tensor, nn

from trainkit import BuiltModel, CheckpointError, RecipeError, TrainedModel, without_controls
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.export.arguments import arguments_of
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size

TOLERANCE = 1e-6
"""By how much scores may differ, as a share of the largest one (or of 1): the same operations are computed."""


def write(trained: TrainedModel, folder: Path) -> list[str]:
    """Write a bundle into an empty folder, and return sentences.

    Raises:
        RecipeError: The network is not one of MONAI.
        CheckpointError: It cannot be built, or the bundle computes something else.
    """
    settings = trained.settings()
    if not isinstance(settings, SegmentationModel):
        raise RecipeError(
            f"{trained.name}: {type(settings).__name__} is no network for segmentation, and a MONAI bundle holds "
            "one; --to safetensors writes the weights of any model"
        )
    built = trained.build()
    facts: SegmentationFacts = built.data
    network = built.model.network
    assert isinstance(network, nn.Module)
    flat = settings.flat_axis(facts.patch_size)
    definition = _definition(trained, settings, facts, network)
    inferer, notes = _inferer(built, facts, flat)
    inference = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": definition,
        "network": "$@network_def.to(@device)",
        "inferer": inferer,
    }
    for name in ("configs", "models"):
        (folder / name).mkdir()
    _write_json(folder / "configs" / "inference.json", inference)
    _write_json(folder / "configs" / "metadata.json", _metadata(trained, facts, flat))
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    torch.save(weights, folder / "models" / "model.pt")
    difference = _compare(trained, network, folder, (facts.num_channels, *_without(facts.patch_size, flat)))
    return [
        *notes,
        "the bundle does not prepare images: trainkit.preprocessing in its metadata says how they were prepared",
        f"opened again with MONAI: its scores differ by at most {difference:.1g} from the model's",
    ]


def _definition(
    trained: TrainedModel, settings: SegmentationModel, facts: SegmentationFacts, network: nn.Module
) -> dict[str, Any]:
    cls = type(network)
    if not cls.__module__.startswith("monai."):
        raise RecipeError(
            f"{trained.name}: {cls.__name__} of {cls.__module__.partition('.')[0]} is no network of MONAI, so a bundle "
            "could not be opened with MONAI alone; --to onnx and --to torch_export write it"
        )
    scores = len(facts.classes) + facts.exclusive
    arguments = arguments_of(cls, lambda: settings.network(facts.num_channels, scores, facts.patch_size))
    try:
        json.dumps(arguments)
    except TypeError as error:
        raise RecipeError(
            f"{trained.name}: an argument of {cls.__name__} cannot be written as JSON: {error}"
        ) from error
    refuse_code(trained.name, arguments)
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **arguments}


def refuse_code(name: str, arguments: Any) -> None:
    """Refuse arguments that are more than values for MONAI's parser: they come from a file, maybe a stranger's.

    Args:
        name: The checkpoint, for messages.
        arguments: JSON values.

    Raises:
        RecipeError: An expression, a reference or a class is among them.
    """
    if isinstance(arguments, Mapping):
        for key, value in arguments.items():
            refuse_code(name, str(key))
            refuse_code(name, value)
    elif isinstance(arguments, list):
        for value in arguments:
            refuse_code(name, value)
    elif isinstance(arguments, str) and (arguments[:1] in ("$", "@", "%") or arguments.startswith("_")):
        raise RecipeError(f"{name}: an argument of the network holds {arguments!r}: MONAI would run it as code")


def _inferer(built: BuiltModel, facts: SegmentationFacts, flat: int | None) -> tuple[dict[str, Any], list[str]]:
    """Return the inferer of validation, and a note if MONAI has none like it."""
    chosen, notes = built.inference, []
    if not isinstance(chosen, SlidingWindow):
        notes = [
            f"{type(chosen).__name__}, the run's inference, has no form in MONAI: the bundle covers images with "
            "windows of a patch's size"
        ]
        chosen = SlidingWindow()
    size = chosen.window_size or facts.patch_size
    windows = {"sw_batch_size": chosen.windows_at_once, "overlap": chosen.overlap, "mode": chosen.blending}
    if flat is None:
        return {"_target_": "SlidingWindowInferer", "roi_size": list(size), **windows}, notes
    return {"_target_": "SliceInferer", "spatial_dim": flat, "roi_size": _without(size, flat), **windows}, notes


def _metadata(trained: TrainedModel, facts: SegmentationFacts, flat: int | None) -> dict[str, Any]:
    run = without_controls(str(trained.about.get("run", ""))) or "a network"
    size = _without(facts.patch_size, flat)
    scores = [*(["background"] if facts.exclusive else []), *facts.classes]
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported on {datetime.now(UTC):%Y-%m-%d}"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__).partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": run,
        "task": f"segmentation of {', '.join(facts.classes)}",
        "description": f"The network of the run {run}, exported by trainkit.",
        "authors": "",
        "copyright": "",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": facts.num_channels,
                    "spatial_shape": size,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(k): name for k, name in enumerate(facts.channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(scores),
                    "spatial_shape": size,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(k): name for k, name in enumerate(scores)},
                }
            },
        },
        "trainkit": {
            **trained.about,
            "activation": "softmax over the scores" if facts.exclusive else "sigmoid of each score",
        },
    }


def _compare(trained: TrainedModel, network: nn.Module, folder: Path, shape: tuple[int, ...]) -> float:
    """Return the largest difference between the scores of a bundle and those of its network, for a patch of noise.

    Args:
        trained: The trained model, for messages.
        network: Its network.
        folder: The bundle.
        shape: Channels and voxels of the patch.

    Raises:
        CheckpointError: They differ.
    """
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    opened = parser.get_parsed_content("network_def").eval()
    opened.load_state_dict(torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True))
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = opened(image)
        mine = network.forward(image)  # without the hooks by which a network of planes takes volumes
    if not isinstance(theirs, Tensor):
        raise RecipeError(f"{trained.name}: {type(network).__name__} gives several scores, and a bundle one")
    difference: float = (theirs - mine).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, mine.abs().max().item()):
        raise CheckpointError(
            f"{trained.name}: opened with MONAI, its scores differ from the model's by {difference:.2g}; nothing was "
            "exported"
        )
    return difference


def _without(size: Size, flat: int | None) -> list[int]:
    return [edge for axis, edge in enumerate(size) if axis != flat]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
