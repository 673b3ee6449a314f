"""`dagc ir`: the textual IR after a pass."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from .arguments import spec_arguments
from .common import settings, tell

if TYPE_CHECKING:
    from ..spec.phase import Phase
    from ..spec.spec import Spec


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--after", metavar="PASS", help="stop after this pass (default: the last; `spec`: before the first)"
    )
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="print the passes instead, as `dagc opt --passes` takes them; with --after: those that follow",
    )
    parser.add_argument("--types", action="store_true", help="with the types of operands")


def run(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load
    from ..passes import GRAPH_PASSES

    try:
        source = read_source(args.spec, args.allow_import)
        out = Collector()
        spec = load(source, out, settings(args), folder_of(args.spec), args.allow_import)
        phases = [p for p in (*spec.phases, *spec.trainings) if p.name in args.phase or not args.phase]
        names = [
            "spec",
            "expand",
            *(p.name for p in GRAPH_PASSES),
            *(name for p in phases for name in p.strategy.passes),
        ]
        if args.after is not None and args.after not in names:
            near = did_you_mean(args.after, names)
            hint = f"did you mean `{near}`?" if near else f"passes: {', '.join(names)}"
            raise SpecError([Diagnostic("E14", f"unknown pass `{args.after}`", help=(hint,))])
        if args.after == "spec":
            from ..lang.printer.print_spec import print_spec

            sys.stdout.write(print_spec(spec))
            tell(out.items)
            return 0
        known = [p.name for p in (*spec.phases, *spec.trainings)]
        for phase in args.phase:
            if phase not in known:
                raise SpecError([Diagnostic("E14", f"unknown phase `{phase}`", help=(f"phases: {', '.join(known)}",))])
        if any(p.strategy.balanced for p in phases):
            from ..pipeline.stage_cut import balanced
            from ..pipeline.step_cut import balanced_steps

            spec = balanced_steps(balanced(spec))
            phases = [spec.phase(p.name) for p in phases]
        if any(p.strategy.best for p in phases):
            from ..pipeline.place_best import placed

            spec, _ = placed(spec)
            phases = [spec.phase(p.name) for p in phases]
        write = pipeline_text if args.pipeline else ir_text
        sys.stdout.write(write(spec, out, phases, args))
        tell(out.items)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return 0


def ir_text(spec: Spec, out: Collector, phases: Sequence[Phase], args: Namespace) -> str:
    """Textual IR of the phases after a pass (default: the last); after a plugin's, of those that ask for it."""
    from ..ir.text.write import print_graph
    from ..pipeline.lower import lower
    from ..spec.unit import Unit

    parts = []
    asked = {name for phase in (*spec.phases, *spec.trainings) for name in phase.strategy.passes}
    for phase in phases:
        if args.after in asked and args.after not in phase.strategy.passes:
            continue
        for name, step in lower(Unit(spec, phase, out)):
            graph = step
            if name == args.after:
                break
        pool = f"# hardware {phase.hardware}\n" if phase.hardware else ""
        parts.append(pool + print_graph(graph, types=args.types))
    return "\n".join(parts)


def pipeline_text(spec: Spec, out: Collector, phases: Sequence[Phase], args: Namespace) -> str:
    """The passes of each phase behind the model graph, or behind a pass; of several phases with their names."""
    from ..pipeline.lower import passes_of
    from ..pipeline.text import show
    from ..spec.unit import Unit

    lines = []
    for phase in phases:
        passes = passes_of(Unit(spec, phase, out))
        names = [one.name for one in passes]
        start = names.index(args.after) + 1 if args.after in names else 0
        lines.append((f"{phase.name}: " if len(phases) > 1 else "") + show(passes[start:]))
    return "".join(f"{line}\n" for line in lines)
