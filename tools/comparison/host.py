"""The fit of the engines' constants, and predictions with constants that knew nothing of a model, GPU or engine.

A fit simulates little: every serving is run with the constants at hand and with each of them a little larger, and its figures are
taken as linear in between.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from .cache import ROOT
from .case import Inexpressible
from .runs import Runs
from .servings import Case, Fitted, Outcome
from .site import Constants

FILE = ROOT / "grammar" / "library" / "serving" / "engines.json"
"""The product's constants of engines, which this fit writes."""
NAMES = ("host_s", "request_s", "prompt_factor")
"""Of the constants, those that are fitted. `launch_s` stays as it is: fits of it came out as 0 beside a factor for prompts."""
KEYS = {"host_s": "host_ms", "launch_s": "launch_ms", "request_s": "request_ms", "prompt_factor": "prompt_factor"}
MORE = Constants(0.25e-3, 0.05e-3, 20e-3, 0.1)
"""By how much a constant is larger for its slope."""
FIRST = Constants(1e-3, 0.2e-3, 80e-3, 0.2)
FINEST = 32
"""Moves of the search: from `FIRST` to a share of it."""
LEAST = Constants(0.0, 0.0, 0.0, 1.0)
MOST_CLIENTS = 512
"""Larger closed loops take minutes to simulate several times: no constant is fitted on them."""
CLIP = 1.0
"""A row further off than this (in logarithms) is no further off: what its labels leave out is no constant of a host."""
TTFT_WEIGHT = 0.4
ROWS = 30
"""Figures of an engine on a GPU, TPOT and TTFT together, from which on it has constants of its own."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Estimate / measured of a case at `base`, and what one more second (or one) of each constant adds."""

    case: Case
    base: Constants
    ratio: float
    slopes: tuple[float, ...]

    def at(self, constants: Constants) -> float:
        """The ratio with other constants."""
        moves = (getattr(constants, name) - getattr(self.base, name) for name in NAMES)
        return max(1e-3, self.ratio + sum(slope * move for slope, move in zip(self.slopes, moves, strict=True)))


def linear(found: Iterable[Case], base: Fitted, runs: Runs) -> list[Linear]:
    """Of cases of closed loops without doubt: those that constants are fitted on."""
    kept = [
        c for c in found
        if c.without_doubt and not c.serving.static_batch and not c.serving.saturated and c.serving.metric in ("tpot", "ttft")
        and (c.serving.concurrency or 0) <= MOST_CLIENTS
    ]  # fmt: skip
    tried = [_around(c.of(base)) for c in kept]
    runs.settle(
        [j for c, each in zip(kept, tried, strict=True) for t in each if (j := c.with_constants(t)) is not None]
    )
    done: list[Linear] = []
    for case, each in zip(kept, tried, strict=True):
        ratios: list[float] = []
        for constants in each:
            job = case.with_constants(constants)
            assert job is not None
            run = runs.known[job]
            if isinstance(run, Inexpressible):
                break
            ratios.append(case.ratio(run, constants))
        if len(ratios) == len(each):
            slopes = tuple((r - ratios[0]) / getattr(MORE, name) for r, name in zip(ratios[1:], NAMES, strict=True))
            done.append(Linear(case, each[0], ratios[0], slopes))
    return done


def _around(base: Constants) -> list[Constants]:
    return [base, *(moved(base, name, getattr(MORE, name)) for name in NAMES)]


def moved(constants: Constants, name: str, by: float) -> Constants:
    """One of them changed, as far as it may be."""
    return replace(constants, **{name: max(getattr(LEAST, name), getattr(constants, name) + by)})


def fit(found: Iterable[Linear], engines: Iterable[str]) -> dict[str, Constants]:
    """By engine, and by engine and GPU where there are rows enough, for the least mean |log ratio| of TPOT and, with less weight, of
    TTFT. An engine without rows gets the mean of the others."""
    engines = tuple(engines)
    rows: dict[str, list[Linear]] = defaultdict(list)
    for row in found:
        rows[row.case.name].append(row)
        if row.case.group != row.case.name:
            rows[row.case.group].append(row)
    wanted = {name: each for name, each in rows.items() if _both(each) and (name in engines or len(each) >= ROWS)}
    fitted = {name: _least(each) for name, each in sorted(wanted.items())}
    known = [fitted[engine] for engine in engines if engine in fitted]
    return {**fitted, **{engine: _mean(known) for engine in engines if engine not in fitted}}


