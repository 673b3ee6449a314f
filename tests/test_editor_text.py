"""What the editor package reads of a text: places as editors count them, and statements as the parser has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiers import spread

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.base.syntax import ast
from dagc.base.syntax.parse import parse
from dagc.editor import statement_tree as tree
from dagc.editor.buffer import ENCODINGS, Document, Edit, applied, moved
from dagc.editor.layout import line_edits

ROOT = Path(__file__).parent.parent
SPECS = sorted([*(ROOT / "examples").rglob("*.moe"), *(ROOT / "grammar" / "library").rglob("*.moe")])
KINDS = {
    ast.Version: tree.VERSION, ast.Import: tree.IMPORT, ast.Let: tree.LET, ast.Param: tree.PARAM, ast.Assign: tree.ASSIGN,
    ast.Bare: tree.BARE, ast.Directive: tree.DIRECTIVE, ast.Section: tree.SECTION, ast.Joining: tree.LINK,
    ast.Require: tree.REQUIRE, ast.TensorAssign: tree.TENSOR, ast.Return: tree.RETURN, ast.BlockDef: tree.BLOCK,
    ast.LayerDef: tree.LAYER,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_places_are_those_of_python_s_own_encoder(encoding: str) -> None:
    """Lines end at \\n, \\r\\n and \\r alone; a character outside of the basic plane has two units in UTF-16."""
    raw = "moe 1\r\n# a😀b é\u2028c\r\nlet x = 1 # 😀\n\rend"
    document = Document.of(raw)
    assert document.newline == "\r\n" and "\r\n" not in document.text
    lines = document.text.replace("\r", "\n").split("\n")
    size = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    offset = 0
    for number, line in enumerate(lines):
        for column in range(len(line) + 1):
            unit = len(line[:column].encode(encoding.replace("-", "_") + ("" if size == 1 else "_le"))) // size
            assert document.position(offset + column, encoding) == (number, unit)
            assert document.offset(number, unit, encoding) == offset + column
        offset += len(line) + 1
    assert document.offset(99, 0, encoding) == len(document.text)
    assert document.offset(0, 99, encoding) == len("moe 1")  # beyond a line is its end


def test_a_unit_inside_a_character_is_its_start() -> None:
    assert Document("# 😀x").offset(0, 3) == 2
    assert Document("# 😀x").offset(0, 4) == 3


@pytest.mark.parametrize("path", spread(SPECS, 3, of=lambda path: path.parent), ids=lambda p: p.stem)
def test_statements_are_the_parser_s(path: Path) -> None:
    """Kinds, order and nesting of all statements of every spec in the repository."""
    text = path.read_text()

    def of_parser(statements: tuple[ast.Node, ...]) -> list[object]:
        return [
            (KINDS[type(s)], of_parser(tuple(getattr(s, "body", ()))))  # type: ignore[index]
            if not isinstance(s, ast.LayerDef)
            else (tree.LAYER, [(tree.BARE, []) if len(b.parts) == 1 else (tree.OTHER, []) for b in s.blocks])
            for s in statements
        ]

    def of_tree(statements: tuple[tree.Statement, ...]) -> list[object]:
        return [(s.kind, of_tree(s.body)) for s in statements]

    out = Collector()
    assert of_tree(tree.statements_of(text)) == of_parser(parse(Source("a", text), out).statements)
    assert not out.items


def test_a_brace_that_is_missing_does_not_take_the_rest_of_the_file() -> None:
    found = tree.statements_of("moe 1\nphase a {\n  attention { tp = 2\nphase b { tp = 1 }\nrequire b.ttft < 1 s\n")
    assert [(s.kind, s.word, s.closed) for s in found] == [
        ("version", "moe", True), ("section", "phase", False), ("section", "phase", True), ("require", "require", True),
    ]  # fmt: skip


def test_edits_of_lines_give_the_new_text() -> None:
    before, after = "a\nb\nc\nd", "a\nx\ny\nc\nd\n"
    edits = line_edits(before, after)
    assert applied(before, edits) == after and len(edits) == 2
    assert applied("abc", [Edit(0, 1, "x"), Edit(2, 3, "")]) == "xb"


def test_an_offset_moves_with_the_text_around_it() -> None:
    assert moved(2, "abcdef", "abXdef") is None
    assert moved(4, "abcdef", "abXXXdef") == 6
    assert moved(1, "abcdef", "abXXXdef") == 1
