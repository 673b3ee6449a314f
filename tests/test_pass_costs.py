"""Passes of a phase share what none of their sizes changes, and cost what each would alone, to the last bit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from conftest import EXAMPLES, examples
from test_estimates import MODELS, drawn, spec_of
from test_kept_prices import differences, read

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost import chunks
from dagc.cost.pass_costs import PassCosts
from dagc.cost.price import price
from dagc.ir.noted_sizes import NotedSizes
from dagc.lang.load import load
from dagc.pipeline import analyse
from dagc.pipeline.lower import unverified
from dagc.spec.phase import Phase
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit


def compared(spec: Spec, phase: Phase) -> int:
    """How many passes of a phase were the same alone; 0: it does not compile."""
    unit = Unit(spec, phase, Collector())
    try:
        graph = unverified(unit)
        analyse.check(graph, unit)
    except SpecError:
        return 0
    sizes = chunks.sizes(phase)
    shared = PassCosts()
    found = [
        (price(analyse.of_size(graph, phase, size), unit, passes=shared), analyse.graph_flops(resized(graph, size), shared))
        for size in sizes
    ]  # fmt: skip
    for size, (costs, flops) in zip(sizes, found, strict=True):
        assert not list(differences(costs, price(analyse.of_size(graph, phase, size), unit)))
        assert flops == analyse.graph_flops(resized(graph, size))
    alone = tuple(analyse._priced(graph, unit, size, None) for size in sizes)
    together = analyse.price(graph, unit)
    if not phase.chunks_overlap:
        assert not list(differences(tuple(map(shown, together)), tuple(map(shown, alone))))
    return len(sizes)


def resized(graph: analyse.Graph, size: chunks.PassSize) -> analyse.Graph:
    return chunks.resized(graph, size.tokens, size.context)


def shown(chunk: analyse.Chunk) -> tuple[object, ...]:
    floor, own = chunk.floor, chunk.schedule
    return own.period_s, own.latency_s, own.stage_s, own.path, floor.period_s, floor.stage_s, chunk.costs


@pytest.mark.parametrize("name", MODELS)
def test_passes_cost_what_each_would_alone(name: str) -> None:
    """Of whatever layout: ranks that share a sequence unequally, exchanges, lanes, stages, experts of unequal loads."""
    rng = random.Random(name)
    spec = spec_of(name, "h200-sxm" if name != "dense" else "h100-sxm")
    met = 0
    for _ in range(40):
        phase = drawn(rng, replace(spec, phases=spec.phases[:1]))
        passes = rng.choice((2, 3, 5))
        phase = replace(
            phase, passes=passes, last=rng.choice((0, 96, 100)), context=0, tokens=rng.choice((128, 1000, 2048))
        )
        phase = replace(phase, context=rng.choice((0, 512)) + phase.new_tokens)
        met += compared(spec, phase) > 1
        if met == examples(1 if name == "groups" else 2):
            return
    raise AssertionError(f"{met} layouts compile")


def test_what_asks_for_the_context_is_found_anew() -> None:
    """And nothing else of a model whose attention sees the whole of it."""
    spec = read((EXAMPLES[0].parent / "deepseek_v4_flash_8xh200.moe").read_text())
    phase = spec.phase("prefill")
    unit = Unit(spec, phase, Collector())
    graph = unverified(unit)
    shared, made = PassCosts(), []
    for size in chunks.sizes(phase)[:3]:
        before = dict(shared.found)
        price(analyse.of_size(graph, phase, size), unit, passes=shared)
        made.append({key for key, one in shared.found.items() if before.get(key) is not one and key[0] == "op"})
    ops = {("op", segment.name, op.name) for segment in graph.segments for op in segment.ops}
    assert made[0] == ops and made[1] == made[2] and len(made[1]) < 0.1 * len(ops)
    assert all("context" in shared.found[key][2] for key in made[1])


def test_sizes_tell_what_they_are_asked_for() -> None:
    heard: list[str] = []
    sizes = NotedSizes({"seq": 2.0, "sampled:seq": 1.0}, heard.append)
    assert "seq" in sizes and list(sizes) == ["seq", "sampled:seq"] and len(sizes) == 2 and not heard
    assert sizes["seq"] == 2.0 and sizes.get("none") is None and heard == ["seq", "none"]
    assert dict(sizes.items()) == sizes.sizes and heard[2:] == ["seq", "sampled:seq"]


def test_a_cost_is_kept_with_all_that_it_follows_from() -> None:
    """Also what another one asked for that was found before, in whichever pass."""
    spec = load(Source("p", "moe 1\n" + DENSE), Collector())
    phase = spec.phases[0]
    graph = unverified(Unit(spec, phase, Collector()))
    shared, made = PassCosts(), []

    def inner(own: analyse.Graph) -> float:
        return shared.once(("inner",), lambda: own.segments[1].sizes["context"])

    def outer(own: analyse.Graph, given: object) -> float:
        def make() -> float:
            made.append(given)
            return inner(own) + own.segments[1].sizes["seq"]

        return shared.once(("outer",), make, given)

    one, other = object(), object()
    first = shared.begin(graph)
    assert inner(first) == 512 and outer(first, one) == outer(first, one) == 1024 and made == [one]
    assert outer(first, other) == 1024 and made == [one, other]
    again = shared.begin(graph)
    assert outer(again, other) == 1024 and made == [one, other]
    longer = shared.begin(chunks.resized(graph, 512, 768))
    assert outer(longer, other) == 1280 and made == [one, other, other]


DENSE = """hardware from "h100-sxm" { gpus = 8 }
model from "qwen3-32b" { }
workload { sequences = 1, prompt = 512 tok, output = 1 tok }
phase prefill { gpus = 0..7, tp = 8 }
"""
