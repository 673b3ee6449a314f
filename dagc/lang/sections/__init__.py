"""The sections of a spec, each read into its record."""
