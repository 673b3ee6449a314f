"""One reference case as compact data: a program, its layout, and the collectives that another compiler made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from dagc.base.collectives import wire_bytes

Axes = tuple[str, ...]
Group = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Collective:
    """`executions` equal calls on one device. `group`: the devices of device 0's group, () for a stage edge.

    `payload_B`: what all-gather returns, and what every other kind takes in. `wire_B`: sent by one device, all calls.
    """

    kind: str
    group: Group
    payload_B: float
    executions: int
    wire_B: float


def collective(kind: str, group: Sequence[int], payload_B: float, executions: int) -> Collective:
    """A collective with the wire bytes that nccl-tests count for its kind."""
    members = tuple(sorted(group))
    sent = payload_B / len(members) if kind == "all_gather" else payload_B
    wire = wire_bytes(kind, sent, len(members)) if members else payload_B
    return Collective(kind, members, payload_B, executions, wire * executions)


def count(collectives: Sequence[Collective]) -> Counter[tuple[str, Group, float]]:
    """(kind, group, payload) -> executions."""
    total: Counter[tuple[str, Group, float]] = Counter()
    for c in collectives:
        total[c.kind, c.group, c.payload_B] += c.executions
    return total


def wire_B(collectives: Sequence[Collective]) -> float:
    return sum(c.wire_B for c in collectives)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Names of the dimensions and the ordered mesh axes that split each."""

    dims: tuple[str, ...]
    sharding: tuple[Axes, ...]

    def axes(self, dim: str) -> Axes:
        return self.sharding[self.dims.index(dim)] if dim in self.dims else ()


@dataclass(frozen=True, slots=True)
class Case:
    """`mesh`: axis -> size, slowest first; device ids are row-major. `tensors`: activations and weights by name."""

    id: str
    family: str
    tool: str
    about: str
    layers: int
    model: Mapping[str, int]
    mesh: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]
    collectives: tuple[Collective, ...]

    @property
    def devices(self) -> int:
        return prod(self.mesh.values())

    def size(self, axes: Axes) -> int:
        return prod(self.mesh[a] for a in axes)

    def axes(self, names: str, dim: str) -> Axes:
        """Axes that split `dim` of the first of these tensors (`a|b`) that the program has."""
        for name in names.split("|"):
            if name in self.tensors:
                return self.tensors[name].axes(dim)
        return ()

    def has(self, names: str) -> bool:
        return any(name in self.tensors for name in names.split("|"))


def stride(mesh: Mapping[str, int], axis: str) -> int:
    """Device ids between neighbours along an axis."""
    names = list(mesh)
    return prod(mesh[a] for a in names[names.index(axis) + 1 :])


def group_of_zero(mesh: Mapping[str, int], axes: Sequence[str]) -> Group:
    """Devices that differ from device 0 along these axes only."""
    ids = [0]
    for axis in axes:
        ids = [i + step * stride(mesh, axis) for i in ids for step in range(mesh[axis])]
    return tuple(sorted(ids))
