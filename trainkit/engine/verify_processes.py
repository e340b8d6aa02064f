"""Verifies for a recipe that any number of processes, and a change of it in mid-run, end with the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.console import Console
from trainkit.engine.every_run import metrics_file
from trainkit.engine.resume import resume
from trainkit.engine.several import take_part
from trainkit.engine.signals import KeptSignals, handled
from trainkit.engine.start import RunOutcome, start
from trainkit.engine.verify import StopAfter, say_differences, trained
from trainkit.errors import ProcessError, RecipeError, TrainkitError
from trainkit.processes.exchange import Exchange
from trainkit.processes.meeting import meeting
from trainkit.processes.place import Place
from trainkit.recipe.resolve import resolve_text, write

if TYPE_CHECKING:
    from trainkit.recipe.resolve import Resolved

_LOOK_EVERY_SECONDS = 0.05
_TO_END_SECONDS = 60.0
"""How long the other processes may take to end when one has ended."""


def verify_processes(resolved: Resolved, numbers: Sequence[int], epochs: int, say: Callable[[str], None]) -> bool:
    """Run the first epochs of a recipe in several numbers of processes, and with a change of the number in mid-run.

    Without ``run.shards``, the runs are compared all the same, and it is said by how much they differ: whoever needs no
    equal bits sees that the difference is that of rounding.

    Args:
        resolved: The recipe; the runs are written to its ``run.dir``.
        numbers: The numbers of processes; all are compared with the first one.
        epochs: Number of epochs to compare.
        say: Called with a message for each comparison and each difference.

    Returns:
        Whether all runs ended with the same bits.

    Raises:
        RecipeError: The recipe cannot be divided among a number of processes.
        TrainkitError: A run failed.
    """
    shards = resolved.recipe.run.shards
    for number in numbers:
        Exchange(Place(world=number)).with_shards(shards)
    if not shards:
        say(
            "run.shards is not set, so each number of processes rounds sums in another way, and has other random "
            f"numbers: bits will differ. With [run] shards = {_power_above(max(numbers))}, they would be the same"
        )
    numbers = list(dict.fromkeys(numbers))
    whole = _run(resolved, numbers[0], epochs)
    reached = trained(whole, say)
    steps, per_epoch = reached["step"], reached["steps_per_epoch"]
    say(f"{reached['epoch']} epochs of {per_epoch} steps in {_in_words(numbers[:1])}: {whole}")

    def compare(place: str, other: Path) -> bool:
        if shards:
            return say_differences(place, whole, other, say)
        say(f"{place}: {', '.join(_by_how_much(whole, other, say))}")
        return False

    same = True
    for number in numbers[1:]:
        same = compare(_in_words([number]), _run(resolved, number, epochs)) and same
    chain = _chain(numbers)
    stops = _stops(steps, per_epoch, len(chain) - 1)
    chain = chain[: len(stops) + 1]
    if stops:
        folder = None
        for number, stop in zip(chain, [*stops, None], strict=True):
            folder = _run(resolved, number, epochs, stop, folder)
        assert folder is not None
        after = f"step{'s' * (len(stops) > 1)} {' and '.join(map(str, stops))}"
        same = compare(f"{_in_words(chain)}, changed after {after}", folder) and same
    return same and shards > 0


def _in_words(numbers: Sequence[int]) -> str:
    return f"{', then '.join(map(str, numbers))} process{'es' * (numbers[-1] > 1)}"


def _power_above(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _chain(numbers: Sequence[int]) -> list[int]:
    """Return the numbers of processes of a run in which the number changes: up at once, then down to the first."""
    smallest, *others = sorted(numbers)
    return [smallest, *reversed(others), *([smallest] if len(others) == 1 else [])]


def _stops(steps: int, per_epoch: int, number: int) -> list[int]:
    """Return after which steps to change the number of processes: spread over all, inside an epoch where possible."""
    spread = [round((i + 1) * steps / (number + 1)) for i in range(number)]
    inside = [stop - (stop % per_epoch == 0 and per_epoch > 1) for stop in spread]
    return sorted({stop for stop in inside if 0 < stop < steps})


def _by_how_much(whole: Path, other: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Yield by how much a run without shards differs: its model, and the losses at its end."""
    mine, its = trained(whole, say), trained(other, say)
    apart = size = 0.0
    for name, value in mine["model"].items():
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            one, another = value.to(torch.complex128), its["model"][name].to(torch.complex128)
            apart, size = apart + float((one - another).norm()) ** 2, size + float(one.norm()) ** 2
    yield f"the norm of the model's difference is {(apart / size) ** 0.5 if size else 0.0:.2g} of the model's norm"
    for name in (name for name in mine["metrics"] if name.endswith("/loss")):
        yield f"{name} {mine['metrics'][name]:.6g}, {its['metrics'].get(name, float('nan')):.6g}"
    if len(metrics_file.read(whole)) != len(metrics_file.read(other)):
        yield "another number of lines of metrics"


