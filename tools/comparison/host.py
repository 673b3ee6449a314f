"""The fit of the engines' host constants, and predictions with constants that knew nothing of a model, GPU or engine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from .catalog import CONSTANTS
from .serving import FITTED, Constants
from .servings import Case, Fitted, Outcome, outcomes

HOST_MS = tuple(0.25 * i for i in range(17))
LAUNCH_MS = tuple(0.025 * i for i in range(33))
REQUEST_MS = tuple(5.0 * i for i in range(61))


def fit(found: Iterable[Case], engines: Iterable[str]) -> dict[str, Constants]:
    """By engine: `host_s` and `launch_s` for the least mean |log ratio| of TPOT, then `request_s` for that of TTFT. Rows
    that may speculate do not count. An engine without rows gets the mean of the others."""
    kept = [c for c in found if c.without_doubt and not c.serving.static_batch]
    fitted: dict[str, Constants] = {}
    for engine in engines:
        of = {m: [c for c in kept if c.name == engine and c.serving.metric == m] for m in ("tpot", "ttft")}
        if not of["tpot"] or not of["ttft"]:
            continue
        steps = [Constants(host * 1e-3, launch * 1e-3) for host in HOST_MS for launch in LAUNCH_MS]
        best = _least(of["tpot"], steps)
        fitted[engine] = _least(of["ttft"], [replace(best, request_s=ms * 1e-3) for ms in REQUEST_MS])
    return {engine: fitted[engine] if engine in fitted else _mean(fitted.values()) for engine in engines}


def _least(rows: Sequence[Case], tried: Sequence[Constants]) -> Constants:
    return min(tried, key=lambda c: fmean(abs(math.log(row.ratio(c))) for row in rows))


def _mean(found: Iterable[Constants]) -> Constants:
    each = list(found)
    if not each:
        raise ValueError("no serving to fit a constant on")
    return Constants(
        fmean(c.host_s for c in each), fmean(c.launch_s for c in each), fmean(c.request_s for c in each)
    )  # fmt: skip


def left_out(found: Sequence[Case], engines: Sequence[str], group: Callable[[Case], str]) -> list[Outcome]:
    """Every case, predicted with constants fitted on the cases of the other groups alone."""
    done: list[Outcome] = []
    for name in sorted({group(c) for c in found}):
        fitted: Fitted = fit((c for c in found if group(c) != name), engines)
        done += outcomes((c for c in found if group(c) == name), fitted)
    return done


def store(fitted: Fitted) -> None:
    """Put the fitted constants into the data file."""
    text = CONSTANTS.read_text(encoding="utf-8")
    for key in FITTED:
        start = text.index(f'"{key}": {{')
        end = text.index("}", start) + 1
        values = {engine: round(getattr(c, key.replace("_ms", "_s")) * 1e3, 3) for engine, c in fitted.items()}
        text = f'{text[:start]}"{key}": {json.dumps(values)}{text[end:]}'
    CONSTANTS.write_text(text, encoding="utf-8")


def stored(constants: Mapping[str, Mapping[str, float]]) -> dict[str, Constants]:
    """The constants of the data file, by engine."""
    return {engine: Constants.of(engine, constants) for engine in constants["engines"]}
