"""Shell scripts, followed without being run: which commands they would start, with what arguments, environment and files."""
