"""The device mesh of one phase: the GPUs of a stage factored into axes, and which GPU sits where.

Attention and experts may factor the same GPUs differently, so the mesh is made of *atoms*: the common
refinement of both factorisations. A logical axis (`tp`, `ep`) is an ordered tuple of atoms.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from math import gcd, prod

import numpy as np

from ..base.arrays import NDArray
from ..base.axes import DATA, ENDS, EXPERT, EXPERT_SIDE, EXPERT_TENSOR, REPLICA, STAGES
from ..base.collectives import ACROSS, TO_EXPERTS
from ..base.frozen import field, record, replace
from .groups import GroupShape, between, group_shape
from .sharding import AT_EXPERTS, Axes


class MeshError(ValueError):
    """The two factorisations of a stage have no common refinement."""


Side = tuple[tuple[str, int], ...]
"""One factorisation of the ranks of a stage: (axis, degree), outermost first."""


@record
class Factors:
    """How a phase factors the ranks of a stage: for attention and, where these differ, for experts. `rules`: further
    dimensions that take `tp`, beside those known by name."""

    sides: tuple[Side, ...]
    rules: tuple[str, ...] = ()


@record
class GpuMap:
    """`ids`: the GPU of every rank, stage by stage, the ranks of a stage in mesh order. GPU ids count through the nodes of
    `per_node` GPUs each, and through the domains of further levels of links (`beyond`: GPUs in one of each, innermost
    first, but for the outermost links, which join all). `nics`: (NICs, GPUs that have so many), where GPUs share them."""

    ids: tuple[int, ...]
    per_node: int
    beyond: tuple[int, ...] = ()
    nics: tuple[int, int] | None = None


def nested(per_node: int, beyond: Sequence[int]) -> bool:
    """Whether each level of links joins more GPUs than the one inside it, and a multiple of them."""
    return all(b > a and b % a == 0 for a, b in itertools.pairwise((per_node, *beyond)))


def nics_of(nics: Sequence[int]) -> bool:
    """Whether these are (NICs, GPUs that have so many), fewer than GPUs, or nothing."""
    return not nics or (len(nics) == 2 and 1 <= nics[0] < nics[1])


@record
class Apart:
    """Ranks that have the routed experts and nothing else: the atoms that split them, which are theirs alone, and the GPU of each.
    `linked`: GPUs of another pool, whose ids count on behind the others', reached over links of their own."""

    atoms: Axes
    gpus: GpuMap
    linked: bool = False


