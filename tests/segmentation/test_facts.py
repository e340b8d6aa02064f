"""The facts of a data set say all that a network has to know of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import segmentation_cases as made_up

from trainkit import Context, DataError
from trainkit_segmentation.data.brats import BraTS
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.data.synthetic import SyntheticSegmentation
from trainkit_segmentation.data.totalsegmentator import TotalSegmentator
from trainkit_segmentation.inference.sliding_window import SlidingWindow
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.same_cases import SameCases

from .test_models import SMALL, patch_for


def context(folder: Path) -> Context:
    return Context(seed=3, device=torch.device("cpu"), folder=folder)


def facts_of(settings: SegmentationData) -> dict[str, Any]:
    """Return the facts as a checkpoint gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(settings.build(context(Path())).facts()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_network_is_rebuilt_from_facts_alone_and_gives_the_same_scores(
    name: str, channels: int, tmp_path: Path
) -> None:
    network = SMALL[name]
    folder = made_up.nnunet(tmp_path / "cases", channels=channels, cases=2, regions=channels == 2)
    settings = MSD(
        path=folder, split=SameCases(), patch_size=patch_for(network), cache=Cache(folder=tmp_path / "cache")
    )
    data = settings.build(context(tmp_path))
    torch.manual_seed(1)
    trained = network.build(data).eval()
    facts = json.loads(json.dumps(data.facts()))
    saved = trained.state_dict()
    image = torch.randn(1, channels, *settings.patch_size)
    with torch.no_grad():
        expected = SlidingWindow().build(data)(trained, {"image": image})["logits"]
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache")

    stand_in = settings.recall(facts)
    torch.manual_seed(2)
    rebuilt = network.build(stand_in).eval()
    rebuilt.load_state_dict(saved)
    with torch.no_grad():
        found = SlidingWindow().build(stand_in)(rebuilt, {"image": image})["logits"]
    assert found.shape[1] == len(stand_in.classes) + stand_in.exclusive
    assert torch.equal(found, expected)


def test_facts_have_what_the_opened_data_has(tmp_path: Path) -> None:
    made_up.nnunet(tmp_path / "nnunet", regions=True)
    made_up.brats(tmp_path / "brats", "2024")
    made_up.totalsegmentator(tmp_path / "total", overlapping=True)
    shared: dict[str, Any] = {"cache": Cache(folder=tmp_path / "cache"), "patch_size": (8, 12, 16)}
    for settings in (
        MSD(path=tmp_path / "nnunet", **shared),
        BraTS(path=tmp_path / "brats", target="labels", **shared),
        TotalSegmentator(path=tmp_path / "total", structures=made_up.STRUCTURES, overlap="multi_label", **shared),
        SyntheticSegmentation(num_cases=3, **shared),
    ):
        data = settings.build(context(tmp_path))
        stand_in = settings.recall(json.loads(json.dumps(data.facts())))
        for attribute in ("num_channels", "classes", "exclusive", "patch_size"):
            assert getattr(stand_in, attribute) == getattr(data, attribute), attribute


def test_facts_say_what_label_values_mean_and_how_images_are_preprocessed(tmp_path: Path) -> None:
    folder = made_up.brats(tmp_path / "brats", "2021")
    preprocessing = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), normalization="zscore_nonzero")
    data = BraTS(path=folder, modalities=("flair", "t1c"), preprocessing=preprocessing, cache=Cache(folder=tmp_path))
    facts = facts_of(data)
    assert facts["channels"] == ["flair", "t1c"]
    assert facts["label_values"] == {
        "0": [],
        "1": ["whole_tumor", "tumor_core"],
        "2": ["whole_tumor"],
        "4": ["whole_tumor", "tumor_core", "enhancing_tumor"],
    }
    assert facts["preprocessing"]["spacing_mm"] == [2.0, 2.0, 2.0]
    assert facts["label_resampling"] == "local_votes"
    assert facts["preprocessing"]["normalization"] == "zscore_nonzero"
    assert Preprocessing(**{k: tuple(v) if isinstance(v, list) else v for k, v in facts["preprocessing"].items()}) == (
        preprocessing
    )
    assert len(json.dumps(facts)) < 2000


def test_facts_tell_other_training_data_and_only_that(tmp_path: Path) -> None:
    folder = made_up.msd(tmp_path / "task", cases=5)
    shared: dict[str, Any] = {"cache": Cache(folder=tmp_path / "cache")}
    first = facts_of(MSD(path=folder, **shared))["training"]
    assert first["num_cases"] == 4
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert facts_of(MSD(path=copy, **shared))["training"] == first
    assert facts_of(MSD(path=folder, preprocessing=Preprocessing(orientation=None), **shared))["training"] == first
    assert facts_of(MSD(path=folder, split=Fraction(seed=1), **shared))["training"] != first
    for path in (copy / "imagesTr").iterdir():
        made_up.save(path, made_up.image_of(made_up.shells(1, 2), 99))
    assert facts_of(MSD(path=copy, **shared))["training"]["digest"] != first["digest"]


GOOD = SegmentationFacts(("ct",), ("liver",), True, {0: (), 1: ("liver",)}, (8, 8, 8), {}, 3, "abc").to_json()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "diffraction"}, "kind is 'diffraction', not \"segmentation\""),
        ({"kind": None}, "these are no facts of segmentation data"),
        ({"patch_size": [8, 8]}, "cannot be read"),
        ({"patch_size": [8, 8, 0]}, "expected a positive number, got 0"),
        ({"patch_size": [8, 8, 8.5]}, "expected int, got 8.5"),
        ({"exclusive": "yes"}, "expected bool, got 'yes'"),
        ({"classes": "liver"}, "expected list, got 'liver'"),
        ({"channels": []}, "at least one channel and one class"),
        ({"label_values": ["liver"]}, "cannot be read"),
        ({"training": {}}, "lack 'num_cases'"),
    ],
)
def test_wrong_or_foreign_facts_are_refused(changed: dict[str, Any], said: str) -> None:
    assert SyntheticSegmentation().recall(GOOD).to_json() == GOOD
    with pytest.raises(DataError) as caught:
        SyntheticSegmentation().recall(GOOD | changed)
    assert said in str(caught.value)


def test_recalling_facts_needs_no_torch() -> None:
    code = (
        "import json, sys; from trainkit_segmentation.data.synthetic import SyntheticSegmentation as S; "
        "print(S().recall(json.loads(sys.argv[1])).classes, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, json.dumps(GOOD)], capture_output=True, text=True, check=True)
    assert run.stdout == "('liver',) False False\n"
