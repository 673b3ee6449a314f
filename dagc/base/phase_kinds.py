"""The kinds of phase, and what passes, prices and reports ask of one.

A mixed step has parts (`spec/phase.py`), each of which is like a pass of one of the other two kinds: whatever asks about a
part's own ops asks the kind of that part, by the scope of the op.
"""

from __future__ import annotations

from collections.abc import Mapping

from .frozen import record


@record
class PhaseKind:
    """`takes_prompts`: a pass reads stretches of prompts, whose tokens can be split over ranks. `generates`: a pass is a step
    whose sampled tokens begin the next one, over a cache that is there. `metric`: what its time is called."""

    name: str
    takes_prompts: bool
    generates: bool
    metric: str


PREFILL = PhaseKind("prefill", takes_prompts=True, generates=False, metric="ttft")
DECODE = PhaseKind("decode", takes_prompts=False, generates=True, metric="tpot")
MIXED = PhaseKind("mixed", takes_prompts=True, generates=True, metric="step_time")
TRAIN = PhaseKind("train", takes_prompts=True, generates=False, metric="step_time")
SERVED: Mapping[str, PhaseKind] = {kind.name: kind for kind in (PREFILL, DECODE, MIXED)}
"""Kinds of inference."""
PHASE_KINDS: Mapping[str, PhaseKind] = {**SERVED, TRAIN.name: TRAIN}

PROMPT = "prompt"
"""Scope of the ops of the prompts of a mixed step; where they have several lengths, those of a further one: `prompt2`, .."""
SAMPLED = "sampled"
"""Scope of ops on the rows of a mixed step that are sampled: those of the decode part, and the last one of every prompt."""


def is_part(scope: str) -> bool:
    """Whether ops of this scope belong to one part of a mixed step."""
    return scope == DECODE.name or is_of_prompts(scope)


def is_of_prompts(scope: str) -> bool:
    """Whether ops of this scope belong to the prompts of a mixed step."""
    return scope.startswith(PROMPT)


def part_kind(scope: str, kind: str) -> PhaseKind:
    """What ops of a scope are like, in a graph of this kind."""
    if scope == DECODE.name:
        return DECODE
    return PREFILL if is_of_prompts(scope) else PHASE_KINDS[kind]
