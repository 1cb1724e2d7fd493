"""The kind of stages `score`: what it says of itself is in `spec`."""
