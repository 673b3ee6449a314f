"""Decode context parallel: ranks of tp that would keep copies of keys and values split the context instead."""

from __future__ import annotations

import pytest
from conftest import spec_text
from test_proof import GQA, MLA, small
from tiers import spread

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.execute.prove import prove
from dagc.export.engines.launch import export
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.lang.open_spec import load_open
from dagc.optimize.search.optimum import Asked, search

GQA_PLANS = {
    "all copies": "gpus = 0..3, tp = 4, dcp = 2",
    "some of the copies": "gpus = 0..7, dcp = 2\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }",
    "all ranks but those of heads": "gpus = 0..7, dcp = 4\nattention { tp = 8 }\nexperts { ep = 4 }",
    "beside sp and dp": "gpus = 0..15, dp = 2, sp = 2, tp = 4, dcp = 2",
    "experts over the same ranks": "gpus = 0..7, dcp = 2\nattention { dp = 2, tp = 4 }\nexperts { ep = 4, tp = 2 }",
    "stages and lanes": "gpus = 0..7, pp = 2, tp = 4, dcp = 2, microbatches = 2, overlap = two_batch",
    "drafted tokens": "gpus = 0..3, tp = 4, dcp = 2, draft = 3",
    "tp outside of dp": "gpus = 0..7, dcp = 2, order = [pp, tp, dp, ep, sp]\nattention { dp = 2, tp = 4 }\nexperts { ep = 4 }",
}
MLA_PLANS = {
    "all ranks": "gpus = 0..3, tp = 4, dcp = 4",
    "half of them": "gpus = 0..3, tp = 4, dcp = 2",
    "beside sp": "gpus = 0..7, sp = 2, tp = 4, dcp = 4",
    "drafted tokens": "gpus = 0..3, tp = 4, dcp = 4, draft = 2",
}
EIGHT = GQA.replace("heads = 4", "heads = 8", 1)


@pytest.mark.parametrize(
    "name",
    spread(GQA_PLANS, ("stages and lanes", "experts over the same ranks", "some of the copies", "drafted tokens")),
)
def test_grouped_attention_computes_the_same(name: str) -> None:
    proof = prove(dagc.compile_text(small(GQA_PLANS[name], "decode", EIGHT)), "decode")
    assert proof.holds, proof


@pytest.mark.parametrize("name", MLA_PLANS)
def test_latent_attention_computes_the_same(name: str) -> None:
    proof = prove(dagc.compile_text(small(MLA_PLANS[name], "decode", MLA)), "decode")
    assert proof.holds, proof


def test_attention_behind_a_window_keeps_copies() -> None:
    """Every second layer of this model has a window: as in engines, all ranks keep its keys and values."""
    plan = dagc.compile_text(preset("gpt-oss-20b", "gpus = 0..15, tp = 16, dcp = 2"))
    caches = {op.name: op for s in plan.phases["decode"].graph.segments for op in s.ops if op.kind == "cache"}
    split = {name: bool(layout(op)["context"]) for name, op in caches.items()}
    reach = {n: r for s in plan.phases["decode"].graph.segments for n, r in s.reach.items() if n in split}
    assert set(split.values()) == {True, False}
    assert all(split[name] == (reach[name] == (None, None)) for name in split)
    proof = plan.prove("decode")
    assert proof.holds, proof


def preset(model: str, phase: str, context: int = 131072, sequences: int = 8, extra: str = "") -> str:
    return f"""moe 1
hardware pool from "h200-sxm" {{ gpus = 32 }}
model m from "{model}" {{ }}
workload {{ sequences = {sequences}, prompt = {context} tok, output = 1024 tok }}
phase decode {{ {phase}, context = {context} tok }}
{extra}
"""


def layout(op: Op) -> dict[str, tuple[str, ...]]:
    assert op.sharding is not None
    return dict(zip(op.dims, op.sharding.dims, strict=True))


def calls(graph: Graph, segment: str) -> list[tuple[str, str, int]]:
    """(kind, origin, ranks) of the collectives of attention in a layer."""
    mesh = graph.the_mesh
    ops = [
        op for op in graph.segment(segment).ops if op.is_collective and ".y" not in op.name and op.scope != "experts"
    ]
    return [(op.runtime_kind, op.inputs[0], mesh.size(op.axes)) for op in ops]


