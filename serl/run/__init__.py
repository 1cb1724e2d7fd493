"""The run directory: bytes that survive a crash, manifests, attempts, events, signals."""
