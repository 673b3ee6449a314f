"""`dagc serve`: the servings of a spec under their traffic, request by request."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..export.registry import SERVE, SERVING, exporter, names
from .arguments import at_least, spec_arguments, theme_argument
from .asked_servings import asked, compiled, read
from .common import chosen, put, stem, tell, verdict, width
from .manner import color, manner, say, shown_progress
from .writing import Files, write_all

if TYPE_CHECKING:
    from ..api import Plan
    from ..base.picture_words import Theme
    from ..serving.knee import Knee
    from ..spec.serve import Serve

FORMS = {".csv": "csv", ".jsonl": "mooncake"}
"""Ending of a trace file -> its form."""
USUAL = "csv,json,svg"
"""What `-o` writes where `--emit` says nothing."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "name",
        nargs="*",
        default=[],  # else argparse asks for one where any word is missing
        metavar="NAME",
        help="servings to simulate (default: all of the spec)",
    )
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="of everything random, instead of the spec's")
    parser.add_argument(
        "--knee", action="store_true", help="also look for the highest load that keeps every requirement"
    )
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="K=V,V",
        help="a table instead: values of rate, clients, prompt, output, another word of the serving or a param; 1..20/6: six values "
        "from 1 to 20 (repeatable)",
    )
    parser.add_argument(
        "--emit", default="", metavar="KINDS", help=f"comma list of {', '.join(names(SERVE))} (with -o: {USUAL})"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="where files go (default: ./NAME.out)")
    theme_argument(parser)
    parser.add_argument(
        "--write-trace",
        metavar="FILE",
        help="write the requests of one serving as a trace: .csv or .jsonl (Mooncake's)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    parser.add_argument(
        "--metric", action="append", default=[], metavar="M", help="column of the table, such as ttft.p90 (repeatable)"
    )
    parser.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="of the table of --over (default: text)"
    )


def run(args: Namespace) -> int:
    try:
        kinds = chosen(args.emit or (USUAL if args.output else ""), names(SERVE), "--emit")
        _combined(args)
        if args.over:
            from .serve_over import table

            return table(args)
        from ..export.pictures import check_kinds

        check_kinds(kinds)
        out = Collector()
        spec = read(args, out)
        serves = asked(spec, args)
        if args.write_trace:
            return _write_trace(serves, Path(args.write_trace))
        if args.knee:
            from ..optimize.serving_loads import check_knee

            for serve in serves:
                check_knee(serve)
        with shown_progress() as told:
            plan = compiled(spec, out, args, [serve.name for serve in serves], told)
        tell(plan.diagnostics, requirements=args.json)
        knees: dict[str, Knee] = {}
        for serve in serves if args.knee else ():
            with shown_progress(f"{serve.name}: knee, ") as told:
                knees[serve.name] = plan.knee(serve, told)
        directory = Path(args.output or f"{stem(args.spec)}.out")
        files = _files(plan, serves, knees, kinds, directory, stem(args.spec), args.theme)
        if files:
            write_all(files)
        if manner().quiet and not args.json:
            print(verdict(args.spec, plan))
        else:
            _print(plan, serves, knees, args, [f"wrote {path}" for path in files])
        return 0 if plan.passed else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def _combined(args: Namespace) -> None:
    """Options that say nothing together."""
    for one, others in (
        ("over", ("knee", "write_trace", "emit", "output")),
        ("write_trace", ("knee", "emit", "output", "json")),
    ):
        for other in others if getattr(args, one) else ():
            if getattr(args, other):
                names = (f"--{word.replace('_', '-')}" for word in (one, other))
                raise SpecError([Diagnostic("E14", "{} and {} cannot be said together".format(*names))])
    for word, said in (("format", args.format != "text"), ("metric", args.metric)):
        if said and not args.over:
            help = ("--json prints a report as JSON",)
            raise SpecError([Diagnostic("E14", f"--{word} is of the table of --over", help=help)])


def _files(
    plan: Plan, serves: list[Serve], knees: dict[str, Knee], kinds: list[str], directory: Path, name: str, theme: Theme
) -> Files:
    """What `--emit` asks for: nothing is written when one of them fails."""
    files: dict[Path, bytes | Iterable[bytes]] = {}
    for serve in serves:
        for kind in names(SERVE):
            if kind in kinds:
                given: dict[str, object] = {"theme": theme}
                given |= {"knee": knees[serve.name]} if serve.name in knees else {}
                for suffix, data in exporter(kind, SERVING).make(plan, serve.name, **given).items():
                    files[directory / f"{name}.{serve.name}.{suffix}"] = cast(bytes | Iterable[bytes], data)
    return files


def _print(plan: Plan, serves: list[Serve], knees: dict[str, Knee], args: Namespace, also: list[str]) -> None:
    if args.json:
        from ..export.json import dumps, plan_object

        put(dumps(plan_object(plan, knees), indent=True))
        return
    from ..view.report.served_report import reports

    served = [(serve, plan.servings[serve.name], knees.get(serve.name)) for serve in serves]
    sys.stdout.write(reports(plan, served, color=color(sys.stdout), width=width(sys.stdout), also=also))


def _write_trace(serves: list[Serve], path: Path) -> int:
    """The requests that come, without a simulation. Raises SpecError."""
    from ..base.foreign_lines import TraceError
    from ..serving.offered import trace_of

    if len(serves) != 1:
        names_ = ", ".join(serve.name for serve in serves)
        raise SpecError([Diagnostic("E14", "--write-trace is of one serving", help=(f"name one of {names_}",))])
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise SpecError([Diagnostic("E14", f"`{path}`: a trace ends in {' or '.join(FORMS)}")])
    try:
        write_all({path: (line.encode() for line in trace_of(serves[0], form))})
    except TraceError as error:
        raise SpecError(
            [Diagnostic("E05", str(error), serves[0].span, help=cast(tuple[str, ...], error.help))]
        ) from None
    except ValueError as error:
        raise SpecError([Diagnostic("E14", f"--write-trace: {error}")]) from None
    say(f"wrote {path}")
    return 0
