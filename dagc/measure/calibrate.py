"""A calibration file from the tables of a folder, by the fitting code of the shipped ones. Needs scipy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..base.frozen import record
from ..calib.constants import Device
from ..calib.fitting import file
from ..calib.fitting.fit import at_bounds
from ..calib.fitting.folders import fit_folders
from ..spec.hardware import Hardware

LICENCE = "own measurements"
DTYPES = ("bf16", "fp8", "nvfp4")
"""Dtypes whose peak bounds a fit."""


@record
class Calibrated:
    """`text` of the file, empty when nothing could be fitted; `lines` for people."""

    text: str
    lines: tuple[str, ...]


def device_of(hardware: Hardware, processors: int) -> Device:
    """Datasheet peaks of the spec's hardware."""
    peaks = {dtype: hardware.peak_flops(dtype) for dtype in DTYPES}
    return Device(peaks, hardware.hbm_Bps, hardware.node.bandwidth_Bps, float(processors))


def calibrate(folder: Path, gpu: str, hardware: Hardware, processors: int, how: Mapping[str, str]) -> Calibrated:
    """Fits every table of the folder that has rows of `gpu`. Raises `fitting.tables.TableError`."""
    device = device_of(hardware, processors)
    found = fit_folders([folder], {gpu: device}, wanted=lambda key: key.gpu == gpu)
    lines = []
    for part in found.parts:
        head = f"  {part.family.name} {part.variant}: "
        if part.entry is None:
            lines.append(f"{head}{len(part.rows)} rows are too few to fit; a larger --grid measures more")
            continue
        error = part.entry.error
        lines.append(
            f"{head}median error {error.median:.1%}, 90th percentile {error.p90:.1%} on {error.rows} rows, each left out once"
        )
        if stuck := at_bounds(part.family, device, part.variant, part.entry.constants):
            lines.append(
                f"    at the bound of what was allowed: {', '.join(stuck)} (are the peaks of `hardware` those of this device?)"
            )
    bodies = file.bodies(found.entries)
    if not bodies:
        return Calibrated("", tuple(lines))
    source = "dagc measure, " + ", ".join(f"{name} {value}" for name, value in how.items() if value)
    return Calibrated(file.text(gpu, "", source, LICENCE, device, bodies), tuple(lines))
