"""grammar/tree_sitter against the lark grammar: the same texts are accepted, as the same trees. The corpus is checked too."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_grammar
from conftest import ROOT, examples
from node_modules import needs_node
from random_sentences import sentence
from tiers import all_tests
from tree_sitter_grammar import FOLDER, START, Node
from tree_sitter_program import generated, needs_generator, ran, trees

from dagc.base.syntax import lalr_tables

pytestmark = needs_node

SPECS = sorted(p for folder in ("examples", "grammar", "tests", "docs") for p in (ROOT / folder).rglob("*.moe"))
NAMES = {"start": START, "import_": "import", "from_": "from", "return_": "return"}
"""Rules of lark that have another name here, where a word of Python is in the way."""
DIFFERENT = {
    "let a = 4 GB2": (False, True),  # a unit is lexed as a word
    "let a = 8 GB/seq": (True, False),  # `/s` of a unit; with blanks around `/` both divide
}
"""The known differences that this parser shows too: text -> whether lark and tree-sitter accept it. The third of the README, `1 +-2`,
needs states that LALR merges."""
LIKE_THESE = re.compile(r"[0-9][ \t]*[A-Za-z]+[0-9_]|/(?:s|ms|us|min|tok)\w")
"""Texts that may differ so."""


def by_lark(text: str) -> Node | None:
    """The tree in terms of tree-sitter's: without `word`, tokens that are constant, and placeholders."""
    try:
        tree = lalr_tables.load().parse(text)
    except Exception:
        return None
    return _normal(tree)


def _normal(tree: Any) -> Node:
    rule = str(tree.data)
    children = [_leaf(c) if not hasattr(c, "data") else _normal(c) for c in tree.children if c is not None]
    if rule == "joining":
        del children[2]  # its middle word, `to`
    named = [c for c in children if c is not None]
    if rule == "word":
        return ("identifier", named[0][1])
    if rule == "string":
        return named[0]
    return (NAMES.get(rule, rule), tuple(named))


def _leaf(token: Any) -> Node | None:
    text = re.sub(r"[ \t%]", "", token)
    leaves: dict[str, Node] = {
        "NAME": ("identifier", text), "QUANTITY": ("quantity", text), "STRING": ("string", ()), "COMPARE": ("compare", ()),
    }  # fmt: skip
    return leaves.get(token.type)


def by_tree_sitter(text: str) -> Node | None:
    try:
        tree = tree_sitter_grammar.parse(text)
    except Exception:
        return None
    return _plain(tree)


def _plain(node: Node) -> Node:
    """A quantity as one token: lark's lexer cuts it so."""
    name, children = node
    if isinstance(children, str):
        return node
    return (name, "".join(text for _, text in children) if name == "quantity" else tuple(_plain(c) for c in children))


def mutants(text: str, rng: random.Random, count: int) -> Iterator[str]:
    """Texts with one token left out, doubled, exchanged for another of the text, or put elsewhere."""
    tokens = [t for t in lalr_tables.load().lex(text)]
    for _ in range(count):
        here, there = rng.choice(tokens), rng.choice(tokens)
        new = rng.choice(("", f"{here} {here}", str(there), f"{there} {here}", f"{here} {there}"))
        yield text[: here.start_pos] + new + text[here.end_pos :]


def one_line(tree: Node) -> str:
    """As the corpus and tree-sitter print it."""
    name, children = tree
    return f"({' '.join([name, *(one_line(c) for c in children if not isinstance(children, str))])})"


def test_every_spec_is_one_tree() -> None:
    specs = SPECS if all_tests() else SPECS[::12]
    trees = {path: by_lark(path.read_text()) for path in specs}  # a text that lark refuses has no tree in either
    assert sum(tree is not None for tree in trees.values()) > len(specs) / 2
    assert not [str(path) for path, tree in trees.items() if tree != by_tree_sitter(path.read_text())]


def test_random_texts_are_one_tree() -> None:
    for seed in range(examples(200)):
        text = sentence(random.Random(seed))
        assert (tree := by_lark(text)) is not None and by_tree_sitter(text) == tree, text


def test_of_one_wrong_token_both_think_alike() -> None:
    rng = random.Random(22)
    specs = SPECS if all_tests() else SPECS[::6]
    texts = [path.read_text() for path in specs if by_lark(path.read_text()) is not None]
    tried = {
        mutant: by_lark(mutant)
        for text in rng.sample(texts, examples(30, 20))
        for mutant in mutants(text, rng, examples(10))
    }
    refused = [text for text, tree in tried.items() if tree is None]
    assert len(tried) / 5 < len(refused) < len(tried) * 4 / 5
    assert not [text for text, tree in tried.items() if tree != by_tree_sitter(text) and not LIKE_THESE.search(text)]


