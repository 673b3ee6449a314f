"""Values that layers hand on beside the residual stream: computed and stored once, sent from stage to stage, proved on every rank, refused where they
cannot be there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
from tiers import spread
from training_steps import step_of

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.frozen import replace
from dagc.cost.footprint import StageMemory
from dagc.cost.memory import bytes_beside, left_of
from dagc.cost.training.kept_activations import kept_by_layer
from dagc.execute.inputs import random_weight
from dagc.execute.prove import prove, single
from dagc.execute.training import TrainingMachine
from dagc.ir.graph import Stage, StageEdge, runs
from dagc.ir.handed_on import crossing, crossings, made_in
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.pipeline.stage_cut import Beside, _ranges
from dagc.plan.step_totals import step_collectives

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
EPS = 1e-6

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
CHOOSES = """moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
block chooses(x) {{
  h = rms_norm(x)
  q[batch, seq, index_heads, index_dim] = h * Wiq[hidden, index_heads, index_dim]
  k[batch, seq, index_dim] = h * Wik[hidden, index_dim]
  w[batch, seq, index_heads] = h * Wiw[hidden, index_heads]
  picked = select(q, k, w, top_k = 8)
  return x
}}
block reads(x, picked) {{
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = attend(rope(q), rope(k), v, causal = true, selected = picked)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}}
layer full {{ chooses, reads, mlp }}
layer shared {{ reads, mlp }}
model small {{
  hidden = 64, vocab = 256
  attention {{ heads = 16, kv_heads = 4, head_dim = 4, index_heads = 4, index_dim = 8 }}
  mlp {{ hidden = 128 }}
  stack = [embed, full, 3 * shared, full, shared, lm_head]
}}
workload {{ sequences = 8, prompt = 64 tok, output = 16 tok }}
{phases}
"""
STACK = "embed, 2 * whole, 2 * reads, whole, reads, lm_head"


def text(phases: str, stack: str = STACK, takes: str = "x, keys, values", window: str = "") -> str:
    return SPEC.format(phases=phases, stack=stack, takes=takes, window=window)


@pytest.mark.parametrize(
    "phase",
    spread(
        [
            "phase prefill { gpus = 0..7, tp = 2, sp = 2, dp = 2 }",
            "phase prefill { gpus = 0..7, pp = 2, tp = 2, sp = 2, sp_method = ring, layers_per_stage = [4, 2] }",
            "phase decode { gpus = 0..7, tp = 4, sp = 2 }",
            "phase mixed { gpus = 0..3, tp = 2, dp = 2, decode = 8, prompts = [2 * 16] }",
        ],
        lambda phase: "pp" in phase or "decode {" in phase,
    ),
)
def test_every_rank_computes_what_the_unsharded_model_does(phase: str) -> None:
    plan = dagc.compile_text(text(phase))
    (name,) = plan.phases
    assert prove(plan, name).holds
    graph = plan.phases[name].graph
    assert parse_graph(print_graph(graph)) == graph


@pytest.fixture(scope="module")
def stages() -> dagc.Plan:
    """An indexer's choice that crosses two stages, one of which has no layer that makes it, and in the other one nothing behind it."""
    return dagc.compile_text(
        CHOOSES.format(
            phases="phase decode { gpus = 0..7, pp = 4, tp = 2, layers_per_stage = [2, 1, 1, 2], microbatches = 2 }"
        )
    )


def test_a_choice_goes_from_stage_to_stage(stages: dagc.Plan) -> None:
    result = stages.phases["decode"]
    assert [edge.values for edge in result.graph.sends] == [("x", "picked"), ("x", "picked"), ("x",)]
    assert prove(stages, "decode").holds
    text = print_graph(result.graph)
    assert "send 1 -> 2 %picked = select : [batch, seq, chosen] int32" in text
    assert parse_graph(text) == result.graph


def test_a_send_has_the_bytes_of_all_that_it_carries(stages: dagc.Plan) -> None:
    """Four sequences in a micro-batch: 64 numbers of bf16, and eight places of four bytes."""
    result = stages.phases["decode"]
    assert [edge.payload_B for edge in result.costs.edges] == [4 * (128 + 32), 4 * (128 + 32), 4 * 128]
    assert result.costs.edges[0].time_s > result.costs.edges[2].time_s
    assert [s.buffers_B - result.memory.stages[3].buffers_B for s in result.memory.stages] == [2 * 4 * 32] * 3 + [0]
    assert "with picked" in stages.svg("decode")


