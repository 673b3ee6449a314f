"""`dagc compare SPEC --metrics FILE...`: the requirements of a spec judged on a measured run, and its figures and memory beside the plan."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from .arguments import at_least
from .common import put, tell
from .manner import color

if TYPE_CHECKING:
    from ..api import Plan
    from ..observe.metrics.run_files import Given
    from ..spec.spec import Spec


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--metrics",
        action="append",
        nargs="+",
        default=[],
        metavar="[PHASE=]FILE",
        help="what a run showed: /metrics of a server (scrapes in order of time; each server a --metrics of its own), CSV of nvidia-smi or of "
        "requests, JSON of a benchmark, a log of the engine, a snapshot of torch's allocator (repeatable)",
    )
    parser.add_argument(
        "--window",
        type=at_least(0, float),
        metavar="S",
        help="seconds between the first scrape and the last, where the files do not say when they were taken",
    )
    parser.add_argument(
        "--serve", default="", metavar="NAME", help="the serving that was run, where the spec has several"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 also where a requirement was not measured, or is open"
    )


def run(args: Namespace) -> int:
    """With `args.metrics`. The exit code."""
    from ..base.foreign_lines import TraceError
    from ..export.json import dumps
    from ..observe.metrics.judge import FAILED, NOT_MEASURED, UNDECIDED, judged
    from ..observe.metrics.named import measured
    from ..observe.metrics.run_files import read
    from ..observe.metrics.run_report import as_object, report

    try:
        out = Collector()
        plan, serve = _compiled(args, out)
        try:
            found = measured(plan, read(_given(args.metrics, plan)), serve, args.window or None)
        except TraceError as error:
            raise SpecError([Diagnostic("E05", str(error), help=error.help)]) from None
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    verdicts = judged(plan, found)
    tell([d for d in plan.diagnostics if d.code != "R07"])
    tell([Diagnostic("W06", doubt) for doubt in found.doubts])
    if args.json:
        put(dumps(as_object(plan, found, verdicts), indent=True))
    else:
        sys.stdout.write(report(plan, found, verdicts, color(sys.stdout)))
    bad = (FAILED, UNDECIDED, NOT_MEASURED) if args.strict else (FAILED,)
    return 1 if any(one.verdict in bad for one in verdicts) else 0


def _compiled(args: Namespace, out: Collector) -> tuple[Plan, str]:
    """The plan, with the serving that was run simulated. Raises SpecError."""
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load
    from ..spec.inference_alone import inference_phases
    from .asked_servings import compiled
    from .common import settings

    source = read_source(args.spec, args.allow_import)
    spec = load(source, out, settings(args), folder_of(args.spec), args.allow_import)
    inference_phases(spec, args.phase, "`dagc compare` is")
    serve = _serving(spec, args.serve)
    return compiled(spec, out, args, (serve,) if serve else ()), serve


def _serving(spec: Spec, name: str) -> str:
    known = [serve.name for serve in spec.serves]
    if name and name not in known:
        raise SpecError([Diagnostic("E14", f"there is no serving `{name}`", help=(_listed(known),))])
    if len(known) > 1 and not name:
        raise SpecError(
            [
                Diagnostic(
                    "E14", "the spec has several servings, and one was run", help=(f"--serve NAME: {_listed(known)}",)
                )
            ]
        )
    return name or (known[0] if known else "")


def _listed(names: Sequence[str]) -> str:
    return f"servings: {', '.join(names)}" if names else "the spec has none"


def _given(groups: Sequence[Sequence[str]], plan: Plan) -> list[list[Given]]:
    """Files with the phase that is written in front of them."""
    from ..observe.metrics.run_files import Given

    found = []
    for group in groups:
        mine = []
        for text in group:
            phase, sign, path = text.partition("=")
            if not sign or phase not in plan.phases:
                if sign and not os.path.exists(text):
                    help = (f"phases: {', '.join(plan.phases)}",)
                    raise SpecError(
                        [Diagnostic("E14", f"`--metrics {text}`: there is no such file, and no such phase", help=help)]
                    )
                phase, path = "", text
            mine.append(Given(Path(path), phase, plan.phases[phase].phase_kind.name if phase else ""))
        found.append(mine)
    return found
