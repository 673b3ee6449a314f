"""under_traffic: plans whose servings keep what is required of them too, where the search is by figures of phases.

Those figures order the plans, so the best are simulated one after the other until as many as are asked for pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

from ...base.diagnostics import Collector, SpecError
from ...lang.open_spec import OpenSpec
from ...pipeline.compile import compile_spec
from ...plan.plan import CompiledPlan
from ...plan.refusal_rules import of_requirement
from ...spec.unit import Unit
from .answer import Answer, Joined, Ranked
from .exact import Allowed
from .nearest import Reasons
from .space import Word

LOOKED_AT = 6
"""Plans that are simulated at most."""
UNKNOWN = "E02"
"""What is wrong whatever the layout is."""
MORE = 4
"""Times as many plans, where those found do not suffice."""


@dataclass
class UnderTraffic:
    """`until`: when to stop, one plan is simulated before. `tried` plans are told by their values."""

    spec: OpenSpec
    allowed: Allowed | None
    until: float | None
    reasons: Reasons = field(default_factory=Reasons)
    tried: dict[str, bool] = field(default_factory=dict)

    def best(self, find: Callable[[int], Answer], top: int) -> Answer:
        """`find`: the best so many by figures of phases, in their order."""
        began, count = perf_counter(), top
        while True:
            answer = find(count)
            passed, cut = self.passing(answer.ranked, len(answer.ranked) if answer.front else top, answer.interrupted)
            whole = len(answer.ranked) < count
            if answer.front or cut or whole or len(passed) >= top or answer.interrupted:
                break
            count *= MORE
        refused = sum(not kept for kept in self.tried.values())
        # In a front what one plan that fails was better than may be what remains. Else the first that passes is the best.
        sure = not refused and not cut if answer.front else bool(passed) or (whole and not cut)
        was = answer.joined or Joined(0, 0, complete=True)
        joined = replace(
            was,
            tried=max(was.tried, len(self.tried)),
            refused=was.refused + refused,
            complete=was.complete and sure,
            reasons=dict(Counter(was.reasons) + self.reasons.counts),
            near=() if passed else self.reasons.nearest or was.near,
        )
        return replace(answer, ranked=tuple(passed), joined=joined, seconds=perf_counter() - began)

    def passing(self, ranked: tuple[Ranked, ...], top: int, stopped: bool) -> tuple[list[Ranked], bool]:
        """The first so many that pass, and whether others were left out unseen."""
        out: list[Ranked] = []
        for one in ranked:
            if len(out) == top:
                break
            key = repr(one.values)
            if key not in self.tried:
                late = stopped or (self.until is not None and perf_counter() > self.until)
                if len(self.tried) >= (1 if late else LOOKED_AT):
                    return out, True
                self.tried[key] = simulated(self.spec, one.values, self.allowed, (), self.reasons) is not None
            if self.tried[key]:
                out.append(one)
        return out, False


def simulated(
    spec: OpenSpec,
    values: Mapping[str, Mapping[str, Word | range]],
    allowed: Allowed | None,
    servings: set[str] | tuple[str, ...],
    reasons: Reasons,
) -> CompiledPlan | None:
    """The whole spec compiled and served, with `servings` beside those that requirements name; None where it is refused, which
    `reasons` are told. Raises SpecError where a requirement has a word that no plan knows."""
    out = Collector()
    closed = spec.closed({name: dict(own) for name, own in values.items()}, out)
    if closed is None:
        wrong = next(d for d in out.items if d.is_error)
        reasons.add("the spec as it is read", wrong.message, float("inf"), values)
        return None
    why = None if allowed is None else allowed([Unit(closed, phase, Collector()) for phase in closed.phases])
    if why is not None:
        reasons.add(*why, float("inf"), values)
        return None
    try:
        plan = compile_spec(closed, Collector(), servings=servings)
    except SpecError as error:
        wrong = next(d for d in error.diagnostics if d.is_error)
        if wrong.code == UNKNOWN:
            raise
        reasons.add("layout", wrong.message, float("inf"), values)
        return None
    if plan.passed:
        return plan
    failed = [v for v in plan.requirements if not v.passed]
    rule = of_requirement(failed[0].requirement.label) if failed else "memory"
    words = "; ".join(f"{v.shown(v.value)}, not {v.requirement.test.op} {v.shown(v.bound)}" for v in failed)
    excess = sum(abs(v.value - v.bound) / (abs(v.bound) or 1.0) for v in failed) if plan.fits else float("inf")
    reasons.add(rule, words or "it does not fit", excess, values)
    return None
