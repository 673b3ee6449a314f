"""What the KV cache keeps behind windows and chunks: counted block by block, and the way a whole plan adds it up."""

from __future__ import annotations

import pytest
from conftest import spec_text
from hypothesis import given
from hypothesis import strategies as st

import dagc
from dagc.cost.footprint import StageMemory
from dagc.cost.kv_cache import kept_tokens


def seen(query: int, window: int | None, chunk: int | None) -> set[int]:
    """Positions that a causal query attends to, one by one."""
    return {
        key
        for key in range(query + 1)
        if (window is None or query - key < window) and (chunk is None or query // chunk == key // chunk)
    }


def held(context: int, queries: int, window: int | None, chunk: int | None, block: int) -> int:
    """Grow a sequence token by token, each step keeping every block that one of its queries sees."""
    most = 0
    for end in range(1, context + 1):
        keys = set().union(*(seen(q, window, chunk) for q in range(max(0, end - queries), end)))
        most = max(most, len({key // block for key in keys}))
    return min(context, most * block)


@given(
    context=st.integers(1, 60),
    queries=st.integers(1, 4),
    window=st.none() | st.integers(1, 40),
    chunk=st.none() | st.integers(1, 24),
    block=st.integers(1, 9),
)
def test_tokens_held_are_the_blocks_that_a_query_sees(
    context: int, queries: int, window: int | None, chunk: int | None, block: int
) -> None:
    expected = held(context, queries, window, chunk, block)
    assert kept_tokens(context, queries, window, chunk, block) == expected


def memory(attention: str, phase: str, kind: str = "decode", *, stack: str = "", blocks: str = "") -> StageMemory:
    model = f"layers = 4, hidden = 64, vocab = 512, dtype = bf16\n{attention}\nmlp {{ hidden = 64 }}\n{stack}"
    text = spec_text(kind=kind, phase=phase, model=model, workload="sequences = 4, prompt = 256 tok, output = 256 tok")
    return dagc.compile_text(text + blocks).phases[kind].memory.worst


HEADS = "heads = 8, kv_heads = 4, head_dim = 8"
TOKEN = 2 * 4 * 8 * 2 * 4
"""Bytes of a token of all four sequences in one layer: keys and values of 4 heads of 8 in bf16."""


@pytest.mark.parametrize(
    ("window", "phase", "kind", "tokens"),
    [
        (32, "gpus = [0]", "decode", 48),
        (32, "gpus = [0], kv_block = 1", "decode", 32),
        (32, "gpus = [0], kv_block = 128", "decode", 256),
        (32, "gpus = [0], window_cache = whole", "decode", 512),
        (4096, "gpus = [0]", "decode", 512),
        (0, "gpus = [0]", "decode", 512),
        (32, "gpus = [0], draft = 3", "decode", 64),
        (32, "gpus = [0]", "prefill", 48),
        (32, "gpus = [0], chunk = 64", "prefill", 48),
        (32, "gpus = [0], window_cache = whole", "prefill", 256),
        (32, "gpus = 0..15, sp = 16", "decode", 32),
        (32, "gpus = 0..1, sp = 2", "decode", 48),
    ],
)
def test_windowed_layers_hold_their_window(window: int, phase: str, kind: str, tokens: int) -> None:
    got = memory(f"attention {{ {HEADS}, window = {window} }}", phase, kind)
    assert got.kv_cache_B == 4 * tokens * TOKEN


def test_a_split_of_heads_divides_what_a_window_holds() -> None:
    got = memory(f"attention {{ {HEADS}, window = 32 }}", "gpus = 0..3, tp = 4")
    assert got.kv_cache_B == 48 * TOKEN


MIXED = """
block near(x) {
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = attend(q, k, v, causal = true, %s)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
layer near { near, mlp }
"""


def test_layers_that_alternate_hold_each_its_own() -> None:
    stack = "stack = [embed, each(4, if(equal(mod(index, 2), 0), near, dense)), lm_head]"
    got = memory(f"attention {{ {HEADS} }}", "gpus = [0]", stack=stack, blocks=MIXED % "window = 32")
    assert got.kv_cache_B == 2 * (48 + 512) * TOKEN


def test_every_stage_counts_its_own_layers() -> None:
    model = f"layers = 4, hidden = 64, vocab = 512, dtype = bf16\nattention {{ {HEADS} }}\nmlp {{ hidden = 64 }}\n"
    model += "stack = [embed, 3 * near, dense, lm_head]"
    work = "sequences = 4, prompt = 256 tok, output = 256 tok"
    text = spec_text(kind="decode", phase="gpus = 0..1, pp = 2", model=model, workload=work) + MIXED % "chunk = 64"
    first, second = dagc.compile_text(text).phases["decode"].memory.stages
    assert first.kv_cache_B == 2 * 64 * TOKEN
    assert second.kv_cache_B == (64 + 512) * TOKEN


def test_one_reader_that_sees_all_keeps_all() -> None:
    """A cache that both a windowed and a full attention read is kept whole."""
    both = (MIXED % "window = 32").replace(
        "o[batch",
        "kc = cache(k)\n  vc = cache(v)\n  w[batch, seq, kv_heads, group, head_dim] = attend(q, kc, vc, causal = true)\n"
        "  o[batch",
    )
    both = both.replace("attend(q, k, v,", "attend(q, kc, vc,").replace(
        "y[batch, seq, hidden] = o *", "wo = w + o\n  y[batch, seq, hidden] = wo *"
    )
    got = memory(f"attention {{ {HEADS} }}", "gpus = [0]", stack="stack = [embed, 4 * near, lm_head]", blocks=both)
    assert got.kv_cache_B == 4 * 512 * TOKEN


def test_keys_of_a_prompt_that_are_not_kept_are_activations() -> None:
    freed = memory(f"attention {{ {HEADS}, window = 32 }}", "gpus = [0]", "prefill")
    whole = memory(f"attention {{ {HEADS}, window = 32 }}", "gpus = [0], window_cache = whole", "prefill")
    assert whole.activations_B <= freed.activations_B <= whole.activations_B + (256 - 48) * TOKEN
    assert freed.kv_cache_B < whole.kv_cache_B


def test_gpt_oss_holds_half_of_its_layers_for_a_window_only() -> None:
    text = """moe 1
hardware from "b200-sxm" { gpus = 1, memory = 400 GB }
model from "gpt-oss-120b" { kv_dtype = fp8 }
workload { sequences = 64, prompt = 65535 tok, output = 1 tok }
phase decode { gpus = [0], context = 65536 tok }
"""
    got = dagc.compile_text(text).phases["decode"].memory.worst.kv_cache_B
    assert got == 64 * 18 * (65536 + 144) * 2 * 8 * 64
