"""What every other package builds on: units, dtypes, source spans, diagnostics and files."""
