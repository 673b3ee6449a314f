"""`dagc sweep`: a spec under every combination of some params."""

from __future__ import annotations

import csv
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ..base.diagnostics import Diagnostic, SpecError
from ..base.harmless import in_json
from ..optimize.asked_cluster import check_cluster
from ..optimize.clusters import ClusterError
from ..optimize.point import SweepRow, Task
from ..optimize.points import sweep, sweep_on
from ..spec.metrics.known_metrics import metric, shown
from ..spec.metrics.meant import meant_metric
from .arguments import at_least, spec_arguments
from .common import settings, tell, width
from .manner import shown_progress


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="K=V,V",
        help="values of a param, or alternatives of a phase (repeatable; default: the domain of every param, every alternative)",
    )
    parser.add_argument(
        "--metric", action="append", default=[], metavar="M", help="metric to show, as in a require (repeatable)"
    )
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes (default: one per CPU; at most four)"
    )
    parser.add_argument(
        "--on", default="", metavar="URL", help="a cluster instead: dask://HOST:PORT or ray://HOST:PORT"
    )
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text", help="default: text")


def run(args: Namespace) -> int:
    try:
        tasks = _tasks(args)
        rows: list[SweepRow] = []
        with shown_progress() as told:
            for row in _rows(tasks, args):
                if row.metrics and not any(r.metrics for r in rows):
                    _chosen(args.metric, [row])  # a misspelt name is reported before all points are done
                rows.append(row)
                if told is not None:
                    told(f"{len(rows)} of {len(tasks)}")
        names = _chosen(args.metric, rows) if args.metric else _usual(rows)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    except ClusterError as error:
        tell([Diagnostic("E16", str(error))])
        return 2
    if args.format == "json":
        print(in_json(json.dumps([asdict(row) for row in rows], indent=1)))
    else:
        _table(rows, names, args.format)
    if all(row.errors for row in rows):
        return 2
    return 0 if any(row.passed for row in rows) else 1


def _tasks(args: Namespace) -> list[Task]:
    """The product of what --over names, or of the domains that the spec's params declare and the alternatives of its phases."""
    from ..base.syntax.input import folder_of, read_source
    from ..optimize.asked_points import tasks

    source = read_source(args.spec, args.allow_import)
    over: dict[str, Sequence[str]] = {}
    for text in args.over:
        name, sign, values = text.partition("=")
        if not sign or not name.strip() or not values.strip():
            raise SpecError([Diagnostic("E14", f"`--over {text}` is not of the form name=value,value")])
        if name.strip() in over:
            raise SpecError([Diagnostic("E14", f"`--over {name.strip()}` is given twice; its values make one list")])
        over[name.strip()] = [v.strip() for v in values.split(",")]
    return tasks(source, folder_of(args.spec), over, settings(args), args.phase, args.allow_import, args.metric)


def _rows(tasks: Sequence[Task], args: Namespace) -> Iterator[SweepRow]:
    if not args.on:
        return sweep(tasks, workers=args.workers)
    check_cluster(args.on)
    return sweep_on(args.on, tasks)


def _chosen(names: Sequence[str], rows: Sequence[SweepRow]) -> Sequence[str]:
    """The metrics that are asked for, each of them known where any point compiled."""
    known = dict.fromkeys(name for row in rows for name in row.metrics)
    for name in names:
        if known and name not in known:
            raise SpecError([Diagnostic("E14", f"no metric `{name}`", help=meant_metric(name, known))])
    return names


def _unit(name: str) -> str:
    """SI unit of a metric's column."""
    found = metric(name)
    return "" if found is None or found.share else found.unit


def _failed(row: SweepRow) -> str:
    """What a point fails for."""
    return "; ".join([*(() if row.fits else ("does not fit",)), *(f"fail: {text}" for text in row.failed)]) or "fail"


def _usual(rows: Sequence[SweepRow]) -> list[str]:
    """The columns that every sweep has, unless --metric names others."""
    known = dict.fromkeys(name for row in rows for name in row.metrics)
    return [name for name in known if (m := metric(name)) is not None and m.usual]


def _table(rows: Sequence[SweepRow], names: Sequence[str], kind: str) -> None:
    params = list(dict.fromkeys(name for row in rows for name in row.settings))
    head = [*params, *(f"{n} [{_unit(n)}]" if kind == "csv" and _unit(n) else n for n in names), "verdict"]
    lines = []
    for row in rows:
        verdict = row.errors[0] if row.errors else "pass" if row.passed else _failed(row)
        figure = (lambda n, v: f"{v:.6g}") if kind == "csv" else shown
        values = [figure(n, row.metrics[n]) if n in row.metrics else "" for n in names]
        lines.append([*(row.settings.get(p, "") for p in params), *values, verdict])
    if kind == "csv":
        csv.writer(sys.stdout).writerows([head, *lines])
        return
    from ..view.report.terminal_text import in_blocks

    room = width(sys.stdout) if sys.stdout.isatty() else sys.maxsize  # a row of a file stays a line
    for line in in_blocks([head, *lines], len(params), room):
        print(line)
