"""Numerics of learning as pure functions of tensors: advantages, objectives, schedules, batches."""
