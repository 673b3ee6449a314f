"""A spec that leaves choices to a search: what is free in it, its phases for given choices, and its text with them made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.frozen import record
from ..base.source import Source
from ..base.syntax import ast
from ..spec.choice import Choice, Chosen
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.workload import Workload
from .body import Body
from .choices import PHASES, SERVINGS, ChoiceReader, OpenKind, body_with, default
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
    """A phase or serving as written: its statements, and what they leave open. Files of it are looked up in `base`."""

    kind: OpenKind
    section: ast.Section
    body: Body
    choices: tuple[Choice, ...]
    pools: Pools
    base: Path | None = None

    def values(self, given: Values) -> dict[str, Chosen | None]:
        """A value for each choice: as given, else the first of those listed, or that of an attribute which is not written.
        Raises KeyError where `given` names something else."""
        free = {choice.path: default(choice, self.kind, self.pools.meant_by(self.body)) for choice in self.choices}
        for path in given:
            if path not in free:
                raise KeyError(f"{self.section.kind} {self.section.name} leaves no `{path}` open")
        return {**free, **given}

    def closed(self, given: Values) -> Body:
        """The statements with values in place of the choices."""
        return body_with(self.body, self.choices, self.values(given), self.kind)


@dataclass(slots=True)
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
    ) -> Phase | None:
        names, name = self.names(), str(section.name)
        choices = ChoiceReader(PHASES, name, body, names, pools.meant_by(body)).read()
        self.phases_read[name] = opened = OpenSection(PHASES, section, body, choices, pools)
        return read_phase(section, opened.closed({}), names, pools, model, workload, judged=not choices)

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
        choices = ChoiceReader(SERVINGS, name, body, names, None).read()
        self.serves_read[name] = opened = OpenSection(SERVINGS, section, body, choices, pools, base)
        is_open = bool(choices) or any(p.choices for p in self.phases_read.values())
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
            replace(self.statements, out=out, failed=set(self.statements.failed)), self.values, self.domains
        )


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
        names = self.reader.for_(out).names()
        return read_phase(opened.section, opened.closed(values), names, opened.pools, spec.model, spec.workload)

    def closed(self, values: Mapping[str, Values], out: Collector) -> Spec | None:
        """The whole spec with these values, by phase and serving: servings too, whose defaults follow from their phases. None, with
        diagnostics in `out`, where it cannot be."""
        errors = out.errors
        phases = [self._read(name, values.get(name, {}), out) for name in self.phases]
        read = tuple(p for p in phases if p is not None)
        serves = [self._serve(name, values.get(name, {}), read, len(read) == len(phases), out) for name in self.serves]
        done = tuple(s for s in serves if s is not None)
        return replace(self.spec, phases=read, serves=done) if out.errors == errors else None

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
        comments are kept. It reads as `closed` says."""
        rewrite = Rewrite(self.source, self.spec.constants)
        for name, opened in {**self.phases, **self.serves}.items():
            rewrite.section(opened.body, opened.kind, opened.choices, opened.values(values.get(name, {})))
        for name, text in self.settings.items():
            rewrite.param(self.reader.statements.lets[name], text)
        return rewrite.text()


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

    settings = settings or {}
    reach = Reach.of(None if base_dir is None else base_dir / "-.moe", allow_import)
    file = parse(source, out)
    source = file.span.source  # a text that was read before has the spans of then
    statements = Statements(out, reach)
    base = reach.base
    statements.gather(file, base, (Path(os.path.realpath(base / Path(source.name).name)),))
    constants = Constants(statements.lets, out, statements.failed)
    constants.read(settings)
    reader = _Opener(statements, constants.values, constants.domains)
    spec = reader.spec(file)
    choices = tuple(
        choice for opened in (*reader.phases_read.values(), *reader.serves_read.values()) for choice in opened.choices
    )
    for choice in choices:
        if choice.span.source != source:
            help_ = (f"move the phase into {source.name}, which the plan that is found is written from",)
            out.add("E12", f"`{choice.path}` is left open in an imported file", choice.span, help=help_)
    out.check()
    assert spec is not None
    return OpenSpec(spec, choices, source, reader.phases_read, reader.serves_read, dict(settings), reader)