@pytest.mark.parametrize(
    ("phases", "options"),
    spread(
        [
            ("prefill { gpus = 0..7, pp = 2, tp = 2, sp = 2, layers_per_stage = [3, 3] }", {}),
            (
                "decode { gpus = 0..3, pp = 2, tp = 2, layers_per_stage = [3, 3], microbatches = 2, overlap = two_batch }",
                {},
            ),
            ("mixed { gpus = 0..3, pp = 2, tp = 2, decode = 8, prompts = [2 * 16], layers_per_stage = [3, 3] }", {}),
            ("prefill { gpus = 0..3, pp = 2, tp = 2, layers_per_stage = [3, 3], chunk = 32 tok }", {}),
        ],
        lambda case: case[0].startswith(("decode", "mixed")),
    ),
)
def test_keys_and_values_cross_stages_too(phases: str, options: dict[str, str]) -> None:
    plan = dagc.compile_text(text(f"phase {phases}"))
    (name,) = plan.phases
    assert len(plan.phases[name].graph.sends[0].beside) >= 2
    assert prove(plan, name).holds
    assert ["stage 1 takes" in d.message for d in plan.diagnostics].count(True) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda edge: replace(edge, beside=()), "takes other values beside it"),
        (lambda edge: replace(edge, beside=tuple(replace(b, dtype="int64") for b in edge.beside)), "takes other values beside it"),
        (lambda edge: replace(edge, beside=tuple(replace(b, name="other") for b in edge.beside)), "takes other values beside it"),
    ],
)  # fmt: skip
def test_an_edge_that_carries_something_else_is_noticed(
    stages: dagc.Plan, change: Callable[[StageEdge], StageEdge], message: str
) -> None:
    graph = stages.phases["decode"].graph
    with pytest.raises(VerifyError, match=message):
        verify(replace(graph, sends=(change(graph.sends[0]), *graph.sends[1:])))


@pytest.mark.parametrize(
    "stack", spread(["2 * full, 2 * shared, full, shared", "full, 5 * shared"], {"full, 5 * shared"})
)
def test_balanced_stages_count_what_is_sent(stack: str) -> None:
    """Of every run of layers the memory is that of the stage in a plan which is cut so; no cut is busier with its sends."""
    source = CHOOSES.replace("full, 3 * shared, full, shared", stack)
    phase = "phase decode {{ gpus = 0..1, pp = 2, {} }}"
    found = dagc.compile_text(source.format(phases=phase.format("stages = balanced")))
    cuts = {
        n: dagc.compile_text(source.format(phases=phase.format(f"layers_per_stage = [{n}, {6 - n}]"))).phases["decode"]
        for n in range(1, 6)
    }
    own = found.phases["decode"]
    busy = {
        n: max(one.schedule.stage_s[0] + one.costs.edges[0].time_s, one.schedule.stage_s[1]) for n, one in cuts.items()
    }
    layers = sum(n for _, n in own.graph.stages[0].layers) - 1
    assert busy[layers] == min(busy.values())
    spec, one = found.spec, found.units["decode"].phase
    filled = _ranges(spec, one)[1]
    for n, result in cuts.items():
        want = [stage.peak_B / stage.capacity_B for stage in result.memory.stages]
        assert [filled[0, n + 1], filled[n + 1, 8]] == pytest.approx(want)


def test_memory_of_every_run_of_layers_is_that_of_its_layers_one_by_one() -> None:
    """Of kinds in turn, of which a run may begin with either; and what crosses each cut is what crosses into a stage there."""
    stack = "full, shared, shared, full, shared, full"
    source = CHOOSES.replace("full, 3 * shared, full, shared", stack)
    plan = dagc.compile_text(source.format(phases="phase decode { gpus = 0..1, pp = 2, layers_per_stage = [3, 3] }"))
    graph, unit = plan.phases["decode"].graph, plan.units["decode"]
    layers = [segment for segment, _ in graph.layers]
    names = [segment.name for segment in layers]
    for k, found in enumerate(crossings(graph)):
        stages = (Stage(0, runs(names[:k])), Stage(1, runs(names[k:])))
        assert found == crossing(replace(graph, stages=stages), 1)
    single = {
        name: StageMemory(0, 0.0, 0.0, 1e3 * (k + 1), 0.0, 0.0, 0.0) for k, name in enumerate(dict.fromkeys(names))
    }
    beside = Beside(graph, unit, single)
    assert len({found for i in range(len(names)) for found in beside.from_layer(i)}) > 4
    for i in range(len(names)):
        for j, found in enumerate(beside.from_layer(i), start=i + 1):
            made = {name: one for name, one in made_in(layers[i:j]).items() if not one.is_cache}
            held_B = bytes_beside(graph, {**crossings(graph)[i], **made})
            live_B = max(
                single[s.name].activations_B + beside.ratio[s.name] * left_of(held_B, s, graph) for s in layers[i:j]
            )
            sent_B = [sum(bytes_beside(graph, crossings(graph)[k]).values()) for k in (i, j)]
            assert found == (live_B, 2 * max(sent_B))


