"""What runs where and when. The verbs are modules: `python -m jobs.launch`, `resume`, `status`, `cancel`, `shard`, `report`."""
