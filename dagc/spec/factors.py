"""How a strategy factors the ranks of a stage: for attention and, in the folded form, for experts."""

from __future__ import annotations

from math import prod

from ..base.axes import AXES, EXPERT_REPLICA, REPLICA, STAGES
from .phase import Phase
from .spec import Spec
from .strategy import Fold, Strategy

Side = tuple[tuple[str, int], ...]

LISTED = 16  # stages whose numbers of layers a message has


def factorisations(strategy: Strategy) -> tuple[Side, ...]:
    """Of ranks that attention has: the attention side, then (folded) the expert side; each outermost first as `order` says, replicas outermost of
    all and expert replicas outermost of their side."""
    if strategy.attention is None and strategy.experts is None:
        flat = [(a, getattr(strategy, a)) for a in strategy.order if a != STAGES]
        return (((REPLICA, strategy.replicas), *flat),)
    attention = in_order(strategy, strategy.attention)
    if strategy.apart is not None:
        return (((REPLICA, strategy.replicas), *attention),)
    experts = [(AXES[a].among_experts, n) for a, n in in_order(strategy, strategy.experts)]
    total = prod(n for _, n in attention)
    inner = prod(n for _, n in experts)
    return (
        ((REPLICA, strategy.replicas), *attention),
        ((REPLICA, strategy.replicas), (EXPERT_REPLICA, total // inner), *experts),
    )


def expert_side(strategy: Strategy) -> Side:
    """How experts factor the ranks that they have alone; nothing where they have none."""
    if strategy.apart is None:
        return ()
    return tuple((AXES[a].among_experts, n) for a, n in in_order(strategy, strategy.experts))


def even_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage, as equal as they can be."""
    return tuple(layers // stages + (k < layers % stages) for k in range(stages))


def unequal(layers: int, stages: int) -> str:
    """What to write where layers do not divide."""
    cut = ", ".join(map(str, even_stages(layers, stages))) if stages <= LISTED else "..."
    return f"layers_per_stage = [{cut}] makes them uneven"


def in_order(strategy: Strategy, fold: Fold | None) -> list[tuple[str, int]]:
    degrees = fold.degrees if fold is not None else ()
    return sorted(degrees, key=lambda axis: strategy.order.index(axis[0]))


def neighbours(spec: Spec, own: Phase) -> list[Strategy]:
    """Strategies of other phases that number the same GPUs as this one: stages outermost, ranks in mesh order; or placed best
    together with it."""
    if not _plain(own.strategy):
        return []
    strategies: dict[tuple[Side, ...], Strategy] = {}
    for phase in spec.phases:
        s = phase.strategy
        alike = (s.pp, s.replicas) == (own.strategy.pp, own.strategy.replicas) and s.best == own.strategy.best
        same = (phase.hardware, phase.gpus) == (own.hardware, own.gpus)
        if phase.name != own.name and alike and same and _plain(s):
            strategies.setdefault(factorisations(s), s)
    return list(strategies.values())


def _plain(strategy: Strategy) -> bool:
    return strategy.best or (strategy.place is None and strategy.order[0] == STAGES)
