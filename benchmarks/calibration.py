"""What is fitted to held-out cases, and where it acts: the tables of docs/calibration.md.

    python benchmarks/calibration.py RUN [RUN...] [--set data.path=Task04_Hippocampus] [--flips x] [--dealings 6]

The runs hold out the same cases and have classes that exclude each other. Every score is kept in memory, so this is for
small volumes. Each line is a mean over several ways to deal the cases into halves: fitted on one half, and measured on
the other.

Shapes: M = networks and mirrored forms, N = voxels, K = scores.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainkit.contracts import Context
from trainkit.engine.trained_checkpoints import Choice, find_checkpoints
from trainkit.engine.trained_models import load_members
from trainkit_segmentation.calibration.boundaries import beside_boundaries, within
from trainkit_segmentation.calibration.reliability import Reliability
from trainkit_segmentation.prediction.scoring import OwnScores

CPU = torch.device("cpu")
MM, BINS = 3.0, 15


class Case(NamedTuple):
    """A held-out case."""

    logits_MNK: Tensor
    label_N: Tensor
    near_N: Tensor

    def near(self) -> Case:
        return Case(self.logits_MNK[:, self.near_N], self.label_N[self.near_N], self.near_N[self.near_N])


def predicted(runs: Sequence[Path], sets: Sequence[str], flips: str) -> list[Case]:
    """Return the held-out cases with the logits of each network and mirrored form."""
    loaded = [load_members(find_checkpoints([run], Choice(), print), sets, CPU, False) for run in runs]
    settings, seed = loaded[0].trained_on[0]
    data: Any = settings.build(Context(seed, CPU, folder=runs[0]))
    ways = [[2 + "xyz".index(axis) for axis in some] for n in range(len(flips) + 1) for some in _some(flips, n)]
    forms = []
    for each, dims in itertools.product(loaded, ways):
        member = each.members[0]._replace(model=_Mirrored(each.members[0].model, dims))
        whole = slice(0, member.data.num_channels)
        forms.append(OwnScores(each.settings, [member], [whole], "logits", CPU, lambda progress: None))
    cases = []
    for batch in data.evaluate("val"):
        case = batch["case"]
        grid = data.grid(case)
        of_forms = []
        for form in forms:
            axis, planes_PKUV = form.planes(data.image(case), grid)
            logits_PKUV = torch.cat([planes.clone() for planes in planes_PKUV])
            of_forms.append(logits_PKUV.movedim(0, 1).movedim(1, 1 + axis).double())
        label_XYZ = grid.cut(grid.turn(data.truth(case).numpy()))[0]
        found_XYZ = torch.softmax(torch.stack(of_forms), 1).mean(0).argmax(0).numpy()
        beside_XYZ = beside_boundaries(label_XYZ) | beside_boundaries(found_XYZ)
        near_XYZ = within(beside_XYZ, [grid.own_spacing_mm[axis] for axis in grid.axes], MM)
        logits_MNK = torch.stack(of_forms).flatten(2).movedim(1, 2)
        cases.append(
            Case(
                logits_MNK,
                torch.from_numpy(label_XYZ.astype(np.int64)).flatten(),
                torch.from_numpy(near_XYZ.copy()).flatten(),
            )
        )
    return cases


def _some(flips: str, number: int) -> itertools.combinations[str]:
    return itertools.combinations(flips, number)


class _Mirrored(torch.nn.Module):
    """A network that sees a mirrored image."""

    def __init__(self, model: torch.nn.Module, dims: list[int]) -> None:
        super().__init__()
        self.model, self.dims = model, dims

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.model({"image": batch["image"].flip(self.dims)})["logits"].flip(self.dims)}


def combined(logits_MNK: Tensor, parameters: Tensor, place: str) -> Tensor:
    """Return the logarithms of probabilities (N, K); parameters are log temperature, and a bias for each score."""
    temperature, bias_K = parameters[0].exp(), parameters[1:]
    if place == "before":
        log_MNK = torch.log_softmax(logits_MNK / temperature + bias_K, 2)
        return torch.logsumexp(log_MNK, 0) - math.log(len(log_MNK))
    mean_NK = logits_MNK.mean(0)
    if place == "after":
        mean_NK = torch.logsumexp(torch.log_softmax(logits_MNK, 2), 0) - math.log(len(logits_MNK))
    return torch.log_softmax(mean_NK / temperature + bias_K, 1)


def fit(cases: Sequence[Case], place: str, *, bias: bool) -> Tensor:
    """Return the parameters with the lowest NLL."""
    joined = _joined(cases)
    parameters = torch.zeros(1 + joined.logits_MNK.shape[2], dtype=torch.float64, requires_grad=True)
    allowed = torch.ones_like(parameters)
    allowed[1 if bias else 0 :] = float(bias)
    allowed[0] = 1.0
    allowed[1] = 0.0  # of the background: a constant in all logits changes nothing
    optimizer = torch.optim.LBFGS([parameters], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(combined(joined.logits_MNK, parameters * allowed, place), joined.label_N)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return (parameters * allowed).detach()


def _joined(cases: Sequence[Case]) -> Case:
    return Case(
        torch.cat([each.logits_MNK for each in cases], 1),
        torch.cat([each.label_N for each in cases]),
        torch.cat([each.near_N for each in cases]),
    )


def measured(cases: Sequence[Case], parameters: Tensor, place: str) -> dict[str, float]:
    found = {"near": Reliability(BINS), "all": Reliability(BINS)}
    for case in cases:
        log_NK = combined(case.logits_MNK, parameters, place)
        found["all"].add(log_NK, case.label_N)
        found["near"].add(log_NK[case.near_N], case.label_N[case.near_N])
    return {f"{name} {what}": getattr(each, what) for name, each in found.items() for what in ("nll", "ece")}


def compare(
    title: str, cases: Sequence[Case], dealings: int, fitted: Callable[[Sequence[Case]], Tensor], place: str
) -> None:
    """Print means over ways to deal the cases: without, and with what was fitted."""
    lines = []
    for seed in range(dealings):
        order = np.random.default_rng(100 + seed).permutation(len(cases)).tolist()
        first, second = ([cases[n] for n in part] for part in (order[: len(cases) // 2], order[len(cases) // 2 :]))
        parameters = fitted(first)
        raw = measured(second, torch.zeros_like(parameters), place)
        after = measured(second, parameters, place)
        lines.append([float(parameters[0].exp()), *(value for name in raw for value in (raw[name], after[name]))])
    values = np.mean(lines, axis=0)
    cells = [f"{values[1 + 2 * n]:.4f} -> {values[2 + 2 * n]:.4f}" for n in range(4)]
    print(f"{title:38} {values[0]:12.3f}   " + "   ".join(cells), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--flips", default="x", help="axes, for example xy; empty: none")
    parser.add_argument("--dealings", type=int, default=6)
    chosen = parser.parse_args(arguments)
    with torch.inference_mode():
        cases = predicted(chosen.runs, chosen.sets, chosen.flips)
    cases = [Case(each.logits_MNK.clone(), each.label_N.clone(), each.near_N.clone()) for each in cases]
    print(
        f"{'':38} {'temperature':>12}   " + "   ".join(f"{name:16}" for name in ("NLL near", "ECE near", "NLL", "ECE"))
    )
    one = [each._replace(logits_MNK=each.logits_MNK[:1]) for each in cases]

    def near(some: Sequence[Case]) -> list[Case]:
        return [each.near() for each in some]

    compare(
        "one: temperature, near boundaries", one, chosen.dealings, lambda c: fit(near(c), "after", bias=False), "logits"
    )
    compare("one: temperature, everywhere", one, chosen.dealings, lambda c: fit(c, "after", bias=False), "logits")
    compare(
        "one: with biases, near boundaries", one, chosen.dealings, lambda c: fit(near(c), "after", bias=True), "logits"
    )

    def of_one(some: Sequence[Case]) -> Tensor:
        return fit([each._replace(logits_MNK=each.logits_MNK[:1]) for each in near(some)], "logits", bias=False)

    for place in ("logits", "before", "after"):
        compare(
            f"all {len(cases[0].logits_MNK)}: {place}", cases, chosen.dealings,
            lambda c, place=place: fit(near(c), place, bias=False), place,
        )  # fmt: skip
        compare(f"all {len(cases[0].logits_MNK)}: {place}, temperature of one", cases, chosen.dealings, of_one, place)


if __name__ == "__main__":
    main()
