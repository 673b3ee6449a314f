"""`stages = balanced`: the cut of layers whose busiest stage takes the least time, against every cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import spec_text
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost.partition import least_most
from dagc.importers.placed import read_plan
from dagc.lang.open_spec import load_open
from dagc.optimize.search.optimum import Asked, search
from dagc.pipeline.stage_cut import balanced_phase, waits
from dagc.plan.result import PhaseResult
from dagc.spec.factors import even_stages
from dagc.spec.strategy import Strategy


def cuts(layers: int, stages: int) -> Iterator[tuple[int, ...]]:
    for inner in combinations(range(1, layers), stages - 1):
        edges = (0, *inner, layers)
        yield tuple(b - a for a, b in pairwise(edges))


def model(layers: int, dense: int, vocab: int, kind: str = "gqa, heads = 8, kv_heads = 4, head_dim = 64") -> str:
    return (
        f"layers = {layers}, dense_first = {dense}, hidden = 1024, vocab = {vocab}, dtype = bf16\n"
        f"attention {{ kind = {kind} }}\nmlp {{ hidden = 8192 }}\nexperts {{ count = 8, top_k = 2, hidden = 1024 }}"
    )


def plan(kind: str, phase: str, text: str, extra: str = "", gpus: int = 64) -> Plan:
    work = "sequences = 32, prompt = 512 tok, output = 64 tok"
    return dagc.compile_text(spec_text(kind=kind, phase=phase, model=text, workload=work, extra=extra, gpus=gpus))


def strategy(found: Plan, phase: str) -> Strategy:
    return found.spec.phase(phase).strategy


def layers_of(result: PhaseResult) -> tuple[int, ...]:
    """Of each stage, embedding and head left out."""
    counts = [sum(n for _, n in stage.layers) for stage in result.graph.stages]
    counts[0] -= 1
    counts[-1] -= 1
    return tuple(counts)


@pytest.mark.parametrize(
    ("kind", "layers", "dense", "vocab", "pp", "more"),
    spread(
        [
            ("prefill", 6, 2, 128000, 3, "microbatches = 4"),
            ("decode", 6, 2, 256000, 4, "microbatches = 4, overlap = two_batch"),
            ("decode", 7, 3, 1000, 2, "microbatches = 1"),
        ],
        lambda case: "two_batch" not in case[-1],
    ),
)
def test_no_cut_is_faster(kind: str, layers: int, dense: int, vocab: int, pp: int, more: str) -> None:
    phase = f"gpus = 0..{2 * pp - 1}, pp = {pp}, ep = 2, {more}"
    text = model(layers, dense, vocab)
    found = plan(kind, f"{phase}, stages = balanced", text)
    every = {cut: plan(kind, f"{phase}, layers_per_stage = {list(cut)}", text).phases[kind] for cut in cuts(layers, pp)}
    own = found.phases[kind]
    assert own.time_s == every[layers_of(own)].time_s
    assert own.time_s <= min(one.time_s for one in every.values()) * (1 + 1e-9)
    busiest = {cut: max(one.schedule.stage_s) for cut, one in every.items()}
    assert max(own.schedule.stage_s) <= min(busiest.values()) * (1 + 1e-9)
    equal = [cut for cut, time in busiest.items() if time <= min(busiest.values()) * (1 + 1e-9)]
    assert own.memory.fraction <= min(every[cut].memory.fraction for cut in equal) * (1 + 1e-9)
    assert len(set(busiest.values())) > 1


def test_what_does_not_fit_is_no_cut() -> None:
    """With less memory the fastest cut is left for the fastest that fits; with less still, the one that needs least is told."""
    phase, text = "gpus = 0..2, pp = 3, microbatches = 4, {}", model(7, 4, 32000)

    def of(memory: str, how: str) -> PhaseResult:
        source = spec_text(
            kind="decode",
            phase=phase.format(how),
            model=text,
            workload="sequences = 32, prompt = 512 tok, output = 64 tok",
        )
        return dagc.compile_text(source.replace("memory = 64 GB", f"memory = {memory}")).phases["decode"]

    free = of("64 GB", "stages = balanced")
    every = {cut: of("64 GB", f"layers_per_stage = {list(cut)}") for cut in cuts(7, 3)}
    peaks = {cut: one.memory.worst.peak_B for cut, one in every.items()}
    tight_B = (min(peaks.values()) + free.memory.worst.peak_B) / 2
    assert min(peaks.values()) < tight_B < free.memory.worst.peak_B
    tight = of(f"{tight_B} B", "stages = balanced")
    assert tight.memory.fits and tight.time_s > free.time_s
    assert max(tight.schedule.stage_s) == min(
        max(one.schedule.stage_s) for cut, one in every.items() if peaks[cut] <= tight_B
    )
    assert of(f"{min(peaks.values())} B", "stages = balanced").memory.worst.peak_B == min(peaks.values())


def test_phases_on_the_same_gpus_are_cut_alike() -> None:
    """So weights are stored once, whatever each of them alone would be cut into."""
    text = model(9, 3, 256000)
    shared = "gpus = 0..2, pp = 3, microbatches = 4, stages = balanced"
    both = plan("prefill", shared, text, f"phase decode {{ {shared} }}")
    assert strategy(both, "prefill").layers_per_stage == strategy(both, "decode").layers_per_stage
    alone = [strategy(plan(kind, shared, text), kind).layers_per_stage for kind in ("prefill", "decode")]
    assert alone[0] != alone[1]
    apart = plan("prefill", shared, text, f"phase decode {{ {shared.replace('0..2', '3..5')} }}")
    assert [strategy(apart, kind).layers_per_stage for kind in ("prefill", "decode")] == alone


def test_a_placed_graph_keeps_its_cut_and_its_proof_holds(tmp_path: Path) -> None:
    found = plan("decode", "gpus = 0..3, pp = 2, tp = 2, stages = balanced, microbatches = 2", model(5, 2, 32000))
    assert found.prove("decode").holds
    file = tmp_path / "p.decode.graph.json"
    file.write_text(json.dumps(found.placed("decode")))
    again = read_plan(file)
    assert again.phases["decode"].time_s == found.phases["decode"].time_s
    assert layers_of(again.phases["decode"]) == layers_of(found.phases["decode"])


@pytest.mark.parametrize(
    ("phase", "code", "words"),
    [
        ("gpus = 0..15, pp = 16, stages = balanced", "E03", "pp 16 stages need a layer each, of 9"),
        ("gpus = 0..2, pp = 3, stages = balanced, layers_per_stage = [3, 3, 3]", "E12", "gives the cut"),
        ("gpus = 0..1, pp = 2", "E03", "9 layers cannot be divided by pp 2 stages"),
    ],
)
def test_where_it_cannot_be(phase: str, code: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        plan("decode", phase, model(9, 3, 1000))
    found = error.value.diagnostics[0]
    assert found.code == code and words in found.message
    assert ("pp = 2" in phase) == any("stages = balanced" in line for line in found.help)


def test_a_search_takes_stages_that_do_not_divide() -> None:
    phase = "gpus = 0..5, pp = any, dp = any, microbatches = 4, stages = any"
    text = spec_text(
        kind="decode",
        phase=phase,
        model=model(10, 5, 128000),
        workload="sequences = 32, prompt = 512 tok, output = 64 tok",
    )
    answer = search(load_open(Source("plan.moe", text), Collector()), Asked(("tpot",)))
    assert answer.best is not None
    times = {}
    for pp in (1, 2, 3, 6):
        for stages in ("even", "balanced"):
            own = text.replace("pp = any, dp = any", f"pp = {pp}, dp = {6 // pp}").replace(
                "stages = any", f"stages = {stages}"
            )
            try:
                times[pp, stages] = dagc.compile_text(own).phases["decode"].time_s
            except SpecError:
                continue
    assert set(times) == {(1, "even"), (1, "balanced"), (2, "even"), (2, "balanced"), (3, "balanced"), (6, "balanced")}
    assert answer.best.figures[0] == min(times.values())


@pytest.mark.parametrize("seed", range(50))
def test_the_partition_is_that_of_every_cut(seed: int) -> None:
    """Of random ranges, some of them no stage: the largest by the first matrix, then by the second, then the most even."""
    rng = np.random.default_rng(seed)
    layers, stages = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    first, second = rng.integers(0, 5, (2, layers + 1, layers + 1)).astype(float)
    first[rng.random(first.shape) < 0.2] = np.inf
    for own in (first, second):
        own[np.tril_indices(layers + 1)] = np.inf

    def key(cut: tuple[int, ...]) -> tuple[float, float, int]:
        edges = np.cumsum((0, *cut))
        ranges = list(pairwise(edges))
        return max(first[r] for r in ranges), max(second[r] for r in ranges), sum(n * n for n in cut)

    found = least_most([first, second], stages)
    legal = {cut: key(cut) for cut in cuts(layers, stages)} if stages <= layers else {}
    legal = {cut: value for cut, value in legal.items() if np.isfinite(value[0])}
    if not legal:
        assert found is None
        return
    assert found is not None
    assert key(tuple(np.diff(found))) == min(legal.values())


def test_an_unresolved_strategy_is_cut_evenly() -> None:
    """What lowers a phase without asking for the cut gets stages as equal as they can be."""
    assert even_stages(10, 4) == (3, 3, 2, 2)
    found = plan("decode", "gpus = 0..2, pp = 3, stages = balanced, microbatches = 4", model(9, 3, 128000))
    phase = found.spec.phase("decode")
    open_ = replace(phase, strategy=replace(phase.strategy, layers_per_stage=None))
    assert waits(open_.strategy) and not waits(phase.strategy)
    assert balanced_phase(found.spec, open_) == phase
