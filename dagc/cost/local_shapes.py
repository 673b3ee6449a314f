"""local_shapes: which kernels the ops of a segment run as, and their sizes on one rank.

Engines fuse: projections of one input are one GEMM; the experts' FFN with its permutation and weighted sum is one
kernel. `dagc/cost/match.py` estimates these kernels, `dagc measure` times them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ..base.frozen import record, replace
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attention_work import block_pairs, query_key_pairs
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.attributes.experts import DispatchAttrs
from ..ir.ops.kind import Fuse
from ..ir.ops.op_set import OPS
from ..ir.ops.sequence import Array
from ..ir.routed_dims import Rows, kept_choices, routed, routers
from ..ir.segment import Segment
from ..spec.model import Model
from ..spec.phase import Phase
from .expert_load import routed_tokens


@record
class GemmShape:
    """y[m, n] = x[m, k] @ W[k, n] in one dtype, for all of `ops`."""

    ops: tuple[Op, ...]
    dtype: str
    m: float
    n: float
    k: float


@record
class ExpertShape:
    """The FFN of one router's experts as one kernel: its `products` of (hidden, inter), and all `ops` that it does in program
    order. `tokens`: those of the group that the rank's experts choose from. `exchanged`: its rows came from other ranks,
    so that the kernel sees them alone. `inter` of the rank, `whole_inter` of all that split an expert; `experts` of all
    ranks."""

    rows: Rows
    products: tuple[Op, ...]
    ops: tuple[Op, ...]
    dtype: str
    tokens: float
    top_k: float
    hidden: float
    inter: float
    exchanged: bool
    whole_inter: float
    experts: float

    @property
    def sizes(self) -> tuple[float, ...]:
        return self.tokens, self.top_k, self.hidden, self.inter, self.whole_inter, self.experts


@record
class AttentionShape:
    """Grouped attention. `seq` new tokens per sequence, of a `context` with `before` cached ones; `seen`: share of the
    query-key pairs that a window or chunk leaves; `kv_dtype`: of the cache, in the model's own name."""

    op: Op
    batch: float
    heads: float
    kv_heads: float
    width: float
    seq: float
    context: float
    before: float
    seen: float
    kv_dtype: str


