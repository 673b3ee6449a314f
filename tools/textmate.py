"""Writes grammar/textmate/moe.tmLanguage.json. Its words come from the language's own tables: keywords and the form of quantities
from the lark grammar, attributes and words of values from the schema, units and functions from theirs.

python tools/textmate.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from schema_tables import tables

from dagc.base.schema.attribute import DTYPES, Attribute
from dagc.base.schema.workload import ARRIVALS, LENGTHS
from dagc.base.syntax import lalr_tables
from dagc.base.units import UNITS
from dagc.lang.expand.functions import FUNCTIONS as OF_BLOCKS
from dagc.lang.values.functions import FUNCTIONS as OF_VALUES

TARGET = Path(__file__).resolve().parent.parent / "grammar" / "textmate" / "moe.tmLanguage.json"
NAME = "[A-Za-z_][A-Za-z0-9_]*"
STRING = r'"[^"\n]*"'
VALUES = ("true", "false")
"""Keywords of the lark grammar that are values."""
VERSION = "moe"
"""No keyword except before the version's number, and never a unit."""

Pattern = dict[str, Any]


@cache
def terminals() -> dict[str, str]:
    """Terminals of the lark grammar: name -> regular expression."""
    return {t.name: t.pattern.to_regexp() for t in lalr_tables.load().terminals}


def keywords() -> set[str]:
    """Reserved words of the lark grammar, without those that are values."""
    strings = (t.pattern.value for t in lalr_tables.load().terminals if t.pattern.type == "str")
    return {s for s in strings if s.isalpha()} - set(VALUES)


def _with_inner() -> list[dict[str, Any]]:
    """The tables of the schema, and those in them."""
    found = tables()
    return found + [inner for table in found for inner in table.values() if isinstance(inner, dict)]


def attributes() -> set[str]:
    """Words left of `=`: attributes of sections, and keywords of functions."""
    found = _with_inner()
    found += [function.keywords for function in OF_BLOCKS.values()]
    return {name for table in found for name, value in table.items() if isinstance(value, Attribute)}


def words() -> set[str]:
    """Words that are values: enumerations, dtypes, arrivals, lengths."""
    told = {w for t in _with_inner() for a in t.values() if isinstance(a, Attribute) for w in a.words}
    return told | {*DTYPES, *ARRIVALS, *LENGTHS}


def one_of(choices: Iterable[str]) -> str:
    """The longest first: a pattern takes the first that fits."""
    return "(?:" + "|".join(re.escape(c) for c in sorted(choices, key=lambda c: (-len(c), c))) + ")"


def rule(name: str, match: str, **captures: str) -> Pattern:
    """One line's pattern; `_1="scope"` names the first group."""
    made: Pattern = {"match": match}
    if name:
        made = {"name": f"{name}.moe", **made}
    if captures:
        made["captures"] = {key.removeprefix("_"): {"name": f"{scope}.moe"} for key, scope in captures.items()}
    return made


def quantities() -> list[Pattern]:
    """The lark terminal, cut where the unit begins. A unit that the language does not know shows as invalid."""
    number = r"[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?"
    if not terminals()["QUANTITY"].startswith(number):
        raise ValueError(f"QUANTITY of the lark grammar begins in another way: {terminals()['QUANTITY']}")
    per = r"/(?:s|ms|us|min|tok)\b"
    no_keyword = rf"(?!{one_of(keywords() | {*VALUES, VERSION})}\b)"
    known = rf"{one_of(UNITS)}(?:(?<=%)|(?![A-Za-z])(?!{per})(?!(?<=\$)/[A-Za-z]))"
    any_ = rf"(?:[A-Za-z]+(?:{per})?|\$(?:/[A-Za-z]+)?)"
    # `(?>...)`: the e of 671e9 is no unit.
    return [
        rule("", rf"((?>{number}))[ \t]*{no_keyword}({known})", _1="constant.numeric", _2="keyword.other.unit"),
        rule("", rf"((?>{number}))[ \t]*{no_keyword}({any_})", _1="constant.numeric", _2="invalid.illegal.unit"),
        rule("constant.numeric", number),
    ]


