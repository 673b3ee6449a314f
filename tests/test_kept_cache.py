"""What a phase keeps of its cache: closed forms of budgets, dtypes, compression and copies to the host, and what is refused."""

from __future__ import annotations

import json
import re
from functools import cache
from math import ceil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.api import Plan
from dagc.api.face import read_plan
from dagc.cli import main
from dagc.cost.kv_cache import CachePolicy, passing_bytes
from dagc.cost.schedule.even import EvenSchedule
from dagc.cost.schedule.scheduler import schedule
from dagc.export.chakra.folder import folder
from dagc.export.engines.launch import drafted
from dagc.export.json import graph_file
from dagc.ir.op import COPY
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.printer.print_spec import print_spec
from dagc.plan.result import PhaseResult
from dagc.plan.subject import phase_metrics
from dagc.view.draw.figures import tracks
from dagc.view.draw.figures.looks import look
from dagc.view.facts.critical import critical
from dagc.view.facts.timeline import everyone, slices
from dagc.view.facts.unroll import Edge, counts, unroll

LAYERS, SEQUENCES, PROMPT, OUTPUT, KV = 4, 64, 256, 16, 2 * 4 * 8 * 4
"""`KV`: bytes of a token in a layer: keys and values of 4 heads of 8 in fp32."""
HOST_BPS, LAUNCH_S = 50e9, 2e-6


@cache
def plan(said: str = "", kind: str = "decode", phase: str = "gpus = 0..0", more: str = "") -> Plan:
    section = f", kv_cache {{ {said} }}" if said else ""
    return dagc.compile_text(spec_text(kind=kind, phase=f"{phase}{section}{more}"))


def of(said: str = "", kind: str = "decode", **given: str) -> PhaseResult:
    return plan(said, kind, **given).phases[kind]


def cached_B(said: str = "", kind: str = "decode", **given: str) -> float:
    return of(said, kind, **given).memory.worst.kv_cache_B


def measured(found: Plan, metric: str, kind: str = "decode") -> float:
    return phase_metrics(found.subject(kind))[metric].value


def figures(result: PhaseResult) -> tuple[object, ...]:
    """All that a phase costs."""
    times = {key: (cost.time_s.tolist(), cost.bytes, cost.flops) for key, cost in result.costs.ops.items()}
    return times, result.schedule.period_s, result.schedule.latency_s, result.memory.stages, result.path


@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize(
    "said", ["keep = 272 tok", "keep = 4096 tok, sinks = 4 tok", "ratio = 1", "offload = 0", "dtypes { sparse = fp32 }"]
)
def test_what_changes_nothing_changes_nothing(kind: str, said: str) -> None:
    assert figures(of(said, kind)) == figures(of(kind=kind))


@pytest.mark.parametrize("keep", [1, 64, 200])
def test_a_step_attends_to_what_is_kept_and_so_many_tokens_are_held(keep: int) -> None:
    """As a decode of shorter sequences: its own token is one of those that are kept."""
    kept, short = of(f"keep = {keep} tok"), of(phase=f"gpus = 0..0, context = {keep} tok")
    assert kept.memory.worst.kv_cache_B == SEQUENCES * LAYERS * KV * keep
    assert kept.schedule.period_s == pytest.approx(short.schedule.period_s, rel=1e-12)
    assert kept.graph.body[0].sizes["context"] == keep


def test_a_prompt_sees_itself_and_leaves_what_is_kept() -> None:
    kept, whole = of("keep = 64 tok", "prefill"), of(kind="prefill")
    assert kept.memory.worst.kv_cache_B == SEQUENCES * LAYERS * KV * 64
    assert kept.schedule.period_s == whole.schedule.period_s
    # What attention reads and the cache does not keep is an activation of the layer that runs.
    (segment,) = kept.graph.body
    passing_B = [
        passing_bytes(segment, op, kept.graph.the_mesh, CachePolicy(), kept.graph)
        for op in segment.ops
        if op.kind == "cache"
    ]
    assert sum(passing_B) == SEQUENCES * KV * (PROMPT - 64)


