"""Refuses a run that a launcher started in several processes, each of which would train the whole run."""

from __future__ import annotations

import os
from collections.abc import Mapping

from trainkit.errors import RecipeError

_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # torchrun; Open MPI; MPICH and Intel MPI


def refuse_several_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that this process was not started as one of several.

    Args:
        environment: The environment variables.

    Raises:
        RecipeError: It was.
    """
    sizes = {name: environment.get(name, "") for name in _SIZES}
    if not _is_in_batch_script(environment):
        name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        sizes[name] = environment.get(name, "")  # the latter may be that of the job, in an interactive step of it
    for name, size in sizes.items():
        if size.isdecimal() and int(size) > 1:
            raise RecipeError(
                f"a launcher started this command in {size} processes ({name} is set), but a run is one process: each "
                "would train the whole run. Start the command once, without torchrun, or with srun --ntasks=1; if it "
                f"is started only once, unset {name}"
            )


def _is_in_batch_script(environment: Mapping[str, str]) -> bool:
    """Return whether this is the one process of a Slurm batch script, which has the number of tasks of the job."""
    return "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
