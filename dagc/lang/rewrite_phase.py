"""The text of a spec with phases changed: attributes get their new values in place, or beside `gpus`; comments are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.axes import DATA, EXPERT, SEQUENCE, STAGES, TENSOR
from ..base.diagnostics import Diagnostic, SpecError
from ..base.syntax import ast
from ..base.units import show_runs
from ..spec.phase import Phase
from ..spec.strategy import Fold
from .body import Body
from .open_spec import OpenSpec
from .rewrite import Rewrite

FLAT = (DATA, EXPERT, SEQUENCE, TENSOR)


def with_changed_phases(opened: OpenSpec, changed: Sequence[Phase]) -> str:
    """The formatted file with some phases in the place of those of their names, as far as GPUs, sequences and degrees go; params as they
    were set. Raises SpecError with E12 where a phase is in an imported file."""
    rewrite = opened.rewrite(opened.spec.alternatives)
    for phase in changed:
        written = opened.phases[phase.name]
        if written.body.span.source != opened.source:
            message = f"phase `{phase.name}` is in an imported file, which is not rewritten"
            help_ = (f"move the phase into {opened.source.name}",)
            raise SpecError([Diagnostic("E12", message, written.body.span, help=help_)])
        _Phase(rewrite, written.body, opened.spec.phase(phase.name), phase).edit()
    return rewrite.text()


class _Phase:
    def __init__(self, rewrite: Rewrite, body: Body, old: Phase, new: Phase) -> None:
        self.rewrite, self.body, self.old, self.new = rewrite, body, old, new
        self.added: list[str] = []

    def edit(self) -> None:
        old, new = self.old.strategy, self.new.strategy
        for name, values in self.counts().items():
            if values[0] != values[1]:
                self.set(name, str(values[1]))
        if new.layers_per_stage != old.layers_per_stage and not new.balanced:
            cut = new.layers_per_stage
            self.set("layers_per_stage", f"[{', '.join(map(str, cut))}]" if cut is not None else None)
        if old.place is not None and new.place is None and "place gpu" in self.body.directives:
            self.rewrite.leave_out(self.body.directives["place gpu"].span)
        folded = old.attention is None and new.attention is not None
        for name in FLAT if folded or new.attention is None else ():
            if folded:
                self.set(name, None)
            elif getattr(old, name) != getattr(new, name):
                self.set(name, str(getattr(new, name)))
        for side, before, after in (
            ("attention", old.attention, new.attention),
            ("experts", old.experts, new.experts),
        ):
            if after is not None and after != before:
                self.fold(side, after)
        gpus = f"[{show_runs(self.new.gpus)}]" if self.new.gpus != self.old.gpus else None
        self.beside_gpus(gpus)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Numbers of a phase before and after."""
        names = ("replicas", STAGES, "redundant", "microbatches")
        found = {name: (getattr(self.old.strategy, name), getattr(self.new.strategy, name)) for name in names}
        return found if self.new.parts else {**found, "sequences": (self.old.sequences, self.new.sequences)}

    def set(self, name: str, text: str | None) -> None:
        """An attribute of the phase; None: it is left out."""
        assign = self.body.assigns.get(name)
        if assign is None:
            if name in self.body.bare:
                self.rewrite.leave_out(self.body.bare[name].span)
            if text is not None:
                self.added.append(f"{name} = {text}")
        elif text is None:
            self.rewrite.leave_out(assign.span)
        else:
            self.rewrite.replace(assign.value.span, text)

    def fold(self, side: str, degrees: Fold) -> None:
        """The degrees of attention or experts: each in place, others at the end of the section."""
        sections = self.body.sections.get(side, [])
        if not sections:
            inner = ", ".join(f"{axis} = {n}" for axis, n in degrees.degrees if n > 1) or "tp = 1"
            self.added.append(f"{side} {{ {inner} }}")
            return
        said = {s.name: s for section in sections for s in section.body if isinstance(s, (ast.Assign, ast.Bare))}
        new = []
        for axis, n in degrees.degrees:
            statement = said.get(axis)
            if isinstance(statement, ast.Assign):
                self.rewrite.replace(statement.value.span, str(n))
            elif statement is not None:
                self.rewrite.replace(statement.span, f"{axis} = {n}")
            elif n > 1:
                new.append(f"{axis} = {n}")
        if new:
            section = sections[-1]
            at = self.rewrite.source.text.index("{", section.kind_span.end) + 1
            self.rewrite.edits.append((at, at, f" {', '.join(new)}{',' if section.body else ''} "))

    def beside_gpus(self, gpus: str | None) -> None:
        """What is not written yet comes behind the GPUs, which every phase has."""
        value = self.body.assigns["gpus"].value.span
        if gpus is None and not self.added:
            return
        text = self.rewrite.source.text
        apart = "\n" if "\n" in text[self.body.span.end : value.start] else ", "
        sections = [added for added in self.added if added.endswith("}")]
        plain = [gpus or value.text, *(added for added in self.added if added not in sections)]
        self.rewrite.replace(value, apart.join([", ".join(plain), *sections]))
