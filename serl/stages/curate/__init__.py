"""The kind of stages `curate`: what it says of itself is in `spec`."""
