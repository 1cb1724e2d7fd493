"""What the doctor looks at: the site's Slurm, its file system, its nodes, and whether the cluster file fits them."""
