"""Placed graphs on real devices: one process a GPU id, collectives of torch.distributed."""
