"""Read calibration files, strictly: every field known, present and a number.

Every rate is bounded by its datasheet peak, so no time beats the roofline of the same FLOPs and bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..base.files import Unreadable, read_text
from ..base.frozen import fields_of, record
from .constants import CalibrationError, Device, Entry, FitError, Over
from .families import FAMILIES
from .family import COMMON, ENGINES, Family
from .known_gpus import folder
from .residual import Residual

C = TypeVar("C")
SCHEMA = 2


class Variants(Mapping[str, Entry[C]], Generic[C]):
    """Entries of one family by variant, each made when it is asked for."""

    def __init__(self, family: Family[C], found: dict[str, Any], head: Head, where: str) -> None:
        self._family, self._found, self._head, self._where = family, found, head, where
        self._made: dict[str, Entry[C]] = {}

    def __getitem__(self, variant: str) -> Entry[C]:
        if variant not in self._made:
            body = self._found[variant]
            self._made[variant] = _entry(body, self._family, variant, self._head, f"{self._where}.{variant}")
        return self._made[variant]

    def __contains__(self, variant: object) -> bool:
        return variant in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@record
class Head:
    """What a file says of all of its entries. `engine` empty: they serve any."""

    gpu: str
    engine: str
    source: str
    device: Device


@record
class CalibrationFile:
    """`families`: family -> variant -> entry, as far as somebody measured them."""

    head: Head
    families: Mapping[str, Variants[Any]]

    def of(self, family: Family[C]) -> Variants[C]:
        """The variants of a family."""
        found = self.families.get(family.name)
        return found if found is not None else Variants(family, {}, self.head, "")


def read(path: str) -> CalibrationFile:
    """A file of the user's. Raises CalibrationError when it cannot be read or is not well formed."""
    try:
        text = read_text(path)
    except Unreadable as error:
        raise CalibrationError(f"cannot read {path}: {error}") from None
    return checked(text, Path(path).name)


def checked(text: str, name: str) -> CalibrationFile:
    """As `parse`, with every entry read."""
    found = parse(text, name)
    for family, variants in found.families.items():
        for entry in variants.values():
            _check_constants(FAMILIES[family], entry, f"{name}: {family}.{entry.variant}")
            if entry.residual is not None:
                _check_residual(FAMILIES[family], entry.residual, f"{name}: {family}.{entry.variant}.residual")
    return found


def _check_constants(family: Family[Any], entry: Entry[Any], where: str) -> None:
    """Fitted constants are within what a fit may find, known ones are those of device and variant."""
    try:
        bounds = family.bounds(entry.device, entry.variant)
        facts = family.facts(entry.device, entry.variant)
    except (KeyError, ValueError, IndexError):
        raise CalibrationError(f"{where}: no such variant, or `device.flops` lacks its dtype") from None
    ranges = {name: (least, most) for name, (_, least, most) in bounds.items()}
    for name, (least, most) in {**ranges, **{name: (fact, fact) for name, fact in facts.items()}}.items():
        value = getattr(entry.constants, name)
        if not least * (1 - ROUNDED) <= value <= most * (1 + ROUNDED):
            wanted = f"{least:g}" if least == most else f"{least:g} to {most:g} on this device"
            raise CalibrationError(f"{where}.constants.{name}: expected {wanted}, found {value:g}")


ROUNDED = 1e-3
"""Constants are written with few digits."""
LENGTHS = 1e-3, 1e3
"""Octaves over which a residual may change."""


def _check_residual(family: Family[Any], residual: Residual, where: str) -> None:
    if len(residual.lengths) != len(family.lengths):
        raise CalibrationError(f"{where}.lengths: expected {len(family.lengths)}, found {len(residual.lengths)}")
    for each in residual.lengths:
        if not LENGTHS[0] <= each <= LENGTHS[1]:
            raise CalibrationError(f"{where}.lengths: expected {LENGTHS[0]:g} to {LENGTHS[1]:g}, found {each:g}")
    if residual.most > MOST:
        raise CalibrationError(f"{where}.most: expected at most {MOST:g}, found {residual.most:g}")
    if fault := residual.fault():
        raise CalibrationError(f"{where}.packed: {fault}")


MOST = 10.0
"""Of |log factor|: no formula is off by more than a factor of twenty thousand."""


