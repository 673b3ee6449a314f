"""Elaboration of hardware: peaks by dtype, and the calibration of a GPU's kernels."""

from __future__ import annotations

from pathlib import Path

from ...base.diagnostics import did_you_mean
from ...base.files import Unreadable
from ...base.schema.hardware import COMPUTE, HARDWARE
from ...base.source import Span
from ...base.units import BYTE_RATE, FLOP_RATE, TIME, Quantity
from ...spec.hardware import Hardware, Level, node_size
from ..body import Body
from ..doubts import doubt_hardware
from ..reader import Reader
from ..values.evaluate import Value
from ..values.names import Names
from .links import LINKS, level_keys, read_levels

GIVEN = ("price", "power", "host_memory", "host_link", "disk")
"""What a section may leave out, and then nothing is known of."""


def read_hardware(name: str, body: Body, names: Names, base: Path | None, span: Span) -> Hardware | None:
    """The GPUs and their links, or None when something is wrong or missing."""
    reader = Reader("hardware", body, HARDWARE, names, ("compute", *dict.fromkeys((*LINKS, *level_keys(body)))))
    values = reader.read()
    compute = _compute(body, values.get("compute"), names)
    numbers = {k: int(v.value) for k, v in values.items() if isinstance(v, Quantity)}
    per_host = numbers.get("per_host")
    levels = read_levels(body, names, numbers.get("gpus", 1), numbers.get("per_node", 1), per_host)
    optional = ("compute", "calibration", "per_host", *GIVEN)
    given = [k for k in GIVEN if k in body.assigns]
    wrong = (
        any(values[k] is None for k in given)
        or any(values[k] is None for k in HARDWARE if k not in optional)
        or ("per_host" in body.assigns and not per_host)
    )
    if wrong or not compute or levels is None:
        return None
    if "gpus" in reader.taken:
        return None  # how many GPUs there are is not known: no id is beyond them
    doubted = {
        **values,
        **{f"compute.{d}": Quantity(v, FLOP_RATE) for d, v in compute.items()},
        **{f"link {level.name}.{k}": v for level in levels for k, v in _figures(level).items()},
    }
    doubt_hardware(body, doubted, levels, names.out)
    q = {k: v.value for k, v in values.items() if isinstance(v, Quantity)}
    return Hardware(
        name, int(q["gpus"]), compute, q["mfu"], q["memory"], q["hbm"], q["mbu"], q["launch"], q["reserve"],
        levels, per_host or node_size(levels, int(q["gpus"])), _calibration(values["calibration"], body, names, base),
        q.get("price"), q.get("power"), str(values["vendor"]), str(values["kind"]), q.get("host_memory"),
        q.get("host_link"), q.get("disk"), span,
    )  # fmt: skip


def _figures(level: Level) -> dict[str, Quantity]:
    return {"bandwidth": Quantity(level.bandwidth_Bps, BYTE_RATE), "latency": Quantity(level.latency_s, TIME)}


def _calibration(given: Value | None, body: Body, names: Names, base: Path | None) -> str | None:
    """A GPU of the library, or the absolute path of a calibration file, which must be well formed; `none` drops a
    preset's."""
    if not isinstance(given, str) or given in ("", "none"):
        return None
    span = body.span_of("calibration")
    if given.endswith(".json"):
        from ...calib import CalibrationError, load

        try:
            path = str(names.find(given, base))
        except Unreadable as error:
            names.out.add("E05", f"cannot read `{given}`: {error}", span, help=error.help)
            return None
        try:
            load(path)
        except CalibrationError as error:
            names.out.add("E05", str(error).replace(path, f"`{given}`"), span)
        return path
    from ...calib.known_gpus import available

    known = available()
    if given not in known:
        near = did_you_mean(given, known)
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}, none, or a path that ends in .json"
        names.out.add("E02", f"`calibration` cannot be `{given}`", span, help=(hint,))
        return None
    return given


def _compute(body: Body, flat: Value | None, names: Names) -> dict[str, float]:
    """Peak FLOP/s by dtype; "default" is what was given flat, else the largest of fp16 and bf16."""
    out: dict[str, float] = {}
    inner = body.sub("compute", names.out)
    if inner is not None and ("compute" not in body.assigns or not isinstance(flat, Quantity)):
        read = Reader("compute", inner, COMPUTE, names).read()
        out = {k: v.value for k, v in read.items() if isinstance(v, Quantity)}
        if not out:
            names.out.add("E10", "`compute` does not name a dtype", inner.span)
            return {}
        halves = [out[d] for d in ("bf16", "fp16") if d in out]
        out.setdefault("default", max(halves) if halves else max(out.values()))
    elif isinstance(flat, Quantity):
        out["default"] = flat.value
    return out
