"""kernels: measured times instead of the roofline, where a calibration knows the kernels that ops run as.

Engines fuse: projections of one input are one GEMM; the experts' FFN with its permutation and weighted sum is one
kernel; rotary embedding, norms of queries and keys and the write of the cache belong to attention. The time of a fused
kernel is shared among its matrix products by their FLOPs; the other ops in it take none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from ..base import dtypes
from ..calib import decode_attention, decode_mla, gemm, load, moe, prefill_attention, prefill_mla
from ..calib.constants import Entry
from ..calib.load import Calibration
from ..ir.graph import Op, Segment
from ..ir.mesh import Mesh
from ..ir.ops.ops import attend_operands, context_shares, local_flops
from ..ir.ops.sequence import over_blocks, query_runs
from ..ir.routed_dims import Rows, routed
from ..plan.result import Array
from ..spec.spec import Hardware
from ..spec.unit import Unit
from .expert_load import ExpertLoad
from .local_shapes import ExpertShape, GemmShape, LocalShapes

C = TypeVar("C")
GEMM_VARIANT = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4"}
MOE_VARIANT = {**GEMM_VARIANT, "mxfp4": "w4a16_mxfp4"}
KV_VARIANT = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8"}
SCALE_BLOCK = 128
"""Elements that share one fp32 scale when tokens are dispatched in fewer bits (deepseek-ai/DeepEP)."""
HEAD_DIMS = (64, 128)
"""Head widths that attention was measured with; others take the constants of the nearest."""
SCALED = {"math_flops": "compute", "tile_flops": "compute", "hbm_Bps": "hbm", "link_Bps": "link"}
"""Constants that follow a hardware section whose rates are not the calibrated GPU's."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Time of an op over its ranks. `family`: table and variant; `error`: median relative error there, on rows that the
    fit did not see; `outside`: sizes beyond what was measured."""

    time_s: Array
    family: str
    error: float
    outside: tuple[str, ...] = ()

    def times(self, share: float) -> Measured:
        return Measured(self.time_s * share, self.family, self.error, self.outside)


NOTHING = Measured(np.zeros(1), "fused", 0.0)


def scaled(constants: C, calibration: Calibration, machine: Hardware) -> C:
    """Constants of a kernel, its rates scaled to the hardware section's."""
    device = calibration.device
    scale = {
        "compute": machine.peak_flops("bf16") / device.flops["bf16"],
        "hbm": machine.hbm_Bps / device.hbm_Bps,
        "link": machine.node.bandwidth_Bps / device.link_Bps,
    }
    c: Any = constants
    changed = {
        n: getattr(c, n) * scale[by] for n, by in _rates(tuple(f.name for f in fields(c))) if abs(scale[by] - 1) > 1e-3
    }
    return replace(c, **changed) if changed else c  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _rates(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Rates among the constants of a family, and what they follow."""
    return tuple((name, SCALED[name]) for name in names if name in SCALED)


@dataclass
class Kernels:
    """Times of the ops of one segment. `loads`: the work of the expert ranks of each of its routers."""

    segment: Segment
    mesh: Mesh
    unit: Unit
    machine: Hardware
    loads: Mapping[Rows, ExpertLoad]
    calibration: Calibration = field(init=False)
    shapes: LocalShapes = field(init=False)

    def __post_init__(self) -> None:
        assert self.machine.calibration is not None
        self.calibration = load(self.machine.calibration)
        self.shapes = LocalShapes(self.segment, self.mesh, self.unit)

    def times(self) -> dict[str, Measured]:
        """Op -> measured time, for every op that a kernel stands for."""
        out: dict[str, Measured] = {}
        for op in self.segment.ops:
            if op.kind == "attend" and not op.attr("chosen"):  # no kernel that reads selected tokens was measured
                self._attention(op, out)
        for shape in self.shapes.gemms():
            self._gemm(shape, out)
        for experts in self.shapes.experts():
            self._experts(experts, out)
        alike = (1,) * len(self.mesh.atoms)
        return {k: replace(v, time_s=v.time_s.reshape(alike)) if v.time_s.size == 1 else v for k, v in out.items()}

    # -- rates -----------------------------------------------------------------------------------

    def constants(self, entry: Entry[C]) -> C:
        return scaled(entry.constants, self.calibration, self.machine)

    # -- dense matrix products -------------------------------------------------------------------

    def _gemm(self, shape: GemmShape, out: dict[str, Measured]) -> None:
        entry = self.calibration.of(gemm.FAMILY).get(GEMM_VARIANT.get(dtypes.dtype(shape.dtype).kernel, ""))
        if entry is None:
            return
        found = Measured(
            gemm.time_s(self._gemm_constants(entry), shape.m, shape.n, shape.k).reshape(1),
            "gemm",
            entry.error.median,
            tuple(entry.outside(m=shape.m, n=shape.n, k=shape.k)),
        )
        self._share(shape.ops, found, out)

    def _gemm_constants(self, entry: Entry[gemm.GemmConstants]) -> gemm.GemmConstants:
        """The tables time the quantisation of the activations with the GEMM, as a kernel of its own; engines mostly
        do it in the norm or activation before."""
        c = self.constants(entry)
        plain = self.calibration.of(gemm.FAMILY).get("bf16")
        if self.unit.phase.quantise == "separate" or not c.quantise_Bps or plain is None:
            return c
        return replace(c, launch_s=min(c.launch_s, plain.constants.launch_s), quantise_Bps=0.0)

    def _share(self, group: Sequence[Op], found: Measured, out: dict[str, Measured]) -> None:
        flops = [local_flops(self.segment, op, self.mesh) for op in group]
        for op, each in zip(group, flops, strict=True):
            out[op.name] = found.times(each / (sum(flops) or 1.0))

    # -- routed experts --------------------------------------------------------------------------

    def _experts(self, shape: ExpertShape, out: dict[str, Measured]) -> None:
        entry = self._moe_entry(dtypes.dtype(shape.dtype).kernel)
        if entry is None:
            return
        load = self.loads[shape.rows]
        work = load.ranks.kernel
        # Kernels that got their rows from other ranks see those rows; those that see every token choose among all.
        seen = work.rows if shape.exchanged else np.full(work.rows.shape, shape.tokens)
        time = moe.time_s(self.constants(entry), work, seen, shape.top_k, shape.hidden, shape.inter)
        # Gated experts have three products of one size; the table was measured on those.
        time = time * (len(shape.products) / 3)
        found = Measured(load.over_mesh(time), "moe", entry.error.median, ())
        self._share(shape.products, found, out)
        for op in self.segment.ops:
            if not op.is_collective and op.name not in out and routed(self.segment, op) == shape.rows:
                out[op.name] = NOTHING

    def _moe_entry(self, dtype: str) -> Entry[moe.MoeConstants] | None:
        variants = self.calibration.of(moe.FAMILY)
        if dtype == "mxfp4" and "w4a8_mxfp4_mxfp8" in variants:
            return variants["w4a8_mxfp4_mxfp8"]
        return variants.get(MOE_VARIANT.get(dtype, ""))

    # -- attention -------------------------------------------------------------------------------

    def _attention(self, op: Op, out: dict[str, Measured]) -> None:
        queries, keys, value = attend_operands(op)
        found = self._latent(op, queries, keys, value) if len(queries) > 1 else self._grouped(op, queries[0], keys[0])
        if found is None:
            return
        out[op.name] = found
        for name in (*queries, *keys, value):
            self._absorb(name, out)

    def _absorb(self, name: str, out: dict[str, Measured]) -> None:
        """Ops between the projections and attention that its kernel does itself."""
        while name in self.segment.by_name:
            op = self.segment.by_name[name]
            if op.kind not in ("rope", "cache", "rms_norm", "temper") and not op.is_collective:
                return
            if not op.is_collective:
                out.setdefault(name, NOTHING)
            name = op.inputs[0]

    def _kv(self, name: str) -> str:
        return KV_VARIANT.get(self.shapes.kv_dtype(name), "")

    def _math_of_attention(self, kv: str) -> str:
        dtype = KV_VARIANT.get(self.unit.spec.model.attention_dtype, "")
        return dtype if kv == "fp8" else "bf16" if dtype else ""

    def _grouped(self, op: Op, query: str, key: str) -> Measured | None:
        shape = self.shapes.attention(op, query, key)
        batch, width, kv = shape.batch, shape.width, KV_VARIANT.get(shape.kv_dtype, "")
        if self.unit.phase.kind == "prefill":
            prefill = _of_width(
                self.calibration.of(prefill_attention.FAMILY),
                width,
                partial(prefill_attention.key, self._math_of_attention(kv), kv),
            )
            if prefill is None:
                return None
            constants = self.constants(prefill)

            def of_run(seq: float, before: float) -> float:
                return float(
                    prefill_attention.time_s(constants, batch, seq, shape.heads, shape.kv_heads, width, before)
                )

            time = self._prefill(op, of_run, prefill.constants.launch_s)
            outside = prefill.outside(batch_size=batch, seq_len=shape.seq)
            return Measured(time, "prefill_attention", prefill.error.median, tuple(outside))
        table = self.calibration.of(decode_attention.FAMILY)
        decode = _of_width(table, width, lambda near: decode_attention.key(kv, near, shape.heads > shape.kv_heads))
        decode = decode or _of_width(table, width, lambda near: decode_attention.key(kv, near, True))
        if decode is None:
            return None
        shares = context_shares(self.segment, op, self.mesh)
        context = np.maximum(1.0, self.segment.size("context") * shape.seen * shares)
        # Drafted tokens read the cache together, as further query heads.
        time = decode_attention.time_s(
            self.constants(decode), batch, context, shape.heads * shape.seq, shape.kv_heads, width
        )
        outside = decode.outside(batch_size=batch, kv_len=float(context.max()))
        laid = over_blocks(time.reshape(len(shares)), op.loop("context"), self.mesh)
        return Measured(laid, "decode_attention", decode.error.median, tuple(outside))

    def _latent(self, op: Op, queries: tuple[str, ...], keys: tuple[str, ...], value: str) -> Measured | None:
        """Latent attention; widths other than the measured ones scale the time beyond the launch."""
        batch, heads = (
            self.shapes.size(op, ("batch",)),
            self.shapes.size(op, [d for d in op.dims[:-1] if d not in ("batch", "seq")]),
        )
        seq, context, _ = self.shapes.lengths(op)
        width = sum(self.segment.size(self.segment.dims_of(q)[-1]) for q in queries)
        width += self.segment.size(self.segment.dims_of(value)[-1])
        kv = self._kv(keys[0])
        absorbed = not set(self.segment.dims_of(keys[0])) & {d for d in op.dims[:-1] if d not in ("batch", "seq")}
        if absorbed and self.unit.phase.kind == "decode":
            entry = self.calibration.of(decode_mla.FAMILY).get(decode_mla.key(kv))
            if entry is None:
                return None
            time = decode_mla.time_s(self.constants(entry), batch, context, heads * seq)
            scale = width / (decode_mla.LATENT + 512)
            outside = entry.outside(batch_size=batch, kv_len=context)
            launch = entry.constants.launch_s
            return Measured(
                (launch + (time - launch) * scale).reshape(1), "decode_mla", entry.error.median, tuple(outside)
            )
        prefill = self.calibration.of(prefill_mla.FAMILY).get(prefill_mla.key("bf16", kv))
        if prefill is None:
            return None
        constants = self.constants(prefill)

        def of_run(seq: float, before: float) -> float:
            return float(prefill_mla.time_s(constants, batch, seq, heads, before))

        time = self._prefill(op, of_run, prefill.constants.launch_s, width / prefill_mla.WIDTH)
        outside = prefill.outside(batch_size=batch, seq_len=seq)
        return Measured(time, "prefill_mla", prefill.error.median, tuple(outside))

    def _prefill(self, op: Op, of_run: Callable[[float, float], float], launch_s: float, scale: float = 1.0) -> Array:
        """Prefill attention of each rank: the runs of tokens that it holds, each behind those before it, in one kernel.
        `of_run`: seconds of (new tokens, tokens before them). A window or chunk shortens it in proportion to the pairs."""
        blocks = query_runs(self.segment, op, self.mesh)
        if not op.attr("causal", True):
            seq, _, before = self.shapes.lengths(op)
            blocks = [[(before, before + seq)] for _ in blocks]
        times = [sum(of_run(end - first, first) - launch_s for first, end in block) for block in blocks]
        seconds = launch_s + np.asarray(times) * self.shapes.seen_by_rank(op) * scale
        return over_blocks(seconds, op.loop("seq"), self.mesh)


def _of_width(table: Mapping[str, Entry[C]], width: float, key: Callable[[int], str]) -> Entry[C] | None:
    """The entry of a head width: its own where it was measured, else that of the nearest of HEAD_DIMS."""
    near = min(HEAD_DIMS, key=lambda d: abs(np.log(d / width)))
    return table.get(key(int(width))) or table.get(key(near))