@record
class LocalShapes:
    """Sizes on one rank of a segment's kernels."""

    segment: Segment
    mesh: Mesh
    model: Model
    phase: Phase

    def size(self, op: Op, dims: Iterable[str]) -> float:
        """Entries of some of an op's dims on one rank."""
        return prod(self.segment.size(d, op.scope) / self.mesh.size(op.loop(d)) for d in dims)

    def of_kind(self, kind: str) -> list[Op]:
        return [op for op in self.segment.ops if op.kind == kind]

    # -- dense matrix products -------------------------------------------------------------------

    def gemms(self) -> list[GemmShape]:
        """Products with dense weights; those of one input and dtype are one GEMM."""
        return [self.gemm(group, dtype) for group, dtype in self.gemm_groups()]

    def gemm_groups(self) -> list[tuple[list[Op], str]]:
        """(products, dtype) of each. What mixes residual streams has kernels of its own, which nobody measured."""
        groups: dict[tuple[str, str], list[Op]] = {}
        mixing = () if self.model.streams is None else self.model.streams.mixing
        for op in self.of_kind("contract"):
            if op.block in mixing:
                continue
            if op.scope != "experts" and len(op.inputs) == 2 and self.segment.is_weight(op.inputs[1]):
                groups.setdefault((op.inputs[0], self._math(op)), []).append(op)
        return [(group, dtype) for (_, dtype), group in groups.items()]

    def _math(self, op: Op) -> str:
        """A router stays in the activations' dtype whatever its layer's weights are."""
        scores = any(op.name in router.inputs for router in self.of_kind("route"))
        return self.model.dtype if scores else self.segment.dtype_of(op.inputs[1])

    def gemm(self, group: list[Op], dtype: str) -> GemmShape:
        acts, weight = (self.segment.dims_of(n) for n in group[0].inputs)
        rows = [d for d in acts if d in group[0].dims and d not in weight]
        depth = [d for d in acts if d in weight and d not in group[0].dims]
        columns = sum(self._columns(op) for op in group)
        return GemmShape(tuple(group), dtype, self.size(group[0], rows), columns, self.size(group[0], depth))

    def _columns(self, op: Op) -> float:
        """Columns; dims that activations, weight and result share make that many products side by side."""
        return self.size(op, [d for d in self.segment.dims_of(op.inputs[1]) if d in op.dims])

    # -- routed experts --------------------------------------------------------------------------

    def experts(self) -> list[ExpertShape]:
        """Of every router whose rows meet a matrix."""
        found = (self._experts(rows) for rows in routers(self.segment))
        return [shape for shape in found if shape is not None]

    def _experts(self, rows: Rows) -> ExpertShape | None:
        products = tuple(op for op in self.of_kind("contract") if op.scope == "experts" and self._on(rows, op))
        if not products:
            return None
        riding = (op for op in self.segment.ops if Fuse.EXPERTS in OPS[op.kind].rides_in)
        ops = tuple(op for op in riding if self._on(rows, op))
        first, dispatch = products[0], next(op for op in self.of_kind("dispatch") if self._on(rows, op))
        summed = tuple(d for d in self.segment.dims_of(first.inputs[0]) if d not in first.dims)
        tokens, _ = routed_tokens(self.segment, first.loop(rows.slot), self.mesh, self.phase.batching)
        return ExpertShape(
            rows, products, ops, self.segment.dtype_of(first.inputs[1]), tokens, kept_choices(self.segment, rows),
            self.size(first, summed), self.size(first, first.dims[-1:]), bool(dispatch.of(DispatchAttrs).exchange or first.on),
            self.segment.size(first.dims[-1], first.scope), self.segment.sizes[rows.expert],
        )  # fmt: skip

    def _on(self, rows: Rows, op: Op) -> bool:
        return routed(self.segment, op) == rows

    # -- attention -------------------------------------------------------------------------------

    def attention(self, op: Op, query: str, key: str) -> AttentionShape:
        """Attention with one query and one key input."""
        heads = self.size(op, [d for d in op.dims[:-1] if d not in ("batch", "seq")])
        kv_heads = self.size(op, [d for d in self.segment.dims_of(key)[:-1] if d not in ("batch", "context")])
        return AttentionShape(
            op, self.size(op, ("batch",)), heads, kv_heads, self.segment.size(self.segment.dims_of(query)[-1]),
            *self.lengths(op), self.seen(op), self.kv_dtype(key),
        )  # fmt: skip

    def lengths(self, op: Op) -> tuple[float, float, float]:
        """(new tokens, context, cached tokens before the new ones) of one rank's queries, on average."""
        segment = self.segment.within(op.scope)
        seq, context = self.size(op, ("seq",)), segment.size("context") / self.mesh.size(op.loop("context"))
        if self.phase.part(op.scope).generates:
            return seq, context, 0.0
        whole = segment.size("seq")  # the sequence may be cut over ranks, whose queries are anywhere in it
        return seq, context, segment.size("context") - whole + (whole - seq) / 2

    def seen(self, op: Op) -> float:
        """Share of the query-key pairs that a window or chunk leaves."""
        segment = self.segment.within(op.scope)
        return query_key_pairs(segment, op) / query_key_pairs(segment, _unbounded(op))

    def seen_by_rank(self, op: Op) -> Array:
        """The same of each block of queries over the ranks that split them, [blocks]."""
        segment = self.segment.within(op.scope)
        return block_pairs(segment, op, self.mesh) / block_pairs(segment, _unbounded(op), self.mesh)

    def kv_dtype(self, name: str) -> str:
        """Dtype of a cached value, before any collective moved it."""
        while name in self.segment.by_name and self.segment.by_name[name].is_collective:
            name = self.segment.by_name[name].inputs[0]
        return self.segment.dtype_of(name)


def _unbounded(op: Op) -> Op:
    """An attention without its window or chunk."""
    return replace(op, attrs=op.of(AttendAttrs).but(window=0, chunk=0))
