"""The verifier that runs after every pass. A violation is an internal error: a pass broke an invariant."""

from __future__ import annotations

import itertools
from math import isclose, prod

import numpy as np

from .graph import Graph, Op, Segment
from .mesh import Mesh, Placement
from .ops import OPS, flops, input_layout, local_flops, loop_axes, loop_dims, result_layout
from .result import Schedule
from .sharding import Sharding


class VerifyError(AssertionError):
    """An invariant of the IR does not hold."""


def _require(truth: bool, segment: Segment, op: Op | None, message: str) -> None:
    if not truth:
        where = f"{segment.name}/%{op.name}" if op is not None else segment.name
        raise VerifyError(f"{where}: {message}")


def verify(graph: Graph) -> None:
    """Check a graph at whatever level it is."""
    for segment in graph.segments:
        _acyclic(segment)
        _shapes(segment)
        if graph.level == "annotated":
            for op in segment.ops:
                _annotation(segment, op, graph.the_mesh)
        if graph.level in ("sharded", "placed"):
            _layouts(segment, graph.the_mesh)
            _conserved(segment, graph.the_mesh)
    if graph.stages:
        _stages(graph)


def _acyclic(segment: Segment) -> None:
    """Program order is a topological order: every input is the segment's input, a weight or an earlier result."""
    seen = {segment.input, *(w.name for w in segment.weights)}
    for op in segment.ops:
        _require(op.name not in seen, segment, op, "the name is defined twice")
        for name in op.inputs:
            _require(name in seen, segment, op, f"uses %{name} before it is defined")
        seen.add(op.name)
    _require(segment.output in seen, segment, None, f"returns %{segment.output}, which is not defined")


def _shapes(segment: Segment) -> None:
    for op in segment.ops:
        for dim in op.dims:
            _require(dim in segment.sizes, segment, op, f"dimension {dim} has no size")
        _require(len(set(op.dims)) == len(op.dims), segment, op, "a dimension stands twice in the result")
        have = {d for n in op.inputs for d in segment.dims_of(n)}
        if op.kind in ("contract", "multiply", "add", "attend"):
            missing = set(op.dims) - have
            _require(not missing, segment, op, f"result dims {sorted(missing)} come from no input")
        elif op.is_collective and not op.attr("of"):
            _require(op.dims == segment.dims_of(op.inputs[0]), segment, op, "a collective changes no dims")
        _require(op.is_collective or op.kind in OPS, segment, op, f"unknown op kind {op.kind}")


def _annotation(segment: Segment, op: Op, mesh: Mesh) -> None:
    """No axis splits two loops, and every split divides (slots are ragged)."""
    if op.kind in ("dispatch", "combine"):
        return  # these see their tokens in two layouts at once, and may use an axis in each
    axes = loop_axes(op)
    _require(len(set(axes)) == len(axes), segment, op, f"an axis splits two loops: {op.loops}")
    for dim, split in op.loops:
        if dim != "slot":
            size = segment.size(dim, op.scope)
            _require(
                size % mesh.size(split) == 0,
                segment,
                op,
                f"{dim} = {size:g} does not divide by {mesh.size(split)}",
            )


def _layouts(segment: Segment, mesh: Mesh) -> None:
    """Every input lies as its op needs it; every result lies as the op leaves it; no partial is forgotten."""
    for op in segment.ops:
        _require(op.sharding is not None, segment, op, "has no layout")
        assert op.sharding is not None
        used = [a for axes in op.sharding.dims for a in axes] + list(op.sharding.partial)
        _require(len(set(used)) == len(used), segment, op, "an axis is used twice in one layout")
        if op.is_collective:
            _collective(segment, op, mesh)
            continue
        if op.kind == "slice":
            _slice(segment, op)
            continue
        carried: tuple[str, ...] = ()
        for i, name in enumerate(op.inputs):
            have = segment.sharding_of(name)
            assert have is not None
            need = input_layout(segment, op, name)
            _require(have.dims == need, segment, op, f"input %{name} lies {have.dims}, needed {need}")
            if have.partial:
                _require(i in OPS[op.kind].linear, segment, op, f"input %{name} is an unreduced sum")
                carried = have.partial
        if op.kind == "add":
            sums = {(segment.sharding_of(n) or Sharding(())).partial for n in op.inputs if not n.startswith("@")}
            _require(len(sums) == 1, segment, op, "adds a reduced and an unreduced value")
        own = result_layout(segment, op)
        want = mesh.sort((*carried, *own.partial))
        _require(op.sharding.dims == own.dims, segment, op, f"lies {op.sharding.dims}, should {own.dims}")
        _require(op.sharding.partial == want, segment, op, f"pending {op.sharding.partial}, should {want}")
    final = segment.sharding_of(segment.output)
    _require(final is not None and not final.partial, segment, None, "returns an unreduced sum")


