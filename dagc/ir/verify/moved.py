"""Verification of what moves data: a collective or slice does exactly the move it says, over more than one rank."""

from __future__ import annotations

from ..graph import Op, Segment
from ..mesh import Mesh
from ..ops.attributes import MoveAttrs, RingTurnAttrs, SliceAttrs
from ..ops.further import moved_results
from ..sharding import Axes, Sharding
from .violation import require


def verify_slice(segment: Segment, op: Op) -> None:
    """A rank keeps its part of what it holds whole: one dim gains the axes that the slice names."""
    have, got = _ends(segment, op)
    named = op.of(SliceAttrs).axes
    to = _dim(segment, op, "target_dim")
    gained = got.dims[to][len(have.dims[to]) :]
    require(sorted(gained) == sorted(named), segment, op, f"gains {gained}, names {named}")
    require(not set(gained) & have.used, segment, op, "splits over an axis already used")
    require(got == have.with_dim(to, (*have.dims[to], *gained)), segment, op, "changes more than the dim it splits")


def verify_collective(segment: Segment, op: Op, mesh: Mesh) -> None:
    have, got = _ends(segment, op)
    require(mesh.size(op.axes) > 1, segment, op, "a collective over a group of one")
    if have.reduce == "softmax" or op.kind == "softmax_merge":
        _softmax(segment, op, have, got)
    elif op.kind == "all_reduce":
        _pending(segment, op, have)
        require(op.of(MoveAttrs).reduce == have.reduce, segment, op, f"does not reduce by {have.reduce}")
        require(got == have.resolved(op.axes), segment, op, "leaves another layout than the reduced one")
    elif op.kind == "reduce_scatter":
        _pending(segment, op, have)
        require(have.reduce == "sum", segment, op, f"sums what is pending as {have.reduce}")
        to = _dim(segment, op, "target_dim")
        moved = _minor(segment, op, got, to)
        want = have.resolved(op.axes).with_dim(to, (*have.dims[to], *moved))
        require(got == want, segment, op, "scatters other axes than it reduces")
    elif op.kind == "all_gather":
        source = _dim(segment, op, "source_dim")
        moved = _minor(segment, op, have, source)
        want = have.with_dim(source, have.dims[source][: -len(moved)])
        require(got == want, segment, op, "gathers other axes than were split")
    elif op.kind == "all_to_all":
        source, to = _dim(segment, op, "source_dim"), _dim(segment, op, "target_dim")
        require(source != to, segment, op, "exchanges a dim with itself")
        _minor(segment, op, have, source)
        moved = _minor(segment, op, got, to)
        want = have.with_dim(source, have.dims[source][: -len(moved)]).with_dim(to, (*have.dims[to], *moved))
        require(got == want, segment, op, f"does not move {moved} alone")
    elif op.kind == "ring_turn":
        _ring(segment, op, have, got, mesh)
    else:
        _permute(segment, op, have, got, mesh)


def _ends(segment: Segment, op: Op) -> tuple[Sharding, Sharding]:
    have = segment.sharding_of(op.inputs[0])
    assert have is not None and op.sharding is not None
    return have, op.sharding


def _dim(segment: Segment, op: Op, attribute: str) -> int:
    """The dim that an attribute names."""
    name = getattr(op.attrs, attribute)
    require(name in op.dims, segment, op, f"{attribute} `{name}` is none of its dims")
    return op.dims.index(name)


def _minor(segment: Segment, op: Op, layout: Sharding, dim: int) -> Axes:
    """The group's axes as the minor ones of a dim, in the order in which they lie there."""
    found = layout.dims[dim][-len(op.axes) :]
    require(sorted(found) == sorted(op.axes), segment, op, f"its group is not the minor part of dim {op.dims[dim]}")
    return found


def _pending(segment: Segment, op: Op, have: Sharding) -> None:
    require(set(op.axes) <= set(have.partial), segment, op, "reduces what is not pending")


def _softmax(segment: Segment, op: Op, have: Sharding, got: Sharding) -> None:
    """Pieces of the context are merged by three all-reduces: row maxima, row sums that read them, then the output."""
    merges = have.reduce == "softmax" and set(op.axes) == set(have.partial)
    require(merges and op.kind == "softmax_merge", segment, op, "does not merge a softmax")
    require(got == have.resolved(), segment, op, "leaves another layout than the merged one")
    source, reads = segment.by_name.get(op.inputs[0]), op.inputs[1:]
    require(source is not None and len(source.more) == 2, segment, op, "merges what has no statistics")
    assert source is not None
    if op.inputs[0] == source.name:
        total = segment.by_name.get(reads[0]) if len(reads) == 1 else None
        right = total is not None and total.kind == "softmax_merge" and [v.name for v in total.more] == [*reads]
        require(right and _of(segment, total) is source, segment, op, "does not read the shares of what it merges")
    else:
        maxima, sums = (value.name for value in source.more)
        peak = segment.by_name.get(reads[-1]) if op.inputs[:2] == (sums, maxima) and len(reads) == 2 else None
        right = peak is not None and peak.kind == "all_reduce" and (peak.inputs, peak.axes) == ((maxima,), op.axes)
        require(right, segment, op, "does not read the maxima of what it merges")


def _of(segment: Segment, merge: Op | None) -> Op | None:
    """The op whose row sums a merge adds up."""
    return segment.by_name.get(merge.inputs[0]) if merge is not None else None


def verify_moved_results(segment: Segment, op: Op) -> None:
    """A move takes a value with all that belongs to it, and has a result for each."""
    _, got = _ends(segment, op)
    operands = [segment.result(name) for name in op.inputs if name in segment.by_name]
    if op.kind != "softmax_merge":
        source = segment.by_name.get(op.inputs[0])
        single = source is None or op.inputs[0] != source.name or source.kind == "softmax_merge"
        belongs = () if single or source is None else tuple(value.name for value in source.more)
        require(op.inputs[1:] == belongs, segment, op, f"moves {op.inputs[1:]} along, not {belongs}")
    wanted = moved_results(op, got, operands) if operands else ()
    require(op.more == wanted, segment, op, "has other results than its operands make")


def _ring(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """One permute stands for a turn of the ring of every attention that reads it."""
    users = list(segment.users(op.name))
    rings = {frozenset(user.ring) for user in users}
    require(rings == {frozenset(op.axes)} and have == got, segment, op, "is not the ring of its attention")
    require(op.of(RingTurnAttrs).steps == mesh.size(op.axes) - 1, segment, op, "is not one turn of the ring")


def verify_ring_inputs(segment: Segment, op: Op) -> None:
    """Attention round a ring reads keys and values that travel."""
    for name in op.inputs:
        if op.ring and not name.startswith("@") and "context" in segment.dims_of(name):
            source = segment.by_name.get(name)
            travels = source is not None and isinstance(source.attrs, RingTurnAttrs)
            require(travels, segment, op, f"input %{name} does not travel the ring")


def _permute(segment: Segment, op: Op, have: Sharding, got: Sharding, mesh: Mesh) -> None:
    """Every block of the result lies within one block that a member of the group holds."""
    require(len(have.dims) == len(got.dims), segment, op, "changes the number of dims")
    pairs = list(zip(have.dims, got.dims, strict=True))
    changed = {a for h, g in pairs if h != g for a in (*h, *g)}
    require(changed == set(op.axes), segment, op, f"changes {sorted(changed)}")
    require((have.partial, have.reduce) == (got.partial, got.reduce), segment, op, "changes what is pending")
    inside = all(mesh.size(g) % mesh.size(h) == 0 for h, g in pairs)
    require(inside, segment, op, "needs blocks that no single rank holds")
