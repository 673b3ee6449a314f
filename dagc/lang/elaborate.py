"""Elaboration: a syntax tree becomes a typed spec. Params, lets, imports and presets are resolved, units checked.

Every error of the spec is reported in one run; SpecError is raised at the end if there was any.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, Label
from ..base.files import Reach
from ..base.frozen import field, mutable, replace
from ..base.phase_kinds import PHASE_KINDS
from ..base.source import Span
from ..base.syntax import ast
from ..spec.choice import Alternatives
from ..spec.hardware import Hardware
from ..spec.model import AttrValue, Model
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.workload import Workload
from . import library
from .alternatives import picks, read_variants
from .body import Body
from .math_units import check_units
from .open_words import leaves_open
from .params import Constants
from .pools import Pools, check_expert_link, read_pool_links, read_pools, several
from .presets import Presets
from .requirements import read_requirements
from .sections.checkpoint import read_checkpoint
from .sections.hardware import read_hardware
from .sections.model import read_model
from .sections.phase import read_phase
from .sections.workload import read_workload
from .statements import TOP, Statements, asks
from .values.evaluate import MAX_ITEMS
from .values.names import Names

if TYPE_CHECKING:
    from ..spec.serve import Serve
    from .huggingface.config import Config

TWO_LAYOUTS = "two layouts of one phase are alternatives inside it: `phase decode { alternative small { ... } alternative wide { ... } }`"
PHASE_NAME = re.compile(r"(?!\d)\w[\w.-]{0,63}")
"""It becomes part of file names and of requirements."""
MAX_PHASES = 256
MAX_SERVES = 64
KINDS = tuple(PHASE_KINDS)

Sections = Sequence[tuple[ast.Section, Path | None]]
"""Sections of one kind, each with the folder that its files are looked up in."""


def elaborate(
    file: ast.File, out: Collector, *, settings: Mapping[str, str] | None = None, reach: Reach | None = None
) -> Spec:
    """The typed spec of a file. `settings`: texts of `--set`; `reach`: the files that it may name, and from where."""
    statements = Statements(out, reach or Reach.of(None))
    base = statements.reach.base
    statements.gather(file, base, (Path(os.path.realpath(base / Path(file.span.source.name).name)),))
    picked, settings = picks([s for s, _ in statements.sections], settings or {}, statements.lets, out)
    constants = Constants(statements.lets, out, statements.failed)
    constants.read(settings)
    spec = Elaborator(statements, constants.values, constants.domains, picked).spec(file)
    out.check()
    assert spec is not None
    return spec


@mutable
class Elaborator:
    """Sections to records. `values`: of params and lets; `domains`: of params; `picked`: alternatives by phase."""

    statements: Statements
    values: Mapping[str, AttrValue] = field(default_factory=dict)
    domains: Mapping[str, tuple[AttrValue, ...]] = field(default_factory=dict)
    picked: Mapping[str, str] = field(default_factory=dict)
    alternatives: dict[str, Alternatives] = field(default_factory=dict)
    presets: Presets = field(init=False)
    other_models: dict[str, Model] = field(default_factory=dict)  # by preset or file
    unnamed: bool = False  # what some phase is called is not known: requirements may mean it

    def __post_init__(self) -> None:
        self.presets = Presets(self.statements, self.values)

    @property
    def out(self) -> Collector:
        return self.statements.out

    @property
    def config(self) -> Config | None:
        """The config.json that the model comes from."""
        return self.presets.config

    def names(self) -> Names:
        """What expressions outside the model may name."""
        return Names(self.values, self.out, unknown=self.statements.failed, reach=self.statements.reach)

    def spec(self, file: ast.File) -> Spec | None:
        found = {kind: [(s, b) for s, b in self.statements.sections if s.kind == kind] for kind in TOP}
        self.amount(found, file)
        pools = self.pools(found)
        if pools is None:
            return None
        model = self.model(*found["model"][0]) if found["model"] else None
        workload = self.workload(*found["workload"][0]) if found["workload"] else None
        phases = self.phases(found["phase"], pools, model, workload)
        if phases is None:
            return None
        names = {s.name for s, _ in found["phase"] if s.name}
        trainings = tuple(phase for phase in phases if phase.training is not None)
        whole = len(phases) == len(found["phase"])
        served_by = tuple(phase for phase in phases if phase.training is None)
        serves = self.serves(found["serve"], pools, workload, served_by, whole)
        served = {s.name for s, _ in found["serve"] if s.name}
        unnamed = self.unnamed or not pools.sure
        requirements = read_requirements(self.statements, self.values, names, served, pools.names, unnamed=unnamed)
        joined = read_pool_links(self.statements.joinings, pools, self.names())
        known = tuple(own for own in pools.known.values() if own is not None)
        for phase in phases:
            check_expert_link(phase, joined, self.out)
        if not pools.whole or model is None or workload is None:
            return None
        plain = {
            phase.hardware for phase in phases if phase.precision is None
        }  # others were checked with their own dtypes
        for own in known:
            if (own.name if pools.several else "") in plain or not phases:
                check_units(own, model, model.spans, self.out)
        spec = Spec(
            known[0], model, workload, served_by, requirements, dict(self.values), dict(self.domains), serves, known[1:], joined,
            self.alternatives, trainings,
        )  # fmt: skip
        return self.cut(spec)

    def cut(self, spec: Spec) -> Spec:
        """With the chunks of prompts that are cut by work, if there is no error: they follow from the model's graph."""
        if self.out.errors or not any(phase.by_work for phase in spec.phases):
            return spec
        from .expand.work_cuts import with_cuts  # a spec without such chunks does not pay for it

        return with_cuts(spec)

    def pools(self, found: Mapping[str, Sections]) -> Pools | None:
        """The pools of GPUs; None where there are more than can be."""
        sections = found["hardware"]
        if several([s for s, _ in sections]):
            owners: dict[str, tuple[str, Span | None]] = dict.fromkeys(
                ("hardware", "model", "workload"), ("section", None)
            )
            owners |= {s.name: (kind, s.kind_span) for kind in ("phase", "serve") for s, _ in found[kind] if s.name}
            pools = read_pools([s for s, _ in sections], lambda i: self.hardware(*sections[i]), owners, self.out)
            return pools
        own = (
            self.hardware(*sections[0]) if len(sections) == 1 else None
        )  # else it is not known whose GPUs a phase means
        names = [s.name or "" for s, _ in sections[:1]]
        return Pools({own.name if own is not None else name: own for name in names}, sure=own is not None)

    def amount(self, found: Mapping[str, Sections], file: ast.File) -> None:
        """One section of a kind, and at least one phase."""
        text = file.span.source.text
        end = Span(file.span.source, len(text.rstrip()), len(text.rstrip()))
        for kind in ("hardware", "model", "workload", "phase"):
            if not found[kind] and not self.out.incomplete and kind not in self.statements.taken:
                example = {
                    "hardware": 'hardware from "h200-sxm" { gpus = 8 }',
                    "model": 'model from "mixtral-8x7b" { }',
                    "workload": "workload { sequences = 64, prompt = 2048 tok, output = 256 tok }",
                    "phase": "phase decode { gpus = 0..7, tp = 8 }",
                }
                self.out.add("E10", f"the spec has no `{kind}` section", end, help=[example[kind]])
            if kind != "phase" and not (kind == "hardware" and several([s for s, _ in found[kind]])):
                for s, _ in found[kind][1:]:
                    first = Label(found[kind][0][0].kind_span, "first here")
                    self.out.add("E11", f"a spec has one `{kind}` section", s.kind_span, "again here", also=(first,))

    def phases(
        self, sections: Sections, pools: Pools, model: Model | None, workload: Workload | None
    ) -> tuple[Phase, ...] | None:
        """Those that can be read; None where there are more than can be."""
        if len(sections) > MAX_PHASES:
            beyond = sections[MAX_PHASES][0].kind_span
            self.out.add("E03", f"a spec has at most {MAX_PHASES} phases, this one {len(sections)}", beyond)
            return None
        phases: list[Phase] = []
        seen: dict[str, Span] = {}
        ids = 0
        for section, _ in sections:
            if section.name is None or not self._well_named(section, section.name, "phase", seen):
                if section.name is None:
                    self.out.add("E10", "a phase needs a name", section.kind_span, help=("phase prefill { ... }",))
                self.unnamed = True
                continue
            seen[section.name] = section.kind_span
            body = Body(section.kind_span)
            body.add(section.body, self.out)
            variants = read_variants(section, body, self.picked.get(section.name), self.out)
            if variants.known is not None:
                self.alternatives[section.name] = variants.known
            for other in variants.others:
                self.other(section, other, pools, model, workload)
            own = variants.body
            phase = None if own is None else self.phase(section, own, pools, model, workload, variants.chosen)
            self.unnamed |= phase is None and section.name not in KINDS and not asks(section, "kind")
            if phase is not None:
                phases.append(phase)
                ids += len(phase.gpus)
            if ids > MAX_ITEMS:
                self.out.add("E09", f"together, the phases name more than {MAX_ITEMS:,} GPUs", section.kind_span)
                return None
        return tuple(phases)

    def phase(
        self,
        section: ast.Section,
        body: Body,
        pools: Pools,
        model: Model | None,
        workload: Workload | None,
        alternative: str,
    ) -> Phase | None:
        """One phase, of whose alternatives the body has one; None where it cannot be read, or leaves a choice open."""
        names = self.names()
        if leaves_open(body, self.values):
            from .choices import PHASES, closed  # a spec that leaves nothing open does not pay for it

            body, is_open = closed(str(section.name), body, PHASES, names, pools)
            phase = read_phase(section, body, names, pools, model, workload, self.model_named, judged=not is_open)
            return None if is_open else phase
        return read_phase(section, body, names, pools, model, workload, self.model_named)

    def other(
        self, section: ast.Section, body: Body, pools: Pools, model: Model | None, workload: Workload | None
    ) -> None:
        """Tells what is wrong with a layout that is not chosen."""
        from .choices import PHASES, ChoiceReader, body_with, defaults

        names = self.names()
        names.out = found = Collector(steps=self.out.steps)
        choices = ChoiceReader(PHASES, str(section.name), body, names, pools).read()
        without = body_with(body, choices, defaults(choices, PHASES, pools.meant_by(body)), PHASES)
        read_phase(section, without, names, pools, model, workload, self.model_named, judged=not choices)
        self.out.steps = found.steps
        for diagnostic in found.items:
            if diagnostic.is_error:
                self.out.take(diagnostic)

    def serves(
        self,
        sections: Sections,
        pools: Pools,
        workload: Workload | None,
        phases: Sequence[Phase],
        whole: bool,
    ) -> tuple[Serve, ...]:
        """Those that can be read. `whole`: all phases could be."""
        if not sections:
            return ()
        if len(sections) > MAX_SERVES:
            beyond = sections[MAX_SERVES][0].kind_span
            self.out.add("E03", f"a spec has at most {MAX_SERVES} servings, this one {len(sections)}", beyond)
            return ()
        serves: list[Serve] = []
        seen: dict[str, Span] = {}
        owners = {p.name: p.span for p in phases}
        for section, base in sections:
            if section.name is None:
                self.out.add("E10", "a serving needs a name", section.kind_span, help=("serve chat { ... }",))
                self.unnamed = True
                continue
            if not self._well_named(section, section.name, "serve", seen):
                continue
            if section.name in (*owners, "hardware", "model", "workload"):
                at = owners.get(section.name)
                also = () if at is None else (Label(at, "the phase"),)
                message = f"requirements could not tell the serving `{section.name}` from the {'phase' if at else 'section'} of that name"
                self.out.add("E11", message, section.kind_span, also=also)
                continue
            seen[section.name] = section.kind_span
            body = Body(section.kind_span)
            body.add(section.body, self.out)
            serve = self.serve(section, body, base, pools, workload, phases, whole)
            if serve is not None:
                serves.append(serve)
        return tuple(serves)

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
        """One serving; None where it cannot be read, or leaves a choice open."""
        from .sections.serve import read_serve

        names = self.names()
        if leaves_open(body, self.values):
            from .choices import SERVINGS, closed

            body, is_open = closed(str(section.name), body, SERVINGS, names, pools)
            whole = whole and not is_open
        return read_serve(section, body, names, base, pools, workload, phases, self.statements.joinings, whole=whole)

    def _well_named(self, section: ast.Section, name: str, what: str, seen: Mapping[str, Span]) -> bool:
        if not PHASE_NAME.fullmatch(name):
            message = f"`{name}` cannot be the name of a {what}"
            help_ = ("letters, digits, `_`, `-` and `.`, beginning with a letter or `_`",)
            self.out.add("E08", message, section.kind_span, help=help_)
            return False
        if name in seen:
            first = Label(seen[name], "first here")
            message = f"{what} `{name}` is defined twice"
            hint = (TWO_LAYOUTS,) if what == "phase" else ()
            self.out.add("E11", message, section.kind_span, "again here", also=(first,), help=hint)
            return False
        return True

    def model(self, section: ast.Section, base: Path | None) -> Model | None:
        body, name = self.presets.merged(section, base)
        if body.partial:
            return None  # without its preset, everything that the section lacks would be reported too
        at = self.statements
        checkpoint = read_checkpoint([s for s, _ in at.sections if s.kind == "checkpoint"], self.names())
        first = len(self.out.items)
        found = read_model(name, body, self.presets.names(), at.layers, at.blocks, checkpoint)
        if len(self.out.items) > first:
            self.out.retell(first, lambda told: _where_asked(told, section, self.config))
        return found

    def model_named(self, name: str, span: Span) -> Model | None:
        """Another model than the spec's, by the name of a preset or of a file."""
        if name not in self.other_models:
            other = Elaborator(Statements(self.out, self.statements.reach), self.values)
            preset = ast.String(value=name, span=span)
            section = ast.Section(kind="model", name=None, preset=preset, body=(), kind_span=span, span=span)
            found = other.model(section, None)
            if found is None:
                return None
            self.other_models[name] = found
        return self.other_models[name]

    def hardware(self, section: ast.Section, base: Path | None) -> Hardware | None:
        body, name = self.presets.merged(section, base)
        return read_hardware(name, body, self.names(), base, section.kind_span)

    def workload(self, section: ast.Section, base: Path | None) -> Workload | None:
        body = Body(section.kind_span)
        body.add(section.body, self.out)
        return read_workload(body, self.names(), base, section.kind_span)


def _where_asked(found: Diagnostic, section: ast.Section, config: Config | None) -> Diagnostic:
    """What is wrong with a value of a preset or an architecture, told at the field of the config that it is made of, else at the model that has
    it; the line of the library below."""
    if found.span is None or library.ships(section.kind_span.source) or not library.ships(found.span.source):
        return found
    asked = section.kind_span if section.preset is None else section.preset.span
    fields = re.findall(r"config\.([\w.]+)", found.span.text) if config is not None else []
    places = (config.made_at(field.split("."), asked) for field in fields if config is not None)
    at = next((place for place in places if place is not asked), asked)
    return replace(found, span=at, label="", also=(Label(found.span, found.label or "in the library"), *found.also))
