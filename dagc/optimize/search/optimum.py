"""optimum: the best plan of an open spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np

from ...base.diagnostics import Collector
from ...lang.open_spec import OpenSpec
from ...pipeline.compile import compile_phase
from ...plan.result import PhaseResult
from ...spec.unit import Unit
from .answer import Answer, Ranked
from .best_first import Found, Search
from .domains import domains
from .exact import Judge, Plan
from .objectives import Objective, objective
from .rules import Facts, fixed, key, names, rules
from .space import Tally, Values, distinct, legal, size


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
    bounds = [np.full(len(rows), -np.inf) for _ in objectives]
    judge = Judge(spec.spec, name, others)

    def evaluate(values: Values) -> Plan:
        out = Collector()
        made = spec.phase(name, values, out)
        if made is None:
            wrong = next(d for d in out.items if d.code.startswith("E"))
            return Plan(phase, None, ("the phase as it is read", wrong.code), wrong.message)
        return judge.plan(made)

    outcome = Search(
        rows, bounds, objectives, evaluate, tally, size(own), equal, top=top, budget_s=budget_s, told=told, began=began
    )
    result = outcome.run()
    chosen = result.front if len(objectives) > 1 else result.found[:top]
    ranked = tuple(_ranked(one, name, objectives) for one in chosen)
    return Answer(tuple(objectives), ranked, result.certificate, {name: own}, outcome.stopped)


def _ranked(one: Found, name: str, objectives: Sequence[Objective]) -> Ranked:
    figures = tuple(o.shown(s) for o, s in zip(objectives, one.scores, strict=True))
    return Ranked({name: one.values}, figures, {name: one.plan}, len(one.plan.phase.gpus), 0.0)
