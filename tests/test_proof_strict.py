"""The proof proves nothing by leaving out: every way to pass it without computing or moving the right thing is shut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mutants.mutations import with_op, with_segment
from mutants.plans import placed
from tiers import spread

from dagc.cost.records import Costs
from dagc.execute.chosen import are_largest
from dagc.execute.dispatcher import OpCall
from dagc.execute.inputs import random_weight
from dagc.execute.machine import RankMachine
from dagc.execute.numpy import collectives
from dagc.execute.numpy.collectives import collective
from dagc.execute.numpy.rules import NUMPY
from dagc.execute.prove import (
    Comparison,
    Proof,
    Recording,
    alone,
    distance,
    model_graph,
    prove_graph,
    random_inputs,
    single,
)
from dagc.execute.shards import Shards
from dagc.execute.traffic import compare_bytes
from dagc.execute.values import Floats
from dagc.ir.graph import Graph
from dagc.ir.op import Op, Weight
from dagc.ir.ops.attributes.moves import MoveAttrs, RingTurnAttrs
from dagc.ir.segment import Segment
from dagc.ir.sharding import Sharding


def proof_of(plan: str, change: Callable[[Graph], Graph], costs: bool = False) -> Proof:
    """By the numbers alone, unless bytes are asked for."""
    graph, unit, known = placed(plan)
    return prove_graph(change(graph), unit, known if costs else None)


def changed(pick: Callable[[Op], bool], new: Callable[[Op], Op]) -> Callable[[Graph], Graph]:
    """The first op that fits, replaced in its segment."""

    def change(graph: Graph) -> Graph:
        segment, op = next((s, o) for s in graph.segments for o in s.ops if pick(o))
        return with_op("", graph, segment, op, new(op)).graph

    return change


def renamed(kind: str) -> Callable[[Graph], Graph]:
    """The first op of a kind, and every use of it, under a name that the model does not have."""

    def rename(graph: Graph) -> Graph:
        segment, op = next((s, o) for s in graph.segments for o in s.ops if fits(s, o))

        def new(name: str) -> str:
            return "stranger" if name == op.name else name

        ops = tuple(replace(o, name=new(o.name), inputs=tuple(map(new, o.inputs))) for o in segment.ops)
        return with_segment(graph, segment, replace(segment, ops=ops, output=new(segment.output)))

    def fits(segment: Segment, op: Op) -> bool:
        return op.kind == kind and (kind == "cache" or segment.name == "lm_head")

    return rename


def of_kind(*kinds: str) -> Callable[[Op], bool]:
    return lambda op: op.kind in kinds


@pytest.mark.parametrize(("plan", "kind"), [("tp", "contract"), ("decode", "contract"), ("tp", "cache")])
def test_logits_and_cache_that_were_never_compared_are_no_proof(plan: str, kind: str) -> None:
    proof = proof_of(plan, renamed(kind))
    assert not proof.holds and "nothing was compared" in proof.first and proof.same


@pytest.mark.parametrize("kind", ["all_gather", "all_to_all", "permute"])
@pytest.mark.parametrize("reduction", ["all_reduce", "reduce_scatter"])
def test_only_a_reduction_adds_up(reduction: str, kind: str) -> None:
    plan = {"all_reduce": "tp", "reduce_scatter": "sequence parallel"}[reduction]
    proof = proof_of(plan, changed(of_kind(reduction), lambda op: replace(op, kind=kind)))
    assert not proof.holds and "partial" in proof.first


def test_a_sum_is_not_reduced_by_another_operator() -> None:
    def other(op: Op) -> Op:
        return replace(op, attrs=MoveAttrs(reduce="max"))

    assert not proof_of("tp", changed(of_kind("all_reduce"), other)).holds


@pytest.mark.parametrize("steps", [0, 2])
def test_a_ring_that_stops_short_or_turns_on_is_no_ring(steps: int) -> None:
    def other(op: Op) -> Op:
        return replace(op, attrs=RingTurnAttrs(steps))

    assert not proof_of("ring", changed(lambda op: isinstance(op.attrs, RingTurnAttrs), other)).holds


@pytest.mark.parametrize("of", ["max", "sum"])
def test_row_statistics_are_those_of_the_ranks_that_need_them(of: str) -> None:
    """Reduced over other ranks than the outputs are: each rank must not be lent a neighbour's."""
    graph, _, _ = placed("decode, context split")

    def other(op: Op) -> Op:
        return replace(op, axes=tuple(a for a, _ in graph.the_mesh.atoms if a not in op.axes)[:1])

    assert not proof_of(
        "decode, context split", changed(lambda op: op.is_collective and op.inputs[0].endswith(f".{of}"), other)
    ).holds


def test_a_difference_that_does_not_reach_the_logits_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token of the last layer's feed-forward touches neither logits nor cache."""
    plain = NUMPY["combine"]

    def off(call: OpCall, x: Sequence[Any]) -> Any:
        value = plain(call, x)
        if call.shards.graph.level == "placed" and not any(call.rank.values()):
            value[0, 0] += 1.0
        return value

    monkeypatch.setitem(NUMPY, "combine", off)
    proof = proof_of("ep", lambda graph: graph)
    assert proof.error < 1e-15 and proof.same
    assert not proof.holds and proof.first.endswith("moe.y")


