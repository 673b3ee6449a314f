"""Phases whose GPUs hold some of their experts: copies in the graph, their time and memory, and what fills the caches."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from itertools import product

import jsonschema
import numpy as np
import pytest
from conftest import ROOT
from tiers import left_out

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost.cached_experts import missed, needed
from dagc.cost.routing import expert_probabilities
from dagc.execute.prove import prove
from dagc.export.engines.launch import export
from dagc.export.json import graph_object
from dagc.ir.ops.attributes.copies import ExpertCopyAttrs
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.open_spec import load_open
from dagc.lang.printer.print_spec import print_spec
from dagc.optimize.search.optimum import Asked, search
from dagc.plan.plan import CompiledPlan
from dagc.plan.result import PhaseResult
from dagc.spec.workload import Routing

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s, launch = 0 us, HOST
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small { layers = LAYERS, hidden = 256, vocab = 64, dtype = bf16
  attention { heads = 4, kv_heads = 2, head_dim = 64 }
  experts { count = 8, top_k = 2, hidden = 512 } }
workload { sequences = 4, prompt = 16 tok, output = 4 tok, routing = ROUTING }
PHASE
"""
EXPERT_B = 3 * 256 * 512 * 2
ALONE = "phase decode { gpus = 0..0, experts { USE } }"
FOUR = "phase decode { gpus = 0..3, attention { dp = 4 }, experts { ep = 4, USE } }"


@cache
def compiled(
    use: str, phase: str = ALONE, host: str = "host_link = 10 GB/s", layers: int = 2, routing: str = "uniform"
) -> CompiledPlan:
    text = SPEC.replace("HOST", host).replace("LAYERS", str(layers)).replace("ROUTING", routing)
    return dagc.compile_text(text.replace("PHASE", phase.replace("USE", use)))


def result(*given: str, **named: object) -> PhaseResult:
    return compiled(*given, **named).phases["decode"]  # type: ignore[arg-type]


def needs(tokens: int, chance: float = 0.25) -> float:
    """Experts of a layer that so many tokens choose."""
    return 8 * (1 - (1 - chance) ** tokens)


# -- graph ---------------------------------------------------------------------------------------


def test_what_comes_ahead_comes_behind_what_is_needed_now() -> None:
    segment = result("resident = 4, prefetch = next_layer(hit = 75%)").graph.segment("sparse")
    copies = [op for op in segment.ops if isinstance(op.attrs, ExpertCopyAttrs)]
    assert [op.is_ahead for op in copies] == [False] * 3 + [True] * 3
    assert [op.of(ExpertCopyAttrs).share for op in copies] == [0.25] * 3 + [1.0] * 3
    assert all(op.stream == "copy" for op in copies) and all("moe.r" in op.inputs for op in copies[:3])
    readers = {op.inputs[1] for op in segment.ops if op.kind == "contract" and op.scope == "experts"}
    assert readers == {op.name for op in copies[:3]}


def test_without_the_word_there_is_no_copy() -> None:
    plain = result("skip = 0")
    assert not plain.graph.copies and plain.expert_cache is None


@pytest.mark.parametrize("use", ["resident = 8", "resident = 8, cache = frequency, prefetch = next_layer(hit = 50%)"])
@pytest.mark.parametrize("phase", [ALONE, FOUR])
def test_with_all_experts_on_gpus_the_graph_is_the_plain_one(use: str, phase: str) -> None:
    """Every file that has it, too; what caches would hold is known in closed form, at a share of one."""
    own, plain = result(use, phase), result("skip = 0", phase)
    assert own.graph == plain.graph and print_graph(own.graph) == print_graph(plain.graph)
    assert graph_file(compiled(use, phase)) == graph_file(compiled("skip = 0", phase))
    cached = own.expert_cache
    assert cached is not None and (cached.found, cached.copied_B, cached.steps) == (1.0, 0.0, None)
    ranks = 1 if phase == ALONE else 4
    assert cached.held_B == 2 * 8 // ranks * EXPERT_B and cached.slowdown == cached.cold_slowdown == 1.0
    found, wanted = (compiled(one, phase).to_json()["phases"]["decode"] for one in (use, "skip = 0"))
    assert found.pop("expert_cache")["found"] == 1.0 and found == wanted


