"""A text that differs in some lines from one that was read has the tree that it has when it is read as a whole."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import EXAMPLES, ROOT, SHOWN, examples
from tiers import spread

from dagc.base.diagnostics import Collector
from dagc.base.frozen import fields_of, is_record
from dagc.base.render import render
from dagc.base.source import Source, Span
from dagc.base.syntax import ast, parse
from dagc.base.syntax.edited import edited
from dagc.base.syntax.plain_tree import plain

TEXTS = [path.read_text() for path in (*EXAMPLES, ROOT / "dagc/grammar/library/blocks.moe")]


def spans(value: Any) -> Iterator[Span]:
    if isinstance(value, Span):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from spans(each)
    elif is_record(type(value)):
        for name in fields_of(type(value)):
            yield from spans(getattr(value, name))


def read(text: str) -> tuple[ast.File, list[Any], str]:
    source, out = Source("plan.moe", text), Collector()
    file = parse.parse(source, out)
    assert all(span.source is file.span.source for span in spans(file))
    return file, [plain(one) for one in file.statements], render(out.items)


def alone(text: str) -> tuple[list[Any], str]:
    known, parse._clean = parse._clean, {}
    try:
        return read(text)[1:]
    finally:
        parse._clean = known


PIECES = (
    "\n",
    "#",
    "}",
    "{",
    "]",
    '"',
    ",",
    " ",
    "1",
    "x",
    "= 2\n",
    "let a = 3\n",
    "\n# what\n",
    "a = 1, b = 2\n",
    "moe 1\n",
    "block f(x) { return x }\n",
    "[\n",
)


def changed(rng: random.Random, text: str) -> str:
    """A few characters less, more, or a line elsewhere."""
    at = rng.randrange(len(text) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + rng.choice((1, 1, 2, 20, 300)) :]
    if kind == 1:
        return text[:at] + rng.choice(PIECES) + text[at:]
    lines = text.split("\n")
    k = rng.randrange(len(lines))
    if kind == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(k))
    else:
        digits = [i for i, c in enumerate(lines[k]) if c.isdigit()]
        if digits:
            i = rng.choice(digits)
            lines[k] = lines[k][:i] + str(rng.randrange(10)) + lines[k][i + 1 :]
    return "\n".join(lines)


IDS = [*(path.stem for path in EXAMPLES), "blocks"]


@pytest.mark.parametrize(
    "text", spread(TEXTS, [text for name, text in zip(IDS, TEXTS, strict=True) if name in {*SHOWN, "blocks"}]), ids=IDS
)
def test_edits_give_the_same_trees(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are no specs, with the same words."""
    rng = random.Random(7)
    monkeypatch.setattr(parse, "_clean", {})
    now = text
    for _ in range(examples(12)):
        now = changed(rng, now if rng.random() < 0.5 else text)
        assert read(now)[1:] == alone(now)


def test_only_lines_that_differ_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_clean", {})
    text = "moe 1\nlet a = 1, let b = 2\nlet c = 3 # three\nlet d = 4\n"
    read(text)
    asked: list[str] = []
    (known,) = parse._clean.values()
    for now in (text.replace("3", "33"), text + "# more\n", text.replace("2", "22"), "# first\n" + text):
        assert edited(Source("plan.moe", now), known, lambda lines: not asked.append(lines))
    assert asked == ["let c = 33 # three\n", "# more\n", "let a = 1, let b = 22\n", "# first\nmoe 1\n"]


def test_long_sums_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_clean", {})
    text = f"moe 1\nlet a = {' + 1' * 3000}\nlet b = 2\n".replace("=  +", "= 1 +")
    parse.parse(Source("plan.moe", text), Collector())
    (known,) = parse._clean.values()
    found = edited(Source("plan.moe", "\n" + text), known, lambda lines: True)
    assert found and found[0].statements[1].span.start == len("\nmoe 1\n")


def test_what_may_not_be_read_is_told_of_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_clean", {})
    text = "moe 1\nlet a = 1\nlet b = 2\n"
    read(text)
    for now in (
        text.replace("2", "2" * 100),
        text.replace("2", "(" * 70),
        text.replace("2", "\0"),
        text.replace("2", "1e999"),
    ):
        said = read(now)[2]
        assert "E01" in said and said == alone(now)[1]
