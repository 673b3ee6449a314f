"""The result of a phase from its kept layout: every figure that a metric reads, without the ops, paths and cells behind them."""

from __future__ import annotations

from math import nan

import numpy as np

from ..base.traced import Untraceable
from ..cost import chunks
from ..cost.records import NO_TRANSFER, Costs, OpCost
from ..cost.schedule.even import Times
from ..cost.schedule.records import Schedule
from ..plan.result import Chunk, CollectiveTotal, PhaseResult
from ..plan.totals import collective_totals
from ..spec.phase import Phase
from ..spec.unit import Unit
from .analyse import assembled
from .kept import Figures, Layout, Numbers


def outline(unit: Unit, layout: Layout, numbers: Numbers) -> PhaseResult:
    """Of a phase without a drafter, at its sizes of the layout's graph. What is not known here is not a number, or empty. Raises
    Untraceable."""
    phase = unit.phase
    if phase.drafter != "none":
        raise Untraceable("what drafts tokens is compiled")
    passes, end, whole = [], None, None
    for size, own in layout.passes(phase, numbers):
        figures = layout.figures(own, phase)
        passes.append(_chunk(layout, figures, size, phase))
        if own is numbers:
            end, whole = passes[-1], figures
    if end is None or whole is None:
        whole = layout.figures(numbers, phase)
        end = _chunk(layout, whole, chunks.whole_pass(phase), phase)
    flops = sum(size.count * layout.flops(numbers, size) for size in chunks.sizes(phase))
    graph, memory = layout.template.at(numbers), layout.memory(numbers, whole)
    return assembled(unit, graph, tuple(passes), end, memory, flops, calls_of(layout), {})


def calls_of(layout: Layout) -> tuple[CollectiveTotal, ...]:
    """How often each collective is called, alone."""
    if layout.calls_made is None:
        graph, one = layout.template.graph, np.ones(1)
        costs = Costs(
            {key: OpCost(one, one, "") for key in layout.calls},
            (NO_TRANSFER,) * (len(graph.stages) - 1),
            NO_TRANSFER,
            one,
            nan,
        )
        layout.calls_made = tuple(
            CollectiveTotal(each.kind, each.axes, each.group_size, each.count, nan, nan, nan)
            for each in collective_totals(graph, costs)
        )
    return layout.calls_made


def _chunk(layout: Layout, found: Figures, size: chunks.PassSize, phase: Phase) -> Chunk:
    load = np.array([found.imbalance])
    costs = Costs({}, (), NO_TRANSFER, load, found.distinct_experts, kernels=found.kernels)
    count = layout.template.graph.microbatches
    own, floor = _schedule(layout.times_s(found), count), _schedule(layout.floor_s(found), count)
    return Chunk(size.count, size.tokens, size.context, costs, own, floor)


def _schedule(times: Times, microbatches: int) -> Schedule:
    return Schedule(
        (), {}, times.latency_s, times.period_s, times.stage_s, (), times.host_s, microbatches, times.fill_s, times.drain_s
    )  # fmt: skip
