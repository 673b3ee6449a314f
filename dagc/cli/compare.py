"""`dagc compare`: what a real run showed, beside the plan."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..base.diagnostics import Diagnostic, SpecError
from . import compare_metrics, compare_traces
from .arguments import spec_arguments
from .common import tell


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    compare_traces.add_arguments(parser)
    compare_metrics.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")


def _without_traces(args: Namespace) -> None:
    """Raises SpecError where an option asks for what metrics do not give."""
    given = {
        "--passes": args.passes is not None,
        "--within": bool(args.within),
        "--calibrate": args.calibrate is not None,
    }
    asked = [option for option, is_given in given.items() if is_given]
    if asked:
        message = f"`{asked[0]}` is of traces, and metrics are compared"
        raise SpecError([Diagnostic("E14", message, help=("dagc compare SPEC TRACE...",))])


def run(args: Namespace) -> int:
    try:
        if args.traces and args.metrics:
            why = ("traces are of a few passes of one phase, metrics of a serving",)
            raise SpecError([Diagnostic("E14", "traces and `--metrics` are compared one at a time", help=why)])
        if args.traces and (args.window is not None or args.serve or args.strict):
            why = ("--window, --serve and --strict are of `--metrics`",)
            raise SpecError([Diagnostic("E14", "traces are compared without a serving", help=why)])
        if args.metrics:
            _without_traces(args)
            return compare_metrics.run(args)
        if not args.traces:
            help = ("dagc compare SPEC TRACE...", "dagc compare SPEC --metrics FILE...")
            raise SpecError([Diagnostic("E14", "there is nothing to compare with", help=help)])
        return compare_traces.run(args)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
