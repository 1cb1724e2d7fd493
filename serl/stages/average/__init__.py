"""The kind of stages `average`: what it says of itself is in `spec`."""
