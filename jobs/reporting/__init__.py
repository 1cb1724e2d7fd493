"""What a run, several runs or a sweep came to: numbers found, compared, drawn and written as pages."""
