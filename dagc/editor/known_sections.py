"""What the section around a place takes, from the language's own table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.schema.attribute import REQUIRED, Attribute
from ..base.sections import SECTIONS, Section
from ..spec.choice import ALTERNATIVE
from .statement_tree import ASSIGN, BARE, LINK, SECTION, Statement

KEYWORDS: dict[str, str] = {
    "moe": "the version of the language, first in every file: `moe 1`",
    "import": 'statements of another file, by a path relative to this one: `import "blocks.moe"`',
    "let": "a constant: `let x = 8`",
    "param": "a constant that `--set` changes within its domain: `param x = 8 in [4, 8]`",
    "require": 'what the plan must hold: `require "label" decode.tpot <= 20 ms`; `~` is equal within 5 %, or within `+- 2%`',
    "block": "a part of a layer, in index notation: `block name(x) { ... return y }`; `in decode`: the body for decode phases",
    "layer": "blocks in order: `layer sparse { gqa, moe }`",
    "return": "the result of a block",
    "from": "a preset of the library (`dagc list presets`), a `.moe` file, or a model's config.json",
    "in": "the domain of a param, or the kind of phase that a block's body is for",
    "true": "a flag that is set",
    "false": "a flag that is not set",
}
"""Reserved words -> what they begin."""
_FREE = Section("NAME { ... }", "sizes that the model's blocks read by their names", {}, free=True)
_IN_PHASE = f"phase.{ALTERNATIVE}"


def path_of(sections: Sequence[Statement]) -> str:
    """`phase.attention` of sections in each other; an alternative takes what its phase does."""
    path = ".".join(s.word for s in sections)
    return "phase" + path.removeprefix(_IN_PHASE) if path.startswith(_IN_PHASE) else path


def section_of(sections: Sequence[Statement]) -> Section | None:
    """What the innermost of sections in each other takes; None where that is not known."""
    if not sections or any(s.kind not in (SECTION, LINK) for s in sections):
        return None
    found = SECTIONS.get(path_of(sections))
    return _FREE if found is None and len(sections) == 2 and sections[0].word == "model" else found


def sections_in(sections: Sequence[Statement]) -> dict[str, Section]:
    """Sections that may be in it, by their first words; at the top, all of a file."""
    start = f"{path_of(sections)}." if sections else ""
    found = {p.removeprefix(start): one for p, one in SECTIONS.items() if p.startswith(start)}
    inside = {word: one for word, one in found.items() if "." not in word and " = " not in one.written}
    if any(s.word == ALTERNATIVE for s in sections):
        inside.pop(ALTERNATIVE, None)
    return inside


def given_in(section: Statement) -> set[str]:
    """Names of attributes and sections that a section has."""
    return {s.word for s in section.body if s.kind in (ASSIGN, BARE, SECTION)}


def missing(attributes: Mapping[str, Attribute], given: set[str]) -> list[str]:
    """Attributes that a section needs and does not have."""
    return [name for name, one in attributes.items() if one.default is REQUIRED and name not in given]
