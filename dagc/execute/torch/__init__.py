"""Placed graphs on real devices: one process per GPU id, collectives of torch.distributed."""
