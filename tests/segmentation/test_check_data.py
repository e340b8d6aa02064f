"""``check --data`` looks at every voxel that a run would see, once; at the headers alone, it says what it left out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from clients import segmentation_cases as made_up
from clients.opened_data import opened
from inspected import inspected, refusal

from trainkit import Problem, Progress
from trainkit_segmentation.cases import case as case_module
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.file import SplitFile
from trainkit_segmentation.splits.same_cases import SameCases

PATCH = (16, 16, 16)


@pytest.fixture
def task(tmp_path):
    return made_up.msd(tmp_path / "Task99", cases=4)


@pytest.fixture
def data(task, tmp_path):
    return MSD(path=task, cache=Cache(folder=tmp_path / "cache"), split=SameCases(), patch_size=PATCH)


@pytest.fixture
def read_files(monkeypatch):
    """Names of the files whose voxels are read."""
    names: list[str] = []
    for function in ("read_voxels", "read_integers"):
        before = getattr(case_module, function)

        def noted(path: Path, before: Any = before, **more: Any) -> Any:
            names.append(path.name)
            return before(path, **more)

        monkeypatch.setattr(case_module, function, noted)
    return names


def with_image(task: Path, number: int, change: Any, dtype: Any = np.float32) -> None:
    image = made_up.image_of(made_up.shells(number, 2), 10 * number).astype(dtype)
    change(image)
    made_up.save(task / "imagesTr" / f"case_{number:03d}.nii.gz", image)


def test_the_run_does_not_read_again_what_check_has_read(data, read_files):
    inspected(data)
    assert len(read_files) == 8
    opened(data)
    inspected(data)
    assert len(read_files) == 8


def test_a_batch_of_more_patches_than_cases_is_said_unless_the_steps_of_an_epoch_are_given(task, data, caplog):
    for batch_size, steps, is_said in ((4, None, False), (5, None, True), (5, 3, False)):
        settings = attrs.evolve(data, batch_size=batch_size, steps_per_epoch=steps)
        caplog.clear()
        opened(settings)
        logged = [each for each in caplog.messages if "data.batch_size = 5 is more than the 4 training cases" in each]
        of_check = [
            [each for each in settings.inspect(None, depth) if isinstance(each, Problem) and each.key == "batch_size"]
            for depth in ("headers", "all")
        ]
        assert [len(logged), *map(len, of_check)] == [is_said] * 3


def test_check_says_how_far_it_is(data):
    seen = [each for each in data.inspect(None, "all") if isinstance(each, Progress)]
    assert [each.done for each in seen if each.what == "cases read"] == [1, 2, 3, 4]
    assert {each.total for each in seen} == {4}


def test_headers_alone_read_no_voxels_and_say_so(data, read_files, tmp_path):
    lines = inspected(data, "headers")
    assert not read_files
    assert not (tmp_path / "cache").exists()
    assert "size: 20×24×18 voxels" in lines
    assert "  Posterior" in lines
    assert any(line.startswith("not looked at: the voxels") for line in lines)
    assert not any(line.startswith("not looked at") for line in inspected(data))


def test_nan_anywhere_is_found_whatever_the_size_of_the_file(task, data):
    def spoil(image):
        image[0, 0, 0] = np.nan

    with_image(task, 2, spoil)
    told = refusal(data)
    assert "case_002.nii.gz: 1 of 8640 voxels are NaN" in told
    assert "set data.preprocessing.nan_as_zero = true" in told


def test_nan_is_zero_on_request_and_infinity_never(task, tmp_path):
    def spoil(image):
        image[:3] = np.nan

    with_image(task, 2, spoil)
    settings = Preprocessing(orientation=None, normalization="none", nan_as_zero=True)
    data = MSD(
        path=task, cache=Cache(folder=tmp_path / "cache"), split=SameCases(), patch_size=PATCH, preprocessing=settings
    )
    inspected(data)
    (image,) = (batch["image"][0, 0] for batch in opened(data).evaluate("val") if batch["case"] == "case_002")
    expected = made_up.image_of(made_up.shells(2, 2), 20).astype(np.float32)
    expected[:3] = 0
    assert np.array_equal(image, expected)

    def to_infinity(image):
        image[5, 5, 5] = np.inf

    with_image(task, 2, to_infinity)
    assert "1 voxels are infinite" in refusal(data)


def test_a_constant_channel_and_the_same_case_twice_are_doubted(task, data):
    def flatten(image):
        image[:] = 7

    with_image(task, 1, flatten)
    for kind in ("imagesTr", "labelsTr"):
        (task / kind / "case_003.nii.gz").write_bytes((task / kind / "case_000.nii.gz").read_bytes())
    doubts = [line for line in inspected(data) if line.startswith("warning: ")]
    assert doubts == [
        "warning: all voxels of the channel MR0 have one value in 1 case: case_001 (7)",
        "warning: case_000, case_003 have the same content: the same files under several names",
    ]


def test_cases_in_no_split_are_named_and_not_read(task, tmp_path, read_files):
    (task / "imagesTr" / "case_003.nii.gz").write_bytes(b"damaged, but not used")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["case_000", "case_001"], "val": ["case_002"]}))
    data = MSD(path=task, cache=Cache(folder=tmp_path / "cache"), split=SplitFile(path=split), patch_size=PATCH)
    told = refusal(data)
    assert "1 problem in 4 cases" in told
    made_up.msd(task, cases=4)
    read_files.clear()
    assert "1 case in no split: case_003" in inspected(data)
    assert "case_003.nii.gz" not in read_files


def test_all_files_of_a_case_that_are_wrong_are_told_at_once(task, data):
    def spoil(image):
        image[0] = np.nan

    with_image(task, 1, spoil)
    label = task / "labelsTr" / "case_001.nii.gz"
    made_up.save(label, np.full(made_up.SIZE, 0.5, np.float32))
    (line,) = (line for line in refusal(data).split("\n") if "case_001: " in line)
    assert "voxels are NaN" in line
    assert "not whole numbers" in line


KILLED = """
import sys
from pathlib import Path
from trainkit_segmentation.data.msd import MSD
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.splits.same_cases import SameCases

data = MSD(path=Path(sys.argv[1]), cache=Cache(folder=Path(sys.argv[2])), split=SameCases(), patch_size=(16, 16, 16))
for seen in data.inspect(None, "all"):
    print(seen, flush=True)
"""


@pytest.mark.slow
def test_a_check_that_is_killed_loses_nothing(tmp_path, warm):
    task = made_up.msd(tmp_path / "Task", cases=40, size=(64, 64, 48))
    cache = tmp_path / "cache"
    process = warm.start("-c", KILLED, str(task), str(cache), folder=tmp_path)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("entries/*/*.safetensors"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_ino for path in cache.glob("entries/*/*.safetensors")}
    assert 5 <= len(kept) < 40
    inspected(MSD(path=task, cache=Cache(folder=cache), split=SameCases(), patch_size=PATCH))
    assert {path: path.stat().st_ino for path in kept} == kept


@pytest.mark.slow
def test_the_real_data_are_fine(shared_data, tmp_path):
    folder = shared_data / "segmentation" / "msd" / "Task04_Hippocampus"
    lines = inspected(MSD(path=folder, cache=Cache(folder=tmp_path / "cache"), patch_size=(32, 32, 32)))
    assert not [line for line in lines if line.startswith("warning")]
