"""What every other part stands on: units, dtypes, source spans, diagnostics and files."""
