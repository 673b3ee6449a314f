"""Whether the best of several layouts is found: series of runs that differ in their layout alone, on as many GPUs.

A series: rows of one file of equal model, GPU, engine, precision (of both labels), lengths and requests in flight, and of
an equal number of GPUs, with two layouts or more. Versions of the engine are pooled, as no price knows them; runs of one layout count as their
median. Best: the least TPOT. A series with a layout that no spec can say is not ranked, and counts as wrong.
"""

from __future__ import annotations

import csv
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from .catalog import Catalog
from .servings import Outcome
from .statistics import quantile, table

EQUAL = (
    "backend",
    "model_path",
    "system",
    "precision",
    "gemm_quant_mode",
    "moe_quant_mode",
    "isl",
    "osl",
    "concurrency",
)
DEGREES = ("tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
NEAR = 0.05
SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Series:
    """`measured_s`: TPOT by layout; `rows`: names of its runs. `drafts`: the model has layers of its own to draft tokens."""

    what: tuple[str, ...]
    gpus: int
    drafts: bool
    measured_s: Mapping[tuple[int, ...], float]
    rows: Mapping[tuple[int, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A series with a choice. `regret`: the measured TPOT of the chosen layout over the best's, less one."""

    series: Series
    predicted_s: Mapping[tuple[int, ...], float]

    @property
    def chosen(self) -> tuple[int, ...]:
        return min(self.predicted_s, key=lambda at: self.predicted_s[at])

    @property
    def best(self) -> tuple[int, ...]:
        return min(self.series.measured_s, key=lambda at: self.series.measured_s[at])

    @property
    def right(self) -> bool:
        return self.chosen == self.best

    @property
    def regret(self) -> float:
        return self.series.measured_s[self.chosen] / self.series.measured_s[self.best] - 1


def series(file: Path, catalog: Catalog) -> list[Series]:
    """The series of a CSV of servings; aggregated runs only."""
    found: dict[tuple[str, ...], dict[tuple[int, ...], list[tuple[float, str]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    models: dict[tuple[str, ...], str] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            if row["mode"] != "agg" or not row["concurrency"] or not row["measured_tpot_ms"]:
                continue
            layout = tuple(int(float(row[name] or 1)) or 1 for name in DEGREES)
            gpus = math.prod(layout[:3])
            names = [row[name].rsplit("/", 1)[-1] for name in EQUAL]
            key = (*names, str(gpus))
            models[key] = row["model_path"]
            found[key][layout].append((float(row["measured_tpot_ms"]) * 1e-3, f"{file.stem} {number}"))
    return [
        Series(
            key[:-1],
            int(key[-1]),
            catalog.drafts(models[key]),
            {layout: median(value for value, _ in runs) for layout, runs in layouts.items()},
            {layout: tuple(name for _, name in runs) for layout, runs in layouts.items()},
        )
        for key, layouts in found.items()
        if len(layouts) > 1
    ]


def rank(found: Iterable[Series], predicted: Iterable[Outcome]) -> tuple[list[Ranked], list[Series]]:
    """Series with a choice, and those that have none, as a layout has no estimate."""
    tpot_s = {o.serving.row: o.value for o in predicted if o.serving.metric == "tpot"}
    ranked: list[Ranked] = []
    unsaid: list[Series] = []
    for one in found:
        of = {at: [tpot_s[row] for row in rows if row in tpot_s] for at, rows in one.rows.items()}
        if all(of.values()):
            ranked.append(Ranked(one, {at: median(values) for at, values in of.items()}))
        else:
            unsaid.append(one)
    return ranked, unsaid


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float], samples: int = SAMPLES) -> tuple[float, float]:
    """The 95 % interval of a mean, by resampling with a fixed seed."""
    draw = random.Random(0)
    means = sorted(fmean(draw.choices(values, k=len(values))) for _ in range(samples))
    return quantile(means, 0.025), quantile(means, 0.975)


def rows(name: str, found: Sequence[Ranked], unsaid: Sequence[Series]) -> tuple[str, ...]:
    """A row of the table: every series counts, also one without a choice (as wrong)."""
    n = len(found) + len(unsaid)
    right = sum(r.right for r in found)
    near = sum(r.regret <= NEAR for r in found)
    low, high = wilson(right, n)
    regret = [r.regret for r in found]
    between = bootstrap(regret) if regret else (0.0, 0.0)
    mean = fmean(regret) if regret else 0.0
    return (
        name, str(n), str(len(unsaid)), f"{right} ({right / n:.0%}, {low:.0%} to {high:.0%})", f"{near}",
        f"{mean:.1%} ({between[0]:.1%} to {between[1]:.1%})", f"{max(regret, default=0.0):.1%}",
    )  # fmt: skip


HEAD = (
    "series", "n", "not expressed", "right (95 % interval)", f"within {NEAR:.0%} of the best", "mean regret (95 % interval)", "worst",
)  # fmt: skip


def section(found: Sequence[Ranked], unsaid: Sequence[Series]) -> str:
    """The table: all series, and those whose models cannot speculate."""
    body = [rows("all", found, unsaid)]
    sure = [r for r in found if not r.series.drafts], [s for s in unsaid if not s.drafts]
    if any(sure):
        body.append(rows("models without layers that draft", *sure))
    for engine in sorted({r.series.what[0] for r in found} | {s.what[0] for s in unsaid}):
        body.append(
            rows(engine, [r for r in found if r.series.what[0] == engine], [s for s in unsaid if s.what[0] == engine])
        )
    return table(HEAD, body)


def details(found: Sequence[Ranked], unsaid: Sequence[Series]) -> str:
    """Every series: layouts as tp.pp.dp/moe_tp.ep, measured and estimated TPOT."""

    def name(at: tuple[int, ...]) -> str:
        tp, pp, dp, moe_tp, ep = at
        return f"tp{tp}{f' pp{pp}' if pp > 1 else ''}{f' dp{dp}' if dp > 1 else ''}, experts tp{moe_tp} ep{ep}"

    body = []
    for r in found:
        times = "; ".join(
            f"{name(at)}: {s * 1e3:.1f} ({r.predicted_s[at] * 1e3:.1f})"
            for at, s in sorted(r.series.measured_s.items(), key=lambda item: item[1])
        )
        body.append((_what(r.series), r.series.gpus, times, "yes" if r.right else f"no, {r.regret:+.1%}"))
    body += [(_what(s), s.gpus, "; ".join(map(name, s.measured_s)), "not expressed") for s in unsaid]
    return table(("series", "GPUs", "TPOT in ms, measured (estimated), best first", "right"), sorted(body))


def _what(one: Series) -> str:
    engine, model, gpu, precision, _, _, isl, osl, concurrency = one.what
    return f"{engine}, {model}, {gpu}, {precision}, {isl}/{osl}, {concurrency} in flight"
