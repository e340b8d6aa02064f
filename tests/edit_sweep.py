"""Random scripts of edits: a run that is edited, and its recipe repeated with the journal, end with the same bits.

    python tests/edit_sweep.py --scripts 100

Each script asks a run for edits at random steps (for the end of the epoch, the next step, or a later epoch), and for
stops, saves and pictures. The run is also interrupted and continued in between; at the end, it may be resumed with
other settings, or a branch of it is compared.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from clients import recorder, toy_run
from same import differences, trained

from trainkit import State, read_checkpoint
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.console import Console
from trainkit.engine import journal, run_folder
from trainkit.engine.every_run import requests
from trainkit.engine.queue import run_one
from trainkit.engine.resume import resume
from trainkit.engine.start import RunOutcome, no_report
from trainkit.recipe.resolve import resolve_text

RECIPE = (
    toy_run.TOY.replace("epochs = 2", "epochs = 5")
    + '[scheduler]\nuse = "cosine"\n[ema]\ndecay = 0.9\n[checkpoint]\nkeep_last = 50\n'
)
STEPS = 20


def train(
    folder: Path,
    asked: dict[int, dict[str, Any]],
    replay: Any = (),
    *,
    interrupt: frozenset[int] = frozenset(),
    text: str = RECIPE,
) -> Path:
    """Train the recipe below a folder, ask for things after the given steps, and return the run folder.

    Args:
        folder: The folder.
        asked: Step -> what is asked then.
        replay: What is repeated of another run.
        interrupt: Steps after which the run is interrupted, and continued.
        text: The recipe.
    """
    left, stops = dict(asked), set(interrupt)

    def act(state: State) -> None:
        if state.step in left:
            journal.ask(state.folder, **left.pop(state.step))
        if state.step in stops:
            stops.discard(state.step)
            state.interrupt("the node is needed")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(requests, "_BETWEEN_LOOKS_SECONDS", 0.0)
        patch.setattr(recorder, "ACTIONS", {"step_end": act})
        resolved = resolve_text(text, folder, (f"run.dir={folder / 'runs'}",))
        for _ in range(len(interrupt) + 1):
            outcome, _ = run_one(
                resolved, Console(quiet=True), continue_unfinished=True, report=no_report, replay=replay
            )
            if isinstance(outcome, RunOutcome) and not outcome.run.state.interrupted:
                return outcome.run.state.folder.absolute()
    raise AssertionError(f"the run does not end: {outcome}")


def script(rng: random.Random) -> tuple[dict[int, dict[str, Any]], frozenset[int]]:
    """Return a random script: step -> what is asked then, and the steps after which the run is interrupted."""
    asked: dict[int, dict[str, Any]] = {}
    for step in sorted(rng.sample(range(1, STEPS), rng.randint(1, 5))):
        kind = rng.choice(["edit", "edit", "edit", "edit", "save", "picture", "stop"])
        if kind != "edit":
            asked[step] = {"do": kind}
            continue
        sets = rng.choice(
            [
                (f"optimizer.lr={rng.uniform(1e-3, 0.1):.4g}",),
                (f"losses.squares.weight={rng.uniform(0.5, 2):.4g}",),
                ("validation.every_steps=3",),
                (f"run.epochs={rng.randint(5, 7)}",),
                ("checkpoint.every_steps=2", f"optimizer.lr={rng.uniform(1e-3, 0.1):.4g}"),
                ('scheduler.use="none"',),
                ("data.batch_size=6",),
            ]
        )
        asked[step] = {"do": "edit", "sets": sets, "on_extend": rng.choice(["stretch", "hold", "restart"])}
        if (way := rng.choice(["epoch", "now", "at"])) == "now":
            asked[step]["now"] = True
        elif way == "at":
            asked[step]["epoch"] = rng.randint(step // 4 + 1, 5)
    return asked, frozenset(rng.sample(range(1, STEPS), rng.randint(0, 2)))


def trial(seed: int, folder: Path) -> tuple[int, list[str]]:
    """Edit a run by a random script, repeat it, and return how many edits took effect, and what differs at the end."""
    rng = random.Random(seed)
    asked, interrupt = script(rng)
    (folder / "edited").mkdir()
    (folder / "repeated").mkdir()
    edited = train(folder / "edited", asked, interrupt=interrupt)
    if (more := rng.choice(["nothing", "resume", "branch"])) != "nothing":
        edited = _by_hand(edited, more, rng)
    first = run_folder.first_recipe(edited)
    assert first is not None
    repeated = train(folder / "repeated", {}, journal.to_replay(edited), text=first)
    taken = sum(each.do == "edit" and each.taken is not None for each in journal.read(edited))
    return taken, differences(_end(edited), _end(repeated)) + _values(edited, repeated)


def _by_hand(folder: Path, what: str, rng: random.Random) -> Path:
    """Resume a run with other settings, or branch from it, and return the folder in which it went on."""
    sets = [f"run.epochs={rng.randint(8, 9)}", f"losses.squares.weight={rng.uniform(0.5, 2):.4g}"]
    epoch = rng.randint(1, 2) if what == "branch" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[2])
        patch.setattr(recorder, "ACTIONS", {})
        outcome = resume(
            *(folder, Console(quiet=True)),
            sets=sets,
            epoch=epoch,
            branch=what == "branch",
            on_extend=rng.choice(["stretch", "hold", "restart"]),
            allow_code=True,
        )
        assert isinstance(outcome, RunOutcome)
        return outcome.run.state.folder.absolute()


def _end(folder: Path) -> dict[str, Any]:
    return trained(read_checkpoint(CheckpointFolder(folder / "checkpoints").in_order()[-1]))


def _values(one: Path, other: Path) -> list[str]:
    def rows(folder: Path) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in toy_run.lines(folder)]

    return [] if rows(one) == rows(other) else ["metrics.jsonl"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    edits = wrong = 0
    for seed in range(given.first, given.first + given.scripts):
        with tempfile.TemporaryDirectory() as folder:
            taken, found = trial(seed, Path(folder))
        edits += taken
        wrong += bool(found)
        if found:
            print(f"script {seed}: {', '.join(found[:8])}")
    print(f"{given.scripts} scripts, {edits} edits took effect, {wrong} differ")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
