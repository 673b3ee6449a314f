"""Capacities of experts in runs: which choices are dropped, the same on ranks and in the model alone, in inference and in training."""

from __future__ import annotations

import json
from pathlib import Path

import forked_ranks
import numpy as np
import pytest
from test_training_run import needs_torch
from tiers import spread

import dagc
from dagc.execute.numpy.router import Router, taken_at_most
from dagc.execute.prove import prove_small, verified
from dagc.execute.prove_training import compared, prove_training, step_inputs, whole_model
from dagc.execute.training import TrainingMachine
from dagc.execute.twin import twin_of
from dagc.plan.plan import CompiledPlan
from dagc.spec.unit import Unit

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small { layers = 2, hidden = 32, vocab = 64, dtype = bf16
  attention { heads = 4, kv_heads = 2, head_dim = 8 }
  experts { count = 8, top_k = 2, hidden = 16, capacity = 0.75 } }
workload { sequences = 16, prompt = 8 tok, output = 4 tok, routing = zipf(0.5) }
phase p { kind = KIND, WORDS }
"""
STEPS = {
    "exchange": "gpus = 0..7, microbatches = 2\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "done anew": "gpus = 0..7, pp = 2, dp = 2, ep = 2, microbatches = 2, recompute = full, schedule = zb_h1",
    "split sequences": "gpus = 0..7, sp = 2, tp = 2, ep = 2, sequence_parallel = true, zero = 2, aux_loss = 0.01",
    "zigzag": "gpus = 0..7, sp = 4, tp = 2, sp_method = ring, sp_layout = zigzag",
}
SERVED = {
    "prefill": "gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "decode": "gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }",
    "gathered": "gpus = 0..3, dp = 2, ep = 2, dispatch = allgather",
}


def text(kind: str, words: str) -> str:
    return SPEC.replace("KIND", kind).replace("WORDS", words)


def plan(kind: str, words: str) -> CompiledPlan:
    return dagc.compile_text(text(kind, words))


def test_the_largest_weights_stay() -> None:
    """As Megatron-LM's `topk_softmax_with_capacity` with `drop_policy = probs` chooses them: the top rows of each expert's column."""
    rule = Router(2, capacity=1.0, normalize=False)
    scores = np.random.default_rng(5).standard_normal((3, 7, 4))
    chosen, weights = rule(scores, None)
    kept = rule.capped(chosen, weights, np.zeros((3, 7), dtype=int), 4)
    most, table = taken_at_most(1.0, 42, 4), np.zeros((21, 4))
    np.put_along_axis(table, chosen.reshape(21, 2), weights.reshape(21, 2), axis=-1)
    top = np.sort(table, axis=0)[-most]
    masked = np.where(table >= top, table, 0.0)
    assert most == 11 and (kept == 0).any()
    np.testing.assert_array_equal(kept.reshape(21, 2), np.take_along_axis(masked, chosen.reshape(21, 2), axis=-1))


def test_groups_have_capacities_of_their_own() -> None:
    rule = Router(1, capacity=1.0)
    chosen, weights = np.zeros((2, 4, 1), dtype=int), np.arange(1.0, 9.0).reshape(2, 4, 1)
    together = rule.capped(chosen, weights, np.zeros((2, 4), dtype=int), 2)
    apart = rule.capped(chosen, weights, np.repeat([[0], [1]], 4, axis=1), 2)
    assert together.ravel().tolist() == [0, 0, 0, 0, 5, 6, 7, 8] and apart.ravel().tolist() == [0, 0, 3, 4, 0, 0, 7, 8]
    assert rule.capped(chosen, weights, np.zeros((2, 4), dtype=int), 1).tolist() == weights.tolist()


@needs_torch
def test_both_backends_drop_the_same() -> None:
    import torch

    from dagc.execute.torch.router import capped

    rule = Router(3, capacity=0.7)
    chosen, weights = rule(np.random.default_rng(3).standard_normal((4, 5, 8)), None)
    ours = rule.capped(chosen, weights, np.zeros((4, 5), dtype=int), 8)
    theirs = capped(rule, torch.tensor(chosen), torch.tensor(weights), 8)
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("words", spread(STEPS.values(), [STEPS["exchange"], STEPS["zigzag"]]), ids=list(STEPS))
def test_steps_drop_on_ranks_what_the_model_alone_drops(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, gradients, new weights, bytes and FLOPs; choices really are dropped, and other groups of tokens are another step."""
    made = plan("train", words)
    result, unit = made.trainings["p"], Unit(made.spec, made.spec.trainings[0])
    proof = prove_training(result, unit)
    assert proof.verdict == "equal", proof
    twin = verified(twin_of(result.graph, whole_model(unit), unit.routing))
    machine = TrainingMachine(twin.placed, step_inputs(twin), twin.placed.the_mesh)
    machine.step()
    shares = [share for by_turn in machine.record.kept.values() for share in by_turn.values()]
    assert shares and all(0.3 < share < 1.0 for share in shares)
    if words != STEPS["zigzag"]:  # whose ranks have sequences of two tokens: little is left to differ
        monkeypatch.setattr("dagc.execute.prove_training.with_groups", lambda inputs, placed: inputs)
        assert compared(twin.model, twin.placed, step_inputs(twin), 8).verdict == "differs"


@pytest.mark.parametrize("name", SERVED)
def test_passes_drop_on_ranks_what_the_model_alone_drops(name: str) -> None:
    kind = "prefill" if name == "gathered" else name
    made = plan(kind, SERVED[name])
    assert prove_small(made, "p").verdict == "equal"


@needs_torch
def test_processes_drop_what_the_model_alone_drops(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(text("train", "gpus = 0..1, microbatches = 2\nattention { dp = 2 }\nexperts { ep = 2 }"))
    done = forked_ranks.run(spec, 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] is True and found["training"]["gradient_error"] < 1e-11


def test_a_model_without_a_capacity_has_none_in_its_graph() -> None:
    made = dagc.compile_text(text("train", STEPS["exchange"]).replace(", capacity = 0.75", ""))
    for segment in made.trainings["p"].graph.segments:
        assert all(not getattr(op.attrs, "capacity", 0.0) for op in segment.ops)
