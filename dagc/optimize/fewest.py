"""The fewest GPUs that hold phases, with their layout, and what keeps every layout on one GPU fewer from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ..base.frozen import record
from ..base.units import BYTES, show
from ..pipeline.changed import Held, Refused, with_phases
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from .layouts import LeastMemory, layout_words, layouts, relaid
from .room import Edge, Fit

LOWERED = 3000
"""Layouts of one question that are lowered at most."""
COUNTED = 50_000
"""Layouts on one number of GPUs that are looked at at most."""
NUMBERS = 4096
"""Numbers of GPUs that are tried at most."""
MEMORY = "memory"


@record
class Broken:
    """A rule that layouts break: how many of them, and what it says of one."""

    rule: str
    count: int
    example: str


@record
class Fewest:
    """`phases`: those on the same GPUs, in one layout. `sequences`: of each. `layout`: the phases there, none where no number of GPUs
    up to `most` holds them. `fewer`: the rules that all layouts on one GPU fewer break; `least`: fewer GPUs than these cannot hold
    weights and cache in any layout. `complete`: every layout on fewer GPUs was refused by a rule, by that bound or by what it holds."""

    phases: tuple[str, ...]
    sequences: tuple[int, ...]
    written: int
    gpus: int
    layout: tuple[Phase, ...]
    edge: Edge | None
    most: int
    least: int
    fewer: tuple[Broken, ...] = ()
    tried: int = 0
    complete: bool = True


def together(fit: Fit, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Phases by the GPUs that they use: those on the same ones are of one engine."""
    groups: dict[tuple[str, frozenset[int]], list[str]] = {}
    for phase in fit.plan.spec.phases:
        groups.setdefault((phase.hardware, frozenset(phase.gpus)), []).append(phase.name)
    return [tuple(found) for found in groups.values() if set(found) & set(names)]


def fewest(fit: Fit, names: Sequence[str], *, sequences: int | None = None, ids: Sequence[int] = ()) -> Fewest:
    """Of phases on the same GPUs, with their batches as written or others. `ids`: GPUs to choose from, in this order; their own and those
    that no phase uses where none are named."""
    return Question(fit, names, sequences, list(ids)).answer()


