"""Whether the best of several layouts is found.

A series: rows of one file of equal model, GPU, engine, precision (of both labels), lengths and requests in flight, and of
an equal number of GPUs, with two layouts or more. Runs of one layout count as their median. Best: the least TPOT. A series with
a layout that no spec can say is not ranked, and counts as wrong.

`series`: layouts as the file labels them, versions of the engine pooled; `doubts` says what else its runs differ in. `as_run`:
layouts as they ran (`run_degrees.py`), and one stated version of the engine.
"""

from __future__ import annotations

import csv
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TypeVar

from .case import Layout
from .catalog import Catalog
from .run_degrees import ran, stated
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
OTHER_GPUS = "another number of GPUs"
NO_VERSION = "no version, so no degrees of experts"
VERSIONS = "versions"
NEAR = 0.05
SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Series:
    """`measured_s`: TPOT by layout (tp, pp, dp, expert-tp, ep); `rows`: names of its runs. `drafts`: the model has layers of its
    own to draft tokens. `doubts`: what its runs differ in beside the layout. `version`: of the engine, of all its runs."""

    what: tuple[str, ...]
    gpus: int
    drafts: bool
    measured_s: Mapping[tuple[int, ...], float]
    rows: Mapping[tuple[int, ...], tuple[str, ...]]
    doubts: tuple[str, ...] = ()
    version: str = ""


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


@dataclass(frozen=True, slots=True)
class _Run:
    key: tuple[str, ...]
    model: str
    said: Layout
    ran: Layout
    version: str
    tpot_s: float
    name: str


def series(file: Path, catalog: Catalog) -> list[Series]:
    """The series of a CSV of servings, as it labels them; aggregated runs only."""
    return [
        Series(
            key, gpus, catalog.drafts(runs[0].model), _medians(layouts), _names(layouts), tuple(_doubts(layouts))
        )
        for (key, gpus), runs in _grouped(_runs(file), lambda run: (run.key, run.said.gpus)).items()
        if len(layouts := _grouped(runs, lambda run: _degrees(run.said))) > 1
    ]  # fmt: skip


def as_run(file: Path, catalog: Catalog) -> list[Series]:
    """The series of layouts as they ran, with one version of the engine."""
    stating = [run for run in _runs(file) if run.version]
    return [
        Series(
            key, gpus, catalog.drafts(runs[0].model), _medians(layouts), _names(layouts), version=version
        )
        for (key, gpus, version), runs in _grouped(stating, lambda run: (run.key, run.ran.gpus, run.version)).items()
        if len(layouts := _grouped(runs, lambda run: _degrees(run.ran))) > 1
    ]  # fmt: skip


def _runs(file: Path) -> list[_Run]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            _Run(
                tuple(row[name].rsplit("/", 1)[-1] for name in EQUAL), row["model_path"], stated(row), ran(row),
                row["backend_version"], float(row["measured_tpot_ms"]) * 1e-3, f"{file.stem} {number}",
            )
            for number, row in enumerate(csv.DictReader(lines))
            if row["mode"] == "agg" and row["concurrency"] and row["measured_tpot_ms"]
        ]  # fmt: skip


def _degrees(layout: Layout) -> tuple[int, ...]:
    return layout.tp, layout.pp, layout.dp, layout.moe_tp or 1, layout.ep or 1


K = TypeVar("K")


def _grouped(runs: Iterable[_Run], key: Callable[[_Run], K]) -> dict[K, list[_Run]]:
    found: dict[K, list[_Run]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return found


def _medians(layouts: Mapping[tuple[int, ...], Sequence[_Run]]) -> dict[tuple[int, ...], float]:
    return {layout: median(run.tpot_s for run in runs) for layout, runs in layouts.items()}


def _names(layouts: Mapping[tuple[int, ...], Sequence[_Run]]) -> dict[tuple[int, ...], tuple[str, ...]]:
    return {layout: tuple(run.name for run in runs) for layout, runs in layouts.items()}


def _doubts(layouts: Mapping[tuple[int, ...], Sequence[_Run]]) -> Iterator[str]:
    if len({run.ran.gpus for runs in layouts.values() for run in runs}) > 1:
        yield OTHER_GPUS
    versions = [{run.version for run in runs} for runs in layouts.values()]
    if {""} in versions:
        yield NO_VERSION
    elif not set.intersection(*versions) - {""}:
        yield VERSIONS


def names(found: Iterable[Series]) -> set[str]:
    """Rows that are in any series."""
    return {name for one in found for rows in one.rows.values() for name in rows}


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
    """The table: all series, those whose models cannot speculate, each doubt's and engine's."""
    every = [*(r.series for r in found), *unsaid]
    kinds: dict[str, Callable[[Series], bool]] = {"all": lambda s: True}
    kinds["models without layers that draft"] = lambda s: not s.drafts
    if any(s.doubts for s in every):
        kinds |= {f"runs differ in: {doubt}": partial(_doubted, doubt) for doubt in (OTHER_GPUS, NO_VERSION, VERSIONS)}
        kinds["runs differ in the layout alone, as far as rows say"] = lambda s: not s.doubts
        kinds["the same, models without layers that draft"] = lambda s: not s.doubts and not s.drafts
    kinds |= {engine: partial(_of_engine, engine) for engine in sorted({s.what[0] for s in every})}
    body = [
        rows(name, [r for r in found if holds(r.series)], [s for s in unsaid if holds(s)])
        for name, holds in kinds.items()
        if any(holds(s) for s in every)
    ]
    return table(HEAD, body)


def _doubted(doubt: str, one: Series) -> bool:
    return doubt in one.doubts


def _of_engine(engine: str, one: Series) -> bool:
    return one.what[0] == engine


def details(found: Sequence[Ranked], unsaid: Sequence[Series]) -> str:
    """Every series: layouts, measured and estimated TPOT, and what else its runs differ in."""

    def name(at: tuple[int, ...]) -> str:
        tp, pp, dp, moe_tp, ep = at
        return f"tp{tp}{f' pp{pp}' if pp > 1 else ''}{f' dp{dp}' if dp > 1 else ''}, experts tp{moe_tp} ep{ep}"

    body = []
    for r in found:
        times = "; ".join(
            f"{name(at)}: {s * 1e3:.1f} ({r.predicted_s[at] * 1e3:.1f})"
            for at, s in sorted(r.series.measured_s.items(), key=lambda item: item[1])
        )
        body.append(_line(r.series, times, "yes" if r.right else f"no, {r.regret:+.1%}"))
    body += [_line(s, "; ".join(map(name, s.measured_s)), "not expressed") for s in unsaid]
    doubted = any(line[-1] for line in body)
    head = ("series", "GPUs", "TPOT in ms, measured (estimated), best first", "right", "differ also in")
    return table(head if doubted else head[:-1], sorted(line if doubted else line[:-1] for line in body))


def _line(one: Series, times: str, right: str) -> tuple[str, ...]:
    return _what(one), str(one.gpus), times, right, ", ".join(one.doubts)


def _what(one: Series) -> str:
    engine, model, gpu, precision, _, _, isl, osl, concurrency = one.what
    version = f" {one.version}" if one.version else ""
    return f"{engine}{version}, {model}, {gpu}, {precision}, {isl}/{osl}, {concurrency} in flight"
