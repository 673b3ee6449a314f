"""`dagc compare SPEC TRACE...`: profiler traces of a run beside the plan's phase, by class and call by call."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from . import compare_calibrate
from .arguments import at_least, percent
from .common import compiled, put, width

if TYPE_CHECKING:
    from ..observe.matching.rank_calls import RankCalls
    from ..plan.plan import CompiledPlan

TOLERANCE = 20.0
"""Percent."""


def add_arguments(parser: ArgumentParser) -> None:
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
    parser.add_argument(
        "--calibrate",
        metavar="FILE.json",
        help="write the plan's calibration with what the traces show of collectives and of products whose sizes they have",
    )


def run(args: Namespace) -> int:
    """With `args.traces`. The exit code. Raises SpecError."""
    from ..observe.against_plan import compared
    from ..observe.compared_text import plain, text
    from ..observe.matching.lay_beside import laid_beside, phase_of, ran
    from ..observe.matching.table import alone, lines, verdict
    from ..observe.product_shapes import expert_products
    from ..observe.traces_of import files_of, ranks_of
    from ..spec.inference_alone import inference_phases

    plan = compiled(args.spec, args)
    if plan is None:
        return 2
    inference_phases(plan.spec, args.phase, "`dagc compare` is")
    phase, files = _chosen(plan, args.spec, files_of(args.traces))
    if args.calibrate is not None:
        compare_calibrate.check(args.calibrate, plan, phase)
    calls: list[RankCalls] = []
    experts = expert_products(plan.phases[phase], plan.units[phase])
    ranks = ranks_of(files, plan.phases[phase], args.passes, args.within, calls, experts)
    own = phase_of(calls)
    if own and own != phase:
        raise SpecError([Diagnostic("E14", f"the traces are of phase `{own}`, not of `{phase}`")])
    result, tolerance = ran(plan, phase, calls), args.tolerance / 100
    beside = laid_beside(result, plan.units[phase].spec.hardware.kind, calls, tolerance)
    if args.calibrate is not None:
        compare_calibrate.write(args.calibrate, args.spec, plan, phase, calls, ranks)
    if not ranks:  # of `dagc run` on CPUs
        _say(args, beside.to_json(), "\n".join(alone(beside, args.spec, calls[0].twin)) + "\n")
        return 1 if beside.drifts else 0
    found = compared(result, ranks, tolerance)
    report = text(found, args.spec, [*lines(beside), *verdict(beside)], width(sys.stdout))
    _say(args, plain(found, beside), report)
    return 1 if found.drifts or beside.drifts else 0


def _say(args: Namespace, data: object, text: str) -> None:
    from ..export.json import dumps

    if args.json:
        put(dumps(data, indent=True))
    else:
        sys.stdout.write(text)


def _chosen(plan: CompiledPlan, spec: str, files: Sequence[Path]) -> tuple[str, list[Path]]:
    """The phase that was run, and its traces: the plan's only one, or the one that traces of `dagc run` name. A folder may have those of several phases."""
    from ..execute.marks import trace_name

    known = [phase.name for phase in plan.spec.phases]
    of = {file: next((one for one in known if file.name.startswith(trace_name(one, ""))), "") for file in files}
    named = {phase for phase in of.values() if phase in plan.phases}
    if len(plan.phases) == 1:
        phase = next(iter(plan.phases))
    elif len(named) == 1:
        (phase,) = named
    else:
        chosen = " or ".join(f"`--phase {name}`" for name in plan.phases)
        traces = f"the traces are of {len(named)}" if named else "a trace is of one"
        message = f"`{spec}` has {len(plan.phases)} phases, and {traces}"
        raise SpecError([Diagnostic("E14", message, help=(f"say which: {chosen}",))])
    return phase, [file for file in files if of[file] in (phase, "") or phase not in of.values()]
