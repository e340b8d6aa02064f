"""What a step of the hash-encoded object costs: CPU seconds, forward and backward, all pixels, one thread.

Compared are the direct form of the encoding (each pixel gathers the corners of its cells), the separable form on the
grid of pixels, the network after it, and the whole object beside one of pixels. All take turns, round by round; it is
the CPU's clock, and the minimum over the rounds counts (the median is shown beside it). Ends with 1 if the separable
form is less than five times as fast as the direct one.

    python benchmarks/hash_encoding.py [--side 512] [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from trainkit_ptychography.hash_encoding import HashEncoding
from trainkit_ptychography.hash_grid import encode, encode_grid, plan_grid
from trainkit_ptychography.hash_object import HashObject
from trainkit_ptychography.objects import Canvas
from trainkit_ptychography.pixels import Pixels

AIM = 5.0
LEVELS = 16
FEATURES = 2


def parts(side: int) -> dict[str, Callable[[], Tensor]]:
    """Return name -> what makes a tensor, whose sum of squares is then differentiated."""
    settings = HashEncoding(levels=LEVELS, features=FEATURES)
    canvas = Canvas((side, side), (side, side), torch.float32, torch.device("cpu"), 0)
    live = settings.build(canvas)
    assert isinstance(live, HashObject)
    grids = settings.grids((side / settings.base_resolution) ** (1 / (LEVELS - 1)))
    along = (torch.arange(side) + 0.5).double() / side
    plans = [plan_grid((along, along), grid, "linear", torch.float32) for grid in grids]
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    positions_P2 = torch.stack((columns.flatten(), rows.flatten()), dim=1)
    tables = list(live.tables)
    features_CP = encode_grid(tables, plans).detach().reshape(LEVELS * FEATURES, -1).requires_grad_()
    direct = encode(positions_P2, tables, grids)
    difference = float((direct.T - features_CP).abs().max().detach())
    print(f"largest difference between the two forms: {difference:.1e}, for features up to {largest(tables):.0e}")
    pixels, corner = Pixels().build(canvas), torch.zeros(1, 2, dtype=torch.int64)
    return {
        "encoding, direct": lambda: encode(positions_P2, tables, grids),
        "encoding, separable": lambda: encode_grid(tables, plans),
        "network": lambda: live._network(features_CP),
        "object, hash encoding": lambda: torch.view_as_real(live(corner)),
        "object, pixels": lambda: torch.view_as_real(pixels(corner)),
    }


def largest(tables: list[torch.nn.Parameter]) -> float:
    return max(float(table.detach().abs().max()) for table in tables)


def seconds(make: Callable[[], Tensor]) -> float:
    began = time.process_time()
    made = make()
    made.backward(torch.ones_like(made))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels along a side of the object")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compared = parts(arguments.side)
    times: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(arguments.rounds):
        for name, make in compared.items():
            times[name].append(seconds(make))
    print(f"{arguments.side}², {LEVELS} levels × {FEATURES} features: CPU ms forward + backward, minimum (median)")
    for name, taken in times.items():
        print(f"{name:24}{1e3 * min(taken):8.1f} ({1e3 * statistics.median(taken):.1f})")
    least = {name: min(taken) for name, taken in times.items()}
    ratio = least["encoding, direct"] / least["encoding, separable"]
    print(f"separable over direct: {ratio:.1f} times as fast (aim: {AIM:.0f})")
    print(f"the network's share of the object: {least['network'] / least['object, hash encoding']:.0%}")
    sys.exit(0 if ratio >= AIM else 1)


if __name__ == "__main__":
    main()
