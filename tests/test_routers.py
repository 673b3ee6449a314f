"""Several routers in one layer: each has its own slots, load and exchange."""

from __future__ import annotations

import pytest
from conftest import spec_text
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.execute.prove import prove
from dagc.ir.ops.op_set import flops

BLOCK = """
block {name}(x) {{
  let ffn = experts.hidden
  let expert = {count}
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = route(s, top_k = {top_k})
  t = dispatch(h, r)
  g[expert, slot, ffn] = t * Wg[expert, hidden, ffn]
  d[expert, slot, hidden] = silu(g) * Wd[expert, ffn, hidden]
  y = combine(d, r)
  return x + y
}}
"""
MODEL = (
    "hidden = 64, vocab = 512, dtype = fp32, stack = [embed, 2 * sparse, lm_head]\n"
    "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
)
SMALL = (
    "hidden = 8, vocab = 16, dtype = fp32, stack = [embed, 2 * sparse, lm_head]\n"
    "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }\nexperts { count = 8, top_k = 2, hidden = 4 }"
)


def layers(
    blocks: str,
    phase: str = "gpus = 0..7, ep = 4, tp = 2",
    *,
    model: str = MODEL,
    kind: str = "prefill",
    counts: tuple[int, int] = (8, 8),
) -> str:
    first = BLOCK.format(name="one", count=counts[0], top_k=2)
    second = BLOCK.format(name="two", count=counts[1], top_k=4)
    work = (
        "sequences = 8, prompt = 8 tok, output = 8 tok"
        if model is SMALL
        else "sequences = 64, prompt = 256 tok, output = 16 tok"
    )
    return spec_text(
        phase=phase, kind=kind, model=model, workload=work, extra=f"{first}{second}layer sparse {{ {blocks} }}"
    )


def expert_flops(plan: Plan, block: str) -> float:
    graph = plan.phases["prefill"].graph
    segment = graph.segment("sparse")
    return sum(
        flops(segment, op)
        for op in segment.ops
        if op.block == block and op.kind == "contract" and op.scope == "experts"
    )


def test_order_of_two_routers_does_not_matter() -> None:
    alone = {block: dagc.compile_text(layers(f"gqa, {block}")) for block in ("one", "two")}
    both = dagc.compile_text(layers("gqa, one, two"))
    turned = dagc.compile_text(layers("gqa, two, one"))
    for plan in (both, turned):
        for block in alone:
            assert expert_flops(plan, block) == expert_flops(alone[block], block)
    assert 2 * expert_flops(both, "one") == expert_flops(both, "two")
    times = [plan.phases["prefill"].time_s for plan in (both, turned)]
    assert times[0] == pytest.approx(times[1], rel=0.02)


def test_a_router_of_more_choices_is_active_in_more_parameters() -> None:
    hidden, ffn, vocab = 64, 32, 512
    attention = hidden * 8 * (8 + 2 * 4 + 8) + hidden
    bank = 2 * hidden * ffn
    dense = 2 * (attention + 2 * (hidden + hidden * 8)) + 2 * vocab * hidden + hidden
    total, active = dagc.compile_text(layers("gqa, one, two")).params
    assert total == dense + 2 * 2 * 8 * bank
    assert active == dense + 2 * (2 + 4) * bank


@pytest.mark.parametrize("counts", [(8, 8), (8, 4)], ids=["one count", "two counts"])
@pytest.mark.parametrize(
    ("phase", "kind"),
    spread(
        [
            ("gpus = 0..1, tp = 2", "prefill"),
            ("gpus = 0..3, ep = 2, tp = 2", "prefill"),
            ("gpus = 0..3\nattention { tp = 4 }\nexperts { ep = 4 }", "prefill"),
            ("gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }\nsequence_parallel = true", "prefill"),
            ("gpus = 0..1, ep = 2, redundant = 2", "prefill"),
            ("gpus = 0..3, ep = 4, dispatch = allgather", "prefill"),
            ("gpus = 0..3, ep = 2, sp = 2", "decode"),
        ],
        lambda case: "\n" in case[0] or case[1] == "decode" or "redundant" in case[0],
    ),
    ids=["tp", "ep x tp", "ep in tp", "ep over dp and tp", "redundant", "allgather", "decode"],
)
def test_two_routers_are_proved(phase: str, kind: str, counts: tuple[int, int]) -> None:
    plan = dagc.compile_text(layers("gqa, one, two", phase, model=SMALL, kind=kind, counts=counts))
    proof = prove(plan, kind)
    assert proof.holds, proof


def test_one_block_twice_in_a_layer() -> None:
    text = spec_text(
        phase="gpus = 0..1, tp = 2",
        model=SMALL.replace("2 * sparse", "2 * twice").replace("hidden = 8,", "hidden = 16,"),
        workload="sequences = 4, prompt = 8 tok, output = 4 tok",
        extra="layer twice { gqa, moe, moe }",
    )
    plan = dagc.compile_text(text)
    assert prove(plan, "prefill").holds
    scopes = {w.name: w.scope for w in plan.phases["prefill"].graph.segment("twice").weights}
    assert scopes["@moe2.Wr"] == scopes["@moe.Wr"] == "dense"
    assert scopes["@moe2.Wg"] == scopes["@moe.Wg"] == "experts"
