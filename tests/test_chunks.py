"""Prompts in chunks, and what faster hardware buys: of the whole phase, whatever its options are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import examples, spec_text
from hypothesis import assume, given, settings
from random_plans import plans
from test_cost import longest_path_s
from tiers import in_turn

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.cost import chunks
from dagc.export.chakra.folder import write
from dagc.export.events import EventSpan, events
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import read_plan
from dagc.pipeline import analyse
from dagc.pipeline.sensitivities import sensitivities
from dagc.plan.result import PhaseResult
from dagc.spec.hardware import Hardware
from dagc.spec.unit import Unit
from dagc.view.facts.critical import critical
from dagc.view.facts.timeline import everyone, slices
from dagc.view.facts.unroll import Node, counts, unroll

MODEL = """layers = 32, hidden = 4096, vocab = 128256, dtype = bf16
attention { kind = gqa, heads = 32, kv_heads = 8, head_dim = 128 }
mlp { hidden = 14336 }"""


def prefill(options: str, *, prompt: int = 32768, sequences: int = 1, model: str = MODEL) -> PhaseResult:
    work = f"sequences = {sequences}, prompt = {prompt} tok"
    return dagc.compile_text(spec_text(phase=f"gpus = 0..7, tp = 8, {options}", workload=work, model=model)).phases[
        "prefill"
    ]


def by_hand(prompt: int, prefix: int = 0) -> float:
    """FLOPs of the model above for one prompt, but for element-wise ops and the head: 2 a multiply-add."""
    weights = 32 * (4096 * (32 + 2 * 8) * 128 + 32 * 128 * 4096 + 3 * 4096 * 14336)
    pairs = prompt * (prompt + 1) / 2 - prefix * (prefix + 1) / 2
    return 2.0 * weights * (prompt - prefix) + 32 * 4.0 * 32 * 128 * pairs


@pytest.mark.parametrize("options", ["", "chunk = 2048", "chunk = 8192", "chunk = 5000", "chunk = 1000", "chunk = 10"])
def test_flops_do_not_depend_on_the_chunk(options: str) -> None:
    """5000 leaves a short last chunk, 1000 more passes than are priced one by one; each pass has a head of its own."""
    result = prefill(options)
    heads = 2.0 * 4096 * 128256 * result.passes / 32768
    assert result.flops_per_token - heads == pytest.approx(by_hand(32768) / 32768, rel=0.002)
    peak_s = result.flops_per_token * 32768 / (8 * 400e12)
    assert result.utilization == pytest.approx(peak_s / result.time_s)
    assert result.throughput_tok_s == pytest.approx(32768 / result.time_s)


def test_a_cached_prefix_in_chunks() -> None:
    parts = prefill("prefix = 8000, chunk = 5000")
    assert [(c.tokens, c.context) for c in parts.chunks] == [
        (5000, 13000), (5000, 18000), (5000, 23000), (5000, 28000), (4768, 32768)
    ]  # fmt: skip
    heads = 2.0 * 4096 * 128256 * 5 / 24768
    assert parts.flops_per_token - heads == pytest.approx(by_hand(32768, 8000) / 24768, rel=0.002)


def test_a_chunk_larger_than_the_prompt_is_one_pass() -> None:
    whole, large = prefill("", prompt=1000), prefill("chunk = 8192", prompt=1000)
    assert large.passes == 1 and large.time_s == whole.time_s and large.memory == whole.memory


def test_a_short_last_chunk_takes_less() -> None:
    parts = prefill("chunk = 3000", prompt=10_000)
    times = [c.schedule.period_s for c in parts.chunks]
    assert [c.tokens for c in parts.chunks] == [3000, 3000, 3000, 1000]
    assert times[0] < times[1] < times[2] and times[3] < times[2] / 2
    assert parts.memory.worst.kv_cache_B == prefill("", prompt=10_000).memory.worst.kv_cache_B


def test_a_window_bounds_every_pass() -> None:
    """With a window of 256 tokens the third pass computes what the last does."""
    model = MODEL.replace("head_dim = 128 }", "head_dim = 128, window = 256 }")
    times = [c.schedule.period_s for c in prefill("chunk = 512", prompt=8192, model=model).chunks]
    assert times[1] == pytest.approx(times[-1]) and times[0] < times[1]


def test_many_passes_are_priced_like_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    few = prefill("chunk = 100", prompt=10_050)
    assert len(few.chunks) == chunks.MOST + 1 and few.passes == 101
    monkeypatch.setattr(chunks, "MOST", 1000)
    each = prefill("chunk = 100", prompt=10_050)
    assert len(each.chunks) == 101
    assert few.time_s == pytest.approx(each.time_s, rel=1e-4)
    assert few.flops_per_token == pytest.approx(each.flops_per_token, rel=1e-9)


def test_host_and_launches_have_rows_of_their_own() -> None:
    plain = prefill("", prompt=1024)
    slow = prefill("host = 20 ms, cuda_graph = false, chunk = 256", prompt=1024)
    (host,) = [s for s in slow.path if s.kind == "host"]
    (launch,) = [s for s in slow.path if s.kind == "launch"]
    assert (host.time_s, host.count) == (pytest.approx(4 * 20e-3), 4)
    assert launch.time_s == pytest.approx(launch.count * 2 * 2e-6)  # the roofline's own, and one more without graphs
    assert next(s for s in slow.path if s.kind == "lookup").time_s < 1e-3
    assert not [s for s in plain.path if s.kind == "host"]
    assert sum(s.time_s for s in slow.path) == pytest.approx(slow.time_s)


@pytest.mark.parametrize("options", ["", "pp = 2, microbatches = 4", "overlap = two_batch", "pp = 4, microbatches = 2"])
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_the_host_is_added_once_a_pass(kind: str, options: str) -> None:
    degrees = "" if options.startswith("pp") else "tp = 2"
    rest = "gpus = 0..3, dp = 2" if "pp = 2" in options else "gpus = 0..3"
    text = spec_text(phase=f"{rest}, kind = {kind}, {degrees}{', ' if degrees else ''}{options or 'ep = 2'}"
                     + (", ep = 2" if "two_batch" in options else ""))  # fmt: skip
    before = dagc.compile_text(text).phases["prefill"]
    after = dagc.compile_text(text.replace("phase prefill {", "phase prefill { host = 5 ms\n")).phases["prefill"]
    assert after.time_s == pytest.approx(before.time_s + 5e-3)
    assert after.floor_s == before.floor_s


# -- what faster hardware buys -------------------------------------------------------------------

PHASES = (
    "gpus = 0..7, tp = 8",
    "gpus = 0..7, tp = 4, ep = 2, chunk = 100",
    "gpus = 0..15, pp = 2, tp = 4, ep = 2, microbatches = 4, chunk = 64, host = 1 ms",
    "gpus = 0..15, ep = 8, tp = 2, overlap = two_batch, cuda_graph = false",
    "gpus = 0..15, sp = 4, tp = 2, ep = 2, sp_method = ring",
    "gpus = 0..7, sp = 2, tp = 2, dp = 2, sp_method = ulysses",
    "gpus = 0..7, sp = 2, tp = 2, ep = 2, sequence_parallel = true",
    "gpus = 0..15, attention { dp = 4, tp = 4 }, experts { ep = 8 }, dispatch = allgather, quantise = separate",
    "gpus = 0..15, attention { dp = 4, tp = 4 }, experts { ep = 8, tp = 2 }, redundant = 8, prefix = 100",
    "kind = decode, gpus = 0..15, pp = 2, tp = 4, ep = 2, microbatches = 2, draft = 3, acceptance = 0.7",
    "kind = decode, gpus = 0..15, attention { dp = 4, tp = 4 }, experts { ep = 8, tp = 2 }, host = 2 ms, overlap = two_batch",
    "kind = decode, gpus = 0..7, sp = 4, tp = 2, draft = 1",
)  # fmt: skip
"""Phase options of every kind. The model of `spec_text` has 8 heads, 4 of keys, and 8 experts."""


def scaled(machine: Hardware, by: float) -> Hardware:
    """Every rate times a factor; latencies and launches stay."""
    compute = {k: v * by for k, v in machine.compute_flops.items()}
    levels = tuple(replace(level, bandwidth_Bps=level.bandwidth_Bps * by) for level in machine.levels)
    return replace(machine, compute_flops=compute, hbm_Bps=machine.hbm_Bps * by, levels=levels)


def algorithms(result: PhaseResult) -> list[dict[tuple[str, str], str]]:
    """Of every pass what each collective runs as."""
    return [{key: cost.algorithm for key, cost in chunk.costs.ops.items()} for chunk in result.chunks]


def measured_collectives(result: PhaseResult) -> bool:
    """Whether a table prices a collective: what was learned of its rows is not convex."""
    return any(cost.table and cost.group is not None for c in result.chunks for cost in c.costs.ops.values())


def check_sensitivities(plan: Plan) -> None:
    """10 % more of one rate saves 0 to 9.1 %. 10 % more of all rates at once save no less than of one, and no more than
    9.1 % of what is not fixed on the path. Where no collective takes another algorithm, and none is by a table's rows,
    times are convex in the reciprocal of the rates: then they save as much as the part that infinite rates would leave allows."""
    for name, result in plan.phases.items():
        unit = plan.units[name]
        found = {s.name: s.change for s in sensitivities(unit, result)}
        for what, change in found.items():
            assert -1 / 11 - 1e-9 <= change <= 1e-9 or (what.startswith("-") and -1.0 <= change <= 1e-9), (name, what)

        def priced(by: float, result: PhaseResult = result, unit: Unit = unit) -> PhaseResult:
            return replace(result, chunks=analyse.price(result.graph, unit, scaled(unit.spec.hardware, by)))

        now, more, most = (priced(by) for by in (1.0, 1.1, 1e9))
        assert now.time_s == pytest.approx(result.time_s)
        change = more.time_s / now.time_s - 1.0
        fixed_s = sum(s.time_s for s in now.path if s.kind in ("host", "launch")) / result.tokens_per_step
        assert -(1 - fixed_s / now.time_s) / 11 - 1e-9 <= change, name
        assert change <= min(v for k, v in found.items() if k.startswith("+")) + 1e-9, name
        if algorithms(now) == algorithms(most) and not measured_collectives(now):
            # The parts of measured kernels overlap softly, so that they are not quite convex.
            assert change <= -0.95 * (1 - most.time_s / now.time_s) / 11 + 1e-6, name


@pytest.mark.parametrize(("hardware", "options"), in_turn(["", "h200-sxm"], PHASES))
def test_what_would_help_is_of_the_whole_phase(options: str, hardware: str) -> None:
    text = spec_text(gpus=16, phase=options, workload="sequences = 32, prompt = 256 tok, output = 256 tok")
    if hardware:
        start = text.index("hardware")
        text = text[:start] + f'hardware from "{hardware}" {{ gpus = 16 }}\n' + text[text.index("model") :]
    check_sensitivities(dagc.compile_text(text))


@settings(max_examples=examples(15), deadline=None)
@given(plans())
def test_what_would_help_in_random_plans(case: tuple[str, str]) -> None:
    try:
        plan = dagc.compile_text(case[1])
    except SpecError:
        assume(False)
    check_sensitivities(plan)


# -- the host in what is written ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["pp = 2, dp = 2, microbatches = 3", "ep = 4, overlap = two_batch", "tp = 4, chunk = 100"]
)
def test_the_host_is_in_every_output(options: str, tmp_path: Path) -> None:
    """Node, slice, event and trace node of the host's time; all of them end when the estimate does."""
    gpus = 4
    text = spec_text(phase=f"gpus = 0..{gpus - 1}, host = 3 ms, {options}", workload="sequences = 12, prompt = 256 tok")
    plan = dagc.compile_text(text)
    result = plan.phases["prefill"]
    assert longest_path_s(plan, "prefill") == pytest.approx(result.schedule.latency_s, rel=1e-9)
    items = list(unroll(result))
    found = [item for item in items if isinstance(item, Node)]
    assert counts(result) == (len(found), len(items) - len(found))
    (host,) = [n for n in found if n.kind == "host"]
    assert (host.time_s, host.stage, host.gpus) == (3e-3, 0, result.graph.stages[0].gpus)
    path = critical(result)
    assert path[0].is_host and sum(v.end_s - v.start_s for v in path) == pytest.approx(result.schedule.latency_s)
    for member in everyone(result):
        mine = [s for s in slices(result, member) if s.kind == "host"]
        assert [s.end_s for s in mine] == ([3e-3] if member.stage == 0 else [])
        assert all(s.start_s >= 3e-3 - 1e-12 for s in slices(result, member) if s.kind != "host")
    spans = [e for e in events(result) if isinstance(e, EventSpan) and e.name == "host"]
    assert spans and all(e.end_ns == 3_000_000 for e in spans)
    write(plan, "prefill", tmp_path, "p")
    assert b"host" in (tmp_path / "rank.0.et").read_bytes()
    file = tmp_path / "graph.json"
    file.write_bytes(dumps(graph_object(plan, "prefill")))
    assert read_plan(file).phases["prefill"].time_s == result.time_s
    for view in ("lanes", "timeline", "path", "overview"):
        assert "<svg" in plan.svg("prefill", view)
