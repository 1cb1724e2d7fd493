"""What the verbs share: arguments, mistakes, exit codes, JSON, tables, completion."""
