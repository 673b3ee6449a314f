"""`dagc help COMMAND`: the full page of a command. Opens nothing."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from .commands import COMMANDS


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="the command (default: all of them, in short)")


def run(args: Namespace) -> int:
    from ..base.diagnostics import Diagnostic, did_you_mean
    from .all_commands import overview
    from .common import tell

    if args.topic is None:
        sys.stdout.write(overview())
        return 0
    if args.topic not in COMMANDS:
        near = did_you_mean(args.topic, COMMANDS)
        code = args.topic[:1].upper() in "EWR" and args.topic[1:].isdigit()
        hint = f"`dagc explain {args.topic}` explains a code" if code else "`dagc help` lists all"
        tell(
            [
                Diagnostic(
                    "E14", f"dagc has no command `{args.topic}`", help=(f"did you mean `{near}`?" if near else hint,)
                )
            ]
        )
        return 2
    from .command_records import command_of, parsers
    from .help_text import page

    parser = parsers([args.topic])[args.topic]
    sys.stdout.write(page(command_of(args.topic, parser), parser))
    return 0
