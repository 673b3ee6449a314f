"""What a strategy says of the work, read from the phase alone: over how many ranks each loop of an op must be split, and which
GPUs make a group. Written without the passes, to compare what they do with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.attributes.experts import DispatchAttrs
from dagc.ir.ops.sizes import loop_dims
from dagc.ir.segment import Segment
from dagc.spec.phase import Phase
from dagc.spec.strategy import Strategy

TENSOR = ("heads", "kv_heads", "key_heads", "group", "value_group", "ffn", "shared_ffn", "vocab")
ROUTED = ("dispatch", "combine")


def degrees(strategy: Strategy) -> dict[str, int]:
    """`batch`: ranks over which sequences are split."""
    if strategy.attention is None:
        flat = {a: int(getattr(strategy, a)) for a in ("dp", "ep", "sp", "tp")}
        return {**flat, "etp": strategy.tp, "batch": strategy.replicas * strategy.dp * strategy.ep}
    sides = {**dict(strategy.attention.degrees)}
    experts = dict(strategy.experts.degrees) if strategy.experts is not None else {}
    return {
        **{a: sides.get(a, 1) for a in ("dp", "sp", "tp")},
        "ep": experts.get("ep", 1),
        "etp": experts.get("tp", 1),
        "batch": strategy.replicas * sides.get("dp", 1),
    }


def not_carried_out(graph: Graph, phase: Phase) -> str:
    """The first op whose loops are split otherwise than the strategy says, and how; or nothing."""
    own = degrees(phase.strategy)
    if phase.strategy.apart is not None and any(graph.the_mesh.degrees.get(a, 1) != own[a] for a in ("ep", "etp")):
        return "degrees of experts"
    for segment in graph.segments:
        for op in segment.ops:
            if op.is_collective or op.kind in ("slice", "row_sum", "row_square_sum"):
                continue
            sent = op.attrs.placed if isinstance(op.attrs, DispatchAttrs) else None
            if sent is not None and (sent or usual(phase.strategy)) != (
                phase.strategy.expert_placement or usual(phase.strategy)
            ):
                return f"{segment.name}/{op.name}: experts placed {sent or 'as usual'}"
            apart = phase.strategy.apart is not None and op.scope == "experts" and op.kind not in ROUTED
            if bool(op.on) != apart:
                return f"{segment.name}/{op.name}: runs on other ranks"
            if op.kind == "attend" and bool(op.ring) != rings(graph.kind, phase.strategy):
                return f"{segment.name}/{op.name}: a ring or none"
            stray = [d for d, _ in op.loops if d not in loop_dims(segment, op)]
            if stray:
                return f"{segment.name}/{op.name}: splits `{stray[0]}`, which it has not"
            for dims, wanted in wanted_splits(segment, op, graph.kind, phase.strategy):
                found = prod(graph.the_mesh.size(op.loop(d)) for d in dims)
                if found != wanted:
                    return f"{segment.name}/{op.name}: {'*'.join(dims)} over {found} ranks, not {wanted}"
    if [sum(n for _, n in stage.layers) for stage in graph.stages] != stages(graph, phase.strategy):
        return "layers of stages"
    return ""


def usual(strategy: Strategy) -> str:
    """How experts are placed where a phase does not say it."""
    return "eplb" if strategy.redundant else "linear"


def rings(kind: str, strategy: Strategy) -> bool:
    """Keys and values are passed around a ring."""
    return kind == "prefill" and strategy.sp_method == "ring" and degrees(strategy)["sp"] > 1


def stages(graph: Graph, strategy: Strategy) -> list[int]:
    """Layers of each stage, the embedding on the first and the head on the last."""
    body = sum(segment.repeat for segment in graph.segments) - 2
    sizes = list(strategy.layers_per_stage or ()) or [body // strategy.pp] * strategy.pp
    sizes[0] += 1
    sizes[-1] += 1
    return sizes


def wanted_splits(segment: Segment, op: Op, kind: str, strategy: Strategy) -> Iterator[tuple[tuple[str, ...], int]]:
    """(dims, over how many ranks together)."""
    n, dims = degrees(strategy), loop_dims(segment, op)
    if op.scope == "experts" or op.kind in ROUTED:
        away = strategy.apart is not None and op.kind in ROUTED  # at home, with tokens of these ranks alone
        yield ("expert",), 1 if away else n["ep"]
        if op.kind == "contract":
            widths = (*(d for d, _ in strategy.shard if d in dims), "ffn")
            yield widths, n["etp"]
            if strategy.attention is None:  # folded, it follows from both sides
                yield ("slot",), strategy.replicas * n["dp"] * (n["sp"] if kind == "prefill" else 1)
        return
    if "batch" in dims:
        yield ("batch",), n["batch"]
    rules = [d for d, _ in strategy.shard if d in dims]
    tensor = (*rules, *sorted((d for d in dims if d in TENSOR and d not in rules), key=TENSOR.index))
    if op.kind == "select":
        tensor = ()
    if op.kind in ("rope", "attend"):
        tensor = tuple(d for d in tensor if d not in {segment.dims_of(i)[-1] for i in op.inputs})
    shared = strategy.dcp if kind == "decode" and "context" in dims and not seen_in_part(segment, op) else 1
    left, share = n["tp"] // shared, {}
    for dim in tensor:
        share[dim] = gcd(left, int(segment.size(dim)))
        left //= share[dim]
    split = n["tp"] // shared // left
    sequential = kind == "prefill" and op.kind in ("conv", "delta", "pool")
    heads = [d for d in tensor if d not in ("ffn", "shared_ffn", "vocab")]
    wanted = sequential or (op.kind == "attend" and kind == "prefill" and strategy.sp_method == "ulysses")
    exchanged = wanted and any(segment.size(d) // share[d] % n["sp"] == 0 for d in heads)
    if tensor:
        yield tensor, split * (n["sp"] if exchanged else 1)
    if "seq" in dims and kind == "prefill" and op.kind != "cache":
        residual = strategy.sequence_parallel and split == 1 and op.kind != "attend"
        yield ("seq",), 1 if exchanged or sequential else n["sp"] * (n["tp"] if residual else 1)
    if "context" in dims and (kind == "decode" or op.kind == "cache"):
        yield ("context",), n["sp"] * shared if op.kind != "select" else 1
    if "context" in dims and kind == "prefill" and op.kind != "cache":
        yield ("context",), 1


def seen_in_part(segment: Segment, op: Op) -> bool:
    """Keys and values of which queries choose some, or see those behind a window or in a chunk."""
    if op.kind == "select" or (isinstance(op.attrs, AttendAttrs) and (op.attrs.window or op.attrs.chunk)):
        return True
    later = (user for user in segment.users(op.name) if "context" in segment.dims_of(op.name))
    return any(seen_in_part(segment, user) for user in later)


# -- GPU ids -------------------------------------------------------------------------------------------


def wrong_ids(graph: Graph, phase: Phase) -> bool:
    """The groups of every axis, read off the placed graph, against mixed radix over the phase's ids."""
    found = graph.the_mesh
    ids = np.array([stage.gpus for stage in graph.stages]).reshape(len(graph.stages), *found.side_shape(""))
    if phase.strategy.best:  # the ids that were found are those of the search; tests/test_place_best.py says which
        return ids.ravel().tolist() != list(phase.strategy.ids)
    if phase.strategy.place is not None:  # the one expression of the plans, written anew
        at = np.indices(ids.shape)
        dp, tp = (sum(at[1 + found.index[a]] * inner for a, inner in _weights(graph, axis)) for axis in ("dp", "tp"))
        return not np.array_equal(ids, 7 - (dp * 4 + tp))
    apart = phase.strategy.apart
    if apart is None:
        return _off(graph, ids, phase.gpus, radix(phase.strategy))
    if found.apart is None:
        return True
    attention, experts = (list(radix(phase.strategy, side)) for side in (0, 1))
    others = [gpu for gpu in phase.gpus if gpu not in apart.gpus]
    return _off(graph, ids, others, attention) or _off(graph, found.expert_ids, apart.gpus, experts)


