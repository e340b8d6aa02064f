"""Finds out from the environment which of several processes this one is, if a launcher started several."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from trainkit.errors import RecipeError

_BY_MPI = {  # name of the number of processes -> names of the rank in the whole job, and on this machine
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    "PMI_SIZE": ("PMI_RANK", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
}
_FIRST_PORT, _NUM_PORTS = 20_000, 40_000


class Place(NamedTuple):
    """Which of the processes of a run this one is.

    Attributes:
        rank: Its number, from 0. The first process writes what is written.
        world: Number of processes.
        local_rank: Its number among those of this machine, from 0.
        launcher: What started it, for messages; "" if nothing did.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    launcher: str = ""

    @property
    def is_first(self) -> bool:
        """Whether it is the first process."""
        return self.rank == 0


ALONE = Place()
"""The place of a process that no launcher started."""


def place_of_process(environment: MutableMapping[str, str] = os.environ) -> Place:
    """Return which of several processes this one is.

    torchrun and `torch.distributed` tell it by RANK, WORLD_SIZE and LOCAL_RANK; srun and mpirun by names of their own.
    Where a launcher does not say under which address the processes meet, MASTER_ADDR and MASTER_PORT are set, if they
    can be found out.

    Args:
        environment: The environment variables.

    Raises:
        RecipeError: A launcher started several processes, but does not say all that is needed.
    """
    if _number(environment, "WORLD_SIZE") > 1:
        place = _place(environment, "WORLD_SIZE", "RANK", "LOCAL_RANK", "torchrun")
    elif (size := _size_of_slurm_step(environment)) is not None:
        place = _place(environment, size, "SLURM_PROCID", "SLURM_LOCALID", "srun")
        environment.setdefault("MASTER_ADDR", _first_machine(environment))
        environment.setdefault("MASTER_PORT", _port_of_job(environment))
    else:
        size = next((name for name in _BY_MPI if _number(environment, name) > 1), None)
        if size is None:
            return ALONE
        place = _place(environment, size, *_BY_MPI[size], "mpirun")
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if lacking:
        raise RecipeError(
            f"{place.launcher} started this command in {place.world} processes, but does not say where they meet: set "
            f"{' and '.join(lacking)} (a machine that all can reach, and a free port of it), or use torchrun or "
            "trainkit run --processes"
        )
    return place


def refuse_several_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that this process was not started as one of several, for commands that are one process.

    Raises:
        RecipeError: It was.
    """
    names = ["WORLD_SIZE", *_BY_MPI]
    if (of_step := _size_of_slurm_step(environment)) is not None:
        names.append(of_step)
    for name in names:
        if (size := _number(environment, name)) > 1:
            raise RecipeError(
                f"a launcher started this command in {size} processes ({name} is set), but it is one process: each "
                "would do the whole work. Start the command once, without torchrun, or with srun --ntasks=1; if it is "
                f"started only once, unset {name}"
            )


def _place(environment: Mapping[str, str], size: str, rank: str, local_rank: str, launcher: str) -> Place:
    world = _number(environment, size)
    number = environment.get(rank, "")
    if not number.isdecimal() or int(number) >= world:
        raise RecipeError(
            f"{size} = {world} says that a launcher started this command in {world} processes, but {rank} does not say "
            f'which one this is ("{number}"); if it is started only once, unset {size}'
        )
    local = environment.get(local_rank, "")
    if not local.isdecimal():
        raise RecipeError(f"{size} is {world}, but {local_rank}, the number of this process on its machine, is not set")
    return Place(int(number), world, int(local), launcher)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 0


def _size_of_slurm_step(environment: Mapping[str, str]) -> str | None:
    """Return the name of the variable that says how many processes srun started, if these are several."""
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment:
        return None  # the one process of a batch script, which has the number of tasks of the job
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    return name if _number(environment, name) > 1 else None  # the latter may be that of the job, in a step of it


def _first_machine(environment: Mapping[str, str]) -> str:
    """Return the first of the machines of a Slurm step, which Slurm writes like ``gpu[03-05,9],cpu1``."""
    machines = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", machines)
    return "".join(part or "" for part in found.groups()) if found else ""


def _port_of_job(environment: Mapping[str, str]) -> str:
    """Return a port that depends on the job and its step, so that two jobs of one machine hardly choose the same."""
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID")
    return str(_FIRST_PORT + (job + 7919 * step) % _NUM_PORTS)
