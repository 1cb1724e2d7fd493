"""What a run used and lost, what that teaches, and what a plan will therefore take."""
