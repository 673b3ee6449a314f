"""Memory by kind: what a log or a snapshot says that a GPU held, beside the memory pass."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import record
from ...base.units import BYTES, TOKENS, Dim
from ...plan.plan import CompiledPlan

KINDS = {
    "weights": "weights",
    "kv_pool": "cache, all that the engine took",
    "kv_cache": "cache, all that the engine took",
    "activations": "activations and buffers, peak",
    "engine": "CUDA graphs, the engine's own",
    "reserve": "context, driver, libraries",
}
"""Kind of a line or a frame -> in words, in the order of tables."""


@record
class Row:
    """`actual`, `theoretical`: of the GPU that has most of it; the latter None where the plan says nothing."""

    phases: tuple[str, ...]
    what: str
    actual: float
    theoretical: float | None
    dim: Dim
    source: str

    @property
    def ratio(self) -> float | None:
        return self.actual / self.theoretical if self.theoretical else None


def together(plan: CompiledPlan) -> list[tuple[str, ...]]:
    """Phases that some GPU serves both of, directly or through others: one server each."""
    groups: list[list[str]] = []
    for name, result in plan.phases.items():
        mine = [group for group in groups if any(plan.phases[other].shares(result) for other in group)]
        groups = [group for group in groups if group not in mine] + [[*(n for group in mine for n in group), name]]
    order = list(plan.phases)
    return [tuple(sorted(group, key=order.index)) for group in sorted(groups, key=lambda group: order.index(group[0]))]


def theoretical_B(plan: CompiledPlan, phases: Sequence[str], kind: str) -> float | None:
    """What the memory pass says of a kind, of the phase whose fullest GPU has most: of the cache, all the room that the rest leaves."""
    found = []
    for name in phases:
        stage = plan.phases[name].memory.worst
        if kind in ("kv_pool", "kv_cache"):
            rooms = [room for pool in plan.pools for (phase, _), room in pool.room_B.items() if phase == name]
            found.append(min(rooms, default=0.0))
        elif kind == "activations":
            found.append(stage.activations_B + stage.buffers_B)
        else:
            found.append(float(getattr(stage, f"{kind}_B")))
    return max(found, default=None)


def rows(
    plan: CompiledPlan, phases: tuple[str, ...], sizes: dict[str, float], tokens: float | None, source: str
) -> list[Row]:
    """`sizes`: kind -> bytes; `tokens`: of cache, of one data-parallel rank."""
    out = []
    for kind, what in KINDS.items():
        if kind in sizes:
            out.append(Row(phases, what, sizes[kind], theoretical_B(plan, phases, kind), BYTES, source))
    if tokens:
        generating = [name for name in phases if plan.phases[name].graph.generates] or list(phases)
        result = plan.phases[generating[0]]
        subject = plan.subject(generating[0])
        room = None if subject.room is None else subject.room / result.batch_ways
        out.append(Row(phases, "tokens of cache, each DP rank", tokens, room, TOKENS, source))
        cache = sizes.get("kv_pool", sizes.get("kv_cache"))
        each = subject.cached_tokens / result.batch_ways
        if cache and each:
            planned = max(stage.kv_cache_B for stage in result.memory.stages) / each
            out.append(Row(phases, "cache of a token, on a GPU", cache / tokens, planned, BYTES, source))
    if "weights" in sizes and {"kv_pool", "kv_cache"} & sizes.keys():
        total = sum(value for kind, value in sizes.items() if kind in KINDS)
        capacity = min(plan.phases[name].memory.capacity_B for name in phases)
        out.append(Row(phases, "all of these, of what it may take", total, capacity, BYTES, source))
    return [row for row in out if row.actual > 0]
