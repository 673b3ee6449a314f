"""`dagc verify`: the numeric proof of a plan, on its small twin or with real weights."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from .arguments import spec_arguments
from .common import settings, tell

if TYPE_CHECKING:
    from ..execute.prove import Proof
    from ..execute.prove_training import TrainingProof


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument("--weights", metavar="FILE", help="an .npz checkpoint: run the model itself at its full dims")
    parser.add_argument(
        "--reference", metavar="FILE", help="an .npz with input_ids and the logits another program gave"
    )


def run(args: Namespace) -> int:
    from ..api.asked_specs import check_phases
    from ..base.syntax.input import folder_of, read_source
    from ..execute.prove_spec import prove_phase
    from ..lang.load import load

    code = 0
    try:
        source = read_source(args.spec, args.allow_import)
        spec = load(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)
        check_phases(spec, args.phase)
        if args.reference and not args.weights:
            raise SpecError([Diagnostic("E14", "`--reference` needs `--weights`: logits belong to weights")])
        weights, reference = (None if not path else Path(path) for path in (args.weights, args.reference))
        for phase in (*spec.phases, *spec.trainings):
            if not args.phase or phase.name in args.phase:
                proof = prove_phase(spec, phase, weights, reference)
                print(verdict(proof))
                code = code if proof.holds else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    return code


def verdict(proof: Proof | TrainingProof) -> str:
    """One line for each phase, and more for what is wrong."""
    from ..execute.prove import TOLERANCE
    from ..execute.prove_training import TrainingProof

    if isinstance(proof, TrainingProof):
        return training_verdict(proof)
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


def training_verdict(proof: TrainingProof) -> str:
    from ..execute.prove_training import OF_WEIGHTS, TOLERANCE

    if proof.verdict == "not run":
        return f"{proof.phase}: not run, so nothing is proved: {proof.why}"
    lines = [
        f"{proof.phase}: {proof.verdict} on {proof.ranks} ranks, largest error of the loss {proof.loss_error:.1e}, gradients of "
        f"{proof.weights} weights {proof.gradient_error:.1e} (allowed {TOLERANCE:.0e}), new weights {proof.weight_error:.1e} "
        f"(allowed {OF_WEIGHTS:.0e}); counted: bytes of {proof.collectives} collectives and FLOPs of every rank"
    ]
    lines += [f"  first at {proof.first}"] if proof.first else []
    lines += [f"  counted FLOPs are not the compiler's: {', '.join(proof.work_wrong)}"] if proof.work_wrong else []
    lines += [f"  counted bytes are not the compiler's: {', '.join(proof.bytes_wrong)}"] if proof.bytes_wrong else []
    return "\n".join([*lines, *(f"    {line}" for line in proof.lines)])
