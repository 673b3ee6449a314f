"""Network and schedule: published values, brute force, and networkx on the unrolled graph."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from conftest import SOME_EXAMPLES, compiled, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import in_turn

import dagc
from dagc.api import Plan
from dagc.cost.expert_placement import place_experts
from dagc.cost.network import collective_time
from dagc.cost.routing import expert_probabilities
from dagc.ir.groups import GroupShape, group_shape
from dagc.ir.ops.attributes.moves import RingTurnAttrs
from dagc.spec.hardware import Link
from dagc.spec.workload import Routing
from dagc.view.facts.unroll import Edge, Node, counts, unroll

NODE, CLUSTER = Link(450e9, 2e-6), Link(50e9, 6e-6)
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "permute", "send")


def test_group_shapes() -> None:
    assert group_shape(np.array([[0, 1, 2, 3]]), 8) == GroupShape(4, 4, 1)
    assert group_shape(np.array([[0, 8, 16, 24]]), 8) == GroupShape(4, 1, 4)
    assert group_shape(np.arange(16).reshape(1, -1), 8) == GroupShape(16, 8, 2)
    assert group_shape(np.array([[0, 1, 2, 3], [6, 7, 8, 9]]), 8) == GroupShape(4, 2, 2)


@given(st.sampled_from(KINDS), st.floats(1, 1e10), st.integers(0, 4), st.integers(0, 4))
def test_time_grows_with_size_and_never_beats_the_floor(kind: str, size: float, inside: int, nodes: int) -> None:
    shape = GroupShape(2 ** (inside + nodes), 2**inside, 2**nodes)
    time = collective_time(kind, size, shape, NODE, CLUSTER).time_s
    assert collective_time(kind, size, shape, NODE, CLUSTER, floor=True).time_s <= time
    assert time <= collective_time(kind, 2 * size, shape, NODE, CLUSTER).time_s


def test_bus_bandwidth_of_large_calls_is_the_link() -> None:
    """nccl-tests: busbw = size / time x factor; for large calls inside a node it is the link's."""
    size, shape = 1e10, GroupShape(8, 8, 1)
    for kind, factor in (("all_reduce", 2 * 7 / 8), ("reduce_scatter", 7 / 8), ("all_to_all", 7 / 8)):
        time = collective_time(kind, size, shape, NODE, CLUSTER).time_s
        assert size * factor / time == pytest.approx(NODE.bandwidth_Bps, rel=0.01)


def test_an_all_reduce_is_never_dearer_than_scatter_and_gather() -> None:
    for size in (1e3, 1e6, 1e9):
        for shape in (GroupShape(8, 8, 1), GroupShape(16, 8, 2), GroupShape(4, 1, 4)):
            parts = collective_time("reduce_scatter", size, shape, NODE, CLUSTER).time_s
            parts += collective_time("all_gather", size / shape.ranks, shape, NODE, CLUSTER).time_s
            assert collective_time("all_reduce", size, shape, NODE, CLUSTER).time_s <= parts * (1 + 1e-12)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.floats(0, 3), st.data())
def test_replicas_never_share_a_rank(ranks: int, per: int, more: int, s: float, data: st.DataObject) -> None:
    experts = ranks * per
    redundant = min(more * ranks, experts * (ranks - 1))
    top_k = data.draw(st.integers(1, experts))
    p = expert_probabilities(Routing("zipf", s), experts, top_k)
    assert p.sum() == pytest.approx(top_k) and p.max() <= 1 + 1e-9
    placed = place_experts(p, ranks, redundant)
    assert placed.load.sum() == pytest.approx(top_k)
    assert all(len(set(row)) == len(row) for row in placed.slots.tolist())
    assert set(placed.slots.ravel().tolist()) == set(range(experts))


def longest_path_s(plan: Plan, phase: str) -> float:
    """networkx over the unrolled placed graph: a node's time is on its outgoing edges. No step waits for requests."""
    graph = nx.DiGraph()
    times: dict[str, float] = {}
    for item in unroll(plan.phases[phase]):
        if isinstance(item, Node) and item.stream != "host":
            times[item.id] = item.time_s
            graph.add_node(item.id)
        elif isinstance(item, Edge) and item.kind != "request":
            graph.add_edge(item.src, item.dst, weight=times[item.src])
    ends = [n for n in graph if graph.out_degree(n) == 0]
    for n in ends:
        graph.add_edge(n, "end", weight=times[n])
    return float(nx.dag_longest_path_length(graph))


@pytest.mark.parametrize("name", ["plan_a", "plan_b", "custom_attention"])
def test_the_makespan_is_the_longest_path(name: str) -> None:
    plan = compiled(name)
    for phase, result in plan.phases.items():
        assert longest_path_s(plan, phase) == pytest.approx(result.schedule.latency_s, rel=1e-9)


def test_the_makespan_under_two_batch_overlap_and_ring() -> None:
    shape = "gpus = 0..7, ep = 4, tp = 2, overlap = two_batch, microbatches = 2"
    plan = dagc.compile_text(spec_text(phase=shape))
    assert longest_path_s(plan, "prefill") == pytest.approx(plan.phases["prefill"].schedule.latency_s, rel=1e-9)


