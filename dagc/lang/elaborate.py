"""Elaboration: a syntax tree becomes a typed spec. Params, lets, imports and presets are resolved, units checked.

Every error of the spec is reported in one run; SpecError is raised at the end if there was any.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..base import coming
from ..base.coming import ALTERNATIVES
from ..base.diagnostics import Collector, Label, SpecError
from ..base.dtypes import FORMS, NAMED, find
from ..base.files import MAX_TEXT_BYTES, Reach, Unreadable, read_bytes
from ..base.schema import HARDWARE, PHASE, WORKLOAD
from ..base.source import Source, Span
from ..base.suggest import preset_help, products
from ..base.syntax import ast
from ..base.units import Quantity, meant_unit, show
from ..spec.hardware import Hardware
from ..spec.metrics import metric
from ..spec.model import AttrValue, Model
from ..spec.requirement import Requirement
from ..spec.spec import Spec
from ..spec.tensor_place import Place, PlaceError
from ..spec.workload import Workload
from . import library
from .block_checks import check_block
from .hardware import read_hardware
from .huggingface.config import BESIDE, Config, read_config
from .model import read_model
from .phase import read_phase
from .reader import Body, Names
from .values.evaluate import MAX_ITEMS, Env, Value, evaluate, holds, names_in, shown
from .workload import read_workload

PHASE_NAME = re.compile(r"(?!\d)\w[\w.-]{0,63}")
"""It becomes part of file names and of requirements."""
MAX_PHASES = 256
MAX_CHAIN = 64
"""Files that import each other in a row."""
MAX_IMPORTED = 4_000_000
"""Characters of all imports."""
KINDS = ("prefill", "decode")
TOP = ("hardware", "model", "workload", "phase", "checkpoint")


def _several(sections: Sequence[ast.Section]) -> bool:
    """Pools of their own, rather than the same one given twice."""
    return len(sections) > 1 and (len({s.name for s in sections}) > 1 or any(s.preset is not None for s in sections))


def elaborate(
    file: ast.File, out: Collector, *, settings: Mapping[str, str] | None = None, reach: Reach | None = None
) -> Spec:
    """The typed spec of a file. `settings`: texts of `--set`; `reach`: the files that it may name, and from where."""
    reach = reach or Reach.of(None)
    work = Elaborator(out, reach)
    itself = Path(os.path.realpath(reach.base / Path(file.span.source.name).name))
    work.gather(file, reach.base, (itself,))
    work.constants(settings or {})
    spec = work.spec(file)
    out.check()
    assert spec is not None
    return spec


def _asks(section: ast.Section, name: str) -> bool:
    """Does the section itself give the attribute?"""
    return any(isinstance(s, ast.Assign) and s.name == name for s in section.body)


@dataclass(slots=True)
class Elaborator:
    out: Collector
    reach: Reach
    lets: dict[str, ast.Let | ast.Param] = field(default_factory=dict)
    blocks: dict[tuple[str, str | None], ast.BlockDef] = field(default_factory=dict)
    layers: dict[str, ast.LayerDef] = field(default_factory=dict)
    sections: list[tuple[ast.Section, Path | None]] = field(default_factory=list)
    requires: list[ast.Require] = field(default_factory=list)
    values: dict[str, AttrValue] = field(default_factory=dict)
    domains: dict[str, tuple[AttrValue, ...]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)  # kinds of sections that a misspelt one probably is
    seen: set[Path] = field(default_factory=set)
    unnamed: bool = False  # what some phase is called is not known: requirements may mean it
    config: Config | None = None
    characters: int = 0  # of all imports

    # -- statements ------------------------------------------------------------------------------

    def gather(self, file: ast.File, base: Path | None, chain: tuple[Path, ...]) -> None:
        for s in file.statements:
            if isinstance(s, ast.Import):
                self.import_file(s, base, chain)
            elif isinstance(s, (ast.Let, ast.Param)):
                if s.name in self.lets:
                    first = Label(self.lets[s.name].span, "first here")
                    self.out.add("E11", f"`{s.name}` is defined twice", s.span, "again here", also=(first,))
                self.lets.setdefault(s.name, s)
            elif isinstance(s, ast.BlockDef):
                check_block(s, self.out)
                self._define(self.blocks, (s.name, s.phase), s, f"block `{s.name}`")
            elif isinstance(s, ast.LayerDef):
                self._define(self.layers, s.name, s, f"layer `{s.name}`")
            elif isinstance(s, ast.Section):
                self._section(s, base)
            elif isinstance(s, ast.Require):
                self.requires.append(s)
            elif not isinstance(s, ast.Version):
                self._misplaced(s)

    def _misplaced(self, s: ast.Statement) -> None:
        """An attribute outside all sections: a constant is meant, or its section is closed too early."""
        help_ = [f"sections: {', '.join(TOP)}"]
        if isinstance(s, (ast.Assign, ast.Directive)):
            self.failed.add(s.name)  # what uses it is not wrong as well
            help_.insert(0, f"a constant is written `let {s.name} = {s.value.span.text}`")
        if self.out.incomplete:
            return  # a brace is probably missing
        self.out.add("E12", "this statement belongs in a section", s.span, help=help_)

    def _define(self, table: dict, key: object, node: ast.Node, what: str) -> None:  # type: ignore[type-arg]
        if key in table:
            self.out.add(
                "E11", f"{what} is defined twice", node.span, "again here", also=(Label(table[key].span, "first here"),)
            )
        table[key] = node

    def _section(self, s: ast.Section, base: Path | None) -> None:
        if s.kind in coming.SECTIONS:
            coming.refuse(coming.SECTIONS[s.kind], s.kind_span, self.out)
            self.failed |= {s.name or s.kind}
            return
        if s.kind not in TOP:
            near = self.out.near(s.kind, TOP)
            if near is not None:  # it is not missing, and neither is its name
                self.taken.add(near)
                self.failed |= {s.name} if s.name else set()
            hint = f"did you mean `{near}`?" if near else f"sections: {', '.join(TOP)}"
            if near is None and self.out.incomplete:
                return  # probably a section of the model or the phase whose brace is missing
            self.out.add("E02", f"unknown section `{s.kind}`", s.kind_span, help=(hint,))
            return
        self.sections.append((s, base))

    def import_file(self, s: ast.Import, base: Path | None, chain: tuple[Path, ...]) -> None:
        """Imports are relative to the importing file; a file imported twice counts once."""
        from ..base.syntax.parse import parse

        try:
            path = self.reach.find(s.path, base)
        except Unreadable as error:
            self._unreadable(s.path, error, s.span)
            self.out.unread = True
            return
        if path in chain:
            names = " -> ".join(p.name for p in (*chain[chain.index(path) :], path))
            self.out.add("E05", f"`{s.path}` imports itself", s.span, because=(names,))
            return
        if path in self.seen:
            return
        self.seen.add(path)
        if len(chain) >= MAX_CHAIN:
            self.out.add("E05", f"imports are nested more than {MAX_CHAIN} deep", s.span)
            self.out.unread = True
            return
        name = os.path.normpath(Path(s.span.source.name).parent / s.path)  # as seen from where dagc runs
        source = self._source(path, s.path, name, s.span)
        if source is None:
            self.out.unread = True
            return
        self.characters += len(source.text)
        if self.characters > MAX_IMPORTED:
            self.out.add("E05", f"imports have more than {MAX_IMPORTED:,} characters", s.span)
            self.out.unread = True
            return
        self.gather(parse(source, self.out), path.parent, (*chain, path))

    def _source(self, path: Path, given: str, name: str, span: Span) -> Source | None:
        """The text of a file that the spec names, to be called `name`."""
        from ..base.syntax.read import decoded

        try:
            return decoded(name, read_bytes(path, MAX_TEXT_BYTES))
        except Unreadable as error:
            self._unreadable(given, error, span)
        except SpecError as error:
            self.out.add("E05", f"`{given}`: {error.diagnostics[0].message}", span)
        return None

    def _unreadable(self, given: str, error: Unreadable, span: Span) -> None:
        self.out.add("E05", f"cannot read `{given}`: {error}", span, help=error.help)

    # -- params and lets -------------------------------------------------------------------------

    def constants(self, settings: Mapping[str, str]) -> None:
        given = self._settings(settings)
        for name in self.lets:
            self._constant(name, given)

    def _settings(self, settings: Mapping[str, str]) -> dict[str, ast.Expr]:
        from ..base.syntax.parse import parse_expression

        given: dict[str, ast.Expr] = {}
        params = [n for n, s in self.lets.items() if isinstance(s, ast.Param)]
        for name, text in settings.items():
            if name not in params:
                near = self.out.near(name, params)
                hint = (
                    f"did you mean `{near}`?"
                    if near
                    else f"params: {', '.join(params) or 'none'}; `param NAME = VALUE` in the spec declares one"
                )
                if name in PHASE or name in HARDWARE or name in WORKLOAD:
                    hint = f"declare it in the spec: `param {name} = ...`, and use it there: `{name} = {name}`"
                self.out.add("E14", f"`--set {name}`: there is no such param", help=(hint,))
                continue
            found = Collector()
            expr = parse_expression(text, found)
            if expr is None:
                because = [d.message for d in found.items]
                self.out.add("E14", f"`--set {name}={text}` is not one value", because=because)
                self.failed.add(name)
            else:
                given[name] = expr
        return given

    def _constant(self, name: str, given: Mapping[str, ast.Expr]) -> None:
        """A constant, and first those that it is made of: with a stack, since chains of constants may have any length."""
        chain = {name: None}
        while chain:
            at = next(reversed(chain))
            if at in self.values or at in self.failed:
                del chain[at]
                continue
            s = self.lets[at]
            made_of = given.get(at, s.default if isinstance(s, ast.Param) else s.value)
            domain = s.domain if isinstance(s, ast.Param) else None
            parts = dict.fromkeys(n.text for part in (made_of, domain) for n in names_in(part) if n.text in self.lets)
            before = next((n for n in parts if n not in self.values and n not in self.failed), None)
            if before is None:
                self._evaluate(s, made_of, domain, given)
                del chain[at]
            elif before in chain:
                around = list(chain)
                circle = around[around.index(before) :]
                shown = [*circle, before] if len(circle) < 10 else [*circle[:4], "...", *circle[-4:], before]
                first = self.lets[before]
                self.out.add(
                    "E11", f"`{before}` is defined in terms of itself", first.span, because=(" -> ".join(shown),)
                )
                self.failed.add(before)
            else:
                chain[before] = None

    def _evaluate(
        self, s: ast.Let | ast.Param, made_of: ast.Expr, domain: ast.Expr | None, given: Mapping[str, ast.Expr]
    ) -> None:
        def env(node: ast.Name | ast.Call) -> AttrValue | None:
            if isinstance(node, ast.Name) and node.text in self.lets:
                return self.values.get(node.text)
            if isinstance(node, ast.Name):
                near = self.out.near(node.text, [n for n in self.lets if n != s.name])
                self.out.add(
                    "E02",
                    f"unknown name `{node.text}`",
                    node.span,
                    help=(f"did you mean `{near}`?",) if near else (),
                )
            else:
                self.out.add("E08", "a constant consists of numbers, names and + - * /", node.span)
            return None

        if s.name in given:
            value = self._given(s.name, given[s.name], s, env)
        else:
            found = evaluate(made_of, env, self.out)
            if isinstance(found, tuple):
                self.out.add("E08", f"`{s.name}` is one value, not a list", made_of.span)
            value = None if isinstance(found, tuple) else found
        if value is not None and isinstance(s, ast.Param) and domain is not None:
            allowed = evaluate(domain, env, self.out)
            value = value if self._domain(s, value, given.get(s.name), allowed) else None
        if value is None:
            self.failed.add(s.name)
        else:
            self.values[s.name] = value

    def _given(self, name: str, expr: ast.Expr, s: ast.Let | ast.Param, env: Env) -> AttrValue | None:
        """The value of a `--set`. What is wrong with it has no place in a file; the param has."""
        own, self.out = self.out, Collector()
        try:
            value = evaluate(expr, env, self.out)
        finally:
            found, self.out = self.out, own
        if isinstance(value, tuple):
            found.add("E08", "it is one value, not a list")
        for d in found.items:
            inside = d.span is not None and d.span.source == expr.span.source
            if inside or d.span is None:
                because = (d.message, *d.because)
                self.out.add("E14", f"`--set {name}={expr.span.text}` is wrong", s.span, because=because, help=d.help)
            else:
                self.out.take(d)
        return value if not found.failed and not isinstance(value, tuple) else None

    def _domain(self, s: ast.Param, value: AttrValue, given: ast.Expr | None, domain: Value | None) -> bool:
        """Is the value in the domain?"""
        if not isinstance(domain, tuple):
            return True
        allowed = tuple(v for v in domain if not isinstance(v, tuple))
        self.domains[s.name] = allowed
        if value not in allowed:
            shown = ", ".join(show(v.value, v.dim) if isinstance(v, Quantity) else str(v) for v in allowed[:12])
            assert s.domain is not None
            help_ = (f"it may be {shown}",)
            if given is None:
                also = (Label(s.domain.span, "the domain"),)
                self.out.add("E09", f"`{s.name}` is not in its domain", s.default.span, also=also, help=help_)
            else:
                message = f"`--set {s.name}={given.span.text}` is not in the domain of `{s.name}`"
                self.out.add("E14", message, s.domain.span, "the domain", help=help_)
        return value in allowed

    # -- the spec --------------------------------------------------------------------------------

    def names(self, config: Config | None = None) -> Names:
        return Names(self.values, self.out, unknown=self.failed, config=config, reach=self.reach)

    def spec(self, file: ast.File) -> Spec | None:
        found = {kind: [(s, b) for s, b in self.sections if s.kind == kind] for kind in TOP}
        self.amount(found, file)
        hardware = self.hardware(*found["hardware"][0]) if found["hardware"] else None
        if len(found["hardware"]) > 1:
            hardware = None  # it is not known whose GPUs a phase means
        model = None
        if found["model"]:
            model = self.model(*found["model"][0])
        workload = self.workload(*found["workload"][0]) if found["workload"] else None
        phases = []
        seen: dict[str, Span] = {}
        if len(found["phase"]) > MAX_PHASES:
            beyond = found["phase"][MAX_PHASES][0].kind_span
            self.out.add("E03", f"a spec has at most {MAX_PHASES} phases, this one {len(found['phase'])}", beyond)
            return None
        ids = 0
        for section, _ in found["phase"]:
            if section.name is None:
                self.unnamed = True
                self.out.add("E10", "a phase needs a name", section.kind_span, help=("phase prefill { ... }",))
                continue
            if not PHASE_NAME.fullmatch(section.name):
                self.unnamed = True
                message = f"`{section.name}` cannot be the name of a phase"
                help_ = ("letters, digits, `_`, `-` and `.`, beginning with a letter or `_`",)
                self.out.add("E08", message, section.kind_span, help=help_)
                continue
            if section.name in seen:
                self.unnamed = True
                first = Label(seen[section.name], "first here")
                message = f"phase `{section.name}` is defined twice"
                self.out.add(
                    "E11", message, section.kind_span, "again here", also=(first,), help=(ALTERNATIVES.instead,)
                )
                continue
            seen[section.name] = section.kind_span
            body = Body(section.kind_span)
            body.add(section.body, self.out)
            phase = read_phase(section, body, self.names(), hardware, model, workload)
            self.unnamed |= phase is None and section.name not in KINDS and not _asks(section, "kind")
            if phase is not None:
                phases.append(phase)
                ids += len(phase.gpus)
            if ids > MAX_ITEMS:
                self.out.add(
                    "E09", f"together, together, the phases name more than {MAX_ITEMS:,} GPUs", section.kind_span
                )
                return None
        requirements = self.requirements({s.name for s, _ in found["phase"] if s.name})
        if hardware is None or model is None or workload is None:
            return None
        self.check_dtypes(hardware, model)
        return Spec(hardware, model, workload, tuple(phases), requirements, dict(self.values), dict(self.domains))

    def amount(self, found: Mapping[str, Sequence[tuple[ast.Section, Path | None]]], file: ast.File) -> None:
        """One section of a kind, and at least one phase."""
        text = file.span.source.text
        end = Span(file.span.source, len(text.rstrip()), len(text.rstrip()))
        for kind in ("hardware", "model", "workload", "phase"):
            if not found[kind] and not self.out.incomplete and kind not in self.taken:
                example = {
                    "hardware": 'hardware from "h200-sxm" { gpus = 8 }',
                    "model": 'model from "mixtral-8x7b" { }',
                }
                self.out.add(
                    "E10", f"the spec has no `{kind}` section", end, help=[example[kind]] if kind in example else []
                )
            if kind == "hardware" and _several([s for s, _ in found[kind]]):
                coming.refuse(coming.POOLS, found[kind][1][0].kind_span, self.out)
                self.failed |= {s.name for s, _ in found[kind] if s.name}
            elif kind != "phase":
                for s, _ in found[kind][1:]:
                    first = Label(found[kind][0][0].kind_span, "first here")
                    self.out.add("E11", f"a spec has one `{kind}` section", s.kind_span, "again here", also=(first,))

    def check_dtypes(self, hardware: Hardware, model: Model) -> None:
        """Math that the GPU has no unit for. Weights of 4 bits that are widened before they are used (int4, mxfp4) run
        anywhere, and a GPU whose peaks are not given by dtype is taken at its word."""
        if set(hardware.compute_flops) == {"default"}:
            return
        used = {"weight_dtype": model.weight_dtype, "attention_dtype": model.attention_dtype}
        used |= {f"weights.{block}": dtype for block, dtype in model.weight_dtypes.items()}
        for name, dtype in used.items():
            known_dtype = find(dtype)
            assert known_dtype is not None
            math = known_dtype.unit
            if math in ("fp8", "nvfp4") and not known_dtype.widened and math not in hardware.compute_flops:
                known = ", ".join(d for d in hardware.compute_flops if d != "default")
                span = model.spans.get(name.split(".")[0], model.span)
                because = (f"its matrix units take {known}",)
                self.out.add("E03", f"`{hardware.name}` cannot run {dtype} ({name})", span, because=because)

    def model(self, section: ast.Section, base: Path | None) -> Model | None:
        body, name = self.merged(section, base)
        if body.partial:
            return None  # without its preset, everything that the section lacks would be reported too
        names = self.names(self.config)
        checkpoint = self.checkpoint([s for s, _ in self.sections if s.kind == "checkpoint"])
        return read_model(name, body, names, self.layers, self.blocks, checkpoint)

    def merged(self, section: ast.Section, base: Path | None) -> tuple[Body, str]:
        """The section's body over its preset's, and the name it goes by."""
        body = Body(section.kind_span)
        name = section.name
        if section.preset is not None:
            presets = self.preset(section, base)
            body.partial = not presets
            for preset in presets:
                body.add(preset.body, self.out)
                name = name or preset.name
        elif self._meant_as_preset(section):
            body.partial = True
        if section.preset is not None and _asks(section, "weight_dtype") and "weights" in body.sections:
            body.sections["preset weights"] = body.sections.pop("weights")
        body.add(section.body, self.out)
        return body, name or (section.preset.value if section.preset else section.kind)

    def _meant_as_preset(self, section: ast.Section) -> bool:
        """`hardware "h200-sxm" { }`: a name where `from` is missing. Reported once, not as all that the section lacks."""
        given = {s.name for s in section.body if isinstance(s, ast.Assign)} | {
            s.kind for s in section.body if isinstance(s, ast.Section)
        }
        if section.name is None or given & {"compute", "memory", "hbm", "layers", "stack", "hidden"}:
            return False
        meant = products(section.name, library.names(section.kind))
        if meant:
            message = f"`{section.name}` is the name of this {section.kind}, not a preset"
            self.out.add("E10", message, section.kind_span, help=(f'write `{section.kind} from "{meant[0]}"`',))
        return bool(meant)

    def preset(self, section: ast.Section, base: Path | None) -> list[ast.Section]:
        """Sections that `from` names, in the order in which they override each other."""
        from ..base.syntax.parse import parse

        assert section.preset is not None
        name, span = section.preset.value, section.preset.span
        if name.endswith(".json") and section.kind == "model":
            return self.architecture(section, name, base, span)
        if name.endswith(".moe"):
            try:
                path = self.reach.find(name, base)
            except Unreadable as error:
                self._unreadable(name, error, span)
                return []
            read = self._source(path, name, name, span)
            if read is None:
                return []
            source = read
        else:
            found = library.preset(section.kind, name)
            if found is None:
                known = library.names(section.kind)
                help_ = preset_help(section.kind, name, known)
                broken = tuple(library.broken())
                self.out.add("E02", f'unknown {section.kind} preset "{name}"', span, because=broken, help=help_)
                return []
            source = found
        sections = [s for s in self.adopt(parse(source, self.out), base).sections if s[0].kind == section.kind]
        if not sections:
            self.out.add("E05", f"`{name}` has no `{section.kind}` section", span)
        return [s for s, _ in sections[:1]]

    def adopt(self, file: ast.File, base: Path | None) -> Elaborator:
        """What a preset file brings along: its blocks, layers and checkpoint sections. Those of the spec go first."""
        inner = Elaborator(self.out, self.reach)
        inner.gather(file, base, ())
        for key, block in inner.blocks.items():
            self.blocks.setdefault(key, block)
        for name, layer in inner.layers.items():
            self.layers.setdefault(name, layer)
        self.sections = [(s, b) for s, b in inner.sections if s.kind == "checkpoint"] + self.sections
        return inner

    def _check_precision(self, section: ast.Section, config: Config, path: str, span: Span) -> None:
        """Weights of unknown size make no model, unless the spec says how they are stored."""
        precision = config.fields["precision"]
        unknown = precision.get("unknown") if isinstance(precision, Mapping) else None
        if unknown is None or _asks(section, "weight_dtype"):
            return
        message = f"`{path}` has weights in a precision that no dtype describes: {unknown}"
        help_ = f'say how they are stored: model from "{path}" {{ weight_dtype = ..., weights {{ experts = ... }} }}'
        self.out.add("E05", message, span, help=(help_, f"dtypes: {', '.join(NAMED)}, {FORMS}"))

    def architecture(self, section: ast.Section, path: str, base: Path | None, span: Span) -> list[ast.Section]:
        """Model sections of the library's architecture for a config.json, whose fields they read as `config.*`."""
        from ..base.syntax.parse import parse

        try:
            place = self.reach.find(path, base)
            folder = Path(path).parent
            there = [name for name in BESIDE if os.path.lexists((base or self.reach.base) / folder / name)]
            beside = {name: self.reach.find(folder / name, base) for name in there}
        except Unreadable as error:
            self._unreadable(path, error, span)
            return []
        config = read_config(place, beside, path, library.architectures(), span, self.out)
        if config is None:
            return []
        found = library.architecture(str(config.fields["model_type"]))
        assert found is not None
        self.config = config
        self._check_precision(section, config, path, span)
        inner = self.adopt(parse(found, self.out), library.architecture_folder())
        for rule in inner.requires:
            self._refuse(rule, path, span)
        return [s for s, _ in inner.sections if s.kind == "model"]

    def _refuse(self, rule: ast.Require, path: str, span: Span) -> None:
        """A `require` of an architecture is what a config.json must have to be expressed."""
        env = self.names(self.config).env(words=True)
        left, right = evaluate(rule.test.left, env, self.out), evaluate(rule.test.right, env, self.out)
        if left is None or right is None:
            return  # a field that it needs is missing, and reported
        if isinstance(left, Quantity) and isinstance(right, Quantity):
            held = holds(rule.test.op, left.value, right, None)
        else:
            held = rule.test.op == "==" and left == right
        if not held:
            because = f"{rule.text}, but it is {shown(left)}"
            self.out.add("E05", f"`{path}` cannot be expressed: {rule.label or rule.text}", span, because=(because,))

    def checkpoint(self, sections: list[ast.Section]) -> dict[str, dict[str, tuple[str, ...]]]:
        """Block -> weight -> where a checkpoint file has it, the first found counts."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for section in sections:
            body = Body(section.kind_span)
            body.add(section.body, self.out)
            for name, assign in body.assigns.items():
                value = evaluate(assign.value, self.names().env(), self.out)
                places = value if isinstance(value, tuple) else (value,)
                if not all(isinstance(p, str) for p in places):
                    self.out.add(
                        "E08", f"`{name}` is one or more strings: tensor name and dimensions", assign.value.span
                    )
                    continue
                for place in places:
                    self._check_place(str(place), assign.value.span)
                found.setdefault(section.name or "", {})[name] = tuple(str(p) for p in places)
        return found

    def _check_place(self, text: str, span: Span) -> None:
        try:
            Place.parse(text)
        except PlaceError as error:
            self.out.add("E08", f'"{text}" is not a place in a checkpoint file: {error}', span)

    def hardware(self, section: ast.Section, base: Path | None) -> Hardware | None:
        body, name = self.merged(section, base)
        return read_hardware(name, body, self.names(), base, section.kind_span)

    def workload(self, section: ast.Section, base: Path | None) -> Workload | None:
        body = Body(section.kind_span)
        body.add(section.body, self.out)
        return read_workload(body, self.names(), base, section.kind_span)

    # -- requirements ----------------------------------------------------------------------------

    def requirements(self, phases: set[str]) -> tuple[Requirement, ...]:
        roots = {"hardware", "model", "workload", *phases, *self.values, *self.failed}
        out = []
        for i, s in enumerate(self.requires):
            for name in names_in(s.test):
                doubtful = self.unnamed and (
                    len(name.parts) > 1 and metric(f"PHASE.{'.'.join(name.parts[1:])}") is not None
                )
                if name.parts[0] not in roots and not self.out.incomplete and not doubtful:
                    roots.add(name.parts[0])  # once is enough
                    near = self.out.near(name.parts[0], roots - {name.parts[0]})
                    hint = f"did you mean `{near}`?" if near else f"known: {', '.join(sorted(roots - {name.parts[0]}))}"
                    if any(s.kind == "hardware" and s.name == name.parts[0] for s, _ in self.sections):
                        hint = f"did you mean `{'.'.join(('hardware', *name.parts[1:]))}`?"
                    if unit := meant_unit(name.text):
                        hint = f"if this is a unit, did you mean {unit}?"
                    owner = next(iter(sorted(phases)), "PHASE")
                    if metric(f"{owner}.{name.text}") is not None:
                        hint = f"a metric follows its phase: `{owner}.{name.text}`"
                    self.out.add(
                        "E02",
                        f"the requirement names `{name.parts[0]}`, which this spec does not define",
                        name.span,
                        help=(hint,),
                    )
            out.append(Requirement(s.label or s.text or f"requirement {i + 1}", s.text, s.test, s.span))
        return tuple(out)
