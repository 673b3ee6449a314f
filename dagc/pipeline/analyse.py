"""What a lowered graph costs: its ops, its schedule and its memory, in every pass of its phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..base.frozen import replace
from ..cost import chunks, scale_blocks
from ..cost.footprint import Memory
from ..cost.pass_costs import PassCosts
from ..cost.records import Costs, ExpertCache, Rebalanced
from ..cost.schedule.chunk_flow import Pass, in_flight_s
from ..cost.schedule.records import PathStep, Schedule
from ..cost.schedule.verify_schedule import verify_schedule
from ..cost.transfers import request_costs
from ..ir.graph import Graph, runs
from ..ir.ops.leaving import EXIT_TOKEN
from ..ir.ops.op_set import flops
from ..passes.cost import PriceOps
from ..passes.memory import AddUpMemory
from ..passes.schedule import ScheduleOps
from ..plan.analysis import Analysis, Findings
from ..plan.result import Chunk, CollectiveTotal, PhaseResult, joined_path, passes_s
from ..plan.totals import collective_totals
from ..spec.hardware import Hardware
from ..spec.phase import Phase
from ..spec.unit import Unit
from . import layer_loads
from .doubts import warn_of_full_hosts, warn_of_idle_stages, warn_of_moved_cache
from .strategy import lacks_experts, resident_experts

RARE = 1e-6
"""Of steps: those that end early less often are not looked at."""
ANALYSES: tuple[Analysis, ...] = (PriceOps(), ScheduleOps(), AddUpMemory())
"""In the order in which they follow the graph passes; memory is added up for a whole pass alone."""


Prices = Callable[[Graph, Unit], "tuple[Costs, Memory, float] | None"]
"""What a pass costs, what GPUs hold and its FLOPs (`graph_flops`), where that is kept."""


def cost_graph(graph: Graph, unit: Unit, prices: Prices | None = None) -> PhaseResult:
    """Costs, memory and schedule of a placed graph. `prices`: where costs of it may be kept."""
    check(graph, unit)
    shared = PassCosts() if unit.phase.passes > 1 else None
    passes = price(graph, unit, prices=prices, shared=shared)
    largest = chunks.whole_pass(unit.phase)
    found_s = () if unit.phase.chunks_overlap else passes
    last = next((c for c in reversed(found_s) if (c.tokens, c.context) == (largest.tokens, largest.context)), None)
    end = last or _priced(graph, unit, largest, None, prices, shared)
    kept = None if prices is None else prices(graph, unit)
    need = whole_memory(graph, unit, end.costs) if kept is None else kept[1]
    verify_schedule(graph, end.schedule)
    if not unit.phase.chunks_overlap:
        warn_of_idle_stages(unit, end.schedule)
    warn_of_moved_cache(unit, graph, end.costs)
    warn_of_full_hosts(unit, graph)
    flops = sum(size.count * _flops(graph, unit, size, prices, shared) for size in chunks.sizes(unit.phase))
    totals = collective_totals(graph, end.costs)
    found = assembled(unit, graph, passes, end, need, flops, totals, bound_shares(joined_path(passes)))
    return replace(
        found, requests=request_costs(graph, unit.spec.hardware), rebalanced=over_time(graph, unit, end.costs, passes),
        expert_cache=cached(graph, unit, end.costs, passes),
    )  # fmt: skip


def cached(graph: Graph, unit: Unit, costs: Costs, passes: tuple[Chunk, ...]) -> ExpertCache | None:
    """What experts in host memory take: beside the same phase with all of them there, and with none. Where GPUs hold all, nothing is copied."""
    use, whole = unit.phase.experts, unit.phase.experts.resident and not lacks_experts(unit)
    graph = resident_experts(unit).run(graph) if whole else graph
    if not use.resident or not graph.copies:
        return None
    from ..cost.expert_cache import copied_bytes, held_bytes, host_expert_bytes, load_seconds, steps_to_fill

    def pass_s(**changes: object) -> float:
        other = replace(unit.phase, experts=replace(use, **changes))
        return passes_s(price(graph, Unit(unit.spec, other)))

    hardware, held_B = unit.spec.hardware, held_bytes(graph)
    if whole:
        own_s = passes_s(passes)
        return ExpertCache(
            1.0, 0.0, held_B, host_expert_bytes(graph, use.cache), held_B / hardware.host_link.bandwidth_Bps, load_seconds(graph, hardware), None,
            own_s, own_s, own_s,
        )  # fmt: skip
    return ExpertCache(
        1.0 - costs.lacking, copied_bytes(graph, costs), held_B, host_expert_bytes(graph, use.cache),
        held_B / hardware.host_link.bandwidth_Bps, load_seconds(graph, hardware), steps_to_fill(graph, unit),
        pass_s(hits=1.0, trace=None, warm=True), passes_s(passes), pass_s(warm=False),
    )  # fmt: skip


def over_time(graph: Graph, unit: Unit, costs: Costs, passes: tuple[Chunk, ...]) -> Rebalanced | None:
    """What it is worth to place experts anew: the same phase with the first placement kept."""
    plan = unit.phase.strategy.rebalance
    if plan is None or not len(costs.load) > 1:
        return None
    from ..cost.rebalanced import moved

    times, moved_B, move_s = moved(graph, unit, plan)
    kept = replace(unit.phase.strategy, rebalance=replace(plan, once=True))
    static = price(graph, Unit(unit.spec, replace(unit.phase, strategy=kept)))
    return Rebalanced(
        times, moved_B, move_s, static[-1].costs.imbalance, passes_s(static), passes_s(passes), plan.every
    )


def assembled(
    unit: Unit, graph: Graph, passes: tuple[Chunk, ...], end: Chunk, memory: Memory, flops: float,
    collectives: tuple[CollectiveTotal, ...], bound_by: Mapping[str, float],
) -> PhaseResult:  # fmt: skip
    """The result of a phase. `end`: a whole chunk at the end of the prompt; `flops`: of all passes, over all places."""
    tokens, total = phase_tokens(unit.phase), unit.phase.filled * flops
    dtype, own = unit.spec.model.weight_dtype, len(unit.phase.gpus)
    peak = unit.spec.hardware.peak_flops(dtype) * own
    peak += unit.spec.experts_on(unit.phase).peak_flops(dtype) * (unit.phase.gpu_count - own)
    time_s = passes_s(passes)
    return PhaseResult(
        graph=graph,
        costs=end.costs,
        at_peak=end.at_peak,
        schedule=end.schedule,
        chunks=passes,
        memory=memory,
        collectives=collectives,
        gpus=graph.the_mesh.all_gpus,
        flops_per_token=total / tokens,
        utilization=total / (time_s * peak) if time_s else 0.0,
        throughput_tok_s=tokens / time_s if time_s else 0.0,
        per_node=unit.spec.hardware.per_node,
        bound_by=bound_by,
        tokens_per_step=1.0 if unit.phase.parts or not graph.generates else unit.phase.tokens_per_step,
        hardware=unit.phase.hardware,
        experts_in=apart.hardware if (apart := unit.phase.strategy.apart) is not None else "",
        first_expert_id=unit.spec.first_expert_id(unit.phase),
        kind=unit.phase.kind,
        in_flight=unit.phase.chunks_overlap,
        cut_by_work=unit.phase.by_work,
    )


def check(graph: Graph, unit: Unit) -> None:
    """Raises SpecError where weights cannot be cut like that, or loads are not of the model's layers."""
    scale_blocks.check(graph, unit)
    layer_loads.check(graph, unit)
    unit.out.check()


