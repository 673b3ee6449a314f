"""`dagc serve --over`: a table over loads, lengths, rules and params, with the knees marked."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.harmless import in_json
from ..base.suggest import did_you_mean
from ..optimize.points import points
from ..optimize.serving_loads import MOST_POINTS, WORDS, GridRow, applies, changed, expanded, with_knees
from ..serving.knee import load_kind
from ..spec.metrics.known_metrics import of_serving
from .asked_servings import asked, compiled, read
from .common import width
from .manner import shown_progress

if TYPE_CHECKING:
    from ..api import Plan

LOADS = ("rate", "clients", "users", "speed")
"""Words that raise the load: the knee is along them."""


def table(args: Namespace) -> int:
    """Prints the table. 0 where a row keeps everything, 1 where none does, 2 where none can be simulated."""
    domains, metrics = _domains(args), _metrics(args.metric)
    rows: list[GridRow] = []
    with shown_progress() as told:
        for row in _rows(domains, args):
            rows.append(row)
            if told is not None:
                told(f"{len(rows)} points")
    rows = list(with_knees(rows, next((name for name in domains if name in LOADS), "")))
    _print(rows, metrics, args.format if not args.json else "json")
    if all(row.error for row in rows):
        return 2
    return 0 if any(not row.error and not row.broken for row in rows) else 1


def _metrics(asked: Sequence[str]) -> list[str]:
    """The columns: those that are asked for, or the usual ones. Raises SpecError."""
    known = {m.name: m for m in of_serving()}
    for name in asked:
        if name not in known:
            near = did_you_mean(name, known)
            hint = f"did you mean `{near}`?" if near else "`dagc list metrics` shows all"
            raise SpecError([Diagnostic("E14", f"no metric `{name}` of a serving", help=(hint,))])
    return list(asked) or [name for name, m in known.items() if m.usual]


def _domains(args: Namespace) -> dict[str, list[str]]:
    """Name -> its values. Raises SpecError."""
    found: dict[str, list[str]] = {}
    for text in args.over:
        name = ""
        for part in text.split(","):
            before, sign, value = part.partition("=")
            if sign:
                name, part = before.strip(), value
                if name in found:
                    raise SpecError([Diagnostic("E14", f"`--over {name}` is given twice; its values make one list")])
                found[name] = []
            if not name:
                raise SpecError([Diagnostic("E14", f"`--over {text}` is not of the form name=value,value")])
            try:
                found[name] += expanded(part)
            except ValueError as error:
                raise SpecError([Diagnostic("E14", f"`--over {name}`: {error}")]) from None
    count = prod(len(values) for values in found.values())
    if count > MOST_POINTS:
        raise SpecError(
            [Diagnostic("E14", f"{count:,} points are more than {MOST_POINTS:,}", help=("--over narrows them",))]
        )
    return found


def _rows(domains: Mapping[str, Sequence[str]], args: Namespace) -> Iterator[GridRow]:
    """A spec is compiled once for each combination of its params, and its step prices are kept."""
    base = read(args, Collector())
    serves = asked(base, args)
    params = [name for name in domains if name in base.domains]
    words = [name for name in domains if name not in params]
    for name in words:
        if name not in WORDS:
            near = did_you_mean(name, [*base.domains, *WORDS])
            hint = (
                f"did you mean `{near}`?"
                if near
                else f"params: {', '.join(base.domains) or 'none'}; words: {', '.join(WORDS)}"
            )
            message = f"`--over {name}`: neither a param of the spec nor a word of a serving"
            raise SpecError([Diagnostic("E14", message, help=(hint,))])
    chosen = [serve for serve in serves if all(applies(serve, word) for word in words)] or serves[:1]
    for serve in chosen:  # what cannot be is said before anything is simulated
        for word in words:
            for text in domains[word]:
                changed(serve, word, text)
    names = [serve.name for serve in chosen]
    key: tuple[str, ...] | None = None
    plan: Plan | str = ""
    for point in points({**{name: domains[name] for name in params}, **{name: domains[name] for name in words}}):
        if key != tuple(point[name] for name in params):
            key = tuple(point[name] for name in params)
            plan = _plan(args, {name: point[name] for name in params})
        for name in names:
            settings = {"serving": name, **point} if len(names) > 1 else point
            yield GridRow(settings, error=plan) if isinstance(plan, str) else _row(settings, plan, name, words)


def _plan(args: Namespace, given: Mapping[str, str]) -> Plan | str:
    """Compiled, or why not."""
    out = Collector()
    try:
        return compiled(read(args, out, given), out, args)
    except SpecError as error:
        return _said(error)


def _said(error: SpecError) -> str:
    return "; ".join(f"{d.code}: {d.message}" for d in error.diagnostics if d.is_error)


def _row(settings: Mapping[str, str], plan: Plan, name: str, words: Sequence[str]) -> GridRow:
    serve = plan.spec.serve(name)
    for word in words:
        serve = changed(serve, word, settings[word])
    try:
        result = plan.serve(serve)
    except SpecError as error:
        return GridRow(settings, error=_said(error))
    _, load = load_kind(serve.arrivals)
    return GridRow(settings, plan.metrics_of(result), result.verdict, plan.broken(result), load)


def _print(rows: Sequence[GridRow], names: Sequence[str], kind: str) -> None:
    if kind == "json":
        data = [
            {"settings": dict(row.settings), "error": row.error or None, "verdict": row.verdict or None, "broken": list(row.broken),
             "knee": row.knee, "metrics": dict(row.metrics)}
            for row in rows
        ]  # fmt: skip
        print(in_json(json.dumps(data, indent=1)))
        return
    known = {m.name: m for m in of_serving()}
    given = list(dict.fromkeys(name for row in rows for name in row.settings))
    units = {n: known[n].unit for n in names if known[n].unit and not known[n].share}
    heads = [f"{n} [{units[n]}]" if kind == "csv" and n in units else n for n in names]
    lines = [[*given, *heads, "verdict", "knee", "breaks"]]
    for row in rows:
        values = ((n, row.metrics.get(n)) for n in names)
        cells = ["" if v is None else f"{v:.6g}" if kind == "csv" else known[n].shown(v) for n, v in values]
        verdict = row.error or row.verdict
        lines.append(
            [
                *(row.settings.get(n, "") for n in given),
                *cells,
                verdict,
                "knee" if row.knee else "",
                "; ".join(row.broken),
            ]
        )
    if kind == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return
    from ..view.report.terminal_text import in_blocks

    room = width(sys.stdout) if sys.stdout.isatty() else sys.maxsize  # a row of a file stays a line
    if sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True)) - 2 > room:
        print("\n".join(in_blocks(lines, len(given), room)))
        return
    figures = range(len(given), len(given) + len(names))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    for line in lines:
        cells = [
            cell.rjust(w) if i in figures else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=False))
        ]
        print("  ".join([*cells, line[-1]]).rstrip())
