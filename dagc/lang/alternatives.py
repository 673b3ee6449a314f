"""Alternatives of a phase: layouts of which a plan has one. Each overrides what the phase itself says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..base.axes import ATTENTION_SIDE, AXES, IN_EXPERTS
from ..base.diagnostics import Collector, Label
from ..base.frozen import record
from ..base.syntax import ast
from ..spec.choice import ALTERNATIVE, Alternatives
from .body import Body

NAME = r"(?!\d)\w[\w.-]{0,63}"
"""It is given on command lines, in lists."""
MOST = 64
"""Alternatives of one phase."""
MOST_STATEMENTS = 20_000
"""Which they have in common, counted for each."""


@record
class Variants:
    """The statements of a phase as each of its alternatives has them, by name, those of the phase itself included; without
    alternatives they are its own, without a name. Alternatives that are wrong in themselves are left out."""

    bodies: Mapping[str, Body]
    chosen: str = ""

    @property
    def body(self) -> Body | None:
        """Of the chosen one."""
        return self.bodies.get(self.chosen)

    @property
    def others(self) -> list[Body]:
        return [body for name, body in self.bodies.items() if name != self.chosen]

    @property
    def known(self) -> Alternatives | None:
        return Alternatives(tuple(self.bodies), self.chosen) if self.chosen else None


def sections_of(section: ast.Section) -> list[ast.Section]:
    """The alternatives of a phase, in order."""
    return [s for s in section.body if isinstance(s, ast.Section) and s.kind == ALTERNATIVE]


def common_of(section: ast.Section) -> list[ast.Statement]:
    """What all alternatives of a phase share."""
    return [s for s in section.body if not (isinstance(s, ast.Section) and s.kind == ALTERNATIVE)]


def read_variants(section: ast.Section, body: Body, picked: str | None, out: Collector) -> Variants:
    """`body`: statements of the phase, which are read; `picked`: the alternative that is asked for (default: the first)."""
    found = sections_of(section)
    if not found:
        return Variants({"": body})
    if len(found) > MOST:
        out.add("E03", f"a phase has at most {MOST} alternatives, this one {len(found)}", found[MOST].kind_span)
        return Variants({})
    common = common_of(section)
    if len(common) * len(found) > MOST_STATEMENTS:
        message = f"{len(found)} alternatives share {len(common):,} statements: at most {MOST_STATEMENTS:,} in all"
        out.add("E03", message, found[0].kind_span)
        return Variants({})
    seen: set[str] = set()
    bodies: dict[str, Body] = {}
    for one in found:
        if one.name is None:
            out.add("E10", "an alternative needs a name", one.kind_span, help=("alternative wide { ... }",))
        elif not re.fullmatch(NAME, one.name):
            help_ = ("letters, digits, `_`, `-` and `.`, beginning with a letter or `_`",)
            out.add("E08", f"`{one.name}` cannot be the name of an alternative", one.kind_span, help=help_)
        elif one.preset is not None:
            out.add("E12", "an alternative has no presets", one.preset.span)
        elif one.name not in seen:  # else it is told that it is given twice
            errors = out.errors
            for inner in sections_of(one):
                out.add("E12", "an alternative has no alternatives", inner.kind_span)
            merged = _merged(section, common, one, out)
            bodies |= {one.name: merged} if out.errors == errors else {}
        seen.add(str(one.name))
    return Variants(bodies, picked if picked in bodies else next(iter(bodies), ""))


def _merged(section: ast.Section, common: Sequence[ast.Statement], one: ast.Section, out: Collector) -> Body:
    body = Body(section.kind_span)
    body.add(common, Collector())  # which is told of the phase
    body.add(common_of(one), out)
    _flat(body, one, out)
    return body


def _flat(body: Body, one: ast.Section, out: Collector) -> None:
    """Flat degrees of an alternative beside `attention` or `experts` of the phase, which would hide them."""
    own = {s.kind for s in one.body if isinstance(s, ast.Section)}
    hiding = [fold for fold in ("attention", "experts") if fold in body.sections and fold not in own]
    bare = {b.name for fold in hiding for s in body.sections[fold] for b in s.body if isinstance(b, ast.Bare)}
    for s in one.body if hiding else ():
        if (
            isinstance(s, ast.Assign)
            and s.name in AXES
            and s.name in (*ATTENTION_SIDE, *IN_EXPERTS)
            and s.name not in bare
        ):
            side = "attention" if s.name in ATTENTION_SIDE else "experts"
            also = tuple(Label(body.span_of(fold), "of the phase, which hides it") for fold in hiding)
            out.add(
                "E12", f"`{s.name}` of the alternative says nothing beside `{'` and `'.join(hiding)}`", s.span, also=also,
                help=(f"write `{side} {{ {s.name} = {s.value.span.text} }}`",),
            )  # fmt: skip


def picks(
    sections: Sequence[ast.Section], settings: Mapping[str, str], constants: Mapping[str, ast.Node], out: Collector
) -> tuple[dict[str, str], dict[str, str]]:
    """`--set` taken apart: alternatives by phase, and what is of params. What is wrong is reported."""
    rest, picked = dict(settings), {}
    for section in sections:
        names = [str(one.name) for one in sections_of(section) if one.name is not None]
        if section.kind != "phase" or not names or section.name is None:
            continue
        if section.name in constants:
            also = (Label(constants[section.name].span, "the constant"),)
            message = f"`--set {section.name}=...` could mean the constant, or an alternative of the phase"
            out.add("E11", message, section.kind_span, also=also, help=("give one of them another name",))
            rest.pop(section.name, None)
        elif section.name in rest:
            name = rest.pop(section.name).strip().strip('"')
            if name not in names:
                near = out.near(name, names)
                help_ = (f"did you mean `{near}`?" if near else f"its alternatives: {', '.join(names[:12])}",)
                out.add("E14", f"phase `{section.name}` has no alternative `{name}`", section.kind_span, help=help_)
            picked[section.name] = name
    return picked, rest
