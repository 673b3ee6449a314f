"""What a plan's figures mean, in words: what binds each phase and why, where its times come from, what is assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...base.collectives import SCATTER
from ...base.frozen import field, mutable
from ...base.phase_kinds import DECODE, PREFILL
from ...base.units import BYTE_RATE, BYTES, FLOP_RATE, TIME, parameters, show
from ...cost.schedule.records import PathStep
from ...ir.naming import size_key
from ...ir.ops.op_set import attention_imbalance
from ...ir.requests import request_moves
from ...ir.routed_dims import skipped_share
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult, Sensitivity
from ...spec.exits import depth
from ...spec.hardware import Hardware, Level, PoolLink
from ...spec.phase import Phase
from .cache_words import attention_lines, cache_lines
from .placed_words import placement_lines
from .training_words import error_text, kernels_text, products_text

WORDS = {
    "compute": "arithmetic",
    "memory": "memory bandwidth",
    "launch": "kernel launches",
    "node": "the links inside a node",
    "cluster": "the links between nodes",
    "latency": "link latency",
    "host": "the host",
    "host_link": "the link to the host",
}
"""What an op can be bound by, as a reader would say it."""
HELPS = 0.0005
"""Changes of a phase's time smaller than this are not worth a word."""


def binding(result: PhaseResult, buys: Sequence[Sensitivity] = ()) -> str:
    """What binds a phase and why."""
    name = result.phase_kind.metric
    ratio = result.time_s / result.floor_s if result.floor_s else 1.0
    whose = f" ({result.time_of})" if result.time_of else ""
    parts = [f"{name} {show(result.time_s, TIME)}{whose} is {ratio:.2f} times its floor at datasheet peaks."]
    leaders = list(result.bound_by.items())[:2]
    clauses = [_clause(result, bound, share) for bound, share in leaders if share >= 0.1 or bound == leaders[0][0]]
    parts.append(f"{'; '.join(clauses)}.")
    bubble = result.bubble
    if bubble >= 0.05:
        m, p = result.graph.microbatches, len(result.graph.stages)
        batches = f"{m} micro-batch{'es' if m > 1 else ''}"
        parts.append(f"The stages are idle {bubble:.0%} of the time: {batches} over {p} stages.")
    if result.costs.imbalance >= 1.02:
        parts.append(
            f"The busiest expert rank has {result.costs.imbalance:.2f} times the mean load{spared(result)}{worst_layer(result)}."
        )
    uneven = attention_imbalance(result.graph)
    if uneven >= 1.02:
        parts.append(
            f"Attention of the slowest rank has {uneven:.2f} times the mean of the ranks that split the sequence."
        )
    if (share := skipped_share(result.graph)) > 0:
        parts.append(f"{share:.1%} of the choices of experts are skipped.")
    if result.costs.dropped > 1e-9:
        parts.append(f"{result.costs.dropped:.1%} of the choices of experts are dropped.")
    best = min(buys, key=lambda s: s.change, default=None)
    if best is not None and best.change <= -HELPS:
        parts.append(f"Of faster hardware, {best.name} would help most: {-best.change:.1%} less time.")
    return " ".join(parts)


def spared(result: PhaseResult) -> str:
    """What spare copies of experts and their placement gain."""
    return _unplaced(result, result.costs.imbalance, result.costs.plain)


def worst_layer(result: PhaseResult) -> str:
    """The layer whose busiest rank has most, where layers have loads of their own."""
    worst = max(result.costs.layers, key=lambda own: own.imbalance, default=None)
    if worst is None:
        return ""
    return f", {worst.imbalance:.2f} in layer {worst.layer}{_unplaced(result, worst.imbalance, worst.plain)}"


def _unplaced(result: PhaseResult, imbalance: float, plain: float) -> str:
    if plain <= imbalance + 0.005:
        return ""
    spares = any(s.sizes.get(size_key("experts", d), n) > n for s in result.graph.segments for d, n in s.sizes.items())
    return f" ({plain:.2f} {'without spare copies' if spares else 'as experts are numbered'})"


def _clause(result: PhaseResult, bound: str, share: float) -> str:
    """`37% of the critical path waits for arithmetic, most of it for sparse/gqa.o (attend, 44 times)`"""
    mine = [s for s in result.path if s.bound == bound]
    top = max(mine, key=lambda s: s.time_s)
    total = sum(s.time_s for s in mine)
    most = "most of it in" if top.time_s > total / 2 else "led by"
    return (
        f"{share:.0%} of the critical path waits for {waits_for(bound)}, {most} {step_name(top)} ({_what(result, top)})"
    )


