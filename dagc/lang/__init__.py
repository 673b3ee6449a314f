"""The language front end: from source text and syntax tree to a typed, checked spec."""
