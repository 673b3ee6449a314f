"""`dagc explain CODE`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..base.codes import TITLES
from ..base.diagnostics import Diagnostic
from .common import tell


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="E01, W06, ... (default: list all)")


def run(args: Namespace) -> int:
    from ..base.explain import explain, plain, refilled

    if args.code is None:
        for code, title in TITLES.items():
            print(f"{code}  {title}")
        return 0
    page = explain(args.code.upper())
    if page is None:
        tell([Diagnostic("E14", f"unknown code `{args.code}`", help=("`dagc list codes` shows all",))])
        return 2
    text = plain(page)
    if sys.stdout.isatty():
        from .columns import columns

        text = refilled(text, columns())
    sys.stdout.write(text)
    return 0
