"""`dagc show`: one picture per phase."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..export.registry import SHOW, VIEW, exporter, names
from ..view.facts.lanes.shown_part import DEFAULT, Choice
from .arguments import at_least, spec_arguments
from .common import compiled, tell
from .writing import write_all

OWN = "svg"
"""Every view is drawn as this; the others are made of DOT text, which not every view has."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--view",
        choices=("overview", "map", "layer", "lanes", "timeline", "memory", "path"),
        help="default: overview, lanes where a part of the graph is chosen, map where colours are; DOT has overview, layer and lanes alone",
    )
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="WHAT",
        help="lanes: critical, gpu:0..7, layer:3, layer:NAME, stage:0, microbatch:0, op:NAME; several must all hold",
    )
    parser.add_argument(
        "--hops", type=at_least(0), default=0, metavar="N", help="lanes: also what is up to N data edges away"
    )
    parser.add_argument(
        "--unfold",
        default="",
        metavar="FOLDS",
        help="lanes: comma list of ops, microbatches, layers, ranks, stages, blocks that are not folded, or all",
    )
    parser.add_argument(
        "--color-by",
        default="",
        metavar="AXIS",
        help="map: pp, dp, ep, sp, tp, etp, edp or replica (a GPU's place along it), tp-group (those that exchange over it), or phases",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=".svg, .dot, .png or .pdf; the last two need Graphviz (default: DOT or SVG on standard output)",
    )


def run(args: Namespace) -> int:
    from ..view.draw.figures.standalone import heeded
    from ..view.draw.views import VIEWS

    try:
        unfold = tuple(name.strip() for name in args.unfold.split(",") if name.strip())
        part = Choice(tuple(args.select), args.hops, unfold)
        choice = replace(part, color_by=args.color_by)
        view = args.view or ("lanes" if part != DEFAULT else "map" if args.color_by else "overview")
        heeded(view, choice)
        target = Path(args.output) if args.output else None
        formats = (OWN, *(k for k in names(SHOW) if k != OWN and view in VIEWS))
        kind = target.suffix[1:] if target is not None else "dot" if view in VIEWS else OWN
        if kind not in formats:
            ends = ", ".join(f".{f}" for f in formats)
            raise SpecError([Diagnostic("E14", f"`{target}`: the name of a picture of the {view} ends in {ends}")])
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell([d for d in plan.diagnostics if d.code == "E04"])
        files: dict[Path, bytes] = {}
        for phase in plan.phases:
            (data,) = exporter(kind, VIEW).make(plan, phase, view, choice=choice).values()
            assert isinstance(data, bytes)
            files[_path(target, phase, len(plan.phases))] = data
        if target is None:
            if kind == OWN and len(files) > 1:
                help = ("-o FILE.svg, or one --phase",)
                raise SpecError([Diagnostic("E14", "there is one picture per phase", help=help)])
            sys.stdout.write(b"".join(files.values()).decode())
            return 0 if plan.fits else 1
        write_all(files)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for path in files:
        print(f"wrote {path}")
    return 0 if plan.fits else 1


def _path(target: Path | None, phase: str, phases: int) -> Path:
    """One file per phase, named after it when there are several."""
    if target is None:
        return Path(phase)
    return target if phases == 1 else target.with_name(f"{target.stem}.{phase}{target.suffix}")
