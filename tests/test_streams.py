"""Several residual streams: shapes and bytes between layers, what the mixing computes, proofs on every rank, and what is refused."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from tiers import spread
from training_steps import step_of

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.execute.inputs import Inputs, random_weight
from dagc.execute.machine import RankMachine
from dagc.execute.numpy import ops as k
from dagc.execute.prove import Recording, model_graph, prove, single
from dagc.execute.prove_training import prove_training
from dagc.execute.values import Floats
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.plan.plan import CompiledPlan

SPEC = """moe 1
hardware pool {{
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}, link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
{blocks}
model small {{ hidden = 32, vocab = 64, layers = 2, dense_first = 1, mtp_layers = 1
  attention {{ heads = 4, kv_heads = 2, head_dim = 8 }}
  mlp {{ kind = {mlp}, hidden = 8 }}
  experts {{ count = 8, top_k = 2, hidden = 16, shared = 1 }}
  {streams} }}
workload {{ sequences = 16, prompt = 16 tok, output = 4 tok }}
{phases}
"""
FOUR = "streams { count = 4 }"
STAGES = "phase prefill { gpus = 0..7, pp = 2, tp = 2, sp = 2 }"
FOLDED = "phase decode { gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 } }"
MIXED = "phase mixed { gpus = 0..3, tp = 2, dp = 2, decode = 8, prompts = [2 * 16 tok] }"
EXITS = "phase decode { gpus = 0..1, dp = 2, exit = [at(layers = 1, share = 50%)] }"


def text(phases: str, streams: str = FOUR, blocks: str = "") -> str:
    return SPEC.format(phases=phases, streams=streams, blocks=blocks, mlp="adds" if "block adds" in blocks else "mlp")


def compiled(phases: str, streams: str = FOUR, blocks: str = "") -> CompiledPlan:
    return dagc.compile_text(text(phases, streams, blocks))


@pytest.fixture(scope="module")
def plans() -> dict[str, CompiledPlan]:
    """Of four streams, and of one."""
    phases = f"{STAGES}\n{FOLDED}"
    return {"four": compiled(phases), "one": compiled(phases, "")}


# -- shapes, bytes and time ----------------------------------------------------------------------------


def test_layers_hand_on_all_streams_and_stages_send_them(plans: dict[str, CompiledPlan]) -> None:
    four, one = (plans[name].phases["prefill"] for name in ("four", "one"))
    for segment in (*four.graph.body, four.graph.head):
        assert segment.input_dims == ("batch", "seq", "stream", "hidden") and segment.sizes["stream"] == 4
    assert [edge.dims for edge in four.graph.sends] == [("batch", "seq", "stream", "hidden")]
    sent = [plan.costs.edges[0] for plan in (four, one)]
    assert sent[0].payload_B == 4 * sent[1].payload_B > 0


def test_what_blocks_add_is_reduced_before_it_meets_the_streams(plans: dict[str, CompiledPlan]) -> None:
    """Collectives move one stream, and are those of a plain model."""
    four, one = (plans[name].phases["prefill"].graph for name in ("four", "one"))
    for mixed, plain in zip(four.body, one.body, strict=True):
        calls = [[(op.kind, op.dims) for op in s.ops if op.is_collective] for s in (mixed, plain)]
        assert calls[0] == calls[1] and calls[0]


def test_parameters_are_those_of_the_mixing(plans: dict[str, CompiledPlan]) -> None:
    four, one = (plans[name].params[0] for name in ("four", "one"))
    n, hidden, blocks = 4, 32, 2 * 2
    each = n * hidden * (2 + n) * n + (2 + n) * n + 3
    assert four - one == blocks * each + n * hidden * n + n + 1


def test_each_side_of_a_mixing_is_one_kernel(plans: dict[str, CompiledPlan]) -> None:
    """Two layers of two blocks, and the head; what spreads the embedding's result rides in it."""
    four, one = (plans[name].subject("decode").launches for name in ("four", "one"))
    assert four - one == 2 * 2 * 2 + 1
    kernels = {op.kernel for s in plans["four"].phases["decode"].graph.segments for op in s.ops if op.kernel}
    assert kernels == {"hyper_collapse", "hyper_expand", "hyper_spread", "hyper_merge"}
    apart = compiled("phase decode { gpus = [0], fuse = none }").phases["decode"]
    assert not [op for s in apart.graph.segments for op in s.ops if op.kernel]


def test_bytes_of_a_mixing_are_those_of_the_streams(plans: dict[str, CompiledPlan]) -> None:
    """Of a rank: for its sum of squares, its weights and its sum a block reads all streams, the mixing reads and writes them. What else
    there is has one stream's width or less."""
    result = plans["four"].phases["decode"]
    segment = result.graph.body[0]
    moved = sum(result.costs.ops[segment.name, op.name].bytes for op in segment.ops if op.block.startswith("hyper"))
    streams_B, one_B = (16 / 4 * n * 32 * 2 for n in (4, 1))
    weights_B = sum(2 * segment.count(w.dims) for w in segment.weights if w.name.startswith("@hyper"))
    assert 2 * 5 * streams_B + weights_B < moved < 2 * (5 * streams_B + 4 * one_B) + weights_B


def test_each_use_of_a_block_is_drawn_by_itself(plans: dict[str, CompiledPlan]) -> None:
    """What is between two uses of one block is not within it: their boxes follow each other."""
    segment = plans["four"].phases["decode"].graph.body[0]
    uses = [use for use, _ in groupby(op.use for op in segment.ops)]
    assert uses == ["hyper_collapse", "gqa", "hyper_expand", "hyper_collapse2", "mlp", "hyper_expand2"]


def test_one_stream_is_a_plain_model() -> None:
    off = compiled(FOLDED, "streams { kind = none, count = 4 }").phases["decode"]
    assert print_graph(off.graph) == print_graph(compiled(FOLDED, "").phases["decode"].graph)


# -- what is computed ----------------------------------------------------------------------------------


def expanded(x: Floats, own: dict[str, Floats], y: Floats) -> Floats:
    """The streams behind a block that adds y: the paper's formulas on whole arrays [batch, seq, stream, hidden]."""
    n, eps = x.shape[2], 1e-6
    flat = x.reshape(*x.shape[:2], -1)
    flat = flat / np.sqrt((flat**2).mean(-1, keepdims=True) + 1e-6)
    raw = flat @ own["Wmix"].reshape(flat.shape[-1], -1)
    post = 2 / (1 + np.exp(-(raw[..., n : 2 * n] * own["a_post"] + own["b_post"])))
    comb = np.exp(raw[..., 2 * n :].reshape(*x.shape[:2], n, n) * own["a_comb"] + own["b_comb"])
    comb = comb / comb.sum(-1, keepdims=True) + eps
    for axis in [-2, *[-1, -2] * 19]:
        comb = comb / (comb.sum(axis, keepdims=True) + eps)
    return np.asarray(np.einsum("bsij,bsih->bsjh", comb, x) + post[..., None] * y[:, :, None])


def test_the_mixing_is_that_of_the_paper() -> None:
    unit = compiled("phase prefill { gpus = [0] }").units["prefill"]
    ids = np.random.default_rng(0).integers(0, 64, (16, 16))
    seen = Recording(RankMachine(model_graph(unit), Inputs(ids, unit.routing), single()))
    seen.machine.run()
    x = seen.whole(-1, "hyper_spread.s")
    assert (x == x[:, :, :1]).all() and x.shape == (16, 16, 4, 32)
    for segment, layer in [pair for pair in seen.machine.graph.layers if pair[0] in seen.machine.graph.body]:
        for block, scope, tail in (
            ("gqa.y", "hyper_collapse", "hyper_expand"),
            (last_of(segment), "hyper_collapse2", "hyper_expand2"),
        ):
            own = {
                w.name.partition(".")[2]: random_weight(segment, layer, w)
                for w in segment.weights
                if w.name.startswith(f"@{scope}.")
            }
            wanted = expanded(x, own, seen.whole(layer, block))
            x = seen.whole(layer, f"{tail}.out")
            np.testing.assert_allclose(x, wanted, rtol=1e-9, atol=1e-12)


def last_of(segment: Segment) -> str:
    """What the feed-forward of a layer adds."""
    return segment.by_name["hyper_expand2.grown"].inputs[1]


def test_rows_and_columns_sum_to_one() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 5, 4, 4)) * 2
    found = k.sinkhorn(scores, 300, 1e-9)
    assert np.abs(found.sum(-1) - 1).max() < 1e-6 and np.abs(found.sum(-2) - 1).max() < 1e-6 and found.min() > 0


