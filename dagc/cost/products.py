"""products: measured times of matrix products, dense ones and those of routed experts.

Projections of one input are one GEMM; the FFN of routed experts with its permutation and weighted sum is one kernel.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from ..base import dtypes
from ..base.frozen import replace
from ..base.traced import called
from ..calib import gemm, moe
from ..calib.constants import Entry
from ..ir.op import Op
from ..ir.ops.kind import Fuse
from .expert_kernels import ExpertRun, variants
from .expert_load import ExpertLoad
from .local_shapes import ExpertShape, GemmShape
from .measured import Match, Measured, estimate_s
from .records import Array

GEMM_VARIANT = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4"}


def match(found: Match) -> None:
    """Products with dense weights, then those of experts."""
    kept = found.kept
    if kept is None:
        for shape in found.shapes.gemms():
            _gemm(found, shape)
        for experts in found.shapes.experts():
            _experts(found, experts)
        return
    for group, dtype in found.shapes.gemm_groups():
        key = "gemm", *kept.even, dtype, tuple(map(kept.split, group))
        found.keep(key, partial(_gemm_of, found, group, dtype))
    for experts in found.shapes.experts():
        key = "experts", *kept.placed, experts.sizes, tuple(map(kept.placed_split, (*experts.products, *experts.ops)))
        found.keep(key, partial(_experts, found, experts), found.loads[experts.rows])


def _gemm_of(found: Match, group: list[Op], dtype: str) -> None:
    _gemm(found, found.shapes.gemm(group, dtype))


def _gemm(found: Match, shape: GemmShape) -> None:
    entry = found.find(gemm.FAMILY, GEMM_VARIANT.get(dtypes.dtype(shape.dtype).kernel, ""))
    if entry is None:
        return
    if found.phase.quantise != "separate":
        entry = quantised_before(entry, found.find(gemm.FAMILY, "bf16"))
    time_s = estimate_s(gemm.FAMILY, entry, shape.m, shape.n, shape.k).reshape(1)
    found.share(shape.ops, Measured.of(time_s, gemm.FAMILY.name, entry, entry.outside(m=shape.m, n=shape.n, k=shape.k)))


@lru_cache(maxsize=256)
def quantised_before(
    entry: Entry[gemm.GemmConstants], plain: Entry[gemm.GemmConstants] | None
) -> Entry[gemm.GemmConstants]:
    """The tables time the quantisation of the activations with the GEMM, as a kernel of its own; engines mostly
    do it in the norm or activation before."""
    c = entry.constants
    if not c.quantise_Bps or plain is None:
        return entry
    launch_s = min(c.launch_s, plain.constants.launch_s)
    return replace(entry, constants=replace(c, launch_s=launch_s, quantise_Bps=0.0))


def _experts(found: Match, shape: ExpertShape) -> None:
    load, ranks = found.loads[shape.rows], found.mesh.size(shape.products[0].loop(shape.rows.expert))
    run = ExpertRun(shape, ranks, not found.phase.takes_prompts)
    wanted = variants(found.phase.engine, dtypes.dtype(shape.dtype).kernel, run, found.phase.expert_activations)
    entry = found.find(moe.FAMILY, wanted) if wanted else None
    if entry is None:
        return
    sizes = shape.top_k, shape.hidden, shape.inter, float(len(shape.products))
    time_s = _experts_s(entry, load, shape.exchanged, shape.tokens, sizes)
    found.share(shape.products, Measured.of(time_s, moe.FAMILY.name, entry))
    for op in shape.ops:
        found.ride(op, Fuse.EXPERTS)


@called
def _experts_s(
    entry: Entry[moe.MoeConstants], load: ExpertLoad, exchanged: bool, tokens: float, sizes: tuple[float, ...]
) -> Array:
    """Seconds over the mesh. Kernels that got their rows from other ranks see those rows; those that see every token choose
    among all."""
    work = load.ranks.kernel
    seen = work.rows if exchanged else np.full(work.rows.shape, tokens)
    return load.over_mesh(estimate_s(moe.FAMILY, entry, work, seen, *sizes))
