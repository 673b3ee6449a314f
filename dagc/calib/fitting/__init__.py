"""Fits the constants of `dagc.calib` to tables of measured kernels. Only `fit.py` needs scipy.

Columns of the tables: docs/calibration.md. Used by `dagc measure --fit` and by `tools/fit.py`.
"""
