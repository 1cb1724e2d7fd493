"""The kind of stages `propose`: what it says of itself is in `spec`."""
