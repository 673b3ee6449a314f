"""Sizes as small as a plan's layouts, groups and masks allow, and attributes of ops for these.

What a size must keep: every split that divides goes on dividing, and every degree that does not goes on not dividing; more than one
element a rank, masks that mask, more tokens than experts and more experts than choices where the plan has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import lcm

from ..base.frozen import record
from ..base.number_texts import numbers_of, text_of
from ..ir.entries import entries_dim, group_of
from ..ir.graph import Graph
from ..ir.naming import size_key
from ..ir.op import Op
from ..ir.ops.attention import rope_of_factors, rotated
from ..ir.ops.attention_operands import chooses, entry_operands
from ..ir.ops.attributes.attention import AttendAttrs, LeavingAttrs, PoolAttrs, RopeAttrs, SelectAttrs, TemperAttrs
from ..ir.ops.attributes.attrs import Attrs
from ..ir.ops.attributes.elementwise import PartAttrs
from ..ir.ops.attributes.experts import DispatchAttrs, RouteAttrs, RouterAttrs
from ..ir.ops.attributes.losses import LossAttrs, ShareAttrs
from ..ir.ops.kind import Tokens
from ..ir.ops.leaving import EVERY
from ..ir.ops.op_set import OPS, table_by_id
from ..ir.ops.sequence import SEQUENCE_DIMS
from ..ir.routed_dims import after_skipping, choices_in, empty_experts, left_out, stem
from ..ir.segment import Segment
from ..ir.sharding import Axes
from .packed_twin import branches, packed_sizes

SMALL_BLOCK = 2
"""Tokens of a block that is selected as one."""

SMALL_GROUP = 2
"""Tokens that are kept as one entry."""

WIDTHS = (8, 6, 10)
"""What widths become that no axis splits: one after the other, so that few dims have equal sizes."""

HEADS, WORDS, CHOICES = 2, 32, 4
"""What numbers of heads, vocabularies and choices of experts become, where axes allow."""

PHASE_DIMS = ("batch", EVERY, "seq", "context")

MADE_DIMS = ("slot", "choice", "chosen")


@record(slots=False)
class Experts:
    """Of a router: experts, physical ones (with spare copies), choices of a token, and groups that it may use."""

    count: int
    physical: int
    top_k: int
    groups_limit: int


@dataclass
class Shrinker:
    """Sizes of a plan's dims -> sizes of its twin's, which has so many micro-batches."""

    plan: Graph
    microbatches: int
    splits: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    known: dict[tuple[str, int], int] = field(default_factory=dict)
    routers: dict[tuple[int, int], Experts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mesh = self.plan.the_mesh
        self.names = renamed(self.plan)
        for segment in self.plan.segments:
            for dim, size, axes in layouts(segment):
                self.splits.setdefault((self.names.get(dim, dim), size), set()).add(mesh.size(axes))
        self.degrees = sorted({d for d in mesh.degrees.values() if d > 1} | {n for _, n in mesh.atoms})
        self.known |= {(self.names.get(dim, dim), size): size for dim, size in in_runs(self.plan)}
        sizes = self.plan.head.sizes
        self.phase = {dim: int(sizes[dim]) for dim in PHASE_DIMS if dim in sizes}
        self.phase["batch"] = int(self.plan.embedding.sizes["batch"])
        if mesh.zigzag:
            for dim in SEQUENCE_DIMS:
                self.splits.setdefault((dim, self.phase[dim]), set()).add(2 * mesh.size(mesh.zigzag))
        if self.plan.head.parts:
            self._experts()
            self.known |= packed_sizes(self, self.plan)
        else:
            self._tokens()
            self._experts()
            self._sequences()
        self.reaches = {scope: self._reaches(scope) for scope in self.plan.head.parts or ("",)}

    # -- sizes of the phase ----------------------------------------------------------------------

    def _tokens(self) -> None:
        """New tokens and context: equal where the plan's are, else room for tokens before."""
        seq, context = self.phase["seq"], self.phase["context"]
        if seq == context:
            both = ("seq", seq), ("context", context)
            found = self.fit("seq", seq, 6, self.parts(*both))
            self.known |= dict.fromkeys(both, found)
            return
        least = seq if branches(self.plan) else 4 if self.plan.takes_prompts else 2  # a tree stays whole
        new = self.fit("seq", seq, least, self.parts(("seq", seq)))
        self.known["seq", seq] = new
        parts = self.parts(("context", context))
        local_tokens = new * lcm(*parts, 1)  # the last of the ranks that share a context takes all of its new tokens
        self.known["context", context] = self.fit("context", context, max(new + 5, local_tokens), parts)

    def _sequences(self) -> None:
        """More than one per rank where the plan has them, and more tokens than experts where it has those."""
        batch, seq = self.phase["batch"], self.phase["seq"]
        parts = self.parts(("batch", batch))
        most = max(parts, default=1)
        number = self.fit("batch", batch, min(batch, 2 * most), parts)
        for (_, physical), small in self.routers.items():
            if batch * seq > physical:
                wanted = small.physical // self.known["seq", seq] + 1
                number = max(number, self.fit("batch", batch, min(batch, wanted), parts))
        self.known["batch", batch] = number
        groups = {
            op.of(LeavingAttrs).groups for s in self.plan.segments for op in s.ops if isinstance(op.attrs, LeavingAttrs)
        }
        if groups:
            self._still_there(batch, number, groups.pop())

    def _still_there(self, batch: int, number: int, groups: int) -> None:
        """Sequences behind early exits: of each rank's fewer where the plan has fewer, and one at least."""
        self.known["every", batch] = number
        for still in {int(s.sizes["batch"]) for s in self.plan.segments} - {batch}:
            self.known["batch", still] = groups * max(1, number // groups * still // batch)

    # -- experts ---------------------------------------------------------------------------------

    def _experts(self) -> None:
        for segment, route, dispatch in self.routings():
            expert = dispatch.dims[0]
            count, physical = int(segment.sizes[expert]), int(segment.size(expert, "experts"))
            top_k = max(route.of(RouteAttrs).top_k, getattr(self.routers.get((count, physical)), "top_k", 1))
            self.routers[count, physical] = self.few(route, expert, count, physical, top_k)

    def routings(self) -> Iterator[tuple[Segment, Op, Op]]:
        """Every route with a dispatch of its rows."""
        for segment in self.plan.segments:
            for op in segment.ops:
                if isinstance(op.attrs, DispatchAttrs):
                    route = segment.by_name[op.inputs[1]]
                    while not isinstance(route.attrs, RouteAttrs):
                        route = segment.by_name[route.inputs[0]]
                    yield segment, route, op

    def few(self, route: Op, expert: str, count: int, physical: int, top_k: int) -> Experts:
        """As few experts as the ranks, the groups and the choices of a token allow: two a rank where the plan has more
        than one, spare copies where it has some, more experts than choices where it has more."""
        held, dense = self.parts((size_key("experts", expert), physical)), self.parts((expert, count))
        step = lcm(*held, 1)
        groups, limit = route.of(RouteAttrs).groups, route.of(RouteAttrs).groups_limit
        choices = self.cut(route.dims[-1], top_k, CHOICES)
        least = max(choices + (count > top_k), groups * (2 if count >= 2 * groups else 1))
        for number in range(step * min(2, physical // step), physical, step):
            for spare in range(1, number // 2 + 1) if physical > count else (0,):
                small = number - spare
                fits = least <= small <= count and small % groups == 0 and all(small % p == 0 for p in dense)
                allowed = min(groups, max(limit if limit == groups else min(limit, groups - 1), 1))
                while allowed < groups and small // groups * allowed < choices:
                    allowed += 1
                if fits and (allowed < groups or limit == groups):
                    return Experts(small, number, choices, allowed)
        return Experts(count, physical, top_k, limit)

    @property
    def fewest_experts(self) -> int:
        """Physical ones of a mixed step's twin that its tokens should exceed, as the plan's do; 0 where they do not."""
        tokens = self.phase["batch"] * self.phase["seq"]
        return max((small.physical for (_, n), small in self.routers.items() if tokens > n), default=0)

    # -- any size --------------------------------------------------------------------------------

    def parts(self, *keys: tuple[str, int]) -> set[int]:
        """Into how many parts any of these dims is split, where it divides; a sequence dealt out in zigzag into two a rank."""
        dealt = 2 * self.plan.the_mesh.size(self.plan.the_mesh.zigzag) if self.plan.the_mesh.zigzag else 1
        parts = {p for key in keys for p in self.splits.get(key, ()) if p > 1 and key[1] % p == 0}
        return parts | ({dealt} if dealt > 1 and any(dim in SEQUENCE_DIMS for dim, _ in keys) else set())

    def fit(
        self, dim: str, size: int, base: int, parts: Iterable[int], also: Callable[[int], bool] = lambda n: True
    ) -> int:
        """The least size from `base` on, and with two elements a rank, that the parts divide and that no degree and no
        split divides that does not divide the plan's."""
        step = lcm(*parts, 1)
        uneven = {p for p in (*self.degrees, *self.splits.get((dim, size), ())) if size % p}
        base = min(size, max(base, 2 * step))
        for number in range(-(-base // step) * step, size, step):
            if all(number % p for p in uneven) and also(number):
                return number
        return size

    def cut(self, dim: str, size: int, wanted: int) -> int:
        """About so many of a dim that a function makes, and as many as its splits need."""
        step = lcm(*self.parts((dim, size)), 1)
        return min(size, -(-wanted // step) * step)

    def size(self, segment: Segment, dim: str, scope: str = "dense") -> float:
        """The twin's size of one of a segment's dims."""
        size = segment.size(dim, scope)
        kind = stem(dim)
        if kind in PHASE_DIMS:
            own = size_key(scope, dim)
            return float(self.known[own if own in segment.sizes else dim, int(size)])
        if kind == "expert" and self.is_routed(segment, dim):
            small = self.routers[int(segment.sizes[dim]), int(segment.size(dim, "experts"))]
            return float(small.physical if scope == "experts" else small.count)
        if kind in MADE_DIMS:
            return self.made(segment, dim, scope)
        if rope := rope_of_factors(segment, dim):
            return float(rotated(self.size(segment, rope.dims[-1], rope.scope), rope.of(RopeAttrs).fraction) // 2)
        if choice := choices_in(segment, dim):
            return self.made(segment, choice, scope)
        key = (self.names.get(dim, dim), int(size))
        if key not in self.known:
            base, also = self.base(segment, dim)
            self.known[key] = self.fit(*key, base, self.parts(key), also)
        return float(self.known[key])

    def is_routed(self, segment: Segment, dim: str) -> bool:
        return any(isinstance(op.attrs, DispatchAttrs) and op.dims[0] == dim for op in segment.ops)

    def base(self, segment: Segment, dim: str) -> tuple[int, Callable[[int], bool]]:
        """What a dim becomes if nothing splits it, and what else its size must be."""
        fractions = []
        base = WIDTHS[len(self.known) % len(WIDTHS)]
        for op in segment.ops:
            if OPS[op.kind].over_heads and dim in op.dims[:-1]:
                base = HEADS
            if (OPS[op.kind].reduce == "max" and dim == segment.dims_of(op.inputs[0])[-1]) or (
                (table := table_by_id(op)) and dim == segment.dims_of(table)[0]
            ):
                base = WORDS
            if isinstance(op.attrs, PoolAttrs) and dim == segment.dims_of(op.inputs[2])[0]:
                base = SMALL_GROUP
            if isinstance(op.attrs, RopeAttrs) and op.dims[-1] == dim:
                fractions.append(op.of(RopeAttrs).fraction)

        def turns(number: int) -> bool:
            return all(rotated(number, f) >= 2 and rotated(number, f) % 2 == 0 for f in fractions)

        return base, turns

    def made(self, segment: Segment, dim: str, scope: str = "dense") -> float:
        """Sizes that functions make: choices of a router, slots of its experts, tokens that are selected."""
        if stem(dim) == "chosen":
            scope = scope if size_key(scope, dim) in segment.sizes else "dense"  # one size for all parts
            own = tuple(size_key(part, "context") for part in segment.parts if scope in (part, "dense")) or ("context",)
            found = [(int(segment.sizes[key]), self.known[key, int(segment.sizes[key])]) for key in own]
            group = group_of(chosen_from(segment, dim) or "")
            if group is not None:  # groups of tokens, the begun one among them
                whole, twins = int(segment.size(group)), int(self.size(segment, group))
                found = [(-(-plan // whole), -(-few // twins)) for plan, few in found]
            context, small = min(found)
            chosen = int(segment.size(dim, scope))
            if chosen >= context:
                return float(small)
            found_here = self.cut(dim, chosen, max(1, small // 2))
            blocks = any(
                isinstance(o.attrs, SelectAttrs) and o.attrs.together for s in self.plan.segments for o in s.ops
            )
            return float(max(SMALL_BLOCK, found_here - found_here % SMALL_BLOCK) if blocks else found_here)
        for at, route, dispatch in self.routings():
            if at is segment and dim in (dispatch.dims[1], route.dims[-1]):
                expert = dispatch.dims[0]
                small_router = self.routers[int(segment.sizes[expert]), int(segment.size(expert, "experts"))]
                top_k = min(route.of(RouteAttrs).top_k, small_router.top_k)
                if dim == route.dims[-1]:
                    return float(top_k)
                tokens = self.size(segment, "batch") * self.size(segment, "seq")
                empty = empty_experts(segment, route)
                others = 0.0 if empty is None else self.size(segment, empty)
                share = left_out(route.of(RouteAttrs).skip, small_router.count, others)
                return tokens * after_skipping(top_k, share) / small_router.physical
        return segment.sizes[dim]

    # -- attributes ------------------------------------------------------------------------------

    def _reaches(self, part: str) -> dict[float, float]:
        """Windows and chunks shorter than the context -> ones shorter than the twin's, in the same order. `part`: of ops of
        that part of a mixed step; empty: of all."""
        context = int(self.plan.head.size("context", part or "dense"))
        ops = (op for s in self.plan.segments for op in s.ops if part in ("", op.scope))
        found = sorted({float(v) for op in ops for v in _reaches(op.attrs) if 0 < v < context})
        small = self.known[size_key(part, "context") if part else "context", context]
        return {value: float(max(1, 1 + (i + 1) * (small - 1) // (len(found) + 1))) for i, value in enumerate(found)}

    def attrs(self, segment: Segment, op: Op) -> Attrs:
        """The op's attributes, those that are sizes as small as the twin's."""
        attrs, reaches = op.attrs, self.reaches.get(op.scope if segment.parts else "", {})
        if isinstance(attrs, RopeAttrs) and attrs.stretch:
            pairs = rotated(int(self.size(segment, op.dims[-1], op.scope)), attrs.fraction) // 2
            return attrs.but(stretch=text_of(numbers_of(attrs.stretch)[:pairs]))
        if isinstance(attrs, TemperAttrs):
            return attrs.but(floor=reaches.get(attrs.floor, attrs.floor))
        if isinstance(attrs, AttendAttrs):
            window, chunk = (int(reaches.get(n, n)) for n in (attrs.window, attrs.chunk))
            chosen = int(self.made(segment, segment.dims_of(op.inputs[-1])[-1], op.scope)) if chooses(attrs) else 0
            block = min(attrs.chosen_together, SMALL_BLOCK)
            if attrs.chosen_entries:
                return attrs.but(window=window, chunk=chunk, chosen_entries=chosen)
            return attrs.but(window=window, chunk=chunk, chosen=chosen, chosen_together=block)
        if isinstance(attrs, SelectAttrs) and attrs.together:
            return attrs.but(together=SMALL_BLOCK, local=1)
        if isinstance(attrs, RouterAttrs):
            choices = op.dims if isinstance(attrs, RouteAttrs) else segment.dims_of(op.inputs[0])
            top_k = int(self.made(segment, choices[-1], op.scope))
            return attrs.but(top_k=top_k, groups_limit=self.groups_limit(segment, op, attrs.groups_limit))
        if isinstance(attrs, ShareAttrs) and attrs.sequences > 1:
            groups, few = segment.size("batch") / attrs.sequences, self.size(segment, "batch")
            return attrs.but(sequences=int(few / groups) if few % groups == 0 else 1)
        if isinstance(attrs, LossAttrs):
            tokens = self.size(segment, "batch") * self.size(segment, "seq")
            return attrs.but(tokens=int(tokens) * self.microbatches * self.plan.lanes)
        return attrs

    def groups_limit(self, segment: Segment, op: Op, limit: int) -> int:
        for at, route, dispatch in self.routings():
            if at.name == segment.name and route.name == op.name:
                expert = dispatch.dims[0]
                return self.routers[int(at.sizes[expert]), int(at.size(expert, "experts"))].groups_limit
        return limit


def _reaches(attrs: Attrs) -> tuple[float, ...]:
    """Numbers of tokens behind which an op sees, or does, something else."""
    if isinstance(attrs, AttendAttrs):
        return attrs.window, attrs.chunk
    return (attrs.floor,) if isinstance(attrs, TemperAttrs) else ()


def in_runs(graph: Graph) -> Iterator[tuple[str, int]]:
    """Dims whose entries are dealt out by their place, and dims of such a part: their sizes stay, so that the parts are where they were."""
    for segment in graph.segments:
        for op in segment.ops:
            if isinstance(op.attrs, PartAttrs):
                value = segment.dims_of(op.inputs[0])
                for dim in (value[-1], *op.dims[len(value) - 1 :]):
                    yield dim, int(segment.size(dim, op.scope))


def chosen_from(segment: Segment, dim: str) -> str | None:
    """The dimension of the entries that a choice is of; None where it is of tokens, or another layer's."""
    for op in segment.ops:
        if op.dims[-1:] == (dim,) and OPS[op.kind].tokens is Tokens.CHOOSE:
            return entries_dim(segment.dims_of(op.inputs[1]))
        if isinstance(op.attrs, AttendAttrs) and op.attrs.chosen_entries and segment.dims_of(op.inputs[-1])[-1] == dim:
            return entries_dim(segment.dims_of(entry_operands(op)[0][0]))
    return None


def renamed(graph: Graph) -> dict[str, str]:
    """Dim -> another name of it, the same for all that an op makes of one."""
    found: dict[str, str] = {}
    for segment in graph.segments:
        for op in segment.ops:
            for dim, new in zip(segment.dims_of(op.inputs[0]), op.dims, strict=True) if op.kind == "rename" else ():
                one, other = found.get(dim, dim), found.get(new, new)
                found |= {name: one for name in (dim, new, *(n for n, of in found.items() if of == other))}
    return found


def layouts(segment: Segment) -> Iterator[tuple[str, int, Axes]]:
    """Every split of a dim that a layout or a loop of the segment has: (dim, size, axes)."""

    def of(dims: tuple[str, ...], axes: tuple[Axes, ...], scope: str) -> Iterator[tuple[str, int, Axes]]:
        for dim, split in zip(dims, axes, strict=True):
            if split and stem(dim) != "slot":
                own = size_key(scope, dim)
                name = own if own in segment.sizes else dim
                yield name, int(segment.size(dim, scope)), split

    if segment.entry is not None:
        yield from of(segment.input_dims, segment.entry.dims, "dense")
    for one in segment.taken:
        if one.sharding is not None:
            yield from of(one.dims, one.sharding.dims, one.scope)
    for weight in segment.weights:
        if weight.sharding is not None:
            yield from of(weight.dims, weight.sharding.dims, weight.scope)
    for op in segment.ops:
        if op.sharding is not None:
            yield from of(op.dims, op.sharding.dims, op.scope)
        yield from of(tuple(d for d, _ in op.loops), tuple(a for _, a in op.loops), op.scope)
