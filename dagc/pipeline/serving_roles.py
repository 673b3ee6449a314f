"""Workers of a serving as its phases make them: roles, ranks that run in lockstep, and phases at the sizes of the serving."""

from __future__ import annotations

from math import lcm

from ..base.axes import SEQUENCE
from ..base.frozen import record, replace
from ..base.phase_kinds import DECODE, PREFILL
from ..plan.result import PhaseResult
from ..spec.batching import Batching
from ..spec.phase import Part, Phase
from ..spec.serve import Serve
from ..spec.spec import Spec

BOTH = "both"
"""Role of workers that take prompts and generate."""


@record(slots=False)
class Role:
    """Phases of the workers of one role. `apart`: those of prompts have GPUs of their own, workers for both take turns."""

    role: str
    decode: Phase | None
    prefill: Phase | None
    mixed: Phase | None
    apart: bool = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple({p.name: p for p in (self.decode, self.prefill, self.mixed) if p is not None}.values())

    @property
    def main(self) -> Phase:
        """The one whose ranks are those of the worker."""
        return self.decode or self.mixed or self.phases[0]


def roles_of(spec: Spec, serve: Serve) -> tuple[Role, ...]:
    """Workers for everything, or for prompts and for decode where these have GPUs of their own."""
    decode, prefill, mixed = (
        None if name is None else spec.phase(name) for name in (serve.decode, serve.prefill, serve.mixed)
    )
    generates = decode or mixed
    apart = prefill is not None and generates is not None and not prefill.shares(generates)
    if apart and serve.roles != "switch":
        return Role(PREFILL.name, None, prefill, None), Role(DECODE.name, decode, None, mixed)
    return (Role(BOTH, decode, prefill, mixed, apart),)


def structure(result: PhaseResult) -> tuple[int, int]:
    """(independent workers, ranks of each that exchange something): ranks that split the batch, apart and together."""
    graph = result.graph
    mesh = graph.the_mesh
    batch = set(mesh.batch_axes)
    exchanged = {axis for segment in graph.segments for op in segment.ops for axis in op.axes}
    together = mesh.size(tuple(a for a, _ in mesh.atoms if a in batch & exchanged))
    return mesh.size(tuple(batch)) // together, together


def alike(phase: Phase, other: Phase) -> bool:
    """Whether steps of both cost the same: they differ in their work alone."""
    left, right = (
        replace(p, name="", kind="", context=0, tokens=0, sequences=0, passes=1, last=0, parts=(), acceptance=0.0, drafter="")
        for p in (phase, other)
    )  # fmt: skip
    return left == right


def grain(result: PhaseResult, phase: Phase) -> int:
    """GPUs that may split the tokens of a data-parallel rank: of an engine, which leaves them whole, none but those of `sp`."""
    mesh = result.graph.the_mesh
    splits = phase.strategy.sequence_parallel or mesh.degrees.get(SEQUENCE, 1) > 1 or phase.exchange is not None
    if phase.memory.engine is not None and not splits:
        return 1
    return mesh.size(tuple(a for a, _ in mesh.atoms)) // mesh.size(mesh.batch_axes)


def sized(phase: Phase, serve: Serve, ranks: int, usual: int, unit: int) -> Phase:
    """The phase with the largest steps of the serving: `slots` sequences, `batch_tokens` of prompts on every rank; tokens in
    multiples of the unit, contexts of what their ranks share them by."""
    tokens = -(-serve.batch_tokens // unit) * unit
    usual = -(-usual // (shared := lcm(unit, phase.strategy.dcp))) * shared
    if phase.kind == DECODE.name:
        return replace(phase, sequences=serve.slots * ranks, context=max(usual, phase.tokens))
    if phase.kind == PREFILL.name:
        return replace(phase, sequences=ranks, tokens=tokens, context=max(usual, tokens), passes=1, last=0)
    parts = tuple(
        replace(part, sequences=serve.slots * ranks, context=max(usual, part.tokens))
        if part.scope == DECODE.name
        else replace(part, sequences=ranks, tokens=tokens, context=max(usual, tokens))
        for part in phase.parts[:2]
    )
    return replace(phase, parts=parts, sequences=sum(p.sequences for p in parts), context=parts[0].context)


def places(phase: Phase) -> list[tuple[Batching, Phase | Part]]:
    """(how a part fills the ranks, the part) of a phase."""
    room = phase.batching
    if not room.parts:
        return [(room, phase)]
    return [(own, part) for (own, _), part in zip(room.parts, phase.parts, strict=True)]