def waits_for(bound: str) -> str:
    return WORDS.get(bound) or f"the links of a {bound.removesuffix(' link')}"


def _what(result: PhaseResult, step: PathStep) -> str:
    times = f"{step.count} times" if step.count > 1 else "once"
    if not step.segment:
        return f"to the next stage, {times}"
    op = result.graph.segment(step.segment).by_name[step.op]
    if not op.is_collective:
        return f"{op.runtime_kind}, {times}"
    mesh = result.graph.the_mesh
    cost = result.costs.ops[step.segment, step.op]
    nodes = f" on {cost.group.nodes} nodes" if cost.group is not None and cost.group.nodes > 1 else ""
    return f"{show(cost.payload_B, BYTES, 3)} over {'+'.join(mesh.label(op.axes, op.scope))}, {mesh.ranks_of(op.kind, op.axes)} GPUs{nodes}, {times}"


def step_name(step: PathStep) -> str:
    return f"{step.segment}/{step.op}" if step.segment else step.op


@mutable
class Origin:
    """Where a part of the critical path's time comes from: a measured kernel's table, or the model (family empty)."""

    family: str
    time_s: float = 0.0
    error_s: float = 0.0
    outside: set[str] = field(default_factory=set)

    @property
    def error(self) -> float:
        """Median relative error, weighed by time."""
        return self.error_s / self.time_s if self.time_s else 0.0


def origins(result: PhaseResult) -> list[Origin]:
    """Of the critical path's time, the largest first."""
    origins: dict[str, Origin] = {}
    costs = result.op_costs
    for step in result.path:
        cost = costs.get((step.segment, step.op))
        family = cost.family if cost is not None else ""
        origin = origins.setdefault(family, Origin(family))
        origin.time_s += step.time_s
        if cost is not None and family:
            origin.error_s += step.time_s * cost.error
            origin.outside |= set(cost.outside)
    return sorted(origins.values(), key=lambda o: -o.time_s)


ALONE = {
    PREFILL.name: "A prefill alone, beside the time to the first token,",
    DECODE.name: "A step alone, beside the time per output token,",
}


def error_range(result: PhaseResult) -> str:
    """What is known of how far a phase's time may be off."""
    from ...calib.accuracy import BESIDE, PRICED, kernels_of, phase_errors

    share, error = result.measured
    low, high = result.time_s * (1 - share * error), result.time_s * (1 + share * error)
    text = (
        f"{share:.0%} of the critical path is made of measured kernel times; their median errors, "
        f"all on one side, make {show(low, TIME)} to {show(high, TIME)}."
        if share
        else "No kernel of this hardware was measured: the times are the roofline's, and the error of each op is not known."
    )
    if 0 < share < 0.995:
        text += f" The error of the other {1 - share:.0%} is not known."
    taken = kernels_of(share, result.substituted)
    whole = phase_errors(taken).get(result.phase_kind.name)
    text += (
        " No step of this kind alone was measured in a serving."
        if whole is None
        else f" {ALONE[result.graph.kind]} was within {whole.median:.0%} of real servings in half of {whole.cases:,} cases"
        f"{PRICED[taken]}, within {whole.p90:.0%} in nine of ten (median {whole.bias:+.0%}: {BESIDE[result.graph.kind]})."
    )
    beyond = [f"{name} {part:.0%}" for name, part in result.extrapolated.items()]
    return text + (f" Beyond the sizes measured, of the critical path: {', '.join(beyond)}." if beyond else "")


