"""Values that layers hand on beside the residual stream: computed and stored once, proved on every rank, refused where they cannot be there."""

from __future__ import annotations

import pytest

import dagc
from dagc.base.diagnostics import SpecError
from dagc.execute.prove import prove
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph

SPEC = """moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
block own(x) {{
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  keys = cache(rope(k))
  values = cache(v)
  o[batch, seq, kv_heads, group, head_dim] = attend(rope(q), keys, values, causal = true{window})
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}}
block shared({takes}) {{
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = attend(rope(q), keys, values, causal = true)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}}
layer whole {{ own, mlp }}
layer reads {{ shared, mlp }}
model small {{
  hidden = 64, vocab = 256
  attention {{ heads = 16, kv_heads = 4, head_dim = 4 }}
  mlp {{ hidden = 128 }}
  stack = [{stack}]
}}
workload {{ sequences = 8, prompt = 64 tok, output = 16 tok }}
{phases}
"""
STACK = "embed, 2 * whole, 2 * reads, whole, reads, lm_head"


def text(phases: str, stack: str = STACK, takes: str = "x, keys, values", window: str = "") -> str:
    return SPEC.format(phases=phases, stack=stack, takes=takes, window=window)


@pytest.mark.parametrize(
    "phase",
    [
        "phase prefill { gpus = 0..7, tp = 2, sp = 2, dp = 2 }",
        "phase prefill { gpus = 0..7, pp = 2, tp = 2, sp = 2, sp_method = ring, layers_per_stage = [4, 2] }",
        "phase decode { gpus = 0..7, tp = 4, sp = 2 }",
        "phase mixed { gpus = 0..3, tp = 2, dp = 2, decode = 8, prompts = [2 * 16] }",
    ],
)
def test_every_rank_computes_what_the_unsharded_model_does(phase: str) -> None:
    plan = dagc.compile_text(text(phase))
    (name,) = plan.phases
    assert prove(plan, name).holds
    graph = plan.phases[name].graph
    assert parse_graph(print_graph(graph)) == graph


def test_a_cache_that_layers_share_is_stored_once() -> None:
    phase = "phase decode { gpus = [0] }"
    own = dagc.compile_text(text(phase, "embed, 6 * whole, lm_head")).phases["decode"].memory.worst
    shared = dagc.compile_text(text(phase)).phases["decode"].memory.worst
    assert shared.kv_cache_B == own.kv_cache_B / 2


@pytest.mark.parametrize(
    ("phase", "options", "code", "message"),
    [
        ("phase decode { gpus = [0] }", {"stack": "embed, reads, whole, lm_head"}, "E13", "takes `keys`, which no block before it computes"),
        ("phase decode { gpus = 0..1, pp = 2, layers_per_stage = [3, 3] }", {}, "E03", "take `keys` from a layer of the stage before"),
        ("phase decode { gpus = [0] }", {"takes": "x, keys, values, keys"}, "E11", "takes `keys` twice"),
        ("phase decode { gpus = [0] }", {"window": ", window = 8"}, "E13", "attention to `keys` sees other tokens"),
        ("phase step { kind = train, gpus = [0] }", {}, "E18", "layers take what others hand on"),
    ],
)  # fmt: skip
def test_what_cannot_be_there_is_refused(phase: str, options: dict[str, str], code: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text(phase, **options))
    assert [d.code for d in caught.value.diagnostics if d.code.startswith("E")] == [code]
    assert message in str(caught.value)
