"""Routed rows: which experts a rank has, and which rows belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..cost.expert_placement import place_experts
from ..cost.routing import expert_probabilities
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.experts import DispatchAttrs
from ..ir.routed_dims import group_limit, rows_of
from ..ir.segment import Segment
from ..ir.sharding import Axes, Sharding
from ..spec.workload import Routing
from .failure import CannotRun
from .values import Ints


def dispatch_of(segment: Segment, name: str) -> Op:
    """The dispatch that routed rows, or an expert weight that meets them, come from. Raises CannotRun."""
    if segment.is_weight(name):
        return dispatch_of(segment, next(segment.readers(segment.weight_of(name).name)).name)
    line = [name]
    while line:
        op = segment.by_name.get(line.pop())
        if op is None or op.scope != "experts":
            continue
        if isinstance(op.attrs, DispatchAttrs):
            return op
        line += reversed([n for n in op.inputs if not segment.is_weight(n)])
    rows = rows_of(segment.dims_of(name))  # weights of rows come from the router alone
    for op in segment.ops:
        if rows is not None and isinstance(op.attrs, DispatchAttrs) and rows.slot in op.dims:
            return op
    raise CannotRun(f"`{name}` comes from no dispatch")


def split_experts(segment: Segment, dispatch: Op) -> Axes:
    """The axes that split the experts of a dispatch's rows: its own, or those of the ranks that have experts alone."""
    users = (op for op in segment.ops if op.on and not op.is_collective and op.dims[:2] == dispatch.dims[:2])
    return next((op.loop(dispatch.dims[0]) for op in users), dispatch.loop(dispatch.dims[0]))


@record(slots=False)
class RoutedRows:
    """The routed rows of one dispatch. `slots`: the expert of every physical expert; `copies`: the physical experts of
    every expert."""

    segment: Segment
    dispatch: Op
    mesh: Mesh
    slots: list[int]
    copies: Mapping[int, list[int]]

    @classmethod
    def of(cls, segment: Segment, dispatch: Op, mesh: Mesh, routing: Routing, redundant: int, how: str) -> RoutedRows:
        """`how`: experts are placed (`dagc/cost/expert_placement.py`)."""
        expert = dispatch.dims[0]
        choice = segment.dims_of(dispatch.inputs[1])[-1]
        count, top_k = int(segment.sizes[expert]), int(segment.sizes[choice])
        p = expert_probabilities(routing, count, top_k)
        axes, rows = split_experts(segment, dispatch), rows_of(dispatch.dims)
        groups = 1 if rows is None else group_limit(segment, rows).groups
        nodes = mesh.group(axes).nodes if redundant or how else 1  # the graph of the model alone has no GPUs
        slots = place_experts(p, mesh.size(axes), redundant, groups, nodes, how).slots.ravel().tolist()
        copies: dict[int, list[int]] = {}
        for physical, held in enumerate(slots):
            copies.setdefault(held, []).append(physical)
        return cls(segment, dispatch, mesh, slots, copies)

    @property
    def expert(self) -> str:
        return self.dispatch.dims[0]

    @property
    def slot(self) -> str:
        return self.dispatch.dims[1]

    def inner(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """Dims of one row."""
        return tuple(d for d in dims if d not in (self.expert, self.slot))

    def experts(self, dims: tuple[str, ...], layout: Sharding, rank: Mapping[str, int]) -> range:
        """Physical experts that a layout gives a rank."""
        return range(len(self.slots))[self.mesh.part(len(self.slots), layout.dims[dims.index(self.expert)], rank)]

    def box(self, dims: tuple[str, ...], layout: Sharding, rank: Mapping[str, int]) -> tuple[slice, ...]:
        """The part of a row that a layout gives a rank."""
        return tuple(
            self.mesh.part(int(self.segment.size(d, "experts")), axes, rank)
            for d, axes in zip(dims, layout.dims, strict=True)
            if d not in (self.expert, self.slot)
        )

    # -- whose row is it -------------------------------------------------------------------------

    @cached_property
    def homes(self) -> dict[str, tuple[int, NDArray[np.int64]]]:
        """Axes over which ranks own different tokens -> the column of a key, and the coordinate of each of its values."""
        found: dict[str, tuple[int, NDArray[np.int64]]] = {}
        for column, dim in enumerate(("batch", "seq")):
            axes, size = self.dispatch.loop(dim), int(self.segment.sizes[dim])
            tables = {axis: np.zeros(size, dtype=np.int64) for axis in axes}
            for at in np.ndindex(*(self.mesh.sizes[a] for a in axes)):
                place = dict(zip(axes, at, strict=True))
                for axis in axes:
                    tables[axis][self.mesh.part(size, axes, place)] = place[axis]
            found |= {axis: (column, table) for axis, table in tables.items()}
        return found

    def digit(self, axis: str) -> tuple[int, int]:
        """(stride, size) of an axis over which tokens repeat: rows are dealt out along it by their number."""
        own = self.mesh.on(self.mesh.place_of((axis,)))  # ranks of other experts have no part in it
        idle = [a for a in own if a not in self.homes]
        after = idle[idle.index(axis) + 1 :]
        return prod(self.mesh.sizes[a] for a in after), self.mesh.sizes[axis]

    def number(self, keys: Any, offset: int) -> Any:
        """RoutedRows counted through: (sequence of the part, token, choice). Of an array or a tensor of keys."""
        choice = int(self.segment.sizes[self.segment.dims_of(self.dispatch.inputs[1])[-1]])
        return ((keys[:, 0] - offset) * int(self.segment.sizes["seq"]) + keys[:, 1]) * choice + keys[:, 2]

    def every_key(self, offset: int) -> Ints:
        """(sequence, token, choice) of every choice of every token of a part of the batch."""
        size = self.segment.sizes
        choices = size[self.segment.dims_of(self.dispatch.inputs[1])[-1]]
        counts = (int(size["batch"]), int(size["seq"]), int(choices))
        return np.asarray(np.indices(counts).reshape(3, -1).T + np.array([offset, 0, 0]))

    def code(self, physical: Ints, keys: Ints, offset: int) -> Ints:
        """One number for each row, in the order of (physical expert, key)."""
        size = self.segment.sizes
        choice = int(size[self.segment.dims_of(self.dispatch.inputs[1])[-1]])
        return np.asarray(physical * int(size["batch"]) * int(size["seq"]) * choice + self.number(keys, offset))

    def coordinate(self, axis: str, keys: Ints, offset: int) -> Ints:
        """Of the ranks that a layout splitting `slot` over `axis` gives these rows to. `offset`: first sequence."""
        if axis in self.homes:
            column, table = self.homes[axis]
            return np.asarray(table[keys[:, column] - (offset if column == 0 else 0)])
        stride, size = self.digit(axis)
        return np.asarray(self.number(keys, offset) // stride % size)

    def mine(
        self, dims: tuple[str, ...], layout: Sharding, rank: Mapping[str, int], keys: Ints, offset: int
    ) -> NDArray[np.bool_]:
        """Which rows the layout's `slot` axes give a rank."""
        found = np.ones(len(keys), dtype=np.bool_)
        for axis in layout.dims[dims.index(self.slot)]:
            found &= self.coordinate(axis, keys, offset) == rank[axis]
        return found
