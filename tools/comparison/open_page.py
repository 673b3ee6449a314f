"""Open-loop servings on the page: every run, and what holds of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .case import Inexpressible
from .open_loop import FIGURES, Offered, estimated, faster
from .published import Refused
from .runs import Run, Runs
from .servings import Fitted
from .site import Constants
from .statistics import error_table, table

ABOVE = 1.2
"""Times its own rate, at which a run that was tuned to its limits should break them."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A run with its simulation; `above`: at `ABOVE` times the rate, of runs with limits."""

    offered: Offered
    run: Run
    above: Run | None = None

    @property
    def inside(self) -> bool:
        """Within its limits at its own rate."""
        return keeps(self.offered, self.run)

    @property
    def breaks(self) -> bool:
        """Beyond them at a higher rate."""
        return self.above is not None and not keeps(self.offered, self.above)

    @property
    def overloaded(self) -> bool:
        return self.run.verdict == "overloaded"


def keeps(offered: Offered, run: Run) -> bool:
    """Both limits at p99, and no backlog that grows."""
    assert offered.limits_s is not None
    ttft_s, tpot_s, _ = run.at(99)
    return ttft_s <= offered.limits_s[0] and tpot_s <= offered.limits_s[1]


def simulated(found: Sequence[Offered], fitted: Fitted, runs: Runs) -> tuple[list[Simulated], list[Refused]]:
    """All of them; runs of single requests twice, the second time with steps as long as measured."""
    jobs = {o: o.with_constants(constants_of(o, fitted)) for o in found}
    higher = {o: faster(o, ABOVE).with_constants(constants_of(o, fitted)) for o in found if o.limits_s is not None}
    runs.settle([*jobs.values(), *higher.values()])
    for o in found:
        run = runs.known[jobs[o]]
        if o.job.requests and o.overloaded and isinstance(run, Run):
            jobs[o] = replace(jobs[o], factor=round(o.measured["tpot", "mean"] / run.tpot_s, 4))
    runs.settle(list(jobs.values()))
    done: list[Simulated] = []
    refused: list[Refused] = []
    for o in found:
        run, above = runs.known[jobs[o]], runs.known[higher[o]] if o in higher else None
        if isinstance(run, Inexpressible):
            refused.append((o.source, run))
        else:
            done.append(Simulated(o, run, above if isinstance(above, Run) else None))
    return done, refused


def constants_of(offered: Offered, fitted: Fitted) -> Constants:
    """Those of the engine on the GPU, or of the engine."""
    engine = offered.where[2]
    return fitted.get(f"{engine} {offered.calibration}", fitted[engine])


def section(found: Sequence[Simulated]) -> str:
    """Errors by source and figure, and every run."""
    groups: dict[str, list[float]] = defaultdict(list)
    for one in found:
        for (figure, what), value in one.offered.measured.items():
            groups[f"{one.offered.source}, {figure.upper()} {what}"].append(estimated(one.run, figure, what) / value)
    limited = [one for one in found if one.offered.limits_s is not None]
    parts = [error_table("source, figure", groups)]
    if limited:
        parts += ["### Limits", limits_table(limited)]
    others = [one for one in found if one.offered.limits_s is None]
    if others:
        parts += ["### Every other run", runs_table(others)]
    return "\n\n".join(parts)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value * 1e3:,.0f}" if value >= 0.1 else f"{value * 1e3:.1f}"


def limits_table(found: Iterable[Simulated]) -> str:
    """p99 against its limit, measured and simulated."""
    body = []
    for one in found:
        o = one.offered
        assert o.limits_s is not None
        ttft_s, tpot_s, _ = one.run.at(99)
        above = "" if one.above is None else f"{_ms(one.above.at(99)[0])} / {_ms(one.above.at(99)[1])}"
        body.append(
            (
                o.source, o.name, ", ".join(o.where[:2]), f"{_ms(o.limits_s[0])} / {_ms(o.limits_s[1])}",
                f"{_ms(o.measured.get(('ttft', 'p99')))} / {_ms(o.measured.get(('tpot', 'p99')))}",
                f"{_ms(ttft_s)} / {_ms(tpot_s)}", "yes" if one.inside else "no", above, "yes" if one.breaks else "no",
            )
        )  # fmt: skip
    head = (
        "source", "run", "GPU, model", "limits of TTFT / TPOT, ms", "measured p99", "simulated p99", "inside",
        f"at {ABOVE:g} times the rate", "outside there",
    )  # fmt: skip
    return table(head, body)


def runs_table(found: Iterable[Simulated]) -> str:
    """Means, measured and simulated."""
    body = []
    for one in found:
        o = one.offered
        cells = [
            f"{_ms(o.measured.get((figure, 'mean')))} ({_ms(estimated(one.run, figure, 'mean'))})" for figure in FIGURES
        ]
        state = "" if o.overloaded is None else "overloaded" if o.overloaded else "keeps up"
        body.append((o.source, ", ".join(o.where), o.name, *cells, state, one.run.verdict))
    head = (
        "source",
        "GPU, model, engine",
        "run",
        *(f"{f.upper()} in ms, measured (simulated)" for f in FIGURES),
        "measured",
        "verdict",
    )
    return table(head, body)
