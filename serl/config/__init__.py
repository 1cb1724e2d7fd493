"""What a run is, as data: the strict schema, phases, and files that say it."""
