"""The benchmarks that stand behind pages of the documentation still run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hash_or_pixels() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
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
