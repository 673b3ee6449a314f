"""`dagc verify`: the numeric proof of a plan, on its small twin or with real weights."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from .arguments import spec_arguments
from .common import settings, tell

if TYPE_CHECKING:
    from ..execute.prove import Proof
    from ..spec.phase import Phase
    from ..spec.spec import Spec


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument("--weights", metavar="FILE", help="an .npz checkpoint: run the model itself at its full dims")
    parser.add_argument(
        "--reference", metavar="FILE", help="an .npz with input_ids and the logits another program gave"
    )


def run(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load

    code = 0
    try:
        source = read_source(args.spec, args.allow_import)
        spec = load(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)
        known = [p.name for p in spec.phases]
        for name in args.phase:
            if name not in known:
                raise SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])
        if args.reference and not args.weights:
            raise SpecError([Diagnostic("E14", "`--reference` needs `--weights`: logits belong to weights")])
        for phase in spec.phases:
            if not args.phase or phase.name in args.phase:
                proof = prove_phase(spec, phase, args)
                print(verdict(proof))
                code = code if proof.holds else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return code


def prove_phase(spec: Spec, phase: Phase, args: Namespace) -> Proof:
    """On a small twin with random weights, or at full dims with the weights given."""
    from ..execute.checkpoint import Checkpoint, CheckpointError
    from ..execute.prove import prove_small
    from ..execute.reference import Reference, ReferenceMismatch, prove_reference
    from ..pipeline.compile import compile_spec

    if not args.weights:
        return prove_small(compile_spec(replace(spec, requirements=()), Collector(), [phase.name]), phase.name)
    try:
        reference = Reference.open(Path(args.reference)) if args.reference else None
        return prove_reference(spec, phase, Checkpoint.open(spec.model, Path(args.weights)), reference)
    except (CheckpointError, ReferenceMismatch) as error:
        raise SpecError([Diagnostic("E05", str(error))]) from None


def verdict(proof: Proof) -> str:
    """One line for each phase, and more for what is wrong."""
    from ..execute.prove import TOLERANCE

    if proof.verdict == "not run":
        return f"{proof.phase}: not run, so nothing is proved: {proof.why}"
    own = "" if proof.reference_error is None else f", model against reference {proof.reference_error:.1e}"
    lines = [
        f"{proof.phase}: {proof.verdict} on {proof.ranks} ranks, largest error of logits {proof.error:.1e}, KV cache "
        f"{proof.cache_error:.1e}{own} (allowed {TOLERANCE:.0e}); counted: bytes of {proof.collectives} collectives"
        f"{' and of requests' if proof.requests else ''}, FLOPs, weights and cache of every rank"
    ]
    if proof.first:
        lines.append(f"  first at {proof.first}")
    if proof.work_wrong:
        lines.append(f"  counted FLOPs are not the compiler's: {', '.join(proof.work_wrong)}")
    if proof.memory_wrong:
        lines.append(f"  stored bytes are not the compiler's: {', '.join(proof.memory_wrong)}")
    if proof.bytes_wrong:
        lines.append(f"  counted bytes are not the compiler's: {', '.join(proof.bytes_wrong)}")
    lines += [f"    {line}" for line in proof.lines]
    return "\n".join(lines)
