"""Losses of routers in a training step: against functions of others, under every lowering, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from tiers import spread
from training_steps import Step, small_step, training_text

import dagc
from dagc.base.diagnostics import SpecError
from dagc.execute.dispatcher import OpCall
from dagc.execute.inputs import Inputs, random_tensor, random_weight
from dagc.execute.numpy.rules import NUMPY, Notes
from dagc.execute.prove import single
from dagc.execute.prove_training import TrainingProof, compared, whole_model
from dagc.execute.shards import Shards
from dagc.execute.training import TrainingMachine
from dagc.execute.values import Floats
from dagc.ir.graph import Graph
from dagc.ir.op import Op, Weight
from dagc.ir.ops.attributes.losses import ShareAttrs
from dagc.ir.segment import Segment
from dagc.ir.step_losses import RouterLosses, with_router_losses
from dagc.ir.text.read import parse_graph
from dagc.passes.backward import Differentiated
from dagc.spec.workload import Routing

MODEL = (
    "layers = 2, hidden = 16, vocab = 32, dtype = bf16{more}\nattention {{ heads = 4, kv_heads = 2 }}\n"
    "experts {{ count = 8, top_k = 2, hidden = 12, shared = 1{router} }}"
)
EXPERTS, CHOICES = 8, 2


def step(phase: str, words: str, more: str = "", router: str = "") -> Step:
    return small_step(f"{words}\n{phase}", MODEL.format(more=more, router=router))


def proof(of: Step, placed: Graph | None = None) -> TrainingProof:
    return compared(whole_model(of.unit), placed or of.placed, of.inputs(), of.unit.phase.gpu_count)


class Seen(TrainingMachine):
    """Keeps scores, choices and gradients of scores of every layer, by micro-batch."""

    def remember(self, place: Any, values: list[object]) -> None:
        super().remember(place, values)
        kept = self.__dict__.setdefault("kept", {})
        kept.setdefault((place.layer, place.op.name), []).append(values[0])


def seen(of: Step) -> Seen:
    machine = Seen(of.model, of.inputs(), single())
    machine.step()
    return machine


def values(machine: Seen, name: str, layer: int = 0) -> list[Floats]:
    return machine.__dict__["kept"][layer, name]  # type: ignore[no-any-return]


def scores_of(machine: Seen, layer: int = 0) -> list[Floats]:
    return values(machine, "moe_shared.s", layer)


# -- against functions of others ---------------------------------------------------------------------------


RECORDED = ROOT / "tests" / "data" / "training" / "router_losses.npz"
LAYER = """graph one (train, model, fp32)
segment one (%x: [batch, seq, hidden]) {{
  sizes [batch=2, seq=12, context=12, hidden=4, expert={experts}, choice={top_k}]
  %s = given() : [batch, seq, expert]
  %r, %r.weights = route(%s, top_k={top_k}) : [batch, seq, choice] int64, [batch, seq, choice]
  return %r.weights
}}
"""


def computed(layer: Segment, graph: Graph, ops: Sequence[Op], known: dict[str, Any]) -> None:
    """Adds the results of ops, by their NumPy rules."""
    shards = Shards(graph, Inputs(np.zeros((2, 12), dtype=np.int64), Routing()), single())
    for op in ops:
        call = OpCall(shards, layer, 0, op, {}, tuple(map(layer.dims_of, op.inputs)), op.dims, Notes())
        made = NUMPY[op.kind](call, [known[n] for n in op.inputs])
        known |= zip((v.name for v in op.results), made if isinstance(made, tuple) else (made,), strict=True)


@pytest.mark.parametrize(("top_k", "experts"), [(1, 4), (2, 8), (4, 6)])
def test_losses_and_gradients_are_those_of_transformers(top_k: int, experts: int) -> None:
    """Of `load_balancing_loss_func`, whose shares sum to the choices of a token and are fp32, and of logsumexp; their gradients are
    autograd's (`tools/reference_routers.py`)."""
    with np.load(RECORDED) as data:
        own = {name.partition(" ")[2]: data[name] for name in data.files if name.startswith(f"{top_k}x{experts} ")}
    graph = parse_graph(LAYER.format(experts=experts, top_k=top_k))
    for name, losses in (("balance", RouterLosses(balance=0.5)), ("z", RouterLosses(z=0.5))):
        layer = with_router_losses(graph.segments[0], graph, losses)
        known: dict[str, Any] = {"s": own["scores"].reshape(2, 12, experts)}
        computed(layer, graph, layer.ops[1:], known)
        scale = 0.5 / top_k if name == "balance" else 0.5
        assert np.mean(known[f"r.{name}"]) == pytest.approx(scale * float(own[name]), rel=1e-6)
        back = Differentiated(layer, "fp32", "adamw")
        for op in reversed(layer.ops[1:]):
            back.back(op)
        computed(back.segment, graph, back.ops, known)
        found = known[back.total("s")].reshape(-1, experts)
        np.testing.assert_allclose(found, scale * own[f"{name} gradient"], rtol=2e-5, atol=1e-8)