def held(graph: Graph, unit: Unit) -> Memory:
    """What the GPUs of every stage hold in a whole pass, for who asks for nothing else. Raises SpecError."""
    check(graph, unit)
    size = chunks.whole_pass(unit.phase)
    return whole_memory(graph, unit, PriceOps().run(Findings(of_size(graph, unit.phase, size), unit)).the_costs)


def whole_memory(graph: Graph, unit: Unit, costs: Costs) -> Memory:
    """What the GPUs of every stage hold."""
    need = AddUpMemory().run(Findings(graph, unit, costs=costs)).memory
    assert need is not None
    return need


def _flops(graph: Graph, unit: Unit, size: chunks.PassSize, prices: Prices | None, shared: PassCosts | None) -> float:
    """Of a pass; its tokens count, wherever they are."""
    if prices is not None and size.tokens == unit.phase.tokens:
        kept = prices(of_size(graph, unit.phase, size), unit)
        if kept is not None:
            return kept[2]
    return graph_flops(chunks.resized(graph, size.tokens, size.context), shared)


def graph_flops(graph: Graph, shared: PassCosts | None = None) -> float:
    """FLOPs of one pass of all micro-batches over all ranks, replicated work counted once. `shared`: with other passes of the graph."""
    if shared is None:
        layers = sum(s.repeat * sum(flops(s, op) for op in s.ops) for s in graph.segments)
    else:
        layers = sum(s.repeat * shared.flops(s) for s in shared.begin(graph).segments)
    return layers * graph.microbatches * graph.lanes


def phase_tokens(phase: Phase) -> float:
    """Tokens that the phase takes in (prefill) or that a step puts out (decode; mixed: both), over all sequences."""
    if phase.lengths is not None:
        return float(phase.lengths.tokens)
    if phase.parts:
        return sum(map(phase_tokens, phase.as_parts))
    return phase.sequences * (phase.new_tokens if phase.takes_prompts else phase.tokens_per_step)


