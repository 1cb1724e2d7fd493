"""What a stage computes: SeRL (arXiv 2505.20347) as idempotent stages over a run directory."""
