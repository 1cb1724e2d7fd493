"""Configuration and what is done, to jobs; and what can be checked before anything runs."""
