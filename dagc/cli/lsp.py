"""`dagc lsp`: a language server for editors, over standard input and output."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec

from ..base.diagnostics import Diagnostic
from .arguments import allow_import_arguments
from .common import settings, tell

EXTRA = "lsp"


def add_arguments(parser: ArgumentParser) -> None:
    allow_import_arguments(parser)
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="set a param of every spec")
    parser.add_argument(
        "--stdio", action="store_true", help="standard input and output, as always; many clients of the protocol add it"
    )


def run(args: Namespace) -> int:
    if find_spec("pygls") is None:
        tell(
            [
                Diagnostic(
                    "E16",
                    "`dagc lsp` needs pygls",
                    help=(f"pip install 'dagc-moe[{EXTRA}]', or pip install 'pygls>=2'",),
                )
            ]
        )
        return 2
    from ..editor.buffer import Settings
    from ..editor.server.language_server import serve

    serve(Settings(settings(args), tuple(map(str, args.allow_import))))
    return 0
