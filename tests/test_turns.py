"""Layers that alternate take a turn's time as often as turns follow each other: against the same layers one by one."""

from __future__ import annotations

import random
from functools import cache

import pytest
from conftest import examples, spec_text
from tiers import in_turn

from dagc.base.diagnostics import Collector
from dagc.base.frozen import replace
from dagc.base.source import Source
from dagc.cost.price import price
from dagc.cost.records import Costs
from dagc.cost.schedule import even, scheduler
from dagc.cost.schedule.even import EvenSchedule
from dagc.cost.schedule.layer_program import program
from dagc.cost.schedule.records import Schedule
from dagc.cost.schedule.scheduler import Scheduler
from dagc.cost.schedule.turns import LEAST, Turn, turns
from dagc.cost.schedule.uneven import UnevenSchedule
from dagc.cost.schedule.verify_schedule import verify_schedule
from dagc.ir.graph import Graph, runs
from dagc.lang.load import load
from dagc.pipeline.lower import lowered
from dagc.spec.unit import Unit

MODEL = """hidden = 64, vocab = 512, dtype = bf16
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
experts { count = 8, top_k = 2, hidden = 32 }, mlp { hidden = 128 }
stack = [embed, each(8, if(equal(mod(index, 2), 1), sparse, dense)), lm_head]"""
PHASES = {
    "even": ("gpus = 0..7, ep = 4, tp = 2", ""),
    "stages": ("gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 4", ""),
    "lanes": ("gpus = 0..15, pp = 2, ep = 8, overlap = two_batch", ""),
    "uneven": ("gpus = 0..15, pp = 2, ep = 8, microbatches = 2", ", routing = zipf(1)"),
}


def one_by_one(layers: tuple[tuple[str, int], ...]) -> tuple[Turn, ...]:
    return (Turn(layers, 1),)


@cache
def priced(name: str, kind: str) -> tuple[Graph, Costs]:
    phase, routing = PHASES[name]
    text = spec_text(
        kind=kind, phase=phase, model=MODEL, workload=f"sequences = 64, prompt = 256 tok, output = 16 tok{routing}"
    )
    spec = load(Source("s.moe", text), Collector())
    unit = Unit(spec, spec.phases[0])
    graph = lowered(unit)
    return graph, price(graph, unit)


def orders(rng: random.Random, count: int) -> list[str]:
    """Names of layers: periods of one to nine, with remainders, breaks and runs."""
    found: list[str] = []
    while len(found) < count:
        period = [rng.choice(("dense", "sparse")) for _ in range(rng.randint(1, 9))]
        found += period * rng.choice((1, 2, 5, 12))
        found += [rng.choice(("dense", "sparse")) for _ in range(rng.randint(0, 3))]
    return found[:count]


