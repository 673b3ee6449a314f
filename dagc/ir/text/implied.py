"""What the text leaves out because something else on the page says it: both `write` and `read` ask here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from ...base.axes import EXPERT_SIDE
from ..mesh import Mesh
from ..op import Loops, Op
from ..ops.attributes.moves import SliceAttrs
from ..routed_dims import dim_like, stem
from ..sharding import Axes, Sharding

SHARDED = ("sharded", "placed")
"""Levels at which every value and weight has a layout."""

FORWARD = "forward"
"""The cell of ops before any other, where it is named."""

PER_NODE = 8
"""GPUs per node, where the mesh does not say it."""

"""Axes by which routed experts are split: preferred in their scope where two axes have the same atoms."""

_PASS_ORDER = {"seq": 1, "context": 1, "expert": 2, "batch": 3, "slot": 4}
"""The order in which the strategy passes split dimensions; those of tensors come first."""

Operand = tuple[tuple[str, ...], Sharding | None]
"""Dims and layout of an input."""


class AxisNames:
    """Atoms as people name them: `tp` where all atoms of `tp` are together, atoms where they are apart."""

    def __init__(self, mesh: Mesh | None) -> None:
        self.axes = {} if mesh is None else {n: a for n, a in mesh.axes.items() if a and _distinct(n, a, mesh)}

    @cached_property
    def ordered(self) -> dict[str, list[tuple[str, Axes]]]:
        """By scope: the axes of most atoms first, so that the longest name wins."""
        names = sorted(self.axes.items(), key=lambda axis: -len(axis[1]))
        experts = sorted(names, key=lambda axis: (-len(axis[1]), axis[0] not in EXPERT_SIDE))
        return {"dense": names, "experts": experts}

    def show(self, axes: Axes, scope: str = "dense") -> str:
        parts = []
        known = self.ordered.get(scope, self.ordered["dense"])
        at = 0
        while at < len(axes):
            name, size = next(((n, len(a)) for n, a in known if axes[at : at + len(a)] == a), (axes[at], 1))
            parts.append(name)
            at += size
        return "+".join(parts) or "-"

    def atoms(self, names: Iterable[str]) -> Axes:
        return tuple(atom for name in names for atom in self.axes.get(name, (name,)))


def _distinct(name: str, atoms: Axes, mesh: Mesh) -> bool:
    """The name is not that of another atom, too."""
    return name not in mesh.sizes or atoms == (name,)


def block(op_name: str, segment_input: str) -> str:
    """The block that an op's name begins with; a move of what the segment takes is of none."""
    begin, dot, _ = op_name.partition(".")
    return begin if dot and begin != segment_input else ""


def scope(dims: tuple[str, ...]) -> str:
    """Rows of routed experts have a slot."""
    return "experts" if dim_like(dims, "slot") else "dense"


def loops(op: Op, operands: Iterable[Operand]) -> Loops:
    """What the layouts of the operands and of the result say of an op's loops; before there are layouts, nothing does."""
    if op.sharding is None or op.is_collective or isinstance(op.attrs, SliceAttrs):
        return ()
    loops: dict[str, Axes] = {}
    appends = "context" in op.dims and "seq" not in op.dims  # the tokens of `seq` are the last ones of `context`
    for dims, layout in ((op.dims, op.sharding), *operands):
        for dim, axes in zip(dims, layout.dims if layout is not None else (), strict=False):
            loops.setdefault(dim, () if dim == "seq" and appends else axes)
    return corrected((), loops.items())


def scope_of_dim(dim: str, scope: str) -> str:
    """In whose words the axes of a dimension are named: rows of experts in theirs, tokens at home in those of dense ops."""
    return {"expert": "experts", "slot": "experts", "batch": "dense", "seq": "dense"}.get(stem(dim), scope)


def corrected(said: Loops, other: Iterable[tuple[str, Axes]]) -> Loops:
    """The loops that are `said`, but where `other` ones are named; in the order of passes."""
    found = {**dict(said), **dict(other)}
    return tuple(sorted(((d, a) for d, a in found.items() if a), key=lambda loop: _PASS_ORDER.get(stem(loop[0]), 0)))


def differing(op: Op, said: Loops) -> Loops | None:
    """The loops of an op that are not those `said`, `()` for one that it does not have; None: their order differs."""
    own, known = dict(op.loops), dict(said)
    other = tuple(
        (d, own.get(d, ())) for d in (*own, *(d for d in known if d not in own)) if own.get(d) != known.get(d)
    )
    return other if corrected(said, other) == op.loops else None
