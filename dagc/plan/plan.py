"""A compiled plan: the object that `dagc.compile` returns and every report and exporter reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Diagnostic
from ..spec.spec import Phase, Spec
from ..spec.unit import Unit
from .result import PhaseResult, Pool, Sensitivity

if TYPE_CHECKING:
    import networkx as nx

    from ..execute.prove import Proof
    from .require import Verdict


def cached_tokens(phase: Phase) -> int:
    """Tokens of all sequences of a phase when its cache is fullest."""
    return phase.sequences * phase.context


def _short(message: str) -> str:
    return message.replace(" does not fit:", ":").replace(" do not fit together", "")


class Svg(str):
    """An SVG document that a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Plan:
    """`params`: (total, active per token), counted from the blocks."""

    spec: Spec
    phases: Mapping[str, PhaseResult]
    units: Mapping[str, Unit] = field(repr=False)
    requirements: tuple[Verdict, ...]
    params: tuple[float, float]
    pools: tuple[Pool, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def fits(self) -> bool:
        """No GPU needs more memory than it has, whatever phases share it."""
        return all(pool.fits for pool in self.pools)

    @property
    def passed(self) -> bool:
        """It fits and every requirement holds."""
        return self.fits and all(v.passed for v in self.requirements)

    @property
    def verdict(self) -> str:
        """How many requirements fail or hold, in words."""
        total, failed = len(self.requirements), sum(not v.passed for v in self.requirements)
        if failed:
            return f"{failed} of {total} requirement{'s fail' if total > 1 else ' fails'}"
        return (
            "no requirements"
            if not total
            else "the requirement holds"
            if total == 1
            else f"all {total} requirements hold"
        )

    @property
    def overflow(self) -> tuple[str, ...]:
        """What does not fit, by how much, and what would mend it: lines that every output begins with. Empty if it fits."""
        found = [d for d in self.diagnostics if d.code == "E04"]
        return tuple(line for d in found for line in (f"DOES NOT FIT: {_short(d.message)}", *d.because, *d.help))

    @property
    def titles(self) -> tuple[str, ...]:
        """First lines of every picture: what does not fit, where something does not."""
        return tuple(line for line in self.overflow if line.startswith("DOES NOT FIT"))

    def titles_of(self, phase: str) -> tuple[str, ...]:
        """`titles` for a picture of one phase, which what does not fit of that phase leads."""
        return tuple(sorted(self.titles, key=lambda line: f"`{phase}`" not in line))

    @property
    def shared(self) -> tuple[Pool, ...]:
        """Those of the pools whose GPUs several phases use."""
        return tuple(pool for pool in self.pools if pool.shared)

    def kv_tokens(self, phase: str) -> tuple[float, ...]:
        """By stage: tokens of cache that the phase has room for (see `passes.pools.kv_tokens`)."""
        from ..pipeline.pools import kv_tokens

        return kv_tokens(self.phases[phase], self.pools, cached_tokens(self.units[phase].phase))

    def sensitivities(self, phase: str) -> tuple[Sensitivity, ...]:
        """What faster hardware would buy in a phase (costs it again under each change)."""
        from ..pipeline.driver import sensitivities

        return sensitivities(self.units[phase], self.phases[phase])

    def prove(self, phase: str) -> Proof:
        """The numeric proof of a phase, as `dagc verify` gives it; its `verdict` is `equal`, `differs` or `not run`."""
        from ..execute.prove import prove_small

        return prove_small(self, phase)

    def to_json(self) -> dict[str, object]:
        """The object of `dagc compile --json`."""
        from ..export.json import plan_object

        return plan_object(self)

    def report(self, *, color: bool = False) -> str:
        """The terminal report."""
        from ..view.report.terminal import report

        return report(self, color=color)

    def html(self) -> str:
        """The report as one HTML page."""
        from ..view.report.page.page import page

        return page(self)

    def markdown(self) -> str:
        """The report in Markdown."""
        from ..view.report.markdown import markdown

        return markdown(self)

    def svg(
        self,
        phase: str,
        view: str = "overview",
        *,
        select: Sequence[str] = (),
        hops: int = 0,
        unfold: Sequence[str] = (),
    ) -> Svg:
        """A picture: overview, layer, lanes, timeline, memory or path. `lanes` is the placed graph, of which `select`,
        `hops` and `unfold` choose a part as in `dagc show`; SpecError where they select nothing, ValueError for
        another view."""
        from ..view.draw.figures.standalone import svg
        from ..view.facts.lanes.choice import Choice

        several = [(words,) if isinstance(words, str) else tuple(words) for words in (select, unfold)]
        return Svg(svg(self, phase, view, Choice(several[0], hops, several[1])))

    def rows(self, table: str = "ops") -> list[dict[str, Any]]:
        """Plain rows for a DataFrame: of ops, phases, collectives, memory, pools, critical_path or requirements."""
        from ..view.report.rows import rows

        return rows(self, table)

    def placed(self, phase: str) -> dict[str, object]:
        """Placed graph of a phase as plain data: nodes and edges."""
        from ..export.json import graph_object

        return graph_object(self, phase)

    def to_networkx(self, phase: str, *, ranks: str = "folded") -> nx.MultiDiGraph[str]:
        """Placed graph of a phase for networkx; `ranks="all"` has a node for each rank."""
        from ..export.interchange import to_networkx

        return to_networkx(self, phase, ranks=ranks)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        """One line: the model, each phase's time, and how many requirements hold."""
        from ..base.units import TIME, show

        times = ", ".join(f"{name} {show(result.time_s, TIME)}" for name, result in self.phases.items())
        held = sum(v.passed for v in self.requirements)
        return f"<Plan {self.spec.model.name}: {times}; {held} of {len(self.requirements)} requirements hold>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from ..view.report.notebook import fragment

        return fragment(self)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """The same in every form that a notebook may choose from."""
        makers: dict[str, Callable[[], str]] = {
            "text/plain": self.report,
            "text/markdown": self.markdown,
            "text/html": self._repr_html_,
            "image/svg+xml": lambda: self.svg(next(iter(self.phases))),
        }
        wanted = [k for k in makers if (include is None or k in include) and k not in (exclude or ())]
        return {kind: makers[kind]() for kind in wanted}
