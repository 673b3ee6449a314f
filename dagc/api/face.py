"""The public face: compile a spec, and ask its plan for reports, pictures and data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.frozen import fields_of, replace
from ..plan.plan import CompiledPlan
from .asked_specs import setting_texts

if TYPE_CHECKING:
    import networkx as nx

    from ..base.picture_words import Theme
    from ..execute.prove import Proof
    from ..execute.prove_training import TrainingProof
    from ..pipeline.serve import Servings
    from ..plan.result import Sensitivities, Sensitivity
    from ..serving.knee import Knee
    from ..serving.result import ServeResult
    from ..spec.serve import Serve
    from .asked_specs import Settings


def compile(
    spec_file: str | Path,
    *,
    settings: Settings | None = None,
    phases: Sequence[str] | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Plan:
    """Compile a `.moe` file (`-`: standard input). It may name files of its project, of the library, and of the folders
    in `allow_import`. `settings`: values of params, numbers or texts as a spec writes them. Raises SpecError when the spec is wrong."""
    from ..base.syntax.input import folder_of, read_source
    from ..pipeline.compile import compile_source

    source = read_source(str(spec_file), allow_import)
    base = folder_of(str(spec_file))
    return Plan.of(
        compile_source(
            source, settings=setting_texts(settings), phases=phases, base_dir=base, allow_import=allow_import
        )
    )


def compile_text(
    text: str,
    *,
    name: str = "<text>",
    settings: Settings | None = None,
    phases: Sequence[str] | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Plan:
    """Compile spec text, as if it were in the current folder."""
    from ..base.source import Source
    from ..pipeline.compile import compile_source

    return Plan.of(
        compile_source(Source(name, text), settings=setting_texts(settings), phases=phases, allow_import=allow_import)
    )


def read_plan(path: Path, allow_import: Sequence[str | Path] = ()) -> Plan:
    """The plan of a placed graph (`--emit json`), costed again. Raises SpecError."""
    from ..importers.placed import read_plan

    return Plan.of(read_plan(path, allow_import))


class Svg(str):
    """An SVG document that a notebook shows as a picture."""

    __slots__ = ()

    def png(self) -> bytes:
        """The same as PNG. RuntimeError without rsvg-convert and CairoSVG."""
        from ..view.draw.renderers import printed

        return printed(self, "png")

    def pdf(self) -> bytes:
        """The same as PDF. RuntimeError without rsvg-convert and CairoSVG."""
        from ..view.draw.renderers import printed

        return printed(self, "pdf")

    def _repr_svg_(self) -> str:
        return str(self)


class Plan(CompiledPlan):
    """A compiled plan that can show itself: its data are the record's, every method here calls a package below."""

    @classmethod
    def of(cls, record: CompiledPlan) -> Plan:
        """The face of a record."""
        return cls(**{name: getattr(record, name) for name in fields_of(type(record))})

    def sensitivities(self, phase: str) -> tuple[Sensitivity, ...]:
        """What faster hardware would buy in a phase (costs it again under each change, once)."""
        from ..pipeline.sensitivities import sensitivities

        found = self._bought.get(phase)
        if found is None:
            self._inferred(phase, "what faster hardware buys is")
            found = self._bought[phase] = sensitivities(self.units[phase], self.phases[phase])
        return found

    @cached_property
    def _bought(self) -> dict[str, tuple[Sensitivity, ...]]:
        """Of the phases that were asked about: outputs of one plan share them."""
        return {}

    def _inferred(self, phase: str, what: str) -> None:
        """Raises SpecError for a phase that trains, or that the plan has not. `what`: what it has not, with its verb."""
        self._of_the_plan(phase)
        if phase in self.trainings:
            from ..spec.inference_alone import inference_phases

            inference_phases(self.spec, (phase,), what)

    def _of_the_plan(self, phase: str) -> None:
        """Raises SpecError for a phase that it has not."""
        if phase not in self.phases and phase not in self.trainings:
            from .asked_specs import unknown_phase

            raise unknown_phase(phase, (*self.phases, *self.trainings))

    def _sensitivities(self) -> Sensitivities:
        return {phase: self.sensitivities(phase) for phase in self.phases}

    def prove(self, phase: str) -> Proof | TrainingProof:
        """The numeric proof of a phase, as `dagc verify` gives it; its `verdict` is `equal`, `differs` or `not run`."""
        from ..execute.prove import prove_small

        if phase in self.trainings:
            from ..execute.prove_spec import prove_phase

            return prove_phase(replace(self.spec, requirements=()), self.spec.phase(phase), None, None)
        return prove_small(self, phase)

    @cached_property
    def _simulations(self) -> Servings:
        from ..pipeline.serve import Servings

        return self.simulations or Servings(self)

    def serve(self, serving: str | Serve, progress: Callable[[float], None] | None = None) -> ServeResult:
        """A serving of the spec, or a changed one, simulated; step prices are kept from one call to the next. `progress` hears
        which share of the requests has come. Raises SpecError where it cannot run."""
        from ..base.diagnostics import Collector
        from ..plan.goodput import limits

        serve = self._serving(serving) if isinstance(serving, str) else serving
        if serve.name in self.servings and serve == self.spec.serve(serve.name):
            return self.servings[serve.name]
        out = Collector()
        result = self._simulations.told(serve, limits(self.spec, serve.name), out, progress)
        out.check()
        assert result is not None, "nothing was reported"
        return result

    def metrics_of(self, result: ServeResult) -> dict[str, float]:
        """Metrics of a result of a serving by their names in `dagc list metrics`, SI units."""
        from ..plan.subject import result_metrics

        return result_metrics(self.subject(), result)

    def broken(self, result: ServeResult) -> tuple[str, ...]:
        """What a result of a serving breaks, in words: requirements that name it, and that it keeps up at all."""
        from ..plan.require import judged, owners

        own = [r for r in self.spec.requirements if result.name in owners(r)]
        found = judged(replace(self.subject(), servings={**self.servings, result.name: result}), own)
        failed = [
            f"{v.requirement.label}: {v.shown(v.value)}, not {v.requirement.test.op} {v.shown(v.bound)}"
            for v in found
            if not v.passed
        ]
        return tuple([*failed, *(["it is overloaded"] if result.verdict == "overloaded" else [])])

    def _serving(self, name: str) -> Serve:
        """Of the spec. Raises SpecError."""
        from ..base.diagnostics import Diagnostic, SpecError

        known = {one.name: one for one in self.spec.serves}
        if name not in known:
            help_ = (f"it has {', '.join(known)}" if known else "write one: serve NAME { ... }",)
            raise SpecError([Diagnostic("E14", f"the spec has no serving `{name}`", help=help_)])
        return known[name]

    def knee(self, serving: str | Serve, progress: Callable[[str], None] | None = None) -> Knee:
        """The highest load at which a serving keeps every requirement that names it. Raises SpecError."""
        from ..optimize.serving_loads import find_knee

        serve = self._serving(serving) if isinstance(serving, str) else serving
        return find_knee(self.serve, self.broken, serve, progress)

    def serving_svg(self, name: str, view: str = "latencies", *, theme: Theme = "auto") -> Svg:
        """A picture of a serving: latencies, series, steps, or load, which looks for the knee. SpecError where it cannot run,
        ValueError for another view."""
        from ..view.draw.figures.served.sheets import LOAD, load_svg, svg

        if view == LOAD:
            return Svg(load_svg(self, self.knee(name), theme))
        return Svg(svg(self, self.serve(name), view, theme))

    def to_json(self) -> dict[str, object]:
        """The object of `dagc compile --json`."""
        from ..export.json import plan_object

        return plan_object(self)

    def report(self, *, color: bool = False, width: int = 80, also: Sequence[str] = ()) -> str:
        """The terminal report, in so many columns. `also`: lines before its last one, which is the verdict as the first is."""
        from ..view.report.terminal import report

        return report(self, self._sensitivities(), color=color, width=width, also=also)

    def html(self, *, theme: Theme = "auto") -> str:
        """The report as one HTML page; `theme`: auto, light or dark."""
        from ..view.report.page.page import page

        return page(self, self._sensitivities(), theme)

    def markdown(self) -> str:
        """The report in Markdown."""
        from ..view.report.markdown import markdown

        return markdown(self, self._sensitivities())

    def svg(
        self,
        phase: str,
        view: str = "",
        *,
        select: Sequence[str] = (),
        hops: int = 0,
        unfold: Sequence[str] = (),
        color_by: str = "",
        theme: Theme = "auto",
    ) -> Svg:
        """A picture: overview (the default), map, layer, lanes, timeline, memory or path; of a phase that trains pipeline (the default),
        memory, map, layer or overview. `lanes` is the placed graph, of which `select`, `hops` and `unfold` choose a part as in `dagc show`; `color_by` is of the
        map. SpecError where they select nothing, ValueError for another view."""
        from ..base.picture_words import TRAINING_VIEWS, USUAL_VIEWS
        from ..view.draw.figures.standalone import svg
        from ..view.facts.lanes.shown_part import Choice

        self._of_the_plan(phase)
        several = [(words,) if isinstance(words, str) else tuple(words) for words in (select, unfold)]
        choice = Choice(several[0], hops, several[1], color_by)
        usual = TRAINING_VIEWS if phase in self.trainings else USUAL_VIEWS
        return Svg(svg(self, phase, view or usual[0], choice, theme))

    def rows(self, table: str = "ops") -> list[dict[str, Any]]:
        """Plain rows for a DataFrame: of ops, phases, collectives, memory, pools, critical_path, requirements or servings (those that were
        simulated); of phases that train trainings, training_stages, training_cells, training_collectives or training_ops."""
        from ..view.report.plan_rows import rows

        return rows(self, table)

    def to_dataframe(self, table: str = "ops", *, library: str | None = None) -> Any:
        """The rows of a table as a data frame of pandas, or of polars where pandas is not installed or `library` is "polars". ImportError
        where neither is."""
        from .data_frames import data_frame

        return data_frame(self.rows(table), library)

    def placed(self, phase: str) -> dict[str, object]:
        """Placed graph of a phase as plain data: nodes and edges."""
        from ..export.json import graph_object

        self._inferred(phase, "the placed graph is")
        return graph_object(self, phase)

    def to_networkx(self, phase: str, *, ranks: str = "folded") -> nx.MultiDiGraph[str]:
        """Placed graph of a phase for networkx, or the cells of a training step; `ranks="all"` has a node for each rank."""
        from ..export.interchange import to_networkx

        self._of_the_plan(phase)
        return to_networkx(self, phase, ranks=ranks)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        """One line: the model, each phase's time, and how many requirements hold."""
        from ..base.units import TIME, show

        every = [(name, result.time_s) for name, result in self.phases.items()]
        every += [(name, result.time_s) for name, result in self.trainings.items()]
        times = ", ".join(f"{name} {show(time_s, TIME)}" for name, time_s in every)
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
            "image/svg+xml": lambda: self.svg(next(iter((*self.phases, *self.trainings)))),
        }
        wanted = [k for k in makers if (include is None or k in include) and k not in (exclude or ())]
        return {kind: makers[kind]() for kind in wanted}
