"""`dagc pick`: alternatives of a phase beside each other, or the chosen one written back as a plain spec."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from .arguments import allow_import_arguments
from .common import settings, tell
from .manner import say
from .writing import write_all

if TYPE_CHECKING:
    from ..base.source import Source
    from ..lang.open_spec import OpenSpec


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="spec file, - for standard input")
    parser.add_argument(
        "names",
        nargs="*",
        default=[],  # else argparse asks for one where any word is missing
        metavar="NAME",
        help="alternatives to keep: wide, or decode=wide (none: compile and compare all)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="value of a param (repeatable)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the spec there, e.g. SPEC itself (default: print it)"
    )
    allow_import_arguments(parser)


def run(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source

    try:
        source = read_source(args.spec, args.allow_import)
        spec = _read(source, args, {}, folder_of(args.spec))
        if not spec.spec.alternatives:
            help_ = ("phase decode { alternative small { tp = 8 } alternative wide { ep = 8 } }",)
            raise SpecError([Diagnostic("E14", "no phase of the spec has alternatives", help=help_)])
        if not args.names:
            if args.output:
                raise SpecError(
                    [Diagnostic("E14", "`-o` needs the alternative that is written: `dagc pick SPEC NAME -o FILE`")]
                )
            return _compare(spec, args)
        text = _read(source, args, _asked(args.names, spec), folder_of(args.spec)).picked()
        if args.output:
            path = Path(args.output)
            _readable(text, path, args)
            write_all({path: text.encode()})
            say(f"wrote {path}")
        else:
            sys.stdout.write(text)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return 0


def _read(source: Source, args: Namespace, picked: Mapping[str, str], folder: Path | None) -> OpenSpec:
    from ..lang.open_spec import load_open

    return load_open(source, Collector(), {**settings(args), **picked}, folder, args.allow_import)


def _asked(names: Sequence[str], spec: OpenSpec) -> dict[str, str]:
    """Alternative by phase: `wide` is that of every phase that has one of the name."""
    known = {phase: a.names for phase, a in spec.spec.alternatives.items()}
    picked: dict[str, str] = {}
    for text in names:
        phase, sign, name = (part.strip() for part in text.partition("="))
        owners = [phase] if sign else [owner for owner, its in known.items() if text in its]
        name = name if sign else text
        for owner in owners:
            if owner not in known:
                raise SpecError(
                    [
                        Diagnostic(
                            "E14",
                            f"no phase `{owner}` has alternatives",
                            help=(f"those that have: {', '.join(known)}",),
                        )
                    ]
                )
            if picked.setdefault(owner, name) != name:
                raise SpecError(
                    [Diagnostic("E14", f"two alternatives of `{owner}` are asked for: {picked[owner]}, {name}")]
                )
        if not owners:
            every = [n for its in known.values() for n in its]
            near = did_you_mean(name, every)
            hint = (
                f"did you mean `{near}`?"
                if near
                else "; ".join(f"{p}: {', '.join(its[:12])}" for p, its in known.items())
            )
            raise SpecError([Diagnostic("E14", f"no phase has an alternative `{name}`", help=(hint,))])
    return picked


def _readable(text: str, path: Path, args: Namespace) -> None:
    """Files that the spec names are looked up beside it: raises SpecError where they are not there."""
    from ..base.source import Source

    _read(Source(str(path), text), Namespace(set=[], allow_import=args.allow_import), {}, path.parent)


def _compare(spec: OpenSpec, args: Namespace) -> int:
    """Every combination compiled, a row each."""
    from . import sweep

    over = [f"{phase}={','.join(names)}" for phase, names in spec.alternatives.items()]
    if not over:
        raise SpecError([Diagnostic("E14", "`--set` picks the alternatives: there is nothing to compare")])
    return sweep.run(
        Namespace(
            spec=args.spec, set=args.set, phase=[], allow_import=args.allow_import, over=over, metric=[], workers=None, on="",
            format="text",
        )
    )  # fmt: skip
