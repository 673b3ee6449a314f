"""Layers behind an early exit: what they cache is made of all rows, everything else of those that are still there.

Keys and values of sequences that left are computed from the state with which they did, as CALM propagates it (arXiv 2207.07061, section
3.4), so that later tokens find a whole cache. Nothing of a block or a kind of attention is known here: what a cache is made of is an ancestor
of its op.
"""

from __future__ import annotations

from ...base.frozen import replace
from ...ir.op import Op
from ...ir.ops.attributes.attention import LeavingAttrs
from ...ir.ops.further import further_results
from ...ir.ops.kind import Tokens
from ...ir.ops.leaving import EVERY, STILL
from ...ir.ops.op_set import OPS, state_of
from ...ir.segment import Segment


class CannotThin(ValueError):
    """The layer does something for which every sequence has to be there; the message says what."""


def thinned(segment: Segment, every: float, groups: int) -> Segment:
    """The layer, expanded for the rows that are still there, with `every` row as its input and its result. `groups`: ranks that split them.
    Raises CannotThin."""
    if segment.taken or segment.handed:
        raise CannotThin("its layers hand values on")
    cached = [op for op in segment.ops if OPS[op.kind].tokens is Tokens.CACHE]
    whole = {op.name for op in cached}
    waiting = list(cached)
    while waiting:
        for name in waiting.pop().inputs:
            made = segment.by_name.get(name)
            if made is not None and made.name not in whole:
                whole.add(made.name)
                waiting.append(made)
    for op in segment.ops:
        kept = OPS[op.kind].tokens is Tokens.CACHE or OPS[op.kind].of_each_token or OPS[op.kind].by_position
        if state_of(segment, op) is not None or (op.name in whole and not (kept and op.scope == "dense")):
            raise CannotThin(f"`{op.kind}` remembers every sequence, and not as a cache does")
    attrs, ops, made_of = LeavingAttrs(groups), [], {}

    def still(name: str) -> str:
        """A value as the rows that are still there have it."""
        from_all = name == segment.input or (name in segment.by_name and segment.by_name[name].name in whole)
        if name.startswith("@") or not from_all or STILL not in segment.dims_of(name):
            return name
        if name not in made_of:
            made_of[name] = f"{name}.stay"
            block = segment.by_name[name].block if name in segment.by_name else ""
            ops.append(
                Op(made_of[name], "stay", (name,), segment.dims_of(name), segment.dtype_of(name), block, attrs=attrs)
            )
        return made_of[name]

    for op in segment.ops:
        if op.name in whole:
            ops.append(replace(op, dims=_all(op.dims)))
        else:
            ops.append(replace(op, inputs=tuple(map(still, op.inputs))))
        ops[-1] = replace(ops[-1], more=further_results(ops[-1], None))
    output = segment.output
    if "seq" in segment.dims_of(output):
        if output in whole or output == segment.input:
            raise CannotThin("it returns what it caches")
        output = f"{output}.rejoin"
        dims = _all(segment.input_dims)
        ops.append(Op(output, "rejoin", (segment.input, segment.output), dims, segment.input_dtype, attrs=attrs))
    return replace(
        segment,
        ops=tuple(ops),
        output=output,
        input_dims=_all(segment.input_dims),
        sizes={**segment.sizes, EVERY: every},
    )


def _all(dims: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(EVERY if d == STILL else d for d in dims)