def parse(text: str | bytes, name: str) -> CalibrationFile:
    """The file of a text; `name` leads every error. An entry is read when it is asked for, with its own errors."""
    root = _root(text, name)
    if isinstance(root, dict) and root.get("schema", 1) != SCHEMA:
        raise CalibrationError(
            f"{name}: a calibration of schema {_short(root.get('schema', 1))}; this dagc reads schema {SCHEMA}: "
            "fit it anew (`dagc measure SPEC --fit`)"
        )
    _keys(root, {"schema", "gpu", "engine", "source", "licence", "device", "families"}, name)
    _keys(root["families"], set(), f"{name}: families", set(FAMILIES))
    gpu, engine, source, licence = (_text(root[k], f"{name}: {k}") for k in ("gpu", "engine", "source", "licence"))
    head = Head(gpu, engine, f"{source} ({licence})", _device(root["device"], f"{name}: device"))
    found: dict[str, Variants[Any]] = {}
    for key, variants in root["families"].items():
        if not isinstance(variants, dict):
            raise CalibrationError(f"{name}: {key}: expected variants, found {_short(variants)}")
        found[key] = Variants(FAMILIES[key], variants, head, f"{name}: {key}")
    return CalibrationFile(head, found)


def _root(text: str | bytes, name: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except ValueError as error:
        raise CalibrationError(f"{name}: not JSON: {error}") from None


DIVISORS = ("_Bps", "_flops", "sms", "sharpness")
"""Ends of the names of constants by which something is divided. `quantise_Bps` may be 0."""


def _entry(found: object, family: Family[C], variant: str, head: Head, where: str) -> Entry[C]:
    body = _keys(found, {"constants", "shapes", "error"}, where, {"residual", "over"})
    names = fields_of(family.constants)
    values = _numbers(body["constants"], set(names), f"{where}.constants")
    for name, value in values.items():
        if name.endswith(DIVISORS) and name != "quantise_Bps":
            _positive(value, f"{where}.constants.{name}")
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
    error = _error(body["error"], f"{where}.error")
    residual = _residual(body["residual"], f"{where}.residual") if "residual" in body else None
    over = _over(body["over"], family, variant, f"{where}.over") if "over" in body else None
    return Entry(
        family.constants(**values), shapes, error, head.device, residual, head.gpu, head.engine, variant, over=over
    )


def _over(found: object, family: Family[C], variant: str, where: str) -> Over:
    body = _keys(found, {"gpu", "engine"}, where, {"variant"})
    gpu, engine = (_text(body[name], f"{where}.{name}") for name in ("gpu", "engine"))
    theirs = _text(body["variant"], f"{where}.variant") if "variant" in body else ""
    variant = theirs or variant
    known = engine in (*ENGINES, COMMON) and gpu in {each.name for each in folder().iterdir()}
    entry = shipped(family, gpu, engine).get(variant) if known else None
    if entry is None or (entry.over is not None and entry.over.over is not None):
        raise CalibrationError(
            f"{where}: the library has no {variant} of {_short(engine)} on {_short(gpu)} that others may lean on"
        )
    return Over(gpu, engine, entry.residual, theirs, entry.over)


@lru_cache(maxsize=4096)
def shipped(family: Family[C], gpu: str, engine: str) -> Mapping[str, Entry[C]]:
    """Entries of the library by variant."""
    if not engine:
        return {}
    file = folder() / gpu / engine / f"{family.name}.json"
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found: Variants[C] = parse(text, f"{gpu}/{engine}/{family.name}.json").of(family)
    return found


def _error(found: object, where: str) -> FitError:
    body = _keys(found, {"median", "p90", "rows", "bias"}, where, {"unseen"})
    median, p90, rows = (_number(body[name], f"{where}.{name}") for name in ("median", "p90", "rows"))
    bias = body["bias"]
    if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not abs(bias) <= sys.float_info.max:
        raise CalibrationError(f"{where}.bias: expected a finite number, found {_short(bias)}")
    unseen = _number(body["unseen"], f"{where}.unseen") if "unseen" in body else None
    return FitError(median, p90, int(rows), float(bias), unseen)


def _residual(found: object, where: str) -> Residual:
    body = _keys(found, {"lengths", "most", "packed"}, where)
    if not isinstance(body["lengths"], list) or not body["lengths"]:
        raise CalibrationError(f"{where}.lengths: expected numbers, found {_short(body['lengths'])}")
    lengths = tuple(_number(each, f"{where}.lengths") for each in body["lengths"])
    for each in lengths:
        _positive(each, f"{where}.lengths")
    return Residual(lengths, _number(body["most"], f"{where}.most"), _text(body["packed"], f"{where}.packed"))


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