@pytest.mark.parametrize("text", DIFFERENT)
def test_known_differences_are_still_there(text: str) -> None:
    assert (by_lark(text) is not None, by_tree_sitter(text) is not None) == DIFFERENT[text]
    assert f"`{text.removeprefix('let a = ')}`" in (FOLDER / "README.md").read_text()


def test_grammar_has_no_conflict(caplog: pytest.LogCaptureFixture) -> None:
    """What is LALR(1) without a conflict is so for tree-sitter, which merges fewer states."""
    import lark

    converted = tree_sitter_grammar.Converted(tree_sitter_grammar.grammar_json())
    with caplog.at_level(logging.DEBUG, logger=lark.logger.name):
        lark.Lark(converted.text(), start=f"r_{START}", parser="lalr", lexer="contextual", debug=True)
    assert "conflict" not in caplog.text


def corpus() -> Iterator[tuple[str, str, str]]:
    """Title, text, and the tree as one line ("" where an error is expected)."""
    for path in sorted((FOLDER / "test" / "corpus").glob("*.txt")):
        parts = re.split(r"^=+\n(.+)\n((?::\w+\n)*)=+\n", path.read_text(), flags=re.MULTILINE)
        for title, marks, case in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            text, _, tree = case.partition("\n---\n")
            wanted = (
                ""
                if ":error" in marks
                else re.sub(r"\s+", " ", tree.replace("(comment)", "")).replace(" )", ")").strip()
            )
            yield f"{path.stem}: {title}", text, wanted


@pytest.mark.parametrize(("title", "text", "tree"), list(corpus()))
def test_corpus(title: str, text: str, tree: str) -> None:
    found = by_tree_sitter(text)
    assert (one_line(tree_sitter_grammar.parse(text)) if found is not None else "") == tree
    assert (by_lark(text) is None) == (not tree)


def test_queries_name_nodes_that_there_are() -> None:
    """A query that names an unknown node or token keeps an editor from loading any of them."""
    rules = tree_sitter_grammar.grammar_json()["rules"]
    text = (FOLDER / "grammar.js").read_text()
    nodes = set(rules) | set(re.findall(r"\$\.(\w+)", text)) | {"ERROR"}
    for query in sorted((FOLDER / "queries").glob("*.scm")):
        told = re.sub(r";.*|#[\w-]+\?", "", query.read_text())
        tokens = set(re.findall(r'"((?:[^"\\]|\\.)*)"', re.sub(r"\((?:any-of|match|eq)\?[^)]*\)", "", told)))
        assert set(re.findall(r"\(([a-z_A-Z]+)", re.sub(r'"[^"]*"', "", told))) <= nodes, query.name
        assert all(f'"{token}"' in text for token in tokens), (query.name, tokens)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(tmp_path_factory.mktemp("grammar"))


def wrong(program: Path, texts: list[str]) -> list[str]:
    """Texts whose trees differ between lark and the generated parser."""
    own = [None if (tree := by_lark(text)) is None else one_line(tree) for text in texts]
    return [text for text, one, other in zip(texts, own, trees(program, texts), strict=True) if one != other]


@needs_generator
def test_the_generated_parser_builds_the_same_trees(program: Path) -> None:
    """The same as of the parser that lark makes: every spec, random texts, and texts with one wrong token."""
    rng = random.Random(23)
    specs = [path.read_text() for path in SPECS]
    whole = [text for text in specs if by_lark(text) is not None]
    sentences = [sentence(random.Random(seed)) for seed in range(examples(200))]
    changed = [mutant for text in rng.sample(whole, 30) for mutant in mutants(text, rng, examples(10))]
    assert wrong(program, [*specs, *sentences]) == []
    assert [text for text in wrong(program, changed) if not LIKE_THESE.search(text) and "+-" not in text] == []


@needs_generator
def test_the_generated_parser_has_the_differences_that_are_known(program: Path) -> None:
    known = {**DIFFERENT, "let a = 1 +-2": (False, True)}
    found = dict(zip(known, trees(program, [f"{text}\n" for text in known]), strict=True))
    assert {text: (by_lark(text) is not None, tree is not None) for text, tree in found.items()} == known


@needs_generator
def test_the_program_passes_the_corpus_and_reads_every_query(program: Path) -> None:
    told = ran(program, "test")
    assert told.returncode == 0, told.stdout + told.stderr
    example = str(ROOT / "examples" / "plan_a.moe")
    for query in sorted((FOLDER / "queries").glob("*.scm")):
        asked = ran(program, "query", f"queries/{query.name}", example)
        assert asked.returncode == 0 and "capture" in asked.stdout, asked.stderr
