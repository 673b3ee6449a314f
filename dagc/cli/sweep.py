"""`dagc sweep`: a spec under every combination of some params."""

from __future__ import annotations

import csv
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.harmless import in_json
from ..base.source import Source
from ..base.units import SCALAR, UNITS, Quantity, dim_name
from ..optimize.clusters import ClusterError
from ..optimize.point import SweepRow, Task
from ..optimize.points import points, sweep, sweep_on
from ..spec.metrics import meant_metric, metric, shown
from .arguments import at_least, spec_arguments
from .asked_cluster import check_cluster
from .common import settings, tell
from .manner import live

if TYPE_CHECKING:
    from ..spec.model import AttrValue

MOST = 1_000_000
"""Points of one sweep."""


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
        for row in _rows(tasks, args):
            if row.metrics and not any(r.metrics for r in rows):
                _chosen(args.metric, [row])  # a misspelt name is reported before all points are done
            rows.append(row)
            if live():
                print(f"\r{len(rows)} of {len(tasks)}", end="", file=sys.stderr, flush=True)
        if live():
            print("\r", end="", file=sys.stderr)
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
    from ..lang.load import load

    source = read_source(args.spec, args.allow_import)
    base = folder_of(args.spec)
    fixed = settings(args)
    domains: dict[str, Sequence[str]] = {}
    for text in args.over:
        name, sign, values = text.partition("=")
        if not sign or not name.strip() or not values.strip():
            raise SpecError([Diagnostic("E14", f"`--over {text}` is not of the form name=value,value")])
        if name.strip() in domains:
            raise SpecError([Diagnostic("E14", f"`--over {name.strip()}` is given twice; its values make one list")])
        domains[name.strip()] = [v.strip() for v in values.split(",")]
    if not domains:
        spec = load(source, Collector(), fixed, base, args.allow_import)
        for name, values in spec.domains.items():
            if name not in fixed:
                domains[name] = [str(v) if name in spec.alternatives else _text(v) for v in values]
    if not domains:
        help = ("dagc sweep SPEC --over k=1,2,4", "or give a param its domain: param k = 1 in [1, 2, 4]")
        raise SpecError([Diagnostic("E14", "there is nothing to sweep over", help=help)])
    count = prod(len(values) for values in domains.values())
    if count > MOST:
        raise SpecError([Diagnostic("E14", f"{count:,} points are more than {MOST:,}", help=("--over narrows them",))])
    if args.over:
        first = {**fixed, **{name: values[0] for name, values in domains.items()}}
        _declared(source, first, base, args.allow_import)
    place, phases = None if base is None else str(base), tuple(args.phase)
    made = (tuple({**fixed, **point}.items()) for point in points(domains))
    allowed = tuple(os.path.realpath(folder) for folder in args.allow_import)
    named = tuple(dict.fromkeys(name.partition(".")[0] for name in args.metric))  # of servings: these are simulated
    return [Task(source.text, source.name, place, settings_, phases, allowed, named) for settings_ in made]


def _text(value: AttrValue) -> str:
    """A value of a domain as `--set` reads it."""
    if not isinstance(value, Quantity):
        return str(value).lower() if isinstance(value, bool) else f'"{value}"'
    units = sorted(((f, u) for u, (f, dim) in UNITS.items() if dim == value.dim and u != "%"), reverse=True)
    for factor, unit in units if value.dim != SCALAR else ():
        if value.value >= factor and float(f"{value.value / factor:.6g}") * factor == value.value:
            return f"{value.value / factor:.6g} {unit}"
    number = str(int(value.value)) if value.value == int(value.value) else repr(value.value)
    return number if value.dim == SCALAR else f"{number} {dim_name(value.dim)}"


def _declared(source: Source, settings: Mapping[str, str], base: Path | None, allowed: Sequence[str]) -> None:
    """Params that the spec does not declare are reported once, not at every point."""
    from ..lang.load import load

    try:
        load(source, Collector(), settings, base, allowed)
    except SpecError as error:
        undeclared = [d for d in error.diagnostics if d.code == "E14" and "no such param" in d.message]
        if undeclared:
            raise SpecError([replace(d, message=d.message.replace("--set", "--over")) for d in undeclared]) from None


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
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
