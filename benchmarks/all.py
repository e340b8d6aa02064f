"""Runs the benchmarks of speed one after the other, and writes a table: machine, versions, and what each one printed.

Each benchmark has an aim of its own, and ends with another exit code than 0 if it is missed; so does this. Figures are
CPU seconds and ratios of what ran in turns, so they hold on a machine that does other things too, though not to the
last percent: where an aim is missed by little, run that benchmark by itself again.

    python benchmarks/all.py [--out FILE.md] [--mos2 mos2_sim.h5] [--thick thick_sto_sim.h5] [--brats FOLDER]
                             [--ptyrad ENV/bin/python] [--only …]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "cli_start": (),
    "step_overhead": (),
    "ptychography_epoch": ("--rounds", "30"),
    "time_to_quality": (),
    "multislice_epoch": ("--rounds", "3"),
    "streaming": ("--rounds", "2"),
    "hash_encoding": ("--rounds", "5"),
    "saving": ("--megabytes", "200", "--rounds", "3"),
    "segmentation_step": ("--tiny", "--rounds", "3"),
    "patch_fetch": (),
    "several_processes": ("--rounds", "5", "--only", "small unet"),
}
"""Name -> its arguments, so that all of them take minutes."""

_OPTION = {  # what takes a file: which one, and by which option
    "ptychography_epoch": ("mos2", "--data"),
    "time_to_quality": ("mos2", "--mos2"),
    "multislice_epoch": ("thick", "--data"),
}
_OF_PTYRAD = ("time_to_quality", "multislice_epoch")  # what can run PtyRAD beside the engine
_PACKAGES = ("trainkit", "torch", "numpy", "h5py", "monai", "safetensors")


def machine() -> list[str]:
    """Return what the figures were measured on, as lines of a list."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    load = f", load {os.getloadavg()[0]:.1f} before the first one" if hasattr(os, "getloadavg") else ""
    return [
        f"- {cpu}, {os.cpu_count()} cores, one thread each{load}",
        f"- Python {platform.python_version()}, {versions}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table; without it, it is printed alone")
    parser.add_argument("--mos2", type=Path, help="mos2_sim.h5; without it, scans of the same size are simulated")
    parser.add_argument("--thick", type=Path, help="thick_sto_sim.h5; without it, PtyRAD has no thick scan to read")
    parser.add_argument("--brats", type=Path, help="a folder of BraTS cases; without it, a case is made up")
    parser.add_argument("--ptyrad", type=Path, help="Python of an environment that has PtyRAD")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    given = parser.parse_args()
    lines = [f"# Benchmarks of {time.strftime('%Y-%m-%d')}", "", *machine(), ""]
    missed = []
    for name in given.only:
        arguments = list(BENCHMARKS[name])
        which, option = _OPTION.get(name, ("", ""))
        if which and (file := getattr(given, which)) is not None:
            arguments += [option, str(file.resolve())]
        if given.brats is not None and name == "patch_fetch":
            arguments.append(str(given.brats.resolve()))
        if given.ptyrad is not None and name in _OF_PTYRAD:
            arguments += ["--ptyrad", str(given.ptyrad.absolute())]
        print(f"{name} …", flush=True)
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
        )
        said = [line for line in done.stdout.splitlines() if not line.startswith(("epoch ", "the run had not conv"))]
        print("\n".join(said), flush=True)
        missed += [name] * (done.returncode != 0)
        state = "kept its aims" if done.returncode == 0 else f"MISSED an aim (exit code {done.returncode})"
        lines += [f"## {name}: {state}", "", "```text", *said, "```", ""]
    if given.out is not None:
        given.out.write_text("\n".join(lines))
    print("aims missed: " + (", ".join(missed) or "none"))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
