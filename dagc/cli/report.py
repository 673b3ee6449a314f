"""`dagc report`: the plan as one HTML page, as Markdown or as text."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..api import Plan
from ..base.diagnostics import Diagnostic, SpecError
from .common import compiled, put, stem, tell
from .writing import write_all

FORMATS = {".html": "html", ".htm": "html", ".md": "md", ".txt": "text"}


def run(args: Namespace) -> int:
    try:
        target = Path(args.output) if args.output else None
        kind = args.format or _format(target)
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell(plan.diagnostics, requirements=False)
        data = _render(plan, kind)
        if target is None and kind == "html":
            target = Path(f"{stem(args.spec)}.html")
        if target is None:
            put(data)
        else:
            write_all({target: data}, force=args.force)
            print(f"wrote {target}")
        return 0 if plan.passed else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def _format(target: Path | None) -> str:
    """By the name of the file; a page where there is none."""
    if target is None:
        return "html"
    if target.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise SpecError(
            [Diagnostic("E14", f"`{target}`: a report ends in {known}", help=("or say it: --format html",))]
        )
    return FORMATS[target.suffix.lower()]


def _render(plan: Plan, kind: str) -> bytes:
    if kind == "md":
        return plan.markdown().encode()
    if kind == "text":
        return plan.report().encode()
    return plan.html().encode()