def ends_s(plan: Plan, phase: str) -> float:
    """The same walked in order, with attention over a ring as its edges say: it begins along with its permutes."""
    result = plan.phases[phase]
    rings = {op.name for s in result.graph.segments for op in s.ops if op.ring}
    turns = {op.name for s in result.graph.segments for op in s.ops if isinstance(op.attrs, RingTurnAttrs)}
    nodes: dict[str, Node] = {}
    before: dict[str, list[str]] = {}
    for item in unroll(result):
        if isinstance(item, Node) and item.stream != "host":
            nodes[item.id], before[item.id] = item, []
        elif isinstance(item, Edge) and item.kind != "request":
            before[item.dst].append(item.src)
    begin: dict[str, float] = {}
    end: dict[str, float] = {}
    for key, node in nodes.items():
        ring = [n for n in before[key] if node.op in rings and nodes[n].op in turns]
        begin[key] = max([end[n] for n in before[key] if n not in ring] + [begin[n] for n in ring], default=0.0)
        end[key] = max([begin[key] + node.time_s] + [end[n] for n in ring])
    return max(end.values())


@pytest.mark.parametrize(
    ("shape", "microbatches", "kind"),
    in_turn(
        [
            "gpus = 0..3, pp = 2, tp = 2",
            "gpus = 0..3, pp = 2, tp = 2, host = 50 us",
            "gpus = 0..3, pp = 2, tp = 2, sequence_parallel = true",
            "gpus = 0..31, pp = 4, ep = 4, tp = 2",
            "gpus = 0..15, pp = 2, dp = 2, ep = 2, tp = 2, overlap = two_batch",
            "gpus = 0..7, pp = 2, sp = 2, tp = 2, sp_method = ring",
        ],
        [1, 3, 8],
        ["prefill", "decode"],
    ),
)
def test_the_makespan_over_stages_is_the_longest_path(shape: str, microbatches: int, kind: str) -> None:
    """A message that arrives waits for no collective of the micro-batch before."""
    plan = dagc.compile_text(spec_text(phase=f"{shape}, microbatches = {microbatches}", kind=kind))
    assert ends_s(plan, kind) == pytest.approx(plan.phases[kind].schedule.latency_s, rel=1e-9)
    assert counts(plan.phases[kind]) == (
        sum(isinstance(item, Node) for item in unroll(plan.phases[kind])),
        sum(isinstance(item, Edge) for item in unroll(plan.phases[kind])),
    )


@SOME_EXAMPLES
def test_counts_match_the_unrolled_graph(example: Plan) -> None:
    for result in example.phases.values():
        nodes = edges = 0
        ids: set[str] = set()
        for item in unroll(result):
            if isinstance(item, Node):
                nodes += 1
                ids.add(item.id)
            else:
                assert item.src in ids and item.dst in ids
                assert isinstance(item, Edge)
                edges += 1
        assert len(ids) == nodes
        assert counts(result) == (nodes, edges)


def test_pipeline_of_equal_stages_follows_the_formula() -> None:
    """Forward only: sum of the stages + (m - 1) x the slowest, sends included in the sum."""
    result = compiled("plan_a").phases["prefill"]
    stages, edge = result.schedule.stage_s, result.costs.transfer.time_s
    formula = sum(stages) + 3 * edge + 7 * max(stages)
    assert result.schedule.latency_s == pytest.approx(formula, rel=0.06)  # sends of busy streams add a little


def test_decode_period_is_the_larger_of_round_trip_and_slowest_stage() -> None:
    phase = "gpus = 0..15, pp = 4, ep = 4, microbatches = {}"
    one = dagc.compile_text(spec_text(kind="decode", phase=phase.format(1))).phases["decode"]
    sends_s = [edge.time_s for edge in one.costs.edges]
    assert sends_s[0] < sends_s[1] == one.costs.transfer.time_s  # inside a node, and to the next
    trip = sum(one.schedule.stage_s) + sum(sends_s) + one.costs.token_return.time_s
    assert one.schedule.period_s == pytest.approx(trip)
    many = dagc.compile_text(spec_text(kind="decode", phase=phase.format(8))).phases["decode"]
    assert many.schedule.period_s == pytest.approx(8 * max(many.schedule.stage_s))


def test_skewed_routing_makes_the_expert_axis_long_and_nothing_else() -> None:
    text = spec_text(
        phase="gpus = 0..15, dp = 2, ep = 4, tp = 2", workload="sequences = 64, prompt = 256 tok, routing = zipf(1.0)"
    )
    result = dagc.compile_text(text).phases["prefill"]
    mesh = result.graph.the_mesh
    shapes = {cost.time_s.shape for cost in result.costs.ops.values()}
    expert = tuple(4 if name == "ep" else 1 for name, _ in mesh.atoms)
    assert shapes == {tuple(1 for _ in mesh.atoms), expert}
    even = dagc.compile_text(text.replace("zipf(1.0)", "uniform")).phases["prefill"]
    assert result.costs.imbalance > 1.2 and 1.0 < even.costs.imbalance < 1.05  # even but for the chance of each step
    assert result.time_s > even.time_s


