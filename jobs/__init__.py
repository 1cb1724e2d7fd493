"""What runs where and when. The verbs are the modules of this folder: `python -m jobs.launch`."""
