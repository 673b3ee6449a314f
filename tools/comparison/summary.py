"""The page, from the cases of a folder."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import (
    accuracy_page,
    goals,
    host,
    kernel_page,
    noise,
    open_loop,
    open_page,
    prose,
    published,
    ranking,
    run_degrees,
    stated_errors,
    static,
    unmeasured,
    unseen,
)
from . import kernel_rows as kernels
from .cache import Cache, scheduler
from .case import Inexpressible
from .catalog import Catalog
from .estimate import Estimates, catalog_of
from .kernel_rows import KernelCase
from .published import Refused, Serving
from .runs import Runs
from .servings import Case, Fitted, Outcome, cases, outcomes, ratios
from .static import Compared
from .statistics import error_table, quantile, table

SERVINGS = "measured_serving*.csv"
FITS = 3
"""Rounds of a fit: each takes figures as linear around the constants that the last one found."""


@dataclass(frozen=True, slots=True)
class Options:
    data: Path
    configs: Path | None = None
    only: str | None = None
    fit: bool = False
    write: bool = False
    list: Path | None = None
    workers: int | None = None
    cache: Path | None = None
    doubtful: bool = False


@dataclass
class Found:
    """Everything that the page shows."""

    compared: list[Compared]
    outcomes: list[Outcome]
    servings: list[Serving]
    refused: list[Refused]
    fitted: Fitted
    estimates: Estimates
    runs: Runs
    engines: Sequence[str] = ()
    kernels: list[KernelCase] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    series: list[ranking.Series] = field(default_factory=list)
    as_run: list[ranking.Series] = field(default_factory=list)
    offered: list[open_page.Simulated] = field(default_factory=list)


def gather(options: Options) -> Found:
    """Read the cases, compile their points, and predict."""
    catalog = catalog_of(options.configs)
    estimates = Estimates(options.configs, cache=None if options.cache is None else Cache.of(options.cache))
    runs = Runs(options.configs)
    if options.cache is not None:
        runs.cache = Cache.of(options.cache, "-steps")
        runs.done = Cache.of(options.cache, f"-{scheduler()}")
    if options.workers:
        estimates.workers = runs.workers = options.workers
    engines = tuple(catalog.constants["engines"])
    found = Found([], [], [], [], host.stored(engines), estimates, runs, engines)
    for file in [] if options.only else _files(options.data, "measured_*.json"):
        cases, unknown = kernels.read(file, catalog)
        found.kernels += cases
        found.refused += unknown
    if options.only != "serving":
        _static(options.data, catalog, estimates, found)
    if options.only != "static":
        _servings(options, catalog, estimates, found)
    return found


def _files(data: Path, pattern: str) -> list[Path]:
    return sorted([*data.glob(pattern), *data.glob(f"*/{pattern}")])


def _static(data: Path, catalog: Catalog, estimates: Estimates, found: Found) -> None:
    for file in _files(data, "e2e_static*.json"):
        points, unread = static.read(file, catalog)
        compared, unsaid = static.compare(points, estimates)
        found.compared += compared
        found.refused += [("e2e_static", error) for error in (*unread, *unsaid)]


def _servings(options: Options, catalog: Catalog, estimates: Estimates, found: Found) -> None:
    reads = [(file, published.read_csv) for file in _files(options.data, SERVINGS)]
    reads += [(file, published.read_records) for file in _files(options.data, "measured_*.json")]
    for file, read in reads:
        servings, refused = read(file, catalog)
        found.servings += servings
        found.refused += refused
    for file in _files(options.data, SERVINGS):
        found.series += ranking.series(file, catalog)
        found.as_run += ranking.as_run(file, catalog)
    chosen, left = sure(found.servings, [*found.series, *found.as_run], options.doubtful)
    found.refused += left
    done, refused = cases(chosen, estimates, found.runs, found.fitted, catalog.constants)
    found.cases += done
    found.refused += refused
    for _ in range(FITS if options.fit else 0):
        rows = host.linear((c for c in done if c.half == "tune"), found.fitted, found.runs)
        found.fitted = host.rounded(host.fit(rows, found.engines))
    if options.fit:
        host.store(found.fitted)
    found.outcomes += outcomes(done, found.fitted, found.runs)
    runs_read, unread = open_loop.read(options.data, catalog)
    found.offered, unsaid = open_page.simulated(runs_read, found.fitted, found.runs)
    found.refused += [*unread, *unsaid]


MAY_SPECULATE = (
    "may speculate: the model has layers that draft, and no row says whether they ran; in no series of layouts"
)


def sure(
    servings: Sequence[Serving], series: Sequence[ranking.Series], all_of_them: bool
) -> tuple[list[Serving], list[Refused]]:
    """Servings to simulate: without rows that may speculate, but for those whose layouts are compared."""
    compared = ranking.names(series)
    kept: list[Serving] = []
    left: list[Refused] = []
    for s in servings:
        if all_of_them or s.confidence or not s.speculative_layers or s.row in compared:
            kept.append(s)
        else:
            left.append((s.source, Inexpressible(MAY_SPECULATE)))
    return kept, left


def run(options: Options) -> str:
    """The page's text, or of one part of it."""
    found = gather(options)
    if options.list is not None:
        _write_list(options.list, found)
    wider = unmeasured.of(found.cases, found.estimates, options.cache)
    rows = host.linear(found.cases, found.fitted, found.runs)
    fitted_on = {id(row.case) for row in rows}
    in_series = ranking.names((*found.series, *found.as_run))
    doubtful = [c for c in found.cases if id(c) not in fitted_on and c.serving.row in in_series]
    apart = unseen.of(rows, doubtful, found.engines, (found.series, found.as_run), found.runs)
    if options.write:
        stated = stated_errors.of(found.outcomes, repeats_of(options), wider, apart.ratios)
        stated_errors.write(stated)
        kernel_page.PAGE.write_text(kernel_page.read(), encoding="utf-8")
    parts = [] if options.only else [prose.INTRO, prose.SOURCES, "## In short", in_short(found)]
    if found.outcomes and not options.only:
        goal_table = goals.section(apart, found.outcomes, found.offered, kernel_page.shipped())
        parts += ["### Goals", prose.GOALS, goal_table]
    if found.compared:
        parts += ["## Static estimates", prose.STATIC, accuracy_page.static_section(found.compared)]
    if found.kernels and not options.only:
        parts += ["## Kernels", prose.KERNELS, kernel_table(found.kernels)]
    if found.outcomes:
        parts += ["## Models, GPUs and engines that no constant saw", prose.UNSEEN]
        parts.append(unseen.section(apart, twins_of(options)))
        parts += ["## Phases alone", prose.PHASES, phase_table(found.outcomes)]
        parts += ["### GPUs that nobody measured", prose.UNMEASURED, unmeasured.section(wider)]
        parts += ["## Servings", prose.SERVING, fitted_text(found.fitted), serving_section(found, options)]
    if found.offered:
        parts += [
            "## Servings with arrivals of their own",
            prose.OFFERED,
            open_page.section(found.offered),
            prose.PEERS,
        ]
    parts += ["## What cannot be expressed", prose.REFUSED]
    if found.outcomes:
        parts.append(share_table(found))
    parts.append(accuracy_page.refused_table(found.refused))
    if not options.only:
        parts += [SAMPLE_TITLE, prose.SAMPLE, sample_table()]
    return "\n\n".join(parts) + "\n"


