"""What `from` brings into a section: presets of the library, files, and architectures that read a config.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.dtypes import FORMS, NAMED
from ..base.files import Unreadable
from ..base.frozen import mutable
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import Quantity
from ..spec.model import AttrValue
from . import library
from .body import Body
from .statements import Statements, asks
from .values.evaluate import evaluate, holds, shown
from .values.functions import env
from .values.names import Names

if TYPE_CHECKING:
    from .huggingface.config import Config


@mutable
class Presets:
    """`values`: constants of the spec. `config`: the config.json that the model comes from, once it is read."""

    statements: Statements
    values: Mapping[str, AttrValue]
    config: Config | None = None

    @property
    def out(self) -> Collector:
        return self.statements.out

    def names(self) -> Names:
        """What expressions of the model may name."""
        at = self.statements
        return Names(self.values, at.out, unknown=at.failed, config=self.config, reach=at.reach)

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
        if section.preset is not None and asks(section, "weight_dtype") and "weights" in body.sections:
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
        from ..base.suggest import products

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
                path = self.statements.reach.find(name, base)
            except Unreadable as error:
                self.statements.unreadable(name, error, span)
                return []
            read = self.statements.source(path, name, name, span)
            if read is None:
                return []
            source = read
        else:
            found = library.preset(section.kind, name)
            if found is None:
                known = library.names(section.kind)
                from ..base.suggest import preset_help

                help_ = preset_help(section.kind, name, known)
                broken = tuple(library.broken())
                self.out.add("E02", f'unknown {section.kind} preset "{name}"', span, because=broken, help=help_)
                return []
            source = found
        sections = [
            s for s in self.statements.adopt(parse(source, self.out), base).sections if s[0].kind == section.kind
        ]
        if not sections:
            self.out.add("E05", f"`{name}` has no `{section.kind}` section", span)
        return [s for s, _ in sections[:1]]

    def _check_precision(self, section: ast.Section, config: Config, path: str, span: Span) -> None:
        """Weights of unknown size make no model, unless the spec says how they are stored."""
        precision = config.fields["precision"]
        unknown = precision.get("unknown") if isinstance(precision, Mapping) else None
        if unknown is None or asks(section, "weight_dtype"):
            return
        message = f"`{path}` has weights in a precision that no dtype describes: {unknown}"
        help_ = f'say how they are stored: model from "{path}" {{ weight_dtype = ..., weights {{ experts = ... }} }}'
        self.out.add("E05", message, span, help=(help_, f"dtypes: {', '.join(NAMED)}, {FORMS}"))

    def architecture(self, section: ast.Section, path: str, base: Path | None, span: Span) -> list[ast.Section]:
        """Model sections of the library's architecture for a config.json, whose fields they read as `config.*`."""
        from ..base.syntax.parse import parse
        from .huggingface.config import BESIDE, read_config

        try:
            place = self.statements.reach.find(path, base)
            folder = Path(path).parent
            there = [name for name in BESIDE if os.path.lexists((base or self.statements.reach.base) / folder / name)]
            beside = {name: self.statements.reach.find(folder / name, base) for name in there}
        except Unreadable as error:
            self.statements.unreadable(path, error, span)
            return []
        config = read_config(place, beside, path, library.architectures(), span, self.out)
        if config is None:
            return []
        architecture = library.architecture(str(config.fields["model_type"]))
        assert architecture is not None
        self.config = config
        self._check_precision(section, config, path, span)
        inner = self.statements.adopt(parse(architecture, self.out), library.architecture_folder())
        broken: dict[str, list[str]] = {}
        for rule in inner.requires:
            if because := self._broken(rule):
                broken.setdefault(rule.label or rule.text, []).append(because)
        for what, reasons in broken.items():  # what several fields say is said once
            self.out.add("E05", f"`{path}` cannot be expressed: {what}", span, because=tuple(reasons))
        return [s for s, _ in inner.sections if s.kind == "model"]

    def _broken(self, rule: ast.Require) -> str:
        """How a `require` of an architecture, which is what a config.json must have to be expressed, does not hold."""
        lookup = env(self.names(), words=True)
        left, right = evaluate(rule.test.left, lookup, self.out), evaluate(rule.test.right, lookup, self.out)
        if left is None or right is None:
            return ""  # a field that it needs is missing, and reported
        if isinstance(left, Quantity) and isinstance(right, Quantity):
            held = holds(rule.test.op, left.value, right, None)
        else:
            held = rule.test.op == "==" and left == right
        return "" if held else f"{rule.text}, but it is {shown(left)}"
