"""Hands a batch script to Slurm."""

from __future__ import annotations

import shutil
import subprocess

from trainkit.errors import TrainkitError


def submit(script: str) -> str:
    """Put a job into the queue, and return its number.

    Args:
        script: The batch script, which Slurm keeps a copy of.

    Raises:
        TrainkitError: This machine has no Slurm, or Slurm refuses the job; the message is Slurm's.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise TrainkitError(
            "sbatch is not on this machine's PATH, so the job cannot be submitted from here; without --submit, the "
            "script is printed, and `sbatch FILE` on a login node of the cluster submits it"
        )
    done = subprocess.run([program, "--parsable"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainkitError(f"Slurm refuses the job: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]  # of several clusters, the name follows
