"""Numerics of learning as pure functions: advantages, corrections, objectives, schedules, batches."""