def test_chunks_of_a_prompt_see_what_is_kept_of_those_before() -> None:
    chunks = of("keep = 100 tok", "prefill", more=", chunk = 64 tok").chunks
    assert [(c.tokens, c.context) for c in chunks] == [(64, 64), (64, 128), (64, 164), (64, 164)]


@pytest.mark.parametrize(
    ("dtype", "bytes_"), [("fp16", 2.0), ("int8", 1.0), ("int8_g8", 1.25), ("int4_g4", 1.0), ("int4_g8_zp", 0.8125)]
)
def test_scales_and_zero_points_of_a_cache_are_counted(dtype: str, bytes_: float) -> None:
    """16-bit scales for 4 or 8 numbers along a head, 4-bit zero points."""
    assert cached_B(f"dtypes {{ sparse = {dtype} }}") == cached_B() * bytes_ / 4
    assert cached_B(f"dtypes {{ gqa = {dtype} }}") == cached_B() * bytes_ / 4


def test_layers_have_dtypes_of_their_own() -> None:
    model = (
        "hidden = 64, vocab = 512, dtype = fp32, stack = [embed, 1 * dense, 3 * sparse, lm_head], dense_first = 1\n"
        "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 64 }\n"
        "experts { count = 8, top_k = 2, hidden = 32 }"
    )
    text = spec_text(kind="decode", model=model, phase="gpus = 0..0, kv_cache { dtypes { sparse = int8 } }")
    result = dagc.compile_text(text).phases["decode"]
    token = SEQUENCES * (PROMPT + OUTPUT) * KV
    assert result.memory.worst.kv_cache_B == token * (1 + 3 / 4)
    assert {op.dtype for s in result.graph.body for op in s.ops if op.kind == "cache" and s.name == "dense"} == {"fp32"}


def test_a_compressed_cache_is_held_and_read_in_fewer_bytes() -> None:
    assert cached_B("ratio = 4") == cached_B() / 4
    packed, whole = (measured(plan(said), "attention_bytes") for said in ("ratio = 4", ""))
    queries_B = SEQUENCES * LAYERS * 2 * 8 * 8 * 4  # and results
    assert packed - queries_B == pytest.approx((whole - queries_B) / 4)


# -- copies to the host ----------------------------------------------------------------------------


def copied_s(share: float, context: int = PROMPT + OUTPUT) -> float:
    """Of one layer: two copies, each with its launch; new tokens go the other way meanwhile."""
    return share * SEQUENCES * KV * (context - 1) / HOST_BPS + 2 * LAUNCH_S


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_what_the_host_keeps_is_not_on_the_gpu(share: float) -> None:
    found = plan(f"offload = {share}")
    assert cached_B(f"offload = {share}") == pytest.approx(cached_B() * (1 - share))
    assert measured(found, "memory.host") == pytest.approx(cached_B() * share)
    assert measured(found, "host_copies") == pytest.approx(cached_B() * share)
    # Two layers have room on the GPU: one that attends, and one that comes.
    buffers_B = found.phases["decode"].memory.worst.buffers_B - of().memory.worst.buffers_B
    assert buffers_B == pytest.approx(2 * cached_B() * share / LAYERS)


def test_copies_that_are_not_prefetched_come_on_top() -> None:
    """But for what computes while the first of two copies comes: the cache of values."""
    late, own = of("offload = 50%, prefetch = false"), of()
    beside_s = LAYERS * float(own.costs.ops["sparse", "gqa.o_v"].time_s.item())
    expected = own.schedule.period_s + LAYERS * copied_s(0.5) - beside_s
    assert late.schedule.period_s == pytest.approx(expected, rel=1e-9)


def test_copies_that_take_longer_than_layers_set_the_pace() -> None:
    """In steady state each layer waits for the copy that the layer before began, and a step for the last one of the step before."""
    result = of("offload = 100%")
    embed_s = sum(float(c.time_s.item()) for (segment, _), c in result.costs.ops.items() if segment == "embed")
    assert result.schedule.period_s == pytest.approx(embed_s + LAYERS * copied_s(1.0), rel=1e-9)


