"""Times of a plan's kernels measured on this machine, and a calibration fitted to them."""
