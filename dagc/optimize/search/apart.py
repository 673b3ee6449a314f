"""apart: the space of one phase, and the search in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from ...base.syntax import ast
from ...lang.open_spec import OpenSpec
from ...lang.values.evaluate import names_in
from ...plan.result import PhaseResult
from .best_first import Fates, Found, Limit, Outcome, Search
from .certificate import Certificate
from .costing import judge_of
from .domains import domains
from .exact import Allowed, Judge
from .objectives import Objective, table_of
from .pieces import Pieces
from .rules import Facts, fixed, key, names, rules
from .space import Domain, Late, Pause, Rows, Rule, Tally, TooLarge, distinct, legal, never, size
from .within import Wrong, restrictions, unknown
from .workers import Run, Text

Told = Callable[[Found, int], None]


@dataclass
class Apart:
    """One phase beside others that stay as they are (`others`: their results). `within`: restrictions of the command line, for any of
    the phases `searched`. `merged`: plans of equal cost count as one (not all of them may be allowed). `allowed`: see Judge. `run`: who costs plans
    of the `text`; None: this process. `until`: the moment (of `perf_counter`) to stop listing at. `unlisted`: it did, or somebody interrupted (`stopped`): nothing is known of
    any plan."""

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
    until: float | None = None
    unlisted: bool = False
    stopped: bool = False

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
        self.judge = judge_of(self.spec, self.name, self.others, [p.name for p in own], self.allowed)
        try:
            self._list(self._pause)
        except TooLarge as error:
            raise self._told(error) from None
        except (Late, KeyboardInterrupt) as error:
            self.unlisted, self.stopped = True, isinstance(error, KeyboardInterrupt)
            self.tally, self.equal = Tally(), 0
            self._take(
                Rows(self.domains, fixed(facts), tuple(np.zeros(0, dtype=np.int64) for _ in self.domains), names(facts))
            )

    def _list(self, pause: Pause) -> None:
        """The plans that rules let pass, equals once. Raises TooLarge, Late."""
        facts = self.facts
        rows = legal(self.domains, fixed(facts), names(facts), (*self.asked, *self.rules), self.tally, pause)
        columns = key(rows, facts) if self.merged else None
        first = distinct(rows, columns, pause) if columns is not None else np.arange(len(rows))
        self.equal = len(rows) - len(first)
        self._take(rows.where(first), pause)

    def _take(self, rows: Rows, pause: Pause = never) -> None:
        self.rows = rows
        self.pieces = Pieces(self.spec, self.name, self.facts, rows, self.judge, self.text, self.run, pause)

    def _pause(self) -> None:
        if self.until is not None and perf_counter() > self.until:
            raise Late

    def _told(self, error: TooLarge) -> TooLarge:
        """With the choice that makes the space too large, where it is written."""
        error.choice = next((c for c in self.spec.of(self.name) if c.path == error.widest.path), None)
        return error

    @property
    def size(self) -> int:
        return size(self.domains)

    def search(
        self,
        objectives: Sequence[Objective],
        top: int,
        until: float | None = None,
        told: Told | None = None,
        band: int = 1,
    ) -> tuple[Outcome, bool]:
        """What is found, and whether somebody interrupted. `until`: the moment (of `perf_counter`) to stop at; `band`: see Search."""
        if self.unlisted:
            whole = Certificate(self.size, left=self.size)
            nothing = Fates(self.rows, np.zeros(0, dtype=np.int64), ())
            return Outcome(tuple(objectives), (), (), whole, nothing, (*self.asked, *self.rules)), self.stopped
        tally = Tally(dict(self.tally.found))
        began = perf_counter()
        own = Search(
            self.rows, self.pieces.bound, objectives, limits(self.judge, self.name), self.pieces.evaluate,
            self.judge.score, self.pieces.news, self.pieces.unseen, self.pieces.look, self.pieces.too_full, tally, self.size, self.pieces.alike, self.pieces.sight,
             self.pieces.cheap if self.pieces.trains else None, self.equal, top=top, band=band, budget_s=None if until is None else until - began, began=began, told=told,
        )  # fmt: skip
        return replace(own.run(), rules=(*self.asked, *self.rules)), own.stopped


def limits(judge: Judge, name: str) -> list[Limit]:
    """Requirements that compare a metric which is an objective too with what is known before anything is compiled."""
    out = []
    for requirement in judge.requirements:
        test = requirement.test
        if not isinstance(test.left, ast.Name) or any(n.parts[0] == name for n in names_in(test.right)):
            continue
        owner, _, metric = test.left.text.partition(".")
        found = table_of(judge.spec.phase(name).kind).get(metric)
        wanted = {"<=": "lower", "<": "lower", ">=": "higher", ">": "higher"}.get(test.op)
        if owner != name or found is None or found.better != wanted:
            continue
        bound = judge.constant(test.right)
        if bound is not None:
            out.append(Limit(found, bound if wanted == "lower" else -bound, requirement.label))
    return out
