"""How many processes prepare batches, by the CPUs and the memory of the machine that plans."""

from __future__ import annotations

from trainkit import free_host_memory, usable_cpus

_MOST = 8  # more rarely have anything to do, and each takes memory
_OF_A_PROCESS = 0.3e9  # bytes, before it has prepared anything
_BATCHES = 3  # that a worker holds: two which are finished, and one that it prepares
_SHARE = 0.5  # of the free memory, which a run needs for other things too


def worker_count(batch_bytes: int) -> tuple[int, str]:
    """Return how many workers suit this machine, and why.

    Args:
        batch_bytes: Size of a batch.
    """
    cpus = usable_cpus()
    fitting = int(_SHARE * free_host_memory() / (_OF_A_PROCESS + _BATCHES * batch_bytes))
    number = max(min(cpus - 1, _MOST, fitting), 0)
    what = "processes that prepare batches" if number else "the training prepares batches itself"
    if number < min(cpus - 1, _MOST):
        why = "more do not fit in half of the free memory here"
    elif number < cpus - 1:
        why = f"{_MOST} are enough; this machine has {cpus} CPUs"
    else:
        why = f"of {cpus} CPUs here, one trains" if cpus > 1 else "this machine has one CPU"
    return number, f"{what}: {why}; elsewhere, set as many as there are spare CPUs"
