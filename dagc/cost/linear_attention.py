"""linear_attention: measured times of linear attention and of the short convolutions before it.

The convolutions that feed a delta rule are one kernel, activations included; norms of queries and keys, decay and rate
belong to the kernel of the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..calib import delta_decode, delta_prefill, short_conv
from ..ir.naming import of_all_parts
from ..ir.op import Op
from ..ir.ops.attributes.recurrent import DeltaAttrs
from ..ir.ops.kind import Fuse
from ..ir.ops.op_set import OPS
from .measured import Match, Measured, estimate_s

TAPS = 4
WIDTH = delta_prefill.WIDTH


def match_deltas(found: Match) -> None:
    """Delta rules, each with the convolutions that only it reads; the parts of a mixed step convolve one by one."""
    rules: dict[str, list[Op]] = {}
    for op in found.shapes.of_kind("delta"):
        rules.setdefault(of_all_parts(op.name, op.scope), []).append(op)
    for parts in rules.values():
        measured = [_delta(found, op) for op in parts]
        for op, each in zip(parts, measured, strict=True):
            if each is not None:
                found.times[op.name] = each
        if None in measured:
            continue
        convolutions: dict[str, list[Op]] = {}
        for op in _before(found, parts):
            if op.kind == "conv":
                convolutions.setdefault(op.scope, []).append(op)
            else:
                found.ride(op, Fuse.RECURRENCE)
        for side_by_side in convolutions.values():
            _convolutions(found, side_by_side)


def match_convolutions(found: Match) -> None:
    """Convolutions that feed no delta rule, one by one."""
    for op in found.shapes.of_kind("conv"):
        if op.name not in found.times:
            _convolutions(found, [op])


def _before(found: Match, rules: Sequence[Op]) -> list[Op]:
    """What is computed for these ops alone, back to the convolutions and to the products with weights."""
    ops = found.segment.ops
    readers: dict[str, set[str]] = {}
    for each in ops:
        for name in each.inputs:
            readers.setdefault(name, set()).add(each.name)
    inside = {op.name for op in rules}
    chain: list[Op] = []
    for each in reversed(ops):
        reads = readers.get(each.name, set())
        if each.name == found.segment.output or not reads or not reads <= inside:
            continue
        if each.kind == "conv":
            chain.append(each)
        elif _rides(each):
            chain.append(each)
            inside.add(each.name)
    return chain


def _rides(op: Op) -> bool:
    """Whether the kernel of a rule does this op too; views cost nothing anyhow."""
    kind = OPS[op.kind]
    if OPS[op.kind].product and any(name.startswith("@") for name in op.inputs):
        return False
    return Fuse.RECURRENCE in kind.rides_in or (kind.local and kind.fused and not op.is_collective)


def _delta(found: Match, op: Op) -> Measured | None:
    shapes, segment = found.shapes, found.segment
    queries = segment.dims_of(op.inputs[0])
    if not op.of(DeltaAttrs).correct or queries[-1] in segment.dims_of(op.inputs[3]):
        return None  # kernels of other rules
    batch, seq = shapes.size(op, ("batch",)), shapes.size(op, ("seq",))
    heads = shapes.size(op, [d for d in op.dims[:-1] if d not in ("batch", "seq")])
    key_heads = shapes.size(op, [d for d in queries[:-1] if d not in ("batch", "seq")])
    width = segment.size(queries[-1]) * segment.size(op.dims[-1]) / WIDTH**2
    other = () if width == 1 else ("head_dim",)
    # Other widths than the measured one count as so many heads of it.
    if found.phase.part(op.scope).takes_prompts:
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
    part = found.phase.part(ops[0].scope)
    entry = found.find(short_conv.FAMILY, short_conv.PREFILL if part.takes_prompts else short_conv.DECODE)
    if entry is None:
        return
    shapes, first = found.shapes, ops[0]
    batch, seq = shapes.size(first, ("batch",)), shapes.size(first, ("seq",))
    channels = sum(shapes.size(op, [d for d in op.dims if d not in ("batch", "seq")]) for op in ops)
    time_s = estimate_s(short_conv.FAMILY, entry, batch, seq, channels)
    taps = {found.segment.size(found.segment.dims_of(op.inputs[1])[-1]) for op in ops}
    outside = (*entry.outside(batch_size=batch, seq_len=seq), *(() if taps == {TAPS} else ("taps",)))
    found.share(ops, Measured.of(time_s.reshape(1), short_conv.FAMILY.name, entry, outside))
