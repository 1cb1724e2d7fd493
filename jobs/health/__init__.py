"""What the doctor looks at: a site's Slurm, files and nodes, and whether the cluster file fits them."""
