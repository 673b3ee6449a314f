"""The metrics of a phase that trains."""

from __future__ import annotations

from ...base.units import (
    BYTES,
    FLOPS_PER_TOKEN,
    MONEY_PER_TOKEN,
    SCALAR,
    TIME,
    TOKEN_RATE,
    Dim,
)
from .metric import TRAIN, How, Metric, per_unit


def _train(name: str, dim: Dim, better: str, how: How, about: str, **where: object) -> Metric:
    return Metric(TRAIN, name, dim, better, about, how, **where)  # type: ignore[arg-type]


TRAININGS: tuple[Metric, ...] = (
    _train("step_time", TIME, "lower", lambda s: s.step.time_s, "one training step: all micro-batches and new weights", gated=True, usual=True, json="step_s"),
    _train("throughput", TOKEN_RATE, "higher", lambda s: s.step.throughput_tok_s, "tokens of a step over its time", gated=True, json="throughput_tok_s"),
    _train(
        "throughput_per_gpu", TOKEN_RATE, "higher", lambda s: s.step.throughput_tok_s / s.gpus, "the same per GPU", gated=True, usual=True, json="throughput_per_gpu_tok_s",
    ),
    _train(
        "mfu", SCALAR, "higher", lambda s: s.step.mfu,
        "FLOPs of the model, forward and backward, over those of the GPUs at their peak", share=True, usual=True, json="mfu",
    ),
    _train("hfu", SCALAR, "higher", lambda s: s.step.hfu, "the same with what is recomputed", share=True, json="hfu"),
    _train("bubble", SCALAR, "lower", lambda s: s.step.bubble, "share of a step in which the GPU that waits most waits", share=True, json="bubble"),
    _train(
        "exposed", SCALAR, "lower", lambda s: s.step.exposed, "share of a step in which data is moved and nothing computed", share=True, json="exposed",
    ),
    _train("update_time", TIME, "lower", lambda s: s.step.update_s, "from the last gradient to new weights", json="update_s"),
    _train("flops_per_token", FLOPS_PER_TOKEN, "", lambda s: s.step.flops_per_token, "FLOPs that MFU counts for a token", json="flops_per_token"),
    _train("memory.weights", BYTES, "lower", lambda s: s.step.worst.weights_B, "weights on the fullest GPU", json="memory.weights_B"),
    _train("memory.gradients", BYTES, "lower", lambda s: s.step.worst.gradients_B, "sums of gradients there", json="memory.gradients_B"),
    _train("memory.optimizer", BYTES, "lower", lambda s: s.step.worst.optimizer_B, "what the optimizer keeps there", json="memory.optimizer_B"),
    _train("memory.activations", BYTES, "lower", lambda s: s.step.worst.activations_B, "what is kept for gradients there", json="memory.activations_B"),
    _train(
        "memory.gathered", BYTES, "lower", lambda s: s.step.worst.gathered_B,
        "copies of weights that are shared out, of the layers that use them (ZeRO 3)", json="memory.gathered_B",
    ),
    _train("memory.working", BYTES, "lower", lambda s: s.step.worst.working_B, "values of the cell that runs", json="memory.working_B"),
    _train("memory.buffers", BYTES, "lower", lambda s: s.step.worst.buffers_B, "communication buffers", json="memory.buffers_B"),
    _train("memory.peak", BYTES, "lower", lambda s: s.step.worst.peak_B, "everything on the fullest GPU", gated=True, json="memory.peak_B"),
    _train("memory.fraction", SCALAR, "lower", lambda s: s.step.fraction, "the peak over the capacity", share=True, usual=True, json="memory.fraction"),
    _train(
        "cost_per_token", MONEY_PER_TOKEN, "lower", lambda s: per_unit(s.price_per_s, s.step.throughput_tok_s),
        "price of its GPUs over its throughput", needs="price",
    ),
    _train("gpus", SCALAR, "", lambda s: s.gpus, "GPUs of the phase"),
)  # fmt: skip