# -- training ----------------------------------------------------------------------------------------

STEP = "phase step {{ kind = train, {} }}"


@needs_torch
def test_gradients_of_what_is_handed_on_are_those_of_autograd() -> None:
    """Of the same model, written in torch: keys and values of a layer are read by itself and by two behind it, or by none."""
    import torch
    from torch.nn.functional import cross_entropy, silu

    step = step_of(text(STEP.format("gpus = [0]")).replace("rope(k)", "k").replace("rope(q)", "q"))
    inputs = step.inputs()
    machine = TrainingMachine(step.model, inputs, single())
    machine.step()
    weights: dict[tuple[int, str], torch.Tensor] = {}

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + EPS) * gain

    for segment, layer in step.model.layers:
        for weight in segment.weights:
            numbers = random_weight(segment, layer, weight)
            weights[layer, weight.name.removeprefix("@")] = torch.tensor(numbers, requires_grad=True)
    x, keys, values = weights[-1, "embed.We"][torch.as_tensor(inputs.tokens)], torch.empty(0), torch.empty(0)
    unseen = torch.triu(torch.ones(64, 64, dtype=torch.bool), diagonal=1)
    for layer, name in enumerate(("own", "own", "shared", "shared", "own", "shared")):
        w = {
            key.partition(".")[2]: value for (at, key), value in weights.items() if at == layer and key.startswith(name)
        }
        m = {
            key.partition(".")[2]: value
            for (at, key), value in weights.items()
            if at == layer and key.startswith("mlp")
        }
        h = norm(x, w["h_gain"])
        if name == "own":
            keys, values = (torch.einsum("bsh,hkd->bskd", h, w[of]) for of in ("Wk", "Wv"))
        q = torch.einsum("bsh,hkgd->bskgd", h, w["Wq"])
        scores = torch.einsum("bskgd,btkd->bkgst", q, keys) / 4**0.5
        seen = torch.softmax(scores.masked_fill(unseen, -torch.inf), dim=-1)
        x = x + torch.einsum("bkgst,btkd,kgdh->bsh", seen, values, w["Wo"])
        h = norm(x, m["h_gain"])
        x = x + (silu(h @ m["Wg"]) * (h @ m["Wu"])) @ m["Wd"]
    logits = norm(x, weights[6, "lm_head.h_gain"]) @ weights[6, "lm_head.Wo"]
    loss = cross_entropy(logits.flatten(0, 1), torch.as_tensor(inputs.labels).flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    assert machine.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert machine.gradients.keys() == weights.keys()
    for key, (_, _, (found,)) in machine.gradients.items():
        wanted = weights[key].grad
        assert wanted is not None
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-12, err_msg=str(key))
    assert all(float(abs(machine.gradients[layer, "own.Wk"][2][0]).max()) > 0 for layer in (0, 1, 4))


TRAINED = [
    "gpus = 0..7, tp = 2, sp = 2, dp = 2, recompute = full",
    "gpus = 0..3, pp = 2, tp = 2, microbatches = 2, layers_per_stage = [3, 3]",
    "gpus = 0..3, pp = 2, dp = 2, microbatches = 2, virtual = 3, schedule = interleaved, zero = 3",
    "gpus = 0..3, pp = 4, microbatches = 8, schedule = dualpipe, layers_per_stage = [2, 1, 1, 2]",
]
HANDED = {"keys and values": SPEC, "a choice": CHOOSES}


@pytest.mark.parametrize(
    ("phase", "what"),
    spread(list(product(TRAINED, HANDED)), [(TRAINED[0], "keys and values"), (TRAINED[2], "a choice")]),
)
def test_every_rank_has_the_gradients_of_the_model(phase: str, what: str) -> None:
    plan = dagc.compile_text(
        HANDED[what].format(phases=STEP.format(phase), stack=STACK, takes="x, keys, values", window="")
    )
    assert plan.prove("step").verdict == "equal"
    graph = plan.trainings["step"].graph
    assert parse_graph(print_graph(graph)) == graph


