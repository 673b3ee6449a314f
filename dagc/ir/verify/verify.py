"""The verifier that runs after every pass. A violation is an internal error: a pass broke an invariant."""

from __future__ import annotations

import itertools
from collections import Counter
from math import isclose

from ...base.axes import ENDS
from ...base.dtypes import DTYPE_BYTES, INDICES
from ...base.traced import chosen
from ..graph import Graph
from ..handed_on import carried
from ..mesh import Mesh
from ..op import CELLS, FORWARD, SCOPES, Op
from ..ops.attributes.experts import DispatchAttrs
from ..ops.attributes.moves import RingTurnAttrs, SoftmaxMergeAttrs, SoftmaxScatterAttrs
from ..ops.attributes.read_record import AttributeFault
from ..ops.attributes.training import AccumulateAttrs
from ..ops.further import further_results
from ..ops.kind import Misfit, Tokens
from ..ops.leaving import still_there
from ..ops.moves import check_moved_results, named, shown
from ..ops.op_set import OPS, flops, input_layout, local_flops, result_layout
from ..ops.sequence import SEQUENCE_DIMS
from ..ops.sizes import loop_axes, loop_dims
from ..requests import IDS
from ..routed_dims import stem
from ..segment import Segment
from ..sharding import AT_EXPERTS, Axes, Sharding
from .operands import verify_op
from .violation import VerifyError, require, violation


def verify(graph: Graph, before: Graph | None = None) -> None:
    """Check a graph at whatever level it is. `before`: one that was checked; what the graph has of it is not looked at again."""
    sharded, mesh = _is_sharded(graph), graph.mesh
    alike = before is not None and before.mesh == mesh and _is_sharded(before) == sharded
    alike = alike and before is not None and (sharded or before.level == graph.level)
    if mesh is not None and not (alike and before is not None and before.mesh is mesh):
        _gpus(mesh)
    for segment in graph.segments:
        old = before.find(segment.name) if before is not None else None
        if alike and old is segment:
            continue
        same = old is not None and same_structure(old, segment)
        if not same:
            _dtypes(segment)
            _one_placement(segment)
            _acyclic(segment)
        if mesh is not None and mesh.zigzag:
            _dealt(segment, mesh)
        seen = old.ops if same and old is not None else itertools.repeat(None)
        for op, was in zip(segment.ops, seen, strict=False):
            try:
                _verify_op(graph, segment, op, sharded, alike, was)
            except (Misfit, AttributeFault) as fault:
                raise violation(graph, segment, op, fault) from None
        if sharded:
            final = segment.sharding_of(segment.output)
            require(final is not None and not final.partial, segment, None, "returns a partial value")
            _conserved(segment, graph.the_mesh)
        _accumulated(segment)
    if sharded:
        _layers_meet(graph)
        _ends_meet(graph)
    if graph.stages:
        _stages(graph, before)
        _taken(graph)


def _is_sharded(graph: Graph) -> bool:
    return graph.level in ("sharded", "placed")


def _verify_op(graph: Graph, segment: Segment, op: Op, sharded: bool, alike: bool, was: Op | None) -> None:
    """`was`: the op as it was in a checked segment of the same structure; `alike`: of a graph at the same level on the same mesh."""
    known = was is op
    # Where the structure is the same, dims and dtypes are, but for what follows from how loops are split.
    if was is None or (not known and OPS[op.kind].checked_by_layout):
        verify_op(segment, op)
    if sharded:  # the layouts of operands count too
        _layout(segment, op, graph.the_mesh)
        return
    if graph.level == "annotated" and not (known and alike):
        _annotation(segment, op, graph.the_mesh)
    if not known and op.more != further_results(op, op.sharding):
        raise Misfit("further results", named(op.more), named(further_results(op, op.sharding)))


def same_structure(a: Segment, b: Segment) -> bool:
    """Whether two segments differ in layouts alone: in how loops are split, and what follows from that."""
    if a is b:
        return True
    if a.sizes is not b.sizes or len(a.ops) != len(b.ops) or a.weights != b.weights:
        return False
    ends = [
        (
            s.input,
            s.input_dims,
            s.input_dtype,
            s.output,
            s.taken,
            s.handed,
            s.gives,
            [(n, v.name, v.dims) for n, v in s.gets],
        )
        for s in (a, b)
    ]
    return ends[0] == ends[1] and all(map(_same_but_layout, a.ops, b.ops))


