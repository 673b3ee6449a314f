"""What the proof counts on every rank: FLOPs, bytes of weights and cache, rows on the wire; and GPU ids read independently."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from conftest import spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.dtypes import DTYPE_BYTES
from dagc.execute import work as counting
from dagc.execute.inputs import random_weight
from dagc.execute.machine import RankMachine
from dagc.execute.prove import prove_small, random_inputs, twin_inputs, twin_of_phase
from dagc.execute.work import wrong_work
from dagc.ir.ops.op_set import local_flops
from dagc.ir.segment import Segment

MODEL = """layers = 4, dense_first = 2, hidden = 64, vocab = 512, dtype = bf16
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
mlp { hidden = 128 }
experts { count = 16, top_k = 2, hidden = 32, shared = 1 }"""
WORK = "sequences = 64, prompt = 64 tok, output = 64 tok"
PLANS = [
    ("prefill", "gpus = 0..15, pp = 2, ep = 2, sp = 2, tp = 2, microbatches = 2"),
    ("prefill", "gpus = 0..7, sp = 4, tp = 2, sp_method = ring"),
    ("decode", "gpus = 0..7, sp = 2, ep = 2, tp = 2"),
    ("decode", "gpus = 0..7, tp = 8, dcp = 2"),
    ("decode", "gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 }"),
]


def compiled(kind: str, phase: str) -> Plan:
    return dagc.compile_text(spec_text(kind=kind, phase=phase, model=MODEL, workload=WORK))


def ran(plan: Plan, kind: str) -> RankMachine:
    twin = twin_of_phase(plan, kind)
    machine = RankMachine(twin.placed, twin_inputs(twin), twin.placed.the_mesh)
    machine.run()
    return machine


@pytest.mark.parametrize(("kind", "phase"), PLANS)
def test_flops_of_every_rank_are_those_of_its_arrays(kind: str, phase: str) -> None:
    machine = ran(compiled(kind, phase), kind)
    computed = {(s.name, op.name) for s in machine.graph.segments for op in s.ops if not op.is_collective}
    sliced = {(s.name, op.name) for s in machine.graph.segments for op in s.ops if op.kind == "slice"}
    assert set(machine.record.work) == computed - sliced
    assert wrong_work(machine.shards, machine.record) == []


def test_attention_over_a_split_sequence_is_counted_rank_by_rank() -> None:
    """Contiguous: the last of n ranks has (2 n - 1) / n of the mean, and a little less for whole tokens."""
    machine = ran(compiled("prefill", "gpus = 0..3, sp = 4"), "prefill")
    (name, op), calls = next((key, c) for key, c in machine.record.work.items() if key[1].endswith(".o"))
    segment = machine.graph.segment(name)
    tokens = segment.sizes["seq"] / 4
    pairs = [tokens * tokens * i + tokens * (tokens + 1) / 2 for i in range(4)]
    assert np.allclose(np.array(calls[0]) / np.mean(calls[0]), np.array(pairs) / np.mean(pairs))
    assert op in segment.by_name


def test_flops_that_are_not_stated_so_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled("prefill", "gpus = 0..7, ep = 2, sp = 2, tp = 2")
    for kind in ("contract", "attend", "combine", "rms_norm"):

        def off(segment: Segment, op: object, mesh: object, kind: str = kind) -> float:
            stated = local_flops(segment, op, mesh)  # type: ignore[arg-type]
            return stated * (1.01 if op.kind == kind else 1.0)  # type: ignore[attr-defined]

        monkeypatch.setattr(counting, "local_flops", off)
        proof = prove_small(plan, "prefill")
        graph = plan.phases["prefill"].graph
        named = {f"{s.name}/{op.name}" for s in graph.segments for op in s.ops if op.kind == kind}
        assert proof.verdict == "differs" and set(proof.work_wrong) == named


@pytest.mark.parametrize(("case", "what"), spread(product(PLANS, ["weights_B", "kv_cache_B"]), of=lambda case: case[1]))
def test_memory_that_is_not_held_so_is_named(case: tuple[str, str], what: str) -> None:
    kind, phase = case
    plan = compiled(kind, phase)
    result = plan.phases[kind]
    assert prove_small(plan, kind).verdict == "equal"
    for at, stage in enumerate(result.memory.stages):
        stages = list(result.memory.stages)
        stages[at] = replace(stage, **{what: getattr(stage, what) * 1.01})
        changed = replace(result, memory=replace(result.memory, stages=tuple(stages)))
        proof = prove_small(replace(plan, phases={kind: changed}), kind)
        assert proof.verdict == "differs"
        assert proof.memory_wrong == (f"{'weights' if what == 'weights_B' else 'KV cache'} of stage {at}",)


@pytest.mark.parametrize(
    "phase", spread(["gpus = 0..7, ep = 8", "gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 }"])
)
def test_rows_on_the_wire_with_even_loads_are_the_plans_on_every_rank(phase: str) -> None:
    """Mean and largest: tokens are dealt out to experts in order."""
    plan = compiled("prefill", phase)
    costs, graph = plan.phases["prefill"].costs, plan.phases["prefill"].graph
    inputs = random_inputs(plan.units["prefill"], random_weight)
    machine = RankMachine(graph, replace(inputs, balanced=True), graph.the_mesh)
    machine.run()
    segment = graph.segment("sparse")
    exchanged = [op for op in segment.ops if op.kind == "all_to_all" and op.scope == "experts"]
    assert len(exchanged) == 2
    for op in exchanged:
        for moved in machine.record.traffic["sparse", op.name]:
            wire = np.asarray(moved.wire) * DTYPE_BYTES[op.dtype]
            assert np.mean(wire) == pytest.approx(costs.ops["sparse", op.name].wire_B)
            assert wire.max() == pytest.approx(costs.ops["sparse", op.name].wire_B)


def test_rows_on_the_wire_with_loads_by_score_are_as_many_as_leave_their_rank() -> None:
    """An independent reading: a row travels if its expert's rank is not the rank of its token."""
    machine = ran(compiled("prefill", "gpus = 0..7, ep = 8"), "prefill")
    segment = machine.graph.segment("sparse")
    first = next(op for op in segment.ops if op.kind == "all_to_all" and op.scope == "experts")
    routed: list[list[Any]] = []

    def watch(at: Segment, layer: int, op: object, values: list[Any]) -> None:
        if op.kind == "route":  # type: ignore[attr-defined]
            routed.append(values)

    machine.watch, machine.record.traffic = watch, {}
    machine.run()
    per_rank = int(segment.sizes["expert"]) // 8
    for experts, moved in zip(routed, machine.record.traffic["sparse", first.name], strict=True):
        coming = [sum(int((e // per_rank == i).sum()) for j, e in enumerate(experts) if j != i) for i in range(8)]
        assert np.array_equal(np.asarray(moved.wire), np.array(coming) * segment.sizes["hidden"])
        assert len(set(coming)) > 1


# -- GPU ids ---------------------------------------------------------------------------------------

AXES = ("pp", "dp", "ep", "sp", "tp")
DEGREES = {"pp": 2, "dp": 2, "ep": 2, "sp": 2, "tp": 2}


def coordinates(gpu: int, order: tuple[str, ...]) -> dict[str, int]:
    """Mixed radix by hand: the last axis of the order counts fastest."""
    found: dict[str, int] = {}
    for axis in reversed(order):
        gpu, found[axis] = divmod(gpu, DEGREES[axis])
    return found


def placed(order: tuple[str, ...]) -> Plan:
    degrees = ", ".join(f"{a} = {n}" for a, n in DEGREES.items())
    return compiled("prefill", f"gpus = 0..31, {degrees}, order = [{', '.join(order)}]")


@settings(max_examples=10, deadline=None)
@given(st.permutations(AXES))
def test_groups_consist_of_ranks_that_differ_in_their_axis_only(order: list[str]) -> None:
    plan = placed(tuple(order))
    graph = plan.phases["prefill"].graph
    mesh = graph.the_mesh
    for axis in ("dp", "ep", "sp", "tp"):
        rows = mesh.groups(mesh.of(axis))
        assert rows.shape == (32 // DEGREES[axis], DEGREES[axis])
        for row in rows.tolist():
            places = [coordinates(gpu, tuple(order)) for gpu in row]
            assert [p.pop(axis) for p in places] == list(range(DEGREES[axis]))
            assert all(p == places[0] for p in places)
    for stage in graph.stages:
        assert {coordinates(gpu, tuple(order))["pp"] for gpu in stage.gpus} == {stage.index}
    used = {op.axes for s in graph.segments for op in s.ops if op.is_collective}
    for axes in used:  # groups over several axes: all that they alone tell apart
        names = [a for a in AXES if set(mesh.of(a)) & set(axes)]
        for row in mesh.groups(axes).tolist():
            places = [coordinates(gpu, tuple(order)) for gpu in row]
            assert len({tuple(p[n] for n in names) for p in places}) == len(row)
            assert len({tuple(v for a, v in p.items() if a not in names) for p in places}) == 1


def test_ids_by_an_expression_are_those_that_it_gives() -> None:
    degrees = ", ".join(f"{a} = {n}" for a, n in DEGREES.items())
    plan = compiled("prefill", f"gpus = 0..31, {degrees}, place gpu = ep * 16 + tp * 8 + pp * 4 + dp * 2 + (1 - sp)")
    mesh = plan.phases["prefill"].graph.the_mesh
    names = ["pp", *(name for name, _ in mesh.atoms)]
    for at, gpu in np.ndenumerate(mesh.ids):
        place = dict(zip(names, at, strict=True))
        assert gpu == place["ep"] * 16 + place["tp"] * 8 + place["pp"] * 4 + place["dp"] * 2 + (1 - place["sp"])
    assert sorted(mesh.ids.ravel().tolist()) == list(range(32))
    assert plan.prove("prefill").verdict == "equal"


@settings(max_examples=5, deadline=None)
@given(st.permutations(AXES), st.permutations(AXES))
def test_plans_that_differ_in_order_only_differ_in_ids_as_it_says(one: list[str], other: list[str]) -> None:
    first, second = (placed(tuple(order)) for order in (one, other))
    graphs = [p.phases["prefill"].graph for p in (first, second)]
    for a, b in zip(graphs[0].stages, graphs[1].stages, strict=True):
        assert a.layers == b.layers
    where = [
        {tuple(sorted(coordinates(gpu, tuple(order)).items())): gpu for gpu in range(32)} for order in (one, other)
    ]
    meshes = [graph.the_mesh for graph in graphs]
    for mesh, found, order in zip(meshes, where, (one, other), strict=True):
        for at, gpu in np.ndenumerate(mesh.ids):
            place = {"pp": at[0]} | {name: at[1 + i] for i, (name, _) in enumerate(mesh.atoms)}
            assert found[tuple(sorted(place.items()))] == gpu, order
