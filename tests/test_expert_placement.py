"""Experts on ranks by their loads: brute force, bounds, what a placement must keep, and that a wrong one is found."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from conftest import examples, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import in_turn, spread

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.schema.phase import PLACINGS
from dagc.base.source import Source
from dagc.cost import expert_balance, expert_packing, expert_swaps
from dagc.cost.expert_balance import balanced_slots, least_load
from dagc.cost.expert_load import expert_slots
from dagc.cost.expert_packing import copies_of, pack_layers, pack_replicas
from dagc.cost.expert_placement import place_experts, place_layers, rank_loads
from dagc.cost.expert_swaps import CLOSE
from dagc.cost.routing import Floats, cap
from dagc.execute.prove import prove, prove_graph
from dagc.export.engines.launch import export
from dagc.ir.graph import Graph
from dagc.ir.ops.attributes.experts import DispatchAttrs
from dagc.ir.routed_dims import routers
from dagc.ir.verify.verify import VerifyError, verify
from dagc.lang.open_spec import load_open
from dagc.optimize.search.optimum import Asked, search

SHAPES = (
    (256, 32, 32),
    (256, 32, 0),
    (256, 8, 32),
    (128, 16, 0),
    (128, 8, 16),
    (64, 4, 0),
    (60, 8, 4),
    (256, 64, 64),
    (160, 80, 0),
)
"""(experts, ranks, spare copies)"""


def loads(law: int, layers: int, experts: int, total: float = 8.0, seed: int = 0) -> Floats:
    """Of mildly, strongly and extremely uneven experts."""
    rng = np.random.default_rng([seed, law, experts])
    drawn = (
        rng.gamma(2.0, 1.0, (layers, experts)),
        rng.gamma(0.4, 1.0, (layers, experts)),
        rng.pareto(1.1, (layers, experts)),
    )
    return np.array([cap(row + 1e-9, total) for row in drawn[law]])


def most(p: Floats, slots: np.ndarray) -> Floats:
    return rank_loads(p, slots).max(axis=1)


def least(p: Floats, ranks: int, spare: int) -> float:
    """Over every placement without doubles."""
    experts = len(p)
    rows = list(combinations(range(experts), (experts + spare) // ranks))
    found = np.inf

    def fill(chosen: list[tuple[int, ...]], start: int) -> None:
        nonlocal found
        if len(chosen) == ranks:
            copies = np.bincount(np.ravel(chosen), minlength=experts)
            if copies.min() > 0:
                found = min(found, float((p / copies)[np.array(chosen)].sum(axis=1).max()))
            return
        for i in range(start, len(rows)):
            fill([*chosen, rows[i]], i)

    fill([], 0)
    return found


@pytest.mark.parametrize(
    ("experts", "ranks", "spare"),
    spread(
        [
            (4, 2, 0),
            (6, 3, 0),
            (6, 2, 0),
            (8, 4, 0),
            (8, 2, 0),
            (3, 2, 1),
            (4, 2, 2),
            (4, 3, 2),
            (5, 2, 1),
            (5, 3, 1),
            (6, 4, 2),
        ],
        lambda case: case != (8, 4, 0),
    ),
)
def test_few_slots_are_placed_best(experts: int, ranks: int, spare: int) -> None:
    for law in range(3):
        p = loads(law, 1, experts, 1.0)
        for own, slots in zip(p, balanced_slots(p, ranks, spare), strict=True):
            assert most(own[None], slots[None])[0] == pytest.approx(least(own, ranks, spare), rel=1e-9)


@pytest.mark.parametrize(("experts", "ranks", "spare"), SHAPES)
@pytest.mark.parametrize("law", range(3))
def test_no_busier_than_in_order_nor_than_the_greedy_packing(law: int, experts: int, ranks: int, spare: int) -> None:
    """Beside the greedy one it may stop so near the bound that nothing is to gain."""
    p = loads(law, 12, experts)
    slots = place_layers(p, ranks, spare, how="balanced")
    assert all(len(set(rank)) == len(rank) for layer in slots.tolist() for rank in layer)
    assert all(set(layer.ravel().tolist()) == set(range(experts)) for layer in slots)
    busiest, bound = most(p, slots), least_load(p, copies_of(p, spare, ranks), ranks)
    greedy = most(p, place_layers(p, ranks, spare, how="eplb"))
    assert (busiest <= most(p, place_layers(p, ranks, spare, how="linear")) * (1 + 1e-12)).all()
    assert (busiest >= bound * (1 - 1e-12)).all()
    assert ((busiest <= greedy * (1 + 1e-12)) | (busiest <= bound * (1 + CLOSE))).all()
    assert busiest.mean() <= greedy.mean() * (1 + 1e-3)


@pytest.mark.parametrize("how", ["eplb", "balanced"])
def test_layers_are_placed_one_by_one_as_together(how: str) -> None:
    p = np.concatenate([loads(law, 5, 64) for law in range(3)])
    assert len(p) > expert_packing.FEW_LAYERS
    together = place_layers(p, 8, 8, how=how)
    assert all(
        np.array_equal(place_experts(own, 8, 8, how=how).slots, slots) for own, slots in zip(p, together, strict=True)
    )


def test_of_very_many_layers_none_is_searched_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are near the best anyhow."""
    p = loads(1, 12, 8)
    exact = most(p, balanced_slots(p, 4, 4))
    monkeypatch.setattr(expert_balance, "EXACT_LAYERS", 11)
    monkeypatch.setattr(expert_balance, "_least", lambda *args: pytest.fail("searched through"))
    quick = most(p, balanced_slots(p, 4, 4))
    assert (quick >= exact * (1 - 1e-12)).all() and quick.mean() <= 1.05 * exact.mean()


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_packed_together_as_one_by_one(seed: int) -> None:
    """Any numbers of copies, equal loads and none: some layers need room made, which is done one by one."""
    rng = np.random.default_rng(seed)
    ranks, per_rank, layers = [(2, 3, 16), (4, 5, 16), (8, 1, 16), (5, 4, 40), (1, 6, 13), (8, 9, 20)][seed]
    experts = max(per_rank, ranks * per_rank * 2 // 3)
    copies = np.ones((layers, experts), dtype=np.int64)
    for own in copies:
        while own.sum() < ranks * per_rank:
            own[rng.choice(np.flatnonzero(own < ranks))] += 1
    for weight in (rng.pareto(1.1, (layers, experts)), rng.choice([0.0, 0.1, 0.3, 1.0], (layers, experts))):
        one_by_one = np.stack([pack_replicas(w, c, ranks, per_rank) for w, c in zip(weight, copies, strict=True)])
        assert np.array_equal(pack_layers(weight, copies, ranks, per_rank), one_by_one)


@pytest.mark.parametrize("law", range(3))
def test_swaps_found_at_once_are_those_one_after_another(law: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for at_once in (1, expert_swaps.AT_ONCE, 7):
        monkeypatch.setattr(expert_swaps, "AT_ONCE", at_once)
        found.append(
            [balanced_slots(loads(law, 8, e, seed=1), r, s).tolist() for e, r, s in ((64, 8, 8), (128, 16, 0))]
        )
    assert found[0] == found[1] == found[2]


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 3), st.sampled_from(PLACINGS), st.data())
def test_any_placement_keeps_every_expert_and_no_doubles(
    ranks: int, per_rank: int, more: int, how: str, data: st.DataObject
) -> None:
    """Loads of 0 and equal ones are drawn too."""
    experts = ranks * per_rank
    spare = min(more * ranks, experts * (ranks - 1))
    p = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.1, 1.0, 7.0]), min_size=experts, max_size=experts)))
    placed = place_experts(p, ranks, spare, how=how)
    assert placed.slots.shape == (ranks, (experts + spare) // ranks)
    assert all(len(set(row)) == len(row) for row in placed.slots.tolist())
    assert set(placed.slots.ravel().tolist()) == set(range(experts))
    assert placed.load.sum() == pytest.approx(p.sum())


@pytest.mark.parametrize("how", ["eplb", "balanced"])
def test_equal_loads_have_equal_copies_and_stay_in_order(how: str) -> None:
    p = np.full((2, 32), 0.25)
    assert place_layers(p, 8, 0, how=how).tolist() == [np.arange(32).reshape(8, 4).tolist()] * 2
    copies = np.bincount(place_layers(p, 8, 32, how=how)[0].ravel())
    assert set(copies.tolist()) == {2}


def test_the_order_of_experts_does_not_matter() -> None:
    p = loads(1, 1, 64)[0]
    order = np.random.default_rng(3).permutation(64)
    for spare in (0, 16):
        found = place_experts(p[order], 8, spare, how="balanced")
        want = place_experts(p, 8, spare, how="balanced")
        assert sorted(found.load) == pytest.approx(sorted(want.load), rel=1e-12)
        assert {frozenset(order[row].tolist()) for row in found.slots} == {
            frozenset(row.tolist()) for row in want.slots
        }


def test_more_spare_copies_do_not_make_the_busiest_rank_busier() -> None:
    for law in range(3):
        p = loads(law, 8, 64)
        found = np.array([most(p, place_layers(p, 8, spare, how="balanced")) for spare in (0, 8, 16, 32, 64)])
        assert (np.diff(found, axis=0) <= found[1:] * CLOSE).all()


@pytest.mark.parametrize("spare", [0, 16])
def test_groups_stay_on_one_node(spare: int) -> None:
    experts, groups, nodes, ranks = 64, 8, 4, 16
    p = loads(1, 4, experts, 4.0)
    for how in ("eplb", "balanced"):
        slots = place_layers(p, ranks, spare, groups, nodes, how)
        for layer in slots.reshape(4, nodes, -1).tolist():
            for group in range(groups):
                members = set(range(group * 8, group * 8 + 8))
                assert sum(bool(members & set(node)) for node in layer) == 1
        assert all(len(set(rank)) == len(rank) for layer in slots.tolist() for rank in layer)
    in_order = most(p, place_layers(p, ranks, spare, groups, nodes, "linear"))
    assert (most(p, slots) <= in_order * (1 + 1e-12)).all()
    assert most(p, slots).mean() < 0.8 * in_order.mean()


# -- in a plan -------------------------------------------------------------------------------------


def text(phase: str, routing: str = "zipf(1.0)", kind: str = "prefill", experts: int = 8) -> str:
    model = (
        "layers = 2, dense_first = 1, hidden = 8, vocab = 16, dtype = fp32\n"
        "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }\nmlp { hidden = 8 }\n"
        f"experts {{ count = {experts}, top_k = 2, hidden = 4 }}"
    )
    work = f"sequences = 8, prompt = 4 tok, output = 4 tok, routing = {routing}"
    return spec_text(kind=kind, phase=phase, model=model, workload=work)


def misplaced(graph: Graph, how: str) -> Graph:
    """Rows go where another placement has their experts; weights stay where they are."""
    segments = tuple(
        replace(s, ops=tuple(
            replace(op, attrs=op.attrs.but(placed=how)) if isinstance(op.attrs, DispatchAttrs) else op for op in s.ops
        )) for s in graph.segments
    )  # fmt: skip
    return replace(graph, segments=segments)


@pytest.mark.parametrize(
    ("phase", "kind"),
    in_turn(
        [
            "gpus = 0..3, ep = 4",
            "gpus = 0..7, ep = 4, tp = 2",
            "gpus = 0..3, ep = 4, redundant = 4",
            "gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }",
        ],
        ["prefill", "decode"],
    ),
)
def test_a_placed_plan_computes_the_same_and_a_misplaced_one_does_not(phase: str, kind: str) -> None:
    plan = dagc.compile_text(text(f"{phase}, expert_placement = balanced", kind=kind))
    graph, unit, costs = plan.phases[kind].graph, plan.units[kind], plan.phases[kind].costs
    proof = prove(plan, kind)
    assert proof.holds, proof
    assert plan.prove(kind).holds  # the twin
    wrong = misplaced(graph, "linear")
    with pytest.raises(VerifyError, match="placed in 2 ways"):
        verify(wrong)
    assert not prove_graph(wrong, unit, costs).holds


def test_a_placement_by_loads_evens_the_ranks_of_a_plan() -> None:
    linear, balanced = (
        dagc.compile_text(
            text(f"gpus = 0..3, ep = 4, expert_placement = {how}", "histogram([9, 8, 1, 1, 2, 1, 1, 1])")
        ).phases["prefill"]
        for how in ("linear", "balanced")
    )
    assert balanced.costs.imbalance < linear.costs.imbalance - 0.2
    assert balanced.costs.plain == pytest.approx(linear.costs.imbalance)
    assert balanced.memory.stages[0].peak_B < linear.memory.stages[0].peak_B  # rows of the busiest rank
    assert balanced.costs.ops["sparse", "moe.u"].time_s.max() <= linear.costs.ops["sparse", "moe.u"].time_s.max()


def test_what_is_usual_may_be_written() -> None:
    for phase, usual in (("gpus = 0..3, ep = 4", "linear"), ("gpus = 0..3, ep = 4, redundant = 4", "eplb")):
        plain, said = (dagc.compile_text(text(phase + more)) for more in ("", f", expert_placement = {usual}"))
        assert plain.phases["prefill"].graph == said.phases["prefill"].graph
        assert plain.phases["prefill"].time_s == said.phases["prefill"].time_s
    with pytest.raises(SpecError) as refused:
        dagc.compile_text(text("gpus = 0..3, ep = 4, expert_placement = balance"))
    assert [d.code for d in refused.value.diagnostics] == ["E02"]


def test_layers_are_placed_by_their_own_loads() -> None:
    """Two layers with opposite favourites: each alone is evened, which one placement for both could not do."""
    hot = [9, 8, 1, 1, 2, 1, 1, 1]
    spec = text("gpus = 0..3, ep = 4, expert_placement = {}", f"loads([{hot}, {hot[::-1]}])").replace(
        "layers = 2", "layers = 3"
    )
    plan = dagc.compile_text(spec.replace("{}", "balanced"))
    each = plan.phases["prefill"].costs.layers
    assert len(each) == 2 and all(own.imbalance < own.plain - 0.2 for own in each)
    unit, graph = plan.units["prefill"], plan.phases["prefill"].graph
    segment = next(s for s in graph.segments if list(routers(s)))
    slots = expert_slots(graph, segment, next(iter(routers(segment))), unit)
    assert slots.shape == (4, 2)


def test_a_report_says_how_even_ranks_are_and_json_which_experts_they_have() -> None:
    said = "gpus = 0..3, ep = 4, expert_placement = balanced"
    plan = dagc.compile_text(text(said, "histogram([9, 8, 1, 1, 2, 1, 1, 1])"))
    (layer,) = plan.to_json()["phases"]["prefill"]["expert_placement"]["layers"]
    assert layer["before"] == pytest.approx(17 * 4 / 24) and layer["after"] == pytest.approx(10 * 4 / 24)
    assert layer["least"] == layer["after"]  # the heaviest with the lightest
    assert sorted(e for rank in layer["experts"] for e in rank) == list(range(8)) and "layer" not in layer
    assert "experts placed by their loads (balanced): the busiest of 4 ranks 1.667 times the mean" in " ".join(
        plan.report().split()
    )
    usual = dagc.compile_text(text("gpus = 0..3, ep = 4"))
    assert "expert_placement" not in usual.to_json()["phases"]["prefill"] and "experts placed" not in usual.report()


def test_a_search_chooses_how_experts_are_placed() -> None:
    loads_ = "histogram([9, 8, 1, 1, 2, 1, 1, 1])"
    spec = text("gpus = 0..3, dp = any(1, 2, 4), ep = any(1, 2, 4), expert_placement = any", loads_)
    found = search(load_open(Source("plan.moe", spec), Collector()), Asked(("ttft",)))
    times = {
        (ep, how): dagc.compile_text(text(f"gpus = 0..3, dp = {4 // ep}, ep = {ep}, expert_placement = {how}", loads_)).phases["prefill"].time_s
        for ep in (1, 2, 4) for how in PLACINGS
    }  # fmt: skip
    assert found.complete and found.best is not None
    best = found.best.values["prefill"]
    assert times[int(str(best["ep"])), str(best["expert_placement"])] == min(times.values())
    assert times[4, "balanced"] < times[4, "linear"]


def test_engines_place_by_load_or_refuse() -> None:
    spec = """moe 1
hardware from "h200-sxm" { gpus = 8 }
model from "qwen3-30b-a3b" { }
workload { sequences = 64, prompt = 1024 tok, output = 64 tok, routing = zipf(1.0) }
phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, expert_placement = balanced }
"""
    plan = dagc.compile_text(spec)
    for engine, said in (("vllm", "--enable-eplb"), ("sglang", "--enable-eplb"), ("trtllm", '"num_slots": 128')):
        found = b"\n".join(export(plan, engine, None, "plan").values()).decode()
        assert said in found and "places experts by the load that it sees" in " ".join(found.replace("#", "").split())
    with pytest.raises(SpecError) as refused:
        export(plan, "megatron", None, "plan")
    assert "expert_placement = balanced has no argument" in " ".join(refused.value.diagnostics[0].because)
