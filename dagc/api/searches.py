"""`dagc.search`: the best plan of a spec that leaves choices open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.frozen import record
from .asked_specs import setting_texts, source_of, spec_of

if TYPE_CHECKING:
    from ..lang.open_spec import OpenSpec
    from ..optimize.search.workers import Text
    from ..plan.searched import Findings, PlanFound
    from .asked_specs import Settings
    from .face import Plan


@record
class Search:
    """What was found, with its certificate. True where there is a plan."""

    findings: Findings

    @property
    def best(self) -> PlanFound | None:
        """None where no plan keeps every requirement and fits."""
        return self.findings.best

    @property
    def plans(self) -> tuple[PlanFound, ...]:
        """The best first."""
        return self.findings.plans

    @property
    def complete(self) -> bool:
        """Every plan of the space was costed, or excluded by a rule or a proven bound."""
        return self.findings.complete

    def compiled(self, rank: int = 0) -> Plan:
        """The plan of that rank, 0 the best, compiled. IndexError where there is none."""
        from .face import compile_text

        return compile_text(self.plans[rank].spec, name=self.findings.spec)

    def report(self, *, color: bool = False) -> str:
        """What `dagc search` prints."""
        from ..view.report.search_report import answer, reasons

        return answer(self.findings, color=color) + reasons(self.findings)

    def rows(self) -> list[dict[str, Any]]:
        """A row per plan: its figures in SI units by the names of the measures, then the choices of each phase."""
        names = [f"{m.phase}.{m.name}" for m in self.findings.measures]
        return [
            {
                **dict(zip(names, plan.figures, strict=True)),
                "gpus": plan.gpus,
                **{f"{one.phase}.{path}": value for one in plan.phases for path, value in one.choices.items()},
            }
            for plan in self.plans
        ]

    def recompute(self) -> list[dict[str, Any]]:
        """Of a training step: the best plan by what is done anew, all else as it is, in SI units; those that no other is better than in memory
        and time, the fastest first."""
        return [
            {"phase": one.phase, "recompute": one.recompute, "step_s": one.time_s, "peak_B": one.peak_B, "mfu": one.mfu, "fits": one.fits, "chosen": one.chosen}
            for one in self.findings.anew
        ]  # fmt: skip

    def to_dataframe(self, *, library: str | None = None) -> Any:
        """The rows as a data frame of pandas or polars. ImportError where neither is installed."""
        from .data_frames import data_frame

        return data_frame(self.rows(), library)

    def __bool__(self) -> bool:
        return self.best is not None

    def __repr__(self) -> str:
        from ..base.units import show

        first = self.findings.measures[0] if self.findings.measures else None
        figure = f", {first.name} {show(self.best.figures[0], first.dim)}" if first and self.best else ""
        sure = "complete" if self.complete else "not complete"
        return f"<Search {self.findings.spec}: {len(self.plans)} plans of {self.findings.size:,}{figure}, {sure}>"


def search(
    spec_file: str | Path,
    *,
    objective: str | Sequence[str] = (),
    within: str | Sequence[str] = (),
    phases: Sequence[str] = (),
    top: int = 3,
    budget_s: float | None = None,
    engine: str | None = None,
    against: str | Path | None = None,
    settings: Settings | None = None,
    workers: int | None = None,
    on: str = "",
    allow_import: Sequence[str | Path] = (),
) -> Search:
    """The best plan of a spec that leaves choices open (`tp = any`), as `dagc search` finds it: by `objective` (two: a Pareto front), among
    plans that keep the tests of `within` ("gpus <= 32") and that `engine` runs, beside the plan that `against` names. `budget_s`: seconds
    after which the best so far will do. Raises SpecError."""
    from ..base.diagnostics import Diagnostic, SpecError
    from ..export.engines import ENGINES
    from ..export.engines.runnable import Runs
    from ..optimize.asked_cluster import check_cluster
    from ..optimize.clusters import ClusterError
    from ..optimize.search.optimum import Asked
    from ..optimize.search.optimum import search as found_by
    from ..optimize.search.plain_answer import findings
    from ..optimize.search.refusals import REFUSALS, refusal
    from ..optimize.search.why import Explainer
    from ..optimize.search.workers import usual_workers

    if engine is not None and engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}: {', '.join(ENGINES)}")
    if top < 1 or (workers is not None and workers < 1):
        raise ValueError("top and workers are at least 1")
    tests = (within,) if isinstance(within, str) else tuple(within)
    objectives = words((objective,) if isinstance(objective, str) else objective)
    asked = Asked(
        objectives,
        tuple(phases),
        tests,
        top,
        budget_s,
        workers or usual_workers(),
        on,
        Runs(engine) if engine else None,
    )
    spec, text = opened(spec_file, phases, settings, allow_import)
    today = None if against is None else (str(against), spec_of(against, None, allow_import))
    check_cluster(on)
    try:
        answer = found_by(spec, asked, None, text)
        return Search(Explainer(spec, asked, answer).explained(findings(answer, text.name), today))
    except ClusterError as error:
        raise SpecError([Diagnostic("E16", str(error))]) from None
    except REFUSALS as error:
        raise SpecError([refusal(error)]) from None


def words(objectives: Sequence[str]) -> tuple[str, ...]:
    """Each by itself, of those that are put together by commas."""
    return tuple(word.strip() for one in objectives for word in one.split(",") if word.strip())


def opened(
    spec_file: str | Path, phases: Sequence[str], settings: Settings | None, allow_import: Sequence[str | Path]
) -> tuple[OpenSpec, Text]:
    """A spec to search in, and its text as other processes read it. Raises SpecError."""
    from ..base.diagnostics import Collector, Diagnostic, SpecError
    from ..lang.open_spec import load_open
    from ..optimize.own_gpus import refuse
    from ..optimize.search.workers import Text

    source, base = source_of(spec_file, allow_import)
    texts = setting_texts(settings)
    spec = load_open(source, Collector(), texts, base, allow_import)
    known = [phase.name for phase in (*spec.spec.phases, *spec.spec.trainings)]
    for name in phases:
        if name not in known:
            raise SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])
    open_phases = {one.phase for one in spec.choices}
    advice = "compare such plans with `dagc sweep`, by a param in `experts`"
    refuse((phase for phase in spec.spec.phases if phase.name in open_phases), "dagc search", advice)
    folders = tuple(os.path.realpath(folder) for folder in allow_import)
    return spec, Text(source.text, source.name, None if base is None else str(base), tuple(texts.items()), folders)
