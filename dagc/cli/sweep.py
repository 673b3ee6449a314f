"""`dagc sweep`: a spec under every combination of some params."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from math import prod

from ..distribution import how_to_install
from ..lang.diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from ..lang.harmless import in_json
from ..lang.units import Quantity
from ..sweep import CLUSTERS, ClusterError, Row, Task, points, sweep
from .common import settings, tell

ADDRESS = re.compile(r"[^/\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
MOST = 1_000_000
"""Points of one sweep."""
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
    """The product of what --over names, or of the domains that the spec's params declare."""
    from ..driver import load
    from ..lang.parse import folder_of, read_source

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
        for name, values in spec.params.items():
            if name not in fixed:
                domains[name] = [f"{v.value:g}" if isinstance(v, Quantity) else str(v).lower() for v in values]
    if not domains:
        help = ("dagc sweep SPEC --over k=1,2,4", "or give a param its domain: param k = 1 in [1, 2, 4]")
        raise SpecError([Diagnostic("E14", "there is nothing to sweep over", help=help)])
    count = prod(len(values) for values in domains.values())
    if count > MOST:
        raise SpecError([Diagnostic("E14", f"{count:,} points are more than {MOST:,}", help=("--over narrows them",))])
    place, phases = None if base is None else str(base), tuple(args.phase)
    made = (tuple({**fixed, **point}.items()) for point in points(domains))
    allowed = tuple(os.path.realpath(folder) for folder in args.allow_import)
    return [Task(source.text, source.name, place, settings_, phases, allowed) for settings_ in made]


def _rows(tasks: Sequence[Task], args: Namespace) -> Iterator[Row]:
    if not args.on:
        return sweep(tasks, workers=args.workers)
    kind, _, address = args.on.partition("://")
    if kind not in CLUSTERS or not ADDRESS.fullmatch(address):
        help = ", ".join(f"--on {name}://HOST:PORT" for name in CLUSTERS)
        raise SpecError([Diagnostic("E14", f"`--on {args.on}` is no cluster that is known", help=(help,))])
    package, swept = CLUSTERS[kind]
    if find_spec(package) is None:
        raise SpecError([Diagnostic("E16", f"`--on {kind}://` needs `{package}`", help=(how_to_install(kind),))])
    return swept(tasks, address)


def _chosen(names: Sequence[str], rows: Sequence[Row]) -> Sequence[str]:
    """The metrics that are asked for, each of them known where any point compiled."""
    known = {name for row in rows for name in row.metrics}
    for name in names:
        if known and name not in known:
            near = did_you_mean(name, known)
            raise SpecError(
                [Diagnostic("E14", f"no metric `{name}`", help=(f"did you mean `{near}`?",) if near else ())]
            )
    return names


def _usual(rows: Sequence[Row]) -> list[str]:
    known = [name for row in rows for name in row.metrics]
    return [name for name in dict.fromkeys(known) if name.partition(".")[2] in SHOWN]


def _table(rows: Sequence[Row], names: Sequence[str], kind: str) -> None:
    params = list(dict.fromkeys(name for row in rows for name in row.settings))
    head = [*params, *names, "verdict"]
    lines = []
    for row in rows:
        verdict = row.errors[0] if row.errors else "pass" if row.passed else "fail" if row.fits else "does not fit"
        values = [f"{row.metrics[n]:.6g}" if n in row.metrics else "" for n in names]
        lines.append([*(row.settings.get(p, "") for p in params), *values, verdict])
    if kind == "csv":
        csv.writer(sys.stdout).writerows([head, *lines])
        return
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