def _same_but_layout(a: Op, b: Op) -> bool:
    return a is b or (
        a.name == b.name
        and a.kind == b.kind
        and a.inputs == b.inputs
        and a.dims == b.dims
        and a.dtype == b.dtype
        and a.scope == b.scope
        and a.attrs == b.attrs
        and a.more == b.more
    )


def _gpus(mesh: Mesh) -> None:
    """Every rank has a GPU of its own."""
    ids = mesh.gpus.ids if mesh.gpus is not None else ()
    if mesh.gpus is not None and len(ids) != mesh.stages * mesh.size(mesh.on("")):
        raise VerifyError(f"the mesh has {len(ids)} GPU ids for {mesh.stages} stages of {mesh.side_shape('')} ranks")
    if mesh.apart is not None:
        own = mesh.apart.gpus.ids
        if len(own) != mesh.stages * mesh.size(mesh.apart.atoms):
            raise VerifyError(f"the mesh has {len(own)} GPU ids for the experts' ranks {mesh.side_shape(AT_EXPERTS)}")
        ids = (*ids, *own)
    if len(set(ids)) != len(ids):
        raise VerifyError("a GPU has two ranks")


def _dealt(segment: Segment, mesh: Mesh) -> None:
    """Zigzag deals every sequence out in equal pieces, two for each rank of its axes."""
    for axis in mesh.zigzag:
        require(axis in mesh.sizes, segment, None, f"zigzag over {axis}, which is not an axis of the mesh")
    pieces = 2 * mesh.size(mesh.zigzag)
    for dim in SEQUENCE_DIMS:
        size = segment.sizes.get(dim, 0)
        if size % pieces:
            require(False, segment, None, f"{dim} {size:g} does not divide into {pieces} pieces of zigzag")


def _dtypes(segment: Segment) -> None:
    for dim, size in segment.sizes.items():
        if not size > 0:
            require(False, segment, None, f"{dim} has size {size:g}")
    require(segment.input_dtype in DTYPE_BYTES, segment, None, f"unknown dtype {segment.input_dtype}")
    for weight in segment.weights:
        require(weight.dtype in DTYPE_BYTES, segment, None, f"weight {weight.name}: unknown dtype {weight.dtype}")
        if weight.dtype in INDICES:
            read = any(weight.name in OPS[op.kind].dtype.indices(op) for op in segment.ops)
            require(read, segment, None, f"weight {weight.name}: {weight.dtype} is for indices")
        require(weight.scope in SCOPES, segment, None, f"weight {weight.name}: unknown scope {weight.scope}")


def _one_placement(segment: Segment) -> None:
    """Rows go to where the weights of their experts were put."""
    sent = {op.attrs.placed for op in segment.ops if isinstance(op.attrs, DispatchAttrs)}
    stored = {w.placed for w in segment.weights if w.scope == "experts"}
    require(len(sent | stored) <= 1, segment, None, f"experts are placed in {len(sent | stored)} ways")
    require(all(w.scope == "experts" or not w.placed for w in segment.weights), segment, None, "places a dense weight")


def _acyclic(segment: Segment) -> None:
    """Program order is a topological order: every input is the segment's input, a weight or an earlier result."""
    seen = {segment.input, *segment.beside, *(w.name for w in segment.weights)}
    require(len(segment.beside) == len(segment.taken), segment, None, "takes a value twice")
    order = [CELLS.index(op.cell) for op in segment.ops]
    require(order == sorted(order), segment, None, f"its cells are not in the order {', '.join(CELLS[1:])}")
    for op in segment.ops:
        if op.cell != FORWARD:
            seen |= segment.handed_back.keys()
        for value in op.results:
            require(value.name not in seen, segment, op, f"the name {value.name} is defined twice")
        for name in op.inputs:
            require(name in seen, segment, op, f"uses %{name} before it is defined")
        seen |= {value.name for value in op.results}
    require(segment.output in seen, segment, None, f"returns %{segment.output}, which is not defined")
    require(not segment.output.startswith("@"), segment, None, f"returns the weight {segment.output}")
    for given, made in segment.handed:
        given_on = made in segment.by_name or made == segment.input == IDS
        require(given_on, segment, None, f"hands on %{made} as {given}, which it does not compute")
    if segment.downstream:
        require(segment.downstream in seen, segment, None, f"hands back %{segment.downstream}, which is not defined")
        same = segment.dims_of(segment.downstream) == segment.input_dims
        require(same, segment, None, "hands back a gradient of other dims than its input")
    if segment.upstream is not None:
        same = segment.upstream.dims == segment.dims_of(segment.output)
        require(same, segment, None, "is handed a gradient of other dims than its output")
    for given, made in segment.gives:
        require(made in seen, segment, None, f"hands back %{made} of {given}, which is not defined")


