"""Words next to and in the boxes, and their tooltips."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

from ....base.collectives import GATHER, REQUESTS, SCATTER
from ....base.units import BYTES, FLOPS, TIME, show, show_runs
from ....ir.ops.op_set import OPS
from ....plan.result import PhaseResult
from .fold import Column, Group, Picture
from .shown_part import FOLDS
from .steps import Part, Program, Step

MAX_NAMES = 6
MAX_HINT = 12
ENDS = {SCATTER.name: "scatter of token ids", GATHER.name: "gather of results"}


def heading(picture: Picture, *, lettered: bool = True) -> list[str]:
    """What is drawn of what, and what is folded, in the order in which it was."""
    result = picture.program.result
    boxes = f"{picture.steps:,} boxes"
    if picture.folds:
        boxes += " folded: " + ", ".join(f"{FOLDS[name]} ({left:,})" for name, left in picture.folds)
    if picture.classes:
        boxes += (
            f"; of {picture.classes} kinds of GPUs the slowest, the middle and the fastest, each for those like it most"
        )
    if picture.cut:
        boxes += f"; the first of them: {picture.cut:,} are left out"
    chosen, hops = picture.choice.select, picture.choice.hops
    near = f" and what is up to {hops} edge{'s' if hops > 1 else ''} away" if hops and chosen else ""
    what = f"{', '.join(chosen)}{near}" if chosen else "the placed graph"
    letters = "; equal letters in a row exchange with each other" if lettered else ""
    return [f"{result.name}: {what}", boxes, f"time runs down{letters}"]


def group_title(program: Program, group: Group) -> str:
    """`micro-batch 0 (8 identical), layer 5: sparse, 1 of 4`."""
    graph = program.result.graph
    words = []
    if graph.microbatches > 1:
        alike = len(group.microbatches)
        words.append(f"micro-batch {group.part.microbatch}" + (f" ({alike} identical)" if alike > 1 else ""))
    numbers = group.numbers
    if group.part.run is not None and group.part.segment in program.ends:
        words.append(group.part.segment)
    elif len(numbers) > 1:
        words.append(f"layer {group.part.number}: {group.part.segment}, 1 of {len(numbers)}")
    elif numbers:
        words.append(f"layer {numbers[0]}: {group.part.segment}")
    return ", ".join(words)


def gap_text(result: PhaseResult, layers: Sequence[int]) -> str:
    """`2 layers not drawn: 2..3`"""
    count = f"{len(layers)} layer{'s' if len(layers) > 1 else ''} not drawn"
    ends = {index: segment.name for segment, index in result.graph.layers if result.graph.is_end(segment.name)}
    numbers = show_runs([n for n in layers if n not in ends], most=3)
    first = [ends[n] for n in layers if n in ends and n < 0]
    last = [ends[n] for n in layers if n in ends and n >= 0]
    return f"{count}: {', '.join(filter(None, [*first, numbers, *last]))}"


def describe(program: Program, part: Part, steps: Sequence[Step]) -> str:
    """A row: `all_gather of k over sp, 10.5 MB`, or the ops that are in it."""
    lane = f"batch {letter(steps[0].lane)}: " if program.result.graph.lanes > 1 else ""
    if len(steps) == 1 and steps[0].is_exchange:
        return lane + exchange(program, part, steps[0])
    blocks = itertools.groupby(steps, key=lambda s: s.block)
    return lane + "; ".join(f"{block + ': ' if block else ''}{_names(list(group))}" for block, group in blocks)


def exchange(program: Program, part: Part, step: Step) -> str:
    """A collective or a send, with what it moves."""
    result = program.result
    if step.end in REQUESTS:
        over = "+".join(result.graph.the_mesh.label(step.axes))
        return f"{ENDS[step.end]} over {over}, {show(result.requests[step.end].payload_B, BYTES, 3)}"
    if step.op is None:
        names = ", ".join(one.name for one in result.graph.sends[part.stage].beside)
        beside = f" with {names}" if names else ""
        return f"send to the next stage{beside}, {show(result.costs.edges[part.stage].payload_B, BYTES, 3)}"
    over = "+".join(result.graph.the_mesh.label(step.op.axes, step.op.scope))
    size = show(result.costs.ops[part.segment, step.name].payload_B, BYTES, 3)
    return f"{step.kind} of {_short(step.op.inputs[0])} over {over}, {size}"


def hint(program: Program, group: Group, steps: Sequence[Step]) -> str:
    """The work of a row and what binds it."""
    result, part = program.result, group.part
    costs = result.costs
    title = group_title(program, group)
    if steps[0].op is None:
        bound = (result.requests[part.end] if part.end in REQUESTS else costs.edges[part.stage]).bound
        return f"{title + '; ' if title else ''}{exchange(program, part, steps[0])}, bound by {bound}"
    op_costs = [costs.ops[part.segment, s.name] for s in steps]
    if len(steps) == 1 and steps[0].is_exchange:
        said = f"{exchange(program, part, steps[0])}, {op_costs[0].algorithm}"
    else:
        more = f", {len(steps) - MAX_HINT} more" if len(steps) > MAX_HINT else ""
        work = f"{show(sum(c.flops for c in op_costs), FLOPS, 3)}, {show(sum(c.bytes for c in op_costs), BYTES, 3)}"
        said = f"{', '.join(s.name for s in steps[:MAX_HINT])}{more}: {work}"
    return f"{title}; {said}, bound by {' and '.join(dict.fromkeys(c.bound for c in op_costs))}"


def gpus(columns: Sequence[Column]) -> str:
    """`GPU 0, 1`, or `GPU 0 (drawn for 16 GPUs)`."""
    shown = ", ".join(str(c.gpu) for c in columns[:8]) + (", ..." if len(columns) > 8 else "")
    return f"GPU {shown}" + (f" (drawn for {len(columns[0].ranks)} GPUs)" if len(columns[0].ranks) > 1 else "")


@lru_cache(maxsize=4096)
def took(seconds: float, digits: int = 3) -> str:
    """Most boxes of a row take the same time."""
    return show(seconds, TIME, digits)


def letter(index: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def _names(steps: list[Step]) -> str:
    """The ops that have kernels of their own by name, what is fused into them left out."""
    own = [s for s in steps if s.is_exchange or not OPS[s.kind].fused] or steps
    names = [s.kind if s.is_exchange else _short(s.name) for s in own]
    if len(names) > MAX_NAMES:
        return f"{', '.join(names[: MAX_NAMES - 2])}, {len(names) - MAX_NAMES + 1} more, {names[-1]}"
    return ", ".join(names)


def _short(name: str) -> str:
    return name.split(".", 1)[-1]
