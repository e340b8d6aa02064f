"""Networks as MONAI bundles: MONAI alone opens them, and computes the same scores for whole images."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from clients.exported import Trained, image, trained
from torch import Tensor, nn

from trainkit import Inference, RecipeError, TrainedModel
from trainkit.inference.plain import Plain
from trainkit_segmentation.export.monai_bundle import MONAIBundle
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.monai_network import MONAINetwork
from trainkit_segmentation.models.unet import UNet

TOLERANCE = 1e-6

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai")  # that a bundle's configs can run code


def written(folder: Path, of: TrainedModel) -> list[str]:
    folder.mkdir()
    return list(MONAIBundle().export(of, folder))


def opened(folder: Path) -> tuple[nn.Module, Any]:
    """Return network and inferer, by MONAI alone."""
    from monai.bundle import ConfigParser, load

    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bundle's configs can run code
        network: nn.Module = load(
            folder.name, bundle_dir=folder.parent, source="github", device="cpu", workflow_type="inference"
        )
    return network.eval(), parser.get_parsed_content("inferer")


def scores(of: Trained, image_BCXYZ: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = of.inference.build(of.facts)(of.network, {"image": image_BCXYZ})["logits"]
    return found


@pytest.mark.parametrize(
    ("model", "size", "inference"),
    [
        (UNet(channels=(2, 4, 8)), (16, 16, 8), SlidingWindow(overlap=0.25, blending="constant")),
        (UNet(channels=(2, 4, 8)), (16, 1, 16), SlidingWindow()),
        (
            DynUNet(channels=(2, 4, 4), strides=((2, 2, 1), (2, 2, 2)), deep_supervision=1),
            (16, 16, 8),
            SlidingWindow(window_size=(24, 16, 8)),
        ),
    ],
    ids=["unet", "planes", "dynunet"],
)
@pytest.mark.parametrize("exclusive", [True, False])
def test_monai_computes_the_same_scores(
    tmp_path: Path, model: SegmentationModel, size: Any, inference: Inference, exclusive: bool
) -> None:
    from monai.bundle import verify_net_in_out

    of = trained(model, size, exclusive)
    of.inference = inference
    written(tmp_path / "b", of)
    configs = tmp_path / "b" / "configs"
    logging.disable(logging.INFO)
    try:
        verify_net_in_out("network_def", str(configs / "metadata.json"), str(configs / "inference.json"), device="cpu")
        network, inferer = opened(tmp_path / "b")
    finally:
        logging.disable(logging.NOTSET)
    whole_BCXYZ = image(1, 28, 20, 18)
    with torch.no_grad():
        assert (inferer(whole_BCXYZ, network) - scores(of, whole_BCXYZ)).abs().max() <= TOLERANCE
    about = json.loads((configs / "metadata.json").read_text())
    outputs = about["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(outputs.values()) == [*(["background"] if exclusive else []), "cyst", "stone"]
    assert about["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "T1", "1": "T2"}
    assert about["trainkit"]["preprocessing"]["spacing_mm"] == [1.0, 1.0, 2.0]
    assert about["trainkit"]["label_values"]["7"] == ["stone"]


def test_an_inference_that_monai_lacks_is_said(tmp_path: Path) -> None:
    of = trained(UNet(channels=(2, 4)))
    of.inference = Plain()
    assert "Plain" in written(tmp_path / "b", of)[0]


def test_a_network_that_is_none_of_monai_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("dynamic_network_architectures")
    from trainkit_segmentation.models.resenc_unet import ResEncUNet

    with pytest.raises(RecipeError, match="no network of MONAI, so a bundle could not be opened with MONAI alone"):
        written(tmp_path / "b", trained(ResEncUNet(channels=(2, 4, 4), blocks=(1, 1, 1))))


@pytest.mark.parametrize("argument", [["$open('owned', 'w')"], "@network", {"_target_": "os.system"}])
def test_an_argument_that_monai_would_run_as_code_is_refused(tmp_path: Path, argument: Any) -> None:
    from trainkit_segmentation.export.monai_bundle_live import refuse_code

    of = MONAINetwork(name="BasicUNet", arguments={"act": argument})
    with pytest.raises(RecipeError, match="MONAI would run it as code"):
        refuse_code("a checkpoint", of.arguments)
    refuse_code("a checkpoint", {"act": ["LEAKYRELU", {"inplace": True}], "features": [2, 2]})
