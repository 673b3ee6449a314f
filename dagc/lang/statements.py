"""The statements of a file and of all that it imports, by kind."""

from __future__ import annotations

import os
from pathlib import Path

from ..base import coming
from ..base.diagnostics import Collector, Label, SpecError
from ..base.files import MAX_TEXT_BYTES, Reach, Unreadable, read_bytes
from ..base.frozen import field, mutable
from ..base.source import Source, Span
from ..base.syntax import ast
from ..spec.choice import ALTERNATIVE
from .block_checks import check_block

MAX_CHAIN = 64
"""Files that import each other in a row."""
MAX_IMPORTED = 4_000_000
"""Characters of all imports."""
TOP = ("hardware", "model", "workload", "phase", "serve", "checkpoint")


def asks(section: ast.Section, name: str) -> bool:
    """Does the section itself give the attribute?"""
    return any(isinstance(s, ast.Assign) and s.name == name for s in section.body)


@mutable
class Statements:
    """`failed`: names that are not defined because something is wrong with them, which is reported; `taken`: kinds of
    sections that a misspelt one probably is."""

    out: Collector
    reach: Reach
    lets: dict[str, ast.Let | ast.Param] = field(default_factory=dict)
    blocks: dict[tuple[str, str | None], ast.BlockDef] = field(default_factory=dict)
    layers: dict[str, ast.LayerDef] = field(default_factory=dict)
    sections: list[tuple[ast.Section, Path | None]] = field(default_factory=list)
    joinings: list[ast.Joining] = field(default_factory=list)
    requires: list[ast.Require] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    seen: set[Path] = field(default_factory=set)
    characters: int = 0  # of all imports

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
            elif isinstance(s, ast.Joining):
                self.joinings.append(s)
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
            if s.kind in (ALTERNATIVE, f"{ALTERNATIVE}s"):
                hint = "an alternative is inside its phase: `phase decode { alternative wide { ... } }`"
            if s.kind == "link":
                hint = "`link A to B { bandwidth = ..., latency = ... }` joins two pools; those of one pool are written in its hardware section"
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
            self.unreadable(s.path, error, s.span)
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
        source = self.source(path, s.path, name, s.span)
        if source is None:
            self.out.unread = True
            return
        self.characters += len(source.text)
        if self.characters > MAX_IMPORTED:
            self.out.add("E05", f"imports have more than {MAX_IMPORTED:,} characters", s.span)
            self.out.unread = True
            return
        self.gather(parse(source, self.out), path.parent, (*chain, path))

    def source(self, path: Path, given: str, name: str, span: Span) -> Source | None:
        """The text of a file that the spec names, to be called `name`."""
        from ..base.syntax.input import decoded

        try:
            return decoded(name, read_bytes(path, MAX_TEXT_BYTES))
        except Unreadable as error:
            self.unreadable(given, error, span)
        except SpecError as error:
            self.out.add("E05", f"`{given}`: {error.diagnostics[0].message}", span)
        return None

    def unreadable(self, given: str, error: Unreadable, span: Span) -> None:
        self.out.add("E05", f"cannot read `{given}`: {error}", span, help=error.help)

    def adopt(self, file: ast.File, base: Path | None) -> Statements:
        """What a preset file brings along: its blocks, layers and checkpoint sections. Those of the spec go first."""
        inner = Statements(self.out, self.reach)
        inner.gather(file, base, ())
        for key, block in inner.blocks.items():
            self.blocks.setdefault(key, block)
        for name, layer in inner.layers.items():
            self.layers.setdefault(name, layer)
        self.sections = [(s, b) for s, b in inner.sections if s.kind == "checkpoint"] + self.sections
        return inner
