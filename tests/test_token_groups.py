"""Groups of tokens that are kept as one entry: against loops, by hand, on every rank, and refused where they cannot be."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mutants.expansion import model_text
from state_specs import GROUPED, state_spec
from tiers import left_out, spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost.chunks import resized
from dagc.execute.checkpoint import Checkpoint, read_arrays
from dagc.execute.numpy.ops import pool
from dagc.execute.prove import prove, prove_small, single
from dagc.execute.reference import Reference, prove_reference
from dagc.ir.op import Op
from dagc.ir.ops.attention_work import context_shares, group_pairs, query_key_pairs
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.op_set import OPS, read_bytes, state_bytes, traffic
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.scan import TextError
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.lang.load import load
from dagc.optimize.kept_points import KeptPoints
from dagc.optimize.point import Task, compiled
from dagc.pipeline.moved import cache_relaid
from dagc.spec.model import Model


@cache
def plan(kind: str = "prefill", prompt: int = 256, phase: str = "gpus = [0]") -> Plan:
    return dagc.compile_text(state_spec(GROUPED, phase, kind, prompt))


def ops_of(found: Plan, kind: str) -> list[tuple[Segment, Op]]:
    segment = next(iter(found.phases.values())).graph.segment("hybrid")
    return [(segment, op) for op in segment.ops if op.kind == kind]


# -- what is computed --------------------------------------------------------------------------------


def entry(x: np.ndarray, gate: np.ndarray, bias: np.ndarray, group: int, seen: int, overlaps: bool) -> np.ndarray:
    """One entry as the report has it, number by number: of the first `seen` tokens."""
    tokens, parts = len(bias), bias.shape[1] if overlaps else 1
    out = np.empty(x.shape[-1])
    for d in range(len(out)):
        terms = []
        for part in range(parts):
            for j in range(tokens):
                at = (group - parts + 1 + part) * tokens + j
                if 0 <= at < seen:
                    where = (part, d) if overlaps else (d,)
                    terms.append((x[at][where], gate[at][where] + bias[j][where]))
        weights = np.exp([z for _, z in terms])
        out[d] = sum(w * c for w, (c, _) in zip(weights / weights.sum(), terms, strict=True))
    return out


@pytest.mark.parametrize(("parts", "tokens"), [(1, 4), (2, 4), (3, 3), (1, 1), (2, 1)])
@pytest.mark.parametrize("cut", [0, 1, 4, 7, 12])
def test_entries_are_those_of_a_loop_wherever_a_sequence_is_cut(parts: int, tokens: int, cut: int) -> None:
    torch = pytest.importorskip("torch")
    from dagc.execute.torch import ops

    random, length, overlaps = np.random.default_rng(parts + tokens + cut), 13, parts > 1
    inner = (parts, 2) if overlaps else (2,)
    x, gate = random.normal(size=(2, 1, length, *inner))
    bias = random.normal(size=(tokens, *inner))
    held = np.zeros((1, 2, *((parts,) if overlaps else ()), tokens, *inner))
    for first, end in ((0, cut), (cut, length)) if cut else ((0, length),):
        new = x[:, first:end], gate[:, first:end]
        found, after = pool(*new, bias, first, held, overlaps)
        other = ops.pool(*map(torch.as_tensor, (*new, bias)), first, torch.as_tensor(held), overlaps)
        groups = range(first // tokens, (end - 1) // tokens + 1)
        wanted = [entry(x[0], gate[0], bias, g, end, overlaps) for g in groups]
        assert np.abs(found[0] - wanted).max() < 1e-12 and np.abs(np.asarray(other) - found).max() < 1e-12
        held = after


@pytest.mark.parametrize(("tokens", "most"), [(4, 0), (4, 3), (1, 5), (7, 1)])
def test_pairs_with_groups_are_a_sum_over_queries(tokens: int, most: int) -> None:
    for end in range(40):
        each = [(p + 1) // tokens for p in range(end)]
        assert group_pairs(end, tokens, most) == sum(min(n, most) if most else n for n in each)


@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        left_out(("prefill", "gpus = 0..3, tp = 2, sp = 2")),
        ("prefill", "gpus = 0..3, tp = 2, sp = 2, sp_method = ring, sequence_parallel = true"),
        ("prefill", "gpus = 0..3, sp = 4, sp_method = ulysses"),
        ("prefill", "gpus = 0..3, tp = 2, sp = 2, sp_layout = zigzag"),
        ("prefill", "gpus = 0..1, pp = 2, prefix = 37"),
        ("decode", "gpus = 0..3, tp = 2, sp = 2"),
        left_out(("decode", "gpus = 0..3, dp = 2, sp = 2, draft = 2")),
        ("decode", "gpus = 0..1, tp = 2, draft = 3"),
        ("decode", "gpus = 0..1, tp = 2, attention { kernel = unfused }"),
        ("mixed", "gpus = 0..1, tp = 2, decode = 16, prompts = [60 tok]"),
    ],
)
def test_every_rank_computes_what_the_unsharded_model_does(kind: str, phase: str) -> None:
    assert prove_small(plan(kind, 64, phase), kind).holds


@pytest.mark.parametrize("context", spread(range(61, 66), {63, 64, 65}))
def test_a_cached_step_at_a_border_of_groups_and_off_it_is_the_models(context: int) -> None:
    """At full size: 64 tokens fill groups of 4 and of 32."""
    assert prove(
        dagc.compile_text(state_spec(GROUPED, f"gpus = 0..1, tp = 2, context = {context}", "decode", 64)), "decode"
    ).holds


def test_where_a_context_is_split_one_rank_counts_the_entries() -> None:
    """dcp, of attention that sees the whole context beside them."""
    text = state_spec(GROUPED.replace("window = 16, ", ""), "gpus = 0..7, tp = 8, dcp = 2", "decode")
    found = dagc.compile_text(text)
    assert prove_small(found, "decode").holds
    for segment, op in ops_of(found, "attend"):
        tokens, entries = 272, min(68, 32) if op.of(AttendAttrs).chosen_entries else 272 // 32
        shares = context_shares(segment, op, found.phases["decode"].graph.the_mesh)
        assert shares == pytest.approx([(tokens / 2 + entries) / (tokens + entries), tokens / 2 / (tokens + entries)])


@pytest.mark.parametrize("context", spread(range(3, 14), {4, 7, 8, 13}))
def test_every_cached_step_of_deepseek_v4_is_that_of_transformers(context: int) -> None:
    """Groups of 3 and of 4 tokens, some filled by the step and some not; `tests/test_reference.py` has prompts and layouts."""
    folder = Path(__file__).parent / "data" / "reference" / "deepseek_v4_attention"
    text = f"""moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
{model_text(folder)}
workload {{ sequences = 2, prompt = 12 tok, output = 1 tok }}
phase decode {{ gpus = 0..1, tp = 2, context = {context} tok }}"""
    spec = load(Source("s", text), Collector(), {}, folder)
    proof = prove_reference(spec, spec.phases[0], *recorded(folder, spec.model))
    assert proof.holds and proof.reference_error is not None and proof.reference_error <= 1e-9


KEPT: list[tuple[Checkpoint, Reference]] = []


def recorded(folder: Path, model: Model) -> tuple[Checkpoint, Reference]:
    if not KEPT:
        KEPT.append((Checkpoint(model, read_arrays(folder / "weights.npz")), Reference.open(folder / "reference.npz")))
    return KEPT[0]


def test_text_of_the_ir_reads_back() -> None:
    for kind in ("prefill", "decode"):
        graph = plan(kind, phase="gpus = 0..1, tp = 2").phases[kind].graph
        assert parse_graph(print_graph(graph)) == graph


def test_layers_hand_entries_and_what_was_chosen_of_them_on() -> None:
    """The second layer makes none of its own, and attends to those of the first."""
    text = (
        GROUPED.replace(
            "layer hybrid { grouped_block, wide_block, moe }", "layer hybrid { grouped_block, later_block, moe }"
        )
        + """
