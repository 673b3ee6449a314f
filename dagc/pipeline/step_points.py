"""Steps compiled one by one: what a step of so many sequences in decode and so many prompt tokens takes of the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..base.diagnostics import Collector
from ..base.frozen import replace
from ..base.phase_kinds import DECODE, MIXED, PREFILL, PROMPT, SAMPLED, is_of_prompts
from ..cost.price import launched_s
from ..cost.schedule.pipelines import PIPELINES
from ..cost.schedule.scheduler import Paced, Scheduler
from ..spec.phase import Launches, Part, Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .kept import Layouts, Priced


class Knot(NamedTuple):
    """A step of a phase, with its strategy and engine. `sequences` in decode, of `context` tokens each, and `prompts`, `tokens` of each in
    the step, the last of which attends to `attended`; all of the whole phase, evenly over its ranks. `microbatches`: in flight (0: the
    phase's)."""

    phase: str
    sequences: int = 0
    context: int = 1
    prompts: int = 0
    tokens: int = 0
    attended: int = 0
    microbatches: int = 0

    @property
    def kind(self) -> str:
        if not self.prompts:
            return DECODE.name
        return MIXED.name if self.sequences else PREFILL.name


class Figures(NamedTuple):
    """Seconds of the GPUs in a step, without host: in all; of it for routed experts, which share the tokens of all ranks; for what the
    sequences in decode have to themselves (attention, sampling); and what the prompts have. `launches`: layers that the host launches."""

    time_s: float
    routed_s: float = 0.0
    decode_s: float = 0.0
    prompt_s: float = 0.0
    launches: float = 0.0


Price = Callable[[Knot], Figures]
"""What prices steps ask; may raise, and is then asked again."""


def phase_of(knot: Knot, spec: Spec) -> Phase:
    """The knot as a phase that can be compiled."""
    own = spec.phase(knot.phase)
    drafted = 1 + own.speculative
    strategy = replace(own.strategy, microbatches=knot.microbatches) if knot.microbatches else own.strategy
    kind = knot.kind
    common = replace(own, kind=kind, parts=(), passes=1, last=0, cuts=(), strategy=strategy, lengths=None)
    if kind == DECODE.name:
        return replace(common, sequences=knot.sequences, tokens=drafted, context=knot.context)
    if kind == PREFILL.name:
        return replace(
            common, sequences=knot.prompts, tokens=knot.tokens, context=knot.attended, acceptance=0.0, drafter="none"
        )
    parts = (
        Part(DECODE.name, knot.sequences, drafted, knot.context),
        Part(PROMPT, knot.prompts, knot.tokens, knot.attended),
    )
    return replace(
        common,
        parts=parts,
        sequences=knot.sequences + knot.prompts,
        tokens=drafted,
        context=knot.context,
        strategy=replace(strategy, sequence_parallel=False, dcp=1),
    )


class Steps:
    """Compiles steps of a spec; those of one layout share their lowered graph. `drafts`: layouts of the passes that draft."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.layouts, self.drafts = Layouts(fresh=1), Layouts(fresh=1)

    def __call__(self, knot: Knot) -> Figures:
        """The step lowered and priced; not verified, as its phase was. Raises SpecError."""
        unit = self._unit(knot)
        phase, own = unit.phase, self.layouts.priced(unit)
        figures = _figures(own, phase)
        if phase.drafter == "none":
            return figures
        from .drafts import draft_units

        joint_s = alone_s = 0.0
        for count, drafting in draft_units(unit, own.graph):
            draft = self.drafts.priced(drafting)
            drafts_s = count * _seconds(draft, _schedule(draft))
            if drafting.phase.is_packed:  # the first pass takes the prompts' tokens too
                joint_s += drafts_s
            else:
                alone_s += drafts_s
        return figures._replace(time_s=figures.time_s + joint_s + alone_s, decode_s=figures.decode_s + alone_s)

    def _unit(self, knot: Knot) -> Unit:
        phase = replace(phase_of(knot, self.spec), host_s=0.0, launches=Launches())
        return Unit(self.spec, phase, Collector())

    def lower(self, knot: Knot) -> None:
        """For who asks whether there is such a step. Raises SpecError."""
        unit = self._unit(knot)
        graph = self.layouts.graph(unit)
        if unit.phase.drafter != "none":
            from .drafts import draft_units

            for _, drafting in draft_units(unit, graph):
                self.drafts.graph(drafting)


def compiled(knot: Knot, spec: Spec) -> Figures:
    """One step. Raises SpecError."""
    return Steps(spec)(knot)


def _schedule(step: Priced) -> Paced:
    return Scheduler(step.graph, step.costs, programs=step.programs).paced()


def _seconds(step: Priced, schedule: Paced) -> float:
    """Of a step in steady state, micro-batches of prompts too: the next one enters a stage when the one before has left it."""
    graph = step.graph
    if len(graph.stages) == 1 or graph.generates:
        return schedule.period_s
    sends_s = [edge.time_s for edge in step.costs.edges]
    steady = PIPELINES[MIXED.name].step
    assert steady is not None
    return steady(schedule.stage_s, schedule.stage_s, sends_s, 0.0, graph.microbatches).time_s


def _figures(own: Priced, phase: Phase) -> Figures:
    graph, costs, _ = own
    schedule = _schedule(own)
    routed_s = decode_s = prompt_s = 0.0
    for step in schedule.path:
        if not step.segment:
            continue
        op, cost = graph.segment(step.segment).by_name[step.op], costs.ops[step.segment, step.op]
        time_s = step.time_s + step.count * cost.launch_s
        if op.scope == "experts" and not op.is_collective:
            routed_s += time_s
        elif op.scope in (DECODE.name, SAMPLED):
            decode_s += time_s
        elif is_of_prompts(op.scope):
            prompt_s += time_s
    time_s = _seconds(own, schedule)
    if time_s != schedule.period_s:
        routed_s *= time_s / schedule.period_s
    layers = launched_s(graph, replace(phase, cuda_graph=False, launches=Launches(1.0)))
    return Figures(time_s, routed_s, decode_s, prompt_s, layers)