def graph_file(plan: CompiledPlan) -> str:
    """The placed graph, as other programs read it."""
    found = graph_object(plan, "decode")
    return json.dumps([found["ir"], found["nodes"], found["edges"]])


def test_the_graph_is_printed_and_read_back() -> None:
    text = print_graph(result("resident = 4, prefetch = next_layer(hit = 80%)", FOUR).graph)
    assert "expert_copy(@moe.Wg, %moe.r, prefetch=false, resident=4, share=0.2)" in text
    assert print_graph(parse_graph(text)) == text


@pytest.mark.parametrize(
    "phase", [left_out(ALONE), FOUR, FOUR.replace("decode {", "prefill {").replace("dp = 4", "dp = 2, tp = 2")]
)
def test_it_is_proved(phase: str) -> None:
    """Numbers, bytes, FLOPs, and of weights what GPUs hold."""
    plan = compiled("resident = 4, prefetch = next_layer(hit = 80%)", phase)
    (name,) = plan.phases
    assert prove(plan, name).verdict == "equal"


# -- time: the closed forms ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "use", ["resident = 8", "resident = 4, hits = 100%", "resident = 4, hits = 100%, prefetch = next_layer"]
)
@pytest.mark.parametrize("phase", [ALONE, FOUR])
def test_where_everything_is_found_it_is_as_fast_as_with_all_on_gpus(use: str, phase: str) -> None:
    """To the last bit."""
    assert result(use, phase).time_s == result("skip = 0", phase).time_s


def test_where_nothing_is_there_a_step_waits_for_all_that_it_needs() -> None:
    """Without overlap the sum: on one GPU nothing runs beside the copies but the first products, while the last matrices come."""
    cold, plain = result("resident = 4, warm = false"), result("skip = 0")
    copied_B = needs(4) * EXPERT_B
    copies_s = 2 * copied_B / 10e9
    assert 0.99 * copies_s <= cold.time_s - plain.time_s <= copies_s * (1 + 1e-9)
    assert cold.expert_cache is not None and cold.expert_cache.found == 0.0
    assert cold.expert_cache.cold_s == cold.expert_cache.own_s


def test_half_there_is_half_the_copies() -> None:
    own, plain = result("resident = 4"), result("skip = 0")
    assert own.expert_cache is not None and own.expert_cache.found == pytest.approx(0.5)
    assert own.time_s - plain.time_s == pytest.approx(2 * 0.5 * needs(4) * EXPERT_B / 10e9, rel=0.01)
    assert own.expert_cache.copied_B == pytest.approx(2 * 0.5 * needs(4) * EXPERT_B, rel=0.01)
    assert own.expert_cache.all_s == plain.time_s


@pytest.mark.parametrize("link_Bps", [1e9, 10e9, 1e15])
def test_what_is_foretold_is_hidden_or_bounds_the_step(link_Bps: float) -> None:
    """With full overlap the longer of both, layer by layer."""
    use, host = "resident = 4, prefetch = next_layer", f"host_link = {link_Bps:g} B/s"
    own, plain = result(use, host=host, layers=16), result("skip = 0", host=host, layers=16)
    copies_s = 16 * 0.5 * needs(4) * EXPERT_B / link_Bps
    assert own.time_s >= max(plain.time_s, copies_s) * (1 - 1e-9)
    assert own.time_s <= max(plain.time_s, copies_s) + (plain.time_s + copies_s) / 8


def test_what_is_foretold_wrongly_comes_twice() -> None:
    none, right, half = (
        result(f"resident = 4, prefetch = {ahead}").expert_cache
        for ahead in ("none", "next_layer", "next_layer(hit = 50%)")
    )
    assert none and right and half
    assert right.copied_B == pytest.approx(none.copied_B) and half.copied_B == pytest.approx(1.5 * none.copied_B)


def test_the_rules_are_those_of_the_model() -> None:
    """Skewed choices on four ranks: the share that is found is that of all ranks together."""
    routing, tokens = Routing("zipf", 1.2), 4
    p, slots = expert_probabilities(routing, 8, 2), np.arange(8).reshape(4, 2)
    q = needed(p, slots, tokens)
    for rule in ("lru", "frequency"):
        own = result(f"resident = 4, cache = {rule}", FOUR, routing="zipf(1.2)").expert_cache
        share = missed(q, 1, rule) / q.sum(axis=1)
        assert own is not None and 1 - share.max() <= own.found <= 1 - share.min()
    measured = result("resident = 4, hits = 70%", FOUR, routing="zipf(1.2)").expert_cache
    assert measured is not None and measured.found == pytest.approx(0.7)