SAMPLE_TITLE = "## Sample"
SAMPLE_DATA = Path(__file__).parents[2] / "tests" / "data" / "accuracy"


def sample_table() -> str:
    """Errors over the cases in the tests."""
    return in_short(gather(Options(SAMPLE_DATA, SAMPLE_DATA / "configs", workers=1)), ("tune", "check"))


def in_short(found: Found, halves: Sequence[str] = ("check",)) -> str:
    """One row a source, step and figure; of servings, the half that no constant was fitted on."""
    groups: dict[str, list[float]] = {f"static {c.reference.point.kind}": [] for c in found.compared}
    for c in found.compared:
        groups[f"static {c.reference.point.kind}"].append(c.ratio)
    checked = [o for o in found.outcomes if o.half in halves]
    return error_table("figures", {**groups, **ratios(checked, lambda o: f"{_name(o)}, {o.serving.metric}")})


def phase_table(done: Sequence[Outcome]) -> str:
    """Errors of the compiled phase of every serving, by figure and by source."""
    alone = [o for o in done if o.phase_ratio is not None]
    groups: dict[str, list[float]] = defaultdict(list)
    for o in alone:
        assert o.phase_ratio is not None
        kind = "prefill, TTFT" if o.serving.metric == "ttft" else "decode step, TPOT"
        if o.case.without_doubt:
            groups[f"all without doubt: {kind}"].append(o.phase_ratio)
        groups[f"{_name(o)}: {kind}"].append(o.phase_ratio)
    return error_table("source, phase, figure", groups)


def kernel_table(cases: Sequence[KernelCase]) -> str:
    """One row per family and GPU."""
    groups: dict[str, list[float]] = {}
    for c in cases:
        groups.setdefault(f"{c.family}, {c.gpu}{'' if c.own else ' (scaled)'}", []).append(c.ratio)
    return error_table("family, GPU", dict(sorted(groups.items())))


def fitted_text(fitted: Fitted) -> str:
    """The fitted constants of each engine."""
    body = [
        (
            engine,
            f"{c.host_s * 1e3:g} ms",
            f"{c.launch_s * 1e6:g} us",
            f"{c.request_s * 1e3:g} ms",
            f"{c.prompt_factor:g}",
        )
        for engine, c in fitted.items()
    ]
    head = (
        "engine",
        "host, a step",
        "launches, a layer without a CUDA graph",
        "host, a request",
        "prompts, over their kernels",
    )
    return table(head, body)


