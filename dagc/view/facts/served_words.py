"""A serving in words: its load, its rules, what came of it."""

from __future__ import annotations

from math import isfinite

from ...base.units import REQUEST_RATE, TIME, TOKEN_RATE, show
from ...serving import gaps
from ...serving.records import Switch
from ...serving.result import Limits, ServeResult, Spread
from ...serving.verdict import BACKLOGGED, OVERLOADED, STABLE
from ...spec.serve import Arrivals, Lengths, Serve

TIMES = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("E2E", "e2e"))
"""Times of a request, and the field of a result that has each."""
OF = {
    "ttft": "from arrival to the first token at the client",
    "tpot": "(E2E - TTFT) / (output - 1)",
    "itl": f"every gap (percentiles to {gaps.RESOLUTION:.1%})",
    "e2e": "from arrival to the last token",
}
"""What each time is."""


def per_second(rate: float) -> str:
    """`12.5 req/s`"""
    return show(rate, REQUEST_RATE)


def load_text(kind: str, load: float) -> str:
    """`64 clients`, `12 req/s`, `1.5 times its speed`"""
    if kind == "speed":
        return f"{load:g} times its speed"
    return f"{load:,.0f} client{'s' if load != 1 else ''}" if kind == "clients" else per_second(load)


def arrivals_text(arrivals: Arrivals) -> str:
    """When requests come."""
    rate = per_second(arrivals.rate_per_s)
    think = f", each after {show(arrivals.think_s, TIME)} of thought" if arrivals.think_s else ""
    speed = f" at {arrivals.speed:g} times its speed" if arrivals.speed != 1 else ""
    return {
        "poisson": f"Poisson arrivals, {rate}",
        "constant": f"evenly spaced arrivals, {rate}",
        "gamma": f"arrivals at {rate}, gaps of variation {arrivals.cv:g}",
        "closed": f"closed loop of {load_text('clients', arrivals.clients)}{think}",
        "burst": "all requests at once",
        "trace": f"trace {arrivals.path.name if arrivals.path else ''}{speed}",
    }.get(arrivals.kind, arrivals.kind)


def lengths_text(lengths: Lengths) -> str:
    """Tokens of prompts and outputs."""
    means = f"prompts of {lengths.prompt:,} tok, outputs of {lengths.output:,} tok"
    return {
        "fixed": means,
        "uniform": f"{means}, each {lengths.low:.0%} to {lengths.high:.0%} of it",
        "lognormal": f"{means} in the mean, lognormal with variation {lengths.cv:g}",
        "histogram": f"lengths from {lengths.path.name if lengths.path else 'a histogram'}",
        "trace": "lengths from the trace",
    }.get(lengths.kind, means)


def ends_text(serve: Serve) -> str:
    """What ends the run."""
    ends = [f"{serve.requests:,} request{'s' if serve.requests > 1 else ''}"] if serve.requests is not None else []
    ends += [f"{show(serve.duration_s, TIME)}"] if serve.duration_s is not None else []
    return " or ".join(ends)


def switch_text(serve: Serve, result: ServeResult) -> str:
    """How long a change of roles takes."""
    switch = result.setup.switch or Switch()
    if serve.switch_s is not None:
        return f"roles switch in {show(serve.switch_s, TIME)}"
    own = f"{show(switch.cost_s, TIME)} to decode, {show(switch.takes(decodes=False), TIME)} back"
    caches = f", caches {show(1000 * switch.per_token_s, TIME)} per 1,000 tok" if switch.per_token_s else ""
    return f"roles switch as weights and caches move: {own}{caches}"


