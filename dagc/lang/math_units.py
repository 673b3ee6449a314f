"""Whether a GPU has units for the math of a model's dtypes."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.diagnostics import Collector
from ..base.dtypes import find
from ..base.source import Span
from ..spec.hardware import Hardware
from ..spec.model import Model


def check_units(hardware: Hardware, model: Model, spans: Mapping[str, Span], out: Collector) -> None:
    """E03 for math that the GPU has no unit for. Weights of 4 bits that are widened before they are used (int4, mxfp4) run
    anywhere, and a GPU whose peaks are not given by dtype is taken at its word."""
    if set(hardware.compute_flops) == {"default"}:
        return
    used = {"weight_dtype": model.weight_dtype, "attention_dtype": model.attention_dtype}
    used |= {f"weights.{block}": dtype for block, dtype in model.weight_dtypes.items()}
    for name, dtype in used.items():
        known_dtype = find(dtype)
        assert known_dtype is not None
        math = known_dtype.unit
        if math in ("fp8", "nvfp4") and not known_dtype.widened and math not in hardware.compute_flops:
            known = ", ".join(d for d in hardware.compute_flops if d != "default")
            span = spans.get(name.split(".")[0], model.span)
            because = (f"its matrix units take {known}",)
            out.add("E03", f"`{hardware.name}` cannot run {dtype} ({name})", span, because=because)
