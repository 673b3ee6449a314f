"""Calibrated kernel times: one module per kernel family, each with `time_s(constants, shape...) -> seconds`."""

from __future__ import annotations

from .constants import CalibrationError as CalibrationError
from .constants import Device as Device
from .constants import Entry as Entry
from .load import Calibration as Calibration
from .load import available as available
from .load import load as load