def test_a_trace_takes_the_place_of_drawn_steps() -> None:
    """Two experts in turn on a rank that has room for one: none is ever found; the popular ones of the other ranks always are."""
    steps = [[1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0, 1, 0]]
    said = f"resident = 4, trace = [{', '.join(f'[{step}]' for step in steps)}]"
    own = result(said, FOUR).expert_cache
    assert own is not None and own.found == pytest.approx(3 / 4)
    again = dagc.compile_text(print_spec(compiled(said, FOUR).spec)).spec.phase("decode").experts
    assert again == compiled(said, FOUR).spec.phase("decode").experts
    popular = result(said.replace("resident = 4", "resident = 4, cache = frequency"), FOUR).expert_cache
    assert popular is not None and popular.found == pytest.approx(1 - 0.5 / 4)


def test_mixtral_on_one_a5000() -> None:
    """MoE-Infinity (arXiv 2401.14361) reports 0.735 s a token there, of which copies are nearly all: one of eight experts of a layer fits
    beside the rest in 24 GB. Datasheet of the GPU: 768 GB/s, PCIe 4 x16, of which four fifths are taken."""
    plan = dagc.compile_text("""moe 1
hardware a5000 { gpus = 1, per_node = 1, compute = 111 TFLOP/s, memory = 24 GB, hbm = 768 GB/s, host_link = 25 GB/s
  link node { bandwidth = 25 GB/s, latency = 5 us }, link cluster { bandwidth = 3 GB/s, latency = 9 us } }
model from "mixtral-8x7b" { }
workload { sequences = 1, prompt = 512 tok, output = 32 tok }
phase decode { gpus = 0..0, experts { resident = 1 } }
""")
    assert plan.phases["decode"].time_s == pytest.approx(0.735, rel=0.3)
    assert plan.phases["decode"].memory.worst.peak_B < 24e9


# -- memory --------------------------------------------------------------------------------------


def test_gpus_hold_some_and_hosts_the_rest() -> None:
    plain, own = result("skip = 0", FOUR), result("resident = 4", FOUR)
    routed_B = 2 * 2 * EXPERT_B  # two experts of two layers on a rank
    assert plain.memory.worst.weights_B - own.memory.worst.weights_B == pytest.approx(routed_B / 2)
    kept = {rule: result(f"resident = 4, cache = {rule}", FOUR).expert_cache for rule in ("lru", "frequency")}
    assert kept["lru"] and kept["frequency"]
    assert kept["lru"].host_B == pytest.approx(routed_B) and kept["frequency"].host_B == pytest.approx(routed_B / 2)
    assert kept["lru"].held_B == pytest.approx(routed_B / 2) == kept["lru"].fill_s * 10e9
    assert own.memory.worst.buffers_B > plain.memory.worst.buffers_B


def test_hosts_may_be_full() -> None:
    full = compiled("resident = 4", FOUR, "host_link = 10 GB/s, host_memory = 1 MB")
    assert any("hosts have no room" in d.message for d in full.diagnostics)
    assert not compiled("resident = 4", FOUR, "host_link = 10 GB/s, host_memory = 1 GB").diagnostics


def test_two_phases_hold_what_either_holds() -> None:
    both = (
        FOUR.replace("USE", "resident = 4")
        + "\nphase other { kind = decode, gpus = 0..3, attention { dp = 4 }, experts { ep = 4 } }"
    )
    plan = compiled("", both)
    (pool,) = (pool for pool in plan.pools if pool.shared)
    assert pool.weights_B == pytest.approx(plan.phases["other"].memory.worst.weights_B)


# -- warm-up -------------------------------------------------------------------------------------


def test_how_long_it_takes_until_experts_are_there() -> None:
    own = result("resident = 4", FOUR, "host_link = 10 GB/s, disk = 5 GB/s").expert_cache
    assert own is not None and own.steps is not None
    assert own.load_s == pytest.approx(2 * 8 * EXPERT_B / 5e9)  # all experts of both layers, on one host
    q = needs(4) / 8  # of the two experts of a rank one has room: 2 (1 - (1 - q)^t) = 1
    assert 2 * (1 - (1 - q) ** own.steps) == pytest.approx(1)
    assert own.warm_s == pytest.approx(own.fill_s + own.steps * own.all_s)
    told = result("resident = 4, cache = frequency", FOUR).expert_cache
    assert told is not None and told.steps is None and told.warm_s == told.fill_s and told.load_s is None


