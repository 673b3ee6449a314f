"""Times the kernels of a compiled plan on this machine, and fits a calibration to them (docs/measure.md).

Only `torch_device`, `torch_kernels` and `collectives` need PyTorch; what a plan's kernels are does not.
"""
