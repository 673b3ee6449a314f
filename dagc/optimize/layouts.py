"""Layouts of a phase on any number of GPUs, and what each of them holds at least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from ..base.axes import DATA, EXPERT, SEQUENCE, STAGES, TENSOR
from ..cost.memory import weight_size
from ..pipeline.changed import Changes, Refused
from ..spec.factors import even_stages
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.strategy import Fold, Strategy
from .search.rules import FOLDED, GPUS, products
from .search.space import Domain, Rule, Tally, legal


def divisors(number: int) -> list[int]:
    """All of them, in order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def layouts(phase: Phase, gpus: int, model: Model) -> Iterator[Strategy]:
    """Strategies on so many GPUs, by the search's grid and its rules on products; no other rule is asked: pp, attention dp and tp,
    experts ep and tp; sp where the phase has it. What else the phase says stays, but `place` and replicas, and spare copies of experts are as many as fill every rank."""
    s, routed = phase.strategy, model.count("experts.count", 0)
    split = (dict(s.attention.degrees).get(SEQUENCE, 1) if s.attention is not None else s.sp) > 1
    stages, attention, experts = products(folded=True)
    sides = [STAGES, "attention.dp", *["attention.sp"] * split, "attention.tp"]
    each = sorted((own[0], own[-1], own[2] if split else 1, own[1]) for own in _grown(gpus, sides, (stages, attention)))
    of_stage: dict[int, list[tuple[int, ...]]] = {}
    for pp, *own in _grown(gpus, [STAGES, "experts.ep", "experts.tp"], (stages, experts)) if routed else ():
        of_stage.setdefault(pp, []).append(tuple(own))
    for pp, tp, sp, dp in each:
        for ep, etp in of_stage[pp] if routed else [(0, 0)]:
            yield with_degrees(s, model, pp, (dp, sp, tp), (ep, etp) if routed else None)


def _grown(gpus: int, paths: Sequence[str], rules: Sequence[Rule]) -> Iterator[tuple[int, ...]]:
    """Degrees that rules let be, in the order of the paths."""
    degrees, names = tuple(divisors(gpus)), {name: path for path, name in FOLDED.items()}
    fixed = {GPUS: gpus, "replicas": 1, SEQUENCE: 1}
    rows = legal([Domain(path, degrees) for path in paths], fixed, names, rules, Tally())
    return zip(*(rows.number(path).tolist() for path in paths), strict=True)


def with_degrees(
    s: Strategy, model: Model, pp: int, attention: tuple[int, int, int], experts: tuple[int, int] | None
) -> Strategy:
    """The strategy with other degrees: attention (dp, sp, tp), experts (ep, tp). Stages as even as they can be."""
    dp, sp, tp = attention
    layers = model.layers
    cut = even_stages(layers, pp) if layers % pp and pp <= layers and not s.balanced else None
    if s.balanced:
        cut = None
    elif s.layers_per_stage is not None and len(s.layers_per_stage) == pp:
        cut = s.layers_per_stage
    kept = replace(s, pp=pp, replicas=1, layers_per_stage=cut, place=None, ids=())
    if experts is None:
        return replace(kept, dp=dp, ep=1, sp=sp, tp=tp, attention=None, experts=None)
    ep, etp = experts
    sides = (Fold(((DATA, dp), (SEQUENCE, sp), (TENSOR, tp))), Fold(((EXPERT, ep), (TENSOR, etp))))
    spare = filling(model.count("experts.count", 0), s.redundant, ep)
    return replace(kept, dp=1, ep=1, sp=1, tp=1, attention=sides[0], experts=sides[1], redundant=spare)


def filling(experts: int, redundant: int, ep: int) -> int:
    """Spare copies that fill every rank: those wanted or a few more; as few as possible where so many would be doubles."""
    more = redundant + -(experts + redundant) % ep
    return more if more <= experts * (ep - 1) else -experts % ep


