"""The kernels of a compiled plan at their local sizes, each with its estimate, and why some cannot be timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..base.collectives import COLLECTIVES
from ..base.frozen import record
from ..calib import prefill_mla
from ..cost.exchange import KERNELS
from ..cost.expert_load import ExpertLoad
from ..cost.local_shapes import ExpertShape, LocalShapes
from ..cost.records import Costs
from ..ir.op import Op
from ..ir.ops.attention_operands import attend_operands
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, result_layout
from ..ir.ops.sizes import local_count
from ..ir.segment import Segment
from ..plan.plan import CompiledPlan
from ..plan.result import PhaseResult
from ..spec.unit import Unit
from .jobs import Decode, Exchange, Experts, Gemm, Job, Prefill, RowWise, whole

PLAIN = ("bf16", "fp16", "fp32")
"""Dtypes in which PyTorch has every kernel."""
GEMM_DTYPES = (*PLAIN, "fp8")


@record
class PlanKernel:
    """`job` None: not timed, for `reason`. `layers` run it. `family`: the measured kernel behind the estimate, or
    `roofline`, or the algorithm of a collective. `estimate_s` of one call on the slowest rank."""

    phase: str
    segment: str
    layers: int
    ops: tuple[str, ...]
    kind: str
    job: Job | None
    reason: str
    estimate_s: float
    family: str


def kernels(plan: CompiledPlan, phases: Sequence[str] = ()) -> list[PlanKernel]:
    """Compute kernels of every phase, or of those named, in program order."""
    found: list[PlanKernel] = []
    for name, result in plan.phases.items():
        if not phases or name in phases:
            for segment in result.graph.segments:
                found += _Extract(segment, result, plan.units[name]).all()
    return found


def collectives(plan: CompiledPlan, phases: Sequence[str] = ()) -> list[PlanKernel]:
    """Collectives inside a node, in program order."""
    found = []
    for name, result in plan.phases.items():
        if not phases or name in phases:
            for segment in result.graph.segments:
                found += list(_exchanges(segment, result))
    return found


def _exchanges(segment: Segment, result: PhaseResult) -> Iterator[PlanKernel]:
    for op in segment.ops:
        cost = result.costs.ops[segment.name, op.name]
        if not op.is_collective or cost.group is None or cost.group.ranks < 2:
            continue
        job, reason = None, ""
        ranks = cost.group.ranks
        if not KERNELS[op.runtime_kind]:
            reason = f"no table of {op.runtime_kind}"
        elif cost.group.nodes > 1:
            reason = f"spans {cost.group.nodes} nodes: tables are of one node"
        else:
            job = Exchange(op.runtime_kind, ranks, whole(cost.payload_B * COLLECTIVES[op.runtime_kind].buffer(ranks)))
        steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
        yield PlanKernel(
            result.name, segment.name, segment.repeat, (op.name,), op.runtime_kind, job, reason,
            float(cost.time_s.max()) / steps, cost.family or cost.algorithm,
        )  # fmt: skip


@dataclass(slots=True)
class _Extract:
    """Kernels of one segment."""

    segment: Segment
    result: PhaseResult
    unit: Unit

    @property
    def costs(self) -> Costs:
        return self.result.costs

    @property
    def shapes(self) -> LocalShapes:
        return LocalShapes(self.segment, self.result.graph.the_mesh, self.unit.spec.model, self.unit.phase)

    def all(self) -> list[PlanKernel]:
        found = [*self._gemms(), *self._experts(), *self._attention(), *self._row_wise()]
        inside = {name for kernel in found for name in kernel.ops}
        rest = [op for op in self.segment.ops if not op.is_collective and op.name not in inside]
        found += [self._kernel((op,), op.kind, None, "no kernel of it is timed") for op in rest if self._time_s((op,))]
        place = {op.name: index for index, op in enumerate(self.segment.ops)}
        return sorted(found, key=lambda kernel: place[kernel.ops[0]])

    def _time_s(self, ops: Iterable[Op]) -> float:
        return float(sum(self.costs.ops[self.segment.name, op.name].time_s for op in ops).max())  # type: ignore[union-attr]

    def _kernel(self, ops: Sequence[Op], kind: str, job: Job | None, reason: str = "") -> PlanKernel:
        families = {self.costs.ops[self.segment.name, op.name].family for op in ops} - {"", "fused"}
        names = tuple(op.name for op in ops)
        return PlanKernel(
            self.result.name, self.segment.name, self.segment.repeat, names, kind, None if reason else job, reason,
            self._time_s(ops), next(iter(families), "roofline"),
        )  # fmt: skip

    def _gemms(self) -> Iterator[PlanKernel]:
        for shape in self.shapes.gemms():
            job = Gemm(shape.dtype, whole(shape.m), whole(shape.n), whole(shape.k))
            reason = "" if shape.dtype in GEMM_DTYPES else f"PyTorch has no {shape.dtype} product to time"
            yield self._kernel(shape.ops, "gemm", job, reason)

    def _experts(self) -> Iterator[PlanKernel]:
        for shape in self.shapes.experts():
            yield self._router(shape)

    def _router(self, shape: ExpertShape) -> PlanKernel:
        load = ExpertLoad.of(self.result.graph, self.segment, shape.rows, self.unit)
        reason = ""
        if shape.dtype not in PLAIN:
            reason = f"PyTorch has no grouped {shape.dtype} product to time"
        elif len(shape.products) != 3:
            reason = "experts that are not gated have no table"
        return self._kernel(shape.ops, "experts", self._expert_job(shape, load), reason)

    def _expert_job(self, shape: ExpertShape, load: ExpertLoad) -> Experts:
        """The busiest rank's."""
        mesh, first = self.result.graph.the_mesh, shape.products[0]
        rows = load.ranks.slot_rows
        mean = rows[int(rows.sum(axis=1).argmax())]
        total = float(mean.sum())
        routing = self.unit.routing
        law = f"{routing.kind}_{routing.s:g}" if routing.kind in ("zipf", "power_law") else routing.kind
        return Experts(
            shape.dtype, whole(shape.hidden), whole(shape.inter), whole(shape.top_k),
            whole(self.segment.sizes[shape.rows.expert]), len(rows), mesh.size(first.loop(first.dims[-1])),
            whole(total if shape.exchanged else shape.tokens), whole(total), tuple((mean / total).tolist()), law,
        )  # fmt: skip

    def _attention(self) -> Iterator[PlanKernel]:
        for op in self.segment.ops:
            if OPS[op.kind].tokens is Tokens.ATTEND:
                queries, keys, _ = attend_operands(op)
                if op.of(AttendAttrs).chosen:
                    yield self._kernel(
                        (op,), "attention", None, "PyTorch has no attention over selected tokens to time"
                    )
                elif len(queries) > 1:
                    yield self._kernel((op,), "attention", None, prefill_mla.FAMILY.untimed)
                else:
                    yield self._grouped(op, queries[0], keys[0])

    def _grouped(self, op: Op, query: str, key: str) -> PlanKernel:
        shape = self.shapes.attention(op, query, key)
        reason = "" if shape.kv_dtype in PLAIN else f"PyTorch has no attention over a cache in {shape.kv_dtype} to time"
        math = self.unit.spec.model.attention_dtype
        batch, kv_heads, width = whole(shape.batch), whole(shape.kv_heads), whole(shape.width)
        if self.unit.phase.generates:
            heads = whole(shape.heads * shape.seq)
            context = whole(shape.context * shape.seen)
            return self._kernel(
                (op,), "decode attention", Decode(shape.kv_dtype, batch, heads, kv_heads, width, context), reason
            )
        if not reason and math not in PLAIN:
            reason = f"PyTorch has no attention in {math} to time"
        if not reason and shape.seen < 1:
            reason = "PyTorch has no prefill attention with a window or chunk to time"
        if not reason and not op.of(AttendAttrs).causal:
            reason = "tables are of causal attention"
        job = Prefill(shape.kv_dtype, batch, whole(shape.heads), kv_heads, width, whole(shape.seq), round(shape.before))
        return self._kernel((op,), "prefill attention", job, reason)

    def _row_wise(self) -> Iterator[PlanKernel]:
        """Norms over the whole hidden width and sums, outside of the experts and of attention's heads."""
        mesh = self.result.graph.the_mesh
        for op in self.segment.ops:
            if op.kind not in ("rms_norm", "add") or op.scope == "experts" or not self._time_s((op,)):
                continue
            if op.kind == "add" and any(name.startswith("@") for name in op.inputs):
                continue  # a bias, which engines add in the product
            width = self.shapes.size(op, op.dims[-1:])
            count = local_count(self.segment, op.dims, result_layout(self.segment, op).dims, mesh, op.scope)
            reason = "" if op.dtype in PLAIN else f"PyTorch has no {op.kind} in {op.dtype} to time"
            yield self._kernel((op,), op.kind, RowWise(op.kind, op.dtype, whole(count / width), whole(width)), reason)
