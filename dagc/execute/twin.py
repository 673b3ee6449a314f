"""A small twin of a lowered graph: the same ops, layouts, groups and order, on sizes as small as these allow (`shrinker`).

Nothing is lowered again, so no collective can be another one than the plan's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

from ..base.frozen import record
from ..ir.graph import Graph, Stage, runs
from ..ir.handed_on import are_handed_on, carried
from ..ir.naming import scope_and_dim, size_key
from ..ir.ops.op_set import OPS, table_by_id
from ..ir.routed_dims import stem
from ..ir.segment import Segment
from ..ir.verify.violation import VerifyError
from ..spec.unit import Unit
from ..spec.workload import Routing
from .shrinker import Shrinker


class NoTwin(ValueError):
    """No smaller sizes keep what the plan's have; the message names the dimension."""


@contextmanager
def or_no_twin() -> Iterator[None]:
    """Errors of sizes that cannot be made smaller are NoTwin."""
    try:
        yield
    except VerifyError as error:
        raise NoTwin(error.line) from None
    except (LookupError, ArithmeticError, ValueError) as error:
        raise NoTwin(str(error)) from None


@record(slots=False)
class Twin:
    """`placed` is the plan's own lowered graph on small sizes, `model` its model graph on the same ones."""

    placed: Graph
    model: Graph
    routing: Routing
    vocab: int

    def unit(self, unit: Unit) -> Unit:
        """What the passes that price a graph ask, of the twin."""
        sizes = self.placed.embedding.sizes
        spare = max((self.spare(s) for s in self.placed.segments), default=0)
        strategy = replace(unit.phase.strategy, redundant=spare, microbatches=self.placed.microbatches)
        parts = tuple(
            replace(
                part,
                sequences=int(sizes[size_key(part.scope, "batch")]) * self.placed.microbatches * self.placed.lanes,
                tokens=int(sizes[size_key(part.scope, "seq")]),
                context=int(sizes[size_key(part.scope, "context")]),
            )
            for part in unit.phase.parts
            if unit.phase.is_packed
        )
        phase = replace(
            unit.phase,
            sequences=sum(part.sequences for part in parts) or self.sequences,
            tokens=int(parts[0].tokens if parts else sizes["seq"]),
            context=int(parts[0].context if parts else sizes["context"]),
            parts=parts,
            passes=1,  # the one that the graph is of
            last=0,
            strategy=strategy,
        )
        return Unit(unit.spec, replace(phase, routing=self.routing))

    @staticmethod
    def spare(segment: Segment) -> int:
        """Spare copies of experts."""
        known = ((*scope_and_dim(key), size) for key, size in segment.sizes.items())
        spares = (int(n - segment.sizes[dim]) for scope, dim, n in known if (scope, stem(dim)) == ("experts", "expert"))
        return max(spares, default=0)

    @property
    def sequences(self) -> int:
        return int(self.placed.embedding.sizes["batch"]) * self.placed.microbatches * self.placed.lanes


def twin_of(
    placed: Graph, model: Graph, routing: Routing, *, virtual: tuple[Stage, ...] = (), microbatches: int = 0
) -> Twin:
    """The twin of a placed graph and of the model graph that it was lowered from. `virtual`: the virtual stages, where each of them
    is to keep layers of its own; as many follow each other in a stage of the twin. `microbatches`: of the twin, else few."""
    micro = microbatches or fewer(placed.microbatches)
    shrinker = Shrinker(placed, micro)
    kinds = [[name for name, _ in stage.layers] for stage in few_layers(virtual or placed.stages)]
    chunks = len(kinds) // len(placed.stages)
    stages = tuple(
        Stage(stage.index, runs(chain.from_iterable(kinds[chunks * k : chunks * (k + 1)])), stage.gpus)
        for k, stage in enumerate(placed.stages)
    )
    order = [name for names in kinds for name in names]
    small = {s.name: shrunk(shrinker, s, s, order.count(s.name)) for s in placed.segments}
    twin = replace(placed, segments=tuple(small.values()), stages=stages, microbatches=micro)
    if are_handed_on(twin):  # of several layers that hand a value on another one may be the nearest now
        twin = replace(twin, sends=tuple(replace(e, beside=carried(twin, e.target)) for e in twin.sends))
    whole = tuple(shrunk(shrinker, placed.segment(s.name), s, order.count(s.name)) for s in model.segments)
    reference = replace(model, segments=whole, stages=(Stage(0, runs(order)),), microbatches=micro)
    words = [
        small[s.name].size(s.dims_of(table)[0])
        for s in placed.segments
        for op in s.ops
        if (table := table_by_id(op)) and not OPS[op.kind].gradient_of
    ]
    counts = [r.count for r in shrinker.routers.values()]
    return Twin(twin, reference, few_loads(routing, counts), int(min(words, default=1)))


def few_layers(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Of each kind of layer in a stage one."""
    return tuple(Stage(s.index, runs(dict.fromkeys(name for name, _ in s.layers)), s.gpus) for s in stages)


def shrunk(shrinker: Shrinker, lowered: Segment, segment: Segment, repeat: int) -> Segment:
    """A segment of the plan (or of its model, whose dims are those of `lowered`) on the twin's sizes."""
    sizes: dict[str, float] = {}
    for key in segment.sizes:
        scope, dim = scope_and_dim(key)
        sizes[key] = shrinker.size(lowered, dim, scope or "dense")
    ops = tuple(replace(op, attrs=shrinker.attrs(lowered, op)) for op in segment.ops)
    return replace(segment, repeat=repeat, ops=ops, sizes=sizes)


def fewer(microbatches: int) -> int:
    """Of a twin of a graph with so many."""
    return min(microbatches, 2)


def few_loads(routing: Routing, counts: list[int]) -> Routing:
    """Loads of a histogram for fewer experts: taken at even distances; those of layers are their mean."""
    have = routing.mean.histogram
    if not have or not counts:
        return routing
    count = counts[0]
    return Routing("histogram", 0.0, tuple(have[i * len(have) // count] + 1e-9 for i in range(count)))


def scale(plan: Segment, twin: Segment, dims: tuple[str, ...], scope: str) -> float:
    """Elements of a plan's tensor for each of its twin's."""
    return plan.count(dims, scope) / twin.count(dims, scope)
