"""A training step: times of its cells, what is kept for gradients, and the memory of every GPU of a pipeline."""