def _both(rows: Sequence[Linear]) -> bool:
    return {row.case.serving.metric for row in rows} == {"tpot", "ttft"}


def _least(rows: Sequence[Linear]) -> Constants:
    best = rows[0].base
    score = _score(rows, best)
    share = 1.0
    while share >= 1 / FINEST:
        found = True
        while found:
            found = False
            for name in reversed(NAMES):
                for sign in (1, -1):
                    tried = moved(best, name, sign * share * getattr(FIRST, name))
                    error = _score(rows, tried)
                    if error < score - 1e-7:
                        best, score, found = tried, error, True
        share /= 2
    return best


def _score(rows: Sequence[Linear], constants: Constants) -> float:
    errors: dict[str, list[float]] = {"tpot": [], "ttft": []}
    for row in rows:
        errors[row.case.serving.metric].append(min(CLIP, abs(math.log(row.at(constants)))))
    return fmean(errors["tpot"]) + TTFT_WEIGHT * fmean(errors["ttft"])


def _mean(found: Iterable[Constants]) -> Constants:
    each = list(found)
    if not each:
        raise ValueError("no serving to fit a constant on")
    return Constants(*(fmean(getattr(c, name) for c in each) for name in KEYS))


def left_out(found: Sequence[Linear], engines: Sequence[str], group: Callable[[Case], str]) -> list[Outcome]:
    """Every case with constants fitted on the cases of the other groups alone; figures are linear in the constants."""
    done: list[Outcome] = []
    for name, fitted in without(found, engines, group).items():
        for row in found:
            if group(row.case) == name:
                ratio = row.at(row.case.of(fitted))
                done.append(Outcome(row.case, ratio * row.case.serving.value))
    return done


def without(
    found: Sequence[Linear], engines: Sequence[str], group: Callable[[Case], str]
) -> dict[str, dict[str, Constants]]:
    """Constants by the group that they did not see."""
    names = sorted({group(row.case) for row in found})
    return {name: rounded(fit((row for row in found if group(row.case) != name), engines)) for name in names}


def rounded(fitted: Fitted) -> dict[str, Constants]:
    """To what the file says, so that equal constants are simulated once."""
    return {
        engine: Constants(
            round(c.host_s, 6), round(c.launch_s, 6), round(c.request_s, 4), round(c.prompt_factor, 3)
        )
        for engine, c in fitted.items()
    }  # fmt: skip


def store(fitted: Fitted) -> None:
    """Put the fitted constants into the product's file: an engine's, and under it those on a GPU."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    for engine, entry in data["engines"].items():
        entry |= _written(fitted[engine])
        entry["gpus"] = {name.split(" ")[1]: _written(c) for name, c in fitted.items() if name.startswith(f"{engine} ")}
    body = ",\n".join(f'    "{engine}": {json.dumps(entry)}' for engine, entry in data["engines"].items())
    others = "".join(
        f',\n  "{key}": {json.dumps(value)}' for key, value in data.items() if key not in ("about", "engines")
    )
    FILE.write_text(
        f'{{\n  "about": {json.dumps(data["about"])},\n  "engines": {{\n{body}\n  }}{others}\n}}\n', encoding="utf-8"
    )


def _written(constants: Constants) -> dict[str, float]:
    values = {key: getattr(constants, name) * (1e3 if key.endswith("_ms") else 1.0) for name, key in KEYS.items()}
    return {key: round(value, 6) for key, value in values.items()}


def stored(engines: Iterable[str]) -> dict[str, Constants]:
    """The constants of the product's file."""
    data: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["engines"]
    found = {engine: _read(data[engine]) for engine in engines}
    for engine in engines:
        found |= {f"{engine} {gpu}": _read(own) for gpu, own in data[engine].get("gpus", {}).items()}
    return found


def _read(entry: Mapping[str, Any]) -> Constants:
    values = {}
    for name, key in KEYS.items():
        found = float(entry.get(key, getattr(Constants(), name)))
        values[name] = found * 1e-3 if key.endswith("_ms") else found
    return Constants(**values)
