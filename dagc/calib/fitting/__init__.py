"""Fits the constants of `dagc.calib` to tables of measured kernels."""