def _accumulated(segment: Segment) -> None:
    """In a training step every gradient of a weight is added up once, in the weight's dims."""
    if all(op.cell == FORWARD for op in segment.ops):
        return
    found = [op for op in segment.ops if isinstance(op.attrs, AccumulateAttrs)]
    names = [op.attrs.weight for op in found if isinstance(op.attrs, AccumulateAttrs)]
    require(len(set(names)) == len(names), segment, None, "adds up the gradient of a weight twice")
    for op, name in zip(found, names, strict=True):
        weight = segment.weight.get(f"@{name}")
        require(weight is not None, segment, op, f"adds up the gradient of @{name}, which is no weight")
        assert weight is not None
        same = sorted(weight.dims) == sorted(op.dims) if weight.tied else weight.dims == op.dims
        require(same, segment, op, f"has other dims than @{name}")


def _annotation(segment: Segment, op: Op, mesh: Mesh) -> None:
    """No axis splits two loops, and every split divides (slots are ragged)."""
    if OPS[op.kind].tokens is Tokens.AT_HOME:
        return  # these see their tokens in two layouts at once, and may use an axis in each
    axes = loop_axes(op)
    if len(set(axes)) != len(axes):
        raise Misfit("loops", op.loops, "each axis in one of them")
    for dim, split in op.loops:
        size = segment.size(dim, op.scope)
        if stem(dim) != "slot" and size % mesh.size(split):
            raise Misfit(f"dimension {dim}", f"size {size:g}", f"one that divides by {mesh.size(split)}")


def _layout(segment: Segment, op: Op, mesh: Mesh) -> None:
    """Every input has the layout that the op needs, the result the layout that the op leaves; no partial value is forgotten."""
    if op.sharding is None:
        raise Misfit("layout", "none", "one")
    used = [a for axes in op.sharding.dims for a in axes] + list(op.sharding.partial)
    if len(set(used)) != len(used):
        raise Misfit("layout", shown(op.sharding), "each axis once")
    if mesh.apart is not None and not set(used) <= set(mesh.on(op.sharding.on)):
        raise Misfit("layout", shown(op.sharding), f"axes of the ranks that have it, {mesh.on(op.sharding.on)}")
    if ENDS in used and (ENDS not in op.sharding.partial or mesh.stages < 2):
        raise Misfit("layout", shown(op.sharding), "the ends of a pipeline, if it has any, among partial axes alone")
    if len(op.sharding.dims) != len(op.dims):
        raise Misfit("layout", shown(op.sharding), f"one of {len(op.dims)} dims")
    if OPS[op.kind].move is None:
        _computed(segment, op, mesh)
    else:
        _moved(segment, op, mesh)


def _moved(segment: Segment, op: Op, mesh: Mesh) -> None:
    """A collective or slice does exactly the move it says, over more than one rank."""
    kind, have = OPS[op.kind], segment.sharding_of(op.inputs[0])
    assert have is not None and op.sharding is not None and kind.move is not None
    if kind.is_collective and mesh.size(op.axes) < 2 and not op.is_across:
        raise Misfit("group", f"{mesh.size(op.axes)} rank", "more than one")
    ends = (ENDS,) if mesh.stages > 1 else ()
    if op.on != op.sharding.on or (have.on == op.on) == op.is_across:
        raise Misfit(
            "ranks that get the result",
            _side(op.sharding.on),
            f"those of the operand, {_side(have.on)}, or others where it goes across",
        )
    if not set(op.axes) <= {*mesh.on(op.on), *ends} and not op.is_across:
        raise Misfit("group", op.axes, f"axes of its ranks, {mesh.on(op.on)}")
    if have.reduce == "softmax" and not isinstance(op.attrs, (SoftmaxMergeAttrs, SoftmaxScatterAttrs)):
        raise Misfit("operand", shown(have), "one that is not to be merged as a softmax")
    kind.move(segment, op, have, op.sharding, mesh)
    check_moved_results(segment, op, op.sharding)


def _side(on: str) -> str:
    return f"those of the {on}" if on else "those of the phase"


