"""The kind of stages `judge`: what it says of itself is in `spec`."""
