"""match: which measured kernels the ops of a segment run as, where a calibration knows them; else ops cost the roofline.

Engines fuse: projections of one input are one GEMM; the experts' FFN with its permutation and weighted sum is one
kernel; rotary embedding, norms of queries and keys and the write of the cache belong to attention. The time of a fused
kernel is shared among its matrix products by their FLOPs; the other ops in it take none, if their records say that they
ride in it (`rides_in`). An op that nothing matches keeps its roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from ..ir.mesh import Mesh
from ..ir.routed_dims import Rows
from ..ir.segment import Segment
from ..spec.hardware import Hardware
from ..spec.model import Model
from ..spec.phase import Phase
from . import attention, linear_attention, products, sparse_attention
from .expert_load import ExpertLoad
from .measured import RIDING, Kept, Match, Measured

KERNELS: Mapping[str, Callable[[Match], None]] = {
    "attend": attention.match,
    "contract": products.match,
    "delta": linear_attention.match_deltas,
    "conv": linear_attention.match_convolutions,
    "select": sparse_attention.match,
}
"""Kinds of op that have measured kernels of their own, and what finds them."""

ROOFLINE: Mapping[str, str] = {
    "route": "no kernel of routers was measured",
    "empty_weight": "reads the choices once: bandwidth alone",
    "pool": "no kernel of groups of tokens was measured",
    "lookup": "reads one row per token: bandwidth alone",
    "last": "a view that is kept: bandwidth alone",
    "rename": "a view: it takes no time",
    "part": "a view: it takes no time",
    "repeat": "reads once and writes each copy: bandwidth alone",
    "sinkhorn": "a small matrix of each token: bandwidth alone",
    "argmax": "reads the logits once: bandwidth alone",
    **dict.fromkeys(
        (
            "attend_grad",
            "conv_grad",
            "delta_grad",
            "route_grad",
            "empty_weight_grad",
            "lookup_grad",
            "choice_dot",
            "choice_back",
            "uncache",
            "part_grad",
            "sinkhorn_grad",
        ),
        "of training, which has kernels of its own (`training/step_kernels.py`)",
    ),
    **dict.fromkeys(
        ("accumulate", "adamw", "sgd", "store", "quantise"), "of training, as bytes (`training/memory_passes.py`)"
    ),
    "fetch": "a view of what is stored",
    **dict.fromkeys(("dropout", "dropout_grad"), "of training: element by element (`training/pointwise_passes.py`)"),
    **dict.fromkeys(
        ("labels", "row_max", "row_exp_sum", "pick", "cross_entropy", "cross_entropy_grad"),
        "reads the logits once: bandwidth alone",
    ),
    **dict.fromkeys(
        (
            "expert_share",
            "expert_probs",
            "router_z",
            "router_loss",
            "expert_probs_grad",
            "router_z_grad",
            "router_loss_grad",
        ),
        "no kernel of a router's losses was measured",
    ),
}
"""Kinds that have no kernel in the tables of inference, and why. All others have a kernel of their own, or ride in another one's."""


def measured_times(
    segment: Segment, mesh: Mesh, model: Model, phase: Phase, hardware: Hardware, loads: Mapping[Rows, ExpertLoad],
    kept: Kept | None = None,
) -> dict[str, Measured]:  # fmt: skip
    """Op -> measured time over its ranks, for every op that a measured kernel does. `loads`: the work of the expert ranks of
    each router of the segment. `hardware` names a calibration."""
    found = Match(segment, mesh, model, phase, hardware, loads, kept=kept)
    for match in KERNELS.values():
        match(found)
    alike = (1,) * len(mesh.atoms)
    return {name: laid_out(each, alike) for name, each in found.times.items()}


def laid_out(found: Measured, alike: tuple[int, ...]) -> Measured:
    """With a dimension for each of the mesh."""
    if found is RIDING:
        return _riding(alike)
    if found.time_s.size > 1 or found.time_s.shape == alike:
        return found
    return found.at(found.time_s.reshape(alike))


@lru_cache(maxsize=64)
def _riding(alike: tuple[int, ...]) -> Measured:
    return RIDING.at(RIDING.time_s.reshape(alike))
