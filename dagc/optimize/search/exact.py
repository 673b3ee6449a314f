"""exact: one plan of a phase compiled, and judged as `compile` judges it: memory, GPUs that it shares, requirements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, overload

from ...base.diagnostics import Collector, SpecError
from ...base.frozen import record
from ...base.syntax import ast
from ...base.units import Quantity
from ...cost import scale_blocks
from ...cost.records import Costs
from ...ir.graph import Graph
from ...ir.verify.violation import VerifyError
from ...lang.open_spec import OpenSpec
from ...lang.values.evaluate import compare, names_in, quantity
from ...passes.sp import NoCacheSplit
from ...pipeline import pools
from ...pipeline.compile import compile_phase
from ...pipeline.estimates import Estimate, Estimates
from ...plan.pools import Pool
from ...plan.refusal_rules import of_requirement
from ...plan.require import judged
from ...plan.result import PhaseResult
from ...plan.subject import Subject
from ...spec.choice import Chosen
from ...spec.metrics.known_metrics import TABLE
from ...spec.metrics.metric import HARDWARE, PHASE, SERVE, TRAIN
from ...spec.model import AttrValue
from ...spec.phase import Phase
from ...spec.requirement import Requirement
from ...spec.spec import Spec
from ...spec.unit import Unit
from .bound_pieces import LAST
from .objectives import Objective, Terms

METRICS = {m.name: m for m in TABLE if m.owner == PHASE}
STEP_METRICS = {m.name: m for m in TABLE if m.owner == TRAIN}
OTHERS = {m.full: m for m in TABLE if m.owner not in (PHASE, SERVE, TRAIN)}


LAYOUT = "layout"
"""Refused because it does not compile."""
BLOCKS = "scale blocks"
"""Refused because degrees cut blocks of quantised weights: a matter of tp and the experts' tp alone."""
CACHE = "cache"
"""Refused because no layer has a cache that dcp could split: a matter of dcp alone."""

Told = Callable[[Graph, Costs], None]
"""Hears of the lowered graph and the costs of the first pass."""


def closed_phases(spec: OpenSpec) -> dict[str, PhaseResult]:
    """Phases that leave nothing open, compiled. Raises SpecError."""
    free = {p.name for p in spec.spec.phases if spec.of(p.name) or p.name in spec.spec.alternatives}
    closed = replace(spec.spec, phases=tuple(p for p in spec.spec.phases if p.name not in free))
    return {p.name: compile_phase(Unit(closed, p, Collector())) for p in closed.phases}


def plain_ops(unit: Unit) -> dict[str, frozenset[str]]:
    """Ops of each segment before anything is inserted."""
    from ...lang.expand import expand

    return own_names(expand.run(unit), unit)


def own_names(graph: Graph, unit: Unit) -> dict[str, frozenset[str]]:
    """By segment. Without drafts a step has one token of each sequence, and a head that picks it: plans with and without are of one list."""
    left_out = LAST if unit.phase.generates else ""
    return {segment.name: frozenset(op.name for op in segment.ops if op.kind != left_out) for segment in graph.segments}


@dataclass
class FirstPass:
    """Looks at the first pass of a phase, and at its weights before anything is priced."""

    seen: Told
    first: bool = True

    def at_graph(self, graph: Graph, unit: Unit) -> None:
        scale_blocks.check(graph, unit)
        wrong = next((d for d in unit.out.items if d.code == "E03"), None)
        if wrong is not None:
            raise CutBlocks(wrong.message)

    def at_costs(self, graph: Graph, costs: Costs) -> None:
        if self.first:
            self.seen(graph, costs)
        self.first = False


class CutBlocks(Exception):
    """Weights that cannot be cut like that."""


