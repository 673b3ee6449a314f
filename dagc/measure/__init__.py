"""Times of a plan's kernels on this machine, and a calibration fitted to them."""