def test_copies_of_a_block_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gather takes a block from one of the ranks that have it: the others must not have something else."""
    graph, _, _ = placed("tp")
    segment = graph.segments[1]
    op = next(op for op in segment.ops if op.kind == "all_reduce")
    source = segment.by_name[op.inputs[0]]
    assert source.sharding is not None
    whole = replace(source, sharding=Sharding(tuple(() for _ in source.dims)))
    segment = replace(segment, ops=tuple(whole if o is source else o for o in segment.ops))
    shards = Shards(graph, None, graph.the_mesh)  # type: ignore[arg-type]
    held: list[object] = [np.full((1, 2, 2), float(i)) for i in range(len(shards.ranks))]
    with pytest.raises(ValueError, match="different values of one block"):
        collective(shards, segment, replace(op, kind="all_gather"), [held])


def priced(costs: Costs, key: tuple[str, str], factor: float) -> Costs:
    cost = costs.ops[key]
    return replace(costs, ops={**costs.ops, key: replace(cost, payload_B=cost.payload_B * factor)})


@pytest.mark.parametrize(
    "plan",
    spread(["tp", "ring", "ep", "ep over dp and tp", "decode, context split", "pipeline"], {"ring", "ep", "pipeline"}),
)
def test_bytes_that_are_not_counted_so_are_named(plan: str) -> None:
    graph, unit, costs = placed(plan)
    model = alone(unit)
    for key, cost in costs.ops.items():
        if cost.group is not None:
            proof = prove_graph(graph, unit, priced(costs, key, 1.01), alone=model)
            assert proof.bytes_wrong == ("/".join(key),) and not proof.holds


def test_bytes_of_every_call_are_compared_and_not_only_of_the_last() -> None:
    graph, unit, costs = placed("pipeline")
    machine = RankMachine(graph, random_inputs(unit, random_weight), graph.the_mesh)
    machine.run()
    assert compare_bytes(machine.shards, machine.record, costs, graph) == []
    first = next(key for key, calls in machine.record.traffic.items() if len(calls) > 1)
    machine.record.traffic[first][0].payload[0] += 1
    machine.record.sent[0, 1, "x"][0] += 1
    assert compare_bytes(machine.shards, machine.record, costs, graph) == ["send 0 -> 1", "/".join(first)]


def test_a_collective_that_is_priced_and_never_runs_is_named() -> None:
    graph, unit, costs = placed("tp")
    key = next(key for key, cost in costs.ops.items() if cost.group is not None)
    extra = replace(costs, ops={**costs.ops, (key[0], "ghost"): costs.ops[key]})
    assert prove_graph(graph, unit, extra).bytes_wrong == (f"{key[0]}/ghost",)


def test_what_is_no_number_differs_from_every_number() -> None:
    """A NaN is never larger than the error so far."""
    graph, unit, _ = placed("tp")
    machine = RankMachine(graph, random_inputs(unit, random_weight), graph.the_mesh)
    check = Comparison(machine.shards, Recording(RankMachine(model_graph(unit), machine.inputs, single())))
    op = next(op for s in graph.segments for op in s.ops if op.kind == "add")
    whole = np.ones([int(graph.segments[1].sizes[d]) for d in op.dims])
    assert op.sharding is not None
    good: list[object] = [machine.shards.shard(whole, op.sharding.dims, rank).copy() for rank in machine.shards.ranks]
    assert check.difference(whole, op, good) == 0.0
    for odd in (np.nan, np.inf, -np.inf):
        bad = np.array(good[-1])
        bad.flat[-1] = odd
        assert check.difference(whole, op, [*good[:-1], bad]) == np.inf
        assert distance(bad, np.array(good[-1])) == np.inf


def tied(segment: Segment, layer: int, weight: Weight) -> Floats:
    """Every second token of the vocabulary has the logits of the one before, but for rounding."""
    whole = random_weight(segment, layer, weight)
    if segment.name == "lm_head" and weight.dims[-1] == "vocab":
        whole[..., 1::2] = whole[..., ::2] * (1.0 - 1e-14)
    return whole


def neighbour(*pairs: Any) -> tuple[Any, Any]:
    index, value = collectives_largest(*pairs)
    return index ^ 1, value


collectives_largest = collectives._largest


def test_a_near_tie_of_tokens_may_fall_either_way_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, unit, _ = placed("tp")
    monkeypatch.setattr(collectives, "_largest", neighbour)
    proof = prove_graph(graph, unit, weights=tied)
    assert proof.holds, proof.first
    proof = prove_graph(graph, unit)
    assert proof.verdict == "differs" and not proof.same and proof.first == "the result" and proof.error < 1e-12


def test_tokens_that_are_none_are_not_the_largest() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 4.0 - 1e-12]])
    assert are_largest(logits, np.array([1, 0]), 0.0) and are_largest(logits, np.array([1, 2]), 1e-9)
    for tokens in ([1, 1], [2, 0], [1, 3], [1, -1], [1]):
        assert not are_largest(logits, np.array(tokens), 1e-9)


@pytest.mark.parametrize(
    "plan",
    spread(
        ["ep", "ep x tp", "ep over dp and tp", "experts folded", "redundant", "decode"],
        {"ep x tp", "experts folded", "redundant"},
    ),
)
def test_wire_bytes_that_are_not_counted_so_are_named(plan: str) -> None:
    """Those of routed rows too, whose payload may be right."""
    graph, unit, costs = placed(plan)
    found, model = set(), alone(unit)
    for key, cost in costs.ops.items():
        if cost.group is not None and cost.wire_B:
            wrong = replace(costs, ops={**costs.ops, key: replace(cost, wire_B=cost.wire_B * 1.01)})
            assert prove_graph(graph, unit, wrong, alone=model).bytes_wrong == ("/".join(key),)
            found.add(graph.segment(key[0]).by_name[key[1]].scope)
    assert "experts" in found
