"""Fits the exchanges across nodes: tables of calls on several nodes, and published times of other clusters.

Every source has the same say, however many rows it has. Errors are of rows that a fit did not see, and of whole sources.
"""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from .. import cluster_exchange
from ..cluster_exchange import KINDS, SMS, LowLatency, Throughput
from ..family import US, Bounds
from ..shape import Floats

FOLDS, STARTS = 5, 6
OUTLIER, RIDGE = 0.07, 0.02
DISPATCH_B, COMBINE_B = 1 + 4 / 128, 2.0
"""Bytes of an element: fp8 with a scale of 4 bytes a 128 elements, and bf16."""
TABLE = "table of SGLang"
TABLE_LINK_Bps = 50e9
"""Of the cluster of the tables: 400 Gbit/s a GPU."""


@record
class Call:
    """One measured exchange. `fit`: not `yes` of other kernels than those that are fitted, to compare with. `reach`: nodes
    that its routing lets a token reach."""

    source: str
    fit: str
    kernel: str
    tokens: float
    hidden: float
    top_k: float
    nodes: float
    sms: float
    reach: float
    link_Bps: float
    latency_us: float


def read(published: Path, tables: Sequence[Path]) -> list[Call]:
    """Calls of the published file, and of every deepep_sglang.csv among the folders `tables`."""
    with published.open(encoding="utf-8", newline="") as file:
        calls = [call(row) for row in csv.DictReader(file)]
    for folder in tables:
        if (folder / "deepep_sglang.csv").exists():
            with (folder / "deepep_sglang.csv").open(encoding="utf-8", newline="") as file:
                calls += [_table_call(row) for row in csv.DictReader(file) if float(row["node_num"]) > 1]
    return calls


def call(row: Mapping[str, str]) -> Call:
    sizes = (float(row[field.name]) for field in fields(Call)[3:])
    return Call(row["source"], row["fit"], row["kernel"], *sizes)


def _table_call(row: Mapping[str, str]) -> Call:
    kernel = f"{row['comm_backend'].removeprefix('deepep_')}_{row['phase']}"
    tokens, hidden, top_k, nodes, sms = (
        float(row[name]) for name in ("num_tokens", "hidden_size", "topk", "node_num", "sms")
    )
    us = float(row["latency_us"])
    return Call(TABLE, "yes", kernel, tokens, hidden, top_k, nodes, sms or SMS, np.inf, TABLE_LINK_Bps, us)


def _bounds(kernel: str) -> dict[str, Bounds]:
    plain = {"launch_s": (25 * US, US, 150 * US), "step_s": (10 * US, 0.5 * US, 80 * US), "efficiency": (0.9, 0.3, 1.0)}
    if kernel.startswith("ll"):
        return plain
    return plain | {
        "sm_Bps": (3e9, 0.3e9, 50e9), "own": (3.0, 0.1, 20.0), "crowd": (5.0, 3.5, 20.0), "crowding": (4.0, 1.0, 8.0),
        "sharpness": (3.0, 1.2, 12.0),
    }  # fmt: skip


def estimate_s(kernel: str, constants: LowLatency | Throughput, calls: Sequence[Call]) -> Floats:
    """Seconds of each call."""
    row_B = [each.hidden * (DISPATCH_B if kernel.endswith("dispatch") else COMBINE_B) for each in calls]
    tokens, top_k, nodes, sms, reach, link = (
        np.array([getattr(each, name) for each in calls])
        for name in ("tokens", "top_k", "nodes", "sms", "reach", "link_Bps")
    )
    return cluster_exchange.time_s(constants, tokens, row_B, top_k, nodes, link, sms=sms, reach=reach)


def relative_error(kernel: str, constants: LowLatency | Throughput, calls: Sequence[Call]) -> Floats:
    """|estimate / measurement - 1| of each call."""
    return np.abs(estimate_s(kernel, constants, calls) / (np.array([each.latency_us for each in calls]) * US) - 1)


def fit(kernel: str, calls: Sequence[Call]) -> LowLatency | Throughput:
    """Constants of one kernel. Needs scipy."""
    from scipy.optimize import least_squares

    kind, bounds = KINDS[kernel.split("_")[0]], _bounds(kernel)
    guess, least, greatest = np.log(np.array(list(bounds.values()))).T
    target = np.log(np.array([each.latency_us for each in calls]) * US)
    count = Counter(each.source for each in calls)
    weight = np.sqrt([len(calls) / len(count) / count[each.source] for each in calls])

    def constants(x: NDArray[np.float64]) -> LowLatency | Throughput:
        return kind(**dict(zip(bounds, np.exp(x).tolist(), strict=True)))

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        missed = weight * (np.log(estimate_s(kernel, constants(x), calls)) - target)
        return np.append(missed, RIDGE * (x - guess))

    rng, best = np.random.default_rng(0), None
    for start in range(STARTS):
        first = np.clip(guess + (rng.normal(0, 0.4, len(guess)) if start else 0.0), least + 1e-6, greatest - 1e-6)
        found = least_squares(residual, first, bounds=(least, greatest), loss="soft_l1", f_scale=OUTLIER, max_nfev=400)
        best = found if best is None or found.cost < best.cost else best
    assert best is not None
    return kind(**dict(zip(bounds, [float(f"{each:.5g}") for each in np.exp(best.x)], strict=True)))


def fit_kernel(kernel: str, calls: Sequence[Call]) -> dict[str, Any]:
    """One kernel, as its calibration file says it: constants fitted on all calls, errors by fits that saw less."""
    fold = [zlib.crc32(f"{kernel} {index}".encode()) % FOLDS for index in range(len(calls))]
    error = np.empty(len(calls))
    for out in range(FOLDS):
        kept = [each for each, at in zip(calls, fold, strict=True) if at != out]
        unseen = [index for index, at in enumerate(fold) if at == out]
        error[unseen] = relative_error(kernel, fit(kernel, kept), [calls[index] for index in unseen])
    left_out = {}
    for source in dict.fromkeys(each.source for each in calls):
        rest = [each for each in calls if each.source != source]
        if len(rest) >= len(_bounds(kernel)):
            own = [each for each in calls if each.source == source]
            left_out[source] = round(float(np.median(relative_error(kernel, fit(kernel, rest), own))), 4)
    found = fit(kernel, calls)
    median, p90 = (round(float(np.quantile(error, q)), 4) for q in (0.5, 0.9))
    return {
        "constants": {field.name: getattr(found, field.name) for field in fields(found)},
        "error": {"median": median, "p90": p90, "rows": len(calls)},
        "left_out": left_out,
    }
