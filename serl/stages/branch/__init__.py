"""The kind of stages `branch`: what it says of itself is in `spec`."""
