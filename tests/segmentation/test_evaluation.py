"""``trainkit evaluate`` on masks: its numbers are those of MONAI and SimpleITK, and what it cannot compare is named."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clients.segmentation_cases import SIZE, save
from PIL import Image
from scipy.ndimage import gaussian_filter

from trainkit.cli.evaluate import command
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.evaluation.class_table import read_class_table
from trainkit_segmentation.evaluation.mask_scores import mask_scores
from trainkit_segmentation.evaluation.masks import is_any_of
from trainkit_segmentation.evaluation.segmentation import SegmentationEvaluator

Array = np.ndarray[Any, Any]
AFFINE = np.array([[0, -0.7, 0, 10], [1.5, 0, 0, -4], [0, 0, 3.0, 7], [0, 0, 0, 1.0]])


def blobs(seed: int, classes: int = 2) -> Array:
    """Return a map of labels (X, Y, Z) with several blobs of each class."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=SIZE), 2) for _ in range(classes + 1)])
    map_XYZ: Array = fields.argmax(axis=0).astype(np.uint8)
    return map_XYZ


def evaluate(*arguments: Path | str) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


def table(folder: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    with (folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        (row.pop("case"), row.pop("class")): {key: float(each) if each else None for key, each in row.items()}
        for row in rows
    }


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and truths of three cases, all of which have both classes."""
    for number in range(3):
        save(tmp_path / "truth" / f"case_{number}.nii.gz", blobs(number), AFFINE)
        save(tmp_path / "masks" / f"case_{number}.nii.gz", np.roll(blobs(number), 1, axis=number), AFFINE)
    return tmp_path / "masks", tmp_path / "truth"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI warns of what it does itself
def test_scores_are_those_of_monai_and_volumes_those_of_counting(folders: tuple[Path, Path]) -> None:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice

    result = evaluate(*folders, "--classes", "one=1, both=1+2", "--set", "evaluate.tolerance_mm=1.6")
    assert result.exit_code == 0, result.output
    found = table(folders[0])
    assert len(found) == 6
    options: Any = {"include_background": True, "spacing": [1.5, 0.7, 3.0]}
    for number in range(3):
        maps = [np.roll(blobs(number), 1, axis=number), blobs(number)]
        one, other = (torch.from_numpy(np.stack([each == 1, each > 0]))[None].float() for each in maps)
        expected = {
            "dice": compute_dice(one, other)[0],
            "hd95_mm": compute_hausdorff_distance(one, other, percentile=95, **options)[0],
            "surface_dice": compute_surface_dice(one, other, class_thresholds=[1.6] * 2, **options)[0],
            "true_ml": other.sum((0, 2, 3, 4)) * 1.5 * 0.7 * 3.0 / 1000,
            "predicted_ml": one.sum((0, 2, 3, 4)) * 1.5 * 0.7 * 3.0 / 1000,
        }
        for k, name in enumerate(("one", "both")):
            wanted = {key: float(values[k]) for key, values in expected.items()}
            assert found[f"case_{number}", name] == pytest.approx(wanted)


def test_real_labels_score_as_simpleitk_says(shared_data: Path, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    labels = sorted((shared_data / "segmentation" / "msd" / "Task04_Hippocampus" / "labelsTr").glob("h*.nii.gz"))[:3]
    for path in labels:
        image = nibabel.load(path)
        moved = np.roll(np.asarray(image.dataobj).astype(np.uint8), (2, -1), (0, 2))
        save(tmp_path / path.name, moved, image.affine)
    result = evaluate(tmp_path, labels[0].parents[1], "--only-predicted")
    assert result.exit_code == 0, result.output
    found = table(tmp_path)
    for path in labels:
        true, predicted = (
            sitk.Cast(sitk.ReadImage(str(each)), sitk.sitkUInt8) for each in (path, tmp_path / path.name)
        )
        for value, name in ((1, "Anterior"), (2, "Posterior")):
            overlap, hausdorff = sitk.LabelOverlapMeasuresImageFilter(), sitk.LabelShapeStatisticsImageFilter()
            overlap.Execute(true == value, predicted == value)
            hausdorff.Execute(true == value)
            row = found[path.name.removesuffix(".nii.gz"), name]
            assert row["dice"] == pytest.approx(overlap.GetDiceCoefficient(1))
            assert row["true_ml"] == pytest.approx(hausdorff.GetPhysicalSize(1) / 1000)


def test_the_summary_has_the_mean_and_deviation_of_each_class_and_is_printed(folders: tuple[Path, Path]) -> None:
    said = evaluate(*folders, "--classes", "one=1, two=2").output
    summary = json.loads((folders[0] / "summary.json").read_text())
    for name in ("one", "two"):
        values = [row["dice"] for (_, of), row in table(folders[0]).items() if of == name and row["dice"] is not None]
        of_class = summary["classes"][name]["dice"]
        assert of_class == pytest.approx({"mean": mean(values), "sd": stdev(values), "num_cases": 3})
        assert f"{mean(values):.3f} ± {stdev(values):.3f}" in said
    assert (summary["num_cases"], summary["settings"]["values"]) == (3, {"one": [1], "two": [2]})


def test_absent_classes_count_as_in_brats_or_are_left_out(tmp_path: Path) -> None:
    map_XYZ = blobs(0)
    without = np.where(map_XYZ == 2, 0, map_XYZ).astype(np.uint8)
    for name, found, true in (("neither", without, without), ("found", map_XYZ, without), ("missed", without, map_XYZ)):
        save(tmp_path / "masks" / f"{name}.nii.gz", found)
        save(tmp_path / "truth" / f"{name}.nii.gz", true)
    where = (tmp_path / "masks", tmp_path / "truth", "--classes", "one=1, two=2")

    def scores(name: str) -> tuple[float | None, ...]:
        return tuple(table(tmp_path / "masks")[name, "two"][key] for key in ("dice", "hd95_mm", "surface_dice"))

    said = evaluate(*where).output
    assert [scores(name) for name in ("neither", "found", "missed")] == [(1, 0, 1), (0, 373.13, 0), (0, 373.13, 0)]
    assert "1 times in neither truth nor prediction, 2 times in only one) count as in BraTS" in said
    evaluate(*where, "--set", "evaluate.absent=left_out")
    diagonal = math.hypot(20, 24, 18 * 1.5)
    assert scores("neither") == (None, None, None)
    assert scores("found") == scores("missed") == (0, pytest.approx(diagonal), 0)
    summary = json.loads((tmp_path / "masks" / "summary.json").read_text())
    assert summary["classes"]["two"]["dice"]["num_cases"] == 2


def test_missing_and_extra_files_are_named_and_the_exit_code_says_so(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    (masks / "case_1.nii.gz").rename(masks / "Case-01.nii.gz")
    result = evaluate(masks, truth, "--classes", "one=1, two=2")
    assert result.exit_code == 3
    assert "1 case was not predicted: case_1 (there is Case-01)" in result.output
    assert "1 prediction has no truth: Case-01" in result.output
    (masks / "Case-01.nii.gz").unlink()
    assert evaluate(masks, truth, "--classes", "one=1, two=2", "--only-predicted").exit_code == 0


def test_a_prediction_on_another_grid_fails_alone(folders: tuple[Path, Path]) -> None:
    save(folders[0] / "case_1.nii.gz", blobs(1), AFFINE + 2 * np.eye(4, k=3))
    result = evaluate(*folders, "--classes", "one=1, two=2")
    assert result.exit_code == 1
    assert "1 case could not be compared:\n  case_1: " in result.output
    assert "on another voxel grid" in result.output
    assert {case for case, _ in table(folders[0])} == {"case_0", "case_2"}
    assert list(json.loads((folders[0] / "summary.json").read_text())["failed"]) == ["case_1"]


def test_the_same_voxels_with_other_axes_are_compared_where_they_are(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert evaluate(*folders, "--classes", "one=1, two=2").exit_code == 0
    before = table(folders[0])
    for path in folders[0].glob("*.nii.gz"):
        turned = nibabel.as_closest_canonical(nibabel.load(path))
        assert turned.shape != SIZE
        nibabel.save(turned, path)
    assert evaluate(*folders, "--classes", "one=1, two=2").exit_code == 0
    assert table(folders[0]) == before


def test_values_come_from_a_dataset_json_beside_the_labels_and_others_are_refused(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    assert "nothing says what the label values mean" in str(evaluate(masks, truth).exception)
    content: dict[str, Any] = {"labels": {"background": 0, "both": [1, 2], "two": 2}, "channel_names": {"0": "CT"}}
    (truth.parent / "dataset.json").write_text(json.dumps(content))
    assert evaluate(masks, truth).exit_code == 0
    assert {name for _, name in table(masks)} == {"both", "two"}
    shutil.copytree(truth, truth.parent / "labels")
    (truth.parent / "images").mkdir()
    assert evaluate(masks, truth.parent).exit_code == 0
    save(masks / "case_2.nii.gz", np.where(blobs(2) == 2, 7, blobs(2)).astype(np.uint8), AFFINE)
    assert "does not declare: 7 (" in evaluate(masks, truth).output
    said = evaluate(masks, truth, "--classes", "both=1+2").output
    assert "the label value 7 means no class and counts as background: case_2" in said


def test_a_mask_for_each_class_and_a_brats_case_are_compared_like_files_of_values(tmp_path: Path) -> None:
    map_XYZ, moved = blobs(3), np.roll(blobs(3), 1, axis=1)
    save(tmp_path / "truth" / "p1" / "p1_seg.nii.gz", map_XYZ)
    save(tmp_path / "truth" / "p1" / "p1_t1.nii.gz", map_XYZ)
    for value, name in ((1, "left_lung"), (2, "heart")):
        save(tmp_path / "masks" / "p1" / f"{name}.nii.gz", (moved == value).astype(np.uint8))
    save(tmp_path / "one_file" / "p1.nii.gz", moved)
    save(tmp_path / "one_file" / "p1_probabilities.nii.gz", np.zeros((*SIZE, 3), dtype=np.float32))
    results = []
    for masks in ("masks", "one_file"):
        result = evaluate(tmp_path / masks, tmp_path / "truth", "--classes", "left lung=1, heart=2")
        assert result.exit_code == 0, result.output
        results.append(table(tmp_path / masks))
    assert results[0] == results[1]
    shutil.copytree(tmp_path / "masks", tmp_path / "copy")
    assert evaluate(tmp_path / "masks", tmp_path / "copy", "--classes", "left lung, heart").exit_code == 0
    save(tmp_path / "masks" / "p1_probabilities.nii.gz", np.zeros(SIZE, np.uint8))  # is no prediction of a case
    assert evaluate(tmp_path / "masks", tmp_path / "copy", "--classes", "left lung, heart").exit_code == 0
    result = evaluate(tmp_path / "masks", tmp_path / "copy", "--classes", "left lung=1, heart=2, ignore=255")
    assert "which does not say which voxels to ignore: all count: p1" in result.output
    save(tmp_path / "copy" / "p1" / "heart.nii.gz", map_XYZ)
    result = evaluate(tmp_path / "masks", tmp_path / "copy", "--classes", "left lung, heart")
    assert (result.exit_code, "heart.nii.gz has the values 1, 2 beside 0" in result.output) == (1, True)
    result = evaluate(tmp_path / "masks", tmp_path / "truth", "--classes", "left lung, heart=2")
    assert (result.exit_code, "which value of this file stands for left lung" in result.output) == (1, True)
    (tmp_path / "masks" / "p1" / "heart.nii.gz").unlink()
    result = evaluate(tmp_path / "masks", tmp_path / "truth", "--classes", "left lung=1, heart=2")
    assert (result.exit_code, "there is no mask of heart" in result.output) == (1, True)


def test_voxels_to_ignore_do_not_count(tmp_path: Path) -> None:
    map_XYZ, moved = blobs(4), np.roll(blobs(4), 1, axis=1)
    unknown = np.zeros(SIZE, dtype=bool)
    unknown[:9] = True
    save(tmp_path / "truth.nii.gz", np.where(unknown, 255, map_XYZ).astype(np.uint8))
    save(tmp_path / "mask.nii.gz", moved)
    result = evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", "--classes", "one=1, ignore=255")
    assert result.exit_code == 0, result.output
    one, other = (each[9:] == 1 for each in (moved, map_XYZ))
    expected = 2 * (one & other).sum() / (one.sum() + other.sum())
    assert table(tmp_path)["truth", "one"]["dice"] == pytest.approx(expected)
    content = {"labels": {"background": 0, "one": 1, "two": 2, "ignore": 255}, "channel_names": {"0": "CT"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    result = evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz")
    assert result.exit_code == 0, result.output
    assert table(tmp_path)["truth", "one"]["dice"] == pytest.approx(expected)


def test_a_comparison_of_a_folder_with_itself_is_refused(folders: tuple[Path, Path]) -> None:
    _, truth = folders
    (truth.parent / "images").mkdir()
    truth = truth.rename(truth.parent / "labels")
    for other in (truth, truth.parent):
        result = evaluate(truth, other, "--classes", "one=1")
        assert "each prediction would be compared with itself" in str(result.exception)


def test_predictions_with_other_values_are_refused_where_their_own_table_says_so(folders: tuple[Path, Path]) -> None:
    for folder, values in zip(folders, ({"one": 2, "two": 1}, {"one": 1, "two": 2}), strict=True):
        content = {"labels": {"background": 0, **values}, "channel_names": {"0": "CT"}}
        (folder / "dataset.json").write_text(json.dumps(content))
    assert "one has the value 2 in " in str(evaluate(*folders).exception)
    shutil.copy(folders[1] / "dataset.json", folders[0])
    assert evaluate(*folders).exit_code == 0


def test_files_without_the_size_of_a_voxel_have_that_of_the_recipe(tmp_path: Path) -> None:
    for folder, columns in (("images", 8), ("labels", 8), ("masks", 4)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.repeat(np.arange(8) < columns, 8).reshape(8, 8).T.astype(np.uint8)).save(
            tmp_path / folder / "a.png"
        )
    result = evaluate(tmp_path / "masks", tmp_path / "labels", "--classes", "one=1", "--out", tmp_path)
    assert "warning: files do not say how large a voxel is" in result.output
    scores = table(tmp_path)["a", "one"]
    assert scores["true_ml"] == pytest.approx(0.064)
    settings = SegmentationEvaluator()
    data = ImageFolder(path=tmp_path, labels={"one": 1}, patch_size=(8, 8, 1), file_spacing_mm=(0.5, 0.5, 2.0))
    found = settings.build(data, None, tmp_path / "labels", lambda progress: None)
    (row,) = found.evaluate(tmp_path / "masks", tmp_path / "labels").rows
    assert row["true_ml"] == pytest.approx(0.032)
    assert row["hd95_mm"] == pytest.approx(scores["hd95_mm"] / 2)


def test_a_single_file_is_paired_by_the_name_of_its_case(tmp_path: Path) -> None:
    save(tmp_path / "p1-seg.nii.gz", blobs(3))
    save(tmp_path / "truth" / "p1" / "p1-seg.nii.gz", blobs(3))
    assert evaluate(tmp_path / "p1-seg.nii.gz", tmp_path / "truth", "--classes", "one=1").exit_code == 0


def test_what_another_program_wrote_is_not_replaced(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "summary.json").write_text('{"foreground_mean": {"Dice": 0.9}}')
    result = evaluate(*folders, "--classes", "one=1")
    assert "was not written by trainkit evaluate" in str(result.exception)
    assert evaluate(*folders, "--classes", "one=1", "--out", tmp_path / "new").exit_code == 0
    assert (tmp_path / "new" / "cases.csv").is_file()


@pytest.mark.parametrize(
    "text",
    [
        "liver=",
        "=1",
        "liver=1, liver=2",
        "liver=1+a",
        "liver=0",
        "ignore=3",
        "",
        "liver=1, ignore",
        "liver=1+2, ignore=2",
    ],
)
def test_a_table_of_classes_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="classes"):
        read_class_table(text)


def test_a_value_that_the_type_of_a_file_cannot_hold_is_nowhere() -> None:
    values = np.array([[[0, 255, 1]]], dtype=np.uint8)
    assert not is_any_of(values, (-1, 256)).any()
    assert is_any_of(values, (255, -1)).tolist() == [[[False, True, False]]]


def test_masks_of_one_voxel_are_apart_by_their_distance() -> None:
    one, other = np.zeros((2, 5, 5, 5), dtype=bool)
    one[1, 1, 1] = other[1, 4, 1] = True
    scores: Callable[..., Any] = mask_scores
    assert scores(one, other, (1, 2, 1), 0.002, 5.9, "brats") == (0, 6, 0, 0.002, 0.002)
    assert scores(one, other, (1, 2, 1), 0.002, 6.0, "brats").surface_dice == 1
