"""The language front end: source text -> syntax tree -> typed, checked spec."""