def _computed(segment: Segment, op: Op, mesh: Mesh) -> None:
    kind, layout = OPS[op.kind], op.sharding
    assert layout is not None
    carried: list[Axes] = []
    for i, name in enumerate(op.inputs):
        have = segment.sharding_of(name)
        assert have is not None
        need = input_layout(segment, op, name)
        if have.dims != need:
            raise Misfit(f"layout of operand {i + 1} %{name}", shown(have), shown(Sharding(need, on=op.on)))
        if have.on != op.on:
            raise Misfit(
                f"ranks that have operand {i + 1} %{name}", _side(have.on), f"those that compute, {_side(op.on)}"
            )
        if have.partial and (i not in kind.linear or have.reduce != "sum"):
            raise Misfit(f"operand {i + 1} %{name}", f"a partial value {shown(have)}", "a reduced one")
        if have.partial:
            carried.append(have.partial)
        _travels(segment, op, name)
    if kind.jointly and carried and (len(carried) < len(op.inputs) or len(set(carried)) > 1):
        raise Misfit("operands", "a partial value and another", "all partial over the same axes, or none")
    if not kind.jointly and len(carried) > 1:
        raise Misfit("operands", f"{len(carried)} partial values", "one at most")
    own = result_layout(segment, op)
    partial = mesh.sort((*(carried[0] if carried else ()), *own.partial))
    wanted = Sharding(own.dims, partial, own.reduce, op.on)
    if layout != wanted:
        raise Misfit("layout of the result", shown(layout), shown(wanted))
    if op.more != further_results(op, layout):
        raise Misfit("further results", named(op.more), named(further_results(op, layout)))


def _travels(segment: Segment, op: Op, name: str) -> None:
    """Attention round a ring reads keys and values that travel."""
    if op.ring and not name.startswith("@") and "context" in segment.dims_of(name):
        source = segment.by_name.get(name)
        if source is None or not isinstance(source.attrs, RingTurnAttrs):
            raise Misfit(f"operand %{name}", "a value that does not travel the ring", "the result of a ring_turn")


def _conserved(segment: Segment, mesh: Mesh) -> None:
    """FLOPs over all ranks = FLOPs of the op x the ranks that repeat it; parameters likewise."""
    ranks = mesh.size(tuple(mesh.sizes))
    for op in segment.ops:
        if OPS[op.kind].is_collective:
            continue
        repeated = ranks / mesh.size(tuple(set(loop_axes(op))))
        total = local_flops(segment, op, mesh) * ranks
        require(chosen(_close, (total, flops(segment, op) * repeated)), segment, op, "FLOPs are not conserved")
        require(len(loop_dims(segment, op)) >= len(op.dims), segment, op, "loses a loop dimension")
    for weight in segment.weights:
        require(weight.sharding is not None, segment, None, f"weight {weight.name} has no layout")
        assert weight.sharding is not None
        for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
            size = segment.size(dim, weight.scope)
            require(size % mesh.size(axes) == 0, segment, None, f"weight {weight.name}: {dim} does not divide")


def _close(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=1e-9)


def _layers_meet(graph: Graph) -> None:
    """Every layer takes the value that the one before it returns, in the same layout."""
    order = [layers for stage in graph.stages for layers in stage.layers]
    within = [(name, name) for name, count in order if count > 1]
    for names in dict.fromkeys([*itertools.pairwise(name for name, _ in order), *within]):
        before, after = map(graph.segment, names)
        same = still_there(before.dims_of(before.output)) == still_there(after.input_dims)
        meet = before.sharding_of(before.output) == after.entry and same
        require(meet, after, None, f"takes another value than {before.name} returns")
        if before.upstream is not None:
            meet = bool(after.downstream) and after.sharding_of(after.downstream) == before.upstream.sharding
            require(meet, before, None, f"is handed another gradient than {after.name} hands back")


