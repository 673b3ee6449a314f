"""Blocks that run as one kernel: launches and bytes by hand, and what is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector
from dagc.base.frozen import fields_of
from dagc.base.source import Source
from dagc.cost.fused_blocks import runs_of
from dagc.cost.price import price
from dagc.cost.records import OpCost
from dagc.ir.ops.op_set import OPS
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.optimize.search.exact import Judge
from dagc.optimize.search.glance import annotated
from dagc.plan.subject import phase_metrics
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

LAYERS, LAUNCH_S, HBM = 4, 2e-6, 1.8e12 * 0.8
DENSE = (
    "layers = 4, hidden = 64, vocab = 512, dtype = fp32\n"
    "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 256 }"
)


@cache
def plan(fuse: str = "", phase: str = "gpus = 0..0", model: str = DENSE) -> Plan:
    said = f", fuse = {fuse}" if fuse else ""
    return dagc.compile_text(spec_text(kind="decode", phase=f"{phase}{said}", model=model))


def launched(found: Plan) -> float:
    return phase_metrics(found.subject("decode"))["launches"].value


def ops(found: Plan, block: str) -> dict[str, tuple[float, float, float]]:
    """(bytes, seconds, seconds of launches) of the ops of a block in a layer."""
    result = found.phases["decode"]
    (segment,) = result.graph.body
    costs = {op.name: result.costs.ops[segment.name, op.name] for op in segment.ops if op.block == block}
    return {name: (cost.bytes, float(cost.time_s.max()), cost.launch_s) for name, cost in costs.items()}


def test_every_op_may_be_a_kernel_of_its_own() -> None:
    engine, apart = plan(), plan("none")
    graph = engine.phases["decode"].graph
    riding = sum(s.repeat for s in graph.segments for op in s.ops if OPS[op.kind].fused and not OPS[op.kind].local)
    assert riding and launched(apart) - launched(engine) == riding
    slower_s = apart.phases["decode"].schedule.period_s - engine.phases["decode"].schedule.period_s
    assert slower_s == pytest.approx(riding * LAUNCH_S)


def test_what_is_between_ops_of_a_kernel_is_not_moved() -> None:
    """The feed-forward reads its input twice (the norm, and the sum behind it) and its matrices, and writes its result: nothing else."""
    row_B, weights_B = 64 * 64 * 4, 3 * 64 * 256 * 4 + 64 * 4
    one = ops(plan("[mlp]"), "mlp")
    assert sum(size for size, _, _ in one.values()) == 3 * row_B + weights_B
    assert sum(launch for _, _, launch in one.values()) == LAUNCH_S
    apart = ops(plan(), "mlp")
    inner_B = sum(size for size, _, _ in apart.values()) - sum(size for size, _, _ in one.values())
    # The norm's row to two products, two wide rows to what multiplies them and from there to the last product, whose row goes to the sum.
    assert inner_B == (3 + 2) * row_B + 4 * 2 * 4 * row_B
    assert sum(t for _, t, _ in one.values()) < sum(t for _, t, _ in apart.values())


@pytest.mark.parametrize(("phase", "runs"), [("gpus = 0..0", 1), ("gpus = 0..1, tp = 2", 3)])
def test_exchanges_come_between_kernels(phase: str, runs: int) -> None:
    """Of a layer with one rank one kernel; two of tp add up behind attention and behind the feed-forward."""
    (segment,) = plan("full", phase).phases["decode"].graph.body
    assert len({run for name, run in runs_of(segment).items() if segment.by_name[name].kernel}) == runs
    assert launched(plan("full", phase)) <= launched(plan("[gqa, mlp]", phase)) <= launched(plan("", phase))


def test_what_a_cache_has_is_written_and_read_all_the_same() -> None:
    one, apart = ops(plan("[gqa]"), "gqa"), ops(plan(), "gqa")
    context_B = 64 * 272 * 2 * 4 * 8 * 4
    assert one["gqa.o"][0] >= context_B and one["gqa.o"][0] < apart["gqa.o"][0]
    new_B = 64 * 4 * 8 * 4
    assert (one["gqa.o_v"][0], apart["gqa.o_v"][0]) == (new_B, 2 * new_B)


def test_measured_kernels_lose_what_stays_on_the_chip_and_no_more() -> None:
    text = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { layers = 2 }
workload { sequences = 64, prompt = 1024 tok, output = 64 tok }
phase decode { gpus = 0..7, tp = 8 FUSE }"""
    engine, one = (dagc.compile_text(text.replace("FUSE", said)) for said in ("", ", fuse = [gqa, moe]"))
    for key, cost in engine.phases["decode"].costs.ops.items():
        fused = one.phases["decode"].costs.ops[key]
        assert (
            fused.bytes <= cost.bytes
            and (fused.time_s <= cost.time_s + 1e-12).all()
            and (fused.floor_s <= fused.time_s + 1e-12).all()
        )
    assert launched(one) < 0.5 * launched(engine)


