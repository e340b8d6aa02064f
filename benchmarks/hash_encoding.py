"""Measures one step of the hash-encoded object: forward and backward for all pixels.

It compares the direct form of the encoding (each pixel gathers the corners of its cells), the separable form on the
grid of pixels, both also with torch.compile if requested, tinycudann if it and CUDA are available, the network after
the encoding, and the whole object with an object of pixels. The variants are interleaved, round by round, and the
minimum over the rounds counts (the median is printed too). On the CPU, one thread runs and CPU time is measured. On
CUDA, wall-clock time is measured, with synchronisation before and after. Compilation happens before the first round and
is not counted.

Ends with 1 if the backend that "auto" takes is not the fastest: on the CPU, if the separable form is less than five
times as fast as the direct one; on CUDA, if tinycudann is there and a form in torch is faster.

    python benchmarks/hash_encoding.py [--side 512] [--rounds 7] [--device cuda] [--compile]
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

from trainkit_ptychography.objects.encoding.hash_grid import encode, encode_grid, plan_grid
from trainkit_ptychography.objects.encoding.levels import scale_that_ends_at
from trainkit_ptychography.objects.encoding.tinycudann import TinyCudaEncoding, try_out, why_not
from trainkit_ptychography.objects.encoding.tinycudann_installed import version
from trainkit_ptychography.objects.hash_encoding import HashEncoding
from trainkit_ptychography.objects.hash_encoding_live import HashObject
from trainkit_ptychography.objects.kind import ObjectGeometry
from trainkit_ptychography.objects.pixels import Pixels

AIM = 5.0
LEVELS = 16
FEATURES = 2
DIRECT, SEPARABLE, TINYCUDANN = "encoding, direct", "encoding, separable", "encoding, tinycudann"


def parts(side: int, device: torch.device, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """Return name -> function that makes a tensor; the sum of its squares is then differentiated."""
    settings = HashEncoding(levels=LEVELS, features=FEATURES)
    geometry = ObjectGeometry((side, side), (side, side), torch.float32, device, 0)
    live = settings.build(geometry).to(device)
    assert isinstance(live, HashObject)
    scale = scale_that_ends_at(side, LEVELS, settings.base_resolution)
    grids = settings.grids(scale)
    along = ((torch.arange(side) + 0.5).double() / side).float()
    plans = [plan_grid((along, along), grid, "linear", torch.float32, device) for grid in grids]
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    positions_P2 = torch.stack((columns.flatten(), rows.flatten()), dim=1).to(device)
    tables = list(live.tables)
    forms: dict[str, Callable[[], Tensor]] = {
        DIRECT: lambda: encode(positions_P2, tables, grids),
        SEPARABLE: lambda: encode_grid(tables, plans).flatten(1).T,
    }
    if compiled:
        forms |= {f"{name}, compiled": torch.compile(form) for name, form in forms.items()}
    encoding = TinyCudaEncoding(settings, scale)
    reason = why_not(device, torch.float32) or try_out(encoding, grids, FEATURES, "linear", device)
    if reason is None:
        forms[TINYCUDANN] = lambda: encoding(positions_P2, tables)
    print(f"torch {torch.__version__}, tinycudann {version() if reason is None else f'not: {reason}'}")
    reference = forms[DIRECT]().detach()
    print(f"largest difference from the direct form, for features up to {largest(tables):.0e}:")
    for name, form in forms.items():
        print(f"{name:32}{float((form().detach() - reference).abs().max()):8.1e}")
    features_CP = reference.T.contiguous().requires_grad_()
    pixels, corner = Pixels().build(geometry).to(device), torch.zeros(1, 2, dtype=torch.int64, device=device)
    return {
        **forms,
        "network": lambda: live._network(features_CP),
        "object, hash encoding": lambda: torch.view_as_real(live(corner)),
        "object, pixels": lambda: torch.view_as_real(pixels(corner)),
    }


def largest(tables: list[torch.nn.Parameter]) -> float:
    return max(float(table.detach().abs().max()) for table in tables)


def now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(make: Callable[[], Tensor], device: torch.device) -> float:
    began = now(device)
    made = make()
    made.backward(torch.ones_like(made))
    return now(device) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels along a side of the object")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="try the forms in torch after torch.compile, too")
    arguments = parser.parse_args()
    device = arguments.device
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device, or torch was built without CUDA")
    torch.set_num_threads(1)
    compared = parts(arguments.side, device, arguments.compile)
    for make in compared.values():
        seconds(make, device)
    times: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(arguments.rounds):
        for name, make in compared.items():
            times[name].append(seconds(make, device))
    where = "CPU" if device.type != "cuda" else torch.cuda.get_device_name(device)
    print(f"{arguments.side}², {LEVELS} levels × {FEATURES} features: {where} ms forward + backward, minimum (median)")
    for name, taken in times.items():
        print(f"{name:32}{1e3 * min(taken):8.2f} ({1e3 * statistics.median(taken):.2f})")
    least = {name: min(taken) for name, taken in times.items()}
    ratio = least[DIRECT] / least[SEPARABLE]
    print(f"separable over direct: {ratio:.1f} times as fast" + (f" (aim: {AIM:.0f})" if device.type == "cpu" else ""))
    print(f"the network's share of the object: {least['network'] / least['object, hash encoding']:.0%}")
    if device.type == "cpu":
        sys.exit(0 if ratio >= AIM else 1)
    if TINYCUDANN in least:
        others = min(taken for name, taken in least.items() if name.startswith("encoding") and name != TINYCUDANN)
        print(f"tinycudann over the fastest form in torch: {others / least[TINYCUDANN]:.1f} times as fast (aim: 1)")
        sys.exit(0 if least[TINYCUDANN] <= others else 1)


if __name__ == "__main__":
    main()
