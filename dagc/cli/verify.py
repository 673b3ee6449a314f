"""`dagc verify`: the numeric proof of a plan, on its small twin."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..lang.diagnostics import Collector, Diagnostic, SpecError
from .common import settings, tell


def run(args: Namespace) -> int:
    from ..driver import compile_spec, load
    from ..lang.parse import read_source
    from ..proof.prove import TOLERANCE, prove
    from ..proof.shrink import shrink

    code = 0
    try:
        source = read_source(args.spec)
        base = None if args.spec == "-" else Path(args.spec).resolve().parent
        spec = load(source, Collector(), settings(args), base)
        known = [p.name for p in spec.phases]
        for name in args.phase:
            if name not in known:
                raise SpecError([Diagnostic("E02", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])
        for phase in spec.phases:
            if args.phase and phase.name not in args.phase:
                continue
            plan = compile_spec(shrink(spec, phase), Collector())
            proof = prove(plan, phase.name)
            verdict = "equal" if proof.holds else "DIFFERENT"
            where = f", first at {proof.first}" if proof.first else ""
            print(
                f"{phase.name}: {verdict} on {proof.ranks} ranks, largest error {proof.error:.1e} (allowed {TOLERANCE:.0e}){where}"
            )
            code = code if proof.holds else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return code
