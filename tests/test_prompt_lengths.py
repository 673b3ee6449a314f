"""Prompts of unequal lengths in a batch: their quantiles, how they share rows, and what padded and packed batches take."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import spec_text
from tiers import left_out

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.foreign_lines import TraceError
from dagc.base.frozen import replace
from dagc.base.source import Source
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.lang.open_spec import load_open
from dagc.lang.printer.print_spec import print_spec
from dagc.lang.sections.prompt_lengths import busiest, lengths_of, together
from dagc.optimize.room import Fit
from dagc.optimize.survive import survive, written
from dagc.pipeline.changed import Changes, Held

MODEL = (
    "layers = 2, hidden = 64, vocab = 512, dtype = bf16\n"
    "attention { heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
)


def compiled(phase: str, folder: Path | None = None) -> Plan:
    text = spec_text(phase=f"gpus = 0..7, {phase}", kind="prefill", model=MODEL)
    if folder is None:
        return dagc.compile_text(text)
    (folder / "spec.moe").write_text(text)
    return dagc.compile(folder / "spec.moe")


# -- closed forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["padded", "packed"])
def test_equal_lengths_are_the_batch_without_them(packing: str) -> None:
    plain = compiled("dp = 4, tp = 2, sequences = 16").phases["prefill"]
    for said in ("fixed", "uniform(100%, 100%)", "lognormal(1e-9)"):
        same = compiled(f"dp = 4, tp = 2, sequences = 16, lengths = {said}, packing = {packing}").phases["prefill"]
        assert same.graph == plain.graph and same.time_s == plain.time_s and same.memory == plain.memory
        assert same.throughput_tok_s == plain.throughput_tok_s and same.flops_per_token == plain.flops_per_token


def test_padded_rows_are_as_long_as_the_longest() -> None:
    own = compiled(
        "dp = 8, lengths = [40 tok, 40 tok, 48 tok, 48 tok, 56 tok, 64 tok, 64 tok, 256 tok], packing = padded"
    )
    whole = compiled("dp = 8, sequences = 8").phases["prefill"]
    result = own.phases["prefill"]
    assert result.graph == whole.graph and result.time_s == whole.time_s and result.memory == whole.memory
    assert result.throughput_tok_s * result.time_s == pytest.approx(616)
    assert own.subject().of("prefill").padding == pytest.approx(1 - 616 / 2048)


def test_packed_rows_have_the_sum_of_tokens_and_of_squares() -> None:
    """Attention of a packed row is that of each prompt; products are those of all its tokens."""
    from dagc.ir.ops.op_set import flops

    lengths = (96, 64, 32)
    result = compiled(f"tp = 8, lengths = [{', '.join(f'{n} tok' for n in lengths)}]").phases["prefill"]
    layer = result.graph.body[0]
    assert layer.size("seq") == sum(lengths)
    attends = [flops(layer, op) for op in layer.ops if op.kind == "attend"]
    assert sum(attends) == sum(2 * 8 * 2 * 8 * n * (n + 1) / 2 for n in lengths)
    (product,) = [flops(layer, op) for op in layer.ops if op.name == "gqa.q"]
    assert product == 2 * sum(lengths) * 64 * 64


def test_packed_is_priced_as_a_mixed_step_without_decode() -> None:
    said = "dp = 8"
    packed = compiled(f"{said}, lengths = [{', '.join(['96 tok'] * 8 + ['32 tok'] * 8)}]").phases["prefill"]
    text = spec_text(
        phase=f"gpus = 0..7, {said}, prompts = [{', '.join(['96 tok'] * 8 + ['32 tok'] * 8)}]",
        kind="mixed",
        model=MODEL,
    )
    mixed = dagc.compile_text(text).phases["mixed"]
    assert packed.time_s == pytest.approx(mixed.time_s, rel=1e-12)
    assert packed.memory == mixed.memory and packed.throughput_tok_s == pytest.approx(mixed.throughput_tok_s)


# -- who shares a row ---------------------------------------------------------------------------------


def test_the_busiest_row_is_within_the_bound_of_its_rule() -> None:
    """LPT: at most 4/3 - 1/(3 m) of the best there is (Graham 1969), where places are not what binds; never below the mean."""
    random = Random(3)
    for _ in range(60):
        rows, count = random.randint(1, 6), random.randint(1, 40)
        tokens = sorted((random.randint(1, 5000) for _ in range(count)), reverse=True)
        found = busiest(tokens, rows, count)
        least = max(tokens[0], ceil(sum(tokens) / rows))
        assert (
            least <= sum(found) <= (4 / 3 - 1 / (3 * rows)) * _best(tokens, rows) if count <= 8 else sum(found) >= least
        )
        tight = busiest(tokens, rows, ceil(count / rows))
        assert len(tight) <= ceil(count / rows) and sum(tight) >= sum(tokens) / rows


def _best(tokens: list[int], rows: int) -> int:
    """By trying all ways."""
    best = sum(tokens)
    sums = [0] * rows

    def place(i: int) -> None:
        nonlocal best
        if i == len(tokens):
            best = min(best, max(sums))
            return
        for row in {s: r for r, s in enumerate(sums)}.values():
            if sums[row] + tokens[i] < best:
                sums[row] += tokens[i]
                place(i + 1)
                sums[row] -= tokens[i]

    place(0)
    return best


@pytest.mark.parametrize("most", [1, 4, 16])
def test_near_lengths_are_taken_together(most: int) -> None:
    tokens = sorted((int(n) for n in np.random.default_rng(5).lognormal(7, 1, 300)), reverse=True)
    found = together(tokens, most)
    assert len(found) == most and sum(count for _, count in found) == len(tokens)
    assert sum(n * k for n, k in found) == pytest.approx(sum(tokens), rel=2e-3)
    squares = sum(n * n * k for n, k in found) / sum(n * n for n in tokens)
    assert squares <= 1.001 and (most < 16 or squares > 0.99)


# -- how long they are ------------------------------------------------------------------------------------


def said(lengths: str, sequences: int = 64) -> tuple[int, int, int]:
    own = compiled(f"dp = 8, sequences = {sequences}, lengths = {lengths}, packing = padded").spec.phases[0].lengths
    assert own is not None
    return own.tokens, own.shortest, own.longest


def test_quantiles_have_the_mean_and_the_range() -> None:
    prompt = compiled("dp = 8").spec.workload.prompt
    tokens, shortest, longest = said("uniform(50%, 150%)", 1024)
    assert tokens / 1024 == pytest.approx(prompt, rel=0.01)
    assert (shortest, longest) == (pytest.approx(prompt / 2, abs=1), pytest.approx(1.5 * prompt, abs=1))
    tokens, shortest, longest = said("lognormal(1)", 1024)
    assert tokens / 1024 == pytest.approx(prompt, rel=0.01) and shortest < prompt / 8 and longest > 8 * prompt


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("prompt_tokens,output_tokens,share\n80,1,0.75\n320,1,0.25\n")
    own = (
        compiled('dp = 8, sequences = 8, lengths = histogram("h.csv"), packing = padded', tmp_path)
        .spec.phases[0]
        .lengths
    )
    assert own is not None and own.tokens == 6 * 80 + 2 * 320
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"input_length": n}) + "\n" for n in (64, 96, 32, 999)))
    own = compiled('dp = 1, tp = 8, sequences = 3, lengths = trace("t.jsonl")', tmp_path).spec.phases[0].lengths
    assert own is not None and (own.tokens, own.longest) == (64 + 96 + 32, 96)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "prompt_tokens\nx\n", "prompt_tokens\n0\n", "prompt_tokens,share\n5\n", "{\n", "[]\n",
                                  "prompt_tokens,share\n5,nan\n", "prompt_tokens,share\n5,0\n", "{}\n", "prompt_tokens\n99999999999\n"])  # fmt: skip
def test_what_is_no_file_of_lengths_says_so(text: str) -> None:
    with pytest.raises(TraceError, match=r"x\.csv"):
        lengths_of(text, Path("x.csv"))


# -- proof, printing, what is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [left_out("dp = 2, tp = 4"), "pp = 2, ep = 2, tp = 2, microbatches = 2"])
def test_packed_rows_are_proved(layout: str) -> None:
    plan = compiled(f"{layout}, sequences = 32, lengths = lognormal(1), prefix = 8 tok")
    assert len(plan.spec.phases[0].parts) > 2
    proof = plan.prove("prefill")
    assert proof.verdict == "equal", proof


@pytest.mark.parametrize("packing", ["padded", "packed"])
def test_a_batch_is_written_and_read_back(packing: str) -> None:
    plan = compiled(
        f"dp = 2, tp = 4, sequences = 32, lengths = uniform(50%, 150%), packing = {packing}, prefix = 8 tok"
    )
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.phases["prefill"].graph == plan.phases["prefill"].graph
    assert again.phases["prefill"].throughput_tok_s == pytest.approx(plan.phases["prefill"].throughput_tok_s)
    back = plan_of(json.loads(dumps(graph_object(plan, "prefill"))))
    assert back.phases["prefill"].throughput_tok_s == pytest.approx(plan.phases["prefill"].throughput_tok_s)
    assert back.spec.phases[0].lengths == plan.spec.phases[0].lengths


@pytest.mark.parametrize("phase, code, marked", [
    ("dp = 8, packing = padded", "E12", "padded"),
    ("dp = 8, lengths = [32 tok, 64 tok], sequences = 3", "E03", "[32 tok, 64 tok]"),
    ("dp = 8, lengths = [0 tok]", "E08", "[0 tok]"),
    ("dp = 8, sequences = 1, lengths = [40.5 tok]", "E08", "[40.5 tok]"),
    ("dp = 8, sequences = 1, lengths = [40 B]", "E08", "[40 B]"),
    ("dp = 8, lengths = uniform(150%, 50%)", "E03", "uniform(150%, 50%)"),
    ("dp = 8, lengths = unifrom(50%, 150%)", "E02", "unifrom(50%, 150%)"),
    ("dp = 8, lengths = fixed, chunk = 16 tok", "E12", "16 tok"),
    ("dp = 8, lengths = fixed, context = 64 tok", "E12", "64 tok"),
    ("dp = 4, sp = 2, sequences = 16, lengths = uniform(50%, 150%)", "E03", "2"),
    ("dp = 8, sequences = 100_000, lengths = lognormal(1)", "E09", "lognormal(1)"),
    ("dp = 8, lengths = uniform(10%, 190%), prefix = 100 tok", "E03", "uniform(10%, 190%)"),
    ('dp = 8, lengths = trace("none.csv")', "E05", '"none.csv"'),
])  # fmt: skip
def test_faults_are_marked(phase: str, code: str, marked: str) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(phase)
    assert (code, marked) in [(d.code, d.span.text) for d in caught.value.diagnostics if d.span is not None]


def test_a_decode_has_no_lengths() -> None:
    with pytest.raises(SpecError, match="belongs to a prefill phase"):
        dagc.compile_text(spec_text(phase="gpus = 0..7, dp = 8, lengths = fixed", kind="decode", model=MODEL))


@pytest.mark.parametrize(
    "said", ["lognormal(1), sequences = 32", "uniform(50%, 150%), sequences = 24, microbatches = 2, fuse = full"]
)
def test_in_another_layout_prompts_share_other_rows(said: str) -> None:
    """As where the layout is written, for whoever changes it: cures, what fits, and what goes on without some GPUs."""
    plan = compiled(f"dp = 8, packing = packed, lengths = {said}")
    phase = plan.spec.phase("prefill")
    moved = replace(phase, gpus=tuple(range(4)), strategy=replace(phase.strategy, dp=4))
    held = Changes(plan.spec, plan.phases).held([moved])
    text = spec_text(phase=f"gpus = 0..3, dp = 4, packing = packed, lengths = {said}", kind="prefill", model=MODEL)
    wanted = dagc.compile_text(text).phases["prefill"]
    assert isinstance(held, Held)
    assert held.results["prefill"].graph == wanted.graph and held.results["prefill"].memory == wanted.memory
    assert wanted.graph.segments != plan.phases["prefill"].graph.segments


def test_survivors_of_packed_prompts_are_what_their_text_compiles_to() -> None:
    opened = load_open(
        Source(
            "p.moe",
            spec_text(
                phase="gpus = 0..2, dp = 3, packing = packed, lengths = lognormal(1), fuse = full",
                kind="prefill",
                model=MODEL.replace("layers = 2", "layers = 1"),
                workload="sequences = 24, prompt = 64 tok, output = 4 tok",
                gpus=3,
            ),
        ),
        Collector(),
    )
    found = survive(opened, {"": frozenset({1})}, top=3)
    assert {one.kind for one in found.plans} >= {"drain"}
    for one in found.plans:
        again = dagc.compile_text(written(opened, one.phases)).phases["prefill"]
        assert again.time_s == one.plan.phases["prefill"].time_s and "fuse = full" in written(opened, one.phases)


def test_more_packed_prompts_are_not_told_of() -> None:
    """Which ones would be in a larger batch is not known."""
    plan = compiled("dp = 8, packing = packed, lengths = fixed, sequences = 16")
    assert [one.what for one in Fit(plan.spec).largest("prefill")] == ["kv_tokens"]
