"""When ops run: micro-batches, stages, streams."""
