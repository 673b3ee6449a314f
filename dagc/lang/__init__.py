"""The language: from source text to a checked spec, and from blocks to a model graph."""