@pytest.mark.parametrize("link", ["20 GB/s", "600 GB/s", "900 GB/s", "1200 GB/s", "5 TB/s"])
def test_copies_and_layers_meet_as_two_buffers_let_them(link: str) -> None:
    """Moment by moment: a copy begins with its layer once the stream is free, attention waits for the copy that the layer before began."""
    text = spec_text(kind="decode", phase="gpus = 0..0, kv_cache { offload = 60% }")
    result = dagc.compile_text(text.replace("mbu = 80%", f"mbu = 80%, host_link = {link}")).phases["decode"]
    costs = {key: float(cost.time_s.item()) for key, cost in result.costs.ops.items()}
    (layer,) = result.graph.body
    names = [op.name for op in layer.ops if not op.is_copy]
    at = names.index("gqa.o")
    before, behind = (sum(costs[layer.name, name] for name in part) for part in (names[:at], names[at:]))
    copied = sum(costs[layer.name, op.name] for op in layer.ops if op.is_copy)
    ends = {end: sum(t for (segment, _), t in costs.items() if segment == end) for end in ("embed", "lm_head")}
    ready, came = ends["embed"], 0.0
    for _ in range(LAYERS):
        begun = max(ready, came)
        ready, came = max(ready + before, came) + behind, begun + copied
    assert result.schedule.period_s == pytest.approx(max(ready + ends["lm_head"], came), rel=1e-9)


def test_copies_that_take_less_than_layers_cost_nothing() -> None:
    text = spec_text(kind="decode", phase="gpus = 0..0, kv_cache { offload = 50% }")
    fast = dagc.compile_text(text.replace("mbu = 80%", "mbu = 80%, host_link = 100 TB/s")).phases["decode"]
    assert fast.schedule.period_s == pytest.approx(of().schedule.period_s, rel=1e-12)


