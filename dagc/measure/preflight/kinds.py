"""Which GPU of the library a spec's hardware is, and what drivers call it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ...spec.hardware import Hardware


@cache
def _tables() -> dict[str, Any]:
    text = (resources.files(__package__) / "kinds.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def names() -> Mapping[str, str]:
    """GPU of the library -> a regular expression of its names."""
    return {kind: one["names"] for kind, one in _tables()["kinds"].items()}


def capability(dtypes: Mapping[str, float]) -> tuple[str, float] | None:
    """Of dtypes that a GPU multiplies, the one that needs most, and the compute capability that has it; None: nothing known."""
    known = [(float(least), name) for name, least in _tables()["capability"].items() if name in dtypes]
    return max(known)[::-1] if known else None


def kinds_of(hardware: Hardware) -> tuple[str, ...]:
    """GPUs of the library with the peaks and the memory bandwidth of the hardware, whatever its name; of several those with its
    innermost links, if any."""
    alike = {name: own for name, own in _library().items() if _alike(own, hardware)}
    same = [name for name, own in alike.items() if own.node.bandwidth_Bps == hardware.node.bandwidth_Bps]
    return tuple(same or alike)


def _alike(own: Hardware, hardware: Hardware) -> bool:
    peaks = dict(own.compute_flops) == dict(hardware.compute_flops)
    return peaks and own.hbm_Bps == hardware.hbm_Bps and own.vendor == hardware.vendor


@cache
def _library() -> Mapping[str, Hardware]:
    from ...lang import library
    from ...lang.library_hardware import library_hardware

    found = {name: library_hardware(name) for name in library.names("hardware")}
    return {name: own for name, own in found.items() if own is not None}


def matches(kind: str, name: str) -> bool:
    """Whether a driver's name is that of a GPU of the library."""
    pattern = names().get(kind)
    return pattern is not None and re.fullmatch(pattern, name) is not None


def known_as(name: str) -> str:
    """The GPU of the library that a driver calls so; nothing where none is."""
    return next((kind for kind in names() if matches(kind, name)), "")