def bound_shares(path: Sequence[PathStep]) -> dict[str, float]:
    """Share of the critical path by what bounds it."""
    total = sum(step.time_s for step in path) or 1.0
    shares: dict[str, float] = {}
    for step in path:
        shares[step.bound] = shares.get(step.bound, 0.0) + step.time_s / total
    return dict(sorted(shares.items(), key=lambda kv: -kv[1]))


def price(
    graph: Graph, unit: Unit, hardware: Hardware | None = None, prices: Prices | None = None,
    shared: PassCosts | None = None,
) -> tuple[Chunk, ...]:  # fmt: skip
    """Every pass of the phase; `hardware` replaces the spec's (sensitivities). `shared`: with who asks for more of its passes."""
    sizes = chunks.sizes(unit.phase)
    if shared is None and len(sizes) > 1:
        shared = PassCosts()
    found = tuple(_priced(graph, unit, size, hardware, prices, shared) for size in sizes)
    if unit.phase.exits:
        return (*_ended_early(found[-1], graph, unit, hardware),)
    return _in_flight(found, graph) if unit.phase.chunks_overlap and len(graph.stages) > 1 else found


def _ended_early(full: Chunk, graph: Graph, unit: Unit, hardware: Hardware | None) -> Iterator[Chunk]:
    """A step with exits as those that end at each of them, because all sequences that step together have left, and those that go to the
    end, by how often they are, which sequences that leave by chance and alone make. With stages others are on the way, so that none ends."""
    together = min(unit.phase.batching.part, unit.phase.sequences)
    gone, before = 0.0, 0.0
    names = [name for name, count in graph.stages[0].layers for _ in range(count)]
    for one in unit.phase.exits if len(graph.stages) == 1 else ():
        gone += one.share
        chance = min(gone, 1.0) ** together
        if chance - before > RARE and one.layer + 1 < len(names) - 1:
            stage = replace(graph.stages[0], layers=runs(names[: one.layer + 1]))
            ends = graph.segment(names[one.layer])
            token = dict(ends.handed)[EXIT_TOKEN]
            segments = tuple(replace(s, output=token) if s is ends else s for s in graph.segments)
            short = replace(graph, segments=segments, stages=(stage,))
            ended = _priced(short, unit, chunks.whole_pass(unit.phase), hardware)
            yield replace(ended, count=chance - before)
            before = chance
    yield replace(full, count=1.0 - before)


def _in_flight(found: tuple[Chunk, ...], graph: Graph) -> tuple[Chunk, ...]:
    """Passes that follow each other through the stages: what each adds to those before, its path in the same proportion."""

    def added_s(schedules: Sequence[Schedule]) -> list[float]:
        micro = graph.microbatches
        rows = [
            Pass(c.count, s.stage_s, tuple(edge.time_s for edge in c.costs.edges), micro, s.host_s)
            for c, s in zip(found, schedules, strict=True)
        ]
        return in_flight_s(rows)

    def shortened(schedule: Schedule, time_s: float) -> Schedule:
        share = time_s / schedule.period_s if schedule.period_s else 1.0
        path = tuple(replace(step, time_s=step.time_s * share) for step in schedule.path)
        return replace(schedule, period_s=time_s, path=path)

    times = added_s([c.schedule for c in found]), added_s([c.floor for c in found])
    return tuple(
        replace(c, schedule=shortened(c.schedule, own), at_peak=shortened(c.floor, floor))
        for c, own, floor in zip(found, *times, strict=True)
    )


def whole(graph: Graph, unit: Unit, hardware: Hardware | None = None) -> Chunk:
    """The pass that the graph was lowered for: a whole chunk at the end of the prompt."""
    return _priced(graph, unit, chunks.whole_pass(unit.phase), hardware)


def of_size(graph: Graph, phase: Phase, size: chunks.PassSize) -> Graph:
    """The graph of a pass of the phase. `graph`: that of a whole chunk at the end of the prompt."""
    if size.tokens != phase.tokens:
        return chunks.resized(graph, chunks.divided(graph, size.tokens), size.context)
    return graph if chunks.is_whole(size, phase) else chunks.resized(graph, size.tokens, size.context)


def _priced(
    graph: Graph, unit: Unit, size: chunks.PassSize, hardware: Hardware | None, prices: Prices | None = None,
    shared: PassCosts | None = None,
) -> Chunk:  # fmt: skip
    findings = Findings(of_size(graph, unit.phase, size), unit, hardware, passes=shared)
    kept = None if prices is None else prices(findings.graph, unit)
    findings = PriceOps().run(findings) if kept is None else replace(findings, costs=kept[0])
    findings = ScheduleOps().run(findings)
    assert findings.schedule is not None and findings.at_peak is not None
    return Chunk(size.count, size.tokens, size.context, findings.the_costs, findings.schedule, findings.at_peak)