def test_the_report_says_it() -> None:
    text = " ".join(compiled("resident = 4, prefetch = next_layer(hit = 80%)", FOUR).report().split())
    assert "GPUs hold 4 of a layer (those used last)" in text and "80% of them named by the layer before" in text


@pytest.mark.parametrize("use", ["resident = 6, skip = 20%", "resident = 4, prefetch = next_layer(hit = 80%)"])
def test_a_search_finds_the_fastest_of_all(use: str) -> None:
    """Against every plan compiled; those whose ranks cannot hold as many experts each are refused by both."""
    phase = "phase decode {{ gpus = 0..3, attention {{ dp = {}, tp = {} }}, experts {{ ep = {}, {} }} }}"
    degrees, times = (1, 2, 4), []
    for chosen in product(degrees, degrees, degrees):
        with suppress(SpecError):
            times.append(compiled("", phase.format(*chosen, use)).phases["decode"].time_s)
    text = SPEC.replace("HOST", "host_link = 10 GB/s").replace("LAYERS", "2").replace("ROUTING", "uniform")
    opened = load_open(Source("plan.moe", text.replace("PHASE", phase.format(*["any(1, 2, 4)"] * 3, use))), Collector())
    found = search(opened, Asked(("tpot",), top=1))
    assert found.complete and found.ranked[0].figures[0] == min(times)
    own = found.certificate
    assert own.costed + own.bounded + own.equal == len(times) and not own.broken


def test_its_json_is_as_the_schema_says() -> None:
    plan = compiled("resident = 4, prefetch = next_layer(hit = 80%)", FOUR, "host_link = 10 GB/s, disk = 5 GB/s")
    data = plan.to_json()
    found, own = data["phases"]["decode"]["expert_cache"], plan.phases["decode"].expert_cache
    assert own is not None and (found["copied_B"], found["warm_s"], found["load_s"]) == (
        own.copied_B,
        own.warm_s,
        own.load_s,
    )
    schema = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(data)), schema)
    assert "expert_cache" not in compiled("skip = 0", FOUR).to_json()["phases"]["decode"]


# -- words ---------------------------------------------------------------------------------------


def test_it_is_printed_and_read_back() -> None:
    plan = compiled("resident = 4, cache = frequency, prefetch = next_layer(hit = 80%), warm = false, hits = 60%", FOUR)
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.spec.phase("decode").experts == plan.spec.phase("decode").experts


@pytest.mark.parametrize(
    ("use", "phase", "code"),
    [
        ("cache = frequency", ALONE, "E10"),
        ("resident = 9", ALONE, "E03"),
        ("resident = 4, hits = 50%, trace = [[[1, 0, 1, 1, 1, 1, 1, 1]]]", ALONE, "E12"),
        ("resident = 4, trace = [[[1, 0]]]", ALONE, "E05"),
        ("resident = 3", FOUR, "E03"),
        ("resident = 4, prefetch = next", ALONE, "E02"),
        ("resident = 4", FOUR.replace("USE }", "USE }, overlap = two_batch"), "E12"),
        ("resident = 4", "phase t { kind = train, gpus = 0..0, experts { USE } }", "E12"),
        (
            "resident = 4",
            "phase decode { gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4, USE } }",
            "E12",
        ),
    ],
)
def test_what_does_not_go_is_said(use: str, phase: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled(use, phase)
    assert code in {d.code for d in error.value.diagnostics}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "megatron"])
def test_engines_refuse_it(engine: str) -> None:
    """But not where GPUs hold all."""
    try:
        export(compiled("resident = 8", FOUR), engine, "org/model", "p", None)
    except SpecError as error:
        assert "resident" not in str(error)
    with pytest.raises(SpecError) as error:
        export(compiled("resident = 4", FOUR), engine, "org/model", "p", None)
    said = [line for d in error.value.diagnostics for line in (d.message, *d.because)]
    assert {d.code for d in error.value.diagnostics} == {"E05"} and any("resident = 4" in line for line in said)
