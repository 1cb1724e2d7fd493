"""The kind of stages `respond`: what it says of itself is in `spec`."""
