"""A stranger's package with a kind of stage of its own; `test_made_up_kind` runs it and touches no other file."""
