"""`dagc show`: one picture."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..lang.diagnostics import Diagnostic, SpecError
from ..plan import Plan
from .common import compiled, tell, write_all

FORMATS = (".dot", ".svg", ".png", ".pdf")


def run(args: Namespace) -> int:
    from ..export.views import VIEWS, RendererMissing, render

    target = Path(args.output) if args.output else None
    formats = FORMATS if args.view in VIEWS else (".svg",)
    if target is not None and target.suffix not in formats:
        tell([Diagnostic("E05", f"`{target}`: a picture of the {args.view} ends in {', '.join(formats)}")])
        return 2
    plan = compiled(args.spec, args)
    if plan is None:
        return 2
    if args.view not in VIEWS:
        return _figures(plan, args.view, target)
    texts = {phase: VIEWS[args.view](plan, phase) for phase in plan.phases}
    if target is None:
        sys.stdout.write("".join(texts.values()))
        return 0
    try:
        files = {}
        for phase, text in texts.items():
            path = _path(target, phase, len(texts))
            files[path] = text.encode() if target.suffix == ".dot" else render(text, target.suffix[1:])
        write_all(files)
    except RendererMissing as error:
        tell([Diagnostic("E05", str(error))])
        return 2
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for path in files:
        print(f"wrote {path}")
    return 0


def _path(target: Path, phase: str, phases: int) -> Path:
    """A file a phase, named after it when there are several."""
    return target if phases == 1 else target.with_name(f"{target.stem}.{phase}{target.suffix}")


def _figures(plan: Plan, view: str, target: Path | None) -> int:
    """A figure of the report; SVG, made without Graphviz."""
    from ..export.page.standalone import svg

    texts = {phase: svg(plan, phase, view) for phase in plan.phases}
    if target is None:
        if len(texts) > 1:
            tell([Diagnostic("E05", "there is a picture a phase", help=("-o FILE.svg, or one --phase",))])
            return 2
        sys.stdout.write("".join(texts.values()))
        return 0
    try:
        files = {_path(target, phase, len(texts)): text.encode() for phase, text in texts.items()}
        write_all(files)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for path in files:
        print(f"wrote {path}")
    return 0
