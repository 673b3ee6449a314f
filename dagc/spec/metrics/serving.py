"""The metrics of a serving."""

from __future__ import annotations

from typing import Any

from ...base.units import (
    BYTES,
    ENERGY_PER_TOKEN,
    MONEY_PER_REQUEST,
    MONEY_PER_TOKEN,
    REQUEST_RATE,
    REQUESTS,
    SCALAR,
    TIME,
    TOKEN_RATE,
    Dim,
)
from .metric import SERVE, How, Metric, per_unit

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

SERVINGS: tuple[Metric, ...] = (
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
        "cost_per_token", MONEY_PER_TOKEN, "lower", lambda s: per_unit(s.price_per_s, s.serving.throughput_tok_s),
        "price of all GPUs, busy or not, over the output tokens", needs="price",
    ),
    _serve(
        "cost_per_request", MONEY_PER_REQUEST, "lower", lambda s: per_unit(s.price_per_s, s.serving.rate_per_s),
        "price of all GPUs, busy or not, over the requests that end", needs="price",
    ),
    _serve(
        "energy_per_token", ENERGY_PER_TOKEN, "lower", lambda s: per_unit(s.power_W, s.serving.throughput_tok_s),
        "power of all GPUs over the output tokens: an upper bound, since GPUs that wait draw less", needs="power",
    ),
    _serve(
        "price_error", SCALAR, "", lambda s: s.serving.prices_error,
        "largest error of a step's price that was interpolated, where it was checked", share=True,
    ),
)  # fmt: skip
