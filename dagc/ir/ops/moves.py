"""Ops that change the layout of a value and no number of it: slices, collectives, a ring turn, a softmax merge."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.collectives import FROM_EXPERTS, TO_EXPERTS
from ..mesh import Mesh
from ..op import Op, Value
from ..segment import Segment
from ..sharding import Axes, Sharding
from .attributes.moves import MoveAttrs, RingTurnAttrs, SliceAttrs, SoftmaxMergeAttrs, SoftmaxScatterAttrs
from .further import moved_results
from .kind import AS_OPERAND, IN_EXPERTS, Misfit, OpKind, listed, same_dims

NO_WORK = "it only moves"


def _leaves(got: Sharding, wanted: Sharding) -> None:
    if got != wanted:
        raise Misfit("layout of the result", shown(got), shown(wanted))


def shown(layout: Sharding) -> str:
    """`[dp, -, ep+tp] partial(sum tp)`, dims by their axes alone."""
    text = f"[{', '.join('+'.join(axes) or '-' for axes in layout.dims)}]"
    text += f" on {layout.on}" if layout.on else ""
    return f"{text} partial({layout.reduce} {'+'.join(layout.partial)})" if layout.partial else text


def _dim(op: Op, attribute: str) -> int:
    """The dim that an attribute names."""
    name = getattr(op.attrs, attribute)
    if name not in op.dims:
        raise Misfit(attribute, f"`{name}`", f"one of {', '.join(op.dims)}")
    return op.dims.index(name)


def _only(op: Op, *used: str) -> None:
    """Attributes that say nothing of this kind of move are left out."""
    attrs = op.of(MoveAttrs)
    for name, value in (("source_dim", attrs.source_dim), ("target_dim", attrs.target_dim), ("reduce", attrs.reduce)):
        if name not in used and value not in ("", "sum"):
            raise Misfit(name, value, f"none, for {op.kind}")


def _minor(op: Op, layout: Sharding, dim: int) -> Axes:
    """The group's axes as the minor ones of a dim, in their order there."""
    axes = layout.dims[dim][-len(op.axes) :]
    if sorted(axes) != sorted(op.axes):
        raise Misfit(f"minor axes of dim {op.dims[dim]}", axes, f"the group's, {op.axes}")
    return axes


def _partial(op: Op, have: Sharding) -> None:
    if not set(op.axes) <= set(have.partial):
        raise Misfit("reduces over", op.axes, f"axes over which the operand is partial, {have.partial}")