def serving_section(found: Found, options: Options) -> str:
    done = found.outcomes
    tpot = [o for o in done if o.serving.metric == "tpot"]
    parts = []
    parts.append(error_table("source, figure", ratios(done, lambda o: f"{_name(o)}, {o.serving.metric}")))
    alone = [o for o in done if o.serving.metric in ("input_rate", "decode_rate")]
    if alone:
        parts += ["### Rates of prefill or decode alone", prose.RATES, rate_table(alone)]
    beside = [o for o in done if o.serving.peer is not None]
    if beside:
        parts += ["### Rows that come with another tool's prediction", error_table("tool, figure", _peers(beside))]
    parts += [
        "### TPOT by half, source and engine",
        error_table("half, source, engine", ratios(tpot, lambda o: f"{o.half}, {_name(o)}, {o.serving.where[2]}")),
        "### TPOT by GPU, model, engine",
        error_table("GPU, model, engine", ratios(tpot, lambda o: ", ".join(o.serving.where))),
        "### Noise floor",
        prose.NOISE,
        noise_table(repeats_of(options)),
    ]
    return "\n\n".join(parts)


def rate_table(found: Sequence[Outcome]) -> str:
    """Every record of a rate of one phase, per GPU."""
    body = [
        (
            o.serving.id, o.serving.confidence, o.serving.where[0], o.serving.where[2], o.serving.gpus,
            o.serving.decode.layout.ep, f"{o.serving.value:,.0f}", f"{o.value:,.0f}",
            f"{o.value / o.serving.value - 1:+.1%}",
        )
        for o in found
    ]  # fmt: skip
    head = ("record", "confidence", "GPU", "engine", "GPUs", "EP", "measured tok/s per GPU", "estimated", "error")
    return table(head, body)


def share_table(found: Found) -> str:
    """How many of the figures read could be expressed, by source."""
    lost: dict[str, int] = defaultdict(int)
    for source, _ in found.refused:
        lost[source.split(",")[0]] += 1
    said: dict[str, int] = defaultdict(int)
    for o in found.outcomes:
        said[o.serving.source] += 1
    body = [(name, f"{n:,}", f"{lost[name]:,}", f"{n / (n + lost[name]):.0%}") for name, n in sorted(said.items())]
    return table(("source", "figures estimated", "figures refused", "share"), body)


def _peers(found: Sequence[Outcome]) -> dict[str, list[float]]:
    """Ours and the other tool's ratios on the same rows."""
    ours = ratios(found, lambda o: f"dagc, {o.serving.metric}")
    theirs: dict[str, list[float]] = {}
    for outcome in found:
        s = outcome.serving
        assert s.peer is not None
        ratio = s.value / s.peer if s.metric.endswith("rate") else s.peer / s.value
        theirs.setdefault(f"the other tool, {s.metric}", []).append(ratio)
    return {**ours, **theirs}


def _name(outcome: Outcome) -> str:
    s = outcome.serving
    kind = "disaggregated" if s.disaggregated else "aggregated"
    unsure = not s.confidence and s.speculative_layers
    return f"{s.source}{' ' + s.confidence if s.confidence else ''}, {kind}{', may speculate' if unsure else ''}"


def repeats_of(options: Options) -> list[noise.Group]:
    """Runs of one configuration, of all files of servings."""
    catalog = catalog_of(options.configs)
    files = _files(options.data, SERVINGS)
    return [group for file in files for group in noise.repeats(file, catalog.drafts)]


def twins_of(options: Options) -> run_degrees.Twins:
    """Rows with multiplied degrees, of all files of servings."""
    found = [run_degrees.twins(file) for file in _files(options.data, SERVINGS)]
    return run_degrees.Twins(sum(each.rows for each in found), sum(each.twice for each in found))


def noise_table(groups: Sequence[noise.Group]) -> str:
    apart = sorted(max(tpot) / min(tpot) - 1 for tpot in ([run[1] for run in group] for group in groups))
    if not apart:
        return "No configuration was run twice."
    spread = f"TPOT, largest over smallest: median {quantile(apart, 0.5):.1%}, p90 {quantile(apart, 0.9):.1%} apart."
    found = {f"{name}, {len(groups)} configurations": each for name, each in noise.ratios(groups).items()}
    return f"{error_table('figure', found)}\n\n{spread}"


def _write_list(file: Path, found: Found) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        write = csv.writer(out).writerow
        write(["source", "figure", "gpu", "model", "engine", "plan", "work", "estimate", "measured", "ratio"])
        for c in found.compared:
            p = c.reference.point
            where = c.reference.where.split(", ")
            write(
                [
                    "e2e_static",
                    p.kind,
                    *where,
                    p.deployment.engine,
                    p.deployment.layout,
                    f"{p.sequences} x {p.tokens}",
                    f"{c.ours.time_s:.6g}",
                    f"{c.reference.time_s:.6g}",
                    f"{c.ratio:.4f}",
                ]
            )
        for o in found.outcomes:
            s = o.serving
            work = f"{s.isl}/{s.osl} c{s.concurrency or s.static_batch}"
            write(
                [
                    _name(o),
                    s.metric,
                    *s.where,
                    s.decode.layout,
                    work,
                    f"{o.value:.6g}",
                    f"{s.value:.6g}",
                    f"{o.ratio:.4f}",
                ]
            )
