"""What a serving in steady state measures, from the phases of compiled plans. docs/accuracy.md states the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .case import Deployment, Estimate, Inexpressible, Point
from .classes import ATTENTION
from .estimate import Estimates
from .published import Serving

FITTED = ("host_ms", "request_ms")
"""The free constants of an engine, fitted on one half of the servings."""


@dataclass(frozen=True, slots=True)
class Engine:
    """`mixed`: prompt tokens join decode steps; else a prefill runs as a separate step. `step_tokens`: prompt tokens
    that a rank takes in one step. `memory_share`: of a GPU, that the engine fills. `most_sequences`: that a rank runs at once.
    `host_s`: overhead of every step, `request_s` of every request (front end, tokens, scheduling). `waves`: requests that a benchmark sends, over those in flight."""

    mixed: bool
    step_tokens: int
    memory_share: float
    most_sequences: int
    host_s: float
    request_s: float
    waves: float

    @staticmethod
    def of(name: str, constants: Mapping[str, Any], tried_ms: Mapping[str, float] | None = None) -> Engine:
        """`tried_ms` takes precedence over the fitted constants: `host_ms`, `request_ms`."""
        entry = constants["engines"][name]
        fitted = {key: constants[key][name] for key in FITTED} | dict(tried_ms or {})
        return Engine(
            entry["prefill"] == "mixed", entry["step_tokens"], entry["memory_share"], entry["most_sequences"],
            fitted["host_ms"] * 1e-3, fitted["request_ms"] * 1e-3, constants["waves"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Predicted:
    """`bound`: the figure at datasheet peaks, of one decode step or prefill: no run of the same plan takes less time, or
    has a higher rate. `limited`: memory has room for fewer sequences than are in flight. `phase_s`: of that step or prefill as
    it is compiled, and nothing else; None where the figure is of no one phase. `prefill_s`: what a request's prefill
    keeps the GPUs busy for at the least; 0 where it is not asked."""

    value: float
    bound: float
    limited: bool = False
    phase_s: float | None = None
    prefill_s: float = 0.0


def predict(serving: Serving, engine: Engine, estimates: Estimates) -> Predicted:
    """The figure that the serving's metric names."""
    ask = Steps(engine, estimates)
    if serving.metric == "input_rate":
        return _input_rate(serving, ask)
    if serving.static_batch:
        return _static(serving, ask)
    if serving.concurrency is None and not serving.saturated:
        raise Inexpressible("concurrency not stated")
    return _split(serving, ask) if serving.disaggregated else _aggregated(serving, ask)


@dataclass(frozen=True, slots=True)
class Steps:
    """Times of single steps, the host's part included."""

    engine: Engine
    estimates: Estimates

    def prefill(self, deployment: Deployment, per_rank: int, tokens: int) -> Estimate:
        """`per_rank` prompts on each attention rank."""
        return self.estimates.ask(Point(deployment, "prefill", per_rank * deployment.layout.dp, tokens))

    def decode(self, deployment: Deployment, per_rank: int, context: int) -> Estimate:
        return self.estimates.ask(Point(deployment, "decode", per_rank * deployment.layout.dp, context))

    def chunks_host_s(self, tokens: int) -> float:
        """Host overhead of a prefill: once per chunk."""
        return math.ceil(tokens / self.engine.step_tokens) * self.engine.host_s


def _held(ask: Steps, deployment: Deployment, wanted: int | None, context: int, first: Estimate) -> int:
    """Sequences that a rank runs at once, of those wanted (None: without limit). Weights, a prefill's work and the reserve
    come before the cache; the work of a decode step is less than a prefill's."""
    step = ask.decode(deployment, wanted or 1, context)
    free_B = step.capacity_B * ask.engine.memory_share - step.weights_B - first.work_B - step.reserve_B
    each_B = step.kv_cache_B / (wanted or 1)
    held = int(free_B / each_B) if each_B > 0 else ask.engine.most_sequences
    if held < 1:
        raise Inexpressible("the plan does not fit in memory")
    return min(wanted or held, held, ask.engine.most_sequences)