def _taken(graph: Graph) -> None:
    """What a layer takes beside the residual stream is what the nearest layer before it hands on under that name."""
    if not any(segment.taken or segment.handed for segment in graph.segments):
        return
    there: dict[str, tuple[Segment, str]] = {}
    for stage in graph.stages:
        for name, _ in stage.layers:
            segment = graph.segment(name)
            for one in segment.taken:
                require(one.name in there, segment, None, f"takes {one.name}, which no layer before it hands on")
                source, value = there[one.name]
                dims = [source.dims_of(value), one.dims]
                sizes = [
                    [at.size(d, scope) for d in own]
                    for at, own, scope in zip((source, segment), dims, (source.scope_of(value), one.scope), strict=True)
                ]
                made = source.dtype_of(value), source.sharding_of(value), sizes[0]
                require(
                    made == (one.dtype, one.sharding, sizes[1]),
                    segment,
                    None,
                    f"takes another {one.name} than {source.name} hands on",
                )
            there |= {given: (segment, value) for given, value in segment.handed}
    for segment in graph.segments:
        _gradients_beside(segment, trains=any(op.cell != FORWARD for op in graph.head.ops))


def _gradients_beside(segment: Segment, *, trains: bool) -> None:
    """What a layer takes in of gradients beside that of its output, and hands back, is as what it takes or hands on."""
    own = {one.name: one.name for one in segment.taken} | dict(segment.handed)
    numbers = {name for name, value in own.items() if segment.dtype_of(value) not in INDICES}
    gets = dict(segment.gets)
    require(
        gets.keys() == (numbers if trains else set()),
        segment,
        None,
        "does not get the gradients of what goes beside its output",
    )
    taken = {one.name for one in segment.taken} & gets.keys()
    require(
        {name for name, _ in segment.gives} == taken, segment, None, "does not hand back the gradients of what it takes"
    )
    for name, value in (*segment.gives, *((name, value.name) for name, value in segment.gets)):
        of = own[name] if value in segment.handed_back else name
        like = segment.dims_of(of), segment.dtype_of(of), segment.sharding_of(of)
        made = segment.dims_of(value), segment.dtype_of(value), segment.sharding_of(value)
        require(made == like, segment, None, f"has another gradient of {name} than what it is of")


def _ends_meet(graph: Graph) -> None:
    """What goes between the first and the last stage goes both ways: each has the same calls, of parts as large."""
    ends = [[op for op in s.ops if ENDS in op.axes] for s in (graph.embedding, graph.head)]
    calls = [[(op.kind, op.axes, op.dims, op.dtype, op.sharding) for op in own] for own in ends]
    if calls[0] != calls[1]:
        op = next(one for one in itertools.chain(*ends))
        at = graph.embedding if op in ends[0] else graph.head
        raise violation(
            graph, at, op, Misfit("calls over the ends", len(calls[0]), f"those of the other end, {len(calls[1])}")
        )
    for segment in graph.body:
        for op in segment.ops:
            require(ENDS not in op.axes, segment, op, "is a call over the ends, where it is at neither")


def _stages(graph: Graph, before: Graph | None) -> None:
    """The stages have every layer once, in order; placed, every GPU has one rank."""
    repeats = [(segment.name, segment.repeat) for segment in graph.segments]
    if before is None or before.stages is not graph.stages or repeats != [(s.name, s.repeat) for s in before.segments]:
        counts: Counter[str] = Counter()
        for stage in graph.stages:
            for name, count in stage.layers:
                counts[name] += count
        for name, repeat in repeats:
            if counts[name] != repeat:
                raise VerifyError(f"{name}: {counts[name]} of {repeat} layers are in a stage")
    if graph.level in ("sharded", "placed"):
        _sends(graph)
    if graph.level == "placed":
        gpus = graph.the_mesh.gpus
        if gpus is None or gpus.ids != tuple(itertools.chain.from_iterable(s.gpus for s in graph.stages)):
            raise VerifyError("the stages have other GPUs than the mesh")


def _sends(graph: Graph) -> None:
    """Every stage but the first receives what the one before it leaves, in the same layout."""
    if [(e.source, e.target) for e in graph.sends] != [(s.index - 1, s.index) for s in graph.stages[1:]]:
        raise VerifyError("a stage edge has no send")
    for edge in graph.sends:
        last = graph.segment(graph.stages[edge.source].layers[-1][0])
        first = graph.segment(graph.stages[edge.target].layers[0][0])
        if not last.sharding_of(last.output) == first.entry == edge.sharding:
            raise VerifyError(f"stage {edge.source} leaves another layout than stage {edge.target} takes")
        takes = (first.input, first.input_dims, first.input_dtype)
        if (edge.value, edge.dims, edge.dtype) != takes:
            raise VerifyError(f"stage {edge.target} takes another value than stage {edge.source} sends")
        if edge.beside != carried(graph, edge.target):
            raise VerifyError(f"stage {edge.target} takes other values beside it than stage {edge.source} sends")