@record(slots=False)
class Mesh:
    """`atoms`: (name, size), outermost first, without axes of size one; `axes`: logical name -> atoms;
    `degrees`: logical name -> degree, ones included; `zigzag`: the axes over which the tokens of a sequence are dealt out
    in zigzag instead of in order (see `dagc.ir.ops.sequence`); `gpus`: which GPU every rank is, where that is known. `apart`:
    the ranks of the experts, where these have their own. A rank of one side has no place along the atoms of the other; arrays per
    rank have a dimension for every atom, which is of length 1 along those of the other side."""

    atoms: tuple[tuple[str, int], ...]
    axes: Mapping[str, Axes]
    degrees: Mapping[str, int]
    stages: int = 1
    zigzag: Axes = ()
    gpus: GpuMap | None = None
    apart: Apart | None = None
    _groups: dict[Axes, GroupShape] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def sizes(self) -> dict[str, int]:
        return dict(self.atoms)

    @cached_property
    def index(self) -> dict[str, int]:
        """Atom -> its position among the mesh dimensions."""
        return {name: i for i, (name, _) in enumerate(self.atoms)}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.atoms)

    def on(self, place: str) -> Axes:
        """The atoms of the ranks that have the experts alone, or of all other ranks."""
        own = () if self.apart is None else self.apart.atoms
        return own if place else tuple(name for name, _ in self.atoms if name not in own)

    def side_shape(self, place: str) -> tuple[int, ...]:
        """Ranks of one side along every atom: 1 along those of the other."""
        own = self.on(place)
        return tuple(size if name in own else 1 for name, size in self.atoms)

    def size(self, axes: Axes) -> int:
        """Ranks in a group over `axes`."""
        size = 1
        for axis in axes:
            size *= 2 if axis == ENDS else self.sizes[axis]
        return size

    def place(self, axis: str) -> int:
        """Of an axis among the mesh dimensions; the ends of the pipeline are outside of all."""
        return -1 if axis == ENDS else self.index[axis]

    def dimensions(self, axes: Axes) -> tuple[int, ...]:
        """Those of arrays per rank that some axes are; the ends of the pipeline are none of a stage."""
        return tuple([self.index[axis] for axis in axes if axis != ENDS])

    def ranks_of(self, kind: str, axes: Axes) -> int:
        """Ranks in a group of a collective of this kind."""
        if kind in ACROSS:
            return self.size(self.on("")) + self.size(self.on(AT_EXPERTS))
        return self.size(axes)

    def part(self, size: int, axes: Axes, at: Mapping[str, int]) -> slice:
        """The block that the rank at these coordinates has of a dimension split over `axes`, major first. An axis that does not
        divide gives its first ranks one more, so that the parts over a minor axis make up those over the major ones."""
        start, stop = 0, size
        for axis in axes:
            each, more = divmod(stop - start, self.sizes[axis])
            start += at[axis] * each + min(at[axis], more)
            stop = start + each + (at[axis] < more)
        return slice(start, stop)

    def of(self, name: str) -> Axes:
        """Atoms of a logical axis; empty when its degree is one."""
        return self.axes.get(name, ())

    @property
    def folded(self) -> bool:
        """Whether the experts have factors of their own."""
        return EXPERT_TENSOR in self.axes

    @property
    def batch_axes(self) -> Axes:
        """Axes that split the batch of dense ops. A flat strategy has no other use for `ep` there."""
        return self.sort((*self.of(REPLICA), *self.of(DATA), *(() if self.folded else self.of(EXPERT))))

    def sort(self, axes: Sequence[str]) -> Axes:
        """The axes in mesh order, outermost first."""
        return tuple(sorted(axes, key=self.place))

    def stride(self, axis: str) -> int:
        """Ranks from one coordinate of an atom to the next, where ranks are numbered in mesh order."""
        return prod(self.shape[self.index[axis] + 1 :])

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """GPU id of every rank, shape (stages, *shape); of length 1 along atoms that experts alone have. Raises MeshError where they
        are not known."""
        return np.asarray(self.the_gpus.ids, dtype=np.int64).reshape(self.stages, *self.side_shape(""))

    @cached_property
    def expert_ids(self) -> NDArray[np.int64]:
        """The same of the ranks that have the experts alone: of length 1 along all other atoms."""
        ids = () if self.apart is None else self.apart.gpus.ids
        return np.asarray(ids, dtype=np.int64).reshape(self.stages, *self.side_shape(AT_EXPERTS))

    def ids_on(self, place: str) -> NDArray[np.int64]:
        """As `ids`, or as `expert_ids`."""
        return self.expert_ids if place else self.ids

    @property
    def all_gpus(self) -> tuple[int, ...]:
        """Ids of all ranks, those that have the experts alone behind the others."""
        return self.the_gpus.ids + (() if self.apart is None else self.apart.gpus.ids)

    @property
    def the_gpus(self) -> GpuMap:
        if self.gpus is None:
            raise MeshError("the mesh has no GPU ids")
        return self.gpus

    def groups(self, axes: Axes) -> NDArray[np.int64]:
        """GPU ids of every group over `axes`: shape (groups, group size); stages are in the group axis."""
        key = self.sort(axes)
        position = [1 + self.place(a) for a in key]
        ids = self.ids_on(self.place_of(axes))
        if ENDS in key:
            ids = ids[[0, -1]]
        moved = np.moveaxis(ids, position, range(ids.ndim - len(position), ids.ndim))
        return moved.reshape(-1, self.size(key))

    def group(self, axes: Axes) -> GroupShape:
        """Ranks, nodes and ranks per node of the groups over some axes; where groups differ, of the widest spread one."""
        found = self._groups.get(axes)
        if found is None:
            alike = _shapes(self.shape, self.where)
            places = tuple([self.place(axis) for axis in self.sort(axes)])
            if places not in alike:
                of = self.apart.gpus if self.apart is not None and self.place_of(axes) else self.the_gpus
                alike[places] = group_shape(self.groups(axes), of.per_node, of.beyond, of.nics)
            found = self._groups[axes] = alike[places]
        return found

    def group_of(self, kind: str, axes: Axes) -> GroupShape:
        """The same of a collective of this kind."""
        return self.crossing(kind) if kind in ACROSS else self.group(axes)

    def place_of(self, axes: Axes) -> str:
        """The side that has these axes."""
        return AT_EXPERTS if self.apart is not None and axes and set(axes) <= set(self.apart.atoms) else ""

    def crossing(self, kind: str) -> GroupShape:
        """The ranks of a stage that send to those which have the experts alone, or get from them."""
        key = (kind,)
        if key not in self._groups:
            ends = [self.ids_on(place).reshape(self.stages, -1) for place in ("", AT_EXPERTS)]
            senders, receivers = ends if kind == TO_EXPERTS else ends[::-1]
            of = self.the_gpus
            linked = self.apart is not None and self.apart.linked
            found = between(senders, receivers, of.per_node, () if linked else of.beyond, None if linked else of.nics)
            if linked and found.ends is not None:  # all of it goes over one level, the link of the pools
                alone = replace(found.ends, near_senders=(), near_receivers=())
                found = GroupShape(found.ranks, max(found.ends.senders, found.ends.receivers), 2, (), 1, alone)
            self._groups[key] = found
        return self._groups[key]

    @property
    def where(self) -> Hashable:
        """On which GPUs its ranks are: what the shapes of groups follow from."""
        return self.gpus if self.apart is None else (self.gpus, self.apart)

    @property
    def asked(self) -> tuple[Axes, ...]:
        """Axes whose groups were asked for: all that a lowering and its prices know of where GPUs are, beside stages."""
        return tuple(sorted(self._groups))

    def shape_of(self, groups: NDArray[np.int64]) -> GroupShape:
        """The same of any groups of GPU ids [groups, ranks]."""
        gpus = self.the_gpus
        return group_shape(groups, gpus.per_node, gpus.beyond, gpus.nics)

    def label(self, axes: Axes, scope: str = "dense") -> tuple[str, ...]:
        """Logical names that cover a set of atoms exactly, or the atoms themselves where none do. In the scope of
        routed experts their own axes are preferred: one set of atoms may be `dp` there and `ep` here."""
        wanted = set(axes)
        ordered = (
            sorted(self.axes.items(), key=lambda kv: kv[0] not in EXPERT_SIDE)
            if scope == "experts"
            else list(self.axes.items())
        )
        for name, atoms in ordered:
            if atoms and set(atoms) == wanted:
                return (name,)
        names: list[str] = []
        for name, atoms in ordered:
            if atoms and set(atoms) <= wanted:
                names.append(name)
                wanted -= set(atoms)
        return (*names, *self.sort(sorted(wanted)))