class Costed(Protocol):
    """What is known of a plan whatever its kind of phase: figures, bit for bit those of `compile`. `mfu`: of a training step, not a number of
    others; `slow_B`: bytes that a GPU sends over the outermost links."""

    @property
    def unit(self) -> Unit: ...
    @property
    def time_s(self) -> float: ...
    @property
    def throughput_tok_s(self) -> float: ...
    @property
    def gpus(self) -> int: ...
    @property
    def peak_B(self) -> float: ...
    @property
    def capacity_B(self) -> float: ...
    @property
    def fits(self) -> bool: ...
    @property
    def mfu(self) -> float: ...
    @property
    def slow_B(self) -> float: ...
    @property
    def result(self) -> Any: ...


@record(slots=False)
class Plan:
    """A plan of one phase as it was costed. `refused`: (rule, code) of what is wrong with it, if anything is."""

    phase: Phase
    estimate: Costed | None
    refused: tuple[str, str] | None = None
    why: str = ""

    @property
    def terms(self) -> Terms:
        found = self.costed
        hardware, gpus = found.unit.spec.hardware, float(found.gpus)
        price, power = (float("nan") if one is None else one * gpus for one in (hardware.price_per_s, hardware.power_W))
        return Terms(
            found.time_s,
            found.throughput_tok_s,
            gpus,
            float(self.phase.sequences),
            price,
            power,
            found.mfu,
            found.peak_B,
        )

    @property
    def costed(self) -> Costed:
        assert self.estimate is not None
        return self.estimate

    @property
    def the_estimate(self) -> Estimate:
        """Of a phase of inference."""
        assert isinstance(self.estimate, Estimate)
        return self.estimate


Allowed = Callable[[Sequence[Unit]], tuple[str, str] | None]
"""Whether somebody who is asked from outside runs phases that are beside each other: None, or (rule, why not)."""