def test_a_larger_machine_costs_the_same_to_a_gpu() -> None:
    """A symmetric plan: 64 times the replicas and sequences change no time."""
    small = dagc.compile_text(spec_text(phase="gpus = 0..7, ep = 4, tp = 2"))
    large = dagc.compile_text(
        spec_text(
            gpus=512, phase="gpus = 0..511, dp = 64, ep = 4, tp = 2", workload="sequences = 4096, prompt = 256 tok"
        )
    )
    assert large.phases["prefill"].time_s == pytest.approx(small.phases["prefill"].time_s, rel=1e-12)


def test_two_batch_overlap_hides_communication() -> None:
    work = "sequences = 64, prompt = 8192 tok"
    plain = dagc.compile_text(spec_text(gpus=64, phase="gpus = 0..31, ep = 8, dp = 4", workload=work)).phases["prefill"]
    both = dagc.compile_text(
        spec_text(gpus=64, phase="gpus = 0..31, ep = 8, dp = 4, overlap = two_batch", workload=work)
    ).phases["prefill"]
    assert both.time_s < plain.time_s


def test_a_prompt_in_chunks_takes_a_pass_each() -> None:
    import dagc

    whole = dagc.compile_text(spec_text(phase="gpus = 0..7, tp = 4, ep = 2")).phases["prefill"]
    text = spec_text(phase="gpus = 0..7, tp = 4, ep = 2, chunk = 64 tok")
    parts = dagc.compile_text(text).phases["prefill"]
    assert parts.passes == 4 and parts.graph.segments[1].sizes["seq"] == 64
    assert [c.context for c in parts.chunks] == [64, 128, 192, 256]
    assert parts.time_s == pytest.approx(sum(c.schedule.period_s for c in parts.chunks))
    assert parts.schedule is parts.chunks[-1].schedule  # the pass that is drawn is the last one
    assert parts.time_s > whole.time_s > parts.schedule.period_s
    assert parts.memory.worst.kv_cache_B == whole.memory.worst.kv_cache_B
    assert parts.memory.worst.activations_B < whole.memory.worst.activations_B


def test_the_cache_of_a_sequence_travels_between_two_pools() -> None:
    text = spec_text(phase="gpus = 0..7, tp = 4, ep = 2", extra="phase decode { gpus = 8..15, tp = 2, ep = 4 }\n"
                     'require "t" prefill.kv_transfer > 0\nrequire "b" prefill.kv_bytes > 0')  # fmt: skip
    plan = dagc.compile_text(text)
    found = {v.requirement.label: v.value for v in plan.requirements}
    # Keys and values of 4 layers, 4 heads of 8, fp32, 256 tokens; 2 of the decode ranks have a sequence.
    assert found["b"] == 2 * 4 * 4 * 8 * 4 * 256
    assert found["t"] == pytest.approx(found["b"] / (2 * 50e9) + 6e-6)


def skewed(experts: str = "", phase: str = "gpus = 0..7, ep = 8"):  # type: ignore[no-untyped-def]
    model = (
        "layers = 2, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\n"
        f"experts {{ count = 16, top_k = 2, hidden = 32{experts} }}"
    )
    work = "sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1)"
    return dagc.compile_text(spec_text(model=model, phase=phase, workload=work)).phases["prefill"]


def test_capacity_drops_what_is_over_it() -> None:
    free, tight = skewed(), skewed(", capacity = 1.25")
    assert free.costs.dropped == 0.0 and 0.2 < tight.costs.dropped < 0.6
    assert tight.costs.imbalance <= 1.25 < free.costs.imbalance
    # Each expert keeps at most 1.25 times the mean: the shares are cut there, not moved.
    p = np.arange(1, 17) ** -1.0
    from dagc.cost.routing import cap

    wanted = cap(p, 2.0)
    assert tight.costs.dropped == pytest.approx(1 - np.minimum(wanted, 1.25 * 2 / 16).sum() / 2)


def test_spare_copies_say_what_they_gain() -> None:
    spare = skewed(phase="gpus = 0..7, ep = 8, redundant = 8")
    assert spare.costs.plain == pytest.approx(skewed().costs.imbalance)
    assert spare.costs.imbalance < spare.costs.plain


@pytest.mark.parametrize("line", ["weight_dtype = fp8", "attention_dtype = fp8", "weights { experts = nvfp4 }"])
def test_math_that_a_gpu_has_not_is_refused(line: str) -> None:
    from dagc.base.diagnostics import SpecError

    text = f"""moe 1
hardware from "a100-80gb-sxm" {{ gpus = 8 }}
model from "mixtral-8x7b" {{ {line} }}
workload {{ sequences = 8, prompt = 64 tok }}
phase prefill {{ gpus = 0..7, tp = 8 }}
"""
    with pytest.raises(SpecError, match="cannot run"):
        dagc.compile_text(text)
    dagc.compile_text(text.replace(line, "weight_dtype = int4"))
