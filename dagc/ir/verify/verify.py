"""The verifier that runs after every pass. A violation is an internal error: a pass broke an invariant."""

from __future__ import annotations

import itertools
from math import isclose

from ...base.dtypes import DTYPE_BYTES, INDICES
from ..graph import SCOPES, Graph, Op, Segment
from ..mesh import Mesh
from ..ops.further import further_results
from ..ops.ops import OPS, flops, input_layout, local_flops, loop_axes, loop_dims, result_layout
from ..ops.sequence import SEQUENCE_DIMS
from ..routed_dims import stem
from ..sharding import Sharding
from .moved import verify_collective, verify_moved_results, verify_ring_inputs, verify_slice
from .operands import verify_op
from .violation import VerifyError, require


def verify(graph: Graph) -> None:
    """Check a graph at whatever level it is."""
    if graph.mesh is not None:
        _gpus(graph.mesh)
    for segment in graph.segments:
        _dtypes(segment)
        if graph.mesh is not None and graph.mesh.zigzag:
            _dealt(segment, graph.mesh)
        _acyclic(segment)
        for op in segment.ops:
            verify_op(segment, op)
        if graph.level == "annotated":
            for op in segment.ops:
                _annotation(segment, op, graph.the_mesh)
        if graph.level in ("sharded", "placed"):
            _layouts(segment, graph.the_mesh)
            _conserved(segment, graph.the_mesh)
    if graph.level in ("sharded", "placed"):
        _layers_meet(graph)
    if graph.stages:
        _stages(graph)


def _gpus(mesh: Mesh) -> None:
    """Every rank has a GPU of its own."""
    ids = mesh.gpus.ids if mesh.gpus is not None else ()
    if mesh.gpus is not None and len(ids) != mesh.stages * mesh.size(tuple(mesh.sizes)):
        raise VerifyError(f"the mesh has {len(ids)} GPU ids for {mesh.stages} stages of {mesh.shape} ranks")
    if len(set(ids)) != len(ids):
        raise VerifyError("a GPU holds two ranks")


def _dealt(segment: Segment, mesh: Mesh) -> None:
    """Zigzag deals every sequence out in equal pieces, two for each rank of its axes."""
    for axis in mesh.zigzag:
        require(axis in mesh.sizes, segment, None, f"zigzag over {axis}, which is no axis of the mesh")
    pieces = 2 * mesh.size(mesh.zigzag)
    for dim in SEQUENCE_DIMS:
        size = segment.sizes.get(dim, 0)
        require(size % pieces == 0, segment, None, f"{dim} {size:g} does not divide into {pieces} pieces of zigzag")


def _dtypes(segment: Segment) -> None:
    for dim, size in segment.sizes.items():
        require(size > 0, segment, None, f"{dim} has size {size:g}")
    require(segment.input_dtype in DTYPE_BYTES, segment, None, f"unknown dtype {segment.input_dtype}")
    for weight in segment.weights:
        require(weight.dtype in DTYPE_BYTES, segment, None, f"weight {weight.name}: unknown dtype {weight.dtype}")
        require(weight.dtype not in INDICES, segment, None, f"weight {weight.name}: {weight.dtype} is for indices")
        require(weight.scope in SCOPES, segment, None, f"weight {weight.name}: unknown scope {weight.scope}")


def _acyclic(segment: Segment) -> None:
    """Program order is a topological order: every input is the segment's input, a weight or an earlier result."""
    seen = {segment.input, *(w.name for w in segment.weights)}
    for op in segment.ops:
        for value in op.results:
            require(value.name not in seen, segment, op, f"the name {value.name} is defined twice")
        for name in op.inputs:
            require(name in seen, segment, op, f"uses %{name} before it is defined")
        seen |= {value.name for value in op.results}
    require(segment.output in seen, segment, None, f"returns %{segment.output}, which is not defined")


def _annotation(segment: Segment, op: Op, mesh: Mesh) -> None:
    """No axis splits two loops, and every split divides (slots are ragged)."""
    if op.kind in ("dispatch", "combine"):
        return  # these see their tokens in two layouts at once, and may use an axis in each
    axes = loop_axes(op)
    require(len(set(axes)) == len(axes), segment, op, f"an axis splits two loops: {op.loops}")
    for dim, split in op.loops:
        if stem(dim) != "slot":
            size = segment.size(dim, op.scope)
            require(
                size % mesh.size(split) == 0,
                segment,
                op,
                f"{dim} = {size:g} does not divide by {mesh.size(split)}",
            )


