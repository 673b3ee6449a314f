"""Calibrated kernel times: one module a kernel family, each with `time_s(constants, shape...) -> seconds`.

`load(gpu)` reads the fitted constants of one GPU with their error on rows the fit did not see. Every rate is held
at or below its datasheet peak, so no time beats the roofline of the same FLOPs and bytes.
"""

from __future__ import annotations

from .constants import CalibrationError as CalibrationError
from .constants import Device as Device
from .constants import Entry as Entry
from .load import Calibration as Calibration
from .load import available as available
from .load import load as load
