"""What a serving in steady state measures, from the phases of compiled plans. docs/accuracy.md states the model.

Two halves: `parts` asks for the compiled steps of a serving, and knows no fitted constant; `figure` puts an engine's
constants to them. So a fit, or a refit without a model or a GPU, compiles nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .case import Deployment, Estimate, Inexpressible, Point
from .classes import ATTENTION
from .estimate import Estimates
from .published import Serving

FITTED = ("host_ms", "launch_ms", "request_ms")
"""The free constants of an engine, fitted on one half of the servings."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Fitted: `host_s`, of every step; `launch_s`, of every layer of a step that no CUDA graph covers (one with prompt
    tokens); `request_s`, of every request (front end, tokens, scheduling)."""

    host_s: float = 0.0
    launch_s: float = 0.0
    request_s: float = 0.0

    @staticmethod
    def of(name: str, constants: Mapping[str, Any]) -> Constants:
        return Constants(*(constants[key][name] * 1e-3 for key in FITTED))


@dataclass(frozen=True, slots=True)
class Engine:
    """Known: `mixed`: prompt tokens join decode steps; else a prefill runs as a separate step. `step_tokens`: prompt
    tokens that a rank takes in one step. `memory_share`: of a GPU, that the engine fills. `most_sequences`: that a rank
    runs at once. `waves`: requests that a benchmark sends, over those in flight."""

    mixed: bool
    step_tokens: int
    memory_share: float
    most_sequences: int
    waves: float

    @staticmethod
    def of(name: str, constants: Mapping[str, Any]) -> Engine:
        entry = constants["engines"][name]
        return Engine(
            entry["prefill"] == "mixed", entry["step_tokens"], entry["memory_share"], entry["most_sequences"],
            constants["waves"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """Compiled figures of a serving. Seconds of the GPUs alone: `step_s` of a decode step; `mixed_s` of a step that holds
    prompt tokens too (of a prefill where the engine runs them apart); `alone_s` of one request's prefill, in `chunks`
    steps. `mixed_steps`: of those per decode step. `prefill_s`: what the prefill of one request takes of a rank.
    `bound`: the figure at datasheet peaks: no run of the same plan takes less time, or has a higher rate. `limited`:
    memory has room for fewer sequences than are in flight. `phase_s`: of the compiled phase alone; None where the figure
    is of no one phase, and `phase`, its point, too. `busy_s`: what a request's prefill keeps the GPUs busy for at the least; 0 where it is not asked."""

    metric: str
    bound: float
    layers: int = 0
    step_s: float = 0.0
    mixed_s: float = 0.0
    mixed_steps: float = 0.0
    alone_s: float = 0.0
    chunks: int = 0
    prefill_s: float = 0.0
    batch: int = 1
    wanted: int = 1
    together: int = 1
    osl: int = 1
    tokens: float = 0.0
    rate: float = 0.0
    limited: bool = False
    phase_s: float | None = None
    busy_s: float = 0.0
    phase: Point | None = None


@dataclass(frozen=True, slots=True)
class Predicted:
    """A figure, and what it came from."""

    value: float
    parts: Parts


def predict(serving: Serving, engine: Engine, fitted: Constants, estimates: Estimates) -> Predicted:
    """The figure that the serving's metric names."""
    found = parts(serving, engine, estimates)
    return Predicted(figure(found, engine, fitted), found)


def parts(serving: Serving, engine: Engine, estimates: Estimates) -> Parts:
    """What the serving's figure comes from. Raises Inexpressible, and NotYet while a step is not compiled."""
    ask = Steps(engine, estimates)
    if serving.metric == "input_rate":
        return _input_rate(serving, ask)
    if serving.metric == "decode_rate":
        return _decode_rate(serving, ask)
    if serving.static_batch:
        return _static(serving, ask)
    if serving.concurrency is None and not serving.saturated:
        raise Inexpressible("concurrency not stated")
    return _split(serving, ask) if serving.disaggregated else _aggregated(serving, ask)