SP_STEP = "phase prefill { gpus = 0..7, tp = 4, sp = 2, sequence_parallel = true }"
DRAFTS = "phase decode { gpus = 0..1, tp = 2, draft = 2, drafter = mtp, acceptance = 0.5 }"
PHASES = {"stages": STAGES, "sequence": SP_STEP, "folded": FOLDED, "mixed": MIXED, "exits": EXITS, "drafts": DRAFTS}


@pytest.mark.parametrize("way", spread(PHASES, {"folded", "mixed", "drafts"}))
def test_every_rank_computes_what_the_model_does(way: str) -> None:
    plan = compiled(PHASES[way])
    (phase,) = plan.phases
    proof = prove(plan, phase)
    assert proof.verdict == "equal", (proof.why, proof.first, proof.bytes_wrong, proof.work_wrong)


def test_a_step_of_training_is_that_of_the_model() -> None:
    """Gradients go through copies, parts and the balanced matrix."""
    step = text("phase train { gpus = 0..7, pp = 2, tp = 2, dp = 2, microbatches = 2 }")
    plan = dagc.compile_text(step)
    proof = prove_training(plan.trainings["train"], step_of(step).unit)
    assert proof.verdict == "equal", proof
    kinds = {op.kind for segment in step_of(step).placed.body for op in segment.ops}
    assert {"sinkhorn_grad", "part_grad"} <= kinds


# -- text --------------------------------------------------------------------------------------------------


