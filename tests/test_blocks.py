"""Blocks as strangers write them: each computes what it says on every rank, or is refused at the statement."""

from __future__ import annotations

import pytest
from odd_blocks import COMPUTED, HEADS, REFUSED, text
from tiers import in_turn

import dagc
from dagc.base.diagnostics import Diagnostic, SpecError
from dagc.execute.prove import prove


def fault(body: str, **options: str) -> Diagnostic:
    """The one error of a block."""
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text(body, **options))
    errors = [d for d in caught.value.diagnostics if d.code.startswith("E")]
    assert len(errors) == 1, [d.message for d in errors]
    return errors[0]


@pytest.mark.parametrize(("kind", "name"), in_turn(["prefill", "decode"], REFUSED))
def test_what_cannot_be_computed_is_refused_at_its_statement(name: str, kind: str) -> None:
    body, code, message, at = REFUSED[name]
    found = fault(body, kind=kind)
    assert found.code in code.split()
    assert message in found.message + " ".join(found.help)
    assert found.span is not None
    assert not at or found.span.text == at


def test_grouped_heads_are_shown_the_right_form() -> None:
    found = fault(HEADS.format(keys="kv_heads, ", values="kv_heads, "))
    assert "q[batch, seq, kv_heads, group, head_dim]" in " ".join(found.help)


@pytest.mark.parametrize(("kind", "name"), in_turn(["prefill", "decode"], COMPUTED))
def test_unusual_blocks_compute_what_they_say(name: str, kind: str) -> None:
    proof = prove(dagc.compile_text(text(COMPUTED[name], kind=kind)), kind)
    assert proof.holds, proof


def test_two_selections_keep_their_sizes() -> None:
    graph = dagc.compile_text(text(COMPUTED["two selections"])).phases["prefill"].graph
    segment = graph.segment("mine")
    chosen = [segment.size(op.dims[-1]) for op in segment.ops if op.kind == "select"]
    assert chosen == [3, 5]


def warnings(body: str, phase: str) -> list[Diagnostic]:
    plan = dagc.compile_text(text(body, phase))
    return [d for d in plan.diagnostics if (d.code == "W06" and "attention" in d.message) or "ulysses" in d.message]


OWN = HEADS.format(keys="heads, ", values="heads, ").replace("heads", "mine")


def test_heads_that_no_axis_knows_are_doubtful() -> None:
    body = f"let mine = 4\n{OWN}"
    (found,) = warnings(body, "gpus = 0..1, tp = 2")
    assert found.span is not None
    assert "repeats on 2 ranks" in found.message
    assert "attend(" in found.span.text
    assert "shard { mine = tp }" in " ".join(found.help)
    assert not warnings(body, "gpus = 0..1, tp = 2, shard { mine = tp }")
    assert not warnings(body, "gpus = 0..1, dp = 2")
    (exchange,) = warnings(body, "gpus = 0..1, sp = 2, sp_method = ulysses")
    assert "keys and values are gathered" in exchange.message
    assert not warnings(OWN.replace("mine", "heads"), "gpus = 0..3, sp = 2, tp = 2, sp_method = ulysses")


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("rule", ["hidden", "head_dim", "ffn, head_dim"])
def test_rules_for_any_width_are_proved(rule: str, kind: str) -> None:
    shard = ", ".join(f"{dim} = tp" for dim in rule.split(", "))
    plan = dagc.compile_text(
        text(COMPUTED["norms within experts"], f"gpus = 0..3, tp = 2, ep = 2, shard {{ {shard} }}", kind)
    )
    proof = prove(plan, kind)
    assert proof.holds, proof


@pytest.mark.parametrize("dim", ["batch", "seq", "context", "expert", "slot", "choice"])
def test_a_rule_for_a_dimension_with_an_axis_is_refused(dim: str) -> None:
    found = fault("return x", phase=f"gpus = 0..1, tp = 2, shard {{ {dim} = tp }}")
    assert found.code == "E03"
    assert found.span is not None
    assert found.span.text == dim


def test_a_weight_that_is_needed_in_two_layouts_is_refused_at_its_second_use() -> None:
    body = (
        "let ffn = 8\nu[batch, seq, ffn] = x * W[hidden, ffn]\na = u * g[ffn]\n"
        "q[batch, seq, heads, ffn] = x * Wq[hidden, heads, ffn]\nb2 = q * g[ffn]\n"
        "y[batch, seq, hidden] = a * D[ffn, hidden]\nz[batch, seq, hidden] = b2 * E[heads, ffn, hidden]\nreturn x + y + z"
    )
    found = fault(body)
    assert found.code == "E03"
    assert found.span is not None
    assert found.span.text == "b2 = q * g[ffn]"


@pytest.mark.parametrize(
    ("heads", "ffn", "vocab", "tp"), [(6, 27, 32, 6), (30, 10, 9, 30), (12, 6, 9, 12), (6, 32, 27, 6)]
)
def test_a_flat_plan_leaves_whole_what_does_not_divide(heads: int, ffn: int, vocab: int, tp: int) -> None:
    body = (
        f"let ffn = {ffn}\nu[batch, seq, ffn] = x * U[hidden, ffn]\n"
        "y[batch, seq, hidden] = relu(u) * D[ffn, hidden]\nreturn x + y"
    )
    spec = text(body, f"gpus = 0..{tp - 1}, tp = {tp}")
    for old, new in (
        ("vocab = 16", f"vocab = {vocab}"),
        ("heads = 4, kv_heads = 2", f"heads = {heads}, kv_heads = {heads}"),
        ("experts { count = 4, top_k = 2, hidden = 4 }", ""),
    ):
        assert old in spec
        spec = spec.replace(old, new)
    proof = prove(dagc.compile_text(spec), "prefill")
    assert proof.holds, proof
