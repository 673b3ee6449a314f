"""Kernel times fitted to measurements: one module per kernel family, with its formula, constants and table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import Calibration as Calibration
    from .calibration import load as load
    from .constants import CalibrationError as CalibrationError
    from .constants import Device as Device
    from .constants import Entry as Entry
    from .known_gpus import available as available


def __getattr__(name: str) -> Any:
    """The reader loads on first use, and with it every family: a plan without a calibration needs none."""
    if name in ("CalibrationError", "Device", "Entry"):
        from . import constants

        return getattr(constants, name)
    if name == "available":
        from .known_gpus import available

        return available
    if name in ("Calibration", "load"):
        from . import calibration

        return getattr(calibration, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
