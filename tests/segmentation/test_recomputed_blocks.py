"""Which parts of the networks are computed again in the backward pass: the same gradient takes less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from same import same

from trainkit import recompute
from trainkit_segmentation.models.peak_memory import PeakMemory
from trainkit_segmentation.models.unet import UNet

from .test_models import SMALL, patch_for, volumes

NONE = "monai's SegResNetDS"
"""A network whose parts are no building blocks by their module: a run with the setting refuses it."""


def gradients(model: Any, patch: tuple[int, ...]) -> dict[str, Any]:
    torch.manual_seed(5)
    outputs = model({"image": torch.randn(1, 1, *patch)})
    sum(each.square().mean() for each in outputs.values()).backward()
    return {name: each.grad for name, each in model.named_parameters()} | dict(model.state_dict())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("swin_unetr", "vnet") else [])
        for name in SMALL
        if name != NONE
    ],
)
def test_the_gradient_of_each_network_is_the_same_to_the_bit(name: str) -> None:
    data = volumes(patch_for(SMALL[name]))
    kept = SMALL[name].build(data)
    again = copy.deepcopy(kept)
    assert recompute(SMALL[name].recomputed_blocks(again)) > 0
    assert same(gradients(kept, data.patch_size), gradients(again, data.patch_size))


def test_a_network_without_building_blocks_has_none() -> None:
    assert recompute(SMALL[NONE].recomputed_blocks(SMALL[NONE].build(volumes(32)))) == 0


def test_a_step_of_a_u_net_takes_a_good_part_less_memory() -> None:
    data = volumes(48)
    peaks = []
    for again in (False, True):
        settings = UNet(channels=(16, 32, 64, 128))
        model = settings.build(data).to("meta")
        if again:
            recompute(settings.recomputed_blocks(model))
        with PeakMemory() as memory:
            model({"image": torch.empty(2, 1, *data.patch_size, device="meta")})["logits"].sum().backward()
        peaks.append(memory.peak)
    assert peaks[1] < 0.75 * peaks[0], peaks
