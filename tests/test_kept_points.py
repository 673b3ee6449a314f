"""Rows of a sweep by kept graphs are those that compiling every point gives, to the last digit."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from conftest import examples
from tiers import spread

from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import PassError
from dagc.lang.expand import expand
from dagc.lang.load import load
from dagc.optimize.kept_points import KeptPoints
from dagc.optimize.point import SweepRow, Task, compiled
from dagc.passes.sp import SequenceParallel
from dagc.pipeline.kept import Layouts
from dagc.pipeline.lower import lowered
from dagc.spec.unit import Unit

SPEC = """moe 1
param b = 64
param c = 4096
param p = 2048
param k = 512
param hbm = 4.8
hardware from "h200-sxm" {{ gpus = 16, hbm = hbm * 1 TB/s }}
model from "{model}" {{ }}
workload {{ sequences = b, prompt = p * 1 tok, output = 256 tok }}
phase prefill {{ gpus = 0..7, {sides}, chunk = k * 1 tok, engine = vllm }}
phase decode {{ gpus = 8..15, context = c * 1 tok, {sides}, engine = vllm }}
phase both {{ kind = mixed, gpus = 0..7, decode = b, prompt_tokens = k * 1 tok, {sides} }}
require decode.tpot <= 20 ms
require "half" prefill.ttft / 2 <= b * 1 ms
require decode.memory.peak <= 100 GB
"""
SIDES = "attention { dp = 2, tp = 4 }, experts { ep = 8, tp = 1 }"
DOMAINS = {
    "b": ("1", "16", "64", "100", "777"), "c": ("3000", "4096", "9000"), "p": ("512", "2048", "3000"), "k": ("256", "512", "1000"),
    "hbm": ("4.8", "4.8", "4.8", "4"),
}  # fmt: skip


def task(text: str, **settings: str) -> Task:
    return Task(text, "s.moe", None, tuple(settings.items()))


@pytest.mark.parametrize("model", spread(["qwen3-235b-a22b", "gpt-oss-20b"]))
def test_a_kept_row_is_what_compiling_gives(model: str) -> None:
    """Also where the hardware changes between points, and comes back."""
    rng, text = random.Random(model), SPEC.format(model=model, sides=SIDES)
    points, kept = None, 0
    for _ in range(6 * examples(1)):
        own = task(text, **{name: rng.choice(values) for name, values in DOMAINS.items()})
        points = points or KeptPoints(own)
        row = points.row(own)
        if row is not None:
            kept += 1
            assert repr(row) == repr(compiled(own))
    assert kept >= 2


def rows(text: str, values: tuple[str, ...]) -> list[SweepRow | None]:
    tasks = [task(text, n=value) for value in values]
    points = KeptPoints(tasks[0])
    return [points.row(each) for each in tasks]


BASE = """moe 1
param n = 8
hardware from "h200-sxm" { gpus = 8 }
model from "qwen3-32b" { }
workload { sequences = 8, prompt = 64 tok, output = 64 tok }
"""


def test_a_layout_is_compiled_before_it_is_kept() -> None:
    first, *others = rows(
        BASE.replace("sequences = 8", "sequences = n") + "phase decode { gpus = 0..7, tp = 8 }", ("8", "9", "10")
    )
    assert first is None and None not in others


def test_each_layout_is_compiled() -> None:
    text = BASE + "phase decode { gpus = 0..7, tp = n, dp = 8 / n }"
    assert rows(text, ("8", "4", "2")) == [None, None, None]
    assert rows(text, ("8", "4", "8"))[2] is not None


def test_a_point_that_is_wrong_is_compiled() -> None:
    text = BASE.replace("sequences = 8", "sequences = n") + "phase decode { gpus = 0..7, tp = 8 }"
    assert rows(text, ("8", "9", "0", "10"))[2] is None


def test_what_blocks_read_of_a_param_is_not_kept() -> None:
    """The width of a block's own product follows from the param: another one is another graph."""
    text = """moe 1
param n = 8
hardware from "h200-sxm" { gpus = 8 }
model small { layers = 2, hidden = 64, vocab = 64, attention { kind = gqa, heads = 8, kv_heads = 8, head_dim = 8 }, mlp { hidden = 64 }
  stack = [embed, 2 * own, lm_head] }
block waist(x) {
  d[batch, seq, low] = x * Wd[hidden, low]
  y[batch, seq, hidden] = d * Wy[low, hidden]
  return x + y
}
layer own { gqa, waist }
workload { sequences = 8, prompt = 64 tok, output = 64 tok }
phase decode { gpus = 0..7, dp = 8 }"""
    text = text.replace("block waist(x) {", "block waist(x) {\n  let low = n * 8")
    assert rows(text, ("8", "8", "4", "4"))[2] is None
    tasks = [task(text, n=value) for value in ("8", "8", "4", "4", "8")]
    points = KeptPoints(tasks[0])
    assert [row is None or row == compiled(each) for each in tasks for row in [points.row(each)]] == [True] * 5


@pytest.mark.parametrize(
    "phase",
    [
        "experts { resident = 4 }",
        "ep = 8, rebalance { loads = [[[1, 2, 3, 4, 5, 6, 7, 8]], [[1, 1, 1, 1, 1, 1, 1, 1]], [[2, 1, 1, 1, 1, 1, 1, 1]]], every = 1 }",
    ],
)
def test_phases_that_are_compared_with_themselves_are_compiled(phase: str) -> None:
    """What experts in host memory take, and what placing them anew gains, is found beside the price."""
    text = BASE.replace("qwen3-32b", "mixtral-8x7b").replace("sequences = 8", "sequences = n")
    tp = "" if phase.startswith("ep") else "tp = 8, "
    assert rows(f"{text}phase decode {{ gpus = 0..7, {tp}{phase} }}", ("8", "16", "24")) == [None] * 3


def test_an_error_of_a_kept_expansion_is_at_its_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second phase is expanded no more, and told as if it were."""
    text = SPEC.format(model="gpt-oss-20b", sides=SIDES)

    def told(how: Callable[[Unit], object]) -> list[Diagnostic]:
        unit = Unit(spec, spec.phase("decode"), Collector())
        with pytest.raises(SpecError) as caught:
            how(unit)
        return caught.value.diagnostics

    def stopped(self: SequenceParallel, graph: Graph) -> Graph:
        segment, op = next((s, op) for s in graph.segments for op in s.ops if op.kind == "attend")
        raise PassError(f"no such context {segment.size('context'):g}", where=(segment.name, op.name))

    spec, layouts = load(Source("s.moe", text), Collector()), Layouts()
    monkeypatch.setattr(SequenceParallel, "run", stopped)
    wanted = told(lowered)
    assert wanted[0].span is not None and wanted[0].span != spec.phase("decode").span
    expanded: list[object] = []
    run = expand.run
    monkeypatch.setattr(expand, "run", lambda *given: (expanded.append(given), run(*given))[1])
    assert told(layouts.lowered) == told(layouts.lowered) == wanted and len(expanded) == 1
