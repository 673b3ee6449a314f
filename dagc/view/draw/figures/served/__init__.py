"""Pictures of a simulated serving."""
