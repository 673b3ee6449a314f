"""Calibration files as text: what `dagc.calib.calibration_file` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from ..calibration_file import SCHEMA
from ..constants import Device, Entry
from ..family import Family


def body(entry: Entry[Any]) -> dict[str, Any]:
    """What a file says of an entry."""
    error: dict[str, Any] = {name: getattr(entry.error, name) for name in ("median", "p90", "rows", "bias")}
    if entry.error.unseen is not None:
        error["unseen"] = entry.error.unseen
    found: dict[str, Any] = {
        "constants": {field.name: getattr(entry.constants, field.name) for field in fields(entry.constants)},
        "shapes": {name: list(ends) for name, ends in entry.shapes.items()},
        "error": error,
    }
    if entry.over is not None:
        found["over"] = {"gpu": entry.over.gpu, "engine": entry.over.engine}
        if entry.over.variant:
            found["over"]["variant"] = entry.over.variant
    if entry.residual is not None:
        residual = entry.residual
        found["residual"] = {"lengths": list(residual.lengths), "most": residual.most, "packed": residual.packed}
    return found


def bodies(entries: Iterable[tuple[Family[Any], Entry[Any]]]) -> dict[str, dict[str, Any]]:
    """Entries by family and variant."""
    found: dict[str, dict[str, Any]] = {}
    for family, entry in entries:
        found.setdefault(family.name, {})[entry.variant] = body(entry)
    return found


def text(gpu: str, engine: str, source: str, licence: str, device: Device, families: Mapping[str, Any]) -> str:
    """`families`: family -> variant -> what `body` says; `engine` empty: the file serves any."""
    whole = {
        "schema": SCHEMA, "gpu": gpu, "engine": engine, "source": source, "licence": licence, "device": peaks(device),
        "families": families,
    }  # fmt: skip
    return json.dumps(whole, indent=1) + "\n"


def peaks(device: Device) -> dict[str, Any]:
    """A device as files have it."""
    return {field.name: getattr(device, field.name) for field in fields(device)}
