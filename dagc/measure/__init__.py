"""Machines beside a plan: whether they are the spec's, times of its kernels, and a calibration fitted to them."""
