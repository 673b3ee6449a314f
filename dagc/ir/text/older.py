"""Older files: their moves go by the names of what the runtime calls, and an op has one result; here they become today's."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import replace
from ..op import Op
from ..op import Value as Result
from ..ops.attributes.attrs import Value
from ..ops.attributes.experts import ExchangeAttrs
from ..ops.further import further_results, moved_results


def renamed(kind: str, found: dict[str, Value]) -> tuple[str, dict[str, Value]]:
    """Kind and attributes as they are today: a ring turn was a permute with steps, a merge of softmax an all-reduce."""
    part = found.pop("of", found.pop("part", None))
    if kind == "permute" and "steps" in found:
        return "ring_turn", found
    if kind == "all_reduce" and part == "row_max":
        return kind, {"reduce": "max"}
    if kind == "all_reduce" and (part is not None or found.get("reduce") == "softmax"):
        return "softmax_merge", {}
    return kind, found


def completed(op: Op, made: Mapping[str, Op]) -> Op:
    """The op with its operands and results as they are today. `made`: the ops before it by name."""
    layout = op.sharding
    if isinstance(op.attrs, ExchangeAttrs) and len(op.inputs) == 2 and op.inputs[1] in made:
        return replace(op, inputs=(*op.inputs, *(value.name for value in made[op.inputs[1]].more)))
    if op.more or not op.inputs:
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
    operands = [values.get(name, Result(name, (), "")) for name in names]
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
