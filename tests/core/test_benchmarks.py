"""The benchmarks that stand behind pages of the documentation still run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from clients import segmentation_cases
from scipy import stats
from without_geometry_search import no_geometry_search
from without_pictures import no_pictures_of_ptychography

from trainkit.recipe.resolve import resolve

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.no_cover  # what is tested are scripts


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hash_or_pixels() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch, no_pictures_of_ptychography(), no_geometry_search():
        patch.setenv("OMP_NUM_THREADS", "1")  # as the benchmark would, but no other test's processes are to inherit it
        yield benchmark("hash_or_pixels")


@pytest.mark.slow
def test_the_study_of_hash_and_pixels_goes_on_where_it_was_interrupted(
    hash_or_pixels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["--quick", "--out", "study", "--methods", "pixels", "hash + TV"]
    hash_or_pixels.main(quick)
    runs = tmp_path / "study" / "runs.jsonl"
    records = [json.loads(line) for line in runs.read_text().splitlines()]
    assert len(records) == (2 + 1) * (2 + 1 + 2)  # conditions of each method; trials and final seeds
    rows = json.loads((tmp_path / "study" / "hash_or_pixels.json").read_text())
    for row in rows:
        tuned = [each for each in records if each["stage"] == "tuning" and each["condition"][0] == row["condition"]]
        losses = {
            each["chosen"]["held_out_loss"]: each["settings"] for each in tuned if each["method"] == row["method"]
        }
        assert row["settings"] == losses[min(losses)]  # by the held-out patterns
        assert all(0.0 < r < 1.0 for r in row["r"])
    assert (tmp_path / "study" / "hash_or_pixels.png").stat().st_size > 10_000

    kept = runs.read_text().splitlines(keepends=True)
    runs.write_text("".join(kept[:-1]) + kept[-1][:40])
    capsys.readouterr()
    hash_or_pixels.main(quick)
    assert "1 of 1" in capsys.readouterr().out
    again = json.loads(runs.read_text().splitlines()[-1])
    assert {**again, "cpu_seconds": 0} == {**records[-1], "cpu_seconds": 0}


def test_trials_cover_each_setting_evenly_and_those_near_the_best_stay_in_the_space(hash_or_pixels: ModuleType) -> None:
    places = hash_or_pixels.spread(12)
    for axis in hash_or_pixels.AXES:
        assert sorted(int(12 * place[axis]) for place in places) == list(range(12))
    for best in (0.0, 0.5, 0.9999):
        around = hash_or_pixels.near(dict.fromkeys(hash_or_pixels.AXES, best), 200)
        values = np.array([list(place.values()) for place in around])
        assert values.min() >= 0.0
        assert values.max() < 1.0
        assert np.sqrt(((values - best) ** 2).mean()) == pytest.approx(hash_or_pixels.NEAR, rel=0.1)


def test_the_phase_error_is_that_of_the_noise_whatever_shift_and_mean_come_on_top(hash_or_pixels: ModuleType) -> None:
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")

    def bumps(down: float, right: float) -> np.ndarray:
        places = [(14.0, 13.0), (20.0, 25.0), (27.0, 16.0)]
        return sum(
            (np.exp(-((rows - row - down) ** 2 + (columns - column - right) ** 2) / 8) for row, column in places),
            start=np.zeros((40, 40)),
        )

    noise = 0.05 * np.random.default_rng(0).standard_normal((40, 40))
    box = ((8.0, 32.0), (8.0, 32.0))
    found = hash_or_pixels.phase_error(bumps(0.6, -0.8) + noise + 0.3, np.zeros(2), bumps(0.0, 0.0), box)
    assert found == pytest.approx(noise[8:33, 8:33].std(), rel=0.01)


@pytest.fixture(scope="module")
def learning_rate_study() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield benchmark("learning_rate_study")


@pytest.mark.slow
def test_the_study_of_learning_rates_pairs_its_runs_and_goes_on_where_it_was_interrupted(
    learning_rate_study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    quick = ["--quick", "--out", str(study)]
    assert learning_rate_study.main([*quick, "--hours", "0"]) == 75
    assert learning_rate_study.main(quick) == 0
    lines = (study / "runs.jsonl").read_text().splitlines(keepends=True)
    done = [json.loads(line) for line in lines if "dice" in line]
    found = json.loads((study / "learning_rates.json").read_text())
    assert found["runs"] == done

    held_out: dict[int, set[frozenset[str]]] = {}
    for record in done:
        held_out.setdefault(record["job"]["seed"], set()).add(frozenset(record["cases"]))
    assert all(len(cases) == 1 for cases in held_out.values())  # the same for all runs of a seed
    tuned, *finals = (next(iter(held_out[seed])) for seed in sorted(held_out))
    assert all(tuned.isdisjoint(cases) for cases in finals)

    for row in found["schedules"]:
        trials = [each for each in done if each["job"]["stage"] == "tuning"]
        trials = [each for each in trials if each["job"]["schedule"] == row["schedule"]]
        assert len(trials) == 4
        assert row["lr"] == max(trials, key=lambda each: each["dice"][-1])["job"]["lr"]
        for seed, dice in row["dice_last"].items():
            folder = next((study / "runs" / f"final-{row['schedule']}-{seed}").iterdir())
            assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["val/dice"] == pytest.approx(
                dice, abs=1e-5
            )

    half = next(each for each in done if each["job"]["stage"] == "half")
    extended = [each for each in done if each["job"]["stage"] == "extended" and each["job"]["seed"] == 1]
    assert [each["job"]["choice"] for each in extended] == ["stretch", "hold", "restart"]
    assert all(each["dice"][:1] == half["dice"] and len(each["dice"]) == 2 for each in extended)
    assert len({each["dice"][1] for each in extended}) == 3
    waves = [(1 + np.cos(np.pi * part)) / 2 for part in (3 / 4, 1 / 2, 1 / 2)]  # of the last of 4 steps, or of 2
    assert [each["lr"][1] / half["job"]["lr"] for each in extended] == pytest.approx(
        [0.01 + 0.99 * wave for wave in waves], rel=1e-3
    )
    assert (study / "learning_rates.png").stat().st_size > 10_000

    (study / "runs.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    capsys.readouterr()
    assert learning_rate_study.main(quick) == 0
    again = json.loads((study / "runs.jsonl").read_text().splitlines()[-1])
    assert {**again, "cpu_seconds": 0} == {**done[-1], "cpu_seconds": 0}
    assert capsys.readouterr().out.count(" min in all") == 1  # the only run that was done again

    with pytest.raises(SystemExit, match="give another --out"):
        learning_rate_study.Runs(study, "", learning_rate_study.Effort(), 1.0)


def test_intervals_of_paired_differences_are_those_of_the_paired_t_test(learning_rate_study: ModuleType) -> None:
    random = np.random.default_rng(0)
    one = {seed: float(random.normal(0.8, 0.02)) for seed in range(1, 7)}
    other = {seed: score + float(random.normal(0.01, 0.01)) for seed, score in one.items()}
    found = learning_rate_study.difference({**one, 9: 0.5}, other, 0.2)
    expected = stats.ttest_rel(list(one.values()), list(other.values()))
    low, high = expected.confidence_interval(0.95)
    assert found.seeds == [1, 2, 3, 4, 5, 6]
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.half_width_shared / found.half_width == pytest.approx(((1 / 6 + 0.2) / (1 / 6)) ** 0.5)


def test_p_values_are_adjusted_for_their_number_by_the_rule_of_holm(learning_rate_study: ModuleType) -> None:
    assert learning_rate_study.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert learning_rate_study.holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_next_learning_rate_lies_beyond_an_outermost_best_one_and_else_beside_it(
    learning_rate_study: ModuleType,
) -> None:
    assert learning_rate_study.next_lr({1e-3: 0.7, 3.16e-3: 0.75, 1e-2: 0.8}) == 3.16e-2
    assert learning_rate_study.next_lr({1e-3: 0.8, 3.16e-3: 0.75, 1e-2: 0.7}) == 3.16e-4
    assert learning_rate_study.next_lr({1e-3: 0.7, 3.16e-3: 0.8, 1e-2: 0.75}) == 5.62e-3
    assert learning_rate_study.next_lr({1e-3: 0.76, 3.16e-3: 0.8, 1e-2: 0.75}) == 1.78e-3


@pytest.fixture(scope="module")
def segmentation_quality() -> ModuleType:
    return benchmark("segmentation_quality")


def test_dice_is_computed_on_files_and_a_class_that_is_nowhere_counts_as_found(
    segmentation_quality: ModuleType, tmp_path: Path
) -> None:
    found, true = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    found[0, :3], true[0, 1:] = 1, 1  # 12 voxels each, of which 8 are in both
    for name, mask in (("found", found), ("true", true)):
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / name / "case.nii.gz")
    scores = segmentation_quality.dice(tmp_path / "found", tmp_path / "true", ["case"], [1, 2])
    assert scores == pytest.approx([2 * 8 / 24, 1.0])


def test_quality_is_held_to_its_aims_and_to_the_peer(
    segmentation_quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "a"}}')
    base = {"seed": 0, "parameters": 5, "cpu_minutes": 2.0}
    runs = [
        {**base, "tool": "trainkit", "work": "3 min", "dice": 0.84, "cpu_minutes": 3.5},
        {**base, "tool": "trainkit", "work": "equal", "dice": 0.85, "seconds_per_step": 1.0, "megabytes": 700},
        {**base, "tool": "nnU-Net", "work": "equal", "dice": 0.855, "seconds_per_step": 1.0, "megabytes": 1000},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in runs))
    study = segmentation_quality.Study(tmp_path, tmp_path, None)
    late = list(segmentation_quality.short_of_time(study, 3, [0]))
    assert [each.split(": ")[1] for each in late] == ["3.50 CPU minutes were used", "Dice 0.8400 is below 0.865"]
    assert not list(segmentation_quality.short_of_peer(study, "equal", [0]))
    assert "Dice -0.0050, a step 1.00×, memory 0.70× of nnU-Net's" in capsys.readouterr().out
    for worse in ({"dice": 0.84}, {"seconds_per_step": 1.06}, {"megabytes": 810}, {"parameters": 6}, {"dice": 0.79}):
        study.done["trainkit", "equal", 0] = runs[1] | worse
        assert list(segmentation_quality.short_of_peer(study, "equal", [0])), worse


@pytest.fixture(scope="module")
def fine_tuning() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield benchmark("fine_tuning")


def test_no_case_of_the_study_of_fine_tuning_is_for_two_things(fine_tuning: ModuleType) -> None:
    effort = fine_tuning.Effort()
    division = fine_tuning.Division.of([f"case_{number:02d}" for number in range(80)], effort)
    draws = [*division.tuning, *division.final]
    assert [len(draw) for draw in draws] == [4] * (effort.tuning + effort.final)
    used = [*division.source, *division.test, *(case for draw in draws for case in draw)]
    assert len(set(used)) == len(used)
    assert (len(division.source), len(division.test)) == (32, 16)
    assert set(division.choosing) <= {case for draw in division.final for case in draw}


def test_the_study_of_fine_tuning_chooses_rates_by_other_cases_and_goes_on_where_it_was_interrupted(
    fine_tuning: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, ...]] = []

    def run(out: Path, dataset: str, cases: dict[str, list[str]], sets: Sequence[str]) -> list[dict[str, float]]:
        done.append(tuple(sets))
        rate = next(float(each.partition("=")[2]) for each in sets if each.startswith("optimizer.lr"))
        frozen = sum("stop_epoch=0" in each for each in sets)
        value = 0.8 - rate * (1 + frozen) + 0.01 * int(cases["train"][0][-1])
        return [{"step": 2, "dice": value, "dice_Anterior": value, "dice_Posterior": value}]

    monkeypatch.setattr(fine_tuning, "run", run)
    data = segmentation_cases.msd(tmp_path / "data", cases=8)
    quick = ["--quick", "--data", str(data), "--out", str(tmp_path / "out"), "--targets", "as before"]
    fine_tuning.main(quick)
    number = len(done)
    assert number == 1 + 5 * (2 + 2)  # the source; two rates and two draws of each way
    rows = {row["way"]: row for row in json.loads((tmp_path / "out" / "fine_tuning.json").read_text())}
    assert {row["lr"] for row in rows.values()} == {1e-3}
    said = capsys.readouterr().out
    assert "| as before | head alone | 0.001 |" in said
    assert "| -0.002 ± 0.000 |" in said
    assert (tmp_path / "out" / "fine_tuning.png").stat().st_size > 10_000

    runs = tmp_path / "out" / "runs.jsonl"
    kept = runs.read_text().splitlines(keepends=True)
    runs.write_text("".join(kept[:-1]) + kept[-1][:40])
    fine_tuning.main(quick)
    assert len(done) == number + 1


@pytest.mark.slow
def test_a_run_of_the_study_of_fine_tuning_begins_with_the_weights_of_the_source(
    fine_tuning: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = fine_tuning.write_data(tmp_path, segmentation_cases.msd(tmp_path / "data", cases=6))
    division = fine_tuning.Division.of(cases, fine_tuning.QUICK)
    fine_tuning.train_source(tmp_path, division, fine_tuning.QUICK)
    study = fine_tuning.Study(tmp_path, division, fine_tuning.QUICK)
    with caplog.at_level("INFO", "trainkit"):
        found = study.job("final", "upside down", "encoder frozen for a quarter, then at a tenth", 0, 1e-3)
    assert [each["step"] for each in found["curve"]] == [2, 4, 6, 8]
    assert 'class "Posterior": begins anew' in caplog.text


@pytest.fixture(scope="module")
def on_paper() -> ModuleType:
    return benchmark("several_processes_model")


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_a_ring_sends_what_the_formula_says(on_paper: ModuleType, processes: int) -> None:
    pieces = [np.arange(processes * 6.0) + 100 * rank for rank in range(processes)]
    whole, sent = sum(pieces), np.zeros(processes)
    chunks = [np.split(each.copy(), processes) for each in pieces]
    for add, first in ((True, 0), (False, 1)):  # add up around the ring, then pass the sums on
        for turn in range(processes - 1):
            moving = [(rank, (rank + first - turn) % processes) for rank in range(processes)]
            values = [chunks[rank][chunk].copy() for rank, chunk in moving]
            for (rank, chunk), value in zip(moving, values, strict=True):
                to = (rank + 1) % processes
                chunks[to][chunk] = chunks[to][chunk] + value if add else value
                sent[rank] += value.nbytes
    assert all(np.array_equal(np.concatenate(each), whole) for each in chunks)
    assert sent == pytest.approx(on_paper.ring_volume(pieces[0].nbytes, processes))


@pytest.mark.parametrize("processes", [2, 4, 16])
def test_recursive_doubling_sends_what_the_formula_says(on_paper: ModuleType, processes: int) -> None:
    values, sent, distance = [float(rank) for rank in range(processes)], 0, 1
    while distance < processes:
        values = [value + values[rank ^ distance] for rank, value in enumerate(values)]
        sent, distance = sent + 8, 2 * distance
    assert values == [sum(range(processes))] * processes
    assert on_paper.tree_volume(8, processes) == sent


def test_operations_of_a_transform_are_those_of_its_butterflies(on_paper: ModuleType) -> None:
    def butterflies(num: int) -> int:
        return 0 if num == 1 else 2 * butterflies(num // 2) + num // 2

    for num in (2, 8, 256**2):
        assert on_paper.fft_flops(num) == 10 * butterflies(num)  # a complex product (6) and two sums (4)


def test_times_on_paper_are_those_worked_out_by_hand(on_paper: ModuleType) -> None:
    links = on_paper.Links(8, 100e9, 10e9, 1e-6, 10e-6)
    assert on_paper.ring_seconds(8e8, 1, links) == 0
    assert on_paper.ring_seconds(8e8, 8, links) == pytest.approx(14e-6 + 14e8 / 100e9)
    assert on_paper.ring_seconds(8e8, 16, links) == pytest.approx(300e-6 + 15e8 / 10e9)
    assert on_paper.tree_seconds(8e8, 16, links) == pytest.approx(3e-6 + 24e8 / 100e9 + 10e-6 + 8e8 / 10e9)
    assert on_paper.hierarchical_seconds(8e8, 8, links) == on_paper.ring_seconds(8e8, 8, links)
    between = 2 * 10e-6 + 1e8 / 10e9  # two nodes: an eighth of the array, once
    assert on_paper.hierarchical_seconds(8e8, 16, links) == pytest.approx(14e-6 + 14e8 / 100e9 + between)
    gpu = on_paper.GPU(1e12, 1e11, 1e10, 1e-5)
    assert on_paper.Work(2e12, 1e11, 1e9, 10).seconds(gpu) == (3.0, "operations")
    assert on_paper.Work(0, 0, 1e10, 10).seconds(gpu) == (1.0, "memory")


@pytest.mark.slow
def test_operations_of_the_network_are_those_of_its_convolutions(on_paper: ModuleType) -> None:
    (work, parameters) = on_paper.counted(1)
    recipe = resolve(on_paper.RECIPE, ("data.path=.",)).recipe
    with torch.device("meta"):
        network: Any = recipe.model.network(4, 3, (128, 128, 128))  # type: ignore[attr-defined]
    assert parameters == 4 * sum(each.numel() for each in network.parameters())
    forward: list[int] = []

    def count(layer: Any, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        places = given[0] if layer.transposed else made  # each of which meets the whole kernel once
        forward.append(2 * layer.weight.numel() * places[0, 0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            layer.register_forward_hook(count)
    network(torch.empty(1, 4, 128, 128, 128, device="meta"))
    of_the_image = sum(  # no gradient goes back to the image, which meets the first layer and its shortcut
        2 * layer.weight.numel() * 64**3
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv3d) and layer.in_channels == 4
    )
    assert work.tensor_flops == 3 * sum(forward) - of_the_image


@pytest.mark.slow
def test_the_overhead_of_the_loop_is_measured_beside_loops_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module = benchmark("step_overhead")
    monkeypatch.setitem(sys.modules, "step_overhead", module)  # its recipe names its parts
    measured = module.trained(module.FULL, "", steps=250)
    assert {name: len(each) for name, each in measured.seconds.items()} == dict.fromkeys(measured.seconds, 2)
    assert measured.end > 0


@pytest.mark.parametrize("size", [118, 119])
def test_the_truth_of_a_simulated_specimen_is_its_map_at_every_second_pixel(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spectrum_KL = np.fft.fft2(np.random.default_rng(0).normal(size=(2 * size, 2 * size)))
    beyond = np.abs(np.fft.fftfreq(2 * size)) > 0.24
    spectrum_KL[beyond], spectrum_KL[:, beyond] = 0, 0
    map_KL = np.fft.ifft2(spectrum_KL).real
    np.testing.assert_allclose(benchmark("thin_specimens").coarser(map_KL), map_KL[::2, ::2], atol=1e-12)


@pytest.fixture(scope="module")
def gpu_step() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield benchmark("gpu_step_model")


def test_what_bounds_a_step_on_a_gpu_on_paper(gpu_step: ModuleType) -> None:
    gpu = gpu_step.GPU(vector_flops=1e12, memory_bytes=1e12, launch_seconds=1e-5)
    small = gpu_step.Step(launches=100, memory_bytes=1e8, floor_bytes=5e7, flops=1e7)
    assert small.on_device(gpu) == pytest.approx(1e-4)
    assert small.as_usual(gpu) == pytest.approx(1e-3)  # its launches
    assert small.repeated(gpu) == pytest.approx(100 * gpu_step.IN_A_GRAPH)
    large = small._replace(memory_bytes=1e10)
    assert large.as_usual(gpu) == large.repeated(gpu) == pytest.approx(1e-2)  # its bytes


def test_a_transform_is_counted_as_two_passes_and_a_product_as_one(gpu_step: ModuleType) -> None:
    waves = torch.zeros(3, 8, 8, dtype=torch.complex64)
    with gpu_step._Transforms() as seen:
        torch.fft.fft2(waves)
    assert seen.num_bytes == 2 * 2 * waves.nbytes
    with gpu_step._Transforms() as seen:
        waves * waves[0]
    assert seen.num_bytes == 2 * waves.nbytes + waves[0].nbytes