def _layouts(segment: Segment, mesh: Mesh) -> None:
    """Every input lies as its op needs it; every result lies as the op leaves it; no partial is forgotten."""
    for op in segment.ops:
        require(op.sharding is not None, segment, op, "has no layout")
        assert op.sharding is not None
        used = [a for axes in op.sharding.dims for a in axes] + list(op.sharding.partial)
        require(len(set(used)) == len(used), segment, op, "an axis is used twice in one layout")
        if op.is_collective:
            verify_collective(segment, op, mesh)
            verify_moved_results(segment, op)
            continue
        if op.kind == "slice":
            verify_slice(segment, op)
            verify_moved_results(segment, op)
            continue
        verify_ring_inputs(segment, op)
        carried: tuple[str, ...] = ()
        unreduced = 0
        for i, name in enumerate(op.inputs):
            have = segment.sharding_of(name)
            assert have is not None
            need = input_layout(segment, op, name)
            require(have.dims == need, segment, op, f"input %{name} lies {have.dims}, needed {need}")
            if have.partial:
                require(i in OPS[op.kind].linear, segment, op, f"input %{name} is an unreduced sum")
                require(have.reduce == "sum", segment, op, f"input %{name} is pending as {have.reduce}")
                carried = have.partial
                unreduced += 1
        if op.kind == "add":
            sums = {(segment.sharding_of(n) or Sharding(())).partial for n in op.inputs}
            require(len(sums) == 1, segment, op, "adds a reduced and an unreduced value")
        if op.kind in ("contract", "multiply"):
            require(unreduced < 2, segment, op, "multiplies two unreduced sums")
        own = result_layout(segment, op)
        want = mesh.sort((*carried, *own.partial))
        require(op.sharding.dims == own.dims, segment, op, f"lies {op.sharding.dims}, should {own.dims}")
        require(op.sharding.partial == want, segment, op, f"pending {op.sharding.partial}, should {want}")
        require(op.sharding.reduce == own.reduce, segment, op, f"pending as {op.sharding.reduce}, not {own.reduce}")
        require(op.more == further_results(op, op.sharding), segment, op, "has other results than its layout makes")
    final = segment.sharding_of(segment.output)
    require(final is not None and not final.partial, segment, None, "returns an unreduced sum")


def _conserved(segment: Segment, mesh: Mesh) -> None:
    """FLOPs over all ranks = FLOPs of the op x the ranks that repeat it; parameters likewise."""
    ranks = mesh.size(tuple(mesh.sizes))
    for op in segment.ops:
        if op.kind not in OPS:
            continue
        repeated = ranks / mesh.size(tuple(set(loop_axes(op))))
        total = local_flops(segment, op, mesh) * ranks
        require(
            isclose(total, flops(segment, op) * repeated, rel_tol=1e-9),
            segment,
            op,
            "FLOPs are not conserved",
        )
        require(len(loop_dims(segment, op)) >= len(op.dims), segment, op, "loses a loop dimension")
    for weight in segment.weights:
        require(weight.sharding is not None, segment, None, f"weight {weight.name} has no layout")
        assert weight.sharding is not None
        for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
            size = segment.size(dim, weight.scope)
            require(size % mesh.size(axes) == 0, segment, None, f"weight {weight.name}: {dim} does not divide")


def _layers_meet(graph: Graph) -> None:
    """Every layer takes the value that the one before it returns, as it lies."""
    for (before, _), (after, _) in itertools.pairwise(graph.layers):
        meet = before.sharding_of(before.output) == after.entry and before.dims_of(before.output) == after.input_dims
        require(meet, after, None, f"takes another value than {before.name} returns")


def _stages(graph: Graph) -> None:
    """The stages hold every layer once, in order; placed, every GPU has one rank."""
    held = [name for stage in graph.stages for name, count in stage.layers for _ in range(count)]
    for segment in graph.segments:
        if held.count(segment.name) != segment.repeat:
            raise VerifyError(f"{segment.name}: {held.count(segment.name)} of {segment.repeat} layers are in a stage")
    if graph.level in ("sharded", "placed"):
        _sends(graph)
    if graph.level == "placed":
        gpus = graph.the_mesh.gpus
        if gpus is None or gpus.ids != tuple(g for s in graph.stages for g in s.gpus):
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
