"""Linear attention and selected tokens: FLOPs, bytes, states, layouts and errors."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import spec_text
from state_specs import LINEAR, MODEL, SIZES, SPARSE, state_spec
from tiers import in_turn

from dagc.api import Plan, compile_text
from dagc.base.diagnostics import SpecError
from dagc.execute.numpy import ops as k
from dagc.execute.prove import prove_small, single
from dagc.ir.op import Op
from dagc.ir.ops.op_set import OPS, state_of, traffic
from dagc.ir.segment import Segment


def plan(block: str, phase: str = "gpus = [0]", kind: str = "prefill", prompt: int = 256) -> Plan:
    return compile_text(state_spec(block, phase, kind, prompt))


def op_of(found: Plan, kind: str) -> tuple[Segment, Op]:
    graph = next(iter(found.phases.values())).graph
    return next((s, op) for s in graph.segments for op in s.ops if op.kind == kind)


def test_the_recurrences_flops_and_bytes_by_hand() -> None:
    segment, op = op_of(plan(LINEAR), "delta")
    tokens, heads, matrix = 16 * 256, 4 * 2, 8 * 16
    assert OPS["delta"].flops(segment, op) == 7 * tokens * heads * matrix
    state = 16 * heads * matrix * 4  # fp32
    moved = 2 * tokens * (2 * 4 * 8 + heads * 16 + 2 * heads + heads * 16)  # q k, v, decay and rate, result: bf16
    assert traffic(segment, op, single()).activations_B == moved + 2 * state
    segment, op = op_of(plan(LINEAR), "conv")
    assert OPS["conv"].flops(segment, op) == 2 * tokens * heads * 16 * 4


def test_a_state_does_not_grow_with_the_context() -> None:
    """fp32 matrices and the last inputs of the convolution; the other layer's cache holds every token."""
    state = 16 * (4 * 2) * (8 * 16 * 4 + 4 * 16 * 2)
    for kind in ("prefill", "decode"):
        for prompt in (256, 1024):
            memory = next(iter(plan(LINEAR, kind=kind, prompt=prompt).phases.values())).memory.worst
            context = prompt if kind == "prefill" else prompt + 16
            assert memory.kv_cache_B == state + 16 * context * 2 * 4 * 8 * 2


def test_tensor_parallelism_splits_the_state() -> None:
    one, two = (plan(LINEAR, f"gpus = 0..{n - 1}, tp = {n}").phases["prefill"].memory.worst for n in (1, 4))
    assert two.kv_cache_B == one.kv_cache_B / 4


def test_selected_tokens_bound_what_attention_computes_and_reads() -> None:
    segment, op = op_of(plan(SPARSE), "attend")
    pairs = 32 * 33 / 2 + (256 - 32) * 32
    assert OPS["attend"].flops(segment, op) == 2 * 16 * 8 * (8 + 8) * pairs
    segment, op = op_of(plan(SPARSE), "select")
    assert OPS["select"].flops(segment, op) == 16 * 4 * (2 * 16 + 3) * 256 * 257 / 2
    short, long = (op_of(plan(SPARSE, kind="decode", prompt=n), "attend") for n in (256, 4096))
    assert traffic(*short, single()) == traffic(*long, single())
    short, long = (op_of(plan(SPARSE, kind="decode", prompt=n), "select") for n in (256, 4096))
    assert traffic(*long, single()).activations_B > 10 * traffic(*short, single()).activations_B


@pytest.mark.parametrize(
    ("case", "block"),
    in_turn(
        [
            ("prefill", "gpus = 0..7, tp = 2, sp = 2, ep = 2, sequence_parallel = true, microbatches = 2"),
            ("prefill", "gpus = 0..7, sp = 4, pp = 2, sp_method = ring"),
            ("prefill", "gpus = 0..7, sp = 4, pp = 2, sp_layout = zigzag"),
            ("prefill", "gpus = 0..7\nattention { dp = 2, tp = 2, sp = 2 }\nexperts { ep = 8 }"),
            ("decode", "gpus = 0..7, tp = 2, sp = 2, dp = 2"),
            ("decode", "gpus = 0..7, tp = 8"),
            ("decode", "gpus = 0..3, tp = 2, sp = 2, draft = 3"),
            ("prefill", "gpus = 0..3, tp = 2, dp = 2, prefix = 128 tok"),
            ("prefill", "gpus = 0..3, tp = 2, dp = 2, chunk = 64 tok"),
        ],
        ["linear", "sparse"],
    ),
)
def test_a_small_twin_computes_what_the_model_computes(case: tuple[str, str], block: str) -> None:
    kind, phase = case
    proof = prove_small(plan({"linear": LINEAR, "sparse": SPARSE}[block], phase, kind), kind)
    assert proof.verdict == "equal", proof


