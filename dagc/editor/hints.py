"""What a text does not say and a reader wants to know, beside its lines: GPUs, what a phase takes, parameters."""

from __future__ import annotations

from ..base.frozen import record
from .buffer import Document
from .checked import Checked
from .library_files import unquoted
from .statement_tree import LET, PARAM, SECTION, VERSION, Statement
from .tokens import NAME


@record
class Hint:
    """A few words at an offset; `about`: more of them."""

    offset: int
    text: str
    about: str = ""


def hints(document: Document, checked: Checked, start: int = 0, end: int | None = None) -> list[Hint]:
    """Those between two offsets."""
    last = len(document.text) if end is None else end
    found: list[Hint] = []
    for s in document.statements:
        if s.kind == VERSION and checked.verdict:
            found.append(Hint(s.end, checked.verdict, "\n".join(checked.limits)))
        elif s.kind == SECTION and s.inside is not None:
            found += _section(s, checked, document.text)
        elif s.kind in (LET, PARAM) and s.name is not None and len(s.value) > 1:
            value = checked.constants.get(s.name.text)
            computed = any((t.kind == NAME and t.text != "in") or t.text in "+*/" for t in s.value)
            if value is not None and computed and s.kind == LET:
                found.append(Hint(s.end, f"= {value}"))
    return [hint for hint in found if start <= hint.offset <= last]


def _beside(s: Statement, text: str) -> int:
    """Behind what opens a section of several lines, and behind one of a single line: between its words it would read as one of them."""
    assert s.inside is not None
    return s.inside[0] if "\n" in text[s.inside[0] : s.end] else s.end


def _section(s: Statement, checked: Checked, text: str) -> list[Hint]:
    if s.word == "model" and checked.params:
        return [Hint(_beside(s, text), checked.params)]
    if s.word != "phase" or s.name is None:
        return []
    facts = checked.phases.get(unquoted(s.name))
    if facts is None:
        return []
    found = [Hint(_beside(s, text), facts.cost, f"{facts.kind}, as compiled")] if facts.cost else []
    gpus = s.attribute("gpus")
    if gpus is not None:
        found.append(Hint(gpus.end, facts.product, "degrees whose product is the number of GPUs"))
    experts = s.section("experts")
    if facts.experts and experts is not None and experts.inside is not None:
        found.append(Hint(_beside(experts, text), facts.experts, "degrees of the experts"))
    return found
