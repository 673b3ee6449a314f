"""`dagc check`: the verdict, for people and for CI. Writes nothing."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..base.diagnostics import Diagnostic, SpecError
from ..base.render import render
from .arguments import common_arguments
from .common import audible, settings, verdict
from .manner import color


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="spec files, - for standard input")
    common_arguments(parser)
    parser.add_argument(
        "--format", choices=("text", "concise", "json", "github", "sarif"), default="text", help="default: text"
    )


def run(args: Namespace) -> int:
    from ..api import compile

    diagnostics: list[Diagnostic] = []
    code = 0
    for spec in args.specs:
        try:
            plan = compile(spec, settings=settings(args), phases=args.phase or None, allow_import=args.allow_import)
        except SpecError as error:
            diagnostics += error.diagnostics
            code = 2
            if args.format == "text":
                print(f"{spec}: not a valid plan")
            continue
        diagnostics += plan.diagnostics
        if not plan.passed:
            code = max(code, 1)
        if args.format == "text":
            print(verdict(spec, plan))
    shown = audible(diagnostics) if args.format == "text" else diagnostics
    text = render(shown, args.format, args.format == "text" and color(sys.stderr))
    if args.format == "text":
        if text:
            print(text, file=sys.stderr)
    else:
        # Lines of `github` are commands to the CI, every other line is kept from being one.
        write = getattr(sys.stdout, "write_commands", None) if args.format == "github" else None
        (write or sys.stdout.write)(text if text.endswith("\n") or not text else text + "\n")
    return code