@dataclass(slots=True)
class LeastMemory:
    """What a rank of a layout holds at least: its share of weights and of cache, as lowered with the same tp and sp on as few GPUs as
    these take. Kernels, activations and buffers come on top, and stages that are fuller than others."""

    changes: Changes
    phase: Phase
    known: dict[tuple[int, int], tuple[float, float, float] | None] = field(default_factory=dict)

    def parts(self, tp: int, sp: int) -> tuple[float, float, float] | None:
        """Bytes of (weights outside of experts on a rank, all routed experts, the cache of all sequences on a rank) with one stage
        and one dp rank; None where tp or sp is refused."""
        key = (tp, sp)
        if key not in self.known:
            self.known[key] = self._parts(tp, sp)
        return self.known[key]

    def _parts(self, tp: int, sp: int) -> tuple[float, float, float] | None:
        spec, phase = self.changes.spec, self.phase
        experts = (1, 1) if spec.model.count("experts.count", 0) else None
        s = with_degrees(phase.strategy, spec.model, 1, (1, sp, tp), experts)
        s = replace(s, redundant=0, microbatches=1, overlap="none", layers_per_stage=None, best=False, balanced=False)
        small = replace(phase, gpus=tuple(range(tp * sp)), strategy=s, drafter="none")
        if self.changes.refusal(small) is not None:
            return None
        found = self.changes.lowered(alone(spec, small), small)
        if isinstance(found, Refused):
            return None
        graph, memory = found
        mesh = graph.the_mesh
        routed_B = sum(
            segment.repeat * weight_size(segment, w, mesh)
            for segment in graph.segments
            for w in segment.weights
            if w.scope == "experts"
        )
        (stage,) = memory.stages
        return stage.weights_B - routed_B, routed_B, stage.kv_cache_B

    def gpus(self, limit_B: float) -> int:
        """How many GPUs it takes at least where weights and cache of each may take so much: splitting them makes them no smaller."""
        found = self.parts(1, 1)
        if found is None or self.phase.strategy.shard or limit_B <= 0:
            return 1
        return max(1, ceil(sum(found) / limit_B * (1 - 1e-9)))

    def of(self, s: Strategy) -> float:
        """Bytes on the fullest rank, at least; infinite where tp or sp is refused. 0 where rules of the phase's own split weights."""
        degrees = dict(s.attention.degrees) if s.attention is not None else {DATA: s.dp, SEQUENCE: s.sp, TENSOR: s.tp}
        found = self.parts(degrees[TENSOR], degrees[SEQUENCE])
        if found is None:
            return float("inf")
        if s.shard:
            return 0.0
        dense_B, routed_B, cache_B = found
        routed = dict(s.experts.degrees) if s.experts is not None else {EXPERT: 1, TENSOR: s.tp}
        count = max(1, self.changes.spec.model.count("experts.count", 0))
        spare = 0 if self.phase.experts.resident else s.redundant  # whichever experts are resident, they are as many
        slots = (count + spare) / count / (routed[EXPERT] * routed[TENSOR])
        return (dense_B + routed_B * slots + cache_B / degrees[DATA]) / s.pp


def alone(spec: Spec, phase: Phase) -> Spec:
    """The spec with one phase, whose layout follows no other."""
    return replace(spec, phases=(phase,), requirements=(), serves=())


def relaid(own: Strategy, other: Strategy) -> Strategy:
    """A strategy with the degrees of another one: its order, micro-batches, methods and rules stay its own."""
    return replace(
        own, pp=other.pp, dp=other.dp, ep=other.ep, sp=other.sp, tp=other.tp, replicas=other.replicas, attention=other.attention,
        experts=other.experts, redundant=other.redundant, expert_placement=other.expert_placement, layers_per_stage=other.layers_per_stage, place=None, ids=(),
    )  # fmt: skip


def layout_words(phase: Phase) -> str:
    """`pp = 2, attention { dp = 2, tp = 4 }, experts { ep = 8 }`"""
    s = phase.strategy
    parts = [f"{name} = {n}" for name in ("replicas", STAGES) if (n := getattr(s, name)) > 1]
    if s.attention is None:
        parts += [f"{axis} = {n}" for axis in (DATA, EXPERT, SEQUENCE, TENSOR) if (n := getattr(s, axis)) > 1]
    for name, fold in (("attention", s.attention), ("experts", s.experts)):
        if fold is not None:
            degrees = ", ".join(f"{axis} = {n}" for axis, n in fold.degrees if n > 1) or "tp = 1"
            parts.append(f"{name} {{ {degrees} }}")
    if s.redundant:
        parts.append(f"redundant = {s.redundant}")
    if s.expert_placement:
        parts.append(f"expert_placement = {s.expert_placement}")
    return ", ".join(parts) or "tp = 1"