@lru_cache(maxsize=64)
def _shapes(sizes: tuple[int, ...], where: Hashable) -> dict[tuple[int, ...], GroupShape]:
    """Of groups on meshes of these sizes, by the dimensions that the axes are."""
    return {}


def refine(sides: Sequence[Side], cuts: Mapping[str, Sequence[int]], more: Iterable[int] = ()) -> Mesh:
    """Common refinement of several factorisations of one set of GPUs (each a list of (axis, degree),
    outermost first). `cuts`: axis of the first side -> extra sizes of its *outer* part to cut at. `more`: further
    strides to cut at.

    Raises MeshError when two boundaries do not nest.
    """
    edges = set(more)
    for side in sides:
        inner = 1
        for name, size in reversed(side):
            if side is sides[0]:
                edges |= {inner * (size // outer) for outer in cuts.get(name, ()) if size % outer == 0}
            inner *= size
            edges.add(inner)
    bounds = sorted(edges | {1})
    for low, high in itertools.pairwise(bounds):
        if high % low:
            raise MeshError(f"{low} does not divide {high}")
    pieces = list(itertools.pairwise(bounds))  # innermost first: [low, high)
    owner = [_owner(sides[0], low) for low, _ in pieces]
    names: list[str] = []
    for i, name in enumerate(owner):
        alike = owner.count(name)
        names.append(name if alike == 1 else f"{name}.{owner[:i].count(name)}")
    axes: dict[str, Axes] = {}
    for side in sides:
        for name, _ in side:
            mine = [n for n, (low, _) in zip(names, pieces, strict=True) if _owner(side, low) == name]
            axes[name] = tuple(reversed(mine))
    atoms = tuple((n, high // low) for n, (low, high) in zip(names, pieces, strict=True))[::-1]
    degrees = {name: size for side in sides for name, size in side}
    return Mesh(atoms, axes, degrees)


def _owner(side: Side, stride: int) -> str:
    """The axis of a factorisation that contains the mesh dimension starting at `stride`."""
    inner = 1
    for name, size in reversed(side):
        if inner <= stride < inner * size:
            return name
        inner *= size
    raise MeshError(f"no axis at stride {stride}")


def head_cuts(degree: int, sizes: Sequence[int]) -> list[int]:
    """Where to cut a tensor-parallel axis so that dimensions smaller than it can take a part of it."""
    parts = {gcd(degree, size) for size in sizes}
    return sorted(p for p in parts if 1 < p < degree)


def axis_coordinates(mesh: Mesh, side: Side) -> dict[str, NDArray[np.int64]]:
    """Coordinate of every rank along each logical axis; arrays broadcast to (stages, *mesh.shape)."""
    full = (mesh.stages, *mesh.shape)
    out = {STAGES: np.arange(mesh.stages).reshape(-1, *(1 for _ in mesh.shape)) + np.zeros(full, dtype=np.int64)}
    for axis in dict.fromkeys((*(name for name, _ in side), *mesh.axes)):
        value = np.zeros(full, dtype=np.int64)
        for atom in mesh.of(axis):
            shape = [1] * len(full)
            shape[1 + mesh.index[atom]] = mesh.sizes[atom]
            value = value * mesh.sizes[atom] + np.arange(mesh.sizes[atom]).reshape(shape)
        out[axis] = value
    return out
