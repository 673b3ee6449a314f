"""recompute: forward ops done anew before their gradients, so that what they make need not be kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from dagc.base.diagnostics import did_you_mean
from dagc.base.frozen import record, replace
from dagc.base.synonyms import IN_LAYERS
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.op import FORWARD, RECOMPUTE, Op
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.segment import Segment

from ..ir.naming import done_anew

FULL = "full"


@record
class Recompute(GraphPass):
    """`ops`: names of blocks, kinds of op or single ops of the layers between embedding and head, and of the same blocks in the head,
    which layers that predict further tokens have; `full`: all."""

    name: ClassVar[str] = "recompute"
    levels: ClassVar[tuple[str, ...]] = ("model",)
    ops: tuple[str, ...] = ()

    def run(self, graph: Graph) -> Graph:
        if not self.ops:
            return graph
        self.check(graph.body)
        blocks = {op.block for segment in graph.body for op in segment.ops if op.cell == FORWARD}
        segments = (
            s if s is graph.embedding else recomputed(s, self.chosen(s, blocks), whole=FULL in self.ops)
            for s in graph.segments
        )
        return replace(graph, segments=tuple(segments))

    def chosen(self, segment: Segment, blocks: Collection[str]) -> set[str]:
        """Forward ops of a layer that are done anew, of these blocks."""
        wanted = set(self.ops)
        forward = (op for op in segment.ops if op.cell == FORWARD and op.block in blocks)
        return {op.name for op in forward if FULL in wanted or wanted & {op.block, op.kind, op.name}}

    def check(self, body: Collection[Segment]) -> None:
        ops = [op for segment in body for op in segment.ops if op.cell == FORWARD]
        known = {FULL, *(name for op in ops for name in (op.block, op.kind, op.name))}
        for name in self.ops:
            if name not in known:
                blocks = ", ".join(dict.fromkeys(op.block for op in ops if op.block))
                raise PassError(
                    f"no layer has a block or op `{name}` to recompute",
                    at="recompute",
                    help=(*meant(name, ops), f"blocks: {blocks}"),
                )


ALWAYS = ("selective", "core_attn", "core_attention", "flash", "sdpa")
"""What engines call attention's scores, where these are done anew."""
EVERYTHING = ("all", "everything", "whole", "block", "uniform", "layer")


def meant(name: str, ops: Collection[Op]) -> tuple[str, ...]:
    """Help for a name that no op has."""
    word = name.lower()
    if word in ALWAYS and any(isinstance(op.attrs, AttendAttrs) and op.attrs.kernel != "flash" for op in ops):
        return ("write `recompute = [attend]`: attention stores its scores",)
    if word in ALWAYS:
        return ("leave it out: attention's scores are done anew always, as fused kernels do",)
    if word in EVERYTHING:
        return (f"did you mean `{FULL}`?",)
    own = dict.fromkeys(op.block for op in ops if op.kind == IN_LAYERS.get(word))
    near = next(iter(own), None) or did_you_mean(name, {n: None for op in ops for n in (op.block, op.kind)})
    return (f"did you mean `{near}`?",) if near else ()


def recomputed(segment: Segment, chosen: set[str], *, whole: bool) -> Segment:
    """The layer whose gradients read results of the chosen ops from copies; each copy reads what is kept, or another copy. `whole`: engines that do a
    layer anew do all of it; else only what gradients need."""
    source = {value.name: op for op in segment.ops if op.name in chosen for value in op.results}
    needed: set[str] = set(chosen) if whole else set()
    line = [n for op in segment.ops if op.cell != FORWARD for n in op.inputs if n in source]
    while line:
        op = source[line.pop()]
        if op.name not in needed:
            needed.add(op.name)
            line += [n for n in op.inputs if n in source]

    def anew(name: str) -> str:
        op = source.get(name)
        return done_anew(op.name, name) if op is not None and op.name in needed else name

    def copied(op: Op) -> Op:
        more = tuple(replace(value, name=anew(value.name)) for value in op.more)
        return replace(op, name=anew(op.name), inputs=tuple(map(anew, op.inputs)), more=more, cell=RECOMPUTE)

    forward = [op for op in segment.ops if op.cell == FORWARD]
    copies = [copied(op) for op in forward if op.name in needed]
    rest = [replace(op, inputs=tuple(map(anew, op.inputs))) for op in segment.ops if op.cell != FORWARD]
    return replace(segment, ops=(*forward, *copies, *rest))
