"""The table of metrics: what a requirement, a sweep, a comparison, a report, JSON and the documentation say of a plan.

A metric is one record here, with how it follows from the plan; every output reads this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..base.axes import DEGREES
from ..base.collectives import TRANSFERS
from ..base.frozen import record
from ..base.units import (
    BYTE_RATE,
    BYTES,
    ENERGY_PER_TOKEN,
    FLOP_RATE,
    FLOPS_PER_TOKEN,
    MONEY_PER_REQUEST,
    MONEY_PER_TOKEN,
    MONEY_RATE,
    POWER,
    REQUEST_RATE,
    REQUESTS,
    SCALAR,
    TIME,
    TOKEN_RATE,
    TOKENS,
    Dim,
    dim_name,
    number,
    show,
)

PHASE, SERVE, TRAIN, HARDWARE, MODEL, WORKLOAD = "PHASE", "SERVE", "TRAIN", "hardware", "model", "workload"

How = Callable[[Any], float | None]
"""Reads a `dagc.plan.subject.Subject`, which is above: the language must know the names, and knows no plan."""


@record
class Metric:
    """`owner`: what precedes the name; `better`: lower, higher, or nothing; `how`: its value in SI units, None where the
    phase has none; `share`: a fraction, shown as percent.

    Where it appears beyond what can be named: `json`: its path in a phase of `dagc compile --json`; `row`: its column in
    `plan.rows("phases")`; `reported`: reports show it, in the format `brief` if there is one; `usual`: a column of every sweep;
    `gated`: `--fail-on-regression` heeds it; `compared`: `dagc diff` shows it (None: if one direction is better); `pooled`: it
    counts all that the GPUs hold, for whatever phase; `needs`: an attribute of the hardware without which it has no value; `settled`: known
    before anything runs, however a plan is laid out; `absent`: why a serving may have no value."""

    owner: str
    name: str
    dim: Dim
    better: str
    about: str
    how: How
    share: bool = False
    json: str = ""
    row: str = ""
    reported: bool = False
    brief: str = ""
    usual: bool = False
    gated: bool = False
    compared: bool | None = None
    pooled: bool = False
    needs: str = ""
    settled: bool = False
    absent: str = ""

    @property
    def full(self) -> str:
        return f"{self.owner}.{self.name}"

    @property
    def unit(self) -> str:
        return "%" if self.share else "" if self.dim == SCALAR else dim_name(self.dim)

    @property
    def is_result(self) -> bool:
        return bool(self.better) if self.compared is None else self.compared

    def shown(self, value: float) -> str:
        return percent(value) if self.share else show(value, self.dim)

    def briefly(self, value: float) -> str:
        """As reports show it."""
        return format(value, self.brief) if self.brief else self.shown(value)


def percent(value: float) -> str:
    """A fraction for people: `35.6%`."""
    return f"{number(100 * value)}%"


def _phase(name: str, dim: Dim, better: str, how: How, about: str, **where: object) -> Metric:
    return Metric(PHASE, name, dim, better, about, how, **where)  # type: ignore[arg-type]


def _degree(axis: str) -> Metric:
    return _phase(axis, SCALAR, "", lambda s: float(s.mesh.degrees.get(axis, 1)), f"degree of {axis}")


def _calls(kind: str) -> Metric:
    about = f"calls of {kind} per device and pass"
    return _phase(f"collectives.{kind}", SCALAR, "", lambda s: s.calls(kind), about, compared=True)


_PHASES: tuple[Metric, ...] = (
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
        "experts.found", SCALAR, "higher", lambda s: _of(s.result.expert_cache, "found"),
        "share of the experts that a step needs which its GPUs hold", share=True, compared=False,
    ),
    _phase(
        "experts.slowdown", SCALAR, "lower", lambda s: _of(s.result.expert_cache, "slowdown"),
        "time over that with all experts on GPUs", compared=False,
    ),
    _phase(
        "experts.cold_slowdown", SCALAR, "lower", lambda s: _of(s.result.expert_cache, "cold_slowdown"),
        "the same of the first step, before any expert is there", compared=False,
    ),
    _phase(
        "experts.warm_steps", SCALAR, "lower", lambda s: _of(s.result.expert_cache, "steps"),
        "passes until GPUs that began with none hold as many experts as they have room for", compared=False,
    ),
    _phase(
        "experts.fill_time", TIME, "lower", lambda s: _of(s.result.expert_cache, "fill_s"),
        "until the experts that a GPU holds came over the link of its host", compared=False,
    ),
    _phase(
        "experts.warm_time", TIME, "lower", lambda s: _of(s.result.expert_cache, "warm_s"),
        "the same as steps need them, with what these take", compared=False,
    ),
    _phase(
        "experts.load_time", TIME, "lower", lambda s: _of(s.result.expert_cache, "load_s"),
        "until the experts of all GPUs of a host came from its storage", compared=False,
    ),
    _phase(
        "rebalance.imbalance", SCALAR, "lower", lambda s: _of(s.result.rebalanced, "imbalance"),
        "imbalance over time with the first placement of experts kept", compared=False,
    ),
    _phase(
        "rebalance.bytes", BYTES, "lower", lambda s: _of(s.result.rebalanced, "moved_B"),
        "weights that all GPUs get when experts are placed anew, in the mean", compared=False,
    ),
    _phase(
        "rebalance.time", TIME, "lower", lambda s: _of(s.result.rebalanced, "move_s"),
        "until the GPU that takes longest has its part of them", compared=False,
    ),
    _phase(
        "rebalance.gain", SCALAR, "higher", lambda s: _of(s.result.rebalanced, "gain"),
        "share of the time that placing experts anew saves, moves included", share=True, compared=False,
    ),
    _phase(
        "rebalance.break_even", SCALAR, "lower", lambda s: _of(s.result.rebalanced, "break_even"),
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
        lambda s: _over(s.price_per_s, s.result.throughput_tok_s), "price of its GPUs over its throughput", needs="price",
        json="cost_per_token", reported=True, usual=True,
    ),
    _phase(
        "energy_per_token", ENERGY_PER_TOKEN, "lower",
        lambda s: _over(s.power_W, s.result.throughput_tok_s),
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


def _of(found: Any, name: str) -> float | None:
    """A figure of something that a phase may not have."""
    return None if found is None else getattr(found, name)


def _over(rate: float | None, per_s: float) -> float | None:
    """What costs so much per second, of one of so many per second; nothing where none is done or nothing known."""
    return None if rate is None or per_s <= 0 else rate / per_s


_TIMES = {
    "ttft": "from a request's arrival to its first token at the client",
    "tpot": "between two tokens of a request: (e2e - ttft) / (output - 1)",
    "itl": "every gap between two tokens",
    "e2e": "from a request's arrival to its last token",
}
_OF_THEM = {
    "mean": "mean", "p50": "half are at most this", "p90": "9 of 10 are at most this", "p99": "99 of 100 are at most this",
}  # fmt: skip


def _serve(
    name: str,
    dim: Dim,
    better: str,
    how: How,
    about: str,
    *,
    share: bool = False,
    usual: bool = False,
    needs: str = "",
    settled: bool = False,
    absent: str = "",
) -> Metric:
    return Metric(
        SERVE,
        name,
        dim,
        better,
        about,
        how,
        share=share,
        usual=usual,
        gated=usual,
        needs=needs,
        settled=settled,
        absent=absent,
    )


def _time_of(name: str, of: str) -> Metric:
    """Of all requests, or gaps; a serving in which there are none has no such figure."""

    def how(subject: Any) -> float | None:
        value = float(getattr(getattr(subject.serving, name), f"{of}_s"))
        return value if value == value else None

    first = of == "mean"
    return _serve(
        f"{name}.{of}",
        TIME,
        "lower",
        how,
        f"{_TIMES[name]}: {_OF_THEM[of]}" if first else _OF_THEM[of],
        usual=of == "p99" and name != "itl",
    )


UNCHANGED = "its workers change no roles, or the spec says how long that takes"

_SERVINGS: tuple[Metric, ...] = (
    *(_time_of(name, of) for name in _TIMES for of in _OF_THEM),
    _serve(
        "goodput", REQUEST_RATE, "higher", lambda s: s.serving.goodput_per_s,
        "requests per second that meet every limit that the spec requires", usual=True,
    ),
    _serve("met", SCALAR, "higher", lambda s: s.serving.met, "share of the requests that meet them", share=True),
    _serve("rate", REQUEST_RATE, "higher", lambda s: s.serving.rate_per_s, "requests that end, per second"),
    _serve("throughput", TOKEN_RATE, "higher", lambda s: s.serving.throughput_tok_s, "output tokens per second, all workers"),
    _serve(
        "throughput_per_gpu", TOKEN_RATE, "higher", lambda s: s.serving.throughput_per_gpu_tok_s, "the same per GPU", usual=True
    ),
    _serve(
        "throughput_per_user", TOKEN_RATE, "higher", lambda s: s.serving.throughput_per_user_tok_s,
        "tokens per second that half of the users see at least: 1 / tpot.p50",
    ),
    _serve("prompt_throughput", TOKEN_RATE, "higher", lambda s: s.serving.prompt_tok_s, "prompt tokens per second, all workers"),
    _serve(
        "utilization", SCALAR, "higher", lambda s: s.serving.utilization, "share of the GPUs' time in which they are in a step",
        share=True,
    ),
    _serve(
        "imbalance", SCALAR, "lower", lambda s: s.serving.imbalance,
        "tokens of the attention-DP rank that serves most over the mean, of all workers of a role",
    ),
    _serve(
        "gpu_imbalance", SCALAR, "lower", lambda s: s.serving.gpu_imbalance,
        "time in steps of the GPUs that work most over the mean of all GPUs; workers of one role count as equal",
    ),
    _serve("running", REQUESTS, "", lambda s: s.serving.running_mean, "requests in the workers, mean over time"),
    _serve("queue", REQUESTS, "lower", lambda s: s.serving.queue_mean, "requests that wait, mean over time"),
    _serve("saturated", SCALAR, "lower", lambda s: s.serving.saturated, "share of the time in which requests wait", share=True),
    _serve(
        "kv_fill", SCALAR, "", lambda s: s.serving.fullest.kv_fill_mean,
        "share of the cache's blocks that are held, mean over time, of the role that holds most", share=True,
    ),
    _serve(
        "kv_waste", SCALAR, "lower", lambda s: s.serving.fullest.kv_waste, "share of the held blocks' places without a token",
        share=True,
    ),
    _serve(
        "hit_rate", SCALAR, "higher", lambda s: s.serving.hit_rate, "share of the prompts' tokens found in the prefix cache",
        share=True,
    ),
    _serve("requests", REQUESTS, "", lambda s: float(s.serving.arrived), "requests that arrive"),
    _serve("finished", REQUESTS, "higher", lambda s: float(s.serving.finished), "requests that end"),
    _serve("rejected", REQUESTS, "lower", lambda s: float(s.serving.count("rejected")), "requests that are turned away"),
    _serve("preemptions", SCALAR, "lower", lambda s: float(s.serving.count("preempted")), "how often a request loses its cache"),
    _serve("switches", SCALAR, "", lambda s: float(s.serving.count("switches")), "how often a worker changes its role"),
    _serve(
        "switch.to_decode", TIME, "lower", lambda s: s.of_change(s.serving.to_decode_s),
        "workers that change roles, whose spec gives no time for it: a change from prompts to decode, without caches", absent=UNCHANGED,
    ),
    _serve(
        "switch.to_prefill", TIME, "lower",
        lambda s: s.of_change(s.serving.to_prefill_s), "time of a change back", absent=UNCHANGED,
    ),
    _serve(
        "switch.bytes", BYTES, "lower", lambda s: s.of_change(s.serving.moved_B),
        "weights that all GPUs of a worker fetch for both changes, where they store those of one phase at a time", absent=UNCHANGED,
    ),
    _serve("duration", TIME, "", lambda s: s.serving.duration_s, "from the first arrival to the last token"),
    _serve("gpus", SCALAR, "", lambda s: float(s.serving.gpus), "GPUs of all workers", settled=True),
    _serve(
        "cost_per_token", MONEY_PER_TOKEN, "lower", lambda s: _over(s.price_per_s, s.serving.throughput_tok_s),
        "price of all GPUs, busy or not, over the output tokens", needs="price",
    ),
    _serve(
        "cost_per_request", MONEY_PER_REQUEST, "lower", lambda s: _over(s.price_per_s, s.serving.rate_per_s),
        "price of all GPUs, busy or not, over the requests that end", needs="price",
    ),
    _serve(
        "energy_per_token", ENERGY_PER_TOKEN, "lower", lambda s: _over(s.power_W, s.serving.throughput_tok_s),
        "power of all GPUs over the output tokens: an upper bound, since GPUs that wait draw less", needs="power",
    ),
    _serve(
        "price_error", SCALAR, "", lambda s: s.serving.prices_error,
        "largest error of a step's price that was interpolated, where it was checked", share=True,
    ),
)  # fmt: skip


def _train(name: str, dim: Dim, better: str, how: How, about: str, **where: object) -> Metric:
    return Metric(TRAIN, name, dim, better, about, how, **where)  # type: ignore[arg-type]


_TRAININGS: tuple[Metric, ...] = (
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
        "cost_per_token", MONEY_PER_TOKEN, "lower", lambda s: _over(s.price_per_s, s.step.throughput_tok_s),
        "price of its GPUs over its throughput", needs="price",
    ),
    _train("gpus", SCALAR, "", lambda s: s.gpus, "GPUs of the phase"),
)  # fmt: skip

_HARDWARE: tuple[Metric, ...] = (
    Metric(HARDWARE, "gpus", SCALAR, "", "GPUs in the pool", lambda s: float(s.hardware.gpus)),
    Metric(HARDWARE, "per_node", SCALAR, "", "GPUs in a node", lambda s: float(s.hardware.per_node)),
    Metric(
        HARDWARE, "compute", FLOP_RATE, "", "peak of a GPU in the model's dtype",
        lambda s: s.hardware.peak_flops(s.spec.model.dtype),
    ),
    Metric(
        HARDWARE, "mfu", SCALAR, "", "share of the compute peak that kernels reach", lambda s: s.hardware.mfu, share=True
    ),
    Metric(HARDWARE, "memory", BYTES, "", "memory of a GPU", lambda s: s.hardware.memory_B),
    Metric(
        HARDWARE, "memory.peak", BYTES, "lower", "what the fullest GPU stores, all phases together",
        lambda s: max((pool.peak_B for pool in s.held), default=0.0), pooled=True,
    ),
    Metric(
        HARDWARE, "memory.fraction", SCALAR, "lower", "the peak over the memory of a GPU",
        lambda s: max((pool.fraction for pool in s.held), default=0.0), share=True, pooled=True,
    ),
    Metric(HARDWARE, "hbm", BYTE_RATE, "", "memory bandwidth of a GPU", lambda s: s.hardware.hbm_Bps),
    Metric(
        HARDWARE, "mbu", SCALAR, "", "share of the memory bandwidth that kernels reach", lambda s: s.hardware.mbu,
        share=True,
    ),
    Metric(HARDWARE, "launch", TIME, "", "time to launch a kernel", lambda s: s.hardware.launch_s),
    Metric(
        HARDWARE, "price", MONEY_RATE, "", "money for a GPU over time", lambda s: s.hardware.price_per_s, needs="price"
    ),
    Metric(HARDWARE, "power", POWER, "", "what a GPU draws at most", lambda s: s.hardware.power_W, needs="power"),
    Metric(HARDWARE, "disk", BYTE_RATE, "", "what a host reads from its storage", lambda s: s.hardware.disk_Bps, needs="disk"),
    Metric(HARDWARE, "reserve", BYTES, "", "memory that the runtime keeps", lambda s: s.hardware.reserve_B),
)  # fmt: skip

_REST: tuple[Metric, ...] = (
    Metric(MODEL, "params_total", SCALAR, "", "parameters, counted from the blocks", lambda s: s.params[0]),
    Metric(MODEL, "params_active", SCALAR, "", "parameters that a token uses", lambda s: s.params[1]),
    Metric(MODEL, "params", SCALAR, "", "parameters as stated", lambda s: s.spec.model.params_stated),
    Metric(MODEL, "layers", SCALAR, "", "layers between embedding and head", lambda s: float(s.spec.model.layers)),
    Metric(WORKLOAD, "sequences", SCALAR, "", "sequences in the batch", lambda s: float(s.spec.workload.sequences)),
    Metric(WORKLOAD, "prompt", TOKENS, "", "prompt tokens per sequence", lambda s: float(s.spec.workload.prompt)),
    Metric(WORKLOAD, "output", TOKENS, "", "generated tokens per sequence", lambda s: float(s.spec.workload.output)),
)

TABLE: tuple[Metric, ...] = (*_PHASES, *_SERVINGS, *_TRAININGS, *_HARDWARE, *_REST)
"""In addition, `model.` has every attribute of the model (`model.experts.count`), and constants go by their name."""


def of_phase() -> tuple[Metric, ...]:
    """Those of a phase."""
    return tuple(m for m in TABLE if m.owner == PHASE)


def of_serving() -> tuple[Metric, ...]:
    """Those of a serving."""
    return tuple(m for m in TABLE if m.owner == SERVE)


def of_training() -> tuple[Metric, ...]:
    """Those of a phase that trains."""
    return tuple(m for m in TABLE if m.owner == TRAIN)


def metric(name: str) -> Metric | None:
    """What is known of a name as written in a spec: `decode.memory.peak`. What both phases and servings or pools have is taken for a
    phase's: its dimension is the same."""
    owner, _, rest = name.partition(".")
    owners = (owner,) if owner in (HARDWARE, MODEL, WORKLOAD) else (PHASE, SERVE, TRAIN, HARDWARE)
    return next((m for o in owners for m in TABLE if m.name == rest and m.owner == o), None)


