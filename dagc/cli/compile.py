"""`dagc compile`: report, JSON and artefacts."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..base.diagnostics import Diagnostic, SpecError
from ..base.picture_words import ALL, DOT_VIEWS, EVERY_VIEW, TRAINING_DOT_VIEWS, TRAINING_VIEWS, USUAL_VIEWS, VIEWS
from ..export.registry import EMIT, PHASE, PLAN, VIEW, Exporter, exporter, installed, names
from ..export.registry import chosen as exporters
from ..spec.inference_alone import inference_phases
from .arguments import spec_arguments, theme_argument
from .common import buys, chosen, compiled, put, stem, tell, verdict, width
from .manner import color, manner
from .watch import watch_argument, watched
from .writing import Files, Folders, refuse_existing, write_all

if TYPE_CHECKING:
    from ..api import Plan
    from ..base.picture_words import Theme


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser, "spec file, - for standard input, or a .graph.json that --emit json wrote")
    parser.add_argument(
        "--emit",
        default="",
        metavar="KINDS",
        help=f"comma list of {', '.join(names(EMIT))}",
    )
    parser.add_argument(
        "--view",
        default="",
        metavar="VIEWS",
        help=f"comma list of pictures to draw: {', '.join(EVERY_VIEW)}, or {ALL} (default: {','.join(USUAL_VIEWS)}; of a phase that trains, "
        f"which has no others, {','.join(TRAINING_VIEWS)})",
    )
    theme_argument(parser)
    parser.add_argument(
        "--ranks",
        choices=("folded", "all"),
        default="folded",
        help="json, nodelink, rustworkx, graphml: one node for all ranks, or one per rank; perfetto: one rank per class and stage, or every rank",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="where artefacts go (default: ./NAME.out)")
    parser.add_argument("--force", action="store_true", help="replace directories of traces that exist already")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    parser.add_argument("--format", choices=("text", "md"), default="text", help="how to print the report")
    watch_argument(parser)


def run(args: Namespace) -> int:
    return watched(args, [args.spec], once)


def once(args: Namespace) -> int:
    try:
        kinds = exporters(chosen(args.emit, names(EMIT), "--emit", installed))
        views = chosen(args.view, (*EVERY_VIEW, ALL), "--view")
        asked = [] if ALL in views else views  # by name, so that what a phase has not is an error
        for kind in (k for k in kinds if k.takes == VIEW):
            from ..export.pictures import check_drawn

            for view in asked or USUAL_VIEWS:
                check_drawn(kind.name, view, args.theme)
        views = [*EVERY_VIEW] if ALL in views else views
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        whole = {kind.name for kind in kinds if kind.takes == PLAN or kind.trains}
        inferred = dict.fromkeys(kind.name for kind in kinds if kind.name not in whole)
        if inferred:
            inference_phases(plan.spec, args.phase, f"`--emit {','.join(inferred)}` is")
        tell(plan.diagnostics, requirements=args.json)
        files: Files = {}
        folders: Folders = {}
        if kinds or args.output:
            check_views(plan, kinds, asked)
            directory = Path(args.output or f"{stem(args.spec)}.out")
            folders = trace_folders(plan, directory, stem(args.spec), kinds)
            for folder in folders:
                refuse_existing(folder, args.force)
            files = artefacts(plan, directory, stem(args.spec), kinds, views, args.ranks, args.theme)
            write_all(files, folders, force=args.force)
        if args.json:
            from ..export.json import dumps, plan_object

            put(dumps(plan_object(plan), indent=True))
        elif manner().quiet:
            print(verdict(args.spec, plan))
        elif args.format == "md":
            sys.stdout.write(plan.markdown())
        else:
            also = [f"wrote {path}" for path in (*files, *folders)]
            sys.stdout.write(plan.report(color=color(sys.stdout), width=width(sys.stdout), also=also))
        return 0 if plan.passed else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def trace_folders(plan: Plan, directory: Path, name: str, kinds: list[Exporter]) -> Folders:
    """Folders that are written rank by rank, each with what fills it."""
    folders: dict[Path, Callable[[Path], None]] = {}
    for phase in (*plan.phases, *plan.trainings):
        for kind in (k for k in kinds if k.folder and (phase in plan.phases or k.trains)):
            target = directory / f"{name}.{phase}.{kind.suffixes[0]}"
            (fill,) = kind.make(plan, phase, target=target).values()
            folders[target] = cast(Callable[[Path], None], fill)
    return folders


def artefacts(
    plan: Plan, directory: Path, name: str, kinds: list[Exporter], views: list[str], ranks: str, theme: Theme
) -> dict[Path, bytes | Iterable[bytes]]:
    """Every file to write, complete in memory but for traces: nothing is written when one of them fails. `views`: none, the usual ones."""
    files: dict[Path, bytes | Iterable[bytes]] = {}

    def add(kind: Exporter, stem: str, *of: str) -> None:
        for suffix, data in kind.make(plan, *of, ranks=ranks, theme=theme, buys=partial(buys, plan)).items():
            path = directory / f"{stem}.{suffix}"
            if path in files:
                message = f"`{kind.name}` would write over {path}, which another exporter makes"
                raise SpecError([Diagnostic("E05", message)])
            files[path] = cast(bytes | Iterable[bytes], data)

    of: dict[str, list[Exporter]] = {
        takes: [k for k in kinds if k.takes == takes and not k.folder] for takes in (VIEW, PHASE, PLAN)
    }
    add(exporter("text", PLAN), name)
    for phase in plan.phases:
        for view in (view for view in views or USUAL_VIEWS if view in VIEWS):
            for kind in (kind for kind in of[VIEW] if kind.name != "dot" or view in DOT_VIEWS):
                add(kind, f"{name}.{phase}", phase, view)
        for kind in of[PHASE]:
            add(kind, f"{name}.{phase}", phase)
    for phase in plan.trainings:
        for view in (view for view in views or TRAINING_VIEWS if view in TRAINING_VIEWS):
            for kind in (kind for kind in of[VIEW] if kind.name != "dot" or view in TRAINING_DOT_VIEWS):
                add(kind, f"{name}.{phase}", phase, view)
        for kind in (kind for kind in of[PHASE] if kind.trains):
            add(kind, f"{name}.{phase}", phase)
    for kind in of[PLAN]:
        add(kind, name)
    return files


def check_views(plan: Plan, kinds: Sequence[Exporter], views: Sequence[str]) -> None:
    """Raises SpecError for a picture that is asked for and that no phase has."""
    from ..view.draw.figures.standalone import check_view

    every = (*plan.phases, *plan.trainings)
    for view in views if any(kind.takes == VIEW for kind in kinds) else ():
        if not any(view in (TRAINING_VIEWS if name in plan.trainings else VIEWS) for name in every):
            check_view(plan, every[0], view)