def rules_text(serve: Serve, result: ServeResult) -> str:
    """How requests are scheduled."""
    apart = len(result.setup.workers) > 1
    prompts = f"up to {serve.chunk:,} tok of a prompt" if serve.chunk else "prompts not cut further"
    own = apart or serve.roles == "switch"
    mixed = "" if own else {"mixed": ", in decode steps", "first": ", before decode steps"}[serve.prompts]
    rest = []
    if serve.admit == "whole":
        rest.append("a request enters when all its output has room")
    if apart:
        rest.append(f"caches handed over {'whole' if serve.hand_over == 'whole' else 'chunk by chunk'}")
    if serve.roles == "switch":
        rest.append(switch_text(serve, result))
    if serve.preempt == "swap":
        rest.append("preempted caches go to the host")
    if serve.prefix_cache:
        rest.append("prefix cache" + (f", {serve.prefix:,} tok shared by all" if serve.prefix else ""))
    if serve.queue is not None:
        rest.append(f"at most {serve.queue:,} wait")
    if sum(workers.count * workers.engine.ranks for workers in result.setup.workers) > len(result.setup.workers):
        rest.append(
            {
                "round_robin": "ranks in turn",
                "least": "the least loaded rank",
                "prefix": "the rank with most of the prompt cached",
            }[serve.route]
        )
    waits = max(workers.engine.balance for workers in result.setup.workers)
    if waits:
        more = f", and {serve.gather:,} steps more" if serve.gather else ""
        rest.append(f"prompts wait up to {waits:,} steps until every rank has one{more}")
    request_s = result.setup.workers[0].engine.request_s
    if request_s:
        rest.append(f"{show(request_s, TIME)} of the host before a request enters the queue")
    steps = f"steps of up to {serve.batch_tokens:,} tok"
    policy = {"fcfs": "first come first served", "shortest": "shortest prompt first", "priority": "by priority"}[
        serve.policy
    ]
    return ", ".join([policy, f"{serve.slots:,} slots a rank", steps, f"{prompts}{mixed}", *rest])


def workers_text(result: ServeResult) -> str:
    """`4 prefill workers of 4 GPUs and 2 decode workers of 8 GPUs, 8 ranks each`"""
    parts = []
    for workers in result.setup.workers:
        role = "" if workers.role == "both" else f"{workers.role} "
        gpus = f"{workers.gpus} GPU{'s' if workers.gpus > 1 else ''}" + (
            f" of {workers.hardware}" if workers.hardware else ""
        )
        ranks = f" ({workers.engine.ranks} ranks in lockstep)" if workers.engine.ranks > 1 else ""
        parts.append(f"{workers.count} {role}worker{'s' if workers.count > 1 else ''} of {gpus}{ranks}")
    return " and ".join(parts)


def never_fit(result: ServeResult) -> str:
    """` (12 never fit into the cache)`, where some did not."""
    long = result.count("too_long")
    return f" ({long:,} never fit into the cache)" if long else ""


def per_user(result: ServeResult) -> str:
    """`, 45 tok/s per user`; empty where no request has a gap between tokens."""
    value = result.throughput_per_user_tok_s
    return f", {show(value, TOKEN_RATE)} per user" if isfinite(value) else ""


def verdict_text(result: ServeResult) -> str:
    """The verdict and its reason."""
    return f"{result.verdict}: {verdict_reason(result)}"


def verdict_reason(result: ServeResult) -> str:
    offered, served = result.offered_per_s, per_second(result.rate_per_s)
    known = result.arrivals.kind != "closed" and isfinite(offered)
    rates = (
        f"{per_second(offered)} offered, {served} over the run with its drain" if known else f"{served} over the run"
    )
    piled = result.growth
    if result.verdict == OVERLOADED:
        turned = result.count("rejected")
        if turned and not piled.overloaded:
            return f"{turned:,} of {result.arrived:,} requests were turned away{never_fit(result)}; {rates}"
        what = "requests end" if piled.whole else "first tokens come"
        return f"of the later half of the requests {piled.share:.0%} pile up, {what} at {piled.served:.0%} of the offered rate; {rates}"
    if result.arrivals.kind == "burst" and result.verdict == BACKLOGGED:
        return f"all requests came at once and were worked off; {rates}"
    if result.verdict == BACKLOGGED:
        return f"requests piled up, and the run ended before it was clear whether that goes on; {rates}"
    assert result.verdict == STABLE
    return rates


def limits_text(limits: Limits) -> str:
    """`TTFT <= 2 s, TPOT <= 50 ms`"""
    stated = [(name, getattr(limits, f"{field}_s", None)) for name, field in TIMES]
    return ", ".join(f"{name} <= {show(limit, TIME)}" for name, limit in stated if limit is not None)


def spread_row(values: Spread) -> tuple[str, ...]:
    """Mean and percentiles in words."""
    found = (values.mean_s, values.p50_s, values.p90_s, values.p99_s)
    return tuple("-" if value != value else show(value, TIME) for value in found)
