"""Many runs from one file: trials, the lanes they queue in, and what becomes of them."""
