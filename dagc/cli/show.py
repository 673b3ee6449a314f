"""`dagc show`: one picture per phase."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import replace
from ..base.picture_words import DOT_VIEWS, EVERY_VIEW, TRAINING_DOT_VIEWS, TRAINING_VIEWS, USUAL_VIEWS, VIEWS
from ..export.registry import SHOW, VIEW, exporter, names
from ..view.facts.lanes.shown_part import DEFAULT, Choice
from .arguments import any_of, at_least, spec_arguments, theme_argument
from .common import compiled, tell
from .manner import say
from .writing import write_all

if TYPE_CHECKING:
    from ..base.picture_words import Theme
    from ..plan.plan import CompiledPlan

OWN, TEXT = "svg", "dot"
"""What every view is drawn as, and what goes to standard output of the views that have it."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--view",
        choices=EVERY_VIEW,
        help=f"default: overview, lanes where a part of the graph is chosen, map where colours are; of a phase that trains "
        f"{any_of(TRAINING_VIEWS)} (default: {TRAINING_VIEWS[0]}); DOT has {', '.join(DOT_VIEWS)} alone",
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
        help=f".svg, .png, .pdf, or .dot of {any_of(DOT_VIEWS)}; PNG and PDF need rsvg-convert or CairoSVG (default: DOT or SVG on standard output)",
    )
    theme_argument(parser)


def run(args: Namespace) -> int:
    from ..view.draw.figures.standalone import heeded

    try:
        unfold = tuple(name.strip() for name in args.unfold.split(",") if name.strip())
        part = Choice(tuple(args.select), args.hops, unfold)
        choice = replace(part, color_by=args.color_by)
        view = args.view or ("lanes" if part != DEFAULT else "map" if args.color_by else "")
        heeded(view or USUAL_VIEWS[0], choice)
        target = Path(args.output) if args.output else None
        if view:
            _kind(target, view, args.theme)
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell([d for d in plan.diagnostics if d.code == "E04"])
        views = _views(plan, view, args.phase)
        files: dict[Path, bytes] = {}
        for phase, own in views.items():
            kind = _kind(target, own, args.theme, trains=phase in plan.trainings)
            (data,) = exporter(kind, VIEW).make(plan, phase, own, choice=choice, theme=args.theme).values()
            assert isinstance(data, bytes)
            files[_path(target, phase, len(views))] = data
        if target is None:
            if len(files) > 1 and any(
                _kind(target, own, args.theme, trains=phase in plan.trainings) == OWN for phase, own in views.items()
            ):
                help = ("-o FILE.svg, or one --phase",)
                raise SpecError([Diagnostic("E14", "there is one picture per phase", help=help)])
            sys.stdout.write(b"".join(files.values()).decode())
            return 0 if plan.fits else 1
        write_all(files)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for path in files:
        say(f"wrote {path}")
    return 0 if plan.fits else 1


def _kind(target: Path | None, view: str, theme: Theme, *, trains: bool = False) -> str:
    """The format of a picture. Raises SpecError where it is not drawn so."""
    from ..export.pictures import check_drawn

    in_dot = view in (TRAINING_DOT_VIEWS if trains else DOT_VIEWS)
    formats = [OWN, *(k for k in names(SHOW) if k != OWN and (k != TEXT or in_dot))]
    as_text = in_dot and theme != "dark"
    kind = target.suffix[1:].lower() if target is not None else TEXT if as_text else OWN
    if kind not in formats:
        ends = ", ".join(f".{f}" for f in formats)
        raise SpecError([Diagnostic("E14", f"`{target}`: the name of a picture of the {view} ends in {ends}")])
    check_drawn(kind, view, theme)
    return kind


def _views(plan: CompiledPlan, view: str, phases: Sequence[str]) -> dict[str, str]:
    """Phase -> what is drawn of it. A view that is asked for is drawn of the phases whose kind has it; raises SpecError where none, or
    one that was named, has it not."""
    from ..view.draw.figures.standalone import check_view

    usual = {**dict.fromkeys(plan.phases, USUAL_VIEWS[0]), **dict.fromkeys(plan.trainings, TRAINING_VIEWS[0])}
    if not view:
        return usual
    having = [name for name in usual if view in (TRAINING_VIEWS if name in plan.trainings else VIEWS)]
    for name in phases or ([] if having else usual):
        check_view(plan, name, view)
    return dict.fromkeys(having, view)


def _path(target: Path | None, phase: str, phases: int) -> Path:
    """One file per phase, named after it when there are several."""
    if target is None:
        return Path(phase)
    return target if phases == 1 else target.with_name(f"{target.stem}.{phase}{target.suffix}")
