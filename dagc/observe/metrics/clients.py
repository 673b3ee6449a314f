"""Metrics of requests that a client saw one by one: exact."""

from __future__ import annotations

import numpy as np

from ...serving.result import Limits, kept_limits, spread
from .csv_files import Requests
from .figures import Figure


def figures(requests: Requests, limits: Limits) -> dict[str, Figure]:
    """Metric -> what the file shows. `limits`: what a request must keep for goodput. A time that a file does not have follows from the others."""
    found = dict(requests.columns)
    ttft, tpot, e2e, output = (found.get(name) for name in ("ttft_s", "tpot_s", "e2e_s", "output"))
    if ttft is not None and output is not None:
        more = np.where(output > 1, output - 1, np.nan)
        if tpot is None and e2e is not None:
            found["tpot_s"] = tpot = np.maximum(e2e - ttft, 0.0) / more
        elif e2e is None and tpot is not None:
            found["e2e_s"] = e2e = ttft + np.where(output > 1, tpot * (output - 1), 0.0)
    out: dict[str, Figure] = {}

    def put(metric: str, value: float) -> None:
        if np.isfinite(value):
            out[f"SERVE.{metric}"] = Figure.exact(float(value), requests.name)

    for name in ("ttft", "tpot", "e2e"):
        column = found.get(f"{name}_s")
        if column is not None:
            times = spread(column[np.isfinite(column)])
            for of in ("mean", "p50", "p90", "p99"):
                put(f"{name}.{of}", getattr(times, f"{of}_s"))
    ended = np.isfinite(e2e if e2e is not None else ttft if ttft is not None else found["tpot_s"])
    put("finished", float(ended.sum()))
    put("requests", float(len(ended)))
    arrival = found.get("arrival_s")
    if arrival is not None and e2e is not None and ended.any():
        whole = float((arrival + e2e)[ended].max() - arrival[np.isfinite(arrival)].min())
        put("duration", whole)
        if whole > 0:
            put("rate", ended.sum() / whole)
            for metric, name in (("throughput", "output"), ("prompt_throughput", "prompt")):
                if name in found:
                    put(metric, float(np.nansum(found[name][ended])) / whole)
            if limits.any and all(
                f"{name}_s" in found for name in ("ttft", "tpot", "e2e") if getattr(limits, f"{name}_s") is not None
            ):
                good = ended.copy()
                for kept in kept_limits(found, limits).values():
                    good &= kept
                put("goodput", good.sum() / whole)
                put("met", good.mean())
    prompt, cached = found.get("prompt"), found.get("cached")
    if prompt is not None and cached is not None and float(np.nansum(prompt)) > 0:
        put("hit_rate", float(np.nansum(cached) / np.nansum(prompt)))
    return out
