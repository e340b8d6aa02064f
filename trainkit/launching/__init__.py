"""How runs get onto machines: Slurm jobs."""