def uneven(scores: Floats, probabilities: Floats, chosen: Floats) -> float:
    """Sum over experts of the share of choices times the mean probability, of the tokens that are given [.., experts]."""
    share = np.bincount(chosen.ravel().astype(int), minlength=EXPERTS) / chosen.size
    return float(EXPERTS * (share * probabilities.reshape(-1, EXPERTS).mean(axis=0)).sum())


@pytest.mark.parametrize("router", ["", ", score = sigmoid, groups = 4, groups_limit = 2, bias = true"])
@pytest.mark.parametrize(("over", "ways"), [("rank", 4), ("sequence", 8), ("micro_batch", 1)])
def test_shares_are_of_the_tokens_that_are_asked_for(over: str, ways: int, router: str) -> None:
    """Of eight sequences on four data-parallel ranks, by the formula of each; sigmoid scores count by their share (arXiv 2412.19437,
    equations 17 to 20)."""
    own = step("gpus = 0..3, dp = 4", f"aux_loss = 0.5, aux_loss_over = {over}", router=router)
    machine = seen(own)
    (scores,) = scores_of(machine)
    (chosen,) = values(machine, "moe_shared.r")
    raw = 1.0 / (1.0 + np.exp(-scores)) if router else np.exp(scores)
    probabilities = raw / raw.sum(axis=-1, keepdims=True)
    parts = zip(np.split(scores, ways), np.split(probabilities, ways), np.split(chosen, ways), strict=True)
    wanted = 0.5 * np.mean([uneven(*part) for part in parts])
    found = np.mean(machine.of_routers[0, "moe_shared.r.balance"][0][0])
    assert found == pytest.approx(wanted, rel=1e-12)


def test_even_choices_count_the_factor() -> None:
    """Every expert as often, whatever the probabilities."""
    graph = parse_graph(LAYER.format(experts=4, top_k=2))
    layer = with_router_losses(graph.segments[0], graph, RouterLosses(balance=0.5, sequences=1))
    rest = [op for op in layer.ops if op.kind not in ("given", "route")]
    known: dict[str, Any] = {
        "s": np.random.default_rng(1).normal(size=(2, 12, 4)), "r": np.arange(48).reshape(2, 12, 2) % 4,
    }  # fmt: skip
    computed(layer, graph, rest, known)
    np.testing.assert_allclose(known["r.share"], np.full((2, 4), 1 / 4))
    np.testing.assert_allclose(known["r.balance"], 0.5)


def test_gradients_are_the_slopes_of_the_whole_loss() -> None:
    """By central differences along a random direction in all weights: choices stay, so the loss is smooth. A layer that predicts a
    further token has its own router."""
    own = step("gpus = [0], microbatches = 2", "aux_loss = 0.5, z_loss = 0.1, mtp_loss = 0.3", more=", mtp_layers = 1")
    machine = seen(own)
    assert {(2, "mtp_moe_shared.r.balance"), (2, "mtp_moe_shared.r.z")} < machine.of_routers.keys()

    def loss(by: float) -> float:
        def moved(segment: Segment, layer: int, weight: Weight) -> Floats:
            whole = random_weight(segment, layer, weight)
            return whole + by * random_tensor(f"way.{layer}.{weight.name}", whole.shape)

        one = TrainingMachine(own.model, replace(own.inputs(), weights=moved), single())
        one.step()
        return one.loss

    parts = [
        float((ranks[0] * random_tensor(f"way.{layer}.@{name}", ranks[0].shape)).sum())
        for (layer, name), (_, _, ranks) in machine.whole_gradients.items()
    ]
    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert abs(slope - sum(parts)) <= 1e-6 * sum(map(abs, parts))


# -- any lowering --------------------------------------------------------------------------------------------

LOWERINGS = {
    "flat": "gpus = 0..7, dp = 2, ep = 2, tp = 2, microbatches = 2, recompute = full",
    "gathered": "gpus = 0..7, dp = 2, ep = 2, tp = 2, dispatch = allgather",
    "folded": "gpus = 0..7, microbatches = 2\nattention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 8 }",
    "pipeline": "gpus = 0..7, pp = 2, microbatches = 2, zero = 3, sequence_parallel = true\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
}


@pytest.mark.parametrize(
    ("name", "over"),
    spread(
        product(LOWERINGS, ["rank", "sequence", "micro_batch"]),
        {("flat", "rank"), ("gathered", "sequence"), ("folded", "micro_batch")},
    ),
)
def test_every_lowering_has_the_losses_and_gradients_of_the_model(name: str, over: str) -> None:
    found = proof(step(LOWERINGS[name], f"aux_loss = 0.5, aux_loss_over = {over}, z_loss = 0.1"))
    assert found.holds, found


