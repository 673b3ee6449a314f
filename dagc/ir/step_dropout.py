"""step_dropout: what layers add to the residual stream, and the embedding's rows, with some numbers put to nothing at random (Megatron-LM's
`--hidden-dropout`). Which ones is a function of where they are, so that ranks, and a layer that is done anew, have the same."""

from __future__ import annotations

from ..base.frozen import replace
from .op import Op
from .ops.attributes.elementwise import DropoutAttrs
from .ops.further import further_results
from .segment import Segment


def with_dropout(segment: Segment, rate: float, *, table: bool) -> Segment:
    """`table`: the first layer, whose result is dropped itself."""
    if table:
        return dropped(segment, segment.output, rate, 0, readers=())
    stream, found = segment.input, []
    for op in segment.ops:
        if op.kind == "add" and stream in op.inputs and op.dims == segment.dims_of(stream):
            (branch,) = [name for name in op.inputs if name != stream] or [stream]
            if branch != stream and segment.dims_of(branch) == op.dims:
                found.append((branch, op.name))
            stream = op.name
    for number, (branch, reader) in enumerate(found):
        segment = dropped(segment, branch, rate, number, readers=(reader,))
    return segment


def dropped(segment: Segment, name: str, rate: float, number: int, readers: tuple[str, ...]) -> Segment:
    """A value dropped for some of its readers; without any it is the result of the layer."""
    made = segment.by_name[name]
    op = Op(f"{name}.dropped", "dropout", (name,), made.dims, made.dtype, made.block, attrs=DropoutAttrs(rate, number))
    op = replace(op, more=further_results(op, None))
    ops = []
    for old in segment.ops:
        inputs = tuple(op.name if n == name else n for n in old.inputs) if old.name in readers else old.inputs
        ops += [replace(old, inputs=inputs), *([op] if old.name == name else [])]
    return replace(segment, ops=tuple(ops), output=segment.output if readers else op.name)
