"""Orders of a training step's cells over the GPUs of a pipeline: who runs what when, checked and timed."""
