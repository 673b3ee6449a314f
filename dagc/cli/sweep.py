"""`dagc sweep`: a spec under every combination of some params."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ..lang.diagnostics import Collector, Diagnostic, SpecError
from ..lang.units import Quantity
from ..sweep import Row, Task, points, sweep, sweep_dask
from .common import settings, tell

SHOWN = ("ttft", "tpot", "throughput_per_gpu", "memory.fraction")
"""Metrics of each phase in the table, unless --metric names others."""


def run(args: Namespace) -> int:
    try:
        tasks = _tasks(args)
        rows = []
        for row in _rows(tasks, args):
            rows.append(row)
            if sys.stderr.isatty():
                print(f"\r{len(rows)} of {len(tasks)}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    names = args.metric or _usual(rows)
    if args.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        _table(rows, names, args.format)
    return 0 if any(row.passed for row in rows) else 1


def _tasks(args: Namespace) -> list[Task]:
    """The product of what --over names, or of the domains that the spec's params declare."""
    from ..driver import load
    from ..lang.parse import read_source

    source = read_source(args.spec)
    base = None if args.spec == "-" else Path(args.spec).resolve().parent
    fixed = settings(args)
    domains: dict[str, Sequence[str]] = {}
    for text in args.over:
        name, sign, values = text.partition("=")
        if not sign or not name.strip() or not values.strip():
            raise SpecError([Diagnostic("E02", f"`--over {text}` is not of the form name=value,value")])
        domains[name.strip()] = [v.strip() for v in values.split(",")]
    if not domains:
        spec = load(source, Collector(), fixed, base)
        for name, values in spec.params.items():
            if name not in fixed:
                domains[name] = [f"{v.value:g}" if isinstance(v, Quantity) else str(v).lower() for v in values]
    if not domains:
        help = ("dagc sweep SPEC --over k=1,2,4", "or give a param its domain: param k = 1 in [1, 2, 4]")
        raise SpecError([Diagnostic("E02", "there is nothing to sweep over", help=help)])
    place = None if base is None else str(base)
    return [Task(source.text, source.name, place, tuple({**fixed, **point}.items())) for point in points(domains)]


def _rows(tasks: Sequence[Task], args: Namespace) -> Iterator[Row]:
    if not args.on:
        return sweep(tasks, workers=args.workers)
    kind, sign, address = args.on.partition("://")
    if kind != "dask" or not sign or not address:
        raise SpecError(
            [Diagnostic("E05", f"`--on {args.on}` is no cluster that is known", help=("--on dask://HOST:PORT",))]
        )
    if find_spec("distributed") is None:
        raise SpecError([Diagnostic("E05", "`--on dask://` needs Dask", help=("pip install 'dagc[dask]'",))])
    return sweep_dask(tasks, f"tcp://{address}")


def _usual(rows: Sequence[Row]) -> list[str]:
    known = [name for row in rows for name in row.metrics]
    return [name for name in dict.fromkeys(known) if name.partition(".")[2] in SHOWN]


def _table(rows: Sequence[Row], names: Sequence[str], kind: str) -> None:
    params = list(dict.fromkeys(name for row in rows for name in row.settings))
    head = [*params, *names, "verdict"]
    lines = []
    for row in rows:
        verdict = row.errors[0] if row.errors else "pass" if row.passed else "fail"
        values = [f"{row.metrics[n]:.6g}" if n in row.metrics else "" for n in names]
        lines.append([*(row.settings.get(p, "") for p in params), *values, verdict])
    if kind == "csv":
        csv.writer(sys.stdout).writerows([head, *lines])
        return
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
