"""why: what the best plan of an answer does better than others, which requirement binds it, and what other numbers of GPUs would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from ...base.diagnostics import Collector, SpecError
from ...base.units import BYTES, show
from ...lang.open_spec import OpenSpec
from ...pipeline.compile import compile_spec
from ...plan.plan import CompiledPlan
from ...plan.require import owners
from ...plan.result import PhaseResult
from ...plan.searched import Against, Binding, Findings, ServedVersus, Step, Versus
from ...plan.subject import serving_metrics
from ...plan.trained import TrainingResult
from ...spec.spec import Spec
from ...view.facts.compared import parts
from ...view.facts.steps_compared import step_parts
from .answer import Answer, Ranked
from .by_serving import metrics_of
from .exact import METRICS, STEP_METRICS
from .objectives import TOGETHER, Objective, Split, Terms, of_system, rate
from .optimum import Asked, search
from .plain_answer import gain
from .recomputed import recompute_front
from .refusals import REFUSALS
from .rules import GPUS

EXTRA_S = 2.0
"""Seconds for all further searches of an explanation; as many as the search took where that is more."""
BUDGETED = 0.1
"""Share of a budget that they may take beside it, and half a second."""
TRIED = 3
"""Other numbers of GPUs that are tried on each side."""
SAME = 1e-9
OF_QUEUES = (
    "goodput", "met", "throughput_per_gpu", "ttft.p50", "ttft.p99", "tpot.p50", "tpot.p99", "queue", "saturated", "running", "utilization",
    "imbalance", "kv_fill", "hit_rate", "preemptions", "rejected",
)  # fmt: skip
"""Figures by which servings are compared: what users see, where requests wait, how full workers are."""
MEMORY = "memory of the fullest GPU"
Perspective = tuple[str, float]
"""What seconds are of, and how many of them the whole critical path is."""


@dataclass
class Explainer:
    """`asked`: as the answer was asked for."""

    spec: OpenSpec
    asked: Asked
    answer: Answer

    def __post_init__(self) -> None:
        budget_s = self.asked.budget_s
        extra_s = max(EXTRA_S, self.answer.seconds) if budget_s is None else max(0.5, BUDGETED * budget_s)
        self.until = perf_counter() + extra_s

    def explained(self, found: Findings, today: tuple[str, Spec] | None = None) -> Findings:
        """The findings with the reasons. `today`: name and spec of a plan to compare with. Raises SpecError where that does not
        compile."""
        best, against = self.answer.best, None
        versus: list[Versus] = []
        served: list[ServedVersus] = []
        if best is not None and (other := self.runner_up(best)) is not None:
            results = {name: (plan.costed.result, plan.phase.sequences) for name, plan in other.plans.items()}
            label = f"plan {1 + self.answer.ranked.index(other)}"
            versus += self.versus(label, best, results)
            served += self.served(label, best, other.served)
        if today is not None:
            name, spec = today
            plan = compile_spec(spec, Collector(), servings={o.phase for o in self.answer.objectives if o.measured})
            against = self.against(name, plan)
            if best is not None:
                both: dict[str, PhaseResult | TrainingResult] = {**plan.phases, **plan.trainings}
                compiled = {phase: (result, spec.phase(phase).sequences) for phase, result in both.items()}
                versus += self.versus(name, best, compiled)
                named = [o for o in self.answer.objectives if o.phase in plan.servings]
                served += self.served(name, best, metrics_of(plan, named))
        if best is None:
            return replace(found, against=against)
        steps = tuple(self.steps(best))  # smaller spaces than without a requirement: before it
        return replace(
            found, versus=tuple(versus), served=tuple(served), against=against, binding=self.binding(best), steps=steps, asks=tuple(self.asks(best)),
            anew=tuple(one for plan in best.plans.values() if plan.phase.training is not None for one in recompute_front(plan.costed.unit, None if self.asked.budget_s is None else self.until)),
        )  # fmt: skip

    # -- what takes less time ------------------------------------------------------------------------

    def runner_up(self, best: Ranked) -> Ranked | None:
        """The best plan whose figures are others. Of a front there is none."""
        if self.answer.front:
            return None
        return next((one for one in self.answer.ranked[1:] if _differ(one.figures, best.figures)), None)

    def versus(
        self, name: str, best: Ranked, others: Mapping[str, tuple[PhaseResult | TrainingResult, int]]
    ) -> Iterator[Versus]:
        """By phase, where both have it and its time is not the same. `others`: results and sequences."""
        for phase, plan in best.plans.items():
            if phase not in others:
                continue
            objective = next((o for o in self.answer.objectives if o.phase == phase), self.answer.objectives[0])
            other, sequences = others[phase]
            own = plan.costed.result
            per, mine = _perspective(objective, own, plan.phase.sequences)
            _, theirs = _perspective(objective, other, sequences)
            if abs(mine - theirs) <= SAME * max(mine, theirs):
                continue
            if isinstance(own, TrainingResult) and isinstance(other, TrainingResult):
                yield Versus(name, phase, per, mine, theirs, step_parts(own, other, (mine, theirs)))
            elif isinstance(other, PhaseResult):
                idle = own.schedule.bubble, other.schedule.bubble
                yield Versus(name, phase, per, mine, theirs, parts(own, other, (mine, theirs)), idle)

    def served(self, name: str, best: Ranked, others: Mapping[str, Mapping[str, float]]) -> Iterator[ServedVersus]:
        """What requests see and why: figures of servings, with the best plan and with another, those that differ."""
        for serving, own in best.served.items():
            other = others.get(serving, {})
            asked = [o.name for o in self.answer.objectives if o.phase == serving]
            figures = tuple(
                (metric, own[metric], other[metric])
                for metric in dict.fromkeys((*asked, *OF_QUEUES))
                if metric in own and metric in other and _differ([own[metric]], [other[metric]])
            )
            if figures:
                yield ServedVersus(name, serving, figures)

    def against(self, name: str, plan: CompiledPlan) -> Against:
        """Figures of a plan that is there today, as far as it has them."""
        was = [_figure(objective, plan) for objective in self.answer.objectives]
        best = self.answer.best
        gains = [
            None if before is None or best is None else gain(objective, before, best.figures[k])
            for k, (objective, before) in enumerate(zip(self.answer.objectives, was, strict=True))
        ]
        return Against(name, tuple(was), tuple(gains), plan.passed)

    # -- what binds --------------------------------------------------------------------------------

    def binding(self, best: Ranked) -> Binding | None:
        """The requirement on phases with the least slack, the memory of GPUs among them."""
        opened = self.spec.under(best.picked) if best.picked else self.spec
        spec = opened.closed({name: dict(values) for name, values in best.values.items()}, Collector())
        if spec is None:
            return None
        served = {serve.name for serve in spec.serves}
        asked = tuple(r for r in spec.requirements if not owners(r) & served)
        plan = compile_spec(replace(spec, requirements=asked, serves=()), Collector())
        found = [
            (abs(v.bound - v.value) / abs(v.bound), v.requirement.label, v.shown(v.value), f"{v.requirement.test.op} {v.shown(v.bound)}")
            for v in plan.requirements
            if v.bound and v.requirement.test.op in ("<=", ">=", "<", ">")
        ]  # fmt: skip
        held = [(r.memory.fraction, r.memory.worst.peak_B, r.memory.capacity_B) for r in plan.phases.values()]
        held += [(step.fraction, step.worst.peak_B, step.worst.capacity_B) for step in plan.trainings.values()]
        fraction, peak_B, capacity_B = max(held)
        found.append((1 - fraction, MEMORY, show(peak_B, BYTES), f"<= {show(capacity_B, BYTES)}"))
        slack, label, value, bound = min(found)
        rule = ("memory", "shared memory") if label == MEMORY else (f"requirement: {label}",)
        refused = sum(
            one.count for own in self.answer.searched.values() for one in own.certificate.rejected if one.rule in rule
        )
        made = Binding(label, slack, value, bound, refused)
        return made if label == MEMORY or not refused else self.dropped(made, best)

    def dropped(self, binding: Binding, best: Ranked) -> Binding:
        """With what would be best without the requirement, where there is time to find out."""
        if self.answer.interrupted or self.spec.alternatives:
            return binding
        own = self.spec.spec
        kept = tuple(r for r in own.requirements if r.label != binding.label)
        found = self.again(replace(self.spec, spec=replace(own, requirements=kept)), self.asked.within)
        if found is None or found.best is None:
            return binding
        figure = found.best.figures[0]
        better = max(0.0, gain(self.answer.objectives[0], best.figures[0], figure))
        return replace(binding, without=figure, gain=better, sure=found.complete)

    # -- other numbers of GPUs -----------------------------------------------------------------------

    def steps(self, best: Ranked) -> Iterator[Step]:
        """The nearest numbers of GPUs, below and above, at which a plan passes."""
        if self.answer.interrupted:
            return
        for phase, numbers in self.counts():
            if phase not in best.plans:
                continue
            here = len(best.plans[phase].phase.gpus)
            for near in ([n for n in numbers if n < here][::-1], [n for n in numbers if n > here]):
                yield from self.step(phase, near[:TRIED], best)

    def step(self, phase: str, counts: Sequence[int], best: Ranked) -> Iterator[Step]:
        for count in counts:
            found = self.again(self.spec, (*self.asked.within, f"{phase}.{GPUS} = {count}"))
            if found is None:
                return
            if found.best is not None:
                figure = found.best.figures[0]
                yield Step(
                    phase, count, figure, gain(self.answer.objectives[0], best.figures[0], figure), found.complete
                )
                return

    def counts(self) -> Iterator[tuple[str, list[int]]]:
        """Phases whose number of GPUs is open, with the numbers for which some plan is legal."""
        found: dict[str, set[int]] = {}
        for own in self.answer.searched.values():
            rows = own.outcome.fates.rows
            if any(domain.path == GPUS for domain in own.domains):
                found.setdefault(own.name, set()).update(np.unique(rows.number(GPUS)).tolist() if len(rows) else ())
        yield from ((name, sorted(counts)) for name, counts in found.items())

    def asks(self, best: Ranked) -> Iterator[str]:
        """How to ask for what was not looked at."""
        known = {phase for phase, _ in self.counts()}
        for name, plan in best.plans.items():
            if name not in known:
                n = len(plan.phase.gpus)
                yield f"more or fewer GPUs: `gpus = any({', '.join(map(str, sorted({max(1, n // 2), n, 2 * n})))})` in `{name}`"

    def again(self, spec: OpenSpec, within: Sequence[str]) -> Answer | None:
        """Another search for the one best plan; None where there is no time left for it, or it cannot begin."""
        left = self.until - perf_counter()
        if left <= 0:
            return None
        try:
            return search(spec, replace(self.asked, within=tuple(within), top=1, budget_s=left, workers=1, on=""))
        except (*REFUSALS, SpecError):
            return None


def _differ(a: Sequence[float], b: Sequence[float]) -> bool:
    return any(abs(x - y) > SAME * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))


def _perspective(objective: Objective, result: PhaseResult | TrainingResult, sequences: int) -> Perspective:
    """GPU time of a token, unless the objective is a time or counts no GPUs."""
    if objective.phase not in (result.name, TOGETHER):
        return "GPU time of a token", len(result.gpus) / result.throughput_tok_s
    if objective.name in ("ttft", "tpot", "step_time"):
        return objective.name, result.time_s
    token = 1 / result.throughput_tok_s
    if objective.name == "throughput":
        return "time of a token", token
    if objective.name == "throughput_per_user":
        return "time of a token of each user", token * sequences
    return "GPU time of a token", token * len(result.gpus)


def _figure(objective: Objective, plan: CompiledPlan) -> float | None:
    """An objective of a compiled plan; None where it has none such."""
    subject, spec = plan.subject(), plan.spec
    if objective.phase in plan.servings:
        served = serving_metrics(subject.of(objective.phase)).get(objective.name)
        return None if served is None else served.value
    if objective.phase in plan.trainings:
        return STEP_METRICS[objective.name].how(subject.of(objective.phase))
    if objective.phase in plan.phases:
        metric = METRICS.get(objective.name)
        if metric is not None:
            return metric.how(subject.of(objective.phase))
        result, own = plan.phases[objective.phase], spec.phase(objective.phase)
        terms = Terms(result.time_s, result.throughput_tok_s, float(len(result.gpus)), float(own.sequences))
        return float(objective.figure(terms))
    system = of_system(objective.name)
    kinds = {phase.kind: phase for phase in spec.phases if phase.name in plan.phases}
    if system is None or not {"prefill", "decode"} <= kinds.keys():
        return None
    prefill, decode = kinds["prefill"], kinds["decode"]
    rates = (
        plan.phases[prefill.name].throughput_tok_s / prefill.new_tokens,
        plan.phases[decode.name].throughput_tok_s / spec.workload.output,
    )
    gpus = {(p.hardware, gpu) for p in (prefill, decode) for gpu in p.gpus}
    price, power = (
        sum(
            float("nan") if (own := getattr(spec.pools.get(pool, spec.hardware), what)) is None else own
            for pool, _ in gpus
        )
        for what in ("price_per_s", "power_W")
    )
    both = float(rate(rates[0], rates[1], prefill.shares(decode)))
    figure = float(system.figure(Split(both, float(len(gpus)), float(spec.workload.output), price, power)))
    return None if figure != figure else figure