@pytest.mark.parametrize(
    "phase",
    [
        "gpus = 0..0",
        "gpus = 0..1, tp = 2",
        "gpus = 0..1, pp = 2, microbatches = 2",
        "gpus = 0..1, tp = 2, dcp = 1, ep = 1, overlap = two_batch",
        "gpus = 0..1, sp = 2",
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_schedule_with_copies_is_the_same_in_every_account(phase: str, share: float) -> None:
    """The path adds up (the verifier), the walk execution by execution too; the short recurrence and the slices have the same times."""
    result = of(f"offload = {share}", phase=phase)
    graph, costs = result.graph, result.costs
    found = schedule(graph, costs)
    times = {key: k for k, key in enumerate(costs.ops)}
    if all(cost.time_s.size == 1 for cost in costs.ops.values()):
        even = EvenSchedule(graph, times)
        sends_s = [edge.time_s for edge in costs.edges]
        given = [float(cost.time_s.item()) for cost in costs.ops.values()]
        made = even.times_s(given, sends_s, costs.token_return.time_s, 0.0, costs.launched_s)
        assert made.period_s == found.period_s and made.latency_s == found.latency_s
    path = critical(result)
    assert sum(v.end_s - v.start_s for v in path) == pytest.approx(found.latency_s, rel=1e-9)
    pieces = [piece for member in everyone(result) for piece in slices(result, member) if piece.stream == COPY]
    assert len(pieces) == 2 * graph.lanes * graph.microbatches * LAYERS * len(result.gpus) // len(graph.stages)


def test_the_unrolled_graph_has_each_copy_and_what_waits_for_it() -> None:
    result = of("offload = 50%")
    items = list(unroll(result))
    edges = [item for item in items if isinstance(item, Edge)]
    assert counts(result) == (len(items) - len(edges), len(edges))
    reads = [e for e in edges if e.src.endswith(".host") and e.kind == "data" and e.dst.endswith("/gqa.o")]
    assert [(e.src.split("/")[0][-1], e.dst.split("/")[0][-1]) for e in reads] == [("0", "1"), ("1", "2"), ("2", "3")]


def test_the_graph_shows_copies_and_reads_back() -> None:
    text = print_graph(of("offload = 50%, keep = 64 tok, sinks = 4 tok", phase="gpus = 0..1, tp = 2").graph)
    assert "cache(%gqa.v, keep=64, sinks=4, host=0.5)" in text and "host_cache(%gqa.o_v, share=0.5)" in text
    assert print_graph(parse_graph(text)) == text


def test_a_graph_file_with_copies_is_compiled_again(tmp_path: Path) -> None:
    own = plan("offload = 50%, prefetch = false")
    (content,) = graph_file(own, "decode").values()
    (tmp_path / "g.graph.json").write_bytes(content if isinstance(content, bytes) else b"".join(content))
    again = read_plan(tmp_path / "g.graph.json").phases["decode"]
    assert again.schedule.period_s == of("offload = 50%, prefetch = false").schedule.period_s


def test_json_has_what_the_host_keeps() -> None:
    """All of a cache is there or on the GPU."""
    whole, own = (json.loads(json.dumps(plan(said).to_json()))["phases"]["decode"] for said in ("", "offload = 25%"))
    schema = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    hosted, cache_B = own["host_cache"], whole["memory"]["kv_cache_B"]
    assert "host_cache" not in whole
    assert hosted["host_B"] == 0.25 * cache_B and own["memory"]["kv_cache_B"] == 0.75 * cache_B
    assert hosted["host_B"] <= hosted["copied_B"] <= 1.1 * hosted["host_B"]
    jsonschema.validate(hosted, schema["$defs"]["phase"]["properties"]["host_cache"])


def test_servings_take_steps_of_what_is_kept() -> None:
    found = {}
    for said in ("", "keep = 64 tok", "offload = 50%"):
        section = f", kv_cache {{ {said} }}" if said else ""
        work = "sequences = 64, prompt = 4096 tok, output = 64 tok"
        more = f"phase prefill {{ gpus = 0..0{section} }}\nserve chat {{ arrivals = burst, requests = 64 }}"
        plan = dagc.compile_text(spec_text(kind="decode", phase=f"gpus = 0..0{section}", workload=work, extra=more))
        found[said] = plan.metrics_of(plan.serve("chat"))["tpot.mean"]
    assert found["keep = 64 tok"] < found[""] < found["offload = 50%"]


def test_capacity_and_servings_follow() -> None:
    """Tokens of text that fit: twice as many where half a cache is the host's, and by what is kept of them."""
    room = {said: measured(plan(said), "memory.kv_tokens") for said in ("", "offload = 50%", "keep = 68 tok")}
    assert room["offload = 50%"] == pytest.approx(2 * room[""], rel=0.01)
    assert room["keep = 68 tok"] == pytest.approx(room[""] * (PROMPT + OUTPUT) / 68, rel=0.01)


@pytest.mark.parametrize(
    "said", ["keep = 64 tok, sinks = 4 tok", "dtypes { sparse = int4_g8 }", "ratio = 2, offload = 50%"]
)
def test_ranks_compute_what_one_does(said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept is one context on both sides; which tokens it has is not looked at."""
    path = tmp_path / "p.moe"
    path.write_text(spec_text(kind="decode", phase=f"gpus = 0..3, ep = 2, tp = 2, kv_cache {{ {said} }}"))
    assert main(["verify", str(path)]) == 0
    assert "cache of every rank" in capsys.readouterr().out


@pytest.mark.parametrize(
    "said",
    [
        "keep = 64 tok, sinks = 4 tok, heavy = 0",
        "offload = 50%, prefetch = false",
        "ratio = 2, dtypes { sparse = int8_g8 }",
    ],
)
def test_a_spec_is_written_back(said: str) -> None:
    own = plan(said)
    again = dagc.compile_text(print_spec(own.spec))
    assert figures(again.phases["decode"]) == figures(own.phases["decode"])


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("sinks = 4 tok", "E12", "`sinks` belongs to `keep`"),
        ("prefetch = false", "E12", "`prefetch` belongs to `offload`"),
        ("keep = 4 tok, sinks = 5 tok", "E03", "5 sinks are more than the 4 tokens"),
        ("keep = 4 tok, sinks = 4 tok", "E03", "leaves no room for the newest"),
        ("keep = 64 tok, heavy = 50%", "E12", "flash attention does not hand out"),
        ("dtypes { sparse = int9 }", "E08", "`sparse` needs a dtype"),
        ("dtypes { spars = int8 }", "E02", "no layer or block `spars`"),
        ("dtypes { sparse }", "E10", "`sparse` has no dtype"),
        (
            "dtypes { sparse = int4_g32 }",
            "E03",
            "a scale of `int4_g32` is for 32 numbers, of which a row of the cache has 8",
        ),
        ("offload = 120%", "E04", "offload"),
        ("keep = 0 tok", "E04", "keep"),
    ],
)
def test_what_contradicts_itself_is_refused(said: str, code: str, words: str) -> None:
    with pytest.raises(dagc.SpecError) as raised:
        plan(said)
    found = raised.value.diagnostics[0]
    assert words in found.message and (found.code == code or code == "E04"), (found.code, found.message)


def test_a_step_must_fit_into_the_budget() -> None:
    with pytest.raises(dagc.SpecError, match="less than the 3 tokens of a step"):
        plan("keep = 2 tok", more=", draft = 2")


def test_a_choice_of_tokens_is_from_the_whole_context() -> None:
    text = (
        'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "deepseek-v3.2" { layers = 4 }\n'
        "workload { sequences = 8, prompt = 4096 tok, output = 64 tok }\n"
        "phase decode { gpus = 0..7, tp = 8, kv_cache { keep = 512 tok } }"
    )
    with pytest.raises(dagc.SpecError, match="`keep` does not go with attention to chosen tokens"):
        dagc.compile_text(text)


def test_training_keeps_no_cache() -> None:
    with pytest.raises(dagc.SpecError, match="`kv_cache` does not belong to a training phase"):
        dagc.compile_text(spec_text(kind="train", phase="gpus = 0..0, kv_cache { keep = 4 tok }"))


def test_a_host_that_is_full_is_told() -> None:
    text = spec_text(kind="decode", phase="gpus = 0..3, tp = 4, kv_cache { offload = 50% }")
    told = dagc.compile_text(text.replace("mbu = 80%", "mbu = 80%, host_memory = 1 MB")).diagnostics
    assert any("hosts have no room" in one.message for one in told)


def test_timelines_draw_copies_above_the_critical_path() -> None:
    """Each stretch has a colour, and the bars of a rank lie in its row."""
    own = plan("offload = 50%")
    drawn = tracks.draw(own.phases["decode"])
    (copies,) = re.findall(
        r'<path d="M[\d.]+ (\d+)h[^"]*" class="mute line-b-host_link" stroke-width="(\d+)">', "".join(drawn.body)
    )
    assert "stroke" in look("mute line-b-host_link")
    assert int(copies[0]) + int(copies[1]) / 2 <= tracks.TOP + tracks.CELL_H
    layer = tracks.one_layer(own.phases["decode"])
    assert layer is not None and ">copies<" in "".join(layer.body)
    plain = tracks.one_layer(plan().phases["decode"])
    assert plain is not None and ">copies<" not in "".join(plain.body) and plain.height < layer.height


def test_exporters_refuse_by_name(tmp_path: Path) -> None:
    own = plan("offload = 50%")
    with pytest.raises(dagc.SpecError, match="no copies between the GPUs"):
        folder(own, "decode", target=tmp_path / "c")
    for engine in ("vllm", "sglang", "trtllm", "megatron"):
        (error,) = drafted(own, engine, "m").refused
        assert error.code == "E05" and any("`kv_cache` of `decode`" in why for why in error.because)
        (error,) = drafted(attention("decode"), engine, "m").refused
        assert any("`kernel = unfused` of `decode`" in why for why in error.because)


# -- kernels of attention --------------------------------------------------------------------------


def attention(kind: str, kernel: str = "unfused", phase: str = "gpus = 0..0") -> Plan:
    return plan(kind=kind, phase=phase, more=f", attention {{ kernel = {kernel} }}")


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_scores_are_moved_four_times(kind: str) -> None:
    queries, keys = (PROMPT, PROMPT) if kind == "prefill" else (1, PROMPT + OUTPUT)
    scores_B = SEQUENCES * 8 * queries * keys * 4
    flash_B = SEQUENCES * (2 * 8 * 8 * queries * 4 + KV * keys)
    found = {m: measured(attention(kind), m, kind) for m in ("attention_bytes", "flash_saving")}
    assert found["attention_bytes"] == LAYERS * (flash_B + 4 * scores_B)
    assert found["flash_saving"] == pytest.approx(1 + 4 * scores_B / flash_B)
    whole = attention(kind, "flash")
    assert measured(whole, "attention_bytes", kind) == LAYERS * flash_B
    assert measured(whole, "flash_saving", kind) == found["flash_saving"]


def test_each_kernel_has_its_roofline_and_its_launch() -> None:
    """By hand: scores and values are products over all pairs, the softmax reads and writes them."""
    pairs = SEQUENCES * 8 * PROMPT * PROMPT
    side_B, scores_B = SEQUENCES * 8 * 8 * PROMPT * 4, pairs * 4
    peak, hbm = 400e12 * 0.6, 1.8e12 * 0.8
    product_s = max(2 * pairs * 8 / peak, (side_B * 1.5 + scores_B) / hbm)
    (cost,) = (c for (_, op), c in attention("prefill").phases["prefill"].costs.ops.items() if op == "gqa.o")
    assert float(cost.time_s.item()) == pytest.approx(2 * product_s + 2 * scores_B / hbm + 3 * LAUNCH_S)
    assert cost.launch_s == 3 * LAUNCH_S


def test_scores_and_their_softmax_are_live_together() -> None:
    more_B = [
        attention("prefill", kernel).phases["prefill"].memory.worst.activations_B for kernel in ("unfused", "flash")
    ]
    scores_B = SEQUENCES * 8 * PROMPT * PROMPT * 4
    assert more_B[0] >= 2 * scores_B > more_B[1]


@pytest.mark.parametrize(
    "phase",
    ["gpus = 0..1, sp = 2", "gpus = 0..1, sp = 2, sp_method = ring", "gpus = 0..1, tp = 2", "gpus = 0..1, dp = 2"],
)
def test_ranks_share_the_scores(phase: str) -> None:
    whole, part = attention("prefill"), attention("prefill", phase=phase)
    ops = [next(c for (_, op), c in p.phases["prefill"].costs.ops.items() if op == "gqa.o") for p in (whole, part)]
    scores_B = 4 * SEQUENCES * 8 * PROMPT * PROMPT * 4
    assert ops[1].bytes == pytest.approx(ops[0].bytes / 2, abs=SEQUENCES * KV * PROMPT)
    assert ops[1].bytes >= scores_B / 2 and np.ptp(ops[1].time_s) == 0


def test_a_flash_kernel_is_the_default_and_degrees_stay_apart() -> None:
    assert figures(attention("decode", "flash").phases["decode"]) == figures(of())
    folded = plan(phase="gpus = 0..3", more=", attention { dp = 2, tp = 2, kernel = unfused }\nexperts { ep = 4 }")
    assert folded.phases["decode"].batch_ways == 2
    assert measured(folded, "attention_bytes") == pytest.approx(
        measured(
            plan(phase="gpus = 0..3", more=", attention { dp = 2, tp = 2 }\nexperts { ep = 4 }"), "attention_bytes"
        )
        + LAYERS * 4 * ceil(SEQUENCES / 2) * 4 * (PROMPT + OUTPUT) * 4
    )


def test_heavy_hitters_need_scores() -> None:
    heavy = plan("keep = 64 tok, heavy = 50%", more=", attention { kernel = unfused }").phases["decode"]
    assert heavy.graph.body[0].sizes["context"] == 64


def test_reports_say_what_is_saved_and_whether_answers_change() -> None:
    said = "keep = 64 tok, sinks = 4 tok, ratio = 2, offload = 50%, dtypes { sparse = int8_g8 }"
    text = plan(said, more=", attention { kernel = unfused }").report(width=400)
    for words in (
        "cache keeps 64 tok of each sequence (4 tok at the start, else the newest), others are evicted: answers change",
        "cache of sparse in int8_g8, 1.25 B a number with its scales: answers change",
        "cache takes 2 times fewer bytes than its numbers: whether answers change depends on the method",
        "50% of the cache is in host memory",
        "attention writes and reads its scores: a GPU moves",
    ):
        assert words in text