@dataclass(frozen=True, slots=True)
class Steps:
    """Compiled steps."""

    engine: Engine
    estimates: Estimates

    def prefill(self, deployment: Deployment, per_rank: int, tokens: int) -> Estimate:
        """`per_rank` prompts on each attention rank."""
        return self.estimates.ask(_point(deployment, "prefill", per_rank, tokens))

    def decode(self, deployment: Deployment, per_rank: int, context: int) -> Estimate:
        return self.estimates.ask(_point(deployment, "decode", per_rank, context))

    def chunks(self, tokens: int) -> int:
        return math.ceil(tokens / self.engine.step_tokens)

    def layers(self, deployment: Deployment) -> int:
        return self.estimates.layers(deployment.model)


def _point(deployment: Deployment, kind: str, per_rank: int, tokens: int) -> Point:
    return Point(deployment, kind, per_rank * deployment.layout.dp, tokens)


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


def _aggregated(serving: Serving, ask: Steps) -> Parts:
    """Prefill and decode on the same GPUs, a fixed number of requests in flight."""
    plan, engine = serving.decode, ask.engine
    in_flight = serving.concurrency
    context = serving.isl + max(1, serving.osl // 2)
    one = ask.prefill(plan, 1, serving.isl)
    batch = _held(ask, plan, None if in_flight is None else math.ceil(in_flight / plan.layout.dp), context, one)
    wanted = batch if in_flight is None else math.ceil(in_flight / plan.layout.dp)
    step = ask.decode(plan, batch, context)
    # Prompts that share a step: as many as end in one step on average, as far as the step's tokens go.
    together = max(1, min(engine.step_tokens // serving.isl, batch // serving.osl))
    first = ask.prefill(plan, together, serving.isl)
    chunks = ask.chunks(serving.isl * together)
    # A mixed step reads the weights once: it takes the prefill and decode's attention, in place of a decode step.
    mixed_s = first.time_s / chunks + (step.of(ATTENTION) if engine.mixed else 0.0)
    common = Parts(
        serving.metric, step.floor_s, ask.layers(plan), step.time_s, mixed_s,
        # While a request makes its tokens, each other one of its rank is replaced once: that many prefills interleave.
        (batch - 1) / together / serving.osl * chunks,
        one.time_s, ask.chunks(serving.isl), first.time_s / together, batch, wanted, together, serving.osl,
        limited=batch < wanted, phase_s=step.time_s, busy_s=one.floor_s / plan.layout.dp,
        phase=_point(plan, "decode", batch, context),
    )  # fmt: skip
    if serving.metric == "tpot":
        return common
    if serving.metric == "output_rate":
        tokens = batch * plan.layout.dp / serving.gpus  # a step
        return replace(common, bound=tokens / step.floor_s, tokens=tokens, phase_s=None, busy_s=0.0, phase=None)
    return replace(common, bound=one.floor_s, phase_s=one.time_s, phase=_point(plan, "prefill", 1, serving.isl))


def _split(serving: Serving, ask: Steps) -> Parts:
    """Prefill and decode on GPUs of their own; the transfer of the KV cache is not stated and left out."""
    assert serving.concurrency is not None
    plan = serving.decode
    wanted = max(1, math.ceil(serving.concurrency / (plan.layout.dp * serving.decode_workers)))
    context = serving.isl + max(1, serving.osl // 2)
    batch = _held(ask, plan, wanted, context, ask.decode(plan, wanted, context))
    step = ask.decode(plan, batch, context)
    one = ask.prefill(serving.prefill, 1, serving.isl)
    common = Parts(
        "tpot", step.floor_s, ask.layers(plan), step.time_s, 0.0, 0.0, one.time_s, ask.chunks(serving.isl), one.time_s,
        batch, wanted, 1, serving.osl, limited=batch < wanted, phase_s=step.time_s,
        busy_s=one.floor_s / (serving.prefill.layout.dp * serving.prefill_workers),
        phase=_point(plan, "decode", batch, context),
    )  # fmt: skip
    if serving.metric == "tpot":
        return common
    ranks = serving.prefill_workers * serving.prefill.layout.dp
    return replace(
        common, metric="ttft_split", bound=one.floor_s, rate=serving.concurrency / ranks, phase_s=one.time_s,
        phase=_point(serving.prefill, "prefill", 1, serving.isl),
    )  # fmt: skip


def _static(serving: Serving, ask: Steps) -> Parts:
    """A batch that starts together: one prefill, then its decode steps."""
    plan = serving.decode
    per_rank = max(1, serving.static_batch // plan.layout.dp)
    first = ask.prefill(plan, per_rank, serving.isl)
    common = Parts(
        serving.metric, first.floor_s, ask.layers(plan), alone_s=first.time_s, chunks=1, osl=serving.osl,
        batch=per_rank,
    )  # fmt: skip
    if serving.metric == "ttft_static":
        return common
    step = ask.decode(plan, per_rank, serving.isl + max(1, serving.osl // 2))
    common = replace(common, step_s=step.time_s)
    if serving.metric == "request":
        return replace(common, bound=first.floor_s + (serving.osl - 1) * step.floor_s)
    tokens = per_rank * plan.layout.dp / serving.gpus  # a step
    return replace(common, metric="static_rate", bound=tokens / step.floor_s, tokens=tokens)


def _input_rate(serving: Serving, ask: Steps) -> Parts:
    """Prefill alone, with `tokens_per_gpu` prompt tokens per GPU and step; where none are stated, what the engine takes."""
    plan = serving.prefill
    tokens_per_rank = serving.tokens_per_gpu * plan.layout.tp or ask.engine.step_tokens
    per_rank = max(1, tokens_per_rank // serving.isl)
    first = ask.prefill(plan, per_rank, serving.isl)
    tokens = per_rank * plan.layout.dp * serving.isl / serving.gpus
    return Parts("input_rate", tokens / first.floor_s, ask.layers(plan), alone_s=first.time_s, chunks=1, tokens=tokens)


def _decode_rate(serving: Serving, ask: Steps) -> Parts:
    """Decode alone, at the stated batch of each GPU and the mean context (`isl`)."""
    assert serving.concurrency is not None
    plan = serving.decode
    step = ask.decode(plan, max(1, serving.concurrency // plan.layout.dp), serving.isl)
    tokens = serving.concurrency / serving.gpus
    return Parts("decode_rate", tokens / step.floor_s, ask.layers(plan), step.time_s, tokens=tokens)


def figure(p: Parts, engine: Engine, c: Constants) -> float:
    """The figure, with an engine's constants: seconds, or tokens per second and GPU."""
    launched_s = p.layers * c.launch_s  # gaps of a step that no CUDA graph covers
    alone_s = p.alone_s + p.chunks * (launched_s + c.host_s)
    if p.metric in ("ttft_static", "request", "static_rate"):
        total_s = alone_s + (p.osl - 1) * (p.step_s + c.host_s)
        return (
            p.tokens * p.osl / total_s
            if p.metric == "static_rate"
            else alone_s
            if p.metric == "ttft_static"
            else total_s
        )
    if p.metric == "input_rate":
        return p.tokens / alone_s
    step_s = p.step_s + c.host_s
    if p.metric == "decode_rate":
        return p.tokens / step_s
    mixed_s = p.mixed_s + launched_s + c.host_s
    if engine.mixed:
        tpot_s = step_s + min(p.mixed_steps, 1.0) * max(mixed_s - step_s, 0.0)
    else:
        tpot_s = step_s + p.mixed_steps * mixed_s
    if p.metric == "tpot":
        return tpot_s
    if p.metric == "output_rate":
        return p.tokens * p.osl / (p.osl * tpot_s + p.prefill_s + launched_s)
    if p.metric == "ttft_split":
        rate = p.rate / (p.osl * tpot_s + alone_s)
        busy = min(0.95, rate * alone_s)
        return c.request_s + alone_s * (1 + busy / (2 * (1 - busy)))
    # Arrivals at random find the step before unfinished and other prompts waiting (M/D/1); the requests of the first
    # of `waves` rounds start at once, and wait for half of the others.
    first_s = alone_s if p.together == 1 else p.prefill_s * p.together + launched_s + c.host_s
    prefills = (p.batch - 1) / p.together / p.osl  # a token
    busy = min(0.95, prefills * first_s / tpot_s)
    all_s = (p.batch - 1) / p.together * first_s
    queue_s = min(busy * first_s / (2 * (1 - busy)), all_s / 2) + all_s / 2 / engine.waves
    beyond_s = (p.wanted - p.batch) / p.batch * (p.osl * tpot_s + alone_s)  # more in flight than memory has room for
    return c.request_s + alone_s + step_s / 2 * (p.batch > 1) + queue_s + beyond_s
