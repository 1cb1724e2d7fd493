"""What a right answer is: extraction, equivalence, benchmarks, scores. Imports neither torch nor serl."""
