"""The noise floor: how far repeats of one configuration are apart."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

Group = list[tuple[float, float]]
OTHER = ("row", "backend_version", "measured_ttft_ms", "measured_tpot_ms")
"""Columns that repeats may differ in."""
SAME = 1e-3
"""Both figures within this share of another row's: one run, listed twice."""


STATED = ("backend", "model_path", "system", "isl", "osl", "concurrency")
DEGREES = ("tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
"""Of one side: aggregated rows have one, disaggregated ones two, each with a number of workers."""


def repeats(file: Path, speculates: Callable[[str], bool]) -> list[Group]:
    """(TTFT, TPOT) of runs that differ in nothing but the engine's version and the day; two of them or more.

    Only rows that state everything: of what a row leaves blank, two may differ and pass for repeats. `speculates`: whether
    runs of a model may have drafted tokens, which no row states.
    """
    alike: dict[tuple[str, ...], Group] = defaultdict(list)
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if not states_everything(row) or speculates(row["model_path"]):
                continue
            key = tuple(value for name, value in row.items() if name not in OTHER)
            run = (float(row["measured_ttft_ms"] or 0), float(row["measured_tpot_ms"] or 0))
            if min(run) > 0 and not any(_same(run, other) for other in alike[key]):
                alike[key].append(run)
    return [group for group in alike.values() if len(group) > 1]


def states_everything(row: Mapping[str, str]) -> bool:
    """Model, GPU, engine, precision, lengths, requests in flight, all degrees, and the workers of either side."""
    wanted = [*STATED]
    if row.get("mode") == "disagg":
        wanted += [f"{side}_{name}" for side in ("prefill", "decode") for name in ("num_workers", *DEGREES)]
    else:
        wanted += DEGREES
    precise = row.get("precision") or (row.get("gemm_quant_mode") and row.get("moe_quant_mode"))
    return bool(precise) and all(row.get(name) not in (None, "", "0") for name in wanted)


def _same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(abs(x / y - 1) < SAME for x, y in zip(a, b, strict=True))


def deviations(values: Sequence[float]) -> list[float]:
    """The median of the others over each figure: what a model that knew them would be off by."""
    return [median([*values[:i], *values[i + 1 :]]) / value for i, value in enumerate(values)]


def ratios(groups: Sequence[Group]) -> dict[str, list[float]]:
    """`deviations` of all groups, by figure."""
    return {
        name: [ratio for group in groups for ratio in deviations([run[at] for run in group])]
        for at, name in enumerate(("TTFT", "TPOT"))
    }