SCORED = CHOOSES.replace("picked = select", "more = w\n  picked = select").replace(
    "reads(x, picked)", "reads(x, picked, more)"
)
SCORED = SCORED.replace("y[batch, seq, hidden] = o", "y[batch, seq, hidden] = more * Wm[index_heads, hidden] + o")
"""A choice, and numbers."""


@pytest.fixture(scope="module")
def trained() -> dagc.Plan:
    phase = "gpus = 0..1, pp = 2, microbatches = 2, virtual = 3, schedule = interleaved"
    return dagc.compile_text(SCORED.format(phases=STEP.format(phase)))


def test_gradients_that_go_back_have_bytes_of_their_own(trained: dagc.Plan) -> None:
    """Of 4 x 64 tokens of a micro-batch: 64 numbers of bf16 with eight places of four bytes and four numbers; back without places. Chunks of one layer:
    full | shared | shared | shared | full | shared."""
    result = trained.trainings["step"]
    x, places, numbers = (4 * 64 * size for size in (128, 32, 8))
    hops = [tuple(one.payload_B for one in hop) for _, hop in sorted(result.costs.hops.items())]
    both = x + places + numbers, x + numbers
    assert hops == [both, both, both, (x, x), both]
    sent = {one.total.payload_B for gpu in (0, 1) for one in step_collectives(result, gpu) if one.total.kind == "send"}
    assert sent == {*both, x}
    assert trained.prove("step").verdict == "equal"


def test_what_layers_read_is_kept_once_in_a_stage(trained: dagc.Plan) -> None:
    """Of full, shared, shared | shared, full, shared: a layer that makes it keeps it anyhow, so it counts where it comes from another stage alone."""
    plan = dagc.compile_text(
        SCORED.format(phases=STEP.format("gpus = 0..1, pp = 2, microbatches = 2, layers_per_stage = [3, 3]"))
    )
    for result in (trained.trainings["step"], plan.trainings["step"]):
        layers = {name: kept.whole_B for name, kept in kept_by_layer(result.graph, 1.0).items()}
        of_layers = [sum(count * layers[name] for name, count in stage.layers) for stage in result.stages]
        more = [own.whole_B - plain for own, plain in zip(result.kept, of_layers, strict=True)]
        assert more == ([0, 4 * 64 * 40] if len(more) == 2 else [0, *[4 * 64 * 40] * 3, 0, 4 * 64 * 40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, gives=()), "does not hand back the gradients of what it takes"),
        (lambda s: replace(s, gets=()), "uses %more.back before it is defined"),
        (lambda s: replace(s, gives=tuple((n, s.downstream) for n, _ in s.gives)), "has another gradient of more"),
        (lambda s: replace(s, gives=tuple((n, "nothing") for n, _ in s.gives)), "hands back %nothing of more, which is not defined"),
    ],
)  # fmt: skip
def test_gradients_that_are_lost_are_noticed(
    trained: dagc.Plan, change: Callable[[Segment], Segment], message: str
) -> None:
    graph = trained.trainings["step"].graph
    with pytest.raises(VerifyError, match=message):
        verify(replace(graph, segments=tuple(change(s) if s.gives else s for s in graph.segments)))


def test_a_cache_that_layers_share_is_stored_once() -> None:
    phase = "phase decode { gpus = [0] }"
    own = dagc.compile_text(text(phase, "embed, 6 * whole, lm_head")).phases["decode"].memory.worst
    shared = dagc.compile_text(text(phase)).phases["decode"].memory.worst
    assert shared.kv_cache_B == own.kv_cache_B / 2


@pytest.mark.parametrize(
    ("phase", "options", "code", "message"),
    [
        ("phase decode { gpus = [0] }", {"stack": "embed, reads, whole, lm_head"}, "E13", "takes `keys`, which no block before it computes"),
        ("phase decode { gpus = [0] }", {"takes": "x, keys, values, keys"}, "E11", "takes `keys` twice"),
        ("phase decode { gpus = [0] }", {"window": ", window = 8"}, "E13", "attention to `keys` sees other tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_there_is_refused(phase: str, options: dict[str, str], code: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text(phase, **options))
    assert [d.code for d in caught.value.diagnostics if d.code.startswith("E")] == [code]
    assert message in str(caught.value)
