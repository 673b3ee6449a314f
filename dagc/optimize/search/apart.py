"""apart: the space of one phase, and the search in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from ...base.axes import EXPERT_TENSOR, TENSOR
from ...base.diagnostics import Collector
from ...base.syntax import ast
from ...lang.open_spec import OpenSpec
from ...lang.values.evaluate import names_in
from ...pipeline.estimates import Estimate
from ...plan.result import PhaseResult
from ...spec.hardware import Hardware
from ...spec.unit import Unit
from .best_first import Found, Limit, Outcome, Search
from .bound import Bounds, pieces_of, usable
from .domains import domains
from .exact import BLOCKS, Allowed, Judge, Plan, plain_ops
from .objectives import TABLE, Floats, Objective, Terms
from .rules import Facts, fixed, key, names, rules
from .space import Domain, Flags, Rows, Rule, Tally, distinct, legal, size
from .within import Wrong, restrictions, unknown
from .workers import Costed, Run, Task, Text

Told = Callable[[Found, int], None]


@dataclass
class Apart:
    """One phase beside others that stay as they are (`others`: their results). `within`: restrictions of the command line, for any of
    the phases `searched`. `merged`: plans of equal cost count as one (not all of them may be allowed). `allowed`: see Judge. `run`: who costs plans
    of the `text`; None: this process."""

    spec: OpenSpec
    name: str
    others: Mapping[str, PhaseResult]
    within: Sequence[str] = ()
    searched: Sequence[str] = ()
    merged: bool = True
    text: Text | None = None
    run: Run | None = None
    allowed: Allowed | None = None
    facts: Facts = field(init=False)
    domains: tuple[Domain, ...] = field(init=False)
    rows: Rows = field(init=False)
    asked: tuple[Rule, ...] = ()
    rules: tuple[Rule, ...] = ()
    tally: Tally = field(default_factory=Tally)
    equal: int = 0

    def __post_init__(self) -> None:
        """Raises Unbounded, TooLarge, Wrong."""
        phase = self.spec.spec.phase(self.name)
        # Phases that are open too are no neighbours: what they will be is not known here.
        own = tuple(p for p in self.spec.spec.phases if p.name == self.name or p.name in self.others)
        alone = replace(self.spec.spec, phases=own)
        self.facts = facts = Facts(phase, alone.of(phase), phase.new_tokens)
        self.domains = domains(self.spec.of(self.name), facts)
        paths = [d.path for d in self.domains]
        self.asked = asked = restrictions(self.within, self.name, self.searched, paths)
        wrong = unknown(asked, Rows(self.domains, fixed(facts), (), names(facts)))
        if wrong is not None:
            raise Wrong(
                f"phase `{self.name}` has no `{wrong}`", f"it has {', '.join(dict.fromkeys((*paths, *fixed(facts))))}"
            )
        self.rules = rules(facts, paths)
        rows = legal(self.domains, fixed(facts), names(facts), (*asked, *self.rules), self.tally)
        columns = key(rows, facts) if self.merged else None
        first = distinct(rows, columns) if columns is not None else np.arange(len(rows))
        self.equal = len(rows) - len(first)
        self.rows = rows.where(first)
        self.judge = Judge.beside_closed(self.spec, self.name, self.others, [p.name for p in own], self.allowed)
        self.pieces = Pieces(self.spec, self.name, facts, self.rows, self.judge, self.text, self.run)

    @property
    def size(self) -> int:
        return size(self.domains)

    def search(
        self, objectives: Sequence[Objective], top: int, until: float | None = None, told: Told | None = None
    ) -> tuple[Outcome, bool]:
        """What is found, and whether somebody interrupted. `until`: the moment (of `perf_counter`) to stop at."""
        tally = Tally(dict(self.tally.found))
        began = perf_counter()
        own = Search(
            self.rows, self.pieces.bound, objectives, limits(self.judge, self.name), self.pieces.evaluate,
            self.judge.score, self.pieces.news, tally, self.size, self.pieces.alike,
             self.equal, top=top, budget_s=None if until is None else until - began, began=began, told=told,
        )  # fmt: skip
        return replace(own.run(), rules=(*self.asked, *self.rules)), own.stopped


FEW = 64
"""Rows of a space below which this process costs all: others would take longer to begin."""


class Pieces:
    """Exact costs and bounds of the rows of one phase's space. What was costed once is kept."""

    def __init__(
        self,
        spec: OpenSpec,
        name: str,
        facts: Facts,
        rows: Rows,
        judge: Judge,
        text: Text | None = None,
        run: Run | None = None,
    ) -> None:
        self.text, self.run = text, run
        self.spec, self.name, self.facts, self.rows, self.judge = spec, name, facts, rows, judge
        self.bounds = Bounds(rows, facts) if usable(rows, facts) else None
        self.own: Mapping[str, frozenset[str]] | None = None
        self.known: dict[int, Plan] = {}
        count = len(rows)
        phase = facts.phase
        self.gpus, self.sequences, draft = (
            np.broadcast_to(rows.number(name), (count,)).astype(np.float64) for name in ("gpus", "sequences", "draft")
        )
        pools = facts.pools
        self.price, self.power = (_of_pools(rows, pools, each) for each in ("price_per_s", "power_W"))
        steps = range(int(draft.max(initial=0)) + 1)
        per_step = np.sum([np.where(draft >= k, phase.acceptance**k, 0.0) for k in steps], axis=0)
        self.per_step = per_step if phase.generates else np.ones(count)
        self.tokens = self.sequences * (facts.new if phase.takes_prompts else self.per_step)

    def bound(self, objectives: Sequence[Objective]) -> list[Floats]:
        """Scores that no row can beat."""
        count = len(self.rows)
        time_s = np.zeros(count) if self.bounds is None else self.bounds.time_s
        with np.errstate(divide="ignore"):
            terms = Terms(
                time_s / self.per_step, self.tokens / time_s, self.gpus, self.sequences, self.price * self.gpus, self.power * self.gpus
            )  # fmt: skip
            scores = [
                np.nan_to_num(np.asarray(o.score(terms), dtype=np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)
                for o in objectives
            ]
            return [np.broadcast_to(one, (count,)) for one in scores]

    def evaluate(self, rows: Sequence[int]) -> list[Plan]:
        """Plans of some rows, each costed once."""
        new = [row for row in rows if row not in self.known]
        if self.run is None or self.text is None or len(self.rows) < FEW:
            for row in new:
                self.known[row] = self._here(row)
        else:
            for row, found in zip(new, self.run([self._task(row, self.text) for row in new]), strict=True):
                self.known[row] = self._taken(row, found)
        return [self.known[row] for row in rows]

    def _wanted(self, row: int) -> bool:
        return self.bounds is not None and not self.bounds.known(row)

    def _here(self, row: int) -> Plan:
        values = self.rows.values(row)
        bounds = self.bounds
        if bounds is None or not self._wanted(row):
            return self.judge.of_values(self.spec, values)
        if self.own is None:
            phase = self.spec.phase(self.name, values, Collector())
            if phase is None:
                return self.judge.of_values(self.spec, values)
            self.own = plain_ops(Unit(self.judge.spec, phase, Collector()))
        own = self.own
        return self.judge.of_values(
            self.spec, values, lambda graph, costs: bounds.learn(row, *pieces_of(graph, costs, own))
        )

    def _task(self, row: int, text: Text) -> Task:
        alone = tuple(p.name for p in self.judge.spec.phases)
        return Task(text, self.name, alone, tuple(self.rows.values(row).items()), self._wanted(row), self.judge.allowed)

    def _taken(self, row: int, found: Costed) -> Plan:
        """A plan that was costed elsewhere."""
        phase = self.spec.phase(self.name, self.rows.values(row), Collector())
        if found.learnt is not None and self.bounds is not None:
            self.bounds.learn(row, *found.learnt)
        if phase is None or found.figures is None:
            return Plan(phase or self.facts.phase, None, found.refused, found.why)
        return Plan(
            phase, Estimate(Unit(self.judge.spec, phase, Collector()), *found.figures), found.refused, found.why
        )

    def news(self, row: int) -> frozenset[tuple[int, int, float]]:
        """What a row would tell of others; nothing: all is known."""
        return frozenset() if self.bounds is None else self.bounds.news(row)

    def alike(self, row: int, plan: Plan) -> Flags:
        """Rows that are refused for the same reason as one that was."""
        same = np.zeros(len(self.rows), dtype=bool)
        if plan.refused is not None and plan.refused[0] == BLOCKS:
            same[:] = True
            for name in (TENSOR, EXPERT_TENSOR):
                column = np.broadcast_to(self.rows.number(name), (len(self.rows),))
                same &= column == column[row]
        return same


def _of_pools(rows: Rows, pools: Mapping[str, Hardware], what: str) -> Floats:
    """What one GPU of each row's pool has; not a number where that is not given."""
    known = {name: getattr(hardware, what) for name, hardware in pools.items()}
    out = np.full(len(rows), np.nan)
    for name, value in known.items():
        at = np.broadcast_to(rows.is_("hardware", name) if len(known) > 1 else True, (len(rows),))
        out[at] = np.nan if value is None else value
    return out


def limits(judge: Judge, name: str) -> list[Limit]:
    """Requirements that compare a metric which is an objective too with what is known before anything is compiled."""
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
            out.append(Limit(found, bound if wanted == "lower" else -bound, requirement.label))
    return out
