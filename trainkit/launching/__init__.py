"""How runs get onto machines: several processes by torchrun, and jobs of Slurm."""
