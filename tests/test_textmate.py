"""The TextMate grammar against the lark grammar: the editor's engine colours every token of every spec as lark reads it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import textmate
from conftest import ROOT, examples
from node_modules import EDITOR, needs_packages, node
from random_sentences import sentence

from dagc.base.syntax import lalr_tables
from dagc.base.units import UNITS

SPECS = sorted(p for p in ROOT.rglob("*.moe") if "build" not in p.parts and ".venv" not in p.parts)

BY_TERMINAL = {
    "COMMENT": "comment.line", "STRING": "string.quoted.double", "TRUE": "constant.language.boolean", "FALSE": "constant.language.boolean",
    "MOE": "keyword.control", "JOIN": "support.type.section", "COMPARE": "keyword.operator.comparison",
    "EQUAL": "keyword.operator.assignment", "PLUS": "keyword.operator.arithmetic", "MINUS": "keyword.operator.arithmetic",
    "STAR": "keyword.operator.arithmetic", "SLASH": "keyword.operator.arithmetic", "+-": "keyword.operator.tolerance",
    "..": "keyword.operator.range", "DOT": "punctuation.accessor", "COMMA": "punctuation.separator", "NAME": "",
    "LBRACE": "punctuation.section.braces", "RBRACE": "punctuation.section.braces", "LSQB": "punctuation.section.brackets",
    "RSQB": "punctuation.section.brackets", "LPAR": "punctuation.section.parens", "RPAR": "punctuation.section.parens",
}  # fmt: skip
"""Terminal (or its text) -> the scope of its tokens; a name's follows from where it stands, a quantity's has two parts."""
NAMED = ("variable.other", "support.constant")


def expected(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Spans of tokens, each with the scopes that it may have."""
    comments = re.finditer(r'"[^"\n]*"|(#[^\n]*)', text)
    yield from ((*m.span(1), (BY_TERMINAL["COMMENT"],)) for m in comments if m[1])
    roles = dict(_roles(lalr_tables.load().parse(text)))
    for token in lalr_tables.load().lex(text):
        start, end = token.start_pos, token.end_pos
        if token.type == "NAME":
            yield start, end, roles[start]
        elif token.type == "QUANTITY":
            number, unit = _parts(str(token))
            yield start, start + len(number), ("constant.numeric",)
            if unit:
                yield end - len(unit), end, ("keyword.other.unit" if unit in UNITS else "invalid.illegal.unit",)
        elif token.type != "_END" or token.value == ",":
            scope = (
                BY_TERMINAL["COMMA"]
                if token.value == ","
                else BY_TERMINAL.get(token.type) or BY_TERMINAL.get(str(token))
            )
            yield start, end, (scope or "keyword.control",)


def _parts(quantity: str) -> tuple[str, str]:
    number = re.match(r"[0-9_.]*(?:[eE][+-]?[0-9]+)?", quantity)
    assert number is not None
    return number[0], quantity[number.end() :].strip()


