"""Who walks the plan: this machine, or Slurm."""
