"""What every other package builds on: units, dtypes, source spans, diagnostics, files and the parser."""
