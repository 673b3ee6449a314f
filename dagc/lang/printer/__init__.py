"""The spec level as text, a file per section."""
