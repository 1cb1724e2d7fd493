"""The kind of stages `corpus`: what it says of itself is in `spec`."""
