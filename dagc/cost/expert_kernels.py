"""expert_kernels: which measured kernels an engine runs its routed experts with, the first choice first.

Engines have several for one dtype and choose by what the shape needs. The choices are those that the tables of measured
kernels show: for every shape they name the kernel that the engine itself picked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..base.frozen import record
from ..calib.moe import LOW_LATENCY, WIDE, variant_of
from .local_shapes import ExpertShape

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "bf16": ("bf16",),
    "fp16": ("bf16",),
    "fp8": ("fp8",),
    "fp8_block": ("fp8_block",),
    "mxfp8": ("fp8_block",),
    "nvfp4": ("nvfp4",),
    "mxfp4": ("w4a8_mxfp4_mxfp8", "w4a16_mxfp4"),
    "int4": ("int4_wo",),
}
"""Dtype of the language -> dtypes of the tables. MXFP4: 8-bit activations where a GPU computes with 4 bits."""
KERNELS = ("", "trtllm", "cutlass", "marlin")
"""Kernels of a dtype where no choice below says otherwise; the first that was measured is taken."""


@record
class ExpertRun:
    """What a choice may depend on. `ranks` share the experts; `decodes`: a step without prompts, which engines
    run with the kernels tuned for latency; mixed steps take those of prompts, as their exchanges do."""

    shape: ExpertShape
    ranks: int
    decodes: bool


@record
class Choice:
    """`kernels`, the first choice first, of an `engine` for a `dtype` of the tables (empty: any) `when` it holds."""

    engine: str
    dtype: str
    when: Callable[[ExpertRun], bool]
    kernels: tuple[str, ...]


def always(run: ExpertRun) -> bool:
    return True


def ungated(run: ExpertRun) -> bool:
    return len(run.shape.products) < 3


def shared_out(run: ExpertRun) -> bool:
    return run.ranks > 1


def received(run: ExpertRun) -> bool:
    """Rows came through an exchange of tokens."""
    return run.shape.exchanged


def received_over_nodes(run: ExpertRun) -> bool:
    return run.shape.exchanged and run.ranks > 8


def received_in_decode(run: ExpertRun) -> bool:
    return run.shape.exchanged and run.decodes


def many_choices(run: ExpertRun) -> bool:
    """More than the fused kernel's own routing knows."""
    return run.shape.top_k > 8


def wide(run: ExpertRun) -> bool:
    return run.shape.whole_inter >= 2048 and not ungated(run)


def few_experts(run: ExpertRun) -> bool:
    return run.shape.experts <= 8


CHOICES = (
    Choice("trtllm", "", ungated, ("ungated", "")),
    Choice("trtllm", "", received_over_nodes, (WIDE, "")),
    Choice("trtllm", "nvfp4", many_choices, ("cutlass", "")),
    Choice("vllm", "fp8_block", shared_out, ("cutlass", "")),
    Choice("sglang", "", received_in_decode, (LOW_LATENCY, "trtllm", "")),
    Choice("sglang", "", received, (WIDE, "trtllm", "")),
    Choice("sglang", "bf16", wide, ("", "trtllm")),
    Choice("sglang", "fp8_block", few_experts, ("", "trtllm")),
    Choice("sglang", "", always, ("trtllm", "")),
)
"""The first that holds."""

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {"vllm": ("w4a16_mxfp4", "w4a8_mxfp4_mxfp8")}
"""MXFP4 in an engine that computes with 16-bit activations first."""
COMPUTES_WITH: Mapping[str, str] = {"w4a16_mxfp4": "bf16", "w4a8_mxfp4_mxfp8": "mxfp8"}
"""Activations of a dtype of the tables, where weights alone do not say them."""


def variants(engine: str, dtype: str, run: ExpertRun, activations: str | None = None) -> tuple[str, ...]:
    """Variants of the measured kernels for a dtype of the language, the one that the engine runs first, or with
    `activations`; none for a dtype that no engine's experts were measured with."""
    found: list[str] = []
    named = VARIANTS.get(_plain(dtype), ())
    named = ACTIVATIONS.get(engine, named) if len(named) > 1 else named
    for measured in sorted(named, key=lambda each: activations is not None and COMPUTES_WITH.get(each) != activations):
        first = next((c.kernels for c in CHOICES if _holds(c, engine, measured, run)), ())
        found += (variant_of(measured, kernel) for kernel in dict.fromkeys((*first, *KERNELS)))
    return tuple(found)


def _holds(choice: Choice, engine: str, dtype: str, run: ExpertRun) -> bool:
    return choice.engine == engine and choice.dtype in ("", dtype) and choice.when(run)


def _plain(dtype: str) -> str:
    """Groups of 4-bit integers take the same time, whatever their size."""
    return "int4" if dtype.startswith("int4") else dtype
