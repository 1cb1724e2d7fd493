"""Problems, prompts and proposals as text."""