def reductions(graph: Graph) -> list[Op]:
    segment = graph.segment("sparse")
    return [op for op in segment.ops if op.is_collective and op.inputs[0].endswith(".share") and op.cell == ""]


@pytest.mark.parametrize(
    ("over", "axes", "rows"), [("rank", ("sp",), 4), ("sequence", ("sp",), 4), ("micro_batch", ("dp", "sp"), 1)]
)
def test_shares_are_added_up_over_the_ranks_that_see_their_tokens(over: str, axes: tuple[str, ...], rows: int) -> None:
    """A number for each expert, of a micro-batch once, else of each sequence of the rank."""
    text = training_text(
        f"aux_loss = 0.5, aux_loss_over = {over}\ngpus = 0..3\nattention {{ dp = 2, sp = 2 }}\nexperts {{ ep = 4 }}",
        MODEL.format(more="", router=""),
    )
    result = dagc.compile_text(text).trainings["step"]
    (op,) = reductions(result.graph)
    assert (op.runtime_kind, op.axes) == ("all_reduce", axes)
    assert result.costs.ops["sparse", op.name].payload_B == rows * EXPERTS * 4


def test_shares_over_other_tokens_are_found() -> None:
    """Each sequence's for those of a rank."""
    own = step("gpus = 0..3, dp = 2, tp = 2", "aux_loss = 0.5")
    sparse = own.placed.segment("sparse")
    ops = tuple(replace(op, attrs=ShareAttrs(1)) if op.kind == "expert_share" else op for op in sparse.ops)
    segments = tuple(replace(s, ops=ops) if s is sparse else s for s in own.placed.segments)
    found = proof(own, replace(own.placed, segments=segments))
    assert found.verdict == "differs" and found.first.endswith("balance") and found.gradient_error > 1e-6


def test_a_loss_that_is_left_out_is_found() -> None:
    own, without = (step("gpus = 0..3, dp = 2, tp = 2", words) for words in ("aux_loss = 0.5", "z_loss = 0.0"))
    found = compared(whole_model(own.unit), without.placed, own.inputs(), 4)
    assert found.verdict == "differs" and "only one of the runs has it" in found.first


# -- what is said ---------------------------------------------------------------------------------------------


def errors(words: str, model: str = "") -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(training_text(f"gpus = [0]\n{words}", model or MODEL.format(more="", router="")))
    return [(d.code, d.message) for d in caught.value.diagnostics if d.severity == "error"]


def test_what_cannot_be_is_refused() -> None:
    dense = "layers = 2, hidden = 16, vocab = 32\nattention { heads = 4, kv_heads = 2 }\nmlp { hidden = 24 }"
    for word in ("aux_loss", "z_loss"):
        assert errors(f"{word} = 0.1", dense) == [("E03", "no layer has a router whose losses count")]
        assert errors(f"{word} = -1")[0][0] == "E09"
    assert errors("aux_loss_over = sequence") == [("E12", "`aux_loss_over` needs `aux_loss`")]


def test_the_report_says_them_and_flops_stay() -> None:
    words = "aux_loss = 0.01, aux_loss_over = sequence, z_loss = 0.001"
    plan, plain = (
        dagc.compile_text(training_text(f"gpus = [0]\n{w}", MODEL.format(more="", router=""))) for w in (words, "")
    )
    text = " ".join(str(plan.report()).split())
    assert (
        "cross entropy of the next token + 0.01 x uneven choices of routers over each sequence + 0.001 x large scores of routers"
        in text
    )
    assert "loss:" not in str(plain.report())
    ours, theirs = plan.trainings["step"], plain.trainings["step"]
    assert ours.flops_per_token == pytest.approx(theirs.flops_per_token, rel=0.01)
    assert ours.worst.activations_B < 1.05 * theirs.worst.activations_B


def test_the_report_says_what_experts_drop() -> None:
    """Skewed choices: none is dropped without a capacity; with one times are of those that are kept, FLOPs of all."""
    phase = "gpus = 0..7, routing = zipf(0.8)\nattention { dp = 8 }\nexperts { ep = 8 }"
    free, bound = (
        dagc.compile_text(training_text(phase, MODEL.format(more="", router=router)))
        for router in ("", ", capacity = 1.25")
    )
    ours, theirs = bound.trainings["step"], free.trainings["step"]
    assert "are dropped" not in str(free.report()) and "times the mean load" in str(free.report())
    assert f"{ours.costs.dropped:.1%} of the choices are dropped" in " ".join(str(bound.report()).split())
    assert ours.costs.dropped > 0.05 and ours.costs.imbalance < theirs.costs.imbalance
    assert ours.flops_per_token == theirs.flops_per_token and ours.steps.makespan_s < theirs.steps.makespan_s