block later_block(x, e, picked) {
  let ratio = 4
  q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = x * Wk[hidden, head_dim]
  o = attend(q, k, k, causal = true, window = 8, entries = e, selected = picked)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
block other_block(x, e, picked) {
  let ratio = 4
  let series = 4
  q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = x * Wk[hidden, head_dim]
  o = attend(q, k, k, causal = true, window = 8, entries = e, selected = picked)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
layer later { other_block, moe }
"""
    )
    for kind in ("prefill", "decode"):
        spec = state_spec(text, "gpus = 0..1, tp = 2", kind, 64).replace(
            "2 * hybrid, lm_head", "hybrid, later, lm_head"
        )
        assert prove_small(dagc.compile_text(spec), kind).holds
    with pytest.raises(SpecError, match="dimension `ratio` is 4 where the value is computed, and 8 here"):
        dagc.compile_text(spec.replace("ratio = 4\n  let series = 4", "ratio = 8"))


# -- what it takes -----------------------------------------------------------------------------------


def test_a_decode_step_reads_its_window_and_an_entry_of_each_group() -> None:
    """Of 4112 tokens 16 of a window, and 32 chosen of 1028 entries, or all 129; keys are values in the first, of 8 numbers and 2 bytes."""
    (segment, chosen), (_, whole) = ops_of(plan("decode", 4096), "attend")
    assert query_key_pairs(segment, chosen) == 16 + 32
    assert query_key_pairs(segment, whole) == 16 + 4112 // 32
    sequences, token = 16, 8 * 2
    own = [read_bytes(segment, chosen, name, single()) for name in dict.fromkeys(chosen.inputs[1:4])]
    assert own == [sequences * 16 * token, sequences * 32 * token]
    own = [read_bytes(segment, whole, name, single()) for name in whole.inputs[1:]]
    assert own == [sequences * 4 * 16 * token] * 2 + [sequences * 4 * 129 * token] * 2


def test_prompts_see_entries_as_far_as_they_have_come() -> None:
    (segment, chosen), (_, whole) = ops_of(plan(), "attend")
    window = sum(min(p + 1, 16) for p in range(256))
    assert query_key_pairs(segment, chosen) == window + sum(min((p + 1) // 4, 32) for p in range(256))
    assert query_key_pairs(segment, whole) == window + sum((p + 1) // 32 for p in range(256))
    ((_, select),) = ops_of(plan(), "select")
    assert OPS["select"].flops(segment, select) == 16 * 4 * (2 * 16 + 3) * sum((p + 1) // 4 for p in range(256))


def test_a_cache_has_an_entry_for_each_group_a_window_and_the_begun_group() -> None:
    """Two layers: entries of 8 and of 16 numbers for every 4 tokens, keys and values of 4 heads for every 32; windows of 17 tokens in blocks
    of 16; contents and gates of begun groups in fp32."""
    for prompt in (256, 4096):
        for kind in ("prefill", "decode"):
            context = prompt + (16 if kind == "decode" else 0)
            cache_B = 2 * (-(-context // 4) * (8 + 16) + -(-context // 32) * 2 * 4 * 8)
            window_B = 2 * 32 * (8 + 2 * 4 * 8)
            state_B = 4 * 2 * (2 * 4 * 2 * 8 + 4 * 16 + 2 * 32 * 4 * 8)
            memory = plan(kind, prompt).phases[kind].memory.worst
            assert memory.kv_cache_B == 2 * 16 * (cache_B + window_B + state_B)


def test_a_step_touches_of_a_begun_group_what_it_adds_and_on_average_fills() -> None:
    (segment, pooled), *_ = ops_of(plan("decode"), "pool")
    state_B = state_bytes(segment, pooled, single())
    assert state_B == 16 * 2 * 2 * 4 * 2 * 8 * 4
    moved = 2 * 16 * (2 * 2 * 8 + 8)  # contents and gates, and the entry
    assert traffic(segment, pooled, single()).activations_B == moved + 2 * state_B / 8
    assert OPS["pool"].flops(segment, pooled) == 16 * 5 * (2 * 4) * 8


def test_its_time_is_the_rooflines() -> None:
    """No kernel of this kind was measured: neither pools nor attention beside entries take the time of another one."""
    text = state_spec(GROUPED, "gpus = [0]", "decode", 4096)
    begin, end = text.index("hardware pool"), text.index("model small")
    found = dagc.compile_text(f'{text[:begin]}hardware from "h200-sxm" {{ gpus = 8 }}\n{text[end:]}')
    costs = found.phases["decode"].costs.ops
    families = {
        kind: {costs["hybrid", op.name].family for _, op in ops_of(found, kind)}
        for kind in ("pool", "attend", "contract")
    }
    assert families.pop("contract") - {""} and families == {"pool": {""}, "attend": {""}}


def test_of_an_entry_every_token_of_its_group_moves_a_share() -> None:
    """Two layers of keys and values of 4 heads, of which a GPU lacks 2 for its half of the sequences: 8 numbers each of a token, and of an
    entry of 32; what has no heads is there already."""
    text = state_spec(GROUPED, "gpus = 0..1, tp = 2") + "phase decode { gpus = 0..1, dp = 2 }"
    found = cache_relaid(dagc.compile_text(text), "prefill", "decode")
    assert found.node_B == pytest.approx(2 * 2 * 2 * 8 * 2 * (1 + 1 / 32)) and found.cluster_B == 0


def test_rows_of_a_sweep_are_those_that_compiling_gives() -> None:
    text = state_spec(GROUPED, "gpus = 0..1, tp = 2, context = c * 1 tok", "decode").replace(
        "moe 1", "moe 1\nparam c = 512", 1
    )
    tasks = [Task(text, "s.moe", None, (("c", value),)) for value in ("512", "513", "515", "4097", "120")]
    points = KeptPoints(tasks[0])
    rows = [points.row(each) for each in tasks]
    assert sum(row is not None for row in rows) >= 3
    assert all(row is None or repr(row) == repr(compiled(each)) for row, each in zip(rows, tasks, strict=True))


def test_chunks_of_a_prompt_take_what_each_sees() -> None:
    """Entries grow from chunk to chunk: attention counts what a whole prompt has."""
    graph = plan().phases["prefill"].graph
    pieces = [resized(graph, 64, 64 * (k + 1)).segment("hybrid") for k in range(4)]
    for kind in ("attend", "select"):
        for segment, op in ops_of(plan(), kind):
            assert sum(query_key_pairs(one, op) for one in pieces) == query_key_pairs(segment, op)
    assert [one.size("entries.ratio") for one in pieces] == [16, 32, 48, 64]
    assert [one.size("pooled.ratio") for one in pieces] == [16] * 4


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "phase", "message"),
    [
        ("decode", "gpus = 0..7, tp = 8, dcp = 2", "dcp 2 splits no cache"),
        ("decode", "gpus = [0], kv_cache { keep = 64 }", "`keep` does not go with attention to chosen tokens"),
        ("decode", "gpus = [0], kv_cache { offload = 50% }", "`offload` counts tokens of a cache"),
        ("decode", "gpus = [0], tree = [2, 1]", "`pool` has one past for all tokens of a step"),
    ],
)
def test_what_splits_or_drops_tokens_of_the_cache_is_refused(kind: str, phase: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(state_spec(GROUPED, phase, kind))
    assert message in str(caught.value)


def test_a_budget_of_tokens_is_none_of_entries() -> None:
    text = GROUPED.replace("layer hybrid { grouped_block,", "layer hybrid {")
    with pytest.raises(SpecError, match="`keep` counts tokens of a cache"):
        dagc.compile_text(state_spec(text, "gpus = [0], kv_cache { keep = 64 }", "decode"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pool(ic, iz, Bi[ratio, index_dim])", "pool(ic, c, Bi[ratio, index_dim])", "`pool` takes contents and gates [batch, seq, .., width]"),
        ("B[ratio, series, head_dim], overlap = true", "B[ratio, head_dim], overlap = true", "with `overlap = true` the first dimension"),
        ("entries = ke, entry_values = ve", "entry_values = ve", "`entry_values` are those of `entries`"),
        ("entries = ke, entry_values = ve", "entries = []", "queries: 1, keys of `entries`: 0"),
        ("entries = ke, entry_values = ve", "entries = k, entry_values = v", "`entries` are tensors [batch, pooled, ..., width]"),
        ("picked = select(rope(iq), rope(pool(ic, iz, Bi[ratio, index_dim])), iw,", "picked = select(iq, ic, iw,", "`selected` chooses among tokens"),
        ("window = 16, entries = e, sinks", "window = 16, sinks", "`selected` chooses among entries of other groups"),
        ("ke = pool", "let pooled = 4\n  ke = pool", "`pooled` is a dimension that `pool` makes"),
        ("ve = pool(v, z, Bv[ratio, kv_heads, head_dim])", "ve = cache(cache(pool(v, z, Bv[ratio, kv_heads, head_dim])))", "`cache` needs a tensor with dimension `seq`, or with `pooled`"),
        ("= Wq[hidden, heads, head_dim]", "= Wq[hidden, heads, head_dim, entries]", "weight"),
    ],
)  # fmt: skip
def test_what_is_no_group_of_tokens_is_named_at_its_statement(old: str, new: str, message: str) -> None:
    text = GROUPED.replace(old, new)
    if old not in GROUPED:
        text = GROUPED.replace(
            "y[batch, seq, hidden] = o * Wo[kv_heads",
            "zz[pooled] = h * Wzz[hidden, pooled]\n  y[batch, seq, hidden] = o * Wo[kv_heads",
        )
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(state_spec(text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("context=256, ", ""),
        ("pooled.ratio, head_dim]", "pooled.hidden, head_dim]"),
        ("entries.ratio, head_dim]", "entries.entries.ratio, head_dim]"),
        ("chosen_entries=32", "chosen=32"),
        ("entries=true, chosen", "chosen"),
        ("overlap=true", "overlap=false"),
    ],
)
def test_a_graph_whose_groups_do_not_fit_is_named(old: str, new: str) -> None:
    text = print_graph(plan().phases["prefill"].graph)
    assert old in text
    with pytest.raises((VerifyError, TextError)) as caught:
        verify(parse_graph(text.replace(old, new)))
    assert "found" in str(caught.value) or "wanted" in str(caught.value), caught.value


def test_training_says_that_it_is_not_there() -> None:
    with pytest.raises(SpecError, match="where tokens are kept in groups"):
        dagc.compile_text(state_spec(GROUPED, "gpus = [0]", "train"))
