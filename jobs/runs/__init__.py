"""What run directories tell: which there are, their state, progress, attempts and leftovers."""
