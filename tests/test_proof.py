"""Lowered graphs compute what the model computes, rank by rank; broken ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLES, ROOT, examples, spec_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiers import in_turn, spread

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.execute.inputs import Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.numpy.ops import contract
from dagc.execute.prove import Recording, prove, prove_graph
from dagc.ir.graph import Graph
from dagc.ir.ops.attributes.elementwise import ScaleAttrs
from dagc.ir.text.write import print_graph
from dagc.lang.load import load
from dagc.spec.workload import Routing

GQA = "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }"
MLA = "attention { kind = mla, heads = 4, q_latent = 12, kv_latent = 8, nope_dim = 4, rope_dim = 4, v_dim = 4 }"
PLANS = {
    "one rank": "gpus = [0]",
    "tp": "gpus = 0..1, tp = 2",
    "tp beyond the KV heads": "gpus = 0..3, tp = 4",
    "sequence parallel": "gpus = 0..1, tp = 2, sequence_parallel = true",
    "ep": "gpus = 0..3, ep = 4",
    "ep in a tp group": "gpus = 0..3\nattention { tp = 4 }\nexperts { ep = 4 }",
    "ep over dp and tp": "gpus = 0..3, sequence_parallel = true\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
    "tokens cut before dispatch": "gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }, redundant = 4",
    "tokens cut, experts split": "gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 4, tp = 2 }",
    "experts copied over sp": (
        "gpus = 0..7, order = [pp, sp, dp, tp, ep]\nattention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 4 }"
    ),
    "experts tp over dp": "gpus = 0..3\nattention { dp = 4 }\nexperts { ep = 2, tp = 2 }",
    "experts copied": "gpus = 0..3\nattention { dp = 4 }\nexperts { ep = 2 }",
    "sp gather": "gpus = 0..3, sp = 2, tp = 2",
    "sp ring": "gpus = 0..1, sp = 2, sp_method = ring",
    "sp ulysses": "gpus = 0..1, sp = 2, sp_method = ulysses",
    "all five": "gpus = 0..31, pp = 2, dp = 2, ep = 2, sp = 2, tp = 2, microbatches = 2",
    "all five, sequence parallel": "gpus = 0..31, pp = 2, dp = 2, ep = 2, sp = 2, tp = 2, sequence_parallel = true",
    "redundant": "gpus = 0..3, ep = 4, redundant = 4",
    "two-batch": "gpus = 0..3, ep = 2, tp = 2, overlap = two_batch",
}


def small(phase: str, kind: str, attention: str = GQA, shared: int = 0) -> str:
    model = (
        f"layers = 2, dense_first = {shared}, hidden = 8, vocab = 32, dtype = fp32\n{attention}\nmlp {{ hidden = 8 }}\n"
        f"experts {{ count = 4, top_k = 2, hidden = 4, shared = {shared} }}"
    )
    return spec_text(kind=kind, phase=phase, model=model, workload="sequences = 8, prompt = 8 tok, output = 8 tok")


KINDS = ["prefill", "decode"]


@pytest.mark.parametrize(("name", "kind"), in_turn(PLANS, KINDS))
def test_grouped_query_attention_and_experts(name: str, kind: str) -> None:
    phase = PLANS[name]
    if kind == "decode" and "sequence_parallel" in phase:
        phase = phase.replace("true", "false")
    proof = prove(dagc.compile_text(small(phase, kind)), kind)
    assert proof.holds, proof


@pytest.mark.parametrize(
    ("name", "kind"), in_turn(["one rank", "tp", "ep", "sp gather", "ep over dp and tp", "all five"], KINDS)
)
def test_latent_attention_dense_layers_and_shared_experts(name: str, kind: str) -> None:
    proof = prove(dagc.compile_text(small(PLANS[name], kind, MLA, shared=1)), kind)
    assert proof.holds, proof


DEGREE = st.sampled_from([1, 2])


@st.composite
def strategies(draw: st.DrawFn) -> tuple[str, str]:
    """(kind, spec) of a random small plan on at most 16 ranks; not all are legal."""
    kind = draw(st.sampled_from(["prefill", "decode"]))
    pp, dp, ep, sp, tp = draw(DEGREE), draw(DEGREE), draw(DEGREE), draw(DEGREE), draw(st.sampled_from([1, 2, 4]))
    options = (
        f"pp = {pp}, microbatches = {draw(DEGREE)}, redundant = {draw(st.sampled_from([0, 4]))}, "
        f"sp_method = {draw(st.sampled_from(['allgather', 'ring', 'ulysses']))}, "
        f"overlap = {draw(st.sampled_from(['none', 'two_batch']))}"
    )
    if kind == "prefill" and draw(st.booleans()):
        options += ", sequence_parallel = true"
    if kind == "prefill" and draw(st.booleans()):
        options += ", sp_layout = zigzag"
    if draw(st.booleans()):
        ep, etp = draw(st.sampled_from([1, 2, 4])), draw(DEGREE)
        phase = f"gpus = 0..{pp * dp * sp * tp - 1}, {options}\nattention {{ dp = {dp}, sp = {sp}, tp = {tp} }}\nexperts {{ ep = {ep}, tp = {etp} }}"
    else:
        phase = f"gpus = 0..{pp * dp * ep * sp * tp - 1}, dp = {dp}, ep = {ep}, sp = {sp}, tp = {tp}, {options}"
    return kind, small(phase, kind, draw(st.sampled_from([GQA, MLA])), draw(st.sampled_from([0, 1])))


@settings(max_examples=examples(15, 3), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies())
def test_random_strategies_compute_the_same(plan: tuple[str, str]) -> None:
    kind, text = plan
    try:
        compiled = dagc.compile_text(text)
    except SpecError:
        return
    proof = prove(compiled, kind)
    assert proof.holds, proof


def broken(graph: Graph) -> list[tuple[str, Graph]]:
    """The sparse layer with one collective left out, or one sum taken over the wrong axis."""
    index = next(i for i, s in enumerate(graph.segments) if s.name == "sparse")
    segment = graph.segments[index]
    out = []
    for i, op in enumerate(segment.ops):
        if op.kind != "all_reduce":
            continue
        ops = list(segment.ops)
        # The same name and layout, but nothing is exchanged.
        ops[i] = replace(op, kind="scale", axes=(), attrs=ScaleAttrs(1.0))
        segments = list(graph.segments)
        segments[index] = replace(segment, ops=tuple(ops))
        out.append((f"without {op.name}", replace(graph, segments=tuple(segments))))
        other = next(a for a, _ in graph.the_mesh.atoms if a not in op.axes)
        ops[i] = replace(op, axes=(other,))
        segments[index] = replace(segment, ops=tuple(ops))
        out.append((f"{op.name} over {other}", replace(graph, segments=tuple(segments))))
    return out


def test_a_forgotten_or_misplaced_reduction_cannot_pass() -> None:
    plan = dagc.compile_text(small("gpus = 0..7, ep = 2, sp = 2, tp = 2", "prefill"))
    mutants = broken(plan.phases["prefill"].graph)
    assert len(mutants) >= 4
    for name, graph in mutants:
        assert not prove_graph(graph, plan.units["prefill"]).holds, name


LARGE = {
    "deepseek_v3_expert_gpus", "deepseek_v4_flash_8xh200", "llama_70b_fsdp", "mixtral_pretrain", "plan_b", "qwen3_235b_placed", "three_link_levels",
}  # fmt: skip
"""Half of the time, of what tests/test_reference.py, test_shared_out_weights.py and others prove on small models."""
PROVED = spread([p for p in EXAMPLES if p.stem != "deepseek_v3_h800"], lambda p: p.stem not in LARGE)


@pytest.mark.parametrize("path", PROVED, ids=lambda p: p.stem)
def test_verify_proves_the_examples(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path)]) == 0
    spec = load(Source(path.name, path.read_text()), Collector(), {}, path.parent)
    assert capsys.readouterr().out.count("equal on") == len(spec.phases) + len(spec.trainings)


def test_verify_proves_a_wide_expert_decode(capsys: pytest.CaptureFixture[str]) -> None:
    """EP32 prefill of DeepSeek-V3: latent attention, dense and sparse layers, shared and redundant experts."""
    spec = ROOT / "examples" / "deepseek_v3_h800.moe"
    assert main(["verify", str(spec), "--phase", "prefill"]) == 0
    assert "equal on 32 ranks" in capsys.readouterr().out


def test_the_first_difference_is_named() -> None:
    plan = dagc.compile_text(small("gpus = 0..7, ep = 2, sp = 2, tp = 2", "prefill"))
    for name, graph in broken(plan.phases["prefill"].graph):
        if name.startswith("without gqa"):
            proof = prove_graph(graph, plan.units["prefill"])
            assert proof.first.startswith("sparse[0]/gqa."), (name, proof)


def test_absorbed_latent_attention_is_the_plain_form() -> None:
    """The stock decode body against the stock plain body used in decode: the same weights, cache and tokens."""
    stock = (ROOT / "grammar" / "library" / "blocks.moe").read_text()
    plain = stock[stock.index("block mla(x) {") : stock.index("# The same, with the up-projections")]
    text = small("gpus = [0]", "decode", MLA)
    runs = []
    for extra in ("", plain.replace("block mla(x)", "block mla(x) in decode")):
        graph = dagc.compile_text(text + extra).phases["decode"].graph
        inputs = Inputs(np.arange(8).reshape(8, 1), Routing())
        machine = RankMachine(graph, inputs, graph.the_mesh)
        kept = Recording(machine)
        machine.run()
        runs.append((graph, kept.whole(graph.segments[1].repeat, "lm_head.logits")))
    assert "Wuk" in print_graph(runs[1][0]) and runs[0][0] != runs[1][0]
    assert np.allclose(runs[0][1], runs[1][1], rtol=1e-12)


def test_an_imported_model_prints_as_a_spec_that_reads_back_equal(tmp_path: Path) -> None:
    from dagc.lang.printer.print_spec import print_spec

    config = ROOT / "tests" / "data" / "reference" / "llama4" / "config.json"
    text = spec_text(phase="gpus = 0..1, tp = 2", workload="sequences = 2, prompt = 12 tok, output = 1 tok")
    start, end = text.index("model small {"), text.index("workload")
    text = text[:start] + 'model small from "config.json" {}\n' + text[end:]
    spec = load(Source("s", text), Collector(), {}, config.parent)
    again = load(Source("s", print_spec(spec)), Collector(), {}, None)
    assert again == spec and spec.model.checkpoint["llama4_moe"]["Wr"]


@pytest.mark.parametrize(
    ("phase", "kind"),
    in_turn(
        [
            "gpus = 0..3, ep = 4",
            "gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
            "gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 4, tp = 2 }",
            "gpus = 0..7, sp = 2, tp = 2, ep = 2",
        ],
        KINDS,
    ),
)
def test_gathered_tokens_instead_of_exchanged_ones(phase: str, kind: str) -> None:
    """`dispatch = allgather`: every expert rank sees all tokens; sums go back instead of routed rows."""
    plan = dagc.compile_text(small(f"dispatch = allgather, {phase}", kind, shared=1))
    assert prove(plan, kind).holds
    kinds = {op.kind for op in plan.phases[kind].graph.segment("sparse").ops if op.is_collective}
    assert "all_gather" in kinds and "all_to_all" not in kinds


@pytest.mark.parametrize("attention", [GQA, MLA], ids=["gqa", "mla"])
@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        ("prefill", "gpus = 0..3, prefix = 4 tok, ep = 2, tp = 2"),
        ("prefill", "gpus = 0..3, prefix = 4 tok, ep = 2, tp = 2, sequence_parallel = true"),
        ("decode", "gpus = 0..3, draft = 2, ep = 2, tp = 2"),
        ("decode", "gpus = 0..3, draft = 1, sp = 2, tp = 2"),
    ],
)
def test_several_new_tokens_at_the_end_of_a_cache(kind: str, phase: str, attention: str) -> None:
    """A cached prefix in prefill and drafted tokens in decode."""
    plan = dagc.compile_text(small(phase, kind, attention))
    assert prove(plan, kind).holds
    sizes = plan.phases[kind].graph.segment("sparse").sizes
    assert 1 < sizes["seq"] < sizes["context"]


def test_accepted_drafts_make_a_step_worth_more_tokens() -> None:
    base = dagc.compile_text(small("gpus = 0..1, tp = 2", "decode")).phases["decode"]
    drafted = dagc.compile_text(small("gpus = 0..1, tp = 2, draft = 2, acceptance = 50%", "decode")).phases["decode"]
    assert drafted.tokens_per_step == 1.75
    assert drafted.time_s == pytest.approx(drafted.schedule.period_s / 1.75)
    assert drafted.schedule.period_s > base.schedule.period_s and drafted.flops_per_token > base.flops_per_token


def test_a_head_that_returns_the_best_choices_is_proved() -> None:
    """The largest logits of a split vocabulary, as samplers take them: the scores are compared as logits."""
    head = (
        "block best(x) {\n  h = rms_norm(x)\n  s[batch, seq, vocab] = h * W[hidden, vocab]\n"
        "  t = route(s, top_k = 8)\n  return t\n}\nlayer head { best }\n"
    )
    model = (
        "hidden = 64, vocab = 512, dtype = fp32\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "experts { count = 8, top_k = 2, hidden = 32 }\nstack = [embed, 2 * sparse, head]"
    )
    plan = dagc.compile_text(spec_text(phase="gpus = 0..7, ep = 4, tp = 2", model=model, extra=head))
    proof = plan.prove("prefill")
    assert proof.verdict == "equal" and proof.collectives > 0


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_products_are_those_of_einsum(data: st.DataObject) -> None:
    """Whatever is summed, kept on one side, or on both; in any order of the dims."""
    at = {name: data.draw(st.integers(1, 3)) for name in "abcdef"}
    a_dims, b_dims = (tuple(data.draw(st.permutations("abcdef"))[: data.draw(st.integers(1, 4))]) for _ in range(2))
    every = sorted({*a_dims, *b_dims})
    out = tuple(data.draw(st.permutations(every))[: data.draw(st.integers(0, len(every)))])
    a, b = (np.random.default_rng(1).normal(size=[at[d] for d in dims]) for dims in (a_dims, b_dims))
    wanted = np.einsum(f"{''.join(a_dims)},{''.join(b_dims)}->{''.join(out)}", a, b)
    assert np.allclose(contract(a, a_dims, b, b_dims, out), wanted, rtol=1e-12)