def assumptions(plan: CompiledPlan) -> Iterator[tuple[str, str]]:
    """(what, how it is taken) of everything the figures rest on and do not derive."""
    work, pools = plan.spec.workload, plan.spec.pools
    for own in pools.values():
        of = f"{own.name}: " if len(pools) > 1 else ""
        yield from ((f"{of}{what}", taken) for what, taken in _of_hardware(own, plan.spec.model.weight_dtype))
    for link in plan.spec.pool_links:
        yield f"link {' to '.join(link.pools)}", f"{pool_link(link)}; transfers do not contend for it"
    yield "routing", _routing(work.routing.kind, work.routing.s)
    for phase in plan.spec.phases:
        if phase.name in plan.phases:
            host = f", {show(phase.host_s, TIME)} of host time a pass" if phase.host_s else ""
            graph = "with" if phase.cuda_graph else "without"
            yield f"{phase.name}: engine", f"{phase.engine}, {graph} CUDA graphs{host}"
            yield f"{phase.name}: context", f"{phase.context} tok attended to, {phase.sequences} sequences"
            kept = f"freed in blocks of {phase.kv_block} tok" if phase.window_cache == "freed" else "kept"
            yield f"{phase.name}: cache", f"what lies behind a window or chunk is {kept}"
            if phase.lengths is not None:
                yield f"{phase.name}: prompts", "; ".join(batch_lines(phase))
            if kept_lines := cache_lines(plan, plan.phases[phase.name]):
                yield f"{phase.name}: kept cache", "; ".join(kept_lines)
            if stored := attention_lines(plan, plan.phases[phase.name]):
                yield f"{phase.name}: attention", "; ".join(stored)
            if plan.phases[phase.name].passes > 1:
                yield f"{phase.name}: chunks", _passes(phase) + _unequal(plan.phases[phase.name])
            if phase.exits:
                yield f"{phase.name}: exits", "; ".join(exit_lines(plan, phase))
            if phase.speculative:
                by = "; ".join(drafter_lines(plan.phases[phase.name])) or "what drafts them takes no time"
                yield (
                    f"{phase.name}: drafts",
                    f"{phase.speculative} tok checked with each step, {_accepted(phase)}; {by}",
                )
    for name, trained in plan.trainings.items():
        how = trained.training
        yield (
            f"{name}: optimizer",
            (
                f"{how.optimizer}; sums of gradients in {how.gradient_dtype}, its own copy of the weights "
                f"{f'in {how.master_dtype}' if how.master_dtype != 'none' else 'none'}, moments in {how.moment_dtype}"
            ),
        )
        if how.quantises:
            yield f"{name}: products", products_text(how).removeprefix("products: ")
        if how.mtp_loss:
            yield (
                f"{name}: labels",
                "every token has one, also of its further tokens: sequences are cut from longer ones",
            )
        yield f"{name}: kernels", kernels_text(trained).removeprefix("kernels: ")
        yield f"{name}: error", error_text(trained)
    if plan.phases:
        yield (
            "decode",
            "steady state: the longer of a round trip of all stages and of all micro-batches on the slowest stage",
        )
    yield (
        "not counted",
        "queueing, contention of several groups for a link, padding to capacity",
    )


def _of_hardware(hardware: Hardware, dtype: str) -> Iterator[tuple[str, str]]:
    """Of one pool of GPUs."""
    yield (
        "efficiency",
        f"{hardware.mfu:.0%} of {show(hardware.peak_flops(dtype), FLOP_RATE)} ({dtype}) and {hardware.mbu:.0%} of {show(hardware.hbm_Bps, BYTE_RATE)}, wherever no measured kernel is used",
    )
    yield (
        "measured kernels",
        f"calibration {hardware.calibration}" if hardware.calibration else "none for this hardware",
    )
    for level in hardware.levels:
        yield SHORT_NAMES[level.name] if hardware.short else f"link {level.name}", _link(level, hardware)
    yield "kernel launch", f"{show(hardware.launch_s, TIME)} a kernel; element-wise ops are fused, their bytes count"
    yield "memory reserve", f"{show(hardware.reserve_B, BYTES)} per GPU; paging overhead of the cache is not counted"


def pool_link(link: PoolLink) -> str:
    """What joins two pools, in words."""
    return f"{show(link.bandwidth_Bps, BYTE_RATE)} per GPU and direction, latency {show(link.latency_s, TIME)}"


def own_precision(plan: CompiledPlan, phase: str) -> str:
    """Dtypes of a phase that has others than the model; else nothing."""
    own = plan.spec.phase(phase)
    return "" if own.precision is None else plan.spec.of(own).model.precision


def _accepted(phase: Phase) -> str:
    """How many of the tokens that are checked count."""
    if not phase.by_position:
        return f"{phase.acceptance:.0%} accepted"
    deep = ", ".join(f"{chance:.0%}" for chance in phase.reached[:8]) + (", .." if len(phase.reached) > 8 else "")
    tree = f"a tree of {' x '.join(map(str, phase.tree))}, " if phase.tree else ""
    return f"{tree}{phase.tokens_per_step:.2f} tok of each sequence kept with its own: so deep in {deep} of the steps"


def exit_lines(plan: CompiledPlan, phase: Phase) -> list[str]:
    """Where sequences leave, and what becomes of the layers that they skip."""
    if not phase.exits:
        return []
    layers = plan.spec.model.layers
    where = ", ".join(f"{one.share:.0%} behind layer {one.layer}" for one in phase.exits)
    return [
        f"early exits: {where}; a token goes through {depth(phase.exits, layers):.4g} of {layers} layers on average; keys and values of "
        "layers that it skips are computed from the state with which it left"
    ]