def shown(name: str, value: float) -> str:
    """A value of a metric with its unit."""
    found = metric(name)
    return found.shown(value) if found is not None else show(value)


def meant_metric(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help for an unknown metric: the one that is meant, and where all are listed."""
    names = list(known)
    several = [n for n in names if n.startswith(f"{word}.")]
    if several:
        return f"it has several figures: {', '.join(f'`{n}`' for n in several[:6])}", "`dagc list metrics` shows all"
    from ..base.suggest import did_you_mean
    from ..base.synonyms import OF_METRICS

    owner, _, rest = word.partition(".")
    called = next((f"{owner}.{name}" for name in OF_METRICS.get(rest.lower(), ()) if f"{owner}.{name}" in names), None)
    if called:
        return f"did you mean `{called}`?", "`dagc list metrics` shows all"
    tails = [n for n in names if n.partition(".")[2] == word or n.endswith(f".{word}")]
    near = did_you_mean(word, names) or (tails[0] if tails else None)
    some = [n for n in names if n.startswith(f"{owner}.")] or [n for n in names if metric(n)]
    common = [n for n in some if (m := metric(n)) is not None and m.usual]
    found = metric(word)
    mine = {m.owner for n in names if n.startswith(f"{owner}.") and (m := metric(n)) is not None}
    if found is not None and found.owner == SERVE and mine == {PHASE}:
        example = next((n for n in names if n.partition(".")[2] == found.name), f"NAME.{found.name}")
        hint = f"`{found.name}` is a metric of a serving, `serve NAME {{ ... }}`: `{example}`"
        return hint, "`dagc list metrics` shows all"
    if found is not None and mine:  # or of another kind of phase
        what = "serving" if SERVE in mine else "phase"
        return f"`{found.name}` is not a metric of this {what}: {found.about}", "`dagc list metrics` shows all"
    hint = f"did you mean `{near}`?" if near else f"metrics: {', '.join((common or some)[:6])}, ..."
    return hint, "`dagc list metrics` shows all"