@dataclass(slots=True)
class Question:
    """Phases on the same GPUs, in one layout of any number of them."""

    fit: Fit
    names: Sequence[str]
    sequences: int | None
    ids: list[int]
    phases: list[Phase] = field(init=False)
    bounds: list[LeastMemory] = field(init=False)
    tried: int = 0

    def __post_init__(self) -> None:
        spec = self.fit.plan.spec
        written = [spec.phase(name) for name in self.names]
        self.phases = [p if self.sequences is None else with_sequences(p, self.sequences) for p in written]
        self.ids = self.ids or [*written[0].gpus, *spec.unused(written[0])]
        self.bounds = [LeastMemory(self.fit.changes, phase) for phase in self.phases]

    def may_hold_B(self, phase: Phase) -> float:
        """What weights and cache alone may not pass, whatever else there is."""
        hardware, engine = self.fit.plan.spec.of(phase).hardware, phase.memory
        share = engine.fraction if engine.of == "all" else 1.0
        return share * hardware.memory_B - hardware.reserve_B

    def answer(self) -> Fewest:
        """Numbers of GPUs from the least on which weights and cache could stand, until a layout holds the phases."""
        start = max(bound.gpus(self.may_hold_B(bound.phase)) for bound in self.bounds)
        least, complete = 0, True
        for count in range(start, len(self.ids) + 1):
            if count >= start + NUMBERS:
                complete = False
                break
            found = sorted(
                ((self.bound(s)[0], k, s) for k, s in enumerate(self.layouts(count))), key=lambda one: one[:2]
            )
            complete &= len(found) < COUNTED
            possible = [s for share, _, s in found if share <= 1]
            least = least or (count if possible else 0)
            for s in possible:
                if self.tried >= LOWERED:
                    complete = False
                    break
                phases, held = self.held(s, count)
                if isinstance(held, Held) and held.fits:
                    return self.told(phases, least, complete)
        return self.told([], least or len(self.ids) + 1, complete)

    def told(self, phases: Sequence[Phase], least: int, complete: bool) -> Fewest:
        """The answer, compiled, beside what stops one GPU fewer."""
        changes = self.fit.changes
        count = len(phases[0].gpus) if phases else 0
        edge = None
        if phases:
            spec = with_phases(changes.spec, [changes.with_engine(phase) for phase in phases])
            edge = self.fit.compiled_edge(count, spec, *self.names)
        fewer = count - 1 if phases else len(self.ids)
        written = len(self.phases[0].gpus)
        return Fewest(
            tuple(self.names), tuple(p.sequences for p in self.phases), written, count, tuple(phases), edge, len(self.ids),
            least, self.broken(fewer) if fewer else (), self.tried, complete,
        )  # fmt: skip

    def layouts(self, count: int) -> Iterator[Strategy]:
        """On so many GPUs."""
        return islice(layouts(self.phases[0], count, self.fit.plan.spec.model), COUNTED)

    def bound(self, s: Strategy) -> tuple[float, float, float]:
        """(share, bytes, limit) of weights and cache on the fullest rank, at least, of what they may take, for the phase that needs most."""
        found = ((bound.of(s), self.may_hold_B(bound.phase)) for bound in self.bounds)
        return max((held_B / limit_B if limit_B > 0 else float("inf"), held_B, limit_B) for held_B, limit_B in found)

    def laid_out(self, s: Strategy, count: int) -> list[Phase]:
        """The phases in a layout on the first so many GPUs."""
        ids = tuple(self.ids[:count])
        return [replace(phase, gpus=ids, strategy=relaid(phase.strategy, s)) for phase in self.phases]

    def held(self, s: Strategy, count: int) -> tuple[list[Phase], Held | Refused]:
        """What the phases hold in a layout, or the rule that it breaks."""
        phases, changes = self.laid_out(s, count), self.fit.changes
        refused = next((r for phase in phases if (r := changes.refusal(phase)) is not None), None)
        if refused is not None:
            return phases, refused
        self.tried += 1
        return phases, changes.held(phases)

    def broken(self, count: int) -> tuple[Broken, ...]:
        """Why no layout on so many GPUs holds the phases: rules with their counts, the most frequent first."""
        counts: dict[str, int] = {}
        nearest: dict[str, tuple[float, str]] = {}

        def add(rule: str, share: float, example: str) -> None:
            counts[rule] = counts.get(rule, 0) + 1
            if rule not in nearest or share < nearest[rule][0]:
                nearest[rule] = (share, example)

        for s in self.layouts(count):
            share, bound_B, limit_B = self.bound(s)
            phases = self.laid_out(s, count)
            words = layout_words(phases[0])
            refused = next((r for phase in phases if (r := self.fit.changes.refusal(phase)) is not None), None)
            if refused is None and share > 1:
                held = f"{show(bound_B, BYTES)} of {show(limit_B, BYTES)} a GPU for weights and cache alone"
                add(MEMORY, share, f"{words}: {held}")
                continue
            found = refused or (self.held(s, count)[1] if self.tried < 2 * LOWERED else Refused(()))
            if isinstance(found, Refused):
                add(re.sub(r"\d+", "N", found.why), 0.0, f"{words}: {found.why}")
            else:
                pool = found.fullest
                held = f"{show(pool.peak_B, BYTES)} of {show(pool.capacity_B, BYTES)} on the fullest GPU"
                add(MEMORY, found.fraction, f"{words}: {held}")
        order = sorted(counts, key=lambda rule: (-counts[rule], rule))
        return tuple(Broken(rule, counts[rule], nearest[rule][1]) for rule in order)


def with_sequences(phase: Phase, sequences: int) -> Phase:
    """The phase with another batch; of a mixed step every part has so many. Packed prompts are those that are written."""
    if phase.lengths is not None and phase.lengths.prompts:
        return phase
    if not phase.parts:
        return replace(phase, sequences=sequences)
    parts = tuple(replace(part, sequences=sequences) for part in phase.parts)
    return replace(phase, parts=parts, sequences=sequences * len(parts))
