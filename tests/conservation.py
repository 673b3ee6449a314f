"""What a run on tensors really computed and stored: FLOPs by the shapes of its arrays, parameters by their values."""

from __future__ import annotations

from math import prod

import numpy as np

from dagc.execute.inputs import Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.values import Ragged
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.segment import Segment

Counts = dict[tuple[str, str], float]


def executed(machine: RankMachine) -> Counts:
    """(segment, op) -> multiply-adds of contractions and attentions, elements of the rest, over all ranks and layers."""
    counts: Counts = {}
    held: dict[str, list[object]] = {}

    def watch(segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        held[op.name] = values
        if op.is_collective or op.kind in (
            "slice",
            "lookup",
            "dispatch",
            "combine",
            "cache",
            "last",
            "route",
            "argmax",
        ):
            return
        key = segment.name, op.name
        for i, value in enumerate(values):
            inputs = [held[n][i] if n in held else None for n in op.inputs]
            counts[key] = counts.get(key, 0.0) + _work(segment, op, value, inputs)

    machine.watch = watch
    machine.run()
    return counts


def _work(segment: Segment, op: Op, value: object, inputs: list[object]) -> float:
    if isinstance(value, Ragged):
        source = inputs[0]
        assert isinstance(source, Ragged)
        depth = _width(source) if op.kind == "contract" else 1
        return float(value.data.size) * depth
    assert isinstance(value, np.ndarray)
    sizes = dict(zip(op.dims, value.shape, strict=True))
    if op.kind in ("contract", "attend"):
        for name, source in zip(op.inputs, inputs, strict=True):
            if isinstance(source, np.ndarray):
                sizes |= dict(zip(segment.dims_of(name), source.shape, strict=True))
    return float(prod(sizes.values()))


def _width(value: Ragged) -> int:
    return int(value.data.shape[-1])


def parameters(machine: RankMachine, graph: Graph) -> float:
    """Elements of the distinct shards of every weight; ranks with the same numbers have copies."""
    total = 0.0
    for segment, layer in graph.layers:
        for weight in segment.weights:
            shards: dict[bytes, int] = {}
            for rank in machine.shards.ranks:
                shard = machine.shards.weight(segment, layer, weight.name, rank)
                for part in shard.values() if isinstance(shard, dict) else [shard]:
                    shards[np.asarray(part).tobytes()] = np.asarray(part).size
            total += sum(shards.values())
    return total


def machine_of(graph: Graph, inputs: Inputs) -> RankMachine:
    return RankMachine(graph, inputs, graph.the_mesh)
