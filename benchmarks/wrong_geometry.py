"""Whether the end of a run tells a wrong geometry from a right one, with the shipped recipes.

Each recipe runs at its own length, once as it is, and once with each of these mistakes: the defocus has the other sign,
or is 1.6 times too large; the scan is turned by 10 degrees; its rows and columns are exchanged; its step is told 1.25
times too large; a frame was lost halfway; patterns come three points late. Then the probe and the positions of the
result are held against what the patterns fit best, as at a run's end, and the doubts of the run itself are counted.
A line is printed for each run, and kept in FOLDER/found.jsonl; if the script is started again, it goes on
with the runs that are missing.

    python benchmarks/wrong_geometry.py --work FOLDER [--recipes NAME …] [--ways right sign …] [--set KEY=VALUE …]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import attrs
import h5py
import numpy as np

from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import Resolved, resolve
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.preflight.ending import Ending, GeometryJudge
from trainkit_ptychography.preflight.inspection import trains_probe
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording

RECIPES = Path(__file__).parent.parent / "recipes"
SIMULATED = ("staged", "unknown_geometry", "two_scans", "hash", "tilted", "thick_simulated")
DEFOCI = {"sign": -1.0, "x1.6": 1.6}
SCANS: dict[str, dict[str, Any]] = {
    "turned": {"angle_deg": 10.0},
    "exchanged": {"swapped": True},
    "step": {"factor": 1.25},
    "lost": {"later": 1, "from_share": 0.5},
    "late": {"later": -3},
}
WAYS = ("right", *DEFOCI, *SCANS)


def defoci(probe: Any, key: str, factor: float, told: float) -> Iterator[str]:
    """Yield the changes of a recipe that multiply each defocus that is told."""
    if "scans" in probe:
        for name, each in probe["scans"].items():
            yield from defoci(each, f"{key}.scans.{name}", factor, told)
    else:
        yield f"{key}.defocus_angstrom={factor * (probe.get('defocus_angstrom') or told)}"


def lying(
    read: Callable[[Any], Recording],
    factor: float = 1.0,
    angle_deg: float = 0.0,
    swapped: bool = False,
    later: int = 0,
    from_share: float = 0.0,
) -> Any:
    """Return how data is read if its scan is told otherwise than it was, without the truth, which lies elsewhere."""

    def read_otherwise(data: Any) -> Recording:
        recording = read(data)
        positions_N2 = factor * oriented(recording.scan.positions_N2, swapped, (), angle_deg)
        positions_N2 += recording.scan.positions_N2.mean(axis=0) - positions_N2.mean(axis=0)
        scan = attrs.evolve(recording.scan, positions_N2=positions_N2, truth=None)
        taken_N = np.arange(len(positions_N2))
        taken_N[int(from_share * len(taken_N)) :] += later
        return Recording(recording.intensities_NYX[np.clip(taken_N, 0, len(taken_N) - 1)], scan)

    return read_otherwise


@contextmanager
def told(name: str, way: str, asked: list[str]) -> Iterator[Resolved]:
    """Give a recipe with a mistake; what its data is told is wrong within the context alone."""
    path = RECIPES / f"ptycho_{name}.toml"
    asked = [*asked, 'drop=["loggers"' + ("" if way == "right" else ', "hooks.truth"') + "]"]
    resolved = resolve(path, asked)
    assert isinstance(resolved.recipe.data, DiffractionData)
    kind = type(resolved.recipe.data)
    as_it_is = kind.read
    if way in DEFOCI:
        defocus = resolved.recipe.data.read().scan.defocus_angstrom
        assert defocus is not None
        asked += defoci(resolved.tree["model"]["probe"], "model.probe", DEFOCI[way], defocus)
    if way in SCANS:
        kind.read = lying(as_it_is, **SCANS[way])  # type: ignore[method-assign]
    try:
        yield resolve(path, asked)
    finally:
        kind.read = as_it_is  # type: ignore[method-assign]


def judged(resolved: Resolved, folder: Path) -> dict[str, Any]:
    """Hold the geometry with which a run ended against what its patterns fit best."""
    recipe, data = resolved.recipe, resolved.recipe.data
    model = recipe.model
    assert isinstance(data, DiffractionData)
    assert isinstance(model, Ptychography)
    with h5py.File(folder / "result.h5") as file:
        ending = Ending(file["probe"][()], file["positions_px"][()])
    judge = GeometryJudge(
        data.read(),
        data,
        model.probe,
        recipe.run.seed,
        depth_angstrom=0.5 * (model.thickness_angstrom or 0.0),
        tilts_differ=bool(model.scan_tilts_mrad),
        probe_is_trained=trains_probe(recipe),
    )
    verdicts = list(judge.judge(ending))
    return {
        "shares": [each.share for each in verdicts],
        "sureness": [each.sureness for each in verdicts],
        "lines": [each.line for each in verdicts],
        "doubts": [each.doubt for each in verdicts],
    }


def run(name: str, way: str, folder: Path, sets: list[str]) -> dict[str, Any]:
    """Run a recipe with a mistake, and judge its end."""
    asked = [*sets, f"run.dir={folder / 'runs'}", f"run.name={name}_{way}", "pictures.every_epochs=0", "run.threads=1"]
    with told(name, way, asked) as resolved:
        began = time.process_time()
        state = start(resolved, Console(quiet=True)).run.state
        seconds = time.process_time() - began
        return {
            "recipe": name,
            "told": way,
            "asked": asked,
            "run": str(state.folder),
            "r": state.metrics.get("truth/phase_pearson"),
            "cpu_s": seconds,
            "doubts_of_run": list(state.doubts),
            **judged(resolved, state.folder),
        }


def line(row: dict[str, Any]) -> str:
    """Return what was found, in words."""
    shares = ", ".join(f"{share:.2f} ({sure:.0f})" for share, sure in zip(row["shares"], row["sureness"], strict=True))
    doubted = "doubted" if any(row["doubts"]) or row["doubts_of_run"] else "no doubt"
    r = "" if row["r"] is None else f"r {row['r']:.3f}  "
    return f"{row['recipe']:18} {row['told']:10} {r}explains {shares}  {doubted}  {row['cpu_s']:.0f} CPU s"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of runs and of what was found")
    parser.add_argument("--recipes", nargs="+", default=SIMULATED, help="names without ptycho_")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="what is told")
    parser.add_argument("--set", nargs="+", default=[], help="changes of the recipes, such as data.path=…")
    parser.add_argument("--again", action="store_true", help="judge the runs that are there with today's code")
    given = parser.parse_args()
    folder: Path = given.work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "found.jsonl"
    rows = [json.loads(each) for each in record.read_text().splitlines()] if record.is_file() else []
    if given.again:
        for row in rows:
            with told(row["recipe"], row["told"], row["asked"]) as resolved:
                print(line(row | judged(resolved, Path(row["run"]))), flush=True)
        return
    done = {(row["recipe"], row["told"]) for row in rows}
    for name in given.recipes:
        for way in given.ways:
            if (name, way) in done:
                continue
            row = run(name, way, folder, given.set)
            with record.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
