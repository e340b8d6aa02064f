"""Networks as graphs: the same scores when another library opens them, at other sizes too, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clients.exported import Trained, image, trained
from torch import Tensor, nn

from trainkit import CheckpointError, ExampleBatch, Exporter, component
from trainkit.export.onnx import ONNX
from trainkit.export.torch_export import TorchExport
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.unet import UNet

pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5
"""By how much scores of about 1 may differ in float32, when another library adds up in another order."""


def export(exporter: Exporter, of: Trained, path: Path) -> list[str]:
    return list(exporter.export(of, path))


def expected(of: Trained, image_BCXYZ: Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        logits: Tensor = of.network({"image": image_BCXYZ})["logits"]
    return logits.numpy()


SIZES = ((1, 16, 16, 8), (3, 24, 8, 16))


@pytest.mark.slow
def test_onnx_runtime_computes_the_same_scores_for_any_number_of_patches_of_any_size(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    of = trained(UNet(channels=(2, 4, 8)))
    said = export(ONNX(), of, tmp_path / "a.onnx")
    assert "ONNX Runtime" in said[-1]
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("image", ["batch", 2, "x", "y", "z"])]
    for size in SIZES:
        (scores,) = session.run(["logits"], {"image": image(*size).numpy()})
        assert np.abs(scores - expected(of, image(*size))).max() <= TOLERANCE
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["channels"]) == ["T1", "T2"]
    assert json.loads(about["label_values"]) == {"0": [], "3": ["cyst"], "7": ["stone"]}
    assert json.loads(about["preprocessing"])["spacing_mm"] == [1.0, 1.0, 2.0]
    assert json.loads(about["sizes_that_may_vary"]) == {"batch": 1, "x": 4, "y": 4, "z": 4}


@pytest.mark.slow
def test_torch_opens_the_graph_without_the_code_of_the_network(tmp_path: Path) -> None:
    of = trained(DynUNet(channels=(2, 4, 4), strides=((2, 2, 1), (2, 2, 2)), deep_supervision=1))
    export(TorchExport(), of, tmp_path / "a.pt2")
    extra = {"trainkit.json": ""}
    opened = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()
    for size in SIZES:
        (scores,) = opened(image(*size))
        assert np.abs(scores.detach().numpy() - expected(of, image(*size))).max() <= TOLERANCE
    about = json.loads(extra["trainkit.json"])
    assert about["scores"] == ["background", "cyst", "stone"]
    assert about["activation"].startswith("softmax")
    assert about["sizes_that_may_vary"] == {"batch": 1, "x": 4, "y": 4, "z": 2}


class Placed(nn.Module):
    """Adds a number to each voxel of a patch, as transformers do."""

    def __init__(self, network: nn.Module, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.model, self.place = network.model, nn.Parameter(torch.randn(patch_size))

    def forward(self, image_BCXYZ: Tensor) -> Tensor:
        scores: Tensor = self.model(image_BCXYZ + self.place)
        return scores


@component
class OfOneSize(UNet):
    """A network that takes patches of one size alone."""

    def network(self, in_channels: int, out_channels: int, patch_size: tuple[int, int, int]) -> nn.Module:
        return Placed(super().network(in_channels, out_channels, patch_size), patch_size)


@pytest.mark.slow
def test_a_network_of_one_size_alone_is_exported_for_it_and_says_so(tmp_path: Path) -> None:
    of = trained(OfOneSize(channels=(2, 4)), (32, 16, 16))
    said = export(TorchExport(), of, tmp_path / "a.pt2")
    assert "the sizes are fixed to those of a patch" in said[0]
    opened = torch.export.load(tmp_path / "a.pt2").module()
    (scores,) = opened(image(3, 32, 16, 16))
    assert np.abs(scores.detach().numpy() - expected(of, image(3, 32, 16, 16))).max() <= TOLERANCE


@component
class OfStatedSize(OfOneSize):
    """A network that says itself that it takes patches of one size alone."""

    def example(self, data: SegmentationFacts) -> ExampleBatch:
        return super().example(data)._replace(sizes={}, multiples={})


@pytest.mark.slow
def test_a_network_that_leaves_no_size_open_is_exported_without_a_note(tmp_path: Path) -> None:
    of = trained(OfStatedSize(channels=(2, 4)), (32, 16, 16), exclusive=False)
    assert not [line for line in export(TorchExport(), of, tmp_path / "a.pt2") if "fixed" in line]
    extra = {"trainkit.json": ""}
    (scores,) = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()(image(3, 32, 16, 16))
    assert np.abs(scores.detach().numpy() - expected(of, image(3, 32, 16, 16))).max() <= TOLERANCE
    about = json.loads(extra["trainkit.json"])
    assert about["scores"] == ["cyst", "stone"]  # which may overlap
    assert about["activation"].startswith("sigmoid")
    assert about["sizes_that_may_vary"] == {"batch": 1}


@pytest.mark.slow
def test_planes_keep_the_axis_on_which_they_are_one_voxel_thick(tmp_path: Path) -> None:
    of = trained(UNet(channels=(2, 4, 8)), (16, 16, 1))
    export(TorchExport(), of, tmp_path / "a.pt2")
    opened = torch.export.load(tmp_path / "a.pt2").module()
    (scores,) = opened(image(3, 24, 8, 1))
    assert np.abs(scores.detach().numpy() - expected(of, image(3, 24, 8, 1))).max() <= TOLERANCE


def test_a_graph_that_computes_something_else_is_not_exported(tmp_path: Path) -> None:
    from trainkit.export.graph import Graph, compare

    of = trained(UNet(channels=(2, 4)))
    example = of.model.example(of.facts)

    class Positional(nn.Module):
        def forward(self, image_BCXYZ: Tensor) -> tuple[Tensor]:
            return (image_BCXYZ,)

    graph = Graph(None, Positional(), example, ())  # type: ignore[arg-type]
    assert "at most 1e-06" in compare(graph, of, lambda tensors: [tensors[0] + 1e-6], "a library")
    for changed in (lambda x: x + 0.01, lambda x: x * float("nan")):
        with pytest.raises(CheckpointError, match="opened with a library, logits differs"):
            compare(graph, of, lambda tensors, changed=changed: [changed(tensors[0])], "a library")
    with pytest.raises(CheckpointError, match="shape"):
        compare(graph, of, lambda tensors: [tensors[0][:, :1]], "a library")