# ---- processes ------------------------------------------------------------------------------------------------------


def _run(resolved: Resolved, number: int, epochs: int, stop: int | None = None, folder: Path | None = None) -> Path:
    """Run the recipe in new processes, and return the run folder.

    Args:
        resolved: The recipe.
        number: Number of processes.
        epochs: Number of epochs after which the run ends.
        stop: Number of finished steps after which the run is interrupted; None: it is not.
        folder: The folder of an interrupted run that goes on; None: a new run begins.

    Raises:
        TrainkitError: The run failed.
    """
    with tempfile.TemporaryDirectory(prefix="trainkit-verify-") as place:
        task = {
            "recipe": write(resolved.tree),
            "source": resolved.source,
            "epochs": epochs,
            "stop": stop,
            "folder": str(folder) if folder else None,
        }
        (Path(place) / "task.json").write_text(json.dumps(task), encoding="utf-8")
        _start_and_wait(number, Path(place))
        result = Path(place) / "result.json"
        found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
        if "folder" in found:
            return Path(found["folder"])
        said = (Path(place) / "output-0").read_text(errors="replace").strip().splitlines()
        why = found.get("error") or (said or ["the process ended without a word"])[-1]
        raise TrainkitError(f"the run in {_in_words([number])} failed: {why}")


def _start_and_wait(number: int, place: Path) -> None:
    """Start processes as torchrun does, and wait for their end."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # As for the command line, the working directory comes last in the path, so it hides no installed module.
    code = (
        "import os, sys; from trainkit.engine.verify_processes import run_as_one_of_several; "
        "sys.path.append(os.getcwd()); run_as_one_of_several(sys.argv[1])"
    )
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    size = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    started: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as files:
        try:
            for rank in range(number):
                output = files.enter_context((place / f"output-{rank}").open("wb"))
                which = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                command = [sys.executable, "-P", "-c", code, str(place)]
                environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | meet | size | which
                started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            until = None
            while any(each.poll() is None for each in started):
                if until is None and any(each.poll() is not None for each in started):
                    until = time.monotonic() + _TO_END_SECONDS
                if until is not None and time.monotonic() > until:
                    break
                time.sleep(_LOOK_EVERY_SECONDS)
        finally:
            for each in started:
                if each.poll() is None:
                    each.kill()
                each.wait()


def run_as_one_of_several(place: str) -> None:
    """Run what `_run` asks for, as the first of its processes or as another one."""
    folder, meet = Path(place), meeting()
    is_first = meet.place.is_first
    try:
        if is_first:
            _write_result(folder, {"folder": str(_first_process(json.loads((folder / "task.json").read_text())))})
        else:
            kept = KeptSignals()
            with handled(kept.on_signal):
                take_part(Console(quiet=True), kept)
    except Exception as error:
        if is_first or not (isinstance(error, ProcessError) or meet.fail(str(error))):
            _write_result(folder, {"error": str(error) or type(error).__name__})
        sys.exit(1)
    finally:
        (meet.end if is_first else meet.go)()


def _first_process(task: dict[str, Any]) -> Path:
    resolved = resolve_text(task["recipe"], Path("/"), source=task["source"], resolved=True)
    stop = [task["stop"]] if task["stop"] is not None else []
    extra = {"verify": lambda run: StopAfter(task["epochs"], interruptions=stop)}
    if task["folder"] is None:
        return start(resolved, Console(quiet=True), extra=extra).run.state.folder.absolute()
    outcome = resume(Path(task["folder"]), Console(quiet=True), recipe=resolved, allow_code=True, extra=extra)
    if not isinstance(outcome, RunOutcome):
        raise RecipeError(f"{task['folder']}: there is nothing left to run")
    return outcome.run.state.folder.absolute()


def _write_result(folder: Path, result: dict[str, str]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
