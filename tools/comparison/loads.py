"""What traffic a measured serving had: the words of a `serve` section that describe its benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagc.spec.serve import Arrivals, Lengths

from .case import Inexpressible
from .published import Serving

ROUNDS = 10
"""Requests that a closed loop sends, over its clients."""
SEED = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """Shares of the stated length between which a benchmark draws, uniformly."""

    low: float
    high: float


def words(serving: Serving, conventions: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `dagc.spec.serve.Serve`. Raises Inexpressible where the load is not stated."""
    if serving.static_batch:
        per_rank = max(1, serving.static_batch // serving.decode.layout.dp)
        return _lengths(serving, Spread(1, 1)) | {
            "arrivals": Arrivals("burst"), "requests": serving.static_batch, "prompts": "first", "slots": per_rank,
            "batch_tokens": per_rank * serving.isl, "chunk": serving.isl,
        }  # fmt: skip
    if serving.saturated:
        stated = conventions["saturated_requests"].get(f"{serving.isl}/{serving.osl}")
        if stated is None:
            raise Inexpressible("the number of requests of a finite run is not known")
        return _lengths(serving, Spread(1, 1)) | {"arrivals": Arrivals("burst"), "requests": stated}
    if serving.concurrency is None:
        raise Inexpressible("concurrency not stated")
    closed = Arrivals("closed", clients=serving.concurrency)
    return _lengths(serving, spread(serving, conventions)) | {
        "arrivals": closed, "requests": ROUNDS * serving.concurrency, **_workers(serving), **_attention_dp(serving, conventions),
    }  # fmt: skip


def _workers(serving: Serving) -> dict[str, int]:
    """How many there are of each kind, where prefill and decode are apart."""
    return (
        {"workers": serving.decode_workers, "prefill_workers": serving.prefill_workers} if serving.disaggregated else {}
    )


def _attention_dp(serving: Serving, conventions: Mapping[str, Any]) -> dict[str, Any]:
    """What the script of a sweep sets where attention is data parallel and one worker does all: no row says it."""
    if not swept(serving, conventions) or serving.disaggregated or serving.decode.layout.dp == 1:
        return {}
    by_model: Mapping[str, dict[str, Any]] = conventions["swept_attention_dp"].get(serving.where[2], {})
    return next((words for start, words in by_model.items() if serving.decode.model.startswith(start)), {})


def swept(serving: Serving, conventions: Mapping[str, Any]) -> bool:
    """Whether its lengths are those of the sweeps."""
    return f"{serving.isl}/{serving.osl}" in conventions["swept_lengths"]


def spread(serving: Serving, conventions: Mapping[str, Any]) -> Spread:
    """Of a sweep whose lengths say what it is, the share that its script draws from; else around the stated mean."""
    return Spread(*conventions["swept_spread" if swept(serving, conventions) else "other_spread"])


def _lengths(serving: Serving, share: Spread) -> dict[str, Any]:
    kind = "fixed" if share.low == share.high == 1 else "uniform"
    return {"lengths": Lengths(kind, serving.isl, serving.osl, share.low, share.high), "seed": SEED}
