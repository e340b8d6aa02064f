"""Networks for volumes: channels and sizes from the data, groups, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients.volumes import LiveVolumes

from trainkit import RecipeError
from trainkit.recipe.resolve import resolve, resolve_text
from trainkit.recipe.shipped import shipped
from trainkit_segmentation.models.attention_unet import AttentionUNet
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.monai_network import MONAINetwork
from trainkit_segmentation.models.monai_source import networks
from trainkit_segmentation.models.plain_unet import PlainUNet
from trainkit_segmentation.models.planned_unet import PlannedUNet
from trainkit_segmentation.models.resenc_unet import ResEncUNet
from trainkit_segmentation.models.segresnet import SegResNet
from trainkit_segmentation.models.swin_unetr import SwinUNETR
from trainkit_segmentation.models.unet import UNet
from trainkit_segmentation.models.unetr import UNETR
from trainkit_segmentation.models.vnet import VNet

SMALL: dict[str, SegmentationModel] = {
    "unet": UNet(channels=(2, 4, 8)),
    "unet without residual units": UNet(channels=(2, 4, 4), num_res_units=0),
    "dynunet": DynUNet(channels=(2, 4, 4, 4), deep_supervision=2),
    "anisotropic dynunet": DynUNet(channels=(2, 4, 4), strides=((2, 2, 1), (2, 2, 2)), residual=True),
    "plain_unet": PlainUNet(channels=(2, 4, 4), strides=((2, 2, 1), (2, 2, 2)), convolutions=1),
    "resenc_unet": ResEncUNet(channels=(2, 4, 4, 4), blocks=(1, 2, 1, 1), deep_supervision=1),
    "anisotropic resenc_unet": ResEncUNet(channels=(2, 4, 4), strides=((2, 2, 1), (2, 2, 2)), blocks=(1, 1, 1)),
    "segresnet": SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,)),
    "segresnet, transposed": SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,), upsampling="transposed"),
    "attention_unet": AttentionUNet(channels=(2, 4, 8)),
    "unetr": UNETR(feature_size=2, hidden_size=12, mlp_dim=12, num_heads=2),
    "swin_unetr": SwinUNETR(feature_size=12),
    "vnet": VNet(),
    "monai's BasicUNet": MONAINetwork(name="BasicUNet", arguments={"features": [2, 2, 4, 4, 4, 2]}),
    "monai's SegResNetDS": MONAINetwork(name="SegResNetDS", arguments={"init_filters": 8, "dsdepth": 2}),
}


def volumes(size: int | tuple[int, int, int] = 32, exclusive: bool = True) -> LiveVolumes:
    patch = (size,) * 3 if isinstance(size, int) else size
    return LiveVolumes(patch, exclusive, 40, seed=0)


def patch_for(settings: SegmentationModel) -> tuple[int, int, int]:
    if isinstance(settings, MONAINetwork):
        return (32, 32, 32)
    if isinstance(settings, SwinUNETR):  # a larger patch takes it seconds
        return (64, 32, 32)
    x, y, z = (2 * divisor for divisor in settings.divisors())
    return (x, y, z)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "swin_unetr" else []) for name in SMALL]
)
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_network_gives_a_score_for_each_class_and_voxel(name: str, exclusive: bool) -> None:
    data = volumes(patch_for(SMALL[name]), exclusive)
    model = SMALL[name].build(data).eval()
    with torch.no_grad():
        outputs = model({"image": torch.randn(1, 1, *data.patch_size)})
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "logits": (1, 3 if exclusive else 2, *data.patch_size)
    }


@pytest.mark.parametrize("name", SMALL)
def test_its_groups_are_all_there_are_and_share_out_its_parameters(name: str) -> None:
    settings = SMALL[name]
    model = settings.build(volumes(patch_for(settings)))
    groups = {group: list(members) for group, members in settings.parameter_groups(model).items()}
    assert groups.keys() == settings.groups().keys()
    assert all(groups.values())
    members = [id(parameter) for each in groups.values() for parameter in each]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, each in SMALL.items() if "head" in each.groups()])
def test_the_head_is_all_whose_shape_follows_the_number_of_classes(name: str) -> None:
    settings = SMALL[name]
    two, four = volumes(patch_for(settings)), volumes(patch_for(settings))
    four.classes = ("a", "b", "c", "d")
    shapes = [dict(settings.build(data).network.named_parameters()) for data in (two, four)]
    grown = {key for key in shapes[0] if shapes[0][key].shape != shapes[1][key].shape}
    assert grown
    assert {settings.group_of(key) for key in grown} == {"head"}

    first, *_ = settings.build(two).network.state_dict()
    assert settings.group_of(first) == "encoder"


def test_deep_supervision_gives_more_scores_while_training_only() -> None:
    data = volumes()
    model = SMALL["dynunet"].build(data)
    image = torch.randn(2, 1, 32, 32, 32)
    assert set(model.train()({"image": image})) == {"logits", "logits_1", "logits_2"}
    assert set(model.eval()({"image": image})) == {"logits"}
    heads = SMALL["resenc_unet"].build(data).train()({"image": image})
    assert {key: value.shape[2] for key, value in heads.items()} == {"logits": 32, "logits_1": 16}
    coarse = SMALL["monai's SegResNetDS"].build(data).train()({"image": image})["logits_1"]
    assert coarse.shape == (2, 3, 16, 16, 16)


LEVELS: dict[str, Any] = {"channels": (2, 4, 4), "kernel_sizes": ((3, 3, 1), (3, 3, 3), (3, 3, 3))}


@pytest.mark.parametrize(
    ("settings", "theirs_is", "arguments"),
    [
        (ResEncUNet(**LEVELS), "ResidualEncoderUNet", {"n_blocks_per_stage": [1, 3, 4], "n_conv_per_stage_decoder": 1}),
        (PlainUNet(**LEVELS), "PlainConvUNet", {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}),
    ],
)
def test_a_network_of_nnunet_is_its_own_with_the_numbers_of_layers_that_it_plans(
    settings: PlannedUNet, theirs_is: str, arguments: dict[str, Any]
) -> None:
    from dynamic_network_architectures.architectures import unet
    from torch import nn

    ours = settings.build(volumes(16)).network.eval()
    theirs = getattr(unet, theirs_is)(
        input_channels=1,
        n_stages=3,
        features_per_stage=[2, 4, 4],
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 1], [3, 3, 3], [3, 3, 3]],
        strides=[1, 2, 2],
        num_classes=3,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        **arguments,
    ).eval()
    weights = theirs.state_dict()
    unused = {key for key in weights if key.startswith("decoder.seg_layers.0")}
    assert weights.keys() - ours.state_dict().keys() == unused
    ours.load_state_dict({key: value for key, value in weights.items() if key not in unused})
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-5)


def test_to_check_the_patch_neither_draws_random_numbers_nor_changes_the_network() -> None:
    data = volumes()
    torch.manual_seed(3)
    from monai.networks.nets.dynunet import DynUNet as Network

    settings = SMALL["dynunet"]
    assert isinstance(settings, DynUNet)
    straight = settings.network(1, 3, data.patch_size)
    after = torch.rand(4)
    torch.manual_seed(3)
    built = settings.build(data).network
    assert torch.equal(torch.rand(4), after)
    assert isinstance(built, Network)
    for key, value in straight.state_dict().items():
        assert torch.equal(built.state_dict()[key], value), key


# ---- what they refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        (UNet(), 36, r"a patch of 36 × 36 × 36 does not fit .* multiples of 8 × 8 × 8: 40 × 40 × 40 does"),
        (SMALL["anisotropic dynunet"], (16, 16, 15), r"multiples of 4 × 4 × 2: 16 × 16 × 16 does"),
        (SegResNet(), 20, r"multiples of 8"),
        (AttentionUNet(), 20, r"multiples of 8"),
        (UNETR(), 40, r"multiples of 16"),
        (SwinUNETR(), 48, r"multiples of 32 × 32 × 32: 64 × 64 × 64 does"),
        (VNet(), 24, r"multiples of 16"),
        (UNet(), 8, r"cannot take a patch of 8 × 8 × 8: .*more than 1 spatial element.*data\.patch_size"),
        (SMALL["monai's BasicUNet"], 20, r"cannot take a patch of 20 × 20 × 20|gives scores of"),
        (MONAINetwork(name="DenseNet121"), 32, r"not a network for segmentation"),
        (MONAINetwork(name="BasicUNet", arguments={"features": [2, 2]}), 32, r"MONAI cannot make it .*ValueError"),
    ],
)
def test_a_patch_that_it_cannot_take_is_refused_before_the_first_step(
    settings: SegmentationModel, size: Any, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        settings.build(volumes(size))


def findings(model: str, patch: str = "[16, 16, 16]", rest: str = "") -> str:
    text = f"""
