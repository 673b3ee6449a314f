"""Results of the engines' own benchmark clients: `vllm bench serve`, `sglang.bench_serving`, AIPerf and GenAI-Perf."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ...base.files import Unreadable, read_bytes
from ...base.foreign_lines import TraceError
from ...serving.result import spread
from .figures import Figure
from .sources import sources

MOST_BYTES = 64_000_000
"""Of a file of results, with the times of every token of thousands of requests."""
SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "us": 1e-6, "ns": 1e-9}


class _Twice(ValueError):
    """One object has a key twice."""


def objects(path: Path) -> list[Mapping[str, Any]]:
    """The JSON objects of a file: one, or one a line. Raises TraceError."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except Unreadable as error:
        raise TraceError(path, 0, f"cannot be read: {error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TraceError(path, 0, "it is not UTF-8 text") from None
    try:
        found = [_parsed(text)]
    except (ValueError, RecursionError):
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    found.append(_parsed(line))
                except _Twice:
                    raise TraceError(path, number, "an object has a key twice") from None
                except (ValueError, RecursionError):
                    raise TraceError(path, number, "it is not JSON") from None
    if not found or not all(isinstance(one, dict) for one in found):
        raise TraceError(path, 0, "it is no JSON object")
    return found


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def is_results(one: Mapping[str, Any]) -> bool:
    """Has it a number that is known?"""
    return any(_number(one, row.key) is not None for row in sources().benchmark)


def figures(one: Mapping[str, Any], name: str) -> dict[str, Figure]:
    """Metric -> what one result says; exact percentiles of its lists where it has them."""
    out: dict[str, Figure] = {}
    for row in sources().benchmark:
        value = _number(one, row.key)
        if value is not None and row.metric not in out:
            scale = SECONDS.get(str(_at(one, row.unit)), row.scale) if row.unit else row.scale
            out[row.metric] = Figure.exact(value * scale, f"{name}: {row.key}")
    for key, metric in sources().lists.items():
        values = [value for value in _flat(one.get(key)) if value > 0]  # requests that failed have 0
        if values:
            times = spread(np.fromiter(values, dtype=np.float64))
            for of in ("mean", "p50", "p90", "p99"):
                out.setdefault(f"{metric}.{of}", Figure.exact(float(getattr(times, f"{of}_s")), f"{name}: {key}"))
    prompt, duration = _number(one, "total_input_tokens"), _number(one, "duration")
    if prompt is not None and duration:
        out["SERVE.prompt_throughput"] = Figure.exact(prompt / duration, f"{name}: total_input_tokens")
    return out


def _at(one: Mapping[str, Any], path: str) -> Any:
    value: Any = one
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(one: Mapping[str, Any], path: str) -> float | None:
    """A finite one that is not negative."""
    value = _at(one, path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < float("inf") else None


def _flat(values: Any) -> list[float]:
    """Numbers of a list, or of a list of lists: nothing where anything else is in it."""

    def each() -> Iterator[float]:
        for value in values:
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, bool) or not isinstance(item, int | float) or not isfinite(item) or item < 0:
                    raise ValueError
                yield float(item)

    try:
        return list(each()) if isinstance(values, list) else []
    except ValueError:
        return []
