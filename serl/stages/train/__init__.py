"""The kind of stages `train`: what it says of itself is in `spec`."""
