"""The passes that a prompt takes, each with its own new tokens and the context cached by then.

The graph is lowered once, for a whole chunk; a pass runs the same ops at its own sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from ..base.frozen import record, replace
from ..base.traced import number
from ..ir.graph import Graph
from ..ir.ops.attention_work import entry_tokens
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS
from ..ir.routed_dims import stem
from ..ir.segment import Segment
from ..spec.phase import Phase

MOST = 32
"""Passes priced one by one. Of more, runs of passes are priced as the middle one of each run: times are linear in the
context but for a few kinks (a window that fills, memory that takes over from math)."""


@record
class PassSize:
    """`count` passes of `tokens` new tokens per sequence that end at `context`."""

    count: int
    tokens: float
    context: float


def whole_pass(phase: Phase) -> PassSize:
    """A whole chunk at the end of the prompt, or a step: the pass that a phase is lowered for."""
    return PassSize(1, phase.tokens, phase.seen if phase.cache.keep else phase.context)


def is_whole(size: PassSize, phase: Phase) -> bool:
    """Whether a pass is as large as that."""
    whole = whole_pass(phase)
    return size.tokens == whole.tokens and size.context == whole.context


def sizes(phase: Phase) -> tuple[PassSize, ...]:
    """The passes of a phase in order; a decode step and a prompt that is not cut take one."""
    if phase.passes == 1:
        return (whole_pass(phase),)
    whole = phase.passes - bool(phase.last)
    cached = phase.context - phase.new_tokens
    found = [PassSize(n, phase.tokens, cached + (middle + 1) * phase.tokens) for n, middle in _runs(whole)]
    if phase.cuts:
        found = list(_of_cuts(phase))
    if phase.last:
        found.append(PassSize(1, phase.last, phase.context))
    if phase.cache.keep:
        found = [replace(one, context=phase.cache.seen(one.tokens, one.context, generates=False)) for one in found]
    return tuple(found)


def _of_cuts(phase: Phase) -> Iterator[PassSize]:
    """Passes of unequal tokens; of a run of them the middle one, with the run's tokens."""
    ends = list(accumulate(phase.cuts, initial=phase.context - phase.new_tokens))
    start = 0
    for count, _ in _runs(len(phase.cuts)):
        end = start + count
        yield PassSize(count, (ends[end] - ends[start]) / count, ends[start + (count + 1) // 2])
        start = end


def _runs(number: int) -> Iterator[tuple[int, float]]:
    """(length, index of the middle) of runs of passes; the last pass is always one of its own."""
    runs = min(number - 1, MOST - 1)
    start = 0
    for k in range(runs):
        end = (number - 1) * (k + 1) // runs
        yield end - start, (start + end - 1) / 2
        start = end
    yield 1, number - 1


def resized(graph: Graph, tokens: float, context: float) -> Graph:
    """The graph with so many new tokens per sequence, up to so long a context. A mixed step is not cut."""
    if graph.embedding.parts:
        return graph

    def change(segment: Segment) -> Segment:
        sizes = {**segment.sizes, "seq": number(tokens), "context": number(context)}
        for name, size in segment.sizes.items():
            if stem(name) == "slot":
                sizes[name] = size * tokens / segment.sizes["seq"]
            elif stem(name) == "chosen":
                sizes[name] = min(size, seen_of(segment, name, context))
        return segment.with_sizes(sizes)

    return replace(graph, segments=tuple(change(s) for s in graph.segments))


def seen_of(segment: Segment, chosen: str, context: float) -> float:
    """Of how many a choice is, up to so long a context: of its tokens, or of groups of them."""
    for op in segment.ops:
        if chosen in op.dims and OPS[op.kind].tokens is Tokens.CHOOSE:
            tokens = entry_tokens(segment, op)
            return -(-context // tokens) if tokens else context
    return context


def divided(graph: Graph, tokens: float) -> float:
    """New tokens of a short pass, padded to the ranks that split them."""
    parts = max(graph.the_mesh.size(op.loop("seq")) for s in graph.segments for op in s.ops)
    return -(-tokens // parts) * parts
