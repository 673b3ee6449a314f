"""optimum: the best plan of an open spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np

from ...base.axes import EXPERT_TENSOR, TENSOR
from ...base.diagnostics import Collector
from ...base.syntax import ast
from ...lang.open_spec import OpenSpec
from ...lang.values.evaluate import names_in
from ...pipeline.compile import compile_phase
from ...plan.result import PhaseResult
from ...spec.phase import Phase
from ...spec.unit import Unit
from .answer import Answer, Ranked
from .best_first import Found, Limit, Search
from .bound import Bounds, usable
from .domains import domains
from .exact import BLOCKS, Judge, Plan
from .objectives import TABLE, Floats, Objective, Terms, objective
from .rules import Facts, fixed, key, names, rules
from .space import Flags, Rows, Tally, Values, distinct, legal, size


class Nothing(ValueError):
    """A spec that leaves nothing open."""


def search(
    spec: OpenSpec,
    asked: Sequence[str] = (),
    *,
    phases: Sequence[str] = (),
    top: int = 3,
    budget_s: float | None = None,
    told: Callable[[Found, int], None] | None = None,
) -> Answer:
    """The best plans of the phases that are open (or those named). Raises Nothing, NoObjective, Unbounded, TooLarge, and SpecError where
    the spec itself is wrong."""
    began = perf_counter()
    open_ = [p.name for p in spec.spec.phases if spec.of(p.name) and (not phases or p.name in phases)]
    if not open_:
        raise Nothing
    kinds = {name: spec.spec.phase(name).kind for name in open_}
    found = tuple(objective(word, kinds) for word in asked or ("throughput_per_gpu",))
    name = found[0].phase
    others = {p.name: compile_phase(Unit(spec.spec, p, Collector())) for p in spec.spec.phases if not spec.of(p.name)}
    return one_phase(spec, name, found, others, top=top, budget_s=budget_s, told=told, began=began)


def one_phase(
    spec: OpenSpec,
    name: str,
    objectives: Sequence[Objective],
    others: Mapping[str, PhaseResult],
    *,
    top: int,
    budget_s: float | None,
    told: Callable[[Found, int], None] | None,
    began: float,
) -> Answer:
    """Of one phase, beside others that stay as they are."""
    phase = spec.spec.phase(name)
    facts = Facts(phase, spec.spec, phase.new_tokens)
    own = domains(spec.of(name), facts)
    tally = Tally()
    rows = legal(own, fixed(facts), names(facts), rules(facts, [d.path for d in own]), tally)
    columns = key(rows, facts)
    first = distinct(rows, columns) if columns is not None else np.arange(len(rows))
    equal = len(rows) - len(first)
    rows = rows.where(first)
    judge = Judge(spec.spec, name, others)
    pieces = Pieces(spec, name, facts, rows, judge)
    found = Search(
        rows, pieces.bound, objectives, limits(judge, name), pieces.evaluate, tally, size(own), pieces.alike, equal, top=top, budget_s=budget_s,
        told=told, began=began,
    )  # fmt: skip
    result = found.run()
    chosen = result.front if len(objectives) > 1 else result.found[:top]
    ranked = tuple(_ranked(one, name, objectives) for one in chosen)
    return Answer(tuple(objectives), ranked, result.certificate, {name: own}, found.stopped)


class Pieces:
    """Exact costs and bounds of the rows of one phase's space."""

    def __init__(self, spec: OpenSpec, name: str, facts: Facts, rows: Rows, judge: Judge) -> None:
        self.spec, self.name, self.facts, self.rows, self.judge = spec, name, facts, rows, judge
        self.bounds = Bounds(rows, facts) if usable(rows, facts) else None
        self.own: Mapping[str, frozenset[str]] | None = None
        count = len(rows)
        phase = facts.phase
        self.gpus, self.sequences, draft = (
            np.broadcast_to(rows.number(name), (count,)).astype(np.float64) for name in ("gpus", "sequences", "draft")
        )
        per_step = np.sum(
            [np.where(draft >= k, phase.acceptance**k, 0.0) for k in range(int(draft.max(initial=0)) + 1)], axis=0
        )
        self.per_step = per_step if phase.generates else np.ones(count)
        self.tokens = self.sequences * (facts.new if phase.takes_prompts else self.per_step)

    def bound(self, objectives: Sequence[Objective]) -> list[Floats]:
        """Scores that no row can beat."""
        time_s = np.zeros(len(self.rows)) if self.bounds is None else self.bounds.time_s
        with np.errstate(divide="ignore"):
            terms = Terms(time_s / self.per_step, self.tokens / time_s, self.gpus, self.sequences)
            return [
                np.broadcast_to(np.asarray(o.score(terms), dtype=np.float64), (len(self.rows),)) for o in objectives
            ]

    def evaluate(self, row: int, values: Values) -> Plan:
        out = Collector()
        phase = self.spec.phase(self.name, values, out)
        if phase is None:
            wrong = next(d for d in out.items if d.code.startswith("E"))
            return Plan(values_phase(self.facts), None, ("the phase as it is read", wrong.code), wrong.message)
        bounds = self.bounds
        if bounds is None or bounds.known(row):
            return self.judge.plan(phase)
        if self.own is None:
            from ...lang.expand import expand

            whole = expand.run(Unit(self.spec.spec, phase, Collector()))
            self.own = {segment.name: frozenset(op.name for op in segment.ops) for segment in whole.segments}
        own = self.own
        return self.judge.plan(phase, lambda graph, costs: bounds.learn(row, graph, costs, own))

    def alike(self, row: int, plan: Plan) -> Flags:
        """Rows that are refused for the same reason as one that was."""
        same = np.zeros(len(self.rows), dtype=bool)
        if plan.refused is not None and plan.refused[0] == BLOCKS:
            same[:] = True
            for name in (TENSOR, EXPERT_TENSOR):
                column = np.broadcast_to(self.rows.number(name), (len(self.rows),))
                same &= column == column[row]
        return same


def values_phase(facts: Facts) -> Phase:
    return facts.phase


def limits(judge: Judge, name: str) -> list[Limit]:
    """Requirements of the form metric against bound, of metrics that are objectives too."""
    out = []
    for requirement in judge.requirements:
        test = requirement.test
        if not isinstance(test.left, ast.Name) or any(n.parts[0] == name for n in names_in(test.right)):
            continue
        owner, _, metric = test.left.text.partition(".")
        found = TABLE.get(metric)
        wanted = {"<=": "lower", "<": "lower", ">=": "higher", ">": "higher"}.get(test.op)
        if owner != name or found is None or found.better != wanted:
            continue
        bound = judge.constant(test.right)
        if bound is not None:
            score = bound if wanted == "lower" else -bound
            out.append(Limit(found, score * (1 + 1e-12) if score > 0 else score * (1 - 1e-12), requirement.label))
    return out


def _ranked(one: Found, name: str, objectives: Sequence[Objective]) -> Ranked:
    figures = tuple(o.shown(s) for o, s in zip(objectives, one.scores, strict=True))
    return Ranked({name: one.values}, figures, {name: one.plan}, len(one.plan.phase.gpus), 0.0)
