"""One plan compiled and proved."""

from __future__ import annotations

from dataclasses import dataclass

import dagc
from dagc.base.diagnostics import SpecError
from dagc.execute.prove import prove_small

from .plans import spec


@dataclass(frozen=True)
class Verdict:
    """`word`: equal, differs, not run, or refused: it does not compile. `why`: the first error, or what the proof says."""

    word: str
    why: str


def judge(model: str, strategy: str, kind: str) -> Verdict:
    try:
        plan = dagc.compile_text(spec(model, strategy, kind))
    except SpecError as error:
        return Verdict("refused", next(d.message for d in error.diagnostics if d.code.startswith("E")))
    proof = prove_small(plan, kind)
    return Verdict(
        proof.verdict,
        proof.why or proof.first or ", ".join((*proof.bytes_wrong, *proof.work_wrong, *proof.memory_wrong)),
    )
