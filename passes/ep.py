"""ep: split routed experts, and say over which axes tokens are exchanged."""

from __future__ import annotations

from typing import ClassVar

from dagc.base.dtypes import DTYPE_BYTES
from dagc.base.frozen import record, replace
from dagc.base.phase_kinds import PHASE_KINDS
from dagc.ir.axes import Dispatch
from dagc.ir.chains import PLAIN_PRICES, Prices
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass
from dagc.ir.least import Price
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.attributes.experts import CombineAttrs, DispatchAttrs, ExchangeAttrs
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS, result_layout
from dagc.ir.routed_dims import Rows, routed, routers
from dagc.ir.segment import Segment
from dagc.ir.sharding import AT_EXPERTS, Axes


@record
class ExpertParallel(GraphPass):
    """Routed experts over the expert axis, with the group over which their tokens are exchanged. `dispatch`: tokens
    are exchanged, or every rank sees all tokens and its result is partial. `prices`: decide whether repeated tokens are cut first;
    `whole`: not where every expert rank has all of them. `placed`: how experts are placed on ranks by their loads: rows go where the
    weights were put."""

    name: ClassVar[str] = "ep"
    dispatch: Dispatch = "all_to_all"
    prices: Prices = PLAIN_PRICES
    whole: bool = False
    placed: str = ""

    def run(self, graph: Graph) -> Graph:
        mesh = graph.the_mesh
        experts = stored_order(mesh)
        price = self.prices.of(mesh)
        batch = mesh.batch_axes
        gathered = mesh.of("ep") if self.dispatch == "allgather" else ()  # these see all tokens
        cut = {
            (s.name, rows.slot): ()
            if gathered or mesh.apart is not None
            else sliced(s, rows, mesh, price, graph.kind, self.whole)
            for s in graph.segments
            for rows in routers(s)
        }

        def annotate(segment: Segment, op: Op) -> Op:
            rows = routed(segment, op)
            if rows is None:
                return op
            if mesh.apart is not None:
                return at_experts(op, rows, experts)
            tokens = cut[segment.name, rows.slot]
            home = tuple(a for a in (*_token_axes(segment, rows, batch), *tokens) if a not in gathered)
            exchange = tuple(a for a in mesh.of("ep") if a in home)
            op = op.annotate(rows.expert, experts)
            op = op.annotate(rows.slot, tuple(a for a in op.loop(rows.slot) if a not in experts))
            if isinstance(op.attrs, ExchangeAttrs):
                seq = tuple(a for a in (*op.loop("seq"), *tokens) if a not in gathered)
                op = op.annotate("seq", seq) if seq != op.loop("seq") else op
                op = replace(op, attrs=op.of(ExchangeAttrs).but(exchange=exchange))
            return op

        annotated = graph.map_ops(annotate, "annotated")
        return replace(annotated, segments=tuple(map(self.stored, annotated.segments))) if self.placed else annotated

    def stored(self, segment: Segment) -> Segment:
        """Weights of experts in the order in which their slots are placed, and rows sent there."""
        weights = (replace(w, placed=self.placed) if w.scope == "experts" else w for w in segment.weights)
        ops = (
            replace(op, attrs=op.attrs.but(placed=self.placed)) if isinstance(op.attrs, DispatchAttrs) else op
            for op in segment.ops
        )
        return replace(segment, ops=tuple(ops), weights=tuple(weights))


def at_experts(op: Op, rows: Rows, experts: Axes) -> Op:
    """The op as experts on GPUs of their own have it: tokens become rows, and rows tokens, on the ranks that own the tokens; all
    between runs there."""
    if OPS[op.kind].tokens is Tokens.AT_HOME:
        return op
    return replace(op.annotate(rows.expert, experts).annotate(rows.slot, ()), on=AT_EXPERTS)


def stored_order(mesh: Mesh) -> Axes:
    """The axes that split experts, by what each does for tokens: a rank of `tp` sees the tokens of its group unless they
    are cut, one of `sp` those of a decode step, one of the batch its own only. Of one kind, neighbours come first.

    So whatever a phase exchanges is minor and one move brings it in, and the layout of experts follows from the mesh
    alone: phases of one strategy store them in the same layout, whatever their prices, and so do others whose tensor ranks are
    neighbours."""

    def kind(axis: str) -> int:
        return next((k for k, name in enumerate(("tp", "sp")) if axis in mesh.of(name)), 2)

    return tuple(sorted(mesh.of("ep"), key=lambda axis: (kind(axis), mesh.stride(axis))))


def _token_axes(segment: Segment, rows: Rows, batch: Axes) -> Axes:
    """Axes over which different ranks own different tokens when they reach dispatch."""
    seq = next(
        (op.loop("seq") for op in segment.ops if isinstance(op.attrs, DispatchAttrs) and rows.slot in op.dims), ()
    )
    return (*batch, *seq)


def sliced(segment: Segment, rows: Rows, mesh: Mesh, price: Price, kind: str, whole: bool = False) -> Axes:
    """Expert axes over which tokens repeat and are better cut before dispatch.

    Uncut, each rank selects for its own experts, exchanges with the others of its token, and leaves a partial sum over the
    axes. Cut, which is free, the exchange takes these axes in, and the result is gathered instead of reduced.
    """
    home = _token_axes(segment, rows, mesh.batch_axes)
    repeated = tuple(a for a in mesh.of("ep") if a not in home)
    combine = next(
        (op for op in segment.ops if isinstance(op.attrs, CombineAttrs) and routed(segment, op) == rows), None
    )
    if not repeated or combine is None or not PHASE_KINDS[kind].takes_prompts or _joined(segment, combine, repeated):
        return ()
    if segment.size("seq") % mesh.size((*combine.loop("seq"), *repeated)):
        return ()
    inside = tuple(a for a in mesh.of("ep") if a in home)
    if whole and not inside:
        return ()
    widths = tuple(a for a in mesh.of("etp") if a not in home)  # the sum over the experts' widths is partial either way
    tokens_B = segment.count(combine.dims) / mesh.size(home) * DTYPE_BYTES[combine.dtype]
    routed_B = tokens_B * segment.sizes[rows.choice] / mesh.size(repeated)
    piece_B = tokens_B / mesh.size(repeated)
    uncut_s = price("all_reduce", tokens_B, (*repeated, *widths))
    uncut_s += 2 * price("all_to_all", routed_B, inside)
    cut_s = price("all_gather", piece_B, repeated) + price("all_reduce", piece_B, widths)
    cut_s += 2 * price("all_to_all", routed_B, (*inside, *repeated))
    return repeated if cut_s < uncut_s * (1 - 1e-9) else ()


def _joined(segment: Segment, combine: Op, axes: Axes) -> bool:
    """The sum over these axes is shared with another branch's (shared experts): reducing it once serves both."""
    others = {n for user in segment.users(combine.name) for n in user.inputs if n in segment.by_name}
    return any(set(axes) & set(result_layout(segment, segment.by_name[n]).partial) for n in others - {combine.name})