def _aggregated(serving: Serving, ask: Steps) -> Predicted:
    """Prefill and decode on the same GPUs, a fixed number of requests in flight."""
    plan, engine = serving.decode, ask.engine
    in_flight = serving.concurrency
    context = serving.isl + max(1, serving.osl // 2)
    one = ask.prefill(plan, 1, serving.isl)
    batch = _held(ask, plan, None if in_flight is None else math.ceil(in_flight / plan.layout.dp), context, one)
    wanted = batch if in_flight is None else math.ceil(in_flight / plan.layout.dp)
    step = ask.decode(plan, batch, context)
    step_s = step.time_s + engine.host_s
    # Prompts that share a step: as many as end in one step on average, as far as the step's tokens go.
    together = max(1, min(engine.step_tokens // serving.isl, batch // serving.osl))
    first = ask.prefill(plan, together, serving.isl)
    first_s = first.time_s + ask.chunks_host_s(serving.isl * together)
    chunks = math.ceil(serving.isl * together / engine.step_tokens)
    # While a request makes its tokens, each other one of its rank is replaced once: that many prefills interleave.
    prefills = (batch - 1) / together / serving.osl  # a token
    # A mixed step reads the weights once: it takes the prefill and decode's attention, in place of a decode step.
    saved_s = chunks * (step_s - step.of(ATTENTION)) if engine.mixed else 0.0
    tpot_s = step_s + prefills * max(first_s - saved_s, 0.0)
    if serving.metric == "tpot":
        return Predicted(tpot_s, step.floor_s, batch < wanted, step.time_s, one.floor_s / plan.layout.dp)
    if serving.metric == "output_rate":
        cycle_s = serving.osl * tpot_s + first_s / together
        tokens = batch * plan.layout.dp / serving.gpus  # a step
        return Predicted(tokens * serving.osl / cycle_s, tokens / step.floor_s, batch < wanted)
    alone_s = one.time_s + ask.chunks_host_s(serving.isl)
    # Arrivals at random find the step before unfinished and other prompts waiting (M/D/1); the requests of the first
    # of `waves` rounds start at once, and wait for half of the others.
    busy = min(0.95, prefills * first_s / tpot_s)
    all_s = (batch - 1) / together * first_s
    queue_s = min(busy * first_s / (2 * (1 - busy)), all_s / 2) + all_s / 2 / engine.waves
    beyond_s = (wanted - batch) / batch * (serving.osl * tpot_s + alone_s)  # more in flight than memory has room for
    ttft_s = engine.request_s + alone_s + step_s / 2 * (batch > 1) + queue_s + beyond_s
    return Predicted(ttft_s, one.floor_s, batch < wanted, one.time_s, one.floor_s / plan.layout.dp)


def _split(serving: Serving, ask: Steps) -> Predicted:
    """Prefill and decode on GPUs of their own; the transfer of the KV cache is not stated and left out."""
    assert serving.concurrency is not None
    plan, engine = serving.decode, ask.engine
    wanted = max(1, math.ceil(serving.concurrency / (plan.layout.dp * serving.decode_workers)))
    context = serving.isl + max(1, serving.osl // 2)
    batch = _held(ask, plan, wanted, context, ask.decode(plan, wanted, context))
    step = ask.decode(plan, batch, context)
    tpot_s = step.time_s + engine.host_s
    one = ask.prefill(serving.prefill, 1, serving.isl)
    prefill_s = one.floor_s / (serving.prefill.layout.dp * serving.prefill_workers)
    if serving.metric == "tpot":
        return Predicted(tpot_s, step.floor_s, batch < wanted, step.time_s, prefill_s)
    alone_s = one.time_s + ask.chunks_host_s(serving.isl)
    rate = serving.concurrency / (serving.osl * tpot_s + alone_s) / serving.prefill_workers
    busy = min(0.95, rate * alone_s / serving.prefill.layout.dp)
    ttft_s = engine.request_s + alone_s * (1 + busy / (2 * (1 - busy)))
    return Predicted(ttft_s, one.floor_s, batch < wanted, one.time_s, prefill_s)


def _static(serving: Serving, ask: Steps) -> Predicted:
    """A batch that starts together: one prefill, then its decode steps."""
    plan = serving.decode
    per_rank = max(1, serving.static_batch // plan.layout.dp)
    first = ask.prefill(plan, per_rank, serving.isl)
    first_s = first.time_s + ask.engine.host_s
    if serving.metric == "ttft_static":
        return Predicted(first_s, first.floor_s)
    step = ask.decode(plan, per_rank, serving.isl + max(1, serving.osl // 2))
    total_s = first_s + (serving.osl - 1) * (step.time_s + ask.engine.host_s)
    if serving.metric == "request":
        return Predicted(total_s, first.floor_s + (serving.osl - 1) * step.floor_s)
    tokens = per_rank * plan.layout.dp / serving.gpus  # a step
    return Predicted(tokens * serving.osl / total_s, tokens / step.floor_s)


def _input_rate(serving: Serving, ask: Steps) -> Predicted:
    """Prefill alone, with `tokens_per_gpu` prompt tokens per GPU and step."""
    plan = serving.prefill
    per_rank = max(1, serving.tokens_per_gpu * plan.layout.tp // serving.isl)
    first = ask.prefill(plan, per_rank, serving.isl)
    tokens = per_rank * plan.layout.dp * serving.isl
    return Predicted(tokens / (first.time_s + ask.engine.host_s) / serving.gpus, tokens / first.floor_s / serving.gpus)