def ordered(graph: Graph, names: list[str]) -> Graph:
    """The graph with these layers between embedding and head, dealt out to its stages."""
    each = -(-len(names) // len(graph.stages))
    parts = [names[k * each : (k + 1) * each] for k in range(len(graph.stages))]
    parts[0] = ["embed", *parts[0]]
    parts[-1] = [*parts[-1], "lm_head"]
    stages = tuple(replace(stage, layers=runs(part)) for stage, part in zip(graph.stages, parts, strict=True))
    return replace(graph, stages=stages)


def test_sequences_that_repeat_are_found() -> None:
    a, b, c = ("a", 1), ("b", 1), ("c", 5)
    assert turns((a, b) * 500) == (Turn((a, b), 500),)
    assert turns((c, *(a, b) * 4, a)) == (Turn((c,), 1), Turn((a, b), 4), Turn((a,), 1))
    assert turns((c, a) * 10) == (Turn((c, a), 10),)
    assert turns((a, b) * (LEAST - 1)) == tuple(Turn((one,), 1) for one in (a, b) * (LEAST - 1))
    assert turns(()) == ()
    for seed in range(examples(200)):
        rng = random.Random(seed)
        layers = runs(orders(rng, rng.randint(1, 60)))
        found = turns(layers)
        assert tuple(each for turn in found for _ in range(turn.times) for each in turn.layers) == layers


@pytest.mark.parametrize(("name", "kind"), in_turn(PHASES, ["prefill", "decode"]))
def test_turns_take_what_their_layers_take(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, costs = priced(name, kind)
    rng = random.Random(f"{name}{kind}")
    folded = 0
    for _ in range(examples(5, 5)):
        own = ordered(graph, orders(rng, rng.randint(4, 90)))
        found = Scheduler(own, costs).run()
        verify_schedule(own, found)
        paced = Scheduler(own, costs).paced()
        assert (paced.period_s, paced.stage_s, paced.path) == (found.period_s, found.stage_s, found.path)
        with monkeypatch.context() as context:
            context.setattr(scheduler, "turns", one_by_one)
            slow = Scheduler(own, costs).run()
        same(found, slow)
        folded += sum(part.times > 1 for row in found.cells for cell in row for part in cell.parts)
    assert folded


def same(found: Schedule, slow: Schedule) -> None:
    """Every time of every run, and the path."""
    for a, b in ((found.latency_s, slow.latency_s), (found.period_s, slow.period_s)):
        assert a == pytest.approx(b, rel=1e-12)
    assert found.stage_s == pytest.approx(slow.stage_s, rel=1e-12)
    near = 1e-12 * slow.latency_s
    for row, other in zip(found.cells, slow.cells, strict=True):
        for cell, wanted in zip(row, other, strict=True):
            assert len(cell) == len(wanted) == len(list(cell))
            assert [(r.segment, r.count) for r in cell] == [(r.segment, r.count) for r in wanted]
            for key in ("start_s", "period_s", "end_s"):
                assert [getattr(r, key) for r in cell] == pytest.approx([getattr(r, key) for r in wanted], abs=near)
            for a, b in zip(cell, wanted, strict=True):
                assert a.starts.keys() == b.starts.keys()
                assert all(abs(a.finishes[node] - b.finishes[node]).max() <= near for node in a.finishes)
    path, wanted_path = ({(s.segment, s.op): s for s in each.path} for each in (found, slow))
    assert {key: step.count for key, step in path.items()} == {key: step.count for key, step in wanted_path.items()}
    for key, step in path.items():
        assert step.time_s == pytest.approx(wanted_path[key].time_s, rel=1e-12, abs=near)
    assert sum(s.time_s for s in found.path) == pytest.approx(found.period_s, rel=1e-9)


@pytest.mark.parametrize("name", PHASES)
def test_figures_alone_are_those_of_schedules(name: str) -> None:
    """Bit for bit."""
    graph, costs = priced(name, "decode")
    own = ordered(graph, ["dense", "sparse", "sparse"] * 20 + ["dense"])
    found = Scheduler(own, costs).run()
    places = {key: k for k, key in enumerate(costs.ops)}
    kind = UnevenSchedule if name == "uneven" else EvenSchedule
    times = [cost.time_s if cost.time_s.size > 1 else float(cost.time_s.item()) for cost in costs.ops.values()]
    sends = [edge.time_s for edge in costs.edges]
    quick = kind(own, places).times_s(times, sends, costs.token_return.time_s, costs.host_s, 0.0)
    assert (quick.period_s, quick.latency_s, quick.stage_s) == (found.period_s, found.latency_s, found.stage_s)
    assert any(turn.times > 1 for stage in own.stages for turn in even.turns(stage.layers))


def test_many_layers_are_evaluated_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, costs = priced("even", "decode")
    met: list[int] = []
    run_layers = Scheduler.run_layers

    def counted(self: Scheduler, layers: tuple[tuple[str, int], ...], state: scheduler.State) -> object:
        met.append(len(layers))
        return run_layers(self, layers, state)

    monkeypatch.setattr(Scheduler, "run_layers", counted)
    sums = []
    for count in (10, 1000):
        met.clear()
        found = Scheduler(ordered(graph, ["dense", "sparse"] * (count // 2)), costs).run()
        assert len(found.cells[0][0]) == count + 2
        sums.append(sum(met))
    assert sums[0] == sums[1] <= 20


def test_a_program_is_shared_by_graphs_of_other_sizes_and_by_no_others() -> None:
    graph, costs = priced("even", "decode")
    places = {key: k for k, key in enumerate(costs.ops)}
    segment = graph.segment("sparse")
    other = segment.with_sizes({**segment.sizes, "batch": 2.0})
    assert program(graph, segment, places) is program(graph, other, places)
    later = {key: k + 1 for key, k in places.items()}
    assert program(graph, segment, later).steps[0].time == program(graph, segment, places).steps[0].time + 1
    two = replace(graph, lanes=2)
    assert len(program(two, segment, places).results) == 2 and len(program(graph, segment, places).results) == 1
    assert program(graph, replace(segment, ops=segment.ops), places) is not program(graph, segment, places)
