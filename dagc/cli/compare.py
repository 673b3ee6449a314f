"""`dagc compare`: what a real run showed, beside the plan."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from . import compare_metrics
from .arguments import at_least, percent, spec_arguments
from .common import compiled, put, tell

if TYPE_CHECKING:
    from ..plan.plan import CompiledPlan
    from ..plan.result import PhaseResult

TOLERANCE = 20.0
"""Percent."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "traces",
        nargs="*",
        default=[],
        metavar="TRACE",
        help="traces of PyTorch's profiler, one per rank (.json, .json.gz), or a folder of them",
    )
    parser.add_argument(
        "--passes",
        type=at_least(1),
        metavar="N",
        help="passes of the model in a trace (default: by marks, else collectives are counted)",
    )
    parser.add_argument(
        "--within",
        default="",
        metavar="TEXT",
        help="only kernels launched in marks (record_function) with this in their name; each is a pass",
    )
    parser.add_argument(
        "--tolerance",
        type=percent,
        default=TOLERANCE,
        metavar="PERCENT",
        help="what is further from the plan is drift, exit code 1 (default: 20)",
    )
    compare_metrics.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")


def run(args: Namespace) -> int:
    try:
        if args.traces and args.metrics:
            help = ("traces are of a few passes of one phase, metrics of a serving",)
            raise SpecError([Diagnostic("E14", "traces and `--metrics` are compared one at a time", help=help)])
        if args.metrics:
            return compare_metrics.run(args)
        if not args.traces:
            help = ("dagc compare SPEC TRACE...", "dagc compare SPEC --metrics FILE...")
            raise SpecError([Diagnostic("E14", "there is nothing to compare with", help=help)])
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        return _traces(args, _phase(plan, args.spec))
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def _phase(plan: CompiledPlan, spec: str) -> PhaseResult:
    """The one phase that was run."""
    if len(plan.phases) > 1:
        chosen = " or ".join(f"`--phase {name}`" for name in plan.phases)
        message = f"`{spec}` has {len(plan.phases)} phases, and a trace is of one"
        raise SpecError([Diagnostic("E14", message, help=(f"say which: {chosen}",))])
    return next(iter(plan.phases.values()))


def _traces(args: Namespace, result: PhaseResult) -> int:
    from ..observe.against_plan import compared
    from ..observe.compared_text import plain, text
    from ..observe.traces_of import files_of, ranks_of

    ranks = ranks_of(files_of(args.traces), result, args.passes, args.within)
    found = compared(result, ranks, args.tolerance / 100)
    if args.json:
        from ..export.json import dumps

        put(dumps(plain(found), indent=True))
    else:
        sys.stdout.write(text(found, args.spec))
    return 1 if found.drifts else 0