@dataclass
class Judge:
    """Plans of one phase beside the others of the spec, which stay as they are. `others`: their results. `unknown`: phases that
    are not there yet; requirements that ask them wait."""

    spec: Spec
    name: str
    others: Mapping[str, PhaseResult] = field(default_factory=dict)
    params: tuple[float, float] | None = None
    requirements: tuple[Requirement, ...] = ()
    unknown: frozenset[str] = frozenset()
    allowed: Allowed | None = None

    def __post_init__(self) -> None:
        self.estimates = Estimates(self.spec)
        known = {self.name, *self.others}
        self.requirements = tuple(r for r in self.spec.requirements if asks(r, self.spec) <= known)

    def of_values(self, spec: OpenSpec, values: Mapping[str, Chosen], seen: Told | None = None) -> Plan:
        """The phase with these values in place of its choices."""
        out = Collector()
        phase = spec.phase(self.name, values, out)
        if phase is None:
            wrong = next(d for d in out.items if d.is_error)
            return Plan(self.spec.phase(self.name), None, ("the phase as it is read", wrong.code), wrong.message)
        return self.plan(phase, seen)

    def plan(self, phase: Phase, seen: Told | None = None) -> Plan:
        """`seen`: hears of the lowered graph and the costs of its first pass."""
        try:
            estimate = self.costed(phase, seen)
        except SpecError as error:
            first = next(d for d in error.diagnostics if d.is_error)
            rule = CACHE if isinstance(error.__context__, NoCacheSplit) else LAYOUT
            return Plan(phase, None, (rule, first.code), first.message)
        except CutBlocks as error:
            return Plan(phase, None, (BLOCKS, "E03"), str(error))
        except VerifyError as error:
            return Plan(phase, None, (LAYOUT, "E03"), str(error))
        return self.judged(Plan(phase, estimate))

    def costed(self, phase: Phase, seen: Told | None = None) -> Costed:
        """Raises SpecError, CutBlocks, VerifyError where the phase does not compile."""
        return self.estimates(phase, None if seen is None else FirstPass(seen))

    def judged(self, plan: Plan) -> Plan:
        """A plan that was costed, with what refuses it."""
        phase = plan.phase
        if not plan.costed.fits:
            return replace(plan, refused=("memory", "E04"))
        subject = self.subject(plan)
        if self.shares(phase) and not all(pool.fits for pool in subject.pools):
            return replace(plan, refused=("shared memory", "E04"))
        failed = self.failed(subject)
        if failed is not None:
            return replace(plan, refused=(of_requirement(failed.label), "R07"))
        not_run = self.not_run(phase)
        return plan if not_run is None else replace(plan, refused=(not_run[0], "E05"), why=not_run[1])

    def not_run(self, phase: Phase) -> tuple[str, str] | None:
        """Asked last, as nothing is known of it before a plan is lowered."""
        return None if self.allowed is None else self.allowed(self.units(phase))

    def units(self, phase: Phase) -> list[Unit]:
        """The phase and those on the same GPUs."""
        phases = tuple(phase if p.name == self.name else p for p in self.spec.phases if p.name not in self.unknown)
        spec = replace(self.spec, phases=phases)
        return [Unit(spec, p, Collector()) for p in phases if p.name == self.name or p.shares(phase)]

    def score(self, objective: Objective, plan: Plan) -> float:
        """Of a plan that was costed; infinite where it has no such figure."""
        if not objective.measured:
            figure = float(objective.score(plan.terms))
            return figure if figure == figure else float("inf")
        found = self.metric(objective.name, plan)
        if found is None:
            return float("inf")
        return found if objective.better == "lower" else -found

    def metric(self, name: str, plan: Plan) -> float | None:
        """A metric of a plan that was costed."""
        return METRICS[name].how(self.subject(plan))

    def shares(self, phase: Phase) -> bool:
        return any(self.spec.phase(name).shares(phase) for name in self.others)

    def subject(self, plan: Plan) -> Subject:
        """What metrics are read from, each worked out when it is asked for."""
        spec = replace(self.spec, phases=tuple(plan.phase if p.name == self.name else p for p in self.spec.phases))
        lean = cast(PhaseResult, Lean(plan.the_estimate, self.name))
        beside = self.beside(spec, plan.phase)
        results = {p.name: lean if p.name == self.name else beside[p.name]
                   for p in spec.phases if p.name == self.name or p.name in self.others}  # fmt: skip
        alone = not self.shares(plan.phase)

        def found() -> tuple[Pool, ...]:
            own = plan.the_estimate.result
            return pools.run({name: own if name == self.name else result for name, result in results.items()})

        return _Asked(spec, results, self._params(plan), cast(Sequence[Pool], LazyPools(found)), self.name, alone=alone)

    def beside(self, spec: Spec, phase: Phase) -> Mapping[str, PhaseResult]:
        """Results of the other phases: on the same GPUs experts may be cut alike, and stored in another order than before."""
        anew = {name for name in self.others if spec.phase(name).shares(phase)}
        return {
            name: compile_phase(Unit(spec, spec.phase(name), Collector())) if name in anew else own
            for name, own in self.others.items()
        }

    def _params(self, plan: Plan) -> tuple[float, float]:
        if self.params is None:
            from ...pipeline.parameters import count_parameters

            self.params = count_parameters(plan.the_estimate.result.graph)
        return self.params

    def constant(self, expr: ast.Expr) -> float | None:
        """Of an expression that asks nothing of what is searched or compiled."""
        subject = Subject(self.spec, {}, (0.0, 0.0), (), "")
        known = {p.name for p in (*self.spec.phases, *self.spec.trainings)}
        if {name.parts[0] for name in names_in(expr)} & known or _pooled(expr):
            return None
        found = quantity(expr, lambda node: value(node, subject), Collector())
        return None if found is None else found.value

    def failed(self, subject: Subject) -> Requirement | None:
        """The first requirement that does not hold."""
        for requirement in self.requirements:
            if not plain_test(requirement.test):
                verdicts = judged(subject, (requirement,))
                if not all(v.passed for v in verdicts):
                    return requirement
                continue
            found = compare(requirement.test, lambda node: value(node, subject), Collector())
            if found is None:
                judged(subject, (requirement,), out := Collector())  # says what is wrong with it
                raise SpecError(out.items)
            if not found[2]:
                return requirement
        return None


