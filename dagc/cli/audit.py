"""`dagc audit`: numbers that a document claims, beside what the plan of a spec has for each."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.harmless import in_json
from .arguments import common_arguments
from .common import compiled, put, tell, width
from .manner import manner

if TYPE_CHECKING:
    from ..prose.judged_claims import Audit


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("document", metavar="PLAN.md", help="text or Markdown, - for standard input")
    parser.add_argument("--against", metavar="SPEC", required=True, help="the spec whose plan it is compared with")
    common_arguments(parser)
    parser.add_argument("--failing", action="store_true", help="print only what does not hold")
    parser.add_argument(
        "--emit",
        choices=("require",),
        help="require: print the claims that can be judged as lines of a spec, and nothing else",
    )
    parser.add_argument("--write", action="store_true", help="add these lines to SPEC, those that it has not yet")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    from ..prose.audit_text import formatted, plain, requirements, summary, text
    from ..prose.document import read_document
    from ..prose.judged_claims import audit

    try:
        if args.write and (args.against == "-" or args.against.endswith(".json")):
            raise SpecError(
                [
                    Diagnostic(
                        "E14", "`--write` needs a spec file to write to", help=("--emit require prints the lines",)
                    )
                ]
            )
        source = read_document(args.document, args.allow_import)
        plan = compiled(args.against, args)
        if plan is None:
            return 2
        found = audit(source, plan.subject())
        if args.write:
            _write(args, found)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    if args.json:
        put((in_json(json.dumps(plain(found, args.against), indent=1, ensure_ascii=False)) + "\n").encode())
    elif args.emit:
        put("".join(f"{formatted(line)}\n" for line in requirements(found)).encode())
    else:
        from ..view.report.terminal_text import narrow

        lines = [summary(found)] if manner().quiet else text(found, whole=not args.failing)
        print("\n".join(narrow(lines, width(sys.stdout))))
    return 0 if found.holds else 1


def _write(args: Namespace, found: Audit) -> None:
    """The spec with the lines at its end. Raises SpecError."""
    from ..base.syntax.input import read_source
    from ..prose.audit_text import appended
    from .writing import write_all

    source = read_source(args.against, args.allow_import)
    after = appended(source, found)
    if after != source.text:
        write_all({Path(args.against): after.encode()})
