"""`dagc explain CODE`."""

from __future__ import annotations

import sys
from argparse import Namespace

from ..lang.codes import TITLES
from ..lang.diagnostics import Diagnostic, did_you_mean
from .common import tell


def run(args: Namespace) -> int:
    from ..lang.explain import explain

    if args.code is None:
        for code, title in TITLES.items():
            print(f"{code}  {title}")
        return 0
    page = explain(args.code.upper())
    if page is None:
        near = did_you_mean(args.code, TITLES)
        hint = f"did you mean `{near}`?" if near else f"codes: {', '.join(TITLES)}"
        tell([Diagnostic("E14", f"unknown code `{args.code}`", help=(hint,))])
        return 2
    sys.stdout.write(page)
    return 0