@pytest.mark.parametrize("said", ["none", "[gqa]", "full"])
def test_it_reads_back(said: str) -> None:
    own = plan(said)
    graph = own.phases["decode"].graph
    assert ("kernel " in print_graph(graph)) == (said != "none")
    assert parse_graph(print_graph(graph)) == graph
    again = dagc.compile_text(print_spec(own.spec))
    assert again.phases["decode"].schedule.period_s == own.phases["decode"].schedule.period_s


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        ("decode", "fuse = [gqaa]", "no block `gqaa` to fuse"),
        ("decode", "fuse = [gqa, full]", "`full` fuses all blocks"),
        ("decode", "fuse = [gqa, none]", "`none` fuses no block"),
        ("decode", "fuse = 3 GB", "`fuse` has names of blocks, not a size (B)"),
        ("decode", "fuse = [gqa, [1]]", "`fuse` has names of blocks, not a list"),
        ("train", "fuse = [gqa]", "`fuse` does not belong to a training phase"),
    ],
)
def test_what_cannot_be_fused_is_refused(kind: str, said: str, words: str) -> None:
    with pytest.raises(dagc.SpecError) as raised:
        dagc.compile_text(spec_text(kind=kind, phase=f"gpus = 0..0, {said}", model=DENSE))
    assert any(words in one.message for one in raised.value.diagnostics)


@pytest.mark.parametrize("fuse", ["full", "[mlp]"])
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_kept_costs_are_those_of_each_plan(fuse: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges cut kernels: what stays on the chip is another share before they are there. What was priced before is kept."""
    phase = "gpus = 0..3, {}, fuse = " + fuse
    judge = Judge(loaded(kind, phase.format("tp = 4")), kind)
    seen = []
    for degrees in ("tp = 4", "tp = 2, dp = 2", "dp = 4", "tp = 2, pp = 2"):
        unit = Unit(judge.spec, loaded(kind, phase.format(degrees)).phases[0])
        graph, kept = judge.estimates.layouts.lowered_and_kept(unit)
        assert kept is not None and any(op.kernel for segment in graph.segments for op in segment.ops)
        for one in (annotated(judge, unit), graph):
            seen.append((one, unit, price(one, unit, kept=kept), kept))
    for graph, unit, found, _ in seen:
        alone = price(graph, unit)
        for key, cost in alone.ops.items():
            for name in fields_of(OpCost):
                assert np.array_equal(getattr(found.ops[key], name), getattr(cost, name)), (key, name)
    made: list[str] = []
    monkeypatch.setattr("dagc.cost.price._launched", lambda segment, op, *_: made.append(op.name))
    for graph, unit, _, kept in seen:
        price(graph, unit, kept=kept)
    assert not made


def loaded(kind: str, phase: str) -> Spec:
    return load(Source("p", spec_text(kind=kind, phase=phase, model=DENSE)), Collector())