@pytest.mark.parametrize(("tp", "dcp", "own"), [(8, 1, 1), (8, 2, 1), (16, 2, 1), (16, 4, 1), (4, 1, 1), (2, 1, 2)])
def test_cache_of_a_rank(tp: int, dcp: int, own: int) -> None:
    """94 layers, of each the keys and values of one head at least, 128 numbers wide, in bf16, of the rank's share of tokens."""
    phase = f"gpus = 0..{tp - 1}, attention {{ tp = {tp} }}, experts {{ ep = {tp} }}, dcp = {dcp}"
    found = dagc.compile_text(preset("qwen3-235b-a22b", phase, sequences=1)).phases["decode"]
    assert found.memory.worst.kv_cache_B == 94 * 2 * own * 128 * 2 * 131072 / dcp


@pytest.mark.parametrize("dcp", [1, 2, 4, 8])
def test_latent_cache_of_a_rank(dcp: int) -> None:
    """61 layers of 512 + 64 numbers a token in bf16."""
    phase = f"gpus = 0..7, attention {{ tp = 8 }}, experts {{ ep = 8 }}, dcp = {dcp}"
    found = dagc.compile_text(preset("deepseek-r1", phase, sequences=1)).phases["decode"]
    assert found.memory.worst.kv_cache_B == 61 * (512 + 64) * 2 * 131072 / dcp


def test_what_travels() -> None:
    """Queries gathered, two statistics of fp32 a row all-reduced, the outputs scattered: of 16 heads of a KV head, 8 on a rank."""
    phase = "gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, dcp = 2"
    result = dagc.compile_text(preset("qwen3-235b-a22b", phase, sequences=4)).phases["decode"]
    assert calls(result.graph, "sparse") == [
        ("all_gather", "gqa.o_q", 2), ("all_reduce", "gqa.o.max", 2), ("all_reduce", "gqa.o.sum", 2), ("reduce_scatter", "gqa.o", 2),
    ]  # fmt: skip
    sent = {(c.kind, c.group_size): (c.payload_B, c.count) for c in result.collectives if c.group_size == 2}
    rows, width = 4 * 8, 128 * 2  # sequences x heads of a rank, bytes of one head
    assert sent["all_gather", 2] == (rows * width, 94)
    assert sent["reduce_scatter", 2] == (2 * rows * width, 94)
    assert sent["all_reduce", 2] == (2 * rows * 4, 2 * 94)


def tpot(context: int, dcp: int, model: str = "qwen3-235b-a22b") -> float:
    phase = f"gpus = 0..7, attention {{ tp = 8 }}, experts {{ ep = 8 }}, dcp = {dcp}, engine = vllm"
    return dagc.compile_text(preset(model, phase, context)).phases["decode"].time_s


def test_it_pays_where_contexts_are_long() -> None:
    """Copies cost no messages: they win while there is little to read."""
    assert tpot(131072, 2) < 0.9 * tpot(131072, 1)
    assert tpot(1024, 2) > tpot(1024, 1)
    assert max(tpot(131072, dcp, "deepseek-r1") for dcp in (4, 8)) < 0.9 * tpot(131072, 1, "deepseek-r1")


@pytest.mark.parametrize(
    ("phase", "code", "words"),
    [
        ("gpus = 0..7, tp = 8, dcp = 4", "E03", "dcp 4 does not divide the 2 ranks of tp that keep the same keys and values"),
        ("gpus = 0..3, tp = 4, dcp = 2", "E03", "no ranks of tp keep the same keys and values"),
        ("gpus = 0..15, sp = 2, tp = 8, dcp = 2, context = 270 tok", "E03", "270 context tokens do not divide by sp x dcp 4"),
        ("gpus = 0..7, tp = 8, dcp = 2, draft = 4, context = 8 tok", "E03", "5 new tokens exceed a context of 8 over sp x dcp 2"),
        ("gpus = 0..7, tp = 8, dcp = 2, kind = mixed, decode = 4, prompt_tokens = 8 tok", "E03", "a mixed step and dcp 2"),
        ("gpus = 0..7, tp = 8, dcp = 2, kind = prefill", "E12", "`dcp` belongs to a decode phase"),
        ("gpus = 0..7, tp = 8, dcp = 0", "E09", "dcp"),
    ],
)  # fmt: skip
def test_where_it_cannot_be(phase: str, code: str, words: str) -> None:
    model = "layers = 4, hidden = 64, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    with pytest.raises(SpecError) as found:
        dagc.compile_text(spec_text(kind="decode", phase=phase, model=model))
    assert any(d.code == code and words in d.message for d in found.value.diagnostics), found.value.diagnostics