def _off(graph: Graph, ids: NDArray[np.int64], gpus: Sequence[int], sides: Iterable[tuple[str, int, int]]) -> bool:
    """Whether the ids of ranks are others than `radix` makes of a list of GPUs."""
    found, where = graph.the_mesh, {gpu: i for i, gpu in enumerate(gpus)}
    if not where.keys() >= set(ids.ravel().tolist()):
        return True
    for axis, degree, stride in sides:
        axes = [0] if axis == "pp" else [1 + found.index[atom] for atom in found.of(axis)]
        if int(np.prod([ids.shape[a] for a in axes])) != degree:
            return True
        moved = np.moveaxis(ids, axes, range(ids.ndim - len(axes), ids.ndim)).reshape(-1, degree)
        for row in moved.tolist():
            places = [where[gpu] for gpu in row]
            outer, inner = divmod(places[0], stride * degree)
            if places != [outer * stride * degree + inner % stride + c * stride for c in range(degree)]:
                return True
    return False


def _weights(graph: Graph, axis: str) -> Iterator[tuple[str, int]]:
    """(atom, ranks inside it) of an axis."""
    inner = 1
    for atom in reversed(graph.the_mesh.of(axis)):
        yield atom, inner
        inner *= graph.the_mesh.sizes[atom]


def radix(strategy: Strategy, only: int | None = None) -> Iterator[tuple[str, int, int]]:
    """(axis, degree, stride in the list of GPU ids) of either side, or of one; outermost: replicas, then the order of the axes."""
    if strategy.attention is None:
        sides = [{axis: int(getattr(strategy, axis)) for axis in strategy.order}]
    else:
        experts = strategy.experts.degrees if strategy.experts is not None else ()
        sides = [dict(strategy.attention.degrees), {"etp" if a == "tp" else a: n for a, n in experts}]
    for side in sides if only is None else sides[only : only + 1]:
        stride = 1
        for axis in sorted(side, key=lambda a: -strategy.order.index("tp" if a == "etp" else a)):
            if side[axis] > 1:
                yield axis, side[axis], stride
            stride *= side[axis]
