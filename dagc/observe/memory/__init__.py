"""Memory of a run by kind, from logs of engines and snapshots of torch, beside the memory pass."""
