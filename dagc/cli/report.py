"""`dagc report`: the plan as one HTML page, as Markdown or as text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..export import registry
from ..export.registry import PLAN, REPORT, exporter, names
from .arguments import spec_arguments, theme_argument
from .common import buys, compiled, put, stem, tell, verdict
from .manner import manner, say
from .watch import watch_argument, watched
from .writing import write_all


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help=".html, .md or .txt (default: ./NAME.html)")
    theme_argument(parser)
    parser.add_argument("--format", choices=names(REPORT), help="default: what FILE ends in")
    parser.add_argument(
        "--force", action="store_true", help="accepted as in other commands: a report that exists is always replaced"
    )
    watch_argument(parser)


def run(args: Namespace) -> int:
    return watched(args, [args.spec], once)


def once(args: Namespace) -> int:
    try:
        target = Path(args.output) if args.output else None
        kind = args.format or _format(target)
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell(plan.diagnostics, requirements=False)
        (data,) = exporter(kind, PLAN).make(plan, theme=args.theme, buys=partial(buys, plan)).values()
        assert isinstance(data, bytes)
        if target is None and kind == "html":
            target = Path(f"{stem(args.spec)}.html")
        if target is None:
            put(data)
        else:
            write_all({target: data}, force=args.force)
            say(f"wrote {target}")
            if manner().quiet:
                print(verdict(args.spec, plan))
        return 0 if plan.passed else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def formats() -> dict[str, str]:
    """Ending of a file -> the exporter that it asks for."""
    return {f".{end}": e.name for e in registry.EXPORTERS if REPORT in e.offered for end in (*e.suffixes, *e.also)}


def _format(target: Path | None) -> str:
    """By the name of the file; a page where there is no name."""
    if target is None:
        return "html"
    known = formats()
    if target.suffix.lower() not in known:
        endings = ", ".join(known)
        raise SpecError(
            [Diagnostic("E14", f"`{target}`: a report ends in {endings}", help=("or choose a format: --format html",))]
        )
    return known[target.suffix.lower()]
