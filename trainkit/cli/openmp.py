"""How long threads that wait for each other keep their CPUs busy, which is set before torch is imported.

torch divides an operation among threads of OpenMP. Whoever is ready first spins, 300,000 times by default, before it
gives its CPU to others. On a machine with few CPUs that other programs use as well, the thread that is waited for is
often one of those that get no CPU meanwhile. Spinning less changes no bit.

Source:
    The manual of GNU libgomp, "GOMP_SPINCOUNT".
"""

from __future__ import annotations

import os
import sys

from trainkit.cpus import usable_cpus

_SPINS = "10000"  # 0.2 ms: on an idle machine, threads are as quick as with the default; with fewer, they are slower
_FEW = 4  # CPUs; with more, it was not measured that it costs nothing on an idle machine
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_less() -> None:
    """Let threads give up their CPUs sooner, unless the user decides about it or torch has been imported."""
    if "torch" not in sys.modules and usable_cpus() <= _FEW and not any(name in os.environ for name in _VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
