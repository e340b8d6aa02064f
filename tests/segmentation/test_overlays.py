"""Pictures of predictions show the right side, the true proportions, and what was scored."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image
from scipy.spatial.transform import Rotation

from trainkit import SAFE_ON_DARK, Context, Monitor, State
from trainkit_segmentation.data.image_folder import ImageFolder
from trainkit_segmentation.hooks.overlay_panel import Plane, colour_of, packed, panel
from trainkit_segmentation.hooks.overlay_picture import ShownCase, draw
from trainkit_segmentation.hooks.overlays_live import LiveOverlays
from trainkit_segmentation.hooks.views import views
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.grid import plane_to_own
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare_image
from trainkit_segmentation.splits.same_cases import SameCases

SHAPE = (4, 5, 6)  # right, anterior, superior
SPACING_MM = (1.0, 1.5, 4.0)
ORIENTATIONS = [
    "".join(signs[axis] for axis in order) for order in permutations(range(3)) for signs in product("LR", "PA", "IS")
]
TURNS = {"straight": Rotation.identity(), "oblique": Rotation.from_euler("xyz", (11, -17, 23), degrees=True)}


def turned(codes: str, turn: Rotation) -> nibabel.Nifti1Image:
    """Return an image whose voxels are numbered in the order of (right, anterior, superior), stored in another one."""
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * SPACING_MM
    affine[:3, 3] = (-20, 30, 7)
    numbers = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(numbers, change)
    return nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(change, SHAPE))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_all_orientations_of_a_file_are_shown_alike_and_lettered_as_nibabel_has_them(codes: str, turn: str) -> None:
    assert len(set(ORIENTATIONS)) == 48
    image = turned(codes, TURNS[turn])
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes
    canonical = nibabel.as_closest_canonical(image).get_fdata()
    np.testing.assert_array_equal(canonical, np.arange(np.prod(SHAPE)).reshape(SHAPE))
    for view, name, world, (left, top) in zip(
        views(image.affine), ("axial", "coronal", "sagittal"), (2, 1, 0), ("RA", "RS", "AS"), strict=True
    ):
        assert view.name.startswith(name)
        assert ("oblique" in view.name) == (turn == "oblique")
        for index in range(image.shape[view.across]):
            shown = view.seen(image.get_fdata().take(index, view.across))
            at = index if codes[view.across] in "RAS" else image.shape[view.across] - 1 - index
            # Of (right, anterior, superior), what is kept runs to the left and to the top.
            np.testing.assert_array_equal(shown, canonical.take(at, world)[::-1, ::-1].T)
        right, bottom = ({"R": "L", "A": "P", "S": "I"}[each] for each in (left, top))
        assert [each[0] for each in (view.left, view.right, view.top, view.bottom)] == [left, right, top, bottom]
        assert view.spacing_mm == pytest.approx([SPACING_MM["RAS".index(each)] for each in (left, top)])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize("turn", TURNS)
def test_the_position_of_a_plane_is_its_distance_from_the_origin(codes: str, turn: str) -> None:
    image = turned(codes, TURNS[turn])
    for view, world in zip(views(image.affine), (2, 1, 0), strict=True):
        normal = TURNS[turn].as_matrix()[:, world]
        for index in (0, image.shape[view.across] - 1):
            voxel = np.array([1.0, 2.0, 3.0])  # any voxel of the plane
            voxel[view.across] = index
            distance = normal @ nibabel.affines.apply_affine(image.affine, voxel)
            letter = ("LPI", "RAS")[int(distance >= 0)][world]
            said = view.position(index, image.affine, has_form=True)
            assert said == f"{letter} {abs(distance):.1f} mm, {'ijk'[view.across]} = {index}"


def test_a_direction_between_two_has_both_letters() -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    axial = views(affine)[0]
    assert (axial.left, axial.right, axial.top, axial.bottom) == ("RA", "LP", "AL", "PR")
    assert axial.name == "axial"
    assert views(affine)[1].name == "coronal (40° oblique)"


def test_a_file_that_does_not_say_how_its_axes_lie_has_no_letters_and_no_position() -> None:
    for view in views(np.diag([-1.0, -1.0, 1.0, 1.0]), has_form=False):
        assert view.left + view.right + view.top + view.bottom == ""
        assert view.name == "plane"
        assert view.position(3, np.eye(4), has_form=False) == f"{'ijk'[view.across]} = 3"
    picture = np.arange(12).reshape(4, 3).T  # columns of a PNG first, as read
    np.testing.assert_array_equal(views(np.diag([-1.0, -1, 1, 1]), has_form=False)[0].seen(picture), picture.T)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA"])
def test_one_plane_resampled_is_that_of_the_whole_volume(codes: str) -> None:
    generator = np.random.default_rng(0)
    image = turned(codes, TURNS["straight"])
    voxels = np.zeros((1, *image.shape), np.float32)
    voxels[:, 1:, :-1, 1:-1] = generator.uniform(
        1, 2, (1, *(n - less for n, less in zip(image.shape, (1, 1, 2), strict=True)))
    )
    settings = Preprocessing(orientation="RAS", spacing_mm=(0.7, 1.5, 3.0), crop_to_nonzero=True)
    prepared_CXYZ, grid = prepare_image(voxels, image.affine, settings)
    volume_XYZ = torch.from_numpy(prepared_CXYZ.astype(np.float32))[0]
    whole_XYZ = grid.to_own(volume_XYZ[None], background=None)[0]
    for axis, length in enumerate(image.shape):
        for index in range(length):
            plane = plane_to_own(grid, volume_XYZ, axis, index)
            torch.testing.assert_close(plane, whole_XYZ.select(axis, index))


# ---- one plane ------------------------------------------------------------------------------------------------------

FRONT = views(np.diag([1.0, 1.0, 3.0, 1.0]))[1]  # coronal: columns to the left, rows to the head, three times as high


def plane_of(true: Any, found: Any, ignored: Any = None, view: Any = FRONT, grey: int = 100) -> Plane:
    shape = np.asarray(true[0]).shape
    masks = [iter([np.asarray(each, bool) for each in group]) for group in (true, found)]
    return Plane(view, "", np.full(shape, grey, np.uint8), packed(masks[0]), packed(masks[1]), ignored)


def test_truth_is_filled_the_prediction_is_a_line_and_the_inner_class_is_on_top() -> None:
    outer, inner, nowhere = np.zeros((12, 12), bool), np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    outer[2:10, 2:10] = inner[4:8, 4:8] = True
    whole = (slice(0, 12), slice(0, 12))
    filled, _ = panel(plane_of([inner, outer], [nowhere, nowhere]), whole, (120, 120))
    for k, at in ((0, (60, 60)), (1, (30, 60))):
        np.testing.assert_allclose(filled[at], 60 + 0.4 * colour_of(k), atol=1)
    assert (filled[5, 5] == 100).all()
    lined, _ = panel(plane_of([nowhere, nowhere], [inner, outer]), whole, (120, 120))
    for k, at in ((0, (41, 60)), (1, (21, 60))):
        np.testing.assert_array_equal(lined[at], colour_of(k).astype(np.uint8))
    assert (lined[60, 60] == 100).all()


def test_no_voxel_is_lost_where_it_is_less_than_a_pixel() -> None:
    thin = np.zeros((200, 200), bool)
    thin[77, 31] = True
    shown, _ = panel(plane_of([~thin], [thin]), (slice(0, 200), slice(0, 200)), (60, 60))
    assert (shown == colour_of(0).astype(np.uint8)).all(-1).sum() == 1


def test_ignored_voxels_are_veiled_and_named() -> None:
    nowhere = np.zeros((8, 8), bool)
    ignored = nowhere.copy()
    ignored[4:] = True
    shown, _ = panel(plane_of([nowhere], [nowhere], ignored, grey=0), (slice(0, 8), slice(0, 8)), (80, 80))
    assert not shown[:40].any()
    assert (shown[40:] > 60).all()
    plain, veiled = (draw([case([plane_of([nowhere], [nowhere], each)], [1.0])], ["a"], "") for each in (None, ignored))
    assert plain.shape == veiled.shape
    assert (plain != veiled)[-60:].any()  # the key


# ---- the picture ----------------------------------------------------------------------------------------------------


def case(planes: list[Plane], dice: list[float], annotated: list[bool] | None = None, **more: Any) -> ShownCase:
    return ShownCase("case", "", planes, dice, annotated, **more)


def test_a_class_that_was_not_annotated_shows_no_score_and_does_not_count() -> None:
    nowhere = np.zeros((8, 8), bool)

    def picture(dice: float, annotated: list[bool] | None) -> np.ndarray:
        return draw([case([plane_of([nowhere], [nowhere])], [dice], annotated)], ["tumour"], "")

    np.testing.assert_array_equal(picture(0.0, [False]), picture(0.75, [False]))
    np.testing.assert_array_equal(picture(0.75, [True]), picture(0.75, None))
    assert (picture(0.0, [False]) != picture(0.0, [True])).any()
    assert (picture(0.0, [False]) != picture(float("nan"), None)).any()  # nor is it called absent
    assert case([], [0.5, 0.0, float("nan")], [True, False, True]).score == 0.5


def test_planes_have_their_true_proportions_and_the_bar_its_length() -> None:
    everywhere = np.ones((20, 30), bool)
    shown = draw([case([plane_of([everywhere], [everywhere], grey=255)], [1.0])], ["a"], "")
    edge = (shown == colour_of(0).astype(np.uint8)).all(-1)
    edge[:, np.flatnonzero(edge.any(0))[-1] - 40 :] = False  # the legend
    rows, columns = np.flatnonzero(edge.any(1)), np.flatnonzero(edge.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height / width == pytest.approx(3 * 20 / 30, rel=0.01)
    under = shown[rows[-1] + 1 : rows[-1] + 16, columns[0] : columns[-1]]
    bar = max((row == 255).all(-1).sum() for row in under)
    assert bar * 30 / width == pytest.approx(5, rel=0.02)  # 5 mm of 30 mm: 0.3 of the width at most


def test_with_more_classes_than_colours_each_is_numbered() -> None:
    masks = np.zeros((10, 40, 40), bool)
    for k in range(10):
        masks[k, 4 * k : 4 * k + 4] = True
    names = [f"class {k}" for k in range(10)]
    assert len(names) > len(SAFE_ON_DARK)
    plane = plane_of(masks, masks)
    _, middles = panel(plane, (slice(0, 40), slice(0, 40)), (400, 400))
    assert set(middles) == set(range(10))
    for k, (_, y) in middles.items():
        assert 40 * k < y < 40 * (k + 1)
    few, many = (draw([case([plane], [0.5] * n)], names[:n], "") for n in (8, 10))
    assert (few[100:400, 14:160] != many[100:400, 14:160]).any()


# ---- from a data set ------------------------------------------------------------------------------------------------


def shown_of(
    folder: Path, images: dict[str, Any], predict: Any, hook: dict[str, Any] | None = None, **how: Any
) -> tuple[LiveOverlays, State]:
    """Write images and labels, and have the hook see the predictions for all of them."""
    for name, (image, label) in images.items():
        for kind, content in (("images", image), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            path = folder / kind / name
            content.to_filename(path) if hasattr(content, "to_filename") else content.save(path)
    settings = ImageFolder(
        path=folder,
        labels={"left": 1, "right": 2},
        patch_size=(2, 2, 2),
        split=SameCases(),
        cache=Cache(folder=folder / "cache"),
        **how,
    )
    context = Context(0, torch.device("cpu"), folder / "runs" / "a" / "b")
    data: Any = settings.build(context)
    live = LiveOverlays(**{"cases": (), "num_cases": 3, "channel": 0, "ranked_by": "mean"} | (hook or {}))
    state = State(context, 1, SimpleNamespace(), data, {}, Monitor())  # type: ignore[arg-type]
    state.split = "val"
    live.on_run_start(state)
    live.on_validation_start(state)
    for batch in data.evaluate("val"):
        one_hot = torch.nn.functional.one_hot(batch["label"][0, 0].long(), 3).movedim(-1, 0).float()
        state.batch, state.outputs = batch, {"logits": predict(batch["case"], one_hot)[None]}
        live.on_validation_step_end(state)
    live.on_validation_end(state)
    return live, state


@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASL"])
def test_the_patients_left_is_on_the_right_whatever_the_preprocessing(tmp_path: Path, codes: str) -> None:
    base = turned(codes, TURNS["oblique"])
    right = np.unravel_index(base.get_fdata().astype(int), SHAPE)[0]  # each voxel's place from left to right
    label = nibabel.Nifti1Image(np.where(right >= 3, 2, right < 1).astype(np.uint8), base.affine)
    image = nibabel.Nifti1Image((right + base.get_fdata() / 1e4).astype(np.float32), base.affine)
    live, _ = shown_of(
        tmp_path,
        {"a.nii.gz": (image, label)},
        lambda _, logits: logits,
        preprocessing=Preprocessing(orientation="PIR", spacing_mm=(1.5, 4.0, 1.0)),
    )
    (shown,) = live._shown["val"]
    assert shown.score == 1.0
    for plane in shown.planes[:2]:
        assert (np.diff(plane.image_HW.astype(int), axis=1) < 0).all()  # brighter towards the patient's right
        assert (plane.view.left[0], plane.view.right[0]) == ("R", "L")
        for masks in (plane.true, plane.found):
            assert plane.mask(masks[0])[:, -1].all()  # the class "left"
            assert plane.mask(masks[1])[:, 0].all()


def test_the_worst_the_median_and_the_best_case_are_drawn_and_named_ones_on_request(tmp_path: Path) -> None:
    def files(_: int) -> tuple[Any, Any]:
        label = np.zeros((10, 4, 3), np.uint8)
        label[:8], label[8:] = 1, 2
        return tuple(nibabel.Nifti1Image(each, np.eye(4)) for each in (label.astype(np.float32), label))

    def worse(name: str, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[0, : int(name)] = 9.0  # so many of ten layers are missed
        return logits

    images = {f"{n}.nii.gz": files(n) for n in range(5)}
    live, state = shown_of(tmp_path, images, worse)
    live.on_picture(state)
    assert set(state.pictures) == {"overlay"}
    assert live._shown == {}  # a picture is drawn once
    live, state = shown_of(tmp_path, images, worse)
    assert [(each.name, each.standing) for each in live._shown["val"]] == [
        *(("4", "the worst of 5"), ("2", "the median of 5"), ("0", "the best of 5")),
    ]
    live, state = shown_of(tmp_path, images, worse, {"num_cases": 1})
    assert [each.name for each in live._shown["val"]] == ["2"]
    live, state = shown_of(tmp_path, images, worse, {"cases": ("3", "0")})
    assert [(each.name, each.standing) for each in live._shown["val"]] == [("3", ""), ("0", "")]


def test_the_worst_case_of_each_class_is_drawn_on_request(tmp_path: Path) -> None:
    def files(n: int) -> tuple[Any, Any]:
        label = np.zeros((10, 4, 3), np.uint8)
        label[:8] = 1
        label[8:] = 0 if n == 3 else 2
        return tuple(nibabel.Nifti1Image(each, np.eye(4)) for each in (label.astype(np.float32), label))

    def worse(name: str, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        missed = {"0": slice(9, 10), "1": slice(0, 5), "2": slice(0, 2)}
        logits[0, missed.get(name, slice(0))] = 9.0
        if name == "3":
            logits[2, 9] = 99.0  # finds a class that is not there, which is not a case of this class
        return logits

    images = {f"{n}.nii.gz": files(n) for n in range(4)}
    for most, expected in (
        (3, [("0", "the worst of right"), ("1", "the worst of left")]),
        (1, [("1", "the worst of left")]),
    ):
        live, _ = shown_of(tmp_path, images, worse, {"ranked_by": "class", "num_cases": most})
        found = [(each.name, each.standing) for each in live._shown["val"]]
        assert sorted(found) == expected


def test_a_picture_is_shown_as_it_is_with_a_bar_in_voxels(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    label = (pixels > 23).astype(np.uint8) + (pixels > 40)
    files = {"a.png": (Image.fromarray(pixels), Image.fromarray(label))}
    for known in (None, (0.5, 0.5, 1.0)):
        live, state = shown_of(tmp_path, files, lambda _, logits: logits, file_spacing_mm=known)
        (shown,) = live._shown["val"]
        (plane,) = shown.planes
        assert (np.diff(plane.image_HW.astype(int).ravel()) >= 0).all()
        np.testing.assert_array_equal(plane.mask(plane.true[0]), label == 1)
        assert (plane.view.left, shown.has_spacing) == ("", known is not None)
        live.on_picture(state)
        assert state.pictures["overlay"].shape[2] == 3
