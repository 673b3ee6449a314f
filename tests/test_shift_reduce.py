"""The parser of clean texts makes lark's trees, and of texts with errors none; the shipped trees are those of the library's text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from lark.exceptions import UnexpectedInput
from tiers import all_tests

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.base.syntax import lalr_tables, moe_tables, shift_reduce
from dagc.base.syntax.parse import parse
from dagc.base.syntax.plain_tree import KINDS, plain, restored
from dagc.lang import library, stock_trees

ROOT = Path(__file__).parent.parent
TEXTS = [
    file.read_text(encoding="utf-8") + "\n"
    for folder in ("examples", "grammar/library")
    for file in sorted((ROOT / folder).rglob("*.moe"))
]
PIECES = [
    *"{}()[],.=+-*/<>~%$#\"\n \t_e0'",
    "..",
    "+-",
    "moe 1",
    "let ",
    "in",
    "link a to b ",
    "1e3",
    "2.5 GB/s",
    "true",
    "",
]


def shape(tree: Any) -> Any:
    """Names, words and places of a tree of either parser."""
    if tree is None or not hasattr(tree, "children"):
        return tree if tree is None else (str(tree), tree.start_pos, tree.end_pos)
    meta = tree.meta
    ends = getattr(meta, "start_pos", None), getattr(meta, "end_pos", None)
    return (str(tree.data), ends, [shape(child) for child in tree.children])


def by_lark(text: str) -> Any:
    try:
        return shape(lalr_tables.load().parse(text))
    except UnexpectedInput:
        return None


def test_the_tables_are_of_the_grammar() -> None:
    parser, text = lalr_tables.load(), lalr_tables.grammar_text()
    assert Path(moe_tables.__file__).read_text(encoding="utf-8") == lalr_tables.as_source(parser, text)


@pytest.mark.parametrize(
    "text", ["", "\n", "moe 1", "moe 1\n", "# nothing", "moe 1\nx = (1 +\n2)\n", "moe 1\nlet a = [\n]\n"]
)
def test_small_texts(text: str) -> None:
    assert shape(shift_reduce.tree(text, moe_tables)) == by_lark(text)


def test_every_text_of_the_library_and_the_examples() -> None:
    for text in TEXTS if all_tests() else TEXTS[::12]:
        assert shape(shift_reduce.tree(text, moe_tables)) == by_lark(text) is not None


def test_texts_that_were_changed_at_random_have_the_same_tree_or_none() -> None:
    rng = random.Random(4)
    short = [text for text in TEXTS if len(text) < 1500]
    broken = 0
    for _ in range(150):
        text = rng.choice(short)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(PIECES) + text[at + rng.choice([0, 0, 1, 5, 30]) :]
        wanted = by_lark(text)
        broken += wanted is None
        assert shape(shift_reduce.tree(text, moe_tables)) == wanted, text
    assert 30 < broken < 150


def test_tables_of_another_grammar_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "moe 1\nlet a = 2 GB\n"
    wanted = parse(Source("one", text), Collector())
    monkeypatch.setattr(moe_tables, "KEY", 0)
    monkeypatch.setattr(moe_tables, "STATES", ())
    assert parse(Source("two", text), Collector()) == wanted


def test_shipped_trees_are_those_of_the_text() -> None:
    shipped, wanted = library.stock(), library.parsed(library.blocks())
    assert isinstance(shipped, library.Shipped) and dict(shipped) == dict(wanted)
    assert list(shipped) == list(wanted)
    assert {key: plain(block) for key, block in wanted.items()} == stock_trees.BLOCKS  # places of the text too


def test_trees_of_another_text_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_trees, "KEY", 0)
    assert library.stock.__wrapped__() == dict(library.stock())


def test_every_node_is_restored() -> None:
    for text in TEXTS[:20]:
        source = Source("text", text)
        for statement in parse(source, Collector()).statements:
            back = restored(plain(statement), source)
            assert back == statement and plain(back) == plain(statement)
    assert len(set(KINDS)) == len(KINDS)