def test_a_cache_that_heads_split_is_no_copy() -> None:
    """A block that shares no heads among queries, and says so by its dimensions alone."""
    block = """block own(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, heads, head_dim] = h * Wk[hidden, heads, head_dim]
  o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), k, causal = true)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}"""
    model = "layers = 2, hidden = 64, vocab = 512, dtype = fp32\nattention { kind = own, heads = 8, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    text = spec_text(kind="decode", phase="gpus = 0..7, tp = 8, dcp = 2", model=model, extra=block)
    with pytest.raises(SpecError) as found:
        dagc.compile_text(text)
    assert found.value.diagnostics[0].code == "E03"
    assert "splits a cache that tp splits by heads already" in found.value.diagnostics[0].message


@pytest.mark.parametrize(("context", "best"), [(131072, 2), (512, 1)])
def test_a_search_finds_it(context: int, best: int) -> None:
    text = preset(
        "qwen3-235b-a22b", "gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, dcp = any, engine = vllm", context
    )
    answer = search(load_open(Source("plan.moe", text), Collector()), Asked(("tpot",)))
    assert answer.best is not None
    assert answer.best.values["decode"]["dcp"] == best


def test_it_is_a_cure_of_what_does_not_fit() -> None:
    """Copies alone are too much for a GPU: the diagnostic says with how many ranks the cache fits."""
    phase = "gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, engine = vllm"
    plan = dagc.compile_text(preset("qwen3-235b-a22b", phase, sequences=16))
    (refusal,) = (d for d in plan.diagnostics if d.code == "E04")
    assert refusal.help[0].startswith("dcp = 2 fits: 114.8 GB")
    assert dagc.compile_text(preset("qwen3-235b-a22b", f"{phase}, dcp = 2", sequences=16)).passed


def test_a_search_among_degrees_too() -> None:
    """The best of all plans that compile: what is known of one dcp is not taken for another."""
    text = preset(
        "qwen3-235b-a22b", "gpus = 0..15, attention { dp = any, tp = any }, experts { ep = 16 }, dcp = any", 65536, 16
    )
    answer = search(load_open(Source("plan.moe", text), Collector()), Asked(("tpot",)))
    times = {}
    for tp in (1, 2, 4, 8, 16):
        for dcp in (1, 2, 4, 8, 16):
            degrees = text.replace("dp = any, tp = any", f"dp = {16 // tp}, tp = {tp}").replace(
                "dcp = any", f"dcp = {dcp}"
            )
            try:
                times[tp, dcp] = dagc.compile_text(degrees).phases["decode"].time_s
            except SpecError:
                continue
    assert answer.best is not None
    best = answer.best.values["decode"]
    assert min(times, key=times.__getitem__) == (best["attention.tp"], best["dcp"])
    assert set(times) == {(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (16, 1), (16, 2), (16, 4)}


def test_what_engines_are_told() -> None:
    def flags(engine: str, model: str, phase: str) -> str:
        plan = dagc.compile_text(preset(model, phase, context=4096))
        return "".join(data.decode() for data in export(plan, engine, None, "p").values())

    latent = "gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, dispatch = allgather, dcp = 8"
    grouped = latent.replace("dcp = 8", "dcp = 2")
    assert "--decode-context-parallel-size 2" in flags("vllm", "qwen3-235b-a22b", grouped)
    assert "--decode-context-parallel-size 8" in flags("vllm", "deepseek-r1", latent)
    assert "--dcp-size 8" in flags("sglang", "deepseek-r1", latent)
    assert "dcp" not in flags("vllm", "deepseek-r1", latent.replace("dcp = 8", "dcp = 1"))
    for engine, model, phase in (
        ("sglang", "qwen3-235b-a22b", grouped), ("trtllm", "deepseek-r1", latent), ("megatron", "deepseek-r1", latent),
        ("vllm", "gpt-oss-20b", "gpus = 0..15, tp = 16, dcp = 2"),
    ):  # fmt: skip
        with pytest.raises(SpecError) as found:
            flags(engine, model, phase)
        assert any(words.startswith("dcp = ") for d in found.value.diagnostics for words in d.because)


def test_steps_of_a_serving_are_of_prompts_or_of_decode() -> None:
    phases = "phase prefill { gpus = 0..7, attention { tp = 8 }, experts { ep = 8 } }\n"
    serve = "serve chat { prefill = prefill, decode = decode, arrivals = closed(4), requests = 8, prompts = mixed }"
    phase = "gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, dcp = 2"
    text = preset("qwen3-235b-a22b", phase, 4096, extra=phases + serve)
    with pytest.raises(SpecError) as found:
        dagc.compile_text(text).serve("chat")
    assert "cannot take prompts in: its ranks split the context" in found.value.diagnostics[0].message
    apart = dagc.compile_text(text.replace("prompts = mixed", "prompts = first")).serve("chat")
    assert len(apart.outcome.served.prompt) == 8
