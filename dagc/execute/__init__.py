"""Running a graph on numbers, rank by rank on NumPy or torch, and the proof of a lowering."""
