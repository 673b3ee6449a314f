"""A spec that leaves choices to a search: what is free in it, its phases for given choices, and its text with them made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.frozen import field, mutable, record, replace
from ..base.source import Source
from ..base.syntax import ast
from ..spec.choice import Choice, Chosen
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.workload import Workload
from .alternatives import picks
from .body import Body
from .choices import PHASES, SERVINGS, ChoiceReader, OpenKind, body_with, defaults
from .elaborate import Elaborator
from .params import Constants
from .pools import Pools
from .rewrite import Rewrite
from .sections.phase import read_phase
from .statements import Statements

if TYPE_CHECKING:
    from ..spec.serve import Serve

Values = Mapping[str, Chosen | None]
"""Path of a choice -> its value; None: the attribute is not given."""


OF_PHASES = ("E03", "E12")
"""Codes of what a serving says that does not fit its phases."""


@record
class OpenSection:
    """A phase or serving as written: its statements, those of its chosen `alternative` included, and what they
    leave open. Files of it are looked up in `base`."""

    kind: OpenKind
    section: ast.Section
    body: Body
    choices: tuple[Choice, ...]
    pools: Pools
    base: Path | None = None
    alternative: str = ""

    def values(self, given: Values) -> dict[str, Chosen | None]:
        """A value for each choice: as given, else the first of those listed, or that of an attribute which is not written.
        Raises KeyError where `given` names something else."""
        free = defaults(self.choices, self.kind, self.pools.meant_by(self.body))
        for path in given:
            if path not in free:
                raise KeyError(f"{self.section.kind} {self.section.name} leaves no `{path}` open")
        return {**free, **given}

    def closed(self, given: Values) -> Body:
        """The statements with values in place of the choices."""
        return body_with(self.body, self.choices, self.values(given), self.kind)


@mutable
class _Opener(Elaborator):
    """Reads phases with their choices at a default, and keeps what is needed to read them with others."""

    phases_read: dict[str, OpenSection] = field(default_factory=dict)
    serves_read: dict[str, OpenSection] = field(default_factory=dict)

    def phase(
        self,
        section: ast.Section,
        body: Body,
        pools: Pools,
        model: Model | None,
        workload: Workload | None,
        alternative: str,
    ) -> Phase | None:
        names, name = self.names(), str(section.name)
        choices = ChoiceReader(PHASES, name, body, names, pools).read()
        opened = OpenSection(PHASES, section, body, choices, pools, alternative=alternative)
        self.phases_read[name] = opened
        phase = read_phase(
            section, opened.closed({}), names, pools, model, workload, self.model_named, judged=not choices
        )
        return phase

    def serve(
        self,
        section: ast.Section,
        body: Body,
        base: Path | None,
        pools: Pools,
        workload: Workload | None,
        phases: Sequence[Phase],
        whole: bool,
    ) -> Serve | None:
        """What is wrong with it for phases at their defaults need not be."""
        from .sections.serve import read_serve

        names, name = self.names(), str(section.name)
        choices = ChoiceReader(SERVINGS, name, body, names, pools).read()
        self.serves_read[name] = opened = OpenSection(SERVINGS, section, body, choices, pools, base)
        is_open = bool(choices) or any(p.choices or p.alternative for p in self.phases_read.values())
        names.out = Collector() if is_open else self.out
        joinings = self.statements.joinings
        serve = read_serve(section, opened.closed({}), names, base, pools, workload, phases, joinings, whole=whole)
        for diagnostic in names.out.items if is_open else ():
            if diagnostic.code not in OF_PHASES:
                self.out.take(diagnostic)
        return serve

    def for_(self, out: Collector) -> Elaborator:
        """One that reports elsewhere."""
        return Elaborator(
            replace(self.statements, out=out, failed=set(self.statements.failed)), self.values, self.domains,
            other_models=self.other_models,
        )  # fmt: skip


@record(slots=False)
class OpenSpec:
    """A spec some of whose phases and servings leave choices open. `spec` has each at a default, which need not be legal: its hardware, model,
    workload, requirements and servings are those of all candidates. A spec without choices has none."""

    spec: Spec
    choices: tuple[Choice, ...]
    source: Source
    phases: Mapping[str, OpenSection]
    serves: Mapping[str, OpenSection]
    settings: Mapping[str, str]
    reader: _Opener
    again: Callable[[Mapping[str, str]], OpenSpec]

    @property
    def alternatives(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the layouts of each phase that has some and of which none was asked for."""
        return {name: a.names for name, a in self.spec.alternatives.items() if name not in self.reader.picked}

    def under(self, picked: Mapping[str, str]) -> OpenSpec:
        """The same spec with these alternatives, by phase: what is open in them is open then. Raises SpecError where a phase has no such."""
        return self.again(picked)

    def of(self, name: str) -> tuple[Choice, ...]:
        """The choices of one phase or serving."""
        return (self.phases.get(name) or self.serves[name]).choices

    def phase(self, name: str, values: Values, out: Collector) -> Phase | None:
        """The phase with these values in place of its choices, as `compile` reads it; None, with diagnostics in `out`, where it
        cannot be. Choices without a value have their default. Raises KeyError where nothing is left open by that path."""
        errors = out.errors
        phase = self._read(name, values, out)
        return phase if out.errors == errors else None

    def _read(self, name: str, values: Values, out: Collector) -> Phase | None:
        """The phase, also where its strategy does not fit."""
        opened, spec = self.phases[name], self.spec
        reader = self.reader.for_(out)
        closed, names = opened.closed(values), reader.names()
        return read_phase(opened.section, closed, names, opened.pools, spec.model, spec.workload, reader.model_named)

    def closed(self, values: Mapping[str, Values], out: Collector) -> Spec | None:
        """The whole spec with these values, by phase and serving: servings too, whose defaults follow from their phases. None, with
        diagnostics in `out`, where it cannot be."""
        errors = out.errors
        phases = [self._read(name, values.get(name, {}), out) for name in self.phases]
        read = tuple(p for p in phases if p is not None)
        whole, own = len(read) == len(phases), tuple(p for p in read if p.training is None)
        serves = [self._serve(name, values.get(name, {}), own, whole, out) for name in self.serves]
        done = tuple(s for s in serves if s is not None)
        trainings = tuple(p for p in read if p.training is not None)
        whole_spec = replace(self.spec, phases=own, serves=done, trainings=trainings)
        return self.reader.for_(out).cut(whole_spec) if out.errors == errors else None

    def _serve(self, name: str, values: Values, phases: Sequence[Phase], whole: bool, out: Collector) -> Serve | None:
        from .sections.serve import read_serve

        opened, spec = self.serves[name], self.spec
        names = self.reader.for_(out).names()
        return read_serve(
            opened.section, opened.closed(values), names, opened.base, opened.pools, spec.workload, phases,
            self.reader.statements.joinings, whole=whole,
        )  # fmt: skip

    def text(self, values: Mapping[str, Values]) -> str:
        """The spec as a formatted file, with these values, by phase and serving, in place of its choices, and params as they were set;
        comments are kept. Of alternatives there is the chosen one. It reads as `closed` says."""
        rewrite = self.rewrite(self.spec.alternatives)
        for name, opened in {**self.phases, **self.serves}.items():
            rewrite.section(opened.body, opened.kind, opened.choices, opened.values(values.get(name, {})))
        return rewrite.text()

    def picked(self) -> str:
        """The spec as a formatted file with the alternatives that were asked for, and no others of these phases; what is left open stays so."""
        return self.rewrite(self.reader.picked).text()

    def rewrite(self, phases: Collection[str]) -> Rewrite:
        """An edit of the file in which params are as they were set, and these phases have the alternative that was chosen."""
        rewrite = Rewrite(self.source, self.spec.constants)
        for name in phases:
            rewrite.chosen.append((self.phases[name].section, self.phases[name].alternative))
        for name, text in self.settings.items():
            rewrite.param(self.reader.statements.lets[name], text)
        return rewrite


