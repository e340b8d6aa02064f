"""Pictures are volumes of one slice, and networks of planes are trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
import torch
from clients.opened_data import opened
from inspected import inspected
from PIL import Image
from torch import nn

from trainkit import DataError, RecipeError
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.files.images import read_header, read_integers, read_voxels
from trainkit_segmentation.models.attention_unet import AttentionUNet
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.segresnet import SegResNet
from trainkit_segmentation.models.unet import UNet
from trainkit_segmentation.models.unetr import UNETR
from trainkit_segmentation.patches.augmentation import Affine, Augmentation, Elastic
from trainkit_segmentation.patches.augmentation_live import Source, augment, cut_patches
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.same_cases import SameCases

RNG = np.random.default_rng(0)
PLANE = (32, 48, 1)


@pytest.mark.parametrize(
    ("name", "dtype", "channels"),
    [
        *(("a.png", "u1", 1), ("a.png", "u1", 3), ("a.png", "u1", 4), ("a.png", "u2", 1)),
        *(("a.tif", "u1", 3), ("a.tiff", "u2", 1), ("a.tif", "f4", 1), ("a.bmp", "u1", 1)),
    ],
)
def test_pixels_are_those_that_were_written_and_where_itk_has_them(tmp_path, name, dtype, channels):
    pixels = RNG.integers(0, 200, (5, 7, channels)).astype(dtype)
    image = SimpleITK.GetImageFromArray(pixels if channels > 1 else pixels[..., 0], isVector=channels > 1)
    SimpleITK.WriteImage(image, str(tmp_path / name))
    header, voxels_CXYZ = read_voxels(tmp_path / name)
    assert np.array_equal(np.moveaxis(voxels_CXYZ[..., 0], 0, -1).swapaxes(0, 1), pixels)
    assert np.array_equal(header.affine, np.diag([-1.0, -1.0, 1.0, 1.0]))


def test_a_palette_and_single_bits_are_label_values_and_pages_are_slices(tmp_path):
    values = RNG.integers(0, 2, (5, 7)).astype(np.uint8)
    picture = Image.fromarray(values)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "palette.png")
    Image.fromarray(values.astype(bool)).save(tmp_path / "bits.png")
    for name in ("palette.png", "bits.png"):
        assert np.array_equal(read_integers(tmp_path / name).values_CXYZ[0, :, :, 0].T, values)
    stack = RNG.integers(0, 60000, (4, 5, 7)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    assert np.array_equal(read_voxels(tmp_path / "stack.tif")[1][0].T, stack)


@pytest.mark.parametrize("packing", ["raw", "tiff_lzw"])
@pytest.mark.parametrize(
    ("orientation", "axes", "seen"), [(3, (0, 1), (-1, -1)), (5, (1, 0), (1, 1)), (6, (1, 0), (1, -1))]
)
def test_a_tiff_file_is_read_in_the_orientation_that_it_declares(tmp_path, packing, orientation, axes, seen):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation}, compression=packing)
    _, voxels_CXYZ = read_voxels(tmp_path / "a.tif")
    assert np.array_equal(voxels_CXYZ[0, :, :, 0].T, pixels.transpose(axes)[:: seen[0], :: seen[1]])


def test_a_damaged_picture_and_another_format_under_its_name_are_refused_in_one_sentence(tmp_path):
    Image.fromarray(RNG.integers(0, 99, (90, 90)).astype(np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-3000])
    with pytest.raises(DataError, match=r"cut\.png: .*truncated"):
        read_voxels(tmp_path / "cut.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "b.png")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_header(tmp_path / "b.png")


def pictures(folder: Path) -> Path:
    for number in range(2):
        label = np.zeros((40, 60), np.uint8)
        label[8:30, 10:45] = 255
        image = RNG.normal(80, 5, (40, 60, 3)) + label[..., None] / 4
        for kind, pixels in (("images", image), ("labels", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"cell{number}.png")
    return folder


def data_of(folder: Path, **settings) -> ImageFolder:
    cache = Cache(folder=folder / "cache")
    how = {"patch_size": PLANE, "split": SameCases(), "cache": cache, "labels": {"cell": 255}} | settings
    return ImageFolder(path=pictures(folder), **how)


def test_the_size_of_a_pixel_is_asked_for_unless_it_is_given(tmp_path):
    (doubt,) = [line for line in inspected(data_of(tmp_path)) if line.startswith("warning: ")]
    assert doubt.endswith("with data.file_spacing_mm = [1.0, 1.0, 1.0]")
    lines = inspected(data_of(tmp_path, file_spacing_mm=(0.5, 0.5, 2.0)))
    assert "spacing: 0.5×0.5×2 mm" in lines
    assert not [line for line in lines if line.startswith("warning: ")]


def test_a_thick_patch_of_planes_is_doubted_with_the_line_to_paste(tmp_path, caplog):
    data = data_of(tmp_path, patch_size=(32, 48, 32), file_spacing_mm=(1.0, 1.0, 1.0))
    (doubt,) = [line for line in inspected(data) if line.startswith("warning: ")]
    assert "set data.patch_size = [32, 48, 1]; the network is then one of planes" in doubt
    opened(data, seed=1)
    assert doubt.removeprefix("warning: ") in caplog.messages


@pytest.mark.parametrize(
    "model",
    [
        UNet(channels=(4, 8, 16)),
        DynUNet(channels=(4, 8, 16), deep_supervision=1),
        SegResNet(init_filters=8),
        AttentionUNet(channels=(4, 8, 16)),
    ],
)
@pytest.mark.parametrize("axis", [0, 2])
def test_networks_of_planes_have_no_convolution_across_them_and_the_groups_of_volumes(model, axis):
    x, y, z = (1 if each == axis else 32 for each in range(3))
    size = (x, y, z)
    facts = SegmentationFacts(("a", "b"), ("x",), True, {}, size, {}, 1, "")
    network = model.build(facts).eval()
    assert network({"image": torch.rand(1, 2, *size)})["logits"].shape == (1, 2, *size)
    assert any(isinstance(each, nn.Conv2d) for each in network.modules())
    assert not any(isinstance(each, nn.Conv3d) for each in network.modules())
    assert all(model.parameter_groups(network).values())


def test_a_network_that_takes_no_planes_says_which_do():
    facts = SegmentationFacts(("a",), ("x",), True, {}, (64, 64, 1), {}, 1, "")
    with pytest.raises(RecipeError, match="is a plane, which the network does not take; unet, attention_unet"):
        UNETR().build(facts)


def test_a_plane_is_rotated_and_bent_within_itself():
    image = torch.rand(1, 40, 40, 1)
    label = torch.ones(40, 40, 1, dtype=torch.uint8)
    settings = Augmentation(
        affine=Affine(probability=1.0, rotation_degrees=(180.0, 180.0, 20.0), scale=(1.3, 1.3)),
        elastic=Elastic(probability=1.0, displacement_mm=0.5),
    )
    for seed in range(5):
        source = Source(image, label, (10, 10, 0), (1.0, 1.0, 1.0), np.random.default_rng(seed))
        _, patch_label = augment(cut_patches([source], (20, 20, 1), settings), settings)
        assert bool((patch_label == 1).all())


@pytest.mark.slow
def test_a_network_learns_to_find_cells_in_colour_pictures(tmp_path):
    data = data_of(tmp_path, batch_size=2, steps_per_epoch=25, preprocessing=Preprocessing())
    live = opened(data, seed=1)
    network = UNet(channels=(8, 16, 32)).build(live)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for batch in live.train(0, 0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch)["logits"], batch["label"][:, 0]).backward()
        optimizer.step()
    network.eval()
    (batch, *_) = live.evaluate("val")
    found = network({"image": batch["image"][:, :, :56, :40]})["logits"].argmax(1)[0]
    true = batch["label"][0, 0, :56, :40]
    assert float((found == true).float().mean()) > 0.95
