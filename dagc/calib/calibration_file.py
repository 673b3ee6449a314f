"""Read calibration files, strictly: every field known, present and a number.

Every rate is bounded by its datasheet peak, so no time beats the roofline of the same FLOPs and bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ..base.files import Unreadable, read_text
from ..base.frozen import record
from .constants import CalibrationError, Device, Entry, FitError, folder
from .families import FAMILIES
from .family import Family

C = TypeVar("C")


@record
class Calibration:
    """Fitted constants of one GPU: for each family, entries by variant (`key` of its module names them).

    A family may lack a variant, or all, where nobody measured it.
    """

    gpu: str
    source: str
    device: Device
    entries: Mapping[str, Mapping[str, Entry[Any]]]

    def of(self, family: Family[C]) -> Mapping[str, Entry[C]]:
        """The variants of a family."""
        return self.entries[family.name]


def available() -> list[str]:
    """GPUs with a calibration file."""
    names = (file.name.removesuffix(".json") for file in folder().iterdir() if file.name.endswith(".json"))
    return sorted(name for name in names if name not in ("accuracy", "cluster_exchange"))


def load(gpu: str) -> Calibration:
    """Calibration of a GPU, by its name in the hardware library (`h100_sxm`), or from a file whose path ends in .json.

    Raises CalibrationError when there is no such file, or it is not well formed.
    """
    return _load_file(gpu, _changed_ns(gpu)) if gpu.endswith(".json") else _load_gpu(gpu)


def _changed_ns(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from None


@lru_cache(maxsize=16)
def _load_file(path: str, changed_ns: int) -> Calibration:
    """`changed_ns`: a file that is written anew is read anew."""
    try:
        text = read_text(path)
    except Unreadable as error:
        raise CalibrationError(f"cannot read {path}: {error}") from None
    return parse(text, Path(path).name)


@lru_cache(maxsize=16)
def _load_gpu(gpu: str) -> Calibration:
    if gpu not in available():
        raise CalibrationError(f"no calibration for {gpu}; available: {', '.join(available())}")
    text = (folder() / f"{gpu}.json").read_text(encoding="utf-8")
    return parse(text, f"{gpu}.json")


def parse(text: str, name: str) -> Calibration:
    """Calibration from the text of a file; `name` leads every error."""
    try:
        root = json.loads(text)
    except RecursionError:
        raise CalibrationError(f"{name}: not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # no JSON, or a whole number of thousands of digits
        raise CalibrationError(f"{name}: not JSON: {error}") from error
    _keys(root, {"gpu", "source", "licence", "device", "families"}, name)
    families = root["families"]
    _keys(families, set(), f"{name}: families", set(FAMILIES))
    gpu, source, licence = (_text(root[key], f"{name}: {key}") for key in ("gpu", "source", "licence"))
    device = _device(root["device"], f"{name}: device")
    entries = {key: _entries(families.get(key, {}), family, f"{name}: {key}") for key, family in FAMILIES.items()}
    return Calibration(gpu, f"{source} ({licence})", device, entries)


DIVISORS = ("_Bps", "_flops", "sms", "sharpness")
"""Ends of the names of constants by which something is divided. `quantise_Bps` may be 0."""


def _entries(found: object, family: Family[C], where: str) -> dict[str, Entry[C]]:
    if not isinstance(found, dict):
        raise CalibrationError(f"{where}: expected variants, found {_short(found)}")
    return {variant: _entry(value, family, f"{where}.{variant}") for variant, value in found.items()}


def _entry(found: object, family: Family[C], where: str) -> Entry[C]:
    body = _keys(found, {"constants", "shapes", "error"}, where)
    names = [field.name for field in fields(family.constants)]  # type: ignore[arg-type]
    values = _numbers(body["constants"], set(names), f"{where}.constants")
    for name, value in values.items():
        if name.endswith(DIVISORS) and name != "quantise_Bps":
            _positive(value, f"{where}.constants.{name}")
    error = _numbers(body["error"], {"median", "p90", "rows"}, f"{where}.error")
    shapes = {}
    if not isinstance(body["shapes"], dict):
        raise CalibrationError(f"{where}.shapes: expected ranges, found {_short(body['shapes'])}")
    for name, ends in body["shapes"].items():
        if not isinstance(ends, list) or len(ends) != 2:
            raise CalibrationError(f"{where}.shapes.{name}: expected [least, greatest], found {_short(ends)}")
        least, greatest = (_number(end, f"{where}.shapes.{name}") for end in ends)
        shapes[name] = (least, greatest)
    if missing := [name for name in family.ranges if name not in shapes]:
        raise CalibrationError(f"{where}.shapes: missing {', '.join(missing)}")
    return Entry(family.constants(**values), shapes, FitError(error["median"], error["p90"], int(error["rows"])))


def _device(found: object, where: str) -> Device:
    body = _keys(found, {"flops", "hbm_Bps", "link_Bps", "sms"}, where)
    if not isinstance(body["flops"], dict):
        raise CalibrationError(f"{where}.flops: expected FLOP/s by dtype, found {_short(body['flops'])}")
    flops = {dtype: _number(value, f"{where}.flops.{dtype}") for dtype, value in body["flops"].items()}
    if "bf16" not in flops:
        raise CalibrationError(f"{where}.flops: missing bf16")
    hbm, link, sms = (_number(body[key], f"{where}.{key}") for key in ("hbm_Bps", "link_Bps", "sms"))
    for key, value in {"flops.bf16": flops["bf16"], "hbm_Bps": hbm, "link_Bps": link, "sms": sms}.items():
        _positive(value, f"{where}.{key}")
    return Device(flops, hbm, link, sms)


def _keys(found: object, expected: set[str], where: str, optional: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise CalibrationError(f"{where}: expected an object, found {_short(found)}")
    if missing := sorted(expected - set(found)):
        raise CalibrationError(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(set(found) - expected - (optional or set())):
        raise CalibrationError(f"{where}: unknown {', '.join(unknown)}")
    return found


def _numbers(found: object, expected: set[str], where: str) -> dict[str, float]:
    body = _keys(found, expected, where)
    return {name: _number(value, f"{where}.{name}") for name, value in body.items()}


def _number(found: object, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= sys.float_info.max:
        raise CalibrationError(f"{where}: expected a finite number, not negative; found {_short(found)}")
    return float(found)


def _short(found: object) -> str:
    """What was found, as far as it fits into a message."""
    try:
        text = repr(found)
    except ValueError:  # a whole number of thousands of digits
        return "one of thousands of digits"
    return text if len(text) <= 40 else f"{text[:40]}..."


def _positive(value: float, where: str) -> None:
    if value <= 0:
        raise CalibrationError(f"{where}: expected more than 0")


def _text(found: object, where: str) -> str:
    if not isinstance(found, str):
        raise CalibrationError(f"{where}: expected text, found {_short(found)}")
    return found
