"""`dagc diff`: what changes from one plan to another."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from .arguments import common_arguments, percent
from .common import compiled, put, tell, width

if TYPE_CHECKING:
    from ..plan.plan import CompiledPlan
    from ..plan.recorded import Recorded


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="spec file, - for standard input, or what `dagc compile --json` printed")
    parser.add_argument("b", nargs="?", metavar="B", help="the other side (default: A again)")
    parser.add_argument(
        "--set-a", action="append", default=[], metavar="K=V", help="value of a param in A (repeatable)"
    )
    parser.add_argument(
        "--set-b", action="append", default=[], metavar="K=V", help="value of a param in B (repeatable)"
    )
    common_arguments(parser)
    parser.add_argument("--format", choices=("text", "md", "json"), default="text", help="default: text")
    parser.add_argument(
        "--fail-on-regression",
        type=percent,
        nargs="?",
        const=0.0,
        metavar="PERCENT",
        help="exit 1 if time, throughput or memory got worse by more than this, or a requirement no longer holds",
    )


def run(args: Namespace) -> int:
    from ..view.report import diff_text
    from ..view.report.diff import compare

    try:
        if args.b is None and not (args.set_a or args.set_b):
            help = ("dagc diff A B, or dagc diff A --set-a k=v --set-b k=v",)
            raise SpecError([Diagnostic("E14", "there is nothing to compare with", help=help)])
        if args.a == "-" and args.b in ("-", None):
            raise SpecError([Diagnostic("E14", "standard input can be read once only: name a file for one side")])
        plans = [_side(args, args.a, args.set_a), _side(args, args.b or args.a, args.set_b)]
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    before, after = plans
    if before is None or after is None:
        return 2
    names = (_name(args.a, args.set_a), _name(args.b or args.a, args.set_b))
    comparison = compare(before, after)
    if args.format == "json":
        from ..export.json import dumps

        put(dumps(diff_text.plain(comparison, *names), indent=True))
    elif args.format == "md":
        sys.stdout.write(diff_text.markdown(comparison, *names))
    else:
        sys.stdout.write(diff_text.text(comparison, *names, width(sys.stdout)))
    worse = [] if args.fail_on_regression is None else comparison.regressions(args.fail_on_regression)
    if worse:
        print(f"regression: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


def _side(args: Namespace, spec: str, own: list[str]) -> CompiledPlan | Recorded | None:
    """Compiled, or as `dagc compile --json` wrote it."""
    from ..importers.plan_object import read

    if spec.endswith(".json"):
        found = read(spec, args.allow_import)
        if found is not None and (own or args.set):
            raise SpecError([Diagnostic("E14", "a recorded plan has no params: `--set` needs its spec")])
        if found is not None:
            return found
    return compiled(spec, Namespace(**vars(args) | {"set": [*args.set, *own]}))


def _name(spec: str, own: list[str]) -> str:
    return f"{spec} ({', '.join(own)})" if own else spec
