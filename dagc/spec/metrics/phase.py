"""The metrics of a phase of inference."""

from __future__ import annotations

from ...base.axes import DEGREES
from ...base.collectives import TRANSFERS
from ...base.units import (
    BYTES,
    ENERGY_PER_TOKEN,
    FLOPS_PER_TOKEN,
    MONEY_PER_TOKEN,
    SCALAR,
    TIME,
    TOKEN_RATE,
    TOKENS,
    Dim,
)
from .metric import PHASE, How, Metric, figure_of, per_unit


def _phase(name: str, dim: Dim, better: str, how: How, about: str, **where: object) -> Metric:
    return Metric(PHASE, name, dim, better, about, how, **where)  # type: ignore[arg-type]


def _degree(axis: str) -> Metric:
    return _phase(axis, SCALAR, "", lambda s: float(s.mesh.degrees.get(axis, 1)), f"degree of {axis}")


def _calls(kind: str) -> Metric:
    about = f"calls of {kind} per device and pass"
    return _phase(f"collectives.{kind}", SCALAR, "", lambda s: s.calls(kind), about, compared=True)


PHASES: tuple[Metric, ...] = (
    _phase(
        "ttft", TIME, "lower", lambda s: s.time_s("ttft"),
        "prefill: until the last sequence of the whole batch has its first token (not a request's TTFT)",
        json="ttft_s", row="time_s", reported=True, usual=True, gated=True,
    ),
    _phase(
        "tpot", TIME, "lower", lambda s: s.time_s("tpot"),
        "decode: between two tokens of a sequence", json="tpot_s", row="time_s", reported=True, usual=True, gated=True,
    ),
    _phase(
        "step_time", TIME, "lower", lambda s: s.time_s("step_time"),
        "mixed: one step of prompts and decode together", json="step_s", row="time_s", reported=True, usual=True, gated=True,
    ),
    _phase(
        "makespan", TIME, "lower", lambda s: s.result.schedule.latency_s,
        "first kernel to last of one pass of all micro-batches (of a whole chunk)", json="makespan_s", row="makespan_s",
    ),
    _phase("step", TIME, "lower", lambda s: s.result.schedule.period_s, "one pass in the steady state"),
    _phase(
        "bubble", SCALAR, "lower", lambda s: s.result.bubble, "share of the stages' time in which they wait for micro-batches",
        share=True, compared=False,
    ),
    _phase(
        "fill", TIME, "lower", lambda s: s.result.schedule.fill_s,
        "warm-up of the pipeline: from when its first stage begins a pass until its last one does", compared=False,
    ),
    _phase(
        "drain", TIME, "lower", lambda s: s.result.schedule.drain_s,
        "from when its first stage has done its part of a pass until the pass ends", compared=False,
    ),
    _phase(
        "floor", TIME, "", lambda s: s.result.floor_s, "the time at datasheet peaks without overheads", json="floor_s",
        row="floor_s", reported=True, compared=True, settled=True,
    ),
    _phase(
        "throughput", TOKEN_RATE, "higher", lambda s: s.result.throughput_tok_s, "tokens per second of all GPUs of the phase",
        json="throughput_tok_s", row="throughput_tok_s", reported=True, gated=True,
    ),
    _phase(
        "throughput_per_gpu", TOKEN_RATE, "higher", lambda s: s.result.throughput_tok_s / s.gpus, "the same per GPU",
        json="throughput_per_gpu_tok_s", row="throughput_per_gpu_tok_s", reported=True, usual=True, gated=True,
    ),
    _phase(
        "throughput_per_node", TOKEN_RATE, "higher",
        lambda s: s.result.throughput_tok_s / max(1.0, s.gpus / s.result.per_node), "the same per node",
    ),
    _phase(
        "utilization", SCALAR, "higher", lambda s: s.result.utilization,
        "FLOPs of the model over those of the GPUs at their peak", share=True, row="utilization", reported=True, brief=".1%",
    ),
    _phase(
        "imbalance", SCALAR, "lower", lambda s: s.result.costs.imbalance, "tokens of the busiest expert rank over the mean",
        json="imbalance", row="imbalance", reported=True, brief=".2f",
    ),
    _phase(
        "experts.read", SCALAR, "lower", lambda s: s.result.costs.distinct_experts or None,
        "experts of a layer that the tokens of a step choose, on average", compared=False,
    ),
    _phase(
        "experts.found", SCALAR, "higher", lambda s: figure_of(s.result.expert_cache, "found"),
        "share of the experts that a step needs which its GPUs hold", share=True, compared=False,
    ),
    _phase(
        "experts.slowdown", SCALAR, "lower", lambda s: figure_of(s.result.expert_cache, "slowdown"),
        "time over that with all experts on GPUs", compared=False,
    ),
    _phase(
        "experts.cold_slowdown", SCALAR, "lower", lambda s: figure_of(s.result.expert_cache, "cold_slowdown"),
        "the same of the first step, before any expert is there", compared=False,
    ),
    _phase(
        "experts.warm_steps", SCALAR, "lower", lambda s: figure_of(s.result.expert_cache, "steps"),
        "passes until GPUs that began with none hold as many experts as they have room for", compared=False,
    ),
    _phase(
        "experts.fill_time", TIME, "lower", lambda s: figure_of(s.result.expert_cache, "fill_s"),
        "until the experts that a GPU holds came over the link of its host", compared=False,
    ),
    _phase(
        "experts.warm_time", TIME, "lower", lambda s: figure_of(s.result.expert_cache, "warm_s"),
        "the same as steps need them, with what these take", compared=False,
    ),
    _phase(
        "experts.load_time", TIME, "lower", lambda s: figure_of(s.result.expert_cache, "load_s"),
        "until the experts of all GPUs of a host came from its storage", compared=False,
    ),
    _phase(
        "rebalance.imbalance", SCALAR, "lower", lambda s: figure_of(s.result.rebalanced, "imbalance"),
        "imbalance over time with the first placement of experts kept", compared=False,
    ),
    _phase(
        "rebalance.bytes", BYTES, "lower", lambda s: figure_of(s.result.rebalanced, "moved_B"),
        "weights that all GPUs get when experts are placed anew, in the mean", compared=False,
    ),
    _phase(
        "rebalance.time", TIME, "lower", lambda s: figure_of(s.result.rebalanced, "move_s"),
        "until the GPU that takes longest has its part of them", compared=False,
    ),
    _phase(
        "rebalance.gain", SCALAR, "higher", lambda s: figure_of(s.result.rebalanced, "gain"),
        "share of the time that placing experts anew saves, moves included", share=True, compared=False,
    ),
    _phase(
        "rebalance.break_even", SCALAR, "lower", lambda s: figure_of(s.result.rebalanced, "break_even"),
        "steps between placements at which moves take what they save", compared=False,
    ),
    _phase(
        "depth", SCALAR, "lower", lambda s: s.depth,
        "decode, mixed: layers that a token goes through on average", compared=False,
    ),
    _phase(
        "padding", SCALAR, "lower", lambda s: s.padding,
        "share of the tokens of a pass that fill rows up, of prompts with `lengths`", share=True, compared=False,
    ),
    _phase(
        "flops_per_token", FLOPS_PER_TOKEN, "lower", lambda s: s.result.flops_per_token, "FLOPs that a token takes",
        reported=True,
    ),
    _phase(
        "memory.weights", BYTES, "lower", lambda s: s.memory.weights_B, "weights on the fullest GPU", json="memory.weights_B"
    ),
    _phase(
        "memory.kv_cache", BYTES, "lower", lambda s: s.memory.kv_cache_B, "KV cache on the fullest GPU",
        json="memory.kv_cache_B",
    ),
    _phase(
        "memory.activations", BYTES, "lower", lambda s: s.memory.activations_B, "live activations at their peak",
        json="memory.activations_B",
    ),
    _phase(
        "memory.buffers", BYTES, "lower", lambda s: s.memory.buffers_B, "communication buffers", json="memory.buffers_B"
    ),
    _phase(
        "memory.reserve", BYTES, "lower", lambda s: s.memory.reserve_B, "what the runtime keeps", json="memory.reserve_B"
    ),
    _phase(
        "memory.engine", BYTES, "lower", lambda s: s.memory.engine_B,
        "CUDA graphs, communication buffers and padding of weights", json="memory.engine_B",
    ),
    _phase(
        "memory.capacity", BYTES, "", lambda s: s.memory.capacity_B, "what a GPU may store, by the engine's share of it"
    ),
    _phase("memory.host", BYTES, "lower", lambda s: s.host_B, "KV cache and experts that host memory keeps for the fullest GPU"),
    _phase(
        "memory.own", BYTES, "lower", lambda s: s.memory.peak_B, "the sum of these for the phase alone", json="memory.peak_B"
    ),
    _phase(
        "memory.peak", BYTES, "lower", lambda s: max([s.memory.peak_B, *(pool.peak_B for pool in s.shared)]),
        "everything on its fullest GPU, including other phases' part", json="memory.shared_peak_B", gated=True, pooled=True,
    ),
    _phase(
        "memory.fraction", SCALAR, "lower",
        lambda s: max([s.result.memory.fraction, *(pool.fraction for pool in s.shared)]), "the peak over the capacity",
        share=True, usual=True, pooled=True,
    ),
    _phase(
        "memory.kv_tokens", TOKENS, "higher", lambda s: s.room, "tokens of KV cache that fit in the memory",
        json="memory.kv_tokens", pooled=True,
    ),
    _phase(
        "memory.kv_tokens_free", TOKENS, "higher", lambda s: None if s.room is None else max(0.0, s.room - s.cached_tokens),
        "those that fit in addition to the batch of the phase", pooled=True,
    ),
    _phase(
        "launches", SCALAR, "lower", lambda s: s.launches, "kernels that a GPU launches in a pass, without exchanges and copies",
    ),
    _phase(
        "attention_bytes", BYTES, "lower", lambda s: None if s.attention is None else s.attention.moved_B,
        "bytes that attention moves to and from the memory of a GPU in a pass",
    ),
    _phase(
        "flash_saving", SCALAR, "", lambda s: None if s.attention is None else s.attention.saving,
        "bytes of attention that writes and reads its scores over those of flash attention",
    ),
    _phase(
        "host_copies", BYTES, "lower", lambda s: s.host_copies_B,
        "bytes that come from host memory and go there in a pass, of one GPU", compared=True,
    ),
    _phase(
        "kv_transfer", TIME, "lower", lambda s: None if s.transfer is None else s.transfer[1],
        "prefill with a decode on other GPUs: sending the cache of a sequence", compared=False,
    ),
    _phase(
        "kv_bytes", BYTES, "lower", lambda s: None if s.transfer is None else s.transfer[0], "the size of that cache",
        compared=False,
    ),
    _phase(
        "cost_per_token", MONEY_PER_TOKEN, "lower",
        lambda s: per_unit(s.price_per_s, s.result.throughput_tok_s), "price of its GPUs over its throughput", needs="price",
        json="cost_per_token", reported=True, usual=True,
    ),
    _phase(
        "energy_per_token", ENERGY_PER_TOKEN, "lower",
        lambda s: per_unit(s.power_W, s.result.throughput_tok_s),
        "power of its GPUs over its throughput: an upper bound, since GPUs that wait draw less", needs="power",
        json="energy_per_token_J", reported=True, usual=True,
    ),
    _phase(
        "load", TIME, "lower", lambda s: s.load_s,
        "reading the weights of the phase: each host from its storage, each GPU over the link of its host", needs="disk", compared=False,
    ),
    _phase("gpus", SCALAR, "", lambda s: s.gpus, "GPUs of the phase"),
    _phase(
        "idle_gpus", SCALAR, "lower", lambda s: float(s.hardware.gpus) - s.gpus, "GPUs of the pool that the phase leaves out",
        settled=True,
    ),
    _phase("stages", SCALAR, "", lambda s: float(s.mesh.stages), "pipeline stages"),
    _phase("sequences", SCALAR, "", lambda s: float(s.phase.sequences), "sequences in its batch"),
    _phase("microbatches", SCALAR, "", lambda s: float(s.result.batches), "micro-batches of a pass"),
    _phase(
        "layers_per_stage", SCALAR, "", lambda s: s.spec.model.layers / s.mesh.stages, "mean number of layers of a stage"
    ),
    *(_degree(axis) for axis in DEGREES),
    *(_calls(kind) for kind in TRANSFERS),
)  # fmt: skip
