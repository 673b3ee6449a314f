"""`dagc compile`: report, JSON and artefacts."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from ..api import Plan
from ..base.diagnostics import Diagnostic, SpecError
from .common import chosen, color, compiled, put, stem, tell
from .writing import refuse_existing, write_all

PICTURES = ("dot", "svg", "png", "pdf")
KINDS = (*PICTURES, "json", "nodelink", "graphml", "chakra", "html", "md", "perfetto")

Artefacts = dict[Path, bytes | Iterable[bytes]]


def run(args: Namespace) -> int:
    try:
        kinds = chosen(args.emit, KINDS, "--emit", exporters)
        from ..view.draw.views import VIEWS

        views = chosen(args.view, tuple(VIEWS), "--view")
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell(plan.diagnostics, requirements=args.json)
        files: Artefacts = {}
        folders: dict[Path, Callable[[Path], None]] = {}
        if kinds or args.output:
            directory = Path(args.output or f"{stem(args.spec)}.out")
            folders = trace_folders(plan, directory, stem(args.spec), kinds)
            for folder in folders:
                refuse_existing(folder, args.force)
            files = artefacts(plan, directory, stem(args.spec), kinds, views, args.ranks)
            write_all(files, folders, force=args.force)
        if args.json:
            from ..export.json import dumps, plan_object

            put(dumps(plan_object(plan), indent=True))
        elif args.format == "md":
            sys.stdout.write(plan.markdown())
        else:
            sys.stdout.write(plan.report(color=color(sys.stdout)))
            for path in (*files, *folders):
                print(f"wrote {path}")
        return 0 if plan.passed else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def exporters() -> list[str]:
    from ..pipeline.plugins import exporters

    return exporters()


def trace_folders(plan: Plan, directory: Path, name: str, kinds: list[str]) -> dict[Path, Callable[[Path], None]]:
    """Directories that are written rank by rank, each with what fills it."""
    if "chakra" not in kinds:
        return {}
    from ..export.chakra.files import check_name, write

    folders: dict[Path, Callable[[Path], None]] = {}
    for phase in plan.phases:
        folder = directory / f"{name}.{phase}.chakra"
        check_name(folder)
        folders[folder] = partial(write, plan, phase, name=folder.name)
    return folders


def artefacts(plan: Plan, directory: Path, name: str, kinds: list[str], views: list[str], ranks: str) -> Artefacts:
    """Every file to write, complete in memory but for traces: nothing is written when one of them fails."""
    from ..view.draw.views import RendererMissing, picture

    files: Artefacts = {directory / f"{name}.txt": plan.report().encode()}
    for phase in plan.phases:
        for view in views if set(kinds) & set(PICTURES) else ():
            for kind in (k for k in PICTURES if k in kinds):
                try:
                    data = picture(plan, phase, view, kind)
                except RendererMissing as error:
                    raise SpecError([Diagnostic("E16", str(error))]) from None
                files[directory / f"{name}.{phase}.{view}.{kind}"] = data
        if "json" in kinds:
            from ..export.json import dumps, graph_object

            files[directory / f"{name}.{phase}.graph.json"] = dumps(graph_object(plan, phase, ranks=ranks))
        if "perfetto" in kinds:
            from ..export import chrome, perfetto

            files[directory / f"{name}.{phase}.trace.json"] = chrome.trace(plan, phase, ranks)
            files[directory / f"{name}.{phase}.pftrace"] = perfetto.trace(plan, phase, ranks)
        if {"nodelink", "graphml"} & set(kinds):
            from ..export.interchange import graphml, node_link

            graph = plan.to_networkx(phase, ranks=ranks)
            for kind, write, suffix in (("nodelink", node_link, "nodelink.json"), ("graphml", graphml, "graphml")):
                if kind in kinds:
                    files[directory / f"{name}.{phase}.{suffix}"] = write(graph)
        for kind in (k for k in kinds if k not in KINDS):
            from ..pipeline.plugins import export

            for suffix, data in export(kind, plan, phase).items():
                path = directory / f"{name}.{phase}.{suffix}"
                if path in files:
                    raise SpecError(
                        [Diagnostic("E05", f"`{kind}` would write over {path}, which another exporter makes")]
                    )
                files[path] = data
    if "html" in kinds:
        files[directory / f"{name}.html"] = plan.html().encode()
    if "md" in kinds:
        files[directory / f"{name}.md"] = plan.markdown().encode()
    if "json" in kinds:
        from ..export.json import dumps, plan_object

        files[directory / f"{name}.json"] = dumps(plan_object(plan), indent=True)
    return files