def _slice(segment: Segment, op: Op) -> None:
    """A rank keeps its part of what it holds whole: dims only gain the axes that it names."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    gained = [a for h, g in zip(have.dims, got.dims, strict=True) for a in g[len(h) :]]
    named = str(op.attr("axes", "")).split("+")
    _require(sorted(gained) == sorted(named), segment, op, f"gains {gained}, names {named}")
    _require(not set(gained) & have.used, segment, op, "splits over an axis already used")


def _collective(segment: Segment, op: Op, mesh: Mesh) -> None:
    """A collective does exactly the move it says, over more than one rank."""
    have = segment.sharding_of(op.inputs[0])
    got = op.sharding
    assert have is not None and got is not None
    _require(mesh.size(op.axes) > 1, segment, op, "a collective over a group of one")
    axes = set(op.axes)
    if op.kind == "all_reduce":
        if have.reduce != "softmax":
            _require(
                got == have.resolved(op.axes) and axes <= set(have.partial),
                segment,
                op,
                "reduces what is not pending",
            )
    elif op.kind == "reduce_scatter":
        gained = [g[len(h) :] for h, g in zip(have.dims, got.dims, strict=True)]
        _require(
            axes <= set(have.partial) and {a for g in gained for a in g} == axes,
            segment,
            op,
            "scatters other axes than it reduces",
        )
    elif op.kind == "all_gather":
        lost = [h[len(g) :] for h, g in zip(have.dims, got.dims, strict=True)]
        _require({a for part in lost for a in part} == axes, segment, op, "gathers other axes than were split")
    elif op.kind == "all_to_all":
        homes = [{a: i for i, split in enumerate(s.dims) for a in split} for s in (have, got)]
        moved = {a for a in homes[0] if homes[0][a] != homes[1].get(a)}
        _require(homes[0].keys() == homes[1].keys(), segment, op, "loses an axis")
        _require(moved == axes, segment, op, f"moves {sorted(moved)}")
    elif op.attr("steps"):
        ring = set(str(next(segment.users(op.name)).attr("ring", "")).split("+"))
        _require(have == got and axes == ring, segment, op, "is not the ring of its attention")
    elif op.kind == "permute":
        changed = {a for h, g in zip(have.dims, got.dims, strict=True) if h != g for a in (*h, *g)}
        _require(changed == axes, segment, op, f"changes {sorted(changed)}")
        parts = [prod(mesh.size(a) for a in s.dims) for s in (have, got)]
        _require(parts[1] % parts[0] == 0, segment, op, "needs blocks that no single rank holds")


def _conserved(segment: Segment, mesh: Mesh) -> None:
    """FLOPs over all ranks = FLOPs of the op x the ranks that repeat it; parameters likewise."""
    ranks = mesh.size(tuple(mesh.sizes))
    for op in segment.ops:
        if op.kind not in OPS:
            continue
        repeated = ranks / mesh.size(tuple(set(loop_axes(op))))
        total = local_flops(segment, op, mesh) * ranks
        _require(
            isclose(total, flops(segment, op) * repeated, rel_tol=1e-9),
            segment,
            op,
            "FLOPs are not conserved",
        )
        _require(len(loop_dims(segment, op)) >= len(op.dims), segment, op, "loses a loop dimension")
    for weight in segment.weights:
        _require(weight.sharding is not None, segment, None, f"weight {weight.name} has no layout")
        assert weight.sharding is not None
        for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
            size = segment.size(dim, weight.scope)
            _require(size % mesh.size(axes) == 0, segment, None, f"weight {weight.name}: {dim} does not divide")


def _stages(graph: Graph) -> None:
    """The stages hold every layer once, in order; placed, every GPU has one rank."""
    held: dict[str, int] = {}
    for stage in graph.stages:
        for name, count in stage.layers:
            held[name] = held.get(name, 0) + count
    for segment in graph.segments:
        if held.get(segment.name, 0) != segment.repeat:
            raise VerifyError(f"{segment.name}: {held.get(segment.name, 0)} of {segment.repeat} layers are in a stage")
    if graph.level in ("sharded", "placed"):
        _sends(graph)
    if graph.level == "placed":
        gpus = [g for s in graph.stages for g in s.gpus]
        if len(set(gpus)) != len(gpus):
            raise VerifyError("a GPU holds two ranks")


def _sends(graph: Graph) -> None:
    """Every stage but the first receives what the one before it leaves, in the same layout."""
    if [(e.source, e.target) for e in graph.sends] != [(s.index - 1, s.index) for s in graph.stages[1:]]:
        raise VerifyError("a stage edge has no send")
    for edge in graph.sends:
        last = graph.segment(graph.stages[edge.source].layers[-1][0])
        first = graph.segment(graph.stages[edge.target].layers[0][0])
        if not last.sharding_of(last.output) == first.entry == edge.sharding:
            raise VerifyError(f"stage {edge.source} leaves another layout than stage {edge.target} takes")


def verify_placement(placement: Placement) -> None:
    ids = placement.ids.ravel()
    if np.unique(ids).size != ids.size:
        raise VerifyError("a GPU holds two ranks")


def verify_schedule(graph: Graph, schedule: Schedule) -> None:
    """Each rank's streams are totally ordered and no op starts before its inputs are there; the critical
    path adds up to the phase's time."""
    for cell in (c for row in schedule.cells for c in row):
        for run in cell:
            segment = graph.segment(run.segment)
            ends: dict[str, list[tuple[float, float]]] = {}
            for op in segment.ops:
                for lane in range(graph.lanes):
                    start, finish = run.starts[op.name, lane], run.finishes[op.name, lane]
                    _require(bool((finish >= start - 1e-12).all()), segment, op, "finishes before it starts")
                    first = tuple(0 for _ in start.shape)
                    ends.setdefault(op.stream, []).append(
                        (float(start[first]), float(finish[tuple(0 for _ in finish.shape)]))
                    )
            for times in ends.values():
                times.sort()
                for (_, a), (b, _) in itertools.pairwise(times):
                    _require(b >= a - 1e-10, segment, None, "two ops overlap on one stream")
    total = sum(step.time_s for step in schedule.path)
    if not isclose(total, schedule.period_s, rel_tol=1e-6, abs_tol=1e-9):
        raise VerifyError(f"the critical path adds up to {total:.6g} s, the phase takes {schedule.period_s:.6g} s")