def statements() -> list[Pattern]:
    """What its place in a line tells: heads of sections and of definitions, names that get a value."""
    block: Pattern = {
        "begin": rf"\b(block)[ \t]+({NAME})[ \t]*(\()",
        "beginCaptures": captures("keyword.control", "entity.name.function", "punctuation.section.parens.begin"),
        "end": r"\)",
        "endCaptures": {"0": {"name": "punctuation.section.parens.end.moe"}},
        "patterns": [
            {"include": "#comment"},
            rule("variable.parameter", rf"\b{NAME}\b"),
            rule("punctuation.separator", ","),
        ],
    }
    reserved = rf"(?!{one_of(keywords() | set(VALUES))}\b)"
    head = rf"\b({reserved}{NAME})(?:[ \t]+({reserved}{NAME})|[ \t]*({STRING}))?"
    from_ = rf"[ \t]*\b(from)[ \t]*({STRING})"
    section = (
        "support.type.section",
        "entity.name.section",
        "string.quoted.double",
        "keyword.control",
        "string.quoted.double",
    )
    return [
        block,
        {"match": rf"\b(layer)[ \t]+({NAME})", "captures": captures("keyword.control", "entity.name.type")},
        {"match": rf"\b(let|param)[ \t]+({NAME})", "captures": captures("keyword.control", "variable.other.constant")},
        {"match": rf"\b(in)[ \t]+({NAME})(?=[ \t]*\{{)", "captures": captures("keyword.control", "entity.name.section")},
        rule("keyword.control", rf"\b{terminals()['MOE']}"),
        {"match": rf"\b(link)[ \t]+({NAME})[ \t]+(to)[ \t]+({NAME})",
         "captures": captures("support.type.section", "entity.name.section", "keyword.control", "entity.name.section")},
        {"match": rf"{head}{from_}", "captures": captures(*section)},
        {"match": rf"{head}[ \t]*(?=\{{)", "captures": captures(*section[:3])},
        {"match": rf"\b({reserved}{NAME})[ \t]+(?={reserved}{NAME}[ \t]*=(?!=))", "captures": captures("support.type.section")},
        rule("variable.other.property", rf"\b{one_of(attributes())}\b(?=[ \t]*=(?!=))"),
        rule("variable.other.assignment", rf"\b{reserved}{NAME}(?=[ \t]*\[[^\]\n]*\][ \t]*=(?!=))"),
        rule("variable.other.assignment", rf"\b{reserved}{NAME}(?=[ \t]*=(?!=))"),
    ]  # fmt: skip


def captures(*scopes: str) -> dict[str, Pattern]:
    return {str(i): {"name": f"{scope}.moe"} for i, scope in enumerate(scopes, 1)}


def expressions() -> list[Pattern]:
    known = one_of({*OF_BLOCKS, *OF_VALUES} | {*ARRIVALS, *LENGTHS})
    alone = r"(?<!\.)\b{}\b(?![ \t]*[.(\[]|[ \t]*=(?!=))"
    return [
        rule("keyword.control", rf"\b{one_of(keywords())}\b"),
        rule("constant.language.boolean", rf"\b{one_of(VALUES)}\b"),
        rule("support.function", rf"(?<!\.)\b{known}(?=[ \t]*\()"),
        rule("entity.name.function", rf"\b{NAME}(?=[ \t]*\()"),
        rule("support.constant", alone.format(one_of(words()))),
        rule("variable.other", rf"\b{NAME}\b"),
        rule("keyword.operator.tolerance", r"\+-"),
        rule("keyword.operator.range", r"\.\."),
        rule("keyword.operator.comparison", terminals()["COMPARE"]),
        rule("keyword.operator.assignment", "="),
        rule("keyword.operator.arithmetic", "[-+*/]"),
        rule("punctuation.accessor", r"\."),
        rule("punctuation.separator", ","),
        *(
            rule(f"punctuation.section.{kind}.{side}", re.escape(bracket))
            for kind, pair in (("braces", "{}"), ("brackets", "[]"), ("parens", "()"))
            for side, bracket in zip(("begin", "end"), pair, strict=True)
        ),
    ]


def grammar() -> dict[str, Any]:
    repository = {
        "comment": [rule("comment.line.number-sign", terminals()["COMMENT"])],
        "statement": statements(),
        "string": [rule("string.quoted.double", STRING), rule("invalid.illegal.unterminated", r'"[^"\n]*$')],
        "quantity": quantities(),
        "expression": expressions(),
    }
    return {
        "name": "moe",
        "scopeName": "source.moe",
        "fileTypes": ["moe"],
        "patterns": [{"include": f"#{name}"} for name in repository],
        "repository": {name: {"patterns": patterns} for name, patterns in repository.items()},
    }


def text() -> str:
    return json.dumps(grammar(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
