"""A mixed step as one graph: each part expanded as a pass of its own kind, then joined.

What treats every token alike and says the same in every part is one op on packed tokens: products, norms, routed experts,
the residual stream. What asks which sequence a token is of (attention, caches, states, positions, the last token), and what
only one part has (the absorbed products of latent attention in decode), stays an op of each part. `unpack` cuts a part out
of a packed value, `pack` puts the parts together. No block and no kind of attention is known here: equal names of ops
mean equal statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from ...base.frozen import field, mutable, replace
from ...base.phase_kinds import SAMPLED
from ...base.traced import number
from ...ir.entries import group_of
from ...ir.naming import of_part, size_key
from ...ir.op import Op
from ...ir.ops.further import further_results
from ...ir.ops.op_set import OPS
from ...ir.ops.packing import packed_dims
from ...ir.requests import IDS
from ...ir.routed_dims import stem
from ...ir.segment import Segment

PHASE_DIMS = ("batch", "seq", "context")


class CannotJoin(ValueError):
    """The parts differ where they would have to be one; the message says where."""


def joined(parts: Sequence[tuple[str, Segment]], ranks: int) -> Segment:
    """One layer of all parts, given as (scope, the layer as a pass of that part alone), in the order of packing. `ranks`:
    those that have tokens of their own. Raises CannotJoin."""
    return _Join(tuple(scope for scope, _ in parts), tuple(segment for _, segment in parts), ranks).run()


@mutable
class _Join:
    """`shared`: names of ops that are one for all parts. `sampled`: those of them on rows that are not all tokens."""

    scopes: tuple[str, ...]
    segments: tuple[Segment, ...]
    ranks: int
    shared: set[str] = field(default_factory=set)
    sampled: set[str] = field(default_factory=set)
    sampled_rows: tuple[bool, ...] = ()
    ops: list[Op] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    sizes: dict[str, float] = field(default_factory=dict)

    @property
    def first(self) -> Segment:
        return self.segments[0]

    def run(self) -> Segment:
        self.choose()
        self.size()
        self.emit()
        output = self.packed(self.first.output)
        weights = {w.name: w for s in self.segments for w in s.weights}
        for segment in self.segments:
            for weight in segment.weights:
                if weights[weight.name] != weight:
                    raise CannotJoin(f"weight {weight.name[1:]} is stored differently for prompts and in decode")
        parts = [*zip(self.scopes, self.segments, strict=True)]
        taken = tuple(
            replace(v, name=of_part(v.name, scope), scope=scope) for scope, s in parts for v in s.taken if v.kind != IDS
        )
        handed = tuple(
            (of_part(n, scope), self.unpacked(scope, s, v)) for scope, s in parts for n, v in s.handed if v != IDS
        )
        taken += tuple(v for v in self.first.taken if v.kind == IDS)  # ids of all parts, packed
        handed += tuple(pair for pair in self.first.handed if pair[1] == IDS)
        return replace(
            self.first, ops=tuple(self.ops), output=output, weights=tuple(weights.values()), sizes=self.sizes, taken=taken,
            handed=handed,
        )  # fmt: skip

    # -- which ops are one -------------------------------------------------------------------------

    def choose(self) -> None:
        """Names that all parts have, less those whose ops differ, until nothing changes: what is apart sets others apart."""
        others = [set(op.name for op in s.ops) for s in self.segments[1:]]
        names = [op.name for op in self.first.ops if all(op.name in have for have in others)]
        self.shared = {name for name in names if self.alike(name)}
        while True:
            self.sampled = {name for name in self.shared if not all(self.has_rows(name))}
            self.sampled_rows = next((self.has_rows(name) for name in names if name in self.sampled), ())
            apart = {name for name in self.shared if not self.fits(name)} | self.out_of_order()
            if not apart:
                return
            self.shared -= apart

    def of(self, name: str) -> tuple[Op, ...]:
        return tuple(segment.by_name[name] for segment in self.segments)

    def has_rows(self, name: str) -> tuple[bool, ...]:
        """Of each part whether a value has a row for every token, not one a sequence."""
        found = (segment.dims_of(name) for segment in self.segments)
        return tuple("seq" in dims or "batch" not in dims for dims in found)

    def alike(self, name: str) -> bool:
        """The same op in every part, on every token alike."""
        ops = self.of(name)
        one = ops[0]
        if not OPS[one.kind].of_each_token:
            return False
        said = [(op.kind, op.inputs, op.dtype, op.scope, op.attrs, _but_seq(op.dims)) for op in ops]
        if any(other != said[0] for other in said[1:]):
            return False
        for segment, op in zip(self.segments, ops, strict=True):
            if any(n in segment.beside and segment.beside[n].kind != IDS for n in op.inputs):
                return False
            dims = [op.dims, *(segment.dims_of(n) for n in op.inputs)]
            if any(d == "context" or stem(d) == "chosen" or group_of(d) is not None for each in dims for d in each):
                return False
            if "batch" in op.dims and "seq" not in op.dims and any("seq" in d for d in dims):
                return False
        return True

    def fits(self, name: str) -> bool:
        """What it takes and gives is packed in one way."""
        (one, *_), rows = self.of(name), self.has_rows(name)
        values = [n for n in one.inputs if not n.startswith("@") and "batch" in self.first.dims_of(n)]
        if "batch" in one.dims and any(self.has_rows(n) != rows for n in values):
            return False
        if name not in self.sampled:
            return True
        apart = (op for s in self.segments for op in s.ops if op.name not in self.shared)
        return rows == self.sampled_rows and not any(name in op.inputs for op in apart)

    def out_of_order(self) -> set[str]:
        """Shared ops that another part does in another order."""
        orders = [[op.name for op in s.ops if op.name in self.shared] for s in self.segments]
        return {name for names in zip_longest(*orders) if len(set(names)) > 1 for name in names if name is not None}

    # -- sizes ---------------------------------------------------------------------------------------

    def size(self) -> None:
        """What all parts agree on; the phase's dims, and others in which they differ, for each part. Rows of experts
        are those of all tokens."""
        rows = [self.rows(segment, all_tokens=True) for segment in self.segments]
        self.sizes = {"batch": float(self.ranks), "seq": number(sum(rows))}
        for dim in dict.fromkeys(d for s in self.segments for d in s.sizes if d not in PHASE_DIMS):
            sizes = [s.sizes[dim] for s in self.segments if dim in s.sizes]
            if stem(dim) == "slot":
                self.sizes[dim] = sum(sizes)
            elif len(set(sizes)) == 1:
                self.sizes[dim] = sizes[0]
            else:
                self.sizes[dim] = max(sizes)
                self.sizes |= {size_key(p, dim): s.sizes[dim] for p, s in zip(self.scopes, self.segments, strict=True)}
        for scope, segment in zip(self.scopes, self.segments, strict=True):
            self.sizes |= {size_key(scope, dim): segment.sizes[dim] for dim in PHASE_DIMS}
        if self.sampled:
            found = zip(self.segments, self.sampled_rows, strict=True)
            self.sizes[size_key(SAMPLED, "seq")] = number(sum(self.rows(s, all_tokens=every) for s, every in found))

    def rows(self, segment: Segment, *, all_tokens: bool) -> float:
        """Of a part on a rank."""
        each = segment.sizes["batch"] // self.ranks
        return each * (segment.sizes["seq"] if all_tokens else 1.0)

    # -- the ops, in an order that every part has ------------------------------------------------------

    def emit(self) -> None:
        waiting = [list(segment.ops) for segment in self.segments]
        while any(waiting):
            for scope, segment, ops in zip(self.scopes, self.segments, waiting, strict=True):
                while ops and ops[0].name not in self.shared:
                    self.own(scope, segment, ops.pop(0))
            if waiting[0]:
                self.one([ops.pop(0) for ops in waiting])

    def own(self, scope: str, segment: Segment, op: Op) -> None:
        """An op of a part alone."""
        if op.scope != "dense":
            raise CannotJoin(f"{op.name}: routed experts are not the same for prompts and in decode")
        inputs = tuple(n if n.startswith("@") else self.unpacked(scope, segment, n) for n in op.inputs)
        renamed = replace(op, name=of_part(op.name, scope), inputs=inputs, scope=scope)
        self.add(replace(renamed, more=further_results(renamed, None)))

    def one(self, ops: Sequence[Op]) -> None:
        """An op of all parts."""
        op = ops[0]
        if op.name in self.sampled:
            op = replace(op, dims=packed_dims(op.dims), scope=SAMPLED)
        inputs = tuple(n if n.startswith("@") else self.packed(n) for n in op.inputs)
        op = replace(op, inputs=inputs)
        self.add(replace(op, more=further_results(op, None)))

    def add(self, op: Op) -> None:
        if op.name in self.made:
            raise CannotJoin(f"two ops would be named {op.name}")
        self.ops.append(op)
        self.made |= {value.name for value in op.results}

    def is_packed(self, name: str) -> bool:
        ids = name in self.first.beside and self.first.beside[name].kind == IDS
        return (
            ids
            or name == self.first.input
            or (name in self.first.by_name and self.first.by_name[name].name in self.shared)
        )

    def unpacked(self, scope: str, segment: Segment, name: str) -> str:
        """A value as a part has it."""
        own = of_part(name, scope)
        if name in segment.beside and segment.beside[name].kind != IDS:
            return own
        if not self.is_packed(name) and name in segment.by_name:
            op = segment.by_name[name]
            return own if op.name == name else of_part(op.name, scope) + name[len(op.name) :]
        dims = segment.dims_of(name)
        if "batch" not in dims:  # the same for every token
            return name
        if own not in self.made:
            block = segment.by_name[name].block if name in segment.by_name else ""
            self.add(Op(own, "unpack", (name,), dims, segment.dtype_of(name), block, scope))
        return own

    def packed(self, name: str) -> str:
        """A value of all parts."""
        if self.is_packed(name) or name in self.made:
            return name
        op = self.first.by_name[name]
        dims = [segment.dims_of(name) for segment in self.segments]
        whole = {packed_dims(d) for d in dims if "batch" in d}
        if op.name != name or len(whole) > 1 or not whole:
            raise CannotJoin(f"{name} has other dimensions for prompts than in decode")
        every = all("seq" in d for d in dims)
        own = tuple(of_part(name, scope) for scope in self.scopes)
        scope = "dense" if every else SAMPLED
        self.add(Op(name, "pack", own, whole.pop(), op.dtype, op.block, scope))
        if not every:
            self.sizes.setdefault(
                size_key(SAMPLED, "seq"),
                number(sum(self.rows(s, all_tokens="seq" in d) for s, d in zip(self.segments, dims, strict=True))),
            )
        return name


def _but_seq(dims: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(d for d in dims if d != "seq")
