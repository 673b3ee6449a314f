"""`dagc show`: one picture."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..lang.diagnostics import Diagnostic, SpecError
from .common import compiled, tell, write_all

FORMATS = (".dot", ".svg", ".png", ".pdf")


def run(args: Namespace) -> int:
    from ..export.views import VIEWS, RendererMissing, render

    target = Path(args.output) if args.output else None
    if target is not None and target.suffix not in FORMATS:
        tell([Diagnostic("E05", f"`{target}`: a picture ends in {', '.join(FORMATS)}")])
        return 2
    plan = compiled(args.spec, args)
    if plan is None:
        return 2
    texts = {phase: VIEWS[args.view](plan, phase) for phase in plan.phases}
    if target is None:
        sys.stdout.write("".join(texts.values()))
        return 0
    try:
        files = {}
        for phase, text in texts.items():
            path = target if len(texts) == 1 else target.with_name(f"{target.stem}.{phase}{target.suffix}")
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
