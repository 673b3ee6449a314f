"""linear_attention: measured times of linear attention and of the short convolutions before it.

The convolutions that feed a delta rule are one kernel, activations included; norms of queries and keys, decay and rate
belong to the kernel of the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..calib import delta_decode, delta_prefill, short_conv
from ..ir.graph import Op
from ..ir.ops.kind import Fuse
from .measured import Match, Measured, estimate_s

TAPS = 4
WIDTH = delta_prefill.WIDTH


def match_deltas(found: Match) -> None:
    """Delta rules, each with the convolutions that only it reads."""
    for op in found.shapes.of_kind("delta"):
        measured = _delta(found, op)
        if measured is None:
            continue
        found.times[op.name] = measured
        inside = _before(found, op)
        _convolutions(found, [each for each in inside if each.kind == "conv"])
        for each in inside:
            found.ride(each, Fuse.RECURRENCE)


def match_convolutions(found: Match) -> None:
    """Convolutions that feed no delta rule, one by one."""
    for op in found.shapes.of_kind("conv"):
        if op.name not in found.times:
            _convolutions(found, [op])


def _before(found: Match, op: Op) -> list[Op]:
    """What is computed for this op alone, back to the convolutions and to the products with weights."""
    ops = found.segment.ops
    readers: dict[str, set[str]] = {}
    for each in ops:
        for name in each.inputs:
            readers.setdefault(name, set()).add(each.name)
    inside = {op.name}
    chain: list[Op] = []
    for each in reversed(ops[: ops.index(op)]):
        weighed = each.kind == "contract" and any(name.startswith("@") for name in each.inputs)
        reads = readers.get(each.name, set())
        if weighed or each.is_collective or each.name == found.segment.output or not reads or not reads <= inside:
            continue
        chain.append(each)
        if each.kind != "conv":
            inside.add(each.name)
    return chain


def _delta(found: Match, op: Op) -> Measured | None:
    shapes, segment = found.shapes, found.segment
    queries = segment.dims_of(op.inputs[0])
    batch, seq = shapes.size(op, ("batch",)), shapes.size(op, ("seq",))
    heads = shapes.size(op, [d for d in op.dims[:-1] if d not in ("batch", "seq")])
    key_heads = shapes.size(op, [d for d in queries[:-1] if d not in ("batch", "seq")])
    width = segment.size(queries[-1]) * segment.size(op.dims[-1]) / WIDTH**2
    other = () if width == 1 else ("head_dim",)
    # Other widths than the measured one count as so many heads of it.
    if found.phase.takes_prompts:
        chunked = found.find(delta_prefill.FAMILY, delta_prefill.CHUNKED)
        if chunked is None:
            return None
        time_s = estimate_s(delta_prefill.FAMILY, chunked, batch, seq, key_heads * width, heads * width)
        outside = (*chunked.outside(batch_size=batch, seq_len=seq), *other)
        return Measured.of(time_s.reshape(1), delta_prefill.FAMILY.name, chunked, outside)
    step = found.find(delta_decode.FAMILY, (delta_decode.FP32, delta_decode.BF16))
    if step is None:
        return None
    # Of drafted tokens the state after each is written, as any of them may be the last that is kept.
    time_s = estimate_s(delta_decode.FAMILY, step, batch, heads * width * (1 + seq) / 2)
    outside = (*step.outside(batch_size=batch), *other, *(() if seq == 1 else ("tokens",)))
    return Measured.of(time_s.reshape(1), delta_decode.FAMILY.name, step, outside)


def _convolutions(found: Match, ops: Sequence[Op]) -> None:
    """Convolutions side by side, as one kernel."""
    if not ops:
        return
    variant = short_conv.PREFILL if found.phase.takes_prompts else short_conv.DECODE
    entry = found.find(short_conv.FAMILY, variant)
    if entry is None:
        return
    shapes, first = found.shapes, ops[0]
    batch, seq = shapes.size(first, ("batch",)), shapes.size(first, ("seq",))
    channels = sum(shapes.size(op, [d for d in op.dims if d not in ("batch", "seq")]) for op in ops)
    time_s = estimate_s(short_conv.FAMILY, entry, batch, seq, channels)
    taps = {found.segment.size(found.segment.dims_of(op.inputs[1])[-1]) for op in ops}
    outside = (*entry.outside(batch_size=batch, seq_len=seq), *(() if taps == {TAPS} else ("taps",)))
    found.share(ops, Measured.of(time_s.reshape(1), short_conv.FAMILY.name, entry, outside))