def _slice(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """A rank keeps its part of what it has whole: one dim gains the axes that the slice names."""
    axes, to = op.of(SliceAttrs).axes, _dim(op, "target_dim")
    gained = got.dims[to][len(have.dims[to]) :]
    if sorted(gained) != sorted(axes):
        raise Misfit(f"axes that dim {op.dims[to]} gains", gained, f"those that it names, {axes}")
    if set(gained) & have.used:
        raise Misfit("axes", gained, "axes that the operand does not use")
    _leaves(got, have.with_dim(to, (*have.dims[to], *gained)))


def _all_reduce(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    _only(op, "reduce")
    _partial(op, have)
    if op.of(MoveAttrs).reduce != have.reduce:
        raise Misfit("reduce", op.of(MoveAttrs).reduce, f"{have.reduce}, as the operand is partial")
    _leaves(got, have.resolved(op.axes))


def _reduce_scatter(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    _only(op, "target_dim")
    _partial(op, have)
    if have.reduce != "sum":
        raise Misfit("operand", f"partial ({have.reduce})", "partial (sum)")
    to = _dim(op, "target_dim")
    moved = _minor(op, got, to)
    _leaves(got, have.resolved(op.axes).with_dim(to, (*have.dims[to], *moved)))


def _all_gather(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    _only(op, "source_dim")
    source = _dim(op, "source_dim")
    moved = _minor(op, have, source)
    _leaves(got, have.with_dim(source, have.dims[source][: -len(moved)]))


def _all_to_all(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    _only(op, "source_dim", "target_dim")
    source, to = _dim(op, "source_dim"), _dim(op, "target_dim")
    if source == to:
        raise Misfit("target_dim", op.dims[to], "another one than source_dim")
    _minor(op, have, source)
    moved = _minor(op, got, to)
    _leaves(got, have.with_dim(source, have.dims[source][: -len(moved)]).with_dim(to, (*have.dims[to], *moved)))


def _permute(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """Every block of the result is within one block that a member of the group has."""
    _only(op)
    if len(have.dims) != len(got.dims):
        raise Misfit("layout of the result", shown(got), f"one of {len(have.dims)} dims")
    pairs = list(zip(have.dims, got.dims, strict=True))
    changed = {a for h, g in pairs if h != g for a in (*h, *g)}
    if changed != set(op.axes):
        raise Misfit("axes of dims that change", sorted(changed), f"the group's, {sorted(op.axes)}")
    if (have.partial, have.reduce) != (got.partial, got.reduce):
        raise Misfit("layout of the result", shown(got), f"partial as the operand, {shown(have)}")
    if not all(mesh.size(g) % mesh.size(h) == 0 for h, g in pairs):
        raise Misfit("layout of the result", shown(got), f"blocks that single ranks hold, of {shown(have)}")


def _across(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """The ranks of one set send to those of another what their layout gives them."""
    _only(op)
    if set(op.axes) != set(mesh.sizes):
        raise Misfit("group", op.axes, "all axes of both sets of ranks")
    if have.partial or got.partial:
        raise Misfit("operand", shown(have), "a reduced one")
    if len(have.dims) != len(got.dims) or bool(got.on) != (op.kind == TO_EXPERTS):
        raise Misfit("layout of the result", shown(got), f"one of {len(have.dims)} dims at the other ranks")


def _ring_turn(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """One op is a ring turn for every attention that reads it; the layout is as before, and the value has passed every rank."""
    rings = {frozenset(user.ring) for user in segment.users(op.name)}
    if rings != {frozenset(op.axes)}:
        raise Misfit("group", op.axes, f"the ring of its attention, {[sorted(ring) for ring in rings]}")
    _leaves(got, have)
    steps, ranks = op.of(RingTurnAttrs).steps, mesh.size(op.axes)
    if steps != ranks - 1:
        raise Misfit("steps", steps, f"{ranks - 1}, one turn of {ranks} ranks")


def _softmax_merge(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """Pieces of a context are merged in two: the row sums, which read the maxima of a piece and of all, then the outputs, which
    read a piece's share of the sums."""
    source = _pieces(segment, op, have)
    _leaves(got, have.resolved())
    if op.inputs[0] == source.name:
        _shares(segment, op, source)
        return
    maxima, sums = (value.name for value in source.more)
    peak = segment.by_name.get(op.inputs[-1]) if op.inputs[:2] == (sums, maxima) and len(op.inputs) == 3 else None
    if peak is None or peak.kind != "all_reduce" or (peak.inputs, peak.axes) != ((maxima,), op.axes):
        raise Misfit("operands", op.inputs, f"%{sums}, %{maxima} and its largest over {'+'.join(op.axes)}")


def _softmax_scatter(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """The outputs of pieces of a context merged, each rank its part."""
    source, to = _pieces(segment, op, have), _dim(op, "target_dim")
    if op.inputs[0] != source.name:
        raise Misfit("operand 1", f"%{op.inputs[0]}", f"the output %{source.name}")
    _shares(segment, op, source)
    moved = _minor(op, got, to)
    _leaves(got, have.resolved().with_dim(to, (*have.dims[to], *moved)))


def _pieces(segment: Segment, op: Op, have: Sharding) -> Op:
    """The attention over pieces whose results are merged."""
    if have.reduce != "softmax" or set(op.axes) != set(have.partial):
        raise Misfit("operand", shown(have), f"partial(softmax {'+'.join(op.axes)})")
    source = segment.by_name.get(op.inputs[0])
    if source is None or len(source.more) != 2:
        raise Misfit("operand 1", f"%{op.inputs[0]}", "a result of an op that has statistics of its rows")
    return source


def _shares(segment: Segment, op: Op, source: Op) -> None:
    """Outputs are merged by the shares that the merge of their row sums left."""
    reads = op.inputs[1:]
    total = segment.by_name.get(reads[0]) if len(reads) == 1 else None
    shares = [value.name for value in total.more] if total is not None and total.kind == "softmax_merge" else []
    if total is None or shares != [*reads] or segment.by_name.get(total.inputs[0]) is not source:
        raise Misfit("statistics", reads, f"the shares of %{source.name}'s row sums")


def check_moved_results(segment: Segment, op: Op, got: Sharding) -> None:
    """A move takes a value with all that belongs to it, and has a result for each. Raises Misfit."""
    moved = [segment.result(name) for name in op.inputs if name in segment.by_name]
    if not isinstance(op.attrs, (SoftmaxMergeAttrs, SoftmaxScatterAttrs)):
        source = segment.by_name.get(op.inputs[0])
        single = source is None or op.inputs[0] != source.name or source.kind == "softmax_merge"
        belongs = () if single or source is None else tuple(value.name for value in source.more)
        if op.inputs[1:] != belongs:
            raise Misfit("operands that move along", op.inputs[1:], belongs)
    wanted = moved_results(op, got, moved) if moved else ()
    if op.more != wanted:
        raise Misfit("further results", named(op.more), named(wanted))


def named(values: Sequence[Value]) -> str:
    """`%x.max [batch] [dp] partial(max sp) fp32`, each of them; `none`."""
    each = (f"%{v.name} {listed(v.dims)} {shown(v.sharding) if v.sharding else ''} {v.dtype}" for v in values)
    return "; ".join(each) or "none"


def _moved(segment: Segment, op: Op) -> None:
    """The first result has the dims of the first operand."""
    if not op.inputs:
        raise Misfit("operands", "none", "the value that is moved")
    same_dims("result", op.dims, segment.dims_of(op.inputs[0]))


KINDS = (
    OpKind(
        name="slice", about="a rank keeps its part of what it has whole", attrs=SliceAttrs, dims=_moved, dtype=AS_OPERAND,
        idle=NO_WORK, linear=(0,), fused=True, local=True, rides_in=IN_EXPERTS, move=_slice,
    ),
    OpKind(
        name="all_reduce", about="partial values joined on every rank", attrs=MoveAttrs, dims=_moved, dtype=AS_OPERAND,
        idle=NO_WORK, local=True, move=_all_reduce,
    ),
    OpKind(
        name="reduce_scatter", about="partial values joined, each rank its part", attrs=MoveAttrs, dims=_moved, dtype=AS_OPERAND,
        idle=NO_WORK, local=True, move=_reduce_scatter,
    ),
    OpKind(
        name="all_gather", about="the parts of all ranks on every rank", attrs=MoveAttrs, dims=_moved, dtype=AS_OPERAND,
        idle=NO_WORK, local=True, move=_all_gather,
    ),
    OpKind(
        name="all_to_all", about="ranks exchange parts: split by another dimension than before", attrs=MoveAttrs, dims=_moved,
        dtype=AS_OPERAND, idle=NO_WORK, local=True, move=_all_to_all,
    ),
    OpKind(
        name="permute", about="each rank gets its block from one that has it", attrs=MoveAttrs, dims=_moved, dtype=AS_OPERAND,
        idle=NO_WORK, local=True, move=_permute,
    ),
    OpKind(
        name=TO_EXPERTS, about="ranks that have experts alone get their parts from all others", attrs=MoveAttrs, dims=_moved,
        dtype=AS_OPERAND, idle=NO_WORK, local=True, move=_across,
    ),
    OpKind(
        name=FROM_EXPERTS, about="they send them back", attrs=MoveAttrs, dims=_moved, dtype=AS_OPERAND, idle=NO_WORK, local=True,
        move=_across,
    ),
    OpKind(
        name="ring_turn", about="the blocks of a value pass every rank of a ring once", attrs=RingTurnAttrs, dims=_moved,
        dtype=AS_OPERAND, idle=NO_WORK, local=True, move=_ring_turn,
    ),
    OpKind(
        name="softmax_merge", about="attention over pieces of the context joined: row maxima, row sums, output",
        attrs=SoftmaxMergeAttrs, dims=_moved, dtype=AS_OPERAND, idle=NO_WORK, local=True,
        move=_softmax_merge,
    ),
    OpKind(
        name="softmax_scatter", about="attention over pieces of the context joined, each rank its part of the output",
        attrs=SoftmaxScatterAttrs, dims=_moved, dtype=AS_OPERAND, idle=NO_WORK, local=True, move=_softmax_scatter,
    ),
)  # fmt: skip
