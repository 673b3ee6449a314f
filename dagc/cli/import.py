"""`dagc import`: a Hugging Face config.json as a `.moe` model file."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..base.diagnostics import SpecError
from .arguments import allow_import_arguments
from .common import tell
from .writing import write_all


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.json", help="config.json of a model")
    parser.add_argument("-o", "--output", metavar="FILE", help=".moe file to write (default: standard output)")
    allow_import_arguments(parser)


def run(args: Namespace) -> int:
    from ..importers.huggingface import import_config

    try:
        imported = import_config(args.config, args.allow_import)
        text = imported.text()
        if args.output is None:
            sys.stdout.write(text)
        else:
            write_all({Path(args.output): text.encode()})
            print(f"wrote {args.output}")
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0
