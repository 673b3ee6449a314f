"""Kernel times fitted to measurements: one module per kernel family, with its formula, constants and table."""

from __future__ import annotations

from .constants import CalibrationError as CalibrationError
from .load import available as available
from .load import load as load
