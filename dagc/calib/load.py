"""Read calibration files, strictly: every field known, present and a number.

Every rate is held at or below its datasheet peak, so no time beats the roofline of the same FLOPs and bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ..base.files import Unreadable, read_text
from .all_to_all import AllToAllConstants
from .collective import CollectiveConstants
from .constants import CalibrationError, Device, Entry, FitError, folder
from .custom_allreduce import CustomAllReduceConstants
from .decode_attention import DecodeAttentionConstants
from .decode_mla import DecodeMlaConstants
from .domain_a2a import DomainA2aConstants
from .gemm import GemmConstants
from .moe import MoeConstants
from .moe_a2a import MoeA2aConstants
from .prefill_attention import PrefillAttentionConstants
from .prefill_mla import PrefillMlaConstants

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted constants of one GPU: for each family, entries by variant (see the key functions below).

    A family may lack a variant, or all, where nobody measured it.
    """

    gpu: str
    source: str
    device: Device
    gemm: Mapping[str, Entry[GemmConstants]]
    moe: Mapping[str, Entry[MoeConstants]]
    prefill_attention: Mapping[str, Entry[PrefillAttentionConstants]]
    decode_attention: Mapping[str, Entry[DecodeAttentionConstants]]
    prefill_mla: Mapping[str, Entry[PrefillMlaConstants]]
    decode_mla: Mapping[str, Entry[DecodeMlaConstants]]
    collective: Mapping[str, Entry[CollectiveConstants]]
    all_to_all: Mapping[str, Entry[AllToAllConstants]]
    custom_allreduce: Mapping[str, Entry[CustomAllReduceConstants]]
    moe_a2a: Mapping[str, Entry[MoeA2aConstants]]
    domain_a2a: Mapping[str, Entry[DomainA2aConstants]]


def prefill_key(dtype: str, kv_dtype: str, head_dim: int) -> str:
    """Variant of prefill attention: `bf16_kv_fp8_hd128`."""
    return f"{dtype}_kv_{kv_dtype}_hd{head_dim}"


def decode_key(kv_dtype: str, head_dim: int, grouped: bool) -> str:
    """Variant of decode attention: `kv_fp8_hd128_gqa`; `mha` where every query head has its own KV head."""
    return f"kv_{kv_dtype}_hd{head_dim}_{'gqa' if grouped else 'mha'}"


def prefill_mla_key(dtype: str, kv_dtype: str) -> str:
    """Variant of MLA prefill: `bf16_kv_fp8`."""
    return f"{dtype}_kv_{kv_dtype}"


def decode_mla_key(kv_dtype: str) -> str:
    """Variant of MLA decode: `kv_fp8`."""
    return f"kv_{kv_dtype}"


def a2a_key(backend: str, phase: str) -> str:
    """Variant of expert dispatch or combine: `deepep_ll_dispatch`, `nvlink_one_sided_combine`."""
    return f"{backend}_{phase}"


def available() -> list[str]:
    """GPUs with a calibration file."""
    names = (file.name.removesuffix(".json") for file in folder().iterdir() if file.name.endswith(".json"))
    return sorted(name for name in names if name not in ("accuracy", "cluster_exchange"))


def load(gpu: str) -> Calibration:
    """Calibration of a GPU, by its name in the hardware library (`h100_sxm`), or from a file whose path ends in .json.

    Raises CalibrationError when there is none, or its file is not well formed.
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
        raise CalibrationError(f"no calibration for {gpu}; there are: {', '.join(available())}")
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
    _keys(families, set(FAMILIES), f"{name}: families")
    gpu, source, licence = (_text(root[key], f"{name}: {key}") for key in ("gpu", "source", "licence"))
    read: dict[str, Any] = {
        family: _entries(families[family], constants, RANGES.get(family, ()), f"{name}: {family}")
        for family, constants in FAMILIES.items()
    }
    return Calibration(gpu, f"{source} ({licence})", _device(root["device"], f"{name}: device"), **read)


FAMILIES: dict[str, type[Any]] = {
    "gemm": GemmConstants,
    "moe": MoeConstants,
    "prefill_attention": PrefillAttentionConstants,
    "decode_attention": DecodeAttentionConstants,
    "prefill_mla": PrefillMlaConstants,
    "decode_mla": DecodeMlaConstants,
    "collective": CollectiveConstants,
    "all_to_all": AllToAllConstants,
    "custom_allreduce": CustomAllReduceConstants,
    "moe_a2a": MoeA2aConstants,
    "domain_a2a": DomainA2aConstants,
}


RANGES: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "prefill_attention": ("batch_size", "seq_len"),
    "decode_attention": ("batch_size", "kv_len"),
    "prefill_mla": ("batch_size", "seq_len"),
    "decode_mla": ("batch_size", "kv_len"),
    "collective": ("num_gpus", "bytes"),
    "all_to_all": ("num_gpus", "bytes"),
    "custom_allreduce": ("num_gpus", "bytes"),
    "moe_a2a": ("num_tokens", "ep_size"),
    "domain_a2a": ("num_tokens", "ep_size"),
}
"""Shapes whose range a variant must state: estimates are checked against it."""
DIVISORS = ("_Bps", "_flops", "sms", "sharpness")
"""Ends of the names of constants by which something is divided. `quantise_Bps` may be 0."""


def _entries(found: object, constants: type[C], ranges: tuple[str, ...], where: str) -> dict[str, Entry[C]]:
    if not isinstance(found, dict):
        raise CalibrationError(f"{where}: expected variants, found {_short(found)}")
    return {variant: _entry(value, constants, ranges, f"{where}.{variant}") for variant, value in found.items()}


def _entry(found: object, constants: type[C], ranges: tuple[str, ...], where: str) -> Entry[C]:
    body = _keys(found, {"constants", "shapes", "error"}, where)
    names = [field.name for field in fields(constants)]  # type: ignore[arg-type]
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
    if missing := [name for name in ranges if name not in shapes]:
        raise CalibrationError(f"{where}.shapes: missing {', '.join(missing)}")
    return Entry(constants(**values), shapes, FitError(error["median"], error["p90"], int(error["rows"])))


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


def _keys(found: object, expected: set[str], where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise CalibrationError(f"{where}: expected an object, found {_short(found)}")
    if missing := sorted(expected - set(found)):
        raise CalibrationError(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(set(found) - expected):
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
    """What stands there, as far as it fits into a message."""
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
