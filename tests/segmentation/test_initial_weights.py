"""Weights that a network begins with: from files of many kinds, by patterns, and by names of channels and classes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainkit import DataError
from trainkit.contracts import FileOrRun
from trainkit.recipe.root import InitialWeights
from trainkit.weights import load_weights, read_weights
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.models.dynunet import DynUNet
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.models.segresnet import SegResNet
from trainkit_segmentation.models.transfer import _sources
from trainkit_segmentation.models.unet import UNet
from trainkit_segmentation.models.unetr import UNETR
from trainkit_segmentation.models.vnet import VNet

SMALL: dict[str, SegmentationModel] = {
    "unet": UNet(channels=(2, 4, 8)),
    "unet without residual units": UNet(channels=(2, 4, 4), num_res_units=0),
    "dynunet": DynUNet(channels=(4, 4, 4, 4), deep_supervision=1, residual=True),
    "segresnet": SegResNet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,)),
    "unetr": UNETR(feature_size=4, hidden_size=12, mlp_dim=12, num_heads=2),
}
NETWORK = SMALL["unet"]


def facts(
    channels: str = "T1 T2", classes: str = "liver tumour", *, exclusive: bool = True, patch: int = 16
) -> SegmentationFacts:
    return SegmentationFacts(tuple(channels.split()), tuple(classes.split()), exclusive, {}, (patch,) * 3, {}, 1, "")


def group_of(name: str) -> str:
    return NETWORK.group_of(name.removeprefix("network."))


def built(seed: int, own: SegmentationFacts | None = None, settings: SegmentationModel = NETWORK) -> torch.nn.Module:
    torch.manual_seed(seed)
    return settings.build(own or facts()).eval()


def load(model: torch.nn.Module, path: Path, own: SegmentationFacts | None = None, **which: Any) -> list[str]:
    def adapt(weights, saved):
        return NETWORK.adapt_weights(weights, model, saved, own or facts())

    return load_weights(model, read_weights(path), InitialWeights(path=FileOrRun(path), **which), group_of, adapt).lines


def same(one: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    """Return the names of the weights that two networks share."""
    return {key for key, value in one.state_dict().items() if torch.equal(value, other.state_dict()[key])}


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "bare", "torch", "torch, wrapped and parallel", "compiled", "MONAI"])
def test_weights_are_loaded_from(kind: str, tmp_path: Path) -> None:
    source, target = built(1), built(2)
    path = tmp_path / ("w.safetensors" if kind in ("safetensors", "bare") else "w.pt")
    state = source.state_dict()
    bare = {key.removeprefix("network."): value for key, value in state.items()}
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "bare":
        save_file(bare, path)
    elif kind == "torch":
        torch.save(state, path)
    elif kind == "compiled":
        torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, path)
    elif kind == "MONAI":
        torch.save({"model": bare, "epoch": np.int64(3)}, path)
    else:
        torch.save({"epoch": 5, "state_dict": {f"module.{k}": v for k, v in bare.items()}}, path)
    assert same(source, target) != set(state)
    said = load(target, path)
    assert same(source, target) == set(state)
    assert said[0] == f"{len(state)} of {len(state)} weights were loaded from {path}"
    assert "the file does not say" in said[1]


def nnunet_file(
    path: Path, model: torch.nn.Module, labels: dict[str, Any], forward: tuple[int, ...] = (0, 1, 2)
) -> None:
    """Write what nnU-Net's trainer writes, with NumPy's numbers as it has them."""
    about = {"dataset_json": {"channel_names": {"0": "T2", "1": "T1"}, "labels": labels}, "fold": 0}
    about |= {"plans": {"transpose_forward": forward}, "device": torch.device("cpu")}
    logs = {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)], "dice_per_class": np.array([0.5, 0.6])}
    weights = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    content = {"network_weights": weights, "logging": logs, "_best_ema": np.float64(0.7), "init_args": about}
    torch.save(content, path)


def test_a_checkpoint_of_nnunet_is_read_and_says_its_channels_and_classes(tmp_path: Path) -> None:
    source, target, before = built(1), built(2), built(2)
    image = torch.randn(1, 2, 16, 24, 32)
    for forward in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        nnunet_file(tmp_path / "checkpoint_final.pth", source, {"tumour": 2, "background": 0, "liver": 1}, forward)
        said = load(target, tmp_path / "checkpoint_final.pth")
        assert said[1:3] == ['channel "T1": from number 1 of the file', 'channel "T2": from number 0 of the file']
        read = image[:, [1, 0]].numpy().transpose(0, 1, 4, 3, 2)  # as nnU-Net's readers give it: z, y, x
        moved = torch.from_numpy(read.transpose(0, 1, *(2 + axis for axis in forward)).copy())
        with torch.no_grad():
            one, other = target({"image": image})["logits"].numpy(), source({"image": moved})["logits"].numpy()
        back = other.transpose(0, 1, *(2 + axis for axis in np.argsort(forward))).transpose(0, 1, 4, 3, 2)
        assert np.allclose(one, back, atol=1e-5)
    regions = built(1, facts(exclusive=False))
    nnunet_file(tmp_path / "regions.pth", regions, {"background": 0, "liver": [1, 2], "tumour": 2})
    said = load(before, tmp_path / "regions.pth")
    assert "those of the file may overlap, those of this run exclude each other" in " ".join(said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.safetensors", b"\x00" * 40, "damaged or not a safetensors file"),
        ("a.pt", b"PK\x03\x04 not really a zip", "damaged or not a file of weights"),
        ("a.pt", b"", "damaged or not a file of weights"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / name)


def test_a_file_that_is_not_there_or_holds_no_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*gone\.pt"):
        read_weights(tmp_path / "gone.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="contains no weights with names, but a list"):
        read_weights(tmp_path / "list.pt")
    torch.save({"epoch": 3, "nothing": "here"}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="but a mapping with epoch, nothing"):
        read_weights(tmp_path / "other.pt")


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_no_code_in_a_file_is_run(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    if how == "torch.save":
        torch.save({"state_dict": {"w": torch.ones(1)}, "callback": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(DataError, match="contains more than weights"):
        read_weights(path)
    assert not Path("exploded").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_is_told_from_weights(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "model.ts")
    with pytest.raises(DataError, match="is a program"):
        read_weights(tmp_path / "model.ts")


# ---- which of them --------------------------------------------------------------------------------------------------


def test_patterns_of_names_and_groups_say_what_is_taken(tmp_path: Path) -> None:
    source, before = built(1), built(2)
    save_file(source.state_dict(), path := tmp_path / "w.safetensors")
    for which in ({"take": ("encoder", "decoder")}, {"skip": ("head.*",)}, {"skip": ("head",)}):
        target = built(2)
        said = load(target, path, **which)
        for key, value in target.state_dict().items():
            expected = before if group_of(key) == "head" else source
            assert torch.equal(value, expected.state_dict()[key]), key
        assert "not loaded: network.model.2" in said[0]
    with pytest.raises(DataError, match=r'skip: "heads" matches nothing; did you mean "head"'):
        load(built(1), path, skip=("heads",))


def test_weights_of_another_network_are_refused_or_renamed(tmp_path: Path) -> None:
    vnet = built(1, settings=VNet())
    save_file(vnet.state_dict(), path := tmp_path / "vnet.safetensors")
    with pytest.raises(DataError, match=r"another model: it lacks network\.model\.0.* and it has network\.down_tr"):
        load(built(1), path)
    source, target = built(1), built(2)
    renamed = {key.replace("network.model.0", "network.enc"): value for key, value in source.state_dict().items()}
    save_file(renamed, path)
    load(target, path, rename={"network.enc": "network.model.0"})
    assert same(source, target) == set(source.state_dict())
    with pytest.raises(DataError, match=r'no weight begins with "network\.inc"'):
        load(target, path, rename={"network.inc": "network.model.0"})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = built(1).state_dict()
    next(iter(state.values())).view(-1)[0] = torch.nan
    save_file(state, path := tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"not finite: network\.model"):
        load(built(2), path)


# ---- other channels and classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)  # VNet adds the channels to its features, so their order matters there
def test_channels_and_classes_in_another_order_give_the_same_scores_in_that_order(name: str) -> None:
    settings = SMALL[name]
    x, y, z = (2 * divisor for divisor in settings.divisors())
    before, now = facts(patch=max(x, y, z)), facts("t2 T1", "tumour liver", patch=max(x, y, z))
    source, target = built(1, before, settings), built(2, now, settings)
    weights, lines = settings.adapt_weights(source.state_dict(), target, before.to_json(), now)
    assert len(weights) == len(source.state_dict())
    target.load_state_dict(weights)
    image = torch.randn(1, 2, *now.patch_size)
    with torch.no_grad():
        one, other = (net({"image": each})["logits"] for net, each in ((source, image), (target, image[:, [1, 0]])))
    assert torch.allclose(one[:, [0, 2, 1]], other, atol=1e-5)
    assert 'channel "t2": from number 1 of the file' in lines
    assert 'class "background": from number 0 of the file' in lines
    assert 'class "tumour": from number 2 of the file' in lines


def test_new_channels_and_classes_begin_anew_and_unused_ones_are_named() -> None:
    before, now = facts(), facts("T1 FLAIR T2", "liver vessel")
    source, target = built(1, before), built(2, now)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    weights, lines = NETWORK.adapt_weights(source.state_dict(), target, before.to_json(), now)
    first, last = "network.model.0.conv.unit0.conv.weight", "network.model.2.0.conv.bias"
    there = source.state_dict()
    assert torch.equal(weights[first][:, [0, 2]], there[first])
    assert torch.equal(weights[first][:, 1], fresh[first][:, 1])
    assert torch.equal(weights[last][:2], there[last][:2])
    assert torch.equal(weights[last][2], fresh[last][2])
    assert 'channel "FLAIR": begins anew' in lines
    assert 'class "vessel": begins anew' in lines
    assert "not used from the file: class tumour" in lines


def test_images_that_were_prepared_otherwise_are_named() -> None:
    before = attrs.evolve(facts(), preprocessing={"normalization": "foreground", "spacing_mm": None, "gone": 1})
    now = attrs.evolve(facts(), preprocessing={"normalization": "zscore", "spacing_mm": None, "nan_as_zero": True})
    state = built(1).state_dict()
    assert NETWORK.adapt_weights(state, built(2), before.to_json(), now) == (
        state,
        ['the weights were trained with data.preprocessing.normalization = "foreground", and here it is "zscore"'],
    )
    assert NETWORK.adapt_weights(state, built(2), now.to_json(), now)[1] == []


def test_weights_that_are_not_wholly_from_the_file_are_told_apart(tmp_path: Path) -> None:
    before, now = facts(), facts("FLAIR T1", "tumour liver")
    source, target = built(1, before), built(2, now)
    save_file(source.state_dict(), path := tmp_path / "w.safetensors")

    def adapt(weights, _):
        return NETWORK.adapt_weights(weights, target, before.to_json(), now)

    settings = InitialWeights(path=FileOrRun(path), skip=("*.2.1.*",))
    anew = set(load_weights(target, read_weights(path), settings, group_of, adapt).anew)
    assert {name for name in anew if ".2.1." not in name} == {
        "network.model.0.conv.unit0.conv.weight",  # a channel of it is new; the classes only have another order
        "network.model.0.residual.weight",
    }


def test_a_name_that_is_there_exactly_is_not_taken_for_one_in_other_letters() -> None:
    assert _sources(["liver", "Liver", "Spleen"], ["Liver", "liver", "spleen"]) == [1, 0, 2]
    assert _sources(["Liver"], ["Liver", "liver"]) == [0]


def test_names_that_a_file_does_not_tell_are_asked_for_and_can_be_given(tmp_path: Path) -> None:
    source = built(1, facts("T2 FLAIR T1 T1c", "edema liver"))
    save_file(source.state_dict(), path := tmp_path / "four.safetensors")
    target, before = built(2), built(2)
    with pytest.raises(
        DataError, match=r"reads 4 channels, and this one T1, T2: name those of the file.*facts = \{ ch"
    ):
        load(target, path)
    with pytest.raises(DataError, match=r"reads 4 channels, and its names are T1, T2, T1c"):
        load(target, path, facts={"channels": ["T1", "T2", "T1c"]})
    assert same(before, target) == set(target.state_dict())
    named = {"channels": ["T2", "FLAIR", "T1", "T1c"], "classes": ["edema", "liver"]}
    said = load(target, path, facts=named)
    assert said[1:] == [
        'channel "T1": from number 2 of the file',
        'channel "T2": from number 0 of the file',
        "not used from the file: channel FLAIR, T1c",
        'class "background": from number 0 of the file',
        'class "liver": from number 2 of the file',
        'class "tumour": begins anew',
        "not used from the file: class edema",
    ]
    assert "of them in part" in said[0]
    first = "network.model.0.conv.unit0.conv.weight"
    assert torch.equal(target.state_dict()[first], source.state_dict()[first][:, [2, 0]])


def test_names_that_are_given_count_before_those_of_the_file(tmp_path: Path) -> None:
    source, target = built(1), built(2)
    nnunet_file(tmp_path / "w.pth", source, {"background": 0, "lesion": 1, "liver": 2})
    said = load(target, tmp_path / "w.pth", facts={"classes": ["tumour", "liver"], "channels": ["T1", "T2"]})
    assert said[1:4] == [
        f'class "{name}": from number {place} of the file'
        for name, place in (("background", 0), ("liver", 2), ("tumour", 1))
    ]


def test_weights_of_another_number_of_classes_are_refused_with_the_line_to_paste(tmp_path: Path) -> None:
    save_file(built(1, facts(classes="a b c d")).state_dict(), path := tmp_path / "five.safetensors")
    target, before = built(2), built(2)
    with pytest.raises(DataError, match=r"tells apart 4 classes, and this one liver, tumour: name those") as caught:
        load(target, path)
    assert same(before, target) == set(target.state_dict())
    skip = str(caught.value).partition("initial_weights.skip = ")[2]
    said = load(target, path, skip=tuple(json.loads(skip)))
    assert "not loaded: network.model.2.0.conv.weight" in said[0]


def test_a_network_of_other_sizes_throughout_is_told_from_one_with_other_channels_or_classes(tmp_path: Path) -> None:
    save_file(built(1, settings=UNet(channels=(4, 8, 16))).state_dict(), path := tmp_path / "wide.safetensors")
    with pytest.raises(DataError, match="give the model the settings with which the weights were trained"):
        load(built(2), path)
