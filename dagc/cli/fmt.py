"""`dagc fmt`: format specs."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..base.diagnostics import Collector, SpecError
from .arguments import allow_import_arguments
from .common import tell
from .manner import say
from .writing import write_all


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "specs", nargs="+", metavar="SPEC", help="spec files; - formats standard input to standard output"
    )
    allow_import_arguments(parser)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file would change")


def run(args: Namespace) -> int:
    from ..base.syntax.format import format_source
    from ..base.syntax.input import read_source
    from ..base.syntax.parse import parse

    code = 0
    for spec in args.specs:
        try:
            source = read_source(spec, args.allow_import)
            out = Collector()
            parse(source, out)
            out.check()  # a file that does not parse is not touched
            text = format_source(source)
            if spec == "-":
                if not args.check:
                    sys.stdout.write(text)
            elif text != source.text and not args.check:
                write_all({Path(os.path.realpath(spec)): text.encode()})
                say(f"formatted {spec}")
            if args.check and text != source.text:
                print(f"would format {spec}")
                code = max(code, 1)
        except SpecError as error:
            tell(error.diagnostics)
            code = 2
    return code
