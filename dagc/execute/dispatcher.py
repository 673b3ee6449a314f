"""Walks the ops of a layer. What an op does is its backend's rule (tables `NUMPY` and `TORCH`, keyed by kind); what routed
rows do with that rule, and where operands come from, is the same for both and is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..base.draft_trees import depths, lineage, of_word
from ..base.frozen import record, replace
from ..ir.entries import group_of, is_entries
from ..ir.op import FORWARD, Op
from ..ir.ops.op_set import OPS
from ..ir.routed_dims import rows_of
from ..ir.segment import Segment
from .failure import CannotRun, Wrong
from .shards import Coordinates, Shards
from .values import Array, Flags, Ints, Ragged

ROW = "row."
"""Rows of one expert: no dimension of a block has such a name."""


class RunPlace(NamedTuple):
    """Where a run is."""

    segment: Segment
    layer: int
    op: Op


@record
class OpCall:
    """One op on one rank. `dims`, `out`: dimensions of the operands and of the result as the rule gets them (of routed
    rows those of a single expert); `host`: what the backend lends its rules."""

    shards: Shards
    segment: Segment
    layer: int
    op: Op
    rank: Coordinates
    dims: tuple[tuple[str, ...], ...]
    out: tuple[str, ...]
    host: Any

    def part(self, dim: str) -> slice:
        """The rank's part of a loop of the op."""
        return self.shards.part(int(self.segment.size(dim)), self.op.loop(dim), self.rank)

    def length(self, dim: str) -> int:
        """Entries of a dim on the rank."""
        own = self.part(dim)
        return int(own.stop - own.start)

    def positions(self, dim: str) -> Ints:
        """In the sequence, of the rank's tokens along `seq` or `context`; of drafted tokens that branch by their depth. Of groups of tokens
        the first token's."""
        group = group_of(dim)
        if group is not None:
            tokens, count = int(self.segment.size(group)), int(self.segment.size(dim))
            first = 0 if is_entries(dim) else self._before // tokens
            return (np.arange(count) + first) * tokens
        found = self.places(dim)
        tree = of_word(getattr(self.op.attrs, "tree", ""))
        if not tree:
            return found
        before, depth = self._before, np.array(depths(tree))
        return np.where(found < before, found, before + depth[np.maximum(found - before, 0)])

    def places(self, dim: str) -> Ints:
        """Of the rank's tokens along `seq` or `context`, among all of the sequence."""
        return self.shards.positions(self.segment, self.op.loop(dim), self.rank, dim)

    @property
    def _before(self) -> int:
        """Tokens before those of this pass."""
        return int(self.segment.sizes["context"] - self.segment.sizes["seq"])

    @property
    def related(self) -> Flags:
        """[queries, context]: whether a token of the context comes before the query, or is of another branch; [1, 1] where none branch."""
        tree = of_word(getattr(self.op.attrs, "tree", ""))
        if not tree:
            return np.ones((1, 1), dtype=bool)
        size = int(self.segment.sizes["seq"])
        own = np.zeros((size, size), dtype=bool)
        own[tuple(np.array(list(lineage(tree))).T)] = True
        queries, context = self.places("seq") - self._before, self.places("context") - self._before
        return (context < 0)[None, :] | own[queries[:, None], np.maximum(context, 0)[None, :]]

    def whole_groups(self, dim: str) -> Flags:
        """[queries, entries]: whether all tokens of a group come no later than the query."""
        last = self.positions(dim) + int(self.segment.size(str(group_of(dim)))) - 1
        return self.positions("seq")[:, None] >= last[None, :]

    @property
    def origin(self) -> tuple[int, int]:
        return self.shards.origin(self.op, self.rank, self.segment)

    @property
    def whole_prompt(self) -> bool:
        """Whether the new tokens are all there are: nothing was there before."""
        return self.segment.sizes["seq"] == self.segment.sizes["context"]


Rule = Callable[[OpCall, Sequence[Any]], Any]
"""(call, the rank's operands) -> the rank's result; a tuple where the op has several."""
Results = list[list[object]]
"""Of each result of an op the value on every rank of this process."""