trainkit = 1
[run]
epochs = 1
[monitor]
metric = "val/dice"
mode = "max"
[data]
use = "clients.volumes:Volumes"
patch_size = {patch}
[model]
{model}
[losses.overlap]
use = "dice_ce"
[metrics.overlap]
use = "dice"
{rest}
"""
    with pytest.raises(RecipeError) as caught:
        resolve_text(text, Path.cwd())
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            'use = "unet"\nchannels = [4, 8, 16]\nstrides = [2]',
            "3 levels (channels) have 2 strides between",
        ),
        ('use = "unet"\nstrides = [2, 2, 0]', "model.strides: must be at least 1 each, got [2, 2, 0]"),
        (
            'use = "dynunet"\nchannels = [4, 8, 8]\nstrides = [[2, 2, 0], [2, 2, 2]]',
            "model.strides: must be at least 1 each",
        ),
        ('use = "unet"\nchannels = [4, 8, 16, 32, 64, 128]', "multiples of 32 × 32 × 32: 32 × 32 × 32 does"),
        ('use = "dynunet"\nchannels = [4, 8, 16]\ndeep_supervision = 2', "has 1 that can be supervised"),
        ('use = "dynunet"\nchannels = [4, 8]', "model.channels: at least 3 levels are needed, got 2"),
        ('use = "resenc_unet"\nchannels = [4, 8, 16]\nblocks = [1, 3]', "3 levels (channels), got blocks for 2"),
        ('use = "resenc_unet"\nchannels = [4]', "model.channels: at least 2 levels are needed, got 1"),
        ('use = "segresnet"\ninit_filters = 12', "must be a multiple of 8, got 12"),
        ('use = "swin_unetr"\nfeature_size = 16', "must be a multiple of 12"),
        ('use = "unetr"\nhidden_size = 100', "must be a multiple of num_heads = 12"),
        ('use = "monai_network"\nname = "BasicUnett"', 'did you mean "BasicUNet"'),
        ('use = "monai_network"\nname = "ResNet"', "it is no network for segmentation"),
        ('use = "monai_network"\nname = "BasicUNet"\narguments = { feature = [1] }', 'did you mean "features"'),
        ('use = "monai_network"\nname = "BasicUNet"\narguments = { in_channels = 1 }', "comes from the data"),
    ],
)
def test_check_finds_it_without_building(model: str, said: str) -> None:
    assert said in findings(model)


def test_a_deterministic_run_that_cuda_would_refuse_is_told_so_beforehand() -> None:
    recipe = shipped()["segmentation_synthetic"]
    sets = ('model={ use = "segresnet" }', "data.patch_size=[16, 16, 16]", "run.deterministic=true")
    (note,) = resolve(recipe, sets).notes
    assert 'model.upsampling: has no deterministic form on CUDA, and run.deterministic is true; "transposed"' in str(
        note
    )
    for other in ("run.device=cpu", "model.upsampling=transposed", "run.deterministic=false"):
        assert not resolve(recipe, (*sets, other)).notes


def test_what_is_read_of_monai_is_what_monai_has() -> None:
    import inspect

    import monai.networks.nets as nets

    for name, network in networks().items():
        signature = inspect.signature(inspect.unwrap(getattr(nets, name).__init__))
        arguments = {
            key: each.default is each.empty
            for key, each in signature.parameters.items()
            if key != "self" and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        }
        assert {key: each.required for key, each in network.items()} == arguments, name
