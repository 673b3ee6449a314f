"""pointwise_passes: element-wise ops of a training step, gathered into the kernels that compilers make of them.

Ops of one cell and of one shape that hand values to each other, or read the same one, are one kernel, unless something else has to run
in between. A kernel reads what others made once, and writes what others read. What is cheap is not kept but done anew where a
gradient reads it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import field, mutable
from ...ir.mesh import Mesh
from ...ir.op import Op
from ...ir.ops import elementwise, streams
from ...ir.ops.op_set import OPS, input_layout, result_layout
from ...ir.ops.sizes import local_bytes, local_count
from ...ir.segment import Segment
from .kept_activations import kept_values

KINDS = frozenset(kind.name for kind in (*elementwise.KINDS, *streams.KINDS))


def is_pointwise(op: Op) -> bool:
    return op.kind in KINDS or OPS[op.kind].gradient_of in KINDS


def result_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Of an op's result on one rank."""
    return local_count(segment, op.dims, result_layout(segment, op).dims, mesh, op.scope) * DTYPE_BYTES[op.dtype]


@mutable
class Pass:
    """One kernel, while it is gathered."""

    cell: str
    dims: frozenset[str]
    ops: list[Op] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)


class Passes:
    """The kernels of a segment. `riding`: ops that are part of others."""

    def __init__(self, segment: Segment, mesh: Mesh, riding: set[str]) -> None:
        self.segment, self.mesh, self.riding = segment, mesh, riding
        self._kept = kept_values(segment)
        self._readers: dict[str, list[Op]] = {}
        for op in segment.ops:
            for name in op.inputs:
                self._readers.setdefault(name, []).append(op)
        self._of: dict[str, Pass] = {}
        self._after: dict[str, set[str]] = {}
        self._gather()

    def begins(self, op: Op) -> bool:
        """Whether the launch of the kernel is this op's."""
        return self._of[op.name].ops[0] is op

    def bytes_of(self, op: Op) -> float:
        """What the op adds to what its kernel moves: operands that none before it read, and its result if that is written."""
        kernel, seen = self._of[op.name], set()
        for other in kernel.ops:
            if other is op:
                break
            seen |= {*self._sources(other), other.name}
        made = {other.name for other in kernel.ops}
        moved = sum(size for name, size in self._sources(op).items() if name not in seen | made)
        return moved + (result_bytes(self.segment, op, self.mesh) if self._written(op, kernel) else 0.0)

    def _gather(self) -> None:
        for op in self.segment.ops:
            before = {name: self._after.get(name, set()) | {name} for name in op.inputs}
            self._after[op.name] = set[str]().union(*before.values()) if before else set()
            if not is_pointwise(op) or op.name in self.riding:
                continue
            own = Pass(op.cell, frozenset(op.dims), [op])
            for kernel in self._near(op):
                joined = Pass(own.cell, own.dims, sorted([*kernel.ops, *own.ops], key=self._place))
                if self._together(joined.ops):
                    own = joined
            for other in own.ops:
                self._of[other.name] = own

    def _place(self, op: Op) -> int:
        return next(k for k, other in enumerate(self.segment.ops) if other is op)

    def _near(self, op: Op) -> list[Pass]:
        """Kernels that make what the op reads, then those that read it, too."""
        names = self._sources(op)
        neighbours = [name for name in names if name in self._of]
        neighbours += [r.name for name in names for r in self._readers.get(name, []) if r.name in self._of]
        alike = (self._of[n] for n in neighbours)
        return list({id(k): k for k in alike if k.cell == op.cell and k.dims == frozenset(op.dims)}.values())

    def _together(self, ops: Iterable[Op]) -> bool:
        """Whether nothing that one of the ops needs comes after another of them."""
        members = {op.name for op in ops}
        outside = {name for op in ops for name in op.inputs if name not in members}
        return all(not self._after.get(name, set()) & members for name in outside)

    def _sources(self, op: Op) -> dict[str, float]:
        """What is read for the operands, with its bytes: of a value that was not kept what it is done anew from."""
        found: dict[str, float] = {}
        for name in op.inputs:
            made = self.segment.by_name.get(name)
            if made is not None and made.name in self.riding and made.kind == "add" and name not in self._kept:
                found |= {name: self._size(op, name)}
            elif made is None or made.cell == op.cell or name in self._kept or not is_pointwise(made):
                found[name] = self._size(op, name)
            else:
                found |= self._sources(made)
        return found

    def _written(self, op: Op, kernel: Pass) -> bool:
        """Whether the result is kept, or read by anything that does not do it anew."""
        readers = [r for r in self._readers.get(op.name, []) if r not in kernel.ops]
        anew = all(is_pointwise(r) and r.cell != op.cell for r in readers)
        return op.name in self._kept or bool(readers and not anew) or op.name == self.segment.output

    def _size(self, op: Op, name: str) -> float:
        return local_bytes(self.segment, name, input_layout(self.segment, op, name), self.mesh)
