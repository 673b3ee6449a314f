"""`dagc check`: the verdict, for people and for CI. Writes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.render import render
from .common import audible, settings, width
from .manner import color, manner
from .watch import watched

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from .kept_verdicts import Checked


def add_arguments(parser: ArgumentParser) -> None:
    from .arguments import common_arguments
    from .watch import watch_argument

    parser.add_argument("specs", nargs="+", metavar="SPEC", help="spec files, - for standard input")
    common_arguments(parser)
    parser.add_argument(
        "--format", choices=("text", "concise", "json", "github", "sarif"), default="text", help="default: text"
    )
    watch_argument(parser)


def run(args: Namespace) -> int:
    return watched(args, args.specs, once)


def once(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source
    from .kept_verdicts import checked

    diagnostics: list[Diagnostic] = []
    found: list[tuple[str, Checked | None]] = []
    code = 0
    for spec in args.specs:
        try:
            source = read_source(spec, args.allow_import)
            one = checked(source, settings(args), args.phase, folder_of(spec), args.allow_import)
        except SpecError as error:
            diagnostics += error.diagnostics
            code = 2
            found.append((spec, None))
            continue
        diagnostics += one.diagnostics
        if not one.passed:
            code = max(code, 1)
        found.append((spec, one))
    shown = audible(diagnostics) if args.format == "text" else diagnostics
    text = render(shown, args.format, args.format == "text" and color(sys.stderr))
    if args.format == "text":
        if text:
            print(text, file=sys.stderr, flush=True)
        _print(found)
    else:
        # Lines of `github` are commands to the CI, every other line is kept from being one.
        write = getattr(sys.stdout, "write_commands", None) if args.format == "github" else None
        (write or sys.stdout.write)(text if text.endswith("\n") or not text else text + "\n")
    return code


INVALID = "not a valid plan"


def _print(found: Sequence[tuple[str, Checked | None]]) -> None:
    """A line each; of one plan that fails, what does, and its line once more; of several plans their total."""
    lines = [f"{spec}: {INVALID if one is None else one.verdict}" for spec, one in found]
    print("\n".join(lines))
    if len(found) > 1:
        count = Counter(INVALID if one is None else one.state for _, one in found)
        print(f"{len(found)} plans: {', '.join(f'{n} {what}' for what, n in count.items())}")
        return
    (_, only), *_ = found
    if only is None or manner().quiet or not only.failing:
        return
    from ..view.report.requirement_lines import requirement_lines
    from ..view.report.terminal_text import Paint, within

    paint = Paint(color(sys.stdout), width(sys.stdout))
    shown = requirement_lines(only.failing, paint)
    print("\n".join([*(part for line in shown for part in within(line, paint.width)), *lines]))
