"""`place = best`: against every assignment of GPUs on small pools, what must not matter, and what else reads GPU ids."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiers
from conftest import ROOT, spec_text

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.cost.price import price
from dagc.cost.schedule.scheduler import schedule
from dagc.export.engines.launch import export
from dagc.export.json import plan_object
from dagc.ir.orders import even_counts, ways
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.compile import compile_phase
from dagc.pipeline.estimates import Estimates
from dagc.pipeline.lower import unverified
from dagc.pipeline.place_best import best, placed
from dagc.pipeline.place_trial import Trial, default_ids
from dagc.plan.placement import Placement
from dagc.plan.result import CollectiveTotal, PhaseResult
from dagc.plan.totals import collective_totals
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit
from dagc.view.report.diff import compare

SHORT = """link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }"""
FAST, SLOW = "bandwidth = 450 GB/s, latency = 2 us", "bandwidth = 45 GB/s, latency = 6 us"


def pairs(node: int, more: str = "") -> str:
    return f"link node {{ gpus = {node}, {FAST} }}\n  {more}link cluster {{ {SLOW} }}"


RACKS = f"link node {{ gpus = 2, {FAST} }}\n  link rack {{ gpus = 4, bandwidth = 90 GB/s, latency = 3 us }}\n  link cluster {{ {SLOW} }}"
ODD_NICS = f"link node {{ gpus = 3, {FAST} }}\n  link cluster {{ nics = 2, {SLOW} }}"
RAILS = f"link node {{ gpus = 8, {FAST} }}\n  link cluster {{ nics = 4, {SLOW} }}"
NICS = f"link node {{ gpus = 4, {FAST} }}\n  link cluster {{ nics = 2, {SLOW} }}"


def text_of(phase: str, links: str, **more: str) -> str:
    text = spec_text(phase=phase, **more)  # type: ignore[arg-type]
    return text.replace(", per_node = 8", "").replace(SHORT, links)


def spec_of(phase: str, links: str, **more: str) -> Spec:
    return load(Source("s.moe", text_of(phase, links, **more)), Collector())


Cost = tuple[float, ...]
"""Seconds of a pass, then bytes on the links of each level, outermost first; to eleven digits."""


def unit_on(spec: Spec, ids: Sequence[int], phase: int = 0) -> Unit:
    own = spec.phases[phase]
    return Unit(spec, replace(own, strategy=replace(own.strategy, ids=tuple(ids))), Collector())


def cost_on(spec: Spec, ids: Sequence[int]) -> Cost:
    """Of the only phase, lowered for these GPUs."""
    unit = unit_on(spec, ids)
    graph = unverified(unit)
    costs = price(graph, unit)
    return cost(spec, schedule(graph, costs).period_s, collective_totals(graph, costs))


def cost(spec: Spec, time_s: float, totals: Sequence[CollectiveTotal]) -> Cost:
    sent = [sum(c.level_B.get(t.name, 0.0) for c in totals) for t in reversed(spec.hardware.tiers)]
    return tuple(float(f"{x:.11g}") for x in (time_s, *sent))


def every(spec: Spec) -> dict[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Assignments of GPUs to ranks, one for each way to fill domains."""
    hardware = spec.hardware
    sizes = [t.gpus for t in hardware.tiers if t.gpus is not None]
    nics = hardware.nics
    found: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}
    for ids in itertools.permutations(spec.phases[0].gpus):
        where = [tuple(g // size for size in sizes) + ((g * nics[0] // nics[1],) if nics else ()) for g in ids]
        found.setdefault(tuple(where), ids)
    return found


def best_of(spec: Spec) -> tuple[PhaseResult, Placement]:
    new, found = placed(spec)
    (phase,) = new.phases
    assert sorted(phase.strategy.ids) == sorted(phase.gpus)
    return compile_phase(unit_on(spec, phase.strategy.ids)), found[phase.name]


SMALL = {
    "two nodes": ("gpus = 0..3, ep = 2, tp = 2, order = [pp, dp, tp, sp, ep], place = best", pairs(2)),
    "stages": ("gpus = 0..3, pp = 2, tp = 2, microbatches = 4, order = [tp, pp, dp, ep, sp], place = best", pairs(2)),
    "listed otherwise": ("gpus = [3, 0, 2, 1], sp = 2, tp = 2, place = best", pairs(2)),
    "racks": ("gpus = [0, 1, 2, 3, 8, 9], ep = 3, sp = 2, redundant = 1, place = best", RACKS),
    "folded": ("gpus = [0, 1, 4, 5], place = best\nattention { dp = 2, tp = 2 }\nexperts { ep = 2, tp = 2 }", RACKS),
    "shared NICs": ("gpus = 2..5, pp = 2, tp = 2, microbatches = 4, place = best", NICS),
    "two NICs for three": ("gpus = 1..4, pp = 2, tp = 2, microbatches = 4, place = best", ODD_NICS),
    "nodes of three": ("gpus = 0..5, ep = 3, tp = 2, redundant = 1, place = best", pairs(3)),
    "four and two": ("gpus = 0..5, dp = 3, tp = 2, order = [pp, tp, ep, sp, dp], place = best", pairs(4)),
}
OUT = "order = [tp, pp, dp, ep, sp]"
WORK = "sequences = 48, prompt = 256 tok, output = 16 tok"


@pytest.mark.parametrize(
    "name", tiers.spread(SMALL, lambda name: name not in ("racks", "nodes of three", "listed otherwise"))
)
def test_no_assignment_of_the_gpus_of_a_small_pool_is_better(name: str) -> None:
    spec = spec_of(*SMALL[name], workload=WORK)
    result, placement = best_of(spec)
    others = {cost_on(spec, ids) for ids in every(spec).values()}
    assert cost(spec, result.time_s, result.collectives) == min(others)
    assert placement.every and placement.complete and placement.held_back == 0
    assert len(others) > 1, "the case tells nothing"
    assert placement.after_s == result.time_s
    assert cost_on(spec, default_ids(spec.phases[0]))[0] == pytest.approx(placement.before_s)


EVEN = {
    "two nodes of four": ("gpus = 0..7, ep = 2, sp = 2, tp = 2, order = [pp, tp, sp, dp, ep], place = best", pairs(4)),
    "parts of axes": ("gpus = 0..7, sp = 4, tp = 2, order = [tp, pp, ep, sp, dp], place = best", pairs(4)),
}


@pytest.mark.parametrize("name", tiers.spread(EVEN, {"parts of axes"}))
def test_orders_and_parts_of_axes_are_enough_where_domains_are_even(name: str) -> None:
    """More GPUs than those whose assignments are all tried: the ways to fill domains with parts of axes have the best of them."""
    spec = spec_of(*EVEN[name], workload=WORK)
    result, placement = best_of(spec)
    assert not placement.every and placement.complete and placement.moved
    others = set()
    for inside in itertools.combinations(range(1, 8), 3):  # with rank 0; the other half is the same mirrored
        free = {True: iter(range(4)), False: iter(range(4, 8))}
        others.add(cost_on(spec, [next(free[rank in (0, *inside)]) for rank in range(8)]))
    assert len(others) > 2
    assert cost(spec, result.time_s, result.collectives) == min(others)


UNEVEN = {
    "a node and a half": ("gpus = 4..15, ep = 3, tp = 2, sp = 2, redundant = 1, order = [tp, pp, sp, ep, dp], place = best", pairs(8)),
    "listed by another rule": (
        "gpus = [15, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], pp = 3, tp = 4, layers_per_stage = [2, 1, 1], place = best", pairs(8),
    ),
    "begun at the end of a node": ("gpus = [1..4, 6, 7, 11, 12], pp = 2, tp = 4, microbatches = 2, place = best", pairs(4)),
    "three nodes": ("gpus = [0..2, 4..7, 8], ep = 4, tp = 2, place = best", pairs(4)),
}  # fmt: skip


@pytest.mark.parametrize("name", tiers.spread(UNEVEN, {"listed by another rule"}))
def test_no_drawn_assignment_is_better_where_domains_are_uneven(name: str) -> None:
    spec = spec_of(*UNEVEN[name], workload=WORK)
    result, placement = best_of(spec)
    assert placement.complete
    found = cost(spec, result.time_s, result.collectives)
    draw = np.random.default_rng(15)
    for _ in range(15):
        assert found <= cost_on(spec, draw.permutation(spec.phases[0].gpus).tolist())


# -- what must not matter --------------------------------------------------------------------------


PLAN = "pp = 2, ep = 4, sp = 2, tp = 2, microbatches = 4, place = best"


def test_where_nodes_are_and_how_they_are_listed_changes_nothing() -> None:
    gpus = [*range(8, 16), *range(24, 32), *range(0, 8), *range(40, 48)]
    lists = [gpus, gpus[::-1], [63 - gpu for gpu in gpus]]
    found = [best_of(spec_of(f"gpus = {ids}, {PLAN}", pairs(8), workload=WORK)) for ids in lists]
    costs = {
        (result.time_s, *(c.level_B["cluster"] for c in result.collectives if "cluster" in c.level_B))
        for result, _ in found
    }
    assert len(costs) == 1
    assert len({str(placement.inside) for _, placement in found}) == 1


def test_the_order_that_is_written_changes_nothing_but_the_start() -> None:
    written = ("[pp, dp, ep, sp, tp]", "[tp, sp, ep, dp, pp]", "[ep, tp, pp, sp, dp]")
    found = [best_of(spec_of(f"gpus = 0..31, order = {order}, {PLAN}", pairs(8), workload=WORK)) for order in written]
    assert len({result.time_s for result, _ in found}) == 1
    assert len({placement.before_s for _, placement in found}) == 3


def test_hosts_are_no_levels_of_links() -> None:
    """Processes and ports of a tray say nothing of the links: two GPUs a host in nodes of eight."""
    texts = [
        text_of(f"gpus = 0..31, {OUT}, {PLAN}", pairs(8) + hosts, workload=WORK) for hosts in ("", "\n  per_host = 2")
    ]
    found = [best_of(load(Source("s.moe", text), Collector())) for text in texts]
    assert found[0][1] == found[1][1] and found[0][1].moved and found[0][0].gpus == found[1][0].gpus


def test_on_a_flat_network_the_default_order_stays() -> None:
    for links in (f"link all {{ {FAST} }}", f"link node {{ gpus = 8, {FAST} }}\n  link cluster {{ {FAST} }}"):
        spec = spec_of(f"gpus = [3, 1, 0, 2, 4..31], order = [tp, pp, dp, ep, sp], {PLAN}", links, workload=WORK)
        _, placement = best_of(spec)
        assert not placement.moved and placement.gain == 0.0 and placement.complete
        assert placed(spec)[0].phases[0].strategy.ids == default_ids(spec.phases[0])
        assert [row.before_B for row in placement.levels] == [row.after_B for row in placement.levels]


# -- what must -------------------------------------------------------------------------------------


def test_an_order_that_is_written_is_the_order_of_the_ids() -> None:
    """Ids and time both follow it: dp is innermost, then ep, then tp."""
    order, usual = (
        spec_of(f"gpus = 0..15, dp = 2, ep = 2, tp = 4{more}", pairs(8), workload=WORK)
        for more in (", order = [pp, sp, tp, ep, dp]", "")
    )
    ids = np.asarray(compile_phase(Unit(order, order.phases[0], Collector())).gpus).reshape(4, 2, 2)  # [tp, ep, dp]
    tp, ep, dp = np.indices(ids.shape)
    assert (ids == tp * 4 + ep * 2 + dp).all()
    assert compile_phase(Unit(order, order.phases[0])).time_s > compile_phase(Unit(usual, usual.phases[0])).time_s


def test_the_heaviest_axis_moves_inside() -> None:
    """Behind links ten times slower, tp ends up inside a node, whatever the order, and its bytes leave the slow links."""
    slow = f"link node {{ gpus = 4, {FAST} }}\n  link cluster {{ bandwidth = 45 GB/s, latency = 2 us }}"
    spec = spec_of("gpus = 0..15, dp = 4, tp = 4, order = [tp, pp, ep, sp, dp], place = best", slow)
    result, placement = best_of(spec)
    assert placement.inside == (("node", {"tp": 4}), ("cluster", {"dp": 4}))
    node, cluster = placement.levels
    assert node.after_B > node.before_B and cluster.after_B == 0.0 < cluster.before_B
    assert result.graph.the_mesh.group(result.graph.the_mesh.of("tp")).nodes == 1


def test_groups_that_fit_a_domain_do_not_straddle_it_where_that_costs_nothing() -> None:
    """Nodes have 3, 8 and 5 of the GPUs: one pair must be of two nodes, which sets the price. In order two are."""
    spec = spec_of("gpus = 5..20, dp = 8, tp = 2, place = best", pairs(8), workload=WORK)
    result, placement = best_of(spec)

    def straddling(ids: Sequence[int]) -> int:
        groups = np.asarray(ids).reshape(8, 2) // 8
        return int((groups[:, 0] != groups[:, 1]).sum())

    assert (straddling(default_ids(spec.phases[0])), straddling(result.gpus)) == (2, 1)
    assert placement.moved and placement.gain == 0.0


def test_rails_are_used() -> None:
    """Two GPUs share a NIC. Of two stages in a node one sends to the next node: its GPUs have a NIC each."""
    spec = spec_of("gpus = 0..15, pp = 4, tp = 4, microbatches = 4, place = best", RAILS, workload=WORK)
    result, placement = best_of(spec)
    mesh = result.graph.the_mesh
    before, after = (np.asarray(ids).reshape(4, 4)[1] // 2 for ids in (default_ids(spec.phases[0]), result.gpus))
    assert (len(set(before.tolist())), len(set(after.tolist()))) == (2, 4)
    assert placement.after_s < placement.before_s and placement.complete
    assert mesh.group(mesh.of("tp")).nodes == 1


def spread(phases: str, gpus: int = 64, links: str = "") -> str:
    """A spec of two phases, whose tp is outermost unless they are placed."""
    text = spec_text(phase="gpus = 0..7", gpus=gpus, workload="sequences = 64, prompt = 256 tok, output = 16 tok")
    start, end = text.index("phase prefill {"), text.index("}\n", text.index("phase prefill {")) + 2
    return (text[:start] + phases + text[end:]).replace(", per_node = 8", "").replace(SHORT, links or pairs(4))


def test_phases_on_the_same_gpus_are_placed_together_and_store_weights_once() -> None:
    plan = dagc.compile_text(
        spread(
            f"phase prefill {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT}, place = best }}\n"
            f"phase decode {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT}, place = best }}\n"
        )
    )
    prefill, decode = (plan.phases[name].placement for name in ("prefill", "decode"))
    assert prefill is not None and decode is not None
    assert prefill.together == decode.together == ("prefill", "decode") and prefill.moved
    assert plan.phases["prefill"].gpus == plan.phases["decode"].gpus
    (pool,) = plan.shared
    assert pool.copies_B == 0.0


def test_what_counts_of_phases_placed_together_is_the_sum_of_their_shares() -> None:
    """Prefill would have ep inside, decode dp: no placement of both has a smaller sum of times, each over its default."""
    text = spread(
        "phase prefill { gpus = 0..15, ep = 4, sp = 4, order = [pp, dp, ep, sp, tp], place = best }\n"
        "phase decode { gpus = 0..15, ep = 4, dp = 4, order = [pp, ep, dp, sp, tp], place = best }\n"
    )
    spec = load(Source("s.moe", text), Collector())

    def times(ids: Sequence[int]) -> list[float]:
        return [compile_phase(unit_on(spec, ids, i)).time_s for i in (0, 1)]

    before = times(range(16))
    every = [way.ids() for way in ways((1, 4, 4), range(16), [("node", 4)])]
    sums = [sum(b / a for a, b in zip(before, times(ids), strict=True)) for ids in every]
    new, found = placed(spec)
    chosen = times(new.phases[0].strategy.ids)
    assert min(sums) == pytest.approx(sum(b / a for a, b in zip(before, chosen, strict=True)), rel=1e-11)
    best_alone = [min(times(ids)[i] for ids in every) for i in (0, 1)]
    assert chosen[0] == best_alone[0] and chosen[1] > best_alone[1]
    assert found["decode"].after_s == chosen[1]


def test_experts_are_cut_alike_in_phases_placed_together_whatever_is_outermost() -> None:
    texts = (
        spread(
            f"phase prefill {{ gpus = 0..7, order = {order}, place = best\nattention {{ dp = 4, tp = 2 }}\nexperts {{ ep = 8 }} }}\n"
            f"phase decode {{ gpus = 0..7, order = {order}, place = best\nattention {{ dp = 8 }}\nexperts {{ ep = 8 }} }}\n"
        )
        for order in ("[pp, dp, ep, sp, tp]", "[dp, pp, ep, sp, tp]")
    )
    first, second = (dagc.compile_text(text).shared[0].copies_B for text in texts)
    assert first == second


def test_a_phase_beside_others_that_stay_stores_no_weights_a_second_time() -> None:
    """What would be faster moves tp, and with it weights that decode has where they are."""
    alone = f"phase prefill {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT}, place = best }}\n"
    beside = alone + f"phase decode {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT} }}\n"
    free, held = (dagc.compile_text(spread(text)) for text in (alone, beside))
    placements = [plan.phases["prefill"].placement for plan in (free, held)]
    assert placements[0] is not None and placements[0].moved and placements[0].held_back == 0
    assert placements[1] is not None and placements[1].held_back > 0
    assert placements[0].after_s < placements[1].after_s <= placements[1].before_s
    assert held.shared[0].copies_B == 0.0
    assert "would store weights a second time" in held.report()


@pytest.mark.parametrize("name", tiers.spread(["a", "b"], {"b"}))
def test_no_more_bytes_over_the_slowest_links_than_in_the_orders_of_engines(name: str) -> None:
    """Plans A and B against Megatron's tp-cp-ep-dp-pp (innermost first), and vLLM's dp, pp, cp, tp (outermost first; its experts are
    split over dp and tp, so that ep is part of dp)."""
    text = re.sub(r"\n  place gpu = .*", "", (ROOT / "examples" / f"plan_{name}.moe").read_text())
    sent: dict[str, dict[str, float]] = {}
    for more in ("place = best", "order = [pp, dp, ep, sp, tp]", "order = [dp, ep, pp, sp, tp]"):
        own = re.sub(r"(phase \w+ \{\s*)gpus", rf"\1{more}, gpus", text)
        spec, _ = placed(load(Source(f"plan_{name}.moe", own), Collector()))
        results = {p.name: compile_phase(Unit(spec, p, Collector())) for p in spec.phases}
        sent[more] = {n: sum(c.level_B.get("cluster", 0.0) for c in r.collectives) for n, r in results.items()}
    best_B, *others_B = sent.values()
    for other in others_B:
        assert all(best_B[phase] <= other[phase] for phase in best_B)
    assert (best_B["prefill"] < min(other["prefill"] for other in others_B)) == (name == "a")


def test_a_prefill_and_a_decode_of_unequal_sizes_on_two_levels() -> None:
    """Eight GPUs of one node and a half, and sixteen of two and two halves, on nodes of six."""
    plan = dagc.compile_text(
        spread(
            f"phase prefill {{ gpus = 0..7, sp = 4, tp = 2, {OUT}, place = best }}\n"
            f"phase decode {{ gpus = 8..23, ep = 4, dp = 2, tp = 2, {OUT}, place = best }}\n",
            links=pairs(6),
        )
    )
    for name, gpus in (("prefill", range(8)), ("decode", range(8, 24))):
        result = plan.phases[name]
        assert result.placement is not None and result.placement.moved and result.placement.complete
        assert (
            sorted(result.gpus) == list(gpus) and result.time_s == result.placement.after_s < result.placement.before_s
        )


def test_each_pool_has_links_of_its_own() -> None:
    text = spread(
        f"phase prefill {{ hardware = pool, gpus = 0..15, sp = 8, tp = 2, {OUT}, place = best }}\n"
        f"phase decode {{ hardware = wide, gpus = 0..15, ep = 8, tp = 2, {OUT}, place = best }}\n"
    )
    pool = text[text.index("hardware pool {") : text.index("model small")]
    text = text.replace(pool, pool + pool.replace("pool {", "wide {").replace("gpus = 4,", "gpus = 16,"))
    plan = dagc.compile_text(text + f"link pool to wide {{ {SLOW} }}\n")
    prefill, decode = (plan.phases[name].placement for name in ("prefill", "decode"))
    assert prefill is not None and prefill.moved and prefill.together == ("prefill",)
    assert decode is not None and not decode.moved and decode.gain == 0.0


# -- what else reads it ----------------------------------------------------------------------------


@cache
def moved() -> dagc.Plan:
    return dagc.compile_text(
        spread(f"phase prefill {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT}, place = best }}\n"), name="moved.moe"
    )


def test_report_and_json_say_what_was_gained() -> None:
    placement = moved().phases["prefill"].placement
    assert placement is not None and placement.moved
    data = json.loads(json.dumps(plan_object(moved())))
    jsonschema.validate(data, json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text()))
    found = data["phases"]["prefill"]["placement"]
    assert found["complete"] and found["compiled"] + found["alike"] == found["ways"]
    assert [row["level"] for row in found["levels"]] == ["node", "cluster"]
    assert found["after_s"] == moved().phases["prefill"].time_s < found["before_s"]
    for text in (moved().report(), moved().markdown(), moved().html()):
        flat = " ".join(text.split())
        assert "laced best:" in flat and f"({-placement.gain:+.1%})" in flat and "none is better" in flat


def test_the_numeric_proof_holds_and_a_placed_graph_compiles_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "moved.moe"
    spec.write_text(spread(f"phase prefill {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT}, place = best }}\n"))
    assert main(["verify", str(spec)]) == 0
    assert main(["compile", str(spec), "--emit", "json", "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["compile", str(tmp_path / "out" / "moved.prefill.graph.json"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["phases"]["prefill"]
    assert (again["gpus"], again["makespan_s"]) == (
        list(moved().phases["prefill"].gpus),
        moved().phases["prefill"].time_s,
    )
    assert main(["ir", str(spec)]) == 0
    shown = "gpus 0..3+" if moved().phases["prefill"].gpus[:4] == (0, 1, 2, 3) else "gpus "
    assert shown in capsys.readouterr().out


def test_a_comparison_names_it() -> None:
    default = dagc.compile_text(spread(f"phase prefill {{ gpus = 0..15, ep = 4, sp = 2, tp = 2, {OUT} }}\n"))
    found = compare(default, moved())
    assert [(c.name, c.after) for c in found.inputs] == [("phase.prefill.place", "best")]
    assert {f.name for f in found.results if f.better} >= {"prefill.ttft", "prefill.throughput"}


def test_a_spec_is_printed_with_it_and_reads_back() -> None:
    spec = moved().spec
    again = load(Source("again.moe", print_spec(spec)), Collector())
    assert again.phases[0].strategy.best and not again.phases[0].strategy.ids
    assert best(again, again.phases[0]).strategy.ids == spec.phases[0].strategy.ids
    assert Estimates(again)(again.phases[0]).time_s == moved().phases["prefill"].time_s


def test_an_engine_takes_a_placement_that_it_numbers_alike_and_refuses_others() -> None:
    """Of ways that cost the same it is the engines' own; tp outermost, and stages on NICs of their own, are not."""
    plain = "gpus = 0..7, dp = 4, tp = 2, order = [tp, pp, dp, ep, sp]"
    better, worse = (
        dagc.compile_text(spread(f"phase prefill {{ {plain}{more} }}\n").replace("fp32", "bf16"))
        for more in (", place = best", "")
    )
    text = spec_text(phase="gpus = 0..15, pp = 4, tp = 4, microbatches = 4, place = best", workload=WORK, dtype="bf16")
    rails = dagc.compile_text(text.replace(", per_node = 8", "").replace(SHORT, RAILS))
    assert export(better, "megatron", None, "plan.prefill")
    for plan in (worse, rails):
        with pytest.raises(SpecError, match="cannot express") as refused:
            export(plan, "megatron", None, "plan.prefill")
        assert "it numbers GPUs by" in refused.value.diagnostics[0].because[0]


def test_steps_of_a_serving_run_where_the_phase_is_placed() -> None:
    text = spread(
        f"phase prefill {{ gpus = 0..15, ep = 4, dp = 2, tp = 2, {OUT}, place = best }}\n"
        f"phase decode {{ gpus = 0..15, ep = 4, dp = 2, tp = 2, {OUT}, place = best }}\n"
        "serve s { prefill = prefill, decode = decode, arrivals = closed(64), requests = 64 }\n"
        'require "r" s.throughput >= 1 tok/s\n'
    )
    before, after = (dagc.compile_text(t) for t in (text.replace(", place = best", ""), text))
    assert after.requirements[0].value > before.requirements[0].value


@pytest.mark.parametrize(
    ("written", "code", "help"),
    [
        ("place = best\nplace gpu = ep * 2 + tp", "E12", "leave one of them out"),
        ("place gpu = best", "E02", "`place = best` chooses the ids"),
        ("place = bset", "E02", "did you mean `best`?"),
        ("place = 3", "E08", ""),
        ("place = any", "E12", ""),
    ],
)
def test_what_is_no_placement_is_said(written: str, code: str, help: str) -> None:
    with pytest.raises(SpecError) as refused:
        dagc.compile_text(spec_text(phase=f"gpus = 0..7, ep = 4, tp = 2\n{written}"))
    (found,) = refused.value.diagnostics
    assert found.code == code and help in " ".join(found.help)


WRONG = {
    "axes that do not nest": (
        "gpus = 0..11, redundant = 1\nattention { dp = 6, tp = 2 }\nexperts { ep = 3 }",
        "do not nest",
    ),
    "no such pass": ("gpus = 0..7, ep = 4, tp = 2, passes = [nobody]", "no plugin"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_phase_that_has_no_layout_says_the_same_with_it(name: str) -> None:
    texts = []
    for more in ("", "\nplace = best"):
        with pytest.raises(SpecError) as refused:
            dagc.compile_text(spec_text(phase=WRONG[name][0] + more))
        texts.append([(d.code, d.message) for d in refused.value.diagnostics])
    assert texts[0] == texts[1] and WRONG[name][1] in texts[0][0][1]


def test_phases_whose_axes_do_not_nest_are_placed_each_by_itself() -> None:
    plan = dagc.compile_text(
        spread(
            f"phase prefill {{ gpus = 0..11, sp = 4, ep = 3, redundant = 1, {OUT}, place = best }}\n"
            f"phase decode {{ gpus = 0..11, dp = 3, tp = 4, {OUT}, place = best }}\n"
        ).replace("sequences = 64", "sequences = 48")
    )
    placements = [result.placement for result in plan.phases.values()]
    assert [p.together for p in placements if p is not None] == [("prefill",), ("decode",)]


def test_what_a_process_knows_already_changes_nothing() -> None:
    """Chains and prices are kept per GPUs: what was asked of a mesh before is asked again."""
    spec = spec_of(
        "gpus = 0..31, place = best\nattention { dp = 4, sp = 2, tp = 4 }\nexperts { ep = 8, tp = 2 }",
        pairs(8),
        workload=WORK,
    )
    assert placed(spec) == placed(spec)
    first, second = Trial(spec, spec.phases[0]), Trial(spec, spec.phases[0])
    asked = first.asks.of(first.base)
    assert asked == second.asks.of(second.base) and len(asked) > len(first.base.the_mesh.asked) - 1
    assert set(asked) > {op.axes for s in first.base.segments for op in s.ops if op.is_collective}


# -- how much is tried -----------------------------------------------------------------------------


def test_many_gpus_take_few_compilations_and_it_is_said_what_was_not_tried() -> None:
    three = f"link node {{ gpus = 8, {FAST} }}\n  link rack {{ gpus = 64, bandwidth = 90 GB/s, latency = 3 us }}\n  link cluster {{ {SLOW} }}"
    text = spec_text(
        phase="gpus = 0..511, pp = 4, dp = 2, ep = 8, sp = 2, tp = 4, order = [tp, pp, sp, dp, ep], place = best",
        gpus=512, workload="sequences = 512, prompt = 256 tok, output = 16 tok",
    )  # fmt: skip
    spec = load(Source("s.moe", text.replace(", per_node = 8", "").replace(SHORT, three)), Collector())
    _, found = placed(spec)
    placement = found["prefill"]
    assert placement.priced == 16 and not placement.complete and placement.ways > 200
    assert placement.after_s < placement.before_s


@pytest.mark.parametrize(("counts", "want"), [((8, 8), 2), ((4, 4), 2), ((3, 5), None), ((1, 1), 1), ((6,), 1)])
def test_levels_that_hold_the_same_of_the_gpus_everywhere(counts: tuple[int, ...], want: int | None) -> None:
    gpus = [node * 8 + i for node, count in enumerate(counts) for i in range(count)]
    found = even_counts(gpus, [("node", 8), ("rack", 16)])
    assert (None if found is None else len(found)) == want


def test_every_way_is_an_assignment_and_none_occurs_twice() -> None:
    for dims, gpus in (((2, 3, 4), range(24)), ((2, 6), [*range(5), *range(8, 15)]), ((1, 4, 1, 2), range(3, 11))):
        seen = [way.ids() for way in ways(dims, list(gpus), [("node", 4), ("rack", 12)])]
        assert all(sorted(ids) == list(gpus) for ids in seen) and len(set(seen)) == len(seen) > 1
