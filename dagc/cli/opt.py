"""`dagc opt`: passes on the textual IR."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.source import Source, Span
from .arguments import allow_import_arguments
from .common import tell

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..ir.graph_pass import GraphPass
    from ..pipeline.observers import Observer


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.ir", help="what `dagc ir` printed, - for standard input")
    parser.add_argument("--passes", metavar="PASSES", default="", help="as in tp,sp{method=ring},reshard")
    parser.add_argument(
        "--verify-each", action="store_true", help="verify the graph after each pass, not after the last alone"
    )
    parser.add_argument(
        "--print-after", metavar="PASS", action="append", default=[], help="print it there too (or all)"
    )
    parser.add_argument("--time", action="store_true", help="how long each pass took, on standard error")
    parser.add_argument("--types", action="store_true", help="with the types of operands")
    parser.add_argument("-o", "--out", metavar="FILE", help="write the graph there instead of printing it")
    allow_import_arguments(parser)


def run(args: Namespace) -> int:
    from ..base.syntax.input import read_source
    from ..ir.text.write import print_graph
    from ..pipeline.observers import Clock, Print, Verify

    try:
        passes = chosen_passes(args.passes)
        known = [one.name for one in passes]
        for name in args.print_after:
            if name not in ("all", *known):
                raise _wrong(f"--print-after: `{name}` is none of the passes", (f"all, {', '.join(known)}",))
        source = read_source(args.file, args.allow_import)
        clock = Clock()
        observers: list[Observer] = [clock, Print(args.print_after, sys.stdout.write)]
        made = []
        for number, text in graphs_of(source):
            watching = [*observers, Verify()] if args.verify_each else observers
            made.append(print_graph(optimised(source, number, text, passes, watching), types=args.types))
        _written("\n".join(made), args.out)
        for name, time_s in clock.seconds.items() if args.time else ():
            print(f"{name:<12} {time_s * 1e3:8.2f} ms", file=sys.stderr)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return 0


def chosen_passes(text: str) -> tuple[GraphPass, ...]:
    """The passes of `--passes`; none where it is left out. Raises SpecError with E14."""
    from ..ir.graph_pass import GraphPass
    from ..pipeline.text import PipelineError, parse

    try:
        passes = parse(text) if text.strip() else ()
    except PipelineError as error:
        raise _wrong(f"--passes: {error}", error.help) from None
    graph_passes = [one for one in passes if isinstance(one, GraphPass)]
    for one in passes:
        if one not in graph_passes:
            raise _wrong(f"`{one.name}` prices a phase of a spec, not a graph alone", ("`dagc compile SPEC` runs it",))
    return tuple(graph_passes)


def _wrong(message: str, help: tuple[str, ...]) -> SpecError:
    return SpecError([Diagnostic("E14", message, help=help)])


def graphs_of(source: Source) -> Iterator[tuple[int, str]]:
    """Each graph of a text, with the lines before it."""
    lines = source.text.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("graph ")]
    starts = [0, *starts[1:], len(lines)]
    for first, end in pairwise(starts):
        yield first, "\n".join(lines[first:end])


FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a pass may come to on a graph that no pass has made."""


def optimised(
    source: Source, first: int, text: str, passes: Sequence[GraphPass], observers: Sequence[Observer]
) -> Graph:
    """The graph after the passes. Raises SpecError: E15 for the graph, E14 or E03 for a pass that cannot go on."""
    from ..ir.graph_pass import PassError
    from ..ir.text.read import parse_graph
    from ..ir.text.scan import TextError
    from ..ir.verify.verify import verify
    from ..ir.verify.violation import VerifyError
    from ..pipeline.observers import verified
    from ..pipeline.plugins import PluginFault
    from ..pipeline.run_passes import LevelError, run

    at = ""
    try:
        graph = parse_graph(text)
        verify(graph)
        for one in passes:
            at = one.name
            ((_, graph),) = run((one,), graph, observers)
        if passes:
            verified(graph, at, {})
    except TextError as error:
        raise _unreadable(source, first, str(error)) from None
    except VerifyError as error:
        where = f"behind `{error.behind}`" if error.behind else "as it is written"
        message = f"`{source.name}`: the graph is wrong {where}: {error.line}"
        raise SpecError([Diagnostic("E15", message, because=error.program)]) from None
    except PassError as error:
        code = "E14" if isinstance(error, LevelError) else "E17" if isinstance(error, PluginFault) else "E03"
        place = "/%".join(part for part in error.where if part)
        message = (
            f"{error}"
            if isinstance(error, LevelError)
            else f"the pass `{at}` stops{f' at {place}' if place else ''}: {error}"
        )
        raise SpecError([Diagnostic(code, message, because=error.because, help=error.help)]) from None
    except FAULTS as error:
        if os.environ.get("DAGC_DEBUG"):
            raise
        what = f"the pass `{at}` cannot run on it" if at else "it does not hold together"
        reason = f"{type(error).__name__}: {error}"[:200]
        raise SpecError([Diagnostic("E15", f"`{source.name}`: {what}", because=(reason,))]) from None
    return graph


def _unreadable(source: Source, first: int, reason: str) -> SpecError:
    """E15 at the line that a text error names."""
    match = re.fullmatch(r"line (\d+): (.*)", reason, re.DOTALL)
    if match is None:
        return SpecError([Diagnostic("E15", f"`{source.name}`: {reason}")])
    lines = source.text.split("\n")
    line = min(first + int(match[1]), len(lines)) - 1
    start = sum(len(one) + 1 for one in lines[:line])
    span = Span(source, start, start + len(lines[line]))
    return SpecError([Diagnostic("E15", f"this is not textual IR: {match[2]}", span)])


def _written(text: str, out: str | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    from .writing import write_all

    write_all({Path(out): text.encode()}, force=True)
