"""Older files say one result per op: here is what their lines leave out of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..graph import Op, Value
from ..ops.attributes import ExchangeAttrs
from ..ops.further import further_results, moved_results


def completed(op: Op, made: Mapping[str, Op]) -> Op:
    """The op with its operands and results as they are today; a line of today as it is. `made`: the ops before it by name."""
    layout = op.sharding
    if isinstance(op.attrs, ExchangeAttrs) and len(op.inputs) == 2 and op.inputs[1] in made:
        return replace(op, inputs=(*op.inputs, *(value.name for value in made[op.inputs[1]].more)))
    if op.more:
        return op
    if not op.is_collective and op.kind != "slice":
        return replace(op, more=further_results(op, layout))
    if layout is None:
        return op
    source = made.get(op.inputs[0])
    if source is None or not source.more:
        return op
    names = _operands(op, source, made)
    values = {value.name: value for each in made.values() for value in each.results}
    operands = [values.get(name, Value(name, (), "")) for name in names]
    return replace(op, inputs=names, more=moved_results(op, layout, operands))


def _operands(op: Op, source: Op, made: Mapping[str, Op]) -> tuple[str, ...]:
    """What it reads, if its line names first results alone."""
    further = tuple(value.name for value in source.more)
    if any(name not in made for name in op.inputs):
        return op.inputs
    if source.sharding is None or source.sharding.reduce != "softmax":
        return (source.name, *further)
    maxima, sums = further
    if op.kind == "all_reduce":
        return (maxima,)
    if op.dims != source.dims:
        return (sums, maxima, *op.inputs[1:])
    return (source.name, *(value.name for name in op.inputs[1:] for value in made[name].more))
