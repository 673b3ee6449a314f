"""Training steps that were measured, as specs, and the constants that are fitted to them."""
