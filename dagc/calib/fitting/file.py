"""A calibration file as text: what `dagc.calib.calibration_file` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..constants import Device


def text(gpu: str, source: str, licence: str, device: Device, families: Mapping[str, Any]) -> str:
    """`families`: family -> variant -> constants, shapes and error."""
    peaks = {field.name: getattr(device, field.name) for field in fields(device)}
    body = {"gpu": gpu, "source": source, "licence": licence, "device": peaks, "families": families}
    return json.dumps(body, indent=1) + "\n"