def batch_lines(phase: Phase) -> list[str]:
    """How long the prompts of a batch are, and what fills their rows up."""
    own = phase.lengths
    if own is None:
        return []
    rows = (
        f"rows of {sum(room.each * n for room, n in phase.batching.parts):,} tok"
        if phase.parts
        else f"{phase.new_tokens:,} tok each"
    )
    return [
        f"{phase.sequences:,} prompts of {own.shortest:,} to {own.longest:,} tok, {own.packing}: {rows}; "
        f"{1.0 - phase.filled:.1%} of {phase.taken:,} tok are padding"
    ]


def drafter_lines(result: PhaseResult) -> list[str]:
    """What a drafter takes of a step's time and of the memory of a GPU."""
    one = result.drafter
    if one is None:
        return []
    layers, passes = (f"{n} {what}" for n, what in ((one.layers, "layer"), (one.count, "pass")))
    layers, passes = layers + "s" * (one.layers > 1), passes + "es" * (one.count > 1)
    return [
        f"drafter {one.name}, {layers} of {parameters(one.params)} parameters: {passes} of {show(one.time_s, TIME)} in all "
        f"before each step; {show(one.weights_B, BYTES)} of weights and {show(one.kv_cache_B, BYTES)} of cache on a GPU of "
        "the last stage"
    ]


def placement_text(plan: CompiledPlan, result: PhaseResult) -> str:
    """Both as sentences."""
    from .experts import expert_lines

    lines = (line.strip() for line in (*placement_lines(result), *expert_lines(plan, result)))
    return " ".join(f"{line[0].upper()}{line[1:]}." for line in lines)


def requests_lines(result: PhaseResult) -> Iterator[str]:
    """What passes between the front end and the ranks; nothing where every rank has the whole batch."""
    graph = result.graph
    calls = graph.microbatches * graph.lanes
    for move in request_moves(graph):
        cost, over = result.requests[move.kind], "+".join(graph.the_mesh.label(move.axes))
        size = show(cost.payload_B, BYTES, 3) + (" of token ids" if move.kind == SCATTER.name else " from each rank")
        times = f", {calls} times" if calls > 1 else ""
        took_s = float(cost.time_s.max())
        late = ", longer than the pass: ranks would wait" if took_s * calls > result.schedule.period_s else ""
        ranks = f"{graph.the_mesh.size(move.axes)} ranks{times}"
        yield f"{move.kind} of {size} over {over} ({ranks}): {show(took_s, TIME, 3)}{late}"


REQUESTS_HEAD = "requests, which no step waits for"


def requests_text(result: PhaseResult) -> str:
    """The same as a sentence."""
    said = "; ".join(requests_lines(result))
    return f"{REQUESTS_HEAD[0].upper()}{REQUESTS_HEAD[1:]}: {said}." if said else ""


SHORT_NAMES = {"node": "link in a node", "cluster": "link between nodes"}


def _link(level: Level, hardware: Hardware) -> str:
    joins = "" if hardware.short else f"joins {level.gpus or 'all'} GPUs; "
    shared = hardware.nics is not None and level.nics is not None
    whose = f"of each of {level.nics} NICs of a node" if shared else "per GPU"
    text = f"{joins}{show(level.bandwidth_Bps, BYTE_RATE)} {whose} and direction, {show(level.latency_s, TIME)}"
    if level.oversubscription != 1:
        text += f", of which 1 / {level.oversubscription:g} where GPUs of several domains meet"
    return text + ("; GPUs that use a NIC at once divide it" if shared else "; groups do not contend for it")


def _unequal(result: PhaseResult) -> str:
    """How long passes that are to be alike take on a stage, where they are cut by work or follow each other through the stages."""
    if not (result.in_flight or result.cut_by_work):
        return ""
    slowest = [max(c.schedule.stage_s) for c in result.chunks]
    return f"; {show(min(slowest), TIME)} to {show(max(slowest), TIME)} of the stage that takes longest"


def _passes(phase: Phase) -> str:
    how = "each enters a stage when the one before has left it" if phase.chunks_overlap else "one after the other"
    if phase.cuts:
        sizes = f"{max(phase.cuts)} to {min(phase.cuts)} tok, of equally much work"
        return f"{phase.passes} passes of {sizes}, each with the context cached by then, {how}"
    short = f", {phase.last} in the last" if phase.last else ""
    return f"{phase.passes} passes of {phase.tokens} tok{short}, each with the context cached by then, {how}"


def _routing(kind: str, s: float) -> str:
    if kind == "uniform":
        return "uniform: exactly even loads, without the fluctuation of small batches"
    return f"{kind}({s:g}), shuffled with a fixed seed" if s else kind
