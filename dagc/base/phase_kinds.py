"""The kinds of phase, and what passes, prices and reports ask of one."""

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
PHASE_KINDS: Mapping[str, PhaseKind] = {kind.name: kind for kind in (PREFILL, DECODE)}