def test_a_recurrence_holds_a_matrix_of_each_head() -> None:
    segment, op = op_of(plan(LINEAR, "gpus = 0..1, sp = 2"), "delta")
    state = state_of(segment, op)
    assert state is not None and state.dims == ("batch", "key_heads", "value_group", "key_dim", "value_dim")


def test_the_recurrence_is_the_sum_that_it_abbreviates() -> None:
    """With keys at right angles nothing is corrected: a query reads the faded values of its own key."""
    keys = np.eye(3)[None, :, None, :]
    values = np.arange(1.0, 7.0).reshape(1, 3, 1, 2)
    decay, rate = np.full((1, 3, 1), 0.5), np.full((1, 3, 1), 0.25)
    query = np.ones((1, 3, 1, 3))
    out, state = k.delta(query, keys, values, decay, rate, np.zeros((1, 1, 3, 2)))
    last = sum(0.25 * np.exp(-0.5 * (2 - t)) * values[0, t, 0] for t in range(3)) / np.sqrt(3)
    assert np.allclose(out[0, 2, 0], last)
    again, _ = k.delta(query[:, :1], keys[:, :1], values[:, :1], decay[:, :1], rate[:, :1], state)
    assert not np.allclose(again, 0)


def test_a_convolution_sees_its_own_token_and_those_before() -> None:
    x = np.arange(1.0, 5.0).reshape(1, 4, 1)
    out, state = k.conv(x, np.asarray([[1.0, 10.0, 100.0]]), np.zeros((1, 3, 1)))
    assert out.ravel().tolist() == [100.0, 210.0, 321.0, 432.0]
    assert state.ravel().tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value_group, value_dim, taps])", "value_group, taps])", "`conv` takes a tensor [batch, seq, ..] and a weight"),
        ("softplus(b), sigmoid(b))", "softplus(b))", "`delta` takes 5 tensors"),
        ("c, softplus(b)", "c, c", "`delta` takes queries and keys of one width"),
        ("top_k = attention.index_top_k", "top_k = 0", "`top_k` must be at least 1"),
        ("select(iq, ik, iw,", "select(iq, q, iw,", "`select` takes queries"),
        ("selected = select(iq, ik, iw, top_k = attention.index_top_k)", "selected = q", "`selected` is the result of `select`"),
    ],
)  # fmt: skip
def test_wrong_operands_are_named(old: str, new: str, message: str) -> None:
    block = LINEAR if old in LINEAR else SPARSE
    linear = block is LINEAR
    stack = "stack = [embed, hybrid, full, lm_head]" if linear else "stack = [embed, 2 * hybrid, lm_head]"
    text = spec_text(phase="gpus = [0]", model=MODEL + (SIZES if linear else "") + stack) + block.replace(old, new)
    with pytest.raises(SpecError) as caught:
        compile_text(text)
    assert any(message in d.message for d in caught.value.diagnostics)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_table_counts_once(tied: bool) -> None:
    model = (
        f"layers = 2, hidden = 64, vocab = 512, dtype = bf16, tied = {str(tied).lower()}\n" + MODEL.split("\n", 1)[1]
    )
    model = model.replace(", index_heads = 4, index_dim = 16, index_top_k = 32", "")

    def figures(phase: str) -> tuple[tuple[float, float], float]:
        found = compile_text(spec_text(phase=phase, model=model))
        return found.params, found.phases["prefill"].memory.worst.weights_B

    whole, pair, staged = (figures(p) for p in ("gpus = [0]", "gpus = 0..1, tp = 2", "gpus = 0..1, pp = 2"))
    table = 512 * 64
    layers = 2 * (64 * (64 + 32 + 32 + 64) + 64 + 64 + 64 * 8 + 3 * 8 * 64 * 32)
    norm = 64
    assert whole[0][0] == layers + norm + table * (1 if tied else 2)
    assert whole[1] == 2 * whole[0][0]
    assert pair[1] < whole[1] and staged[0] == whole[0]
    assert staged[1] == 2 * (layers / 2 + norm + table)  # a stage of its own holds a copy of its own


def test_a_mixed_step_that_chooses_tokens_is_proved_with_one_number_of_them() -> None:
    """Contexts of its parts differ, what they choose does not."""
    mixed = plan(SPARSE, phase="gpus = 0..1, ep = 2, decode = 16, prompts = [2 * 9000 tok]", kind="mixed", prompt=4096)
    assert prove_small(mixed, "mixed").holds