def load_open(
    source: Source,
    out: Collector,
    settings: Mapping[str, str] | None = None,
    base_dir: Path | None = None,
    allow_import: Sequence[str | Path] = (),
) -> OpenSpec:
    """Like `load`, of a spec whose phases may leave choices open. Raises SpecError with every diagnostic found."""
    import os

    from ..base.files import Reach
    from ..base.syntax.parse import parse

    reach = Reach.of(None if base_dir is None else base_dir / "-.moe", allow_import)
    file = parse(source, out)
    source = file.span.source  # a text that was read before has the spans of then
    statements = Statements(out, reach)
    base = reach.base
    statements.gather(file, base, (Path(os.path.realpath(base / Path(source.name).name)),))
    given = dict(settings or {})
    picked, settings = picks([s for s, _ in statements.sections], given, statements.lets, out)
    constants = Constants(statements.lets, out, statements.failed)
    constants.read(settings)
    reader = _Opener(statements, constants.values, constants.domains, picked)
    spec = reader.spec(file)
    choices = tuple(
        choice for opened in (*reader.phases_read.values(), *reader.serves_read.values()) for choice in opened.choices
    )
    for choice in choices:
        if choice.span.source != source:
            help_ = (f"move the phase into {source.name}, which the plan that is found is written from",)
            out.add("E12", f"`{choice.path}` is left open in an imported file", choice.span, help=help_)
    for name, read in reader.phases_read.items():
        section = read.section
        if read.alternative and section.span.source != source:
            help_ = (f"move the phase into {source.name}, which the plan that is chosen is written from",)
            out.add("E12", f"`{name}` has alternatives in an imported file", section.kind_span, help=help_)
    out.check()
    assert spec is not None

    def again(more: Mapping[str, str]) -> OpenSpec:
        return load_open(source, Collector(), {**given, **more}, base_dir, allow_import)

    return OpenSpec(spec, choices, source, reader.phases_read, reader.serves_read, settings, reader, again)