def asks(requirement: Requirement, spec: Spec) -> set[str]:
    """Phases and servings whose figures it asks for, those that are not read included."""
    found = {name.parts[0] for name in names_in(requirement.test) if len(name.parts) > 1}
    return found - {HARDWARE, *spec.pools, "model", "workload"}


def _pooled(expr: ast.Expr) -> bool:
    """Whether it asks what the model or the GPUs hold, which is known when something is compiled."""
    return any(name.text in OTHERS and name.parts[0] not in ("workload",) for name in names_in(expr))


def plain_test(test: ast.Comparison) -> bool:
    """Whether it asks for figures alone, and for no GPU ids."""
    return not any(isinstance(node, ast.CallExpr) for node in _nodes(test))


def _nodes(test: ast.Comparison) -> Iterator[ast.Expr]:
    stack: list[ast.Expr | None] = [test.left, test.right, test.tolerance]
    while stack:
        node = stack.pop()
        if node is None:
            continue
        yield node
        if isinstance(node, ast.Binary):
            stack += [node.left, node.right]
        elif isinstance(node, ast.Unary):
            stack.append(node.operand)


def value(node: ast.Name | ast.CallExpr, subject: Subject) -> AttrValue | None:
    """Of a name in a requirement."""
    assert isinstance(node, ast.Name)
    spec, text = subject.spec, node.text
    owner, _, rest = text.partition(".")
    metrics = METRICS if owner in subject.phases else STEP_METRICS if owner in subject.trainings else {}
    if rest in metrics:
        found = metrics[rest].how(subject.of(owner))
        return None if found is None else Quantity(found, metrics[rest].dim)
    if spec.others and owner in spec.pools:
        pooled = OTHERS.get(f"{HARDWARE}.{rest}")
        found = None if pooled is None else pooled.how(subject.of(owner))
        return None if pooled is None or found is None else Quantity(found, pooled.dim)
    if text in OTHERS:
        found = OTHERS[text].how(subject)
        return None if found is None else Quantity(found, OTHERS[text].dim)
    constant = spec.constants.get(text)
    if constant is None and owner == "model":
        constant = spec.model.attributes.get(rest)
    return constant if isinstance(constant, Quantity) else None


class Lean:
    """The result of a phase of which a few figures are known; all others are worked out when they are asked for."""

    def __init__(self, estimate: Estimate, name: str) -> None:
        self.estimate, self.name = estimate, name
        self.time_s, self.throughput_tok_s = estimate.time_s, estimate.throughput_tok_s
        self.memory, self.gpus = estimate.memory, estimate.phase.gpus
        self.phase_kind = estimate.phase.phase_kind
        self.per_node = estimate.unit.spec.hardware.per_node
        self.hardware = estimate.phase.hardware

    def __getattr__(self, name: str) -> Any:
        return getattr(self.estimate.result, name)


class LazyPools(Sequence[Pool]):
    """Pools that are added up when somebody looks at them."""

    def __init__(self, make: Callable[[], tuple[Pool, ...]]) -> None:
        self.make: Callable[[], tuple[Pool, ...]] = make
        self.made: tuple[Pool, ...] | None = None

    @property
    def all(self) -> tuple[Pool, ...]:
        if self.made is None:
            self.made = self.make()
        return self.made

    @overload
    def __getitem__(self, index: int) -> Pool: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pool]: ...
    def __getitem__(self, index: int | slice) -> Pool | Sequence[Pool]:
        return self.all[index]

    def __len__(self) -> int:
        return len(self.all)


@record(slots=False)
class _Asked(Subject):
    """`alone`: no other phase is on the GPUs of the phase that is searched, so that nothing needs to be added up to say so."""

    alone: bool = False

    @property
    def shared(self) -> list[Pool]:
        if self.alone and len(self.phases) == 1:
            return []
        return [pool for pool in self.pools if pool.shared and self.name in pool.phases]
