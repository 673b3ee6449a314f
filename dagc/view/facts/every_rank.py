"""The placed graph with a node per rank, of the one in which ranks are folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...base.frozen import replace
from ...ir.requests import request_moves
from ...plan.result import PhaseResult
from .unroll import Edge, Node


def expand_ranks(result: PhaseResult, items: Iterator[Node | Edge]) -> Iterator[Node | Edge]:
    """One node per rank. A collective's rank-node lists its group's GPUs; a transfer joins equal ranks of two stages."""
    return expanded(items, _group_members(result))


Members = Mapping[tuple[str, ...], Mapping[int, tuple[int, ...]]]
"""(axes label) -> GPU -> the GPUs of its group, itself included."""


def expanded(items: Iterator[Node | Edge], members: Members) -> Iterator[Node | Edge]:
    held: dict[str, tuple[int, ...]] = {}
    for item in items:
        if isinstance(item, Node):
            held[item.id] = item.gpus
            groups = members.get(item.group, {}) if item.kind not in ("send", "recv") else {}
            for gpu in item.gpus:
                yield replace(item, id=f"{item.id}@{gpu}", gpus=groups.get(gpu, (gpu,)))
        else:
            for a, b in _joined(held[item.src], held[item.dst]):
                yield replace(item, src=f"{item.src}@{a}", dst=f"{item.dst}@{b}")


def _joined(source: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Rank by rank; where one end has ranks of several sets, those that both have."""
    if len(source) == len(target):
        return zip(source, target, strict=True)
    both = set(source) & set(target)
    return ((gpu, gpu) for gpu in source if gpu in both)


def _group_members(result: PhaseResult) -> Members:
    mesh = result.graph.the_mesh
    out: dict[tuple[str, ...], Mapping[int, tuple[int, ...]]] = {}
    used = {(op.axes, op.scope) for s in result.graph.segments for op in s.ops if op.axes}
    for axes, scope in used | {(move.axes, "dense") for move in request_moves(result.graph)}:
        across = mesh.apart is not None and set(axes) == set(mesh.sizes)
        sides = result.graph.sides if across else (mesh.place_of(axes),)
        rows = [mesh.ids_on(on).reshape(mesh.stages, -1) for on in sides] if across else [mesh.groups(axes)]
        out[mesh.label(axes, scope)] = {
            int(g): tuple(int(x) for x in row) for row in np.concatenate(rows, axis=1) for g in row
        }
    return out
