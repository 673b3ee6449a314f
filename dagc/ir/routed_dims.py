"""Dimensions of routed experts. Every `route` makes a `slot` and a `choice` dimension of its own (those of a further router of
the layer are `slot.NAME` and `choice.NAME`); routers over as many experts may share the expert dimension."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..base.frozen import record
from .graph import Graph
from .op import Op, Weight
from .ops.attributes.copies import ExpertCopyAttrs
from .ops.attributes.experts import RouteAttrs
from .segment import Segment


def stem(dim: str) -> str:
    """`ffn.moe` (a name that two blocks gave two sizes) counts as `ffn`."""
    return dim.split(".", 1)[0]


@lru_cache(maxsize=4096)
def dim_like(dims: tuple[str, ...], name: str) -> str | None:
    """The first dimension of that stem."""
    return next((d for d in dims if stem(d) == name), None)


def choice_dim(slot: str) -> str:
    """The choice dimension of the router that made a slot dimension."""
    return "choice" + slot[len("slot") :]


def slot_dim(choice: str) -> str:
    """The slot dimension of the router that made a choice dimension."""
    return "slot" + choice[len("choice") :]


class Rows(NamedTuple):
    """The dimensions of one router's rows."""

    expert: str
    slot: str

    @property
    def choice(self) -> str:
        return choice_dim(self.slot)


def routed(segment: Segment, op: Op) -> Rows | None:
    """Of the rows that an op makes or takes; None where it has none."""
    key = routed, op.dims, op.inputs
    if key not in segment.asked:
        every = map(rows_of, (op.dims, *map(segment.dims_of, op.inputs)))
        segment.asked[key] = next((rows for rows in every if rows is not None), None)
    found: Rows | None = segment.asked[key]
    return found


@lru_cache(maxsize=4096)
def rows_of(dims: tuple[str, ...]) -> Rows | None:
    expert, slot = dim_like(dims, "expert"), dim_like(dims, "slot")
    return None if expert is None or slot is None else Rows(expert, slot)


def routers(segment: Segment) -> list[Rows]:
    """Of every router whose rows a layer computes with, in order."""
    rows = [routed(segment, op) for op in segment.ops if op.scope == "experts"]
    return list(dict.fromkeys(r for r in rows if r is not None))


@record
class GroupLimit:
    """Group-limited routing: of `groups` equal groups of experts, in order, a token may use `most`."""

    groups: int = 1
    most: int = 1

    @property
    def limits(self) -> bool:
        return self.most < self.groups


NO_LIMIT = GroupLimit()


def group_limit(segment: Segment, rows: Rows) -> GroupLimit:
    """Of the router that makes these rows."""
    attrs = (op.attrs for op in segment.ops if rows.choice in op.dims)
    found = next((a for a in attrs if isinstance(a, RouteAttrs)), None)
    return NO_LIMIT if found is None else GroupLimit(found.groups, found.groups_limit)


def after_skipping(choices: float, skip: float) -> float:
    """Choices of a token that are left where a share of them is skipped."""
    return choices * (1.0 - skip) if skip else choices


def left_out(skip: float, experts: float, empty: float) -> float:
    """Share of the choices that make no row: those that are skipped, and of the others those of empty experts, where any expert is as
    likely."""
    return 1.0 - (1.0 - skip) * experts / (experts + empty) if empty else skip


def empty_experts(segment: Segment, route: Op) -> str | None:
    """The dimension of a router's empty experts; None where it has none."""
    return segment.dims_of(route.inputs[1])[-1] if route.of(RouteAttrs).empty else None


def choices_in(segment: Segment, dim: str) -> str | None:
    """The choices of the router whose table has them as this dimension; None: it is of no table."""
    routes = (op for op in segment.ops if isinstance(op.attrs, RouteAttrs) and op.attrs.by_token)
    return next((op.dims[-1] for op in routes if segment.dims_of(op.inputs[2])[1] == dim), None)


def chosen_from(segment: Segment, choice: str) -> int:
    """How many experts that compute something the router of a choice has: choices from this number on are of empty ones."""
    route = next(op for op in segment.ops if op.dims[-1:] == (choice,) and isinstance(op.attrs, RouteAttrs))
    return int(segment.sizes[segment.dims_of(route.inputs[0])[-1]])


def skipped(segment: Segment, rows: Rows, skip: float | None = None) -> float:
    """Share of the choices that the router of these rows leaves out. `skip`: of those of one rank, other than its own."""
    found = next((op for op in segment.ops if rows.choice in op.dims and isinstance(op.attrs, RouteAttrs)), None)
    if found is None:
        return 0.0
    empty, own = empty_experts(segment, found), found.of(RouteAttrs).skip if skip is None else skip
    return left_out(own, segment.sizes[rows.expert], 0.0 if empty is None else segment.sizes[empty])


def empty_count(segment: Segment, rows: Rows) -> float:
    """How many experts of the router of these rows do nothing."""
    found = next((op for op in segment.ops if rows.choice in op.dims and isinstance(op.attrs, RouteAttrs)), None)
    empty = None if found is None else empty_experts(segment, found)
    return 0.0 if empty is None else segment.sizes[empty]


def thins(segment: Segment, op: Op) -> bool:
    """Whether choices whose weight is 0 make no row of an op: those beyond an expert's capacity."""
    rows = routed(segment, op)
    if rows is None:
        return False
    return any(
        isinstance(one.attrs, RouteAttrs) and bool(one.attrs.capacity) for one in segment.ops if rows.choice in one.dims
    )


def drops(graph: Graph) -> bool:
    """Whether some expert has a capacity."""
    attrs = (op.attrs for segment in graph.segments for op in segment.ops)
    return any(isinstance(a, RouteAttrs) and a.capacity for a in attrs)


def skipped_share(graph: Graph) -> float:
    """Share of all choices that routers leave out; all routers of a phase leave out as many."""
    attrs = (op.attrs for segment in graph.segments for op in segment.ops)
    return max((a.skip for a in attrs if isinstance(a, RouteAttrs)), default=0.0)


def kept_choices(segment: Segment, rows: Rows) -> float:
    """Choices of a token that become rows, on average."""
    return after_skipping(segment.sizes[rows.choice], skipped(segment, rows))


def resident_share(segment: Segment, weight: Weight) -> float:
    """Share of a weight that GPUs hold: of experts that are partly in host memory less than all."""
    if weight.scope != "experts":
        return 1.0
    key = resident_share, weight.name
    if key not in segment.asked:
        copies = (
            op.attrs.resident
            for op in segment.ops
            if isinstance(op.attrs, ExpertCopyAttrs) and op.inputs[0] == weight.name
        )
        expert = dim_like(weight.dims, "expert")
        held = next(copies, None)
        segment.asked[key] = 1.0 if held is None or expert is None else min(1.0, held / segment.size(expert, "experts"))
    found: float = segment.asked[key]
    return found


def rows_with(segment: Segment, weight: Weight) -> Iterator[Rows]:
    """The routers whose rows meet a weight of experts."""
    rows = (routed(segment, op) for op in segment.readers(weight.name))
    return iter(dict.fromkeys(r for r in rows if r is not None))
