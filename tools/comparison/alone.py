"""Compiled phases of a serving, without traffic: what `dagc compile` prints of it, and bounds that no run can beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .case import Deployment, Estimate, Inexpressible, Point
from .estimate import Estimates
from .published import Serving

LARGEST_PROMPT_STEP = 8192
"""Tokens of a rank in a prefill alone where a record does not state them."""


@dataclass(frozen=True, slots=True)
class Alone:
    """`bound`: the figure at datasheet peaks: no run of the same plan takes less time, or has a higher rate. `phase_s`: of
    the compiled phase; None where the figure is of no one phase, and `phase`, its point, too. `busy_s`: what a request's
    prefill keeps the GPUs busy for at the least; 0 where it is not asked. `tokens`: of a step per GPU, of a rate of one
    kind of step."""

    bound: float
    phase_s: float | None = None
    phase: Point | None = None
    busy_s: float = 0.0
    tokens: float = 0.0


def alone(serving: Serving, engines: Mapping[str, Any], estimates: Estimates) -> Alone:
    """Of one figure. Raises Inexpressible, and NotYet while a step is not compiled."""
    ask = _Steps(engines[serving.where[2]], estimates)
    if serving.metric == "input_rate":
        return _input_rate(serving, ask)
    if serving.metric == "decode_rate":
        return _decode_rate(serving, ask)
    if serving.concurrency is None and not serving.saturated and not serving.static_batch:
        raise Inexpressible("concurrency not stated")
    plan = serving.decode
    per_rank = plan.layout.dp * max(1, serving.decode_workers)
    in_flight = serving.static_batch or serving.concurrency
    context = serving.isl + max(1, serving.osl // 2)
    one = ask.prefill(serving.prefill, 1, serving.isl)
    wanted = None if in_flight is None else math.ceil(in_flight / per_rank)
    first = ask.decode(plan, wanted or 1, context) if serving.disaggregated else one
    batch = ask.held(plan, wanted, context, first)
    step = ask.decode(plan, batch, context)
    busy_s = one.floor_s / (serving.prefill.layout.dp * max(1, serving.prefill_workers))
    if serving.static_batch:
        return _static(serving, ask, step)
    if serving.metric == "tpot":
        return Alone(step.floor_s, step.time_s, _point(plan, "decode", batch, context), busy_s)
    if serving.metric == "output_rate":
        return Alone(batch * plan.layout.dp / serving.gpus / step.floor_s)
    return Alone(one.floor_s, one.time_s, _point(serving.prefill, "prefill", 1, serving.isl), busy_s)


def _static(serving: Serving, ask: _Steps, step: Estimate) -> Alone:
    """A batch that starts together."""
    per_rank = max(1, serving.static_batch // serving.decode.layout.dp)
    first = ask.prefill(serving.decode, per_rank, serving.isl)
    if serving.metric == "ttft_static":
        return Alone(first.floor_s)
    if serving.metric == "request":
        return Alone(first.floor_s + (serving.osl - 1) * step.floor_s)
    return Alone(per_rank * serving.decode.layout.dp / serving.gpus / step.floor_s)


def _input_rate(serving: Serving, ask: _Steps) -> Alone:
    """Prefill alone, with `tokens_per_gpu` prompt tokens per GPU and step; where none are stated, what the engine takes."""
    plan = serving.prefill
    tokens_per_rank = serving.tokens_per_gpu * plan.layout.tp or LARGEST_PROMPT_STEP
    per_rank = max(1, tokens_per_rank // serving.isl)
    first = ask.prefill(plan, per_rank, serving.isl)
    tokens = per_rank * plan.layout.dp * serving.isl / serving.gpus
    return Alone(tokens / first.floor_s, first.time_s, tokens=tokens)


def _decode_rate(serving: Serving, ask: _Steps) -> Alone:
    """Decode alone, at the stated batch of each GPU and the mean context (`isl`)."""
    assert serving.concurrency is not None
    plan = serving.decode
    step = ask.decode(plan, max(1, serving.concurrency // plan.layout.dp), serving.isl)
    tokens = serving.concurrency / serving.gpus
    return Alone(tokens / step.floor_s, step.time_s, tokens=tokens)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Compiled steps. `engine`: what of a GPU it fills and how many sequences it takes."""

    engine: Mapping[str, Any]
    estimates: Estimates

    def prefill(self, deployment: Deployment, per_rank: int, tokens: int) -> Estimate:
        """`per_rank` prompts on each attention rank."""
        return self.estimates.ask(_point(deployment, "prefill", per_rank, tokens))

    def decode(self, deployment: Deployment, per_rank: int, context: int) -> Estimate:
        return self.estimates.ask(_point(deployment, "decode", per_rank, context))

    def held(self, deployment: Deployment, wanted: int | None, context: int, first: Estimate) -> int:
        """Sequences that a rank runs at once, of those wanted (None: without limit). Weights, a prefill's work and the
        reserve come before the cache; the work of a decode step is less than a prefill's."""
        step = self.decode(deployment, wanted or 1, context)
        free_B = step.capacity_B * self.engine["memory_share"] - step.weights_B - first.work_B - step.reserve_B
        each_B = step.kv_cache_B / (wanted or 1)
        most = int(self.engine["most_sequences"])
        held = int(free_B / each_B) if each_B > 0 else most
        if held < 1:
            raise Inexpressible("the plan does not fit in memory")
        return min(wanted or held, held, most)


def _point(deployment: Deployment, kind: str, per_rank: int, tokens: int) -> Point:
    return Point(deployment, kind, per_rank * deployment.layout.dp, tokens)