def _roles(tree: Any) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Where each name of the tree begins, and what it may be coloured as."""
    roles: dict[str, list[tuple[str, ...]]] = {
        "section": [("support.type.section",)], "joining": [("entity.name.section",), ("keyword.control",), ("entity.name.section",)],
        "label": [("entity.name.section",)], "block": [("entity.name.function",)], "words": [("variable.parameter",)] * 999,
        "phase": [("entity.name.section",)], "layer": [("entity.name.type",)], "let": [("variable.other.constant",)],
        "param": [("variable.other.constant",)], "assign": [("variable.other.property", "variable.other.assignment")],
        "keyword": [("variable.other.property", "variable.other.assignment")], "tensor": [("variable.other", "support.type")],
        "directive": [("support.type.section",), ("variable.other.property", "variable.other.assignment")],
    }  # fmt: skip
    called = {call.children[0].children[-1].children[0].start_pos for call in tree.find_data("call")}
    for node_ in tree.iter_subtrees():
        words = [c.children[0] for c in node_.children if getattr(c, "data", None) == "word"]
        for word, scopes in zip(words, roles.get(node_.data, [NAMED] * len(words)), strict=False):
            yield word.start_pos, ("support.function", "entity.name.function") if word.start_pos in called else scopes


def wrong(text: str, scopes: list[tuple[int, int, str]]) -> list[str]:
    """Tokens that are coloured otherwise than lark reads them."""
    found = []
    at = [""] * len(text)
    for start, end, name in scopes:
        at[start:end] = [name] * (end - start)
    for start, end, allowed in expected(text):
        names = sorted(set(at[start:end]))
        if not all(name.startswith(allowed) for name in names):
            line = text.count("\n", 0, start) + 1
            found.append(f"line {line}: {text[start:end]!r} is {names}, not {allowed}")
    return found


def scoped(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    told = {"grammar": str(textmate.TARGET), "texts": texts}
    return [[(s, e, n) for s, e, n in found] for found in node(EDITOR / "test" / "scopes.mjs", told=told)]


def readable(text: str) -> bool:
    try:
        lalr_tables.load().parse(text)
    except Exception:
        return False
    return True


def test_grammar_is_as_its_tables_say() -> None:
    assert textmate.TARGET.read_text() == textmate.text(), "python tools/textmate.py"


def test_every_terminal_has_a_scope() -> None:
    """A new terminal of the lark grammar needs a line here and a pattern there."""
    keywords = {word.upper() for word in textmate.keywords()}
    names = {t.name: t.pattern.value for t in lalr_tables.load().terminals}
    lacking = {
        n
        for n, v in names.items()
        if n not in keywords | {*BY_TERMINAL, "QUANTITY", "_END", "WHITE"} and v not in BY_TERMINAL
    }
    assert not lacking


@needs_packages
def test_every_spec_is_coloured_as_it_is_read() -> None:
    texts = {path: text for path in SPECS if readable(text := path.read_text())}
    assert len(texts) > 90
    faults = {str(p): w for p, s in zip(texts, scoped(list(texts.values())), strict=True) if (w := wrong(texts[p], s))}
    assert not faults


@needs_packages
def test_random_texts_are_coloured_as_they_are_read() -> None:
    texts = [sentence(random.Random(seed), broken=False) for seed in range(examples(300))]
    faults = {t: w for t, s in zip(texts, scoped(texts), strict=True) if (w := wrong(t, s))}
    assert not faults


TYPED = (
    ('let a = "open', '"open', "invalid.illegal.unterminated"),
    ("  memory = 80 GBs", "GBs", "invalid.illegal.unit"),
    ("  gpu = 8", "gpu", "variable.other.assignment"),
    ("  gpus = 8", "gpus", "variable.other.property"),
    ("x = 4 GB/seq", "/", "keyword.operator.arithmetic"),
    ("x = 671e9", "671e9", "constant.numeric"),
    ("a +- 1%", "+-", "keyword.operator.tolerance"),
    ("# moe 1", "# moe 1", "comment.line"),
    ("kind = moe", "moe", "variable.other"),
    ("while typing (", "(", "punctuation.section.parens"),
)
"""Text, a part of it, its scope: lines that lark refuses, and those that are easily coloured wrong."""


@needs_packages
def test_what_is_being_typed() -> None:
    for (text, part, scope), scopes in zip(TYPED, scoped([text for text, _, _ in TYPED]), strict=True):
        at = text.index(part)
        names = [n for s, e, n in scopes if s <= at < e]
        assert names and names[0].startswith(scope), text


def test_words_are_of_the_tables() -> None:
    """The three kinds of words that others write by hand elsewhere."""
    made = json.dumps(textmate.grammar())
    assert all(word in made for word in ("layers_per_stage", "deepep_ht", "rms_norm", "TFLOP/s", "poisson", "mxfp8"))