def test_the_graph_and_the_spec_are_read_back(plans: dict[str, CompiledPlan]) -> None:
    for result in plans["four"].phases.values():
        assert parse_graph(print_graph(result.graph)) == result.graph
    spec = plans["four"].spec
    written = print_spec(spec)
    assert "layer dense { hyper_collapse, gqa, hyper_expand, hyper_collapse, mlp, hyper_expand }" in written
    assert load(Source("again.moe", written), Collector()) == spec


ADDS = """block adds(x) {
  let inner = mlp.hidden
  h = rms_norm(x)
  y[batch, seq, inner] = h * W[hidden, inner]
  z[batch, seq, hidden] = silu(y) * V[inner, hidden]
  return RETURNS
}
"""
TWO = "streams { count = 2 }"


@pytest.mark.parametrize(
    ("returns", "adds"),
    [("x + z", (1, 0)), ("z + x", (1, 0)), ("x + (z + z)", (2, 0)), ("z + x - h", (1, -1)), ("x - z", (-1, 0)), ("z - h + x", (1, -1))],
)  # fmt: skip
def test_what_a_block_adds_to_its_argument_goes_to_the_streams(returns: str, adds: tuple[int, int]) -> None:
    unit = compiled("phase prefill { gpus = [0] }", TWO, ADDS.replace("RETURNS", returns)).units["prefill"]
    ids = np.random.default_rng(0).integers(0, 64, (16, 16))
    seen = Recording(RankMachine(model_graph(unit), Inputs(ids, unit.routing), single()))
    seen.machine.run()
    z, h, y = (seen.whole(0, name) for name in ("adds.z", "adds.h", last_of(seen.machine.graph.body[0])))
    np.testing.assert_allclose(y, adds[0] * z + adds[1] * h)


REFUSED = {
    "no sum": (ADDS.replace("RETURNS", "rms_norm(x + z)"), "does not return `x` and what it adds to it"),
    "another x": (ADDS.replace("RETURNS", "x + z").replace("  h =", "  x = x * 2\n  h ="), "does not return `x` and what it adds to it"),
    "taken away": (ADDS.replace("RETURNS", "z - x"), "does not return `x` and what it adds to it"),
    "two between": ("layer dense { hyper_collapse, gqa, mlp, hyper_expand }", "does not have each block between `hyper_collapse` and `hyper_expand`"),
    "out of the model": (
        ADDS.replace("RETURNS", "x + z").replace("  h =", "  r[batch, seq, context, hidden] = repeat(x)\n  h ="), "`repeat` makes",
    ),
    "in an expression": (ADDS.replace("RETURNS", "x + z").replace("  h =", "  r = repeat(x) * 2\n  h ="), "`repeat` stands alone behind `=`"),
    "too long a part": (
        ADDS.replace("RETURNS", "x + z").replace("  h =", "  p[batch, seq, inner] = part(x, first = 25)\n  h ="), "takes entries 25 to 33 of 32",
    ),
    "no matrix": (ADDS.replace("RETURNS", "x + z").replace("  h =", "  p = sinkhorn(x)\n  h ="), "`sinkhorn` goes over the last two dimensions"),
    "summed tokens": (
        ADDS.replace("RETURNS", "x + z").replace("  h =", "  p[batch, hidden] = sum_dims(x)\n  h ="), "`sum_dims` makes [batch, hidden]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_where_it_is_written(what: str) -> None:
    blocks, message = REFUSED[what]
    model = f"{TWO}\nstack = [embed, dense, sparse, lm_head]" if "layer" in blocks else TWO
    with pytest.raises(SpecError) as raised:
        compiled("phase prefill { gpus = [0] }", model, blocks)
    (found,) = raised.value.diagnostics
    assert message in found.message and found.span is not None and found.help is not None, found


@pytest.mark.parametrize(
    ("streams", "phases", "message"),
    [
        ("streams { count = 1 }", STAGES, "`count` must be at least 2"),
        ("streams { iterations = 4 }", STAGES, "`streams` needs `count`"),
        ("streams { count = 4, collapse = nowhere }", STAGES, "unknown block `nowhere`"),
        (
            FOUR,
            "phase train { gpus = [0], mtp_loss = 0.1 }",
            "training is not there yet where layers that predict further tokens",
        ),
    ],
)
def test_words_about_streams_are_refused(streams: str, phases: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        compiled(phases, streams)
    assert any(message in found.message for found in raised.value.diagnostics), [
        d.message for d in raised.value.diagnostics
    ]


def test_no_measured_kernel_is_taken_for_a_mixing() -> None:
    """Its products have few columns and a depth of all streams: a table of GEMMs would be asked far outside."""
    spec = 'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "mixtral-8x7b" { streams { count = 4 } }\n'
    spec += "workload { sequences = 64, prompt = 1024 tok, output = 128 tok }\nphase decode { gpus = 0..7, tp = 8 }"
    result = dagc.compile_text(spec).phases["decode"]
    segment = result.graph.body[0]
    families = {
        op.block: {result.costs.ops[segment.name, o.name].family for o in segment.ops if o.block == op.block}
        for op in segment.ops
    }
    assert families["hyper_collapse"] == families["hyper_expand"] == {""} and "gemm" in families["gqa"]