@record
class Backend:
    """How one library of arrays computes. `rules`: of every op that is not a collective; those of kinds that work on
    routed rows (`OpKind.on_rows`) hold for the rows of an expert as they do for tokens. `of_rows`: kinds whose rule takes
    `Ragged` itself. `rows_of_each` cuts rows into those of each local expert, `joined` is its inverse; `stacked` puts a tensor of
    each expert into one, along a new axis."""

    rules: Mapping[str, Rule]
    of_rows: frozenset[str]
    rows_of_each: Callable[[Ragged], list[Array]]
    joined: Callable[[list[Array]], Array]
    stacked: Callable[[list[Array], int], Array]

    def compute(self, call: OpCall, x: Sequence[Any]) -> Any:
        kind = call.op.kind
        rule = self.rules.get(kind)
        if rule is None:
            raise CannotRun(f"no kernel for `{kind}`")
        if kind in self.of_rows or not any(isinstance(value, Ragged) for value in x):
            return rule(call, x)
        if not OPS[kind].on_rows:
            raise CannotRun(f"no kernel for `{kind}` of routed rows")
        return self.each_row(rule, call, x)

    def each_row(self, rule: Rule, call: OpCall, x: Sequence[Any]) -> Any:
        """All rows at once, or expert by expert where weights of experts take part. Of two operands either may be the
        rows, or both; what is neither rows nor a weight of experts is the same for all. A result without rows, as gradients
        of weights are, is summed over those of each expert, or over all."""
        found = next(rows for dims in (call.op.dims, *call.dims) if (rows := rows_of(dims)) is not None)
        summed, own = rows_of(call.op.dims) is None, tuple(d for d in call.out if d not in found)
        dims = tuple(
            (*((ROW,) if isinstance(value, Ragged) else ()), *(d for d in named if d not in found))
            for value, named in zip(x, call.dims, strict=True)
        )
        call = replace(call, dims=dims, out=own if summed else (ROW, *own))
        first = next(value for value in x if isinstance(value, Ragged))
        by_expert = found.expert in call.op.dims if summed else any(isinstance(value, Mapping) for value in x)
        if not by_expert:
            data = rule(call, [v.data if isinstance(v, Ragged) else v for v in x])
            return data if summed else first.with_data(data)
        parts = [self.rows_of_each(v) if isinstance(v, Ragged) else None for v in x]
        results = []
        for i, expert in enumerate(first.held):
            values = [
                part[i] if part is not None else v[expert] if isinstance(v, Mapping) else v
                for v, part in zip(x, parts, strict=True)
            ]
            results.append(rule(call, values))
        if summed:
            return self.stacked(results, call.op.dims.index(found.expert))
        return first.with_data(self.joined(results))


class Host(Protocol):
    """A run: the ranks that are in this process, and what they do besides computing."""

    shards: Shards
    backend: Backend

    def here(self, on: str) -> Sequence[Coordinates]:
        """Of the ranks that an op or a value is `on` (see Sharding), those in this process; every value is a list of theirs, in this
        order."""

    def weight(self, segment: Segment, layer: int, name: str, rank: Coordinates) -> object:
        """A rank's part of a weight."""

    def collective(self, place: RunPlace, operands: Results) -> Results:
        """What the ranks have after a collective. `operands`: of each operand the ranks' values."""

    def lend(self, place: RunPlace, rank: Coordinates) -> object:
        """`OpCall.host`."""

    def done(self, call: OpCall, x: Sequence[Any], value: object) -> None:
        """Told of the first result of every rule."""

    def around(self, place: RunPlace, step: Callable[[], Results]) -> Results:
        """Runs an op's step: times it, watches it, says where it failed."""


Env = dict[str, list[object]]
"""Values of a layer by name, each a list of the ranks'."""


def run_layer(host: Host, segment: Segment, layer: int, entry: list[object], beside: Env) -> list[object]:
    """Every op of a layer's result on every rank of this process; the result. `beside`: what layers before hand on, to which it adds what
    this one does."""
    env: Env = {segment.input: entry, **{one.name: beside[one.name] for one in segment.taken}}
    run_cells(host, segment, layer, env, (FORWARD,))
    beside.update({name: env[value] for name, value in segment.handed})
    return env[segment.output]


def run_cells(host: Host, segment: Segment, layer: int, env: Env, cells: tuple[str, ...]) -> None:
    """Adds the values of the ops of these cells, in order."""
    for op in segment.ops:
        if op.cell in cells:
            place = RunPlace(segment, layer, op)
            results = host.around(place, partial(run_op, host, place, env))
            env |= zip((value.name for value in op.made), results, strict=True)


def run_op(host: Host, place: RunPlace, env: Mapping[str, list[object]]) -> Results:
    """One op on every rank of this process. Raises Wrong."""
    segment, layer, op = place
    if op.is_collective:
        return host.collective(place, [env[name] for name in op.inputs])
    dims, own = tuple(map(segment.dims_of, op.inputs)), segment.within(op.scope)
    results: Results = [[] for _ in op.made]
    for i, rank in enumerate(host.here(op.on)):
        x = [
            host.weight(segment, layer, n, rank) if n.startswith("@") else host.shards.read(segment, n, env[n][i], rank)
            for n in op.inputs
        ]
        call = OpCall(host.shards, own, layer, op, rank, dims, op.dims, host.lend(place, rank))
        made = host.backend.compute(call, x)
        values = made if isinstance(made, tuple) else (made,)
        if len(values) != len(results):
            raise Wrong(f"{op.name}: it has {len(values)} results, {len(results)} are declared")
        host.done(call, x, values[0])
        for result, value in zip(results, values, strict=True):
            result.append(value)
    return results
