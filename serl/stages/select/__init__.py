"""The kind of stages `select`: what it says of itself is in `spec`."""
