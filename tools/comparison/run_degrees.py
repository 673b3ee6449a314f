"""Degrees of a sweep's rows as they ran: some are listed multiplied.

Runs on d GPUs whose experts are on d ranks are listed with the degrees of attention and of the experts multiplied: tp d² (or
dp d²) with experts tp d ep d, or, of vLLM, tp d dp d with ep d². `twins` counts the rows of that kind that are listed a second
time with plain degrees: same engine, GPU and load, and both figures.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .case import Layout

SAME = 1e-3
"""Both figures within this share of another row's: one run, listed twice."""
LOAD = ("backend", "system", "precision", "isl", "osl", "concurrency")
MULTIPLY_BOTH = ("vllm",)
"""Engines whose rows multiply attention's two degrees with one another."""


def whole(text: object) -> int:
    return int(float(str(text))) if text not in (None, "") else 0


def stated(row: Mapping[str, str], prefix: str = "") -> Layout:
    """As the row has them."""
    names = ("tp_size", "pp_size", "attention_dp_size", "moe_ep_size", "moe_tp_size")
    tp, pp, dp, ep, moe_tp = (whole(row[prefix + name]) for name in names)
    return Layout(tp or 1, pp or 1, dp or 1, ep, moe_tp)


def ran(row: Mapping[str, str]) -> Layout:
    """Of an aggregated row. Other sources leave attention's dp blank, and multiply nothing."""
    said = stated(row)
    tp, dp, ep, moe_tp = said.tp, said.dp, said.ep, said.moe_tp
    if not whole(row["attention_dp_size"]) or tp * dp != ep * moe_tp or tp * dp == 1:
        return said
    if moe_tp == ep and 1 in (tp, dp):
        return Layout(ep if tp > 1 else 1, said.pp, ep if dp > 1 else 1, ep, 1)
    if tp == dp and row["backend"] in MULTIPLY_BOTH:
        return Layout(tp, said.pp, 1, tp, 1)
    return said


@dataclass(frozen=True, slots=True)
class Twins:
    """Rows with multiplied degrees, and how many of them are listed plainly as well."""

    rows: int
    twice: int


def twins(file: Path) -> Twins:
    """Of a CSV of servings."""
    with file.open(newline="", encoding="utf-8") as lines:
        return of_rows(row for row in csv.DictReader(lines) if row["mode"] == "agg" and row["concurrency"])


def of_rows(rows: Iterable[Mapping[str, str]]) -> Twins:
    plain: dict[tuple[str, ...], list[tuple[Layout, tuple[float, float]]]] = defaultdict(list)
    multiplied = []
    for row in rows:
        run = tuple(float(row[f"measured_{name}_ms"] or 0) for name in ("ttft", "tpot"))
        found = (ran(row), (run[0], run[1]))
        load = tuple(row[name] for name in LOAD)
        if found[0] != stated(row):
            multiplied.append((load, *found))
        else:
            plain[load].append(found)
    twice = sum(
        any(layout == other and _same(run, again) for other, again in plain[load]) for load, layout, run in multiplied
    )
    return Twins(len(multiplied), twice)


def _same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(y > 0 and abs(x / y - 1) < SAME for x, y in zip(a, b, strict=True))
