"""The formatter: one layout, comments kept, the tree untouched."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import EXAMPLES, ROOT
from tiers import spread

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.base.syntax import ast
from dagc.base.syntax.format import WIDTH, format_source
from dagc.base.syntax.parse import parse

SPECS = [*EXAMPLES, *sorted((ROOT / "grammar" / "library").rglob("*.moe"))]


def tree(text: str) -> ast.File:
    out = Collector()
    file = parse(Source("x", text), out)
    assert not out.items, out.items
    return file


def formatted(text: str) -> str:
    """The formatted text, checked for what every formatting must keep."""
    result = format_source(Source("x", text))
    assert tree(result) == tree(text)
    assert format_source(Source("x", result)) == result
    return result


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("let   a=1+2*( b-3 )", "let a = 1 + 2 * (b - 3)"),
        ("let a=-b", "let a = -b"),
        ("let a = [ 1,2 , -3 ]", "let a = [1, 2, -3]"),
        ("let a = f( x,y = - 2 )", "let a = f(x, y = -2)"),
        ("let a = 0 .. 63", "let a = 0..63"),
        ("let a = x . y", "let a = x.y"),
        ("let a = 60 %", "let a = 60%"),
        ("let a = 1.8 TB/s", "let a = 1.8 TB/s"),
        ("let a = 10_000M", "let a = 10_000M"),
        ("let a = b/c", "let a = b / c"),
        ("let a = 1 # why   ", "let a = 1  # why"),
        ("require a<=2+-3%", "require a <= 2 +- 3%"),
        ("phase p{tp=2,pp = 4}", "phase p { tp = 2, pp = 4 }"),
        ("param n=8 in[1,2]", "param n = 8 in [1, 2]"),
        ("let a = 1,", "let a = 1"),
        ("let a = [1],,", "let a = [1]"),
        ("let a = 1, # c", "let a = 1  # c"),
        ("phase p {\ntp = 2\nattention {\ndp = 1\n}\n}", "phase p {\n  tp = 2\n  attention {\n    dp = 1\n  }\n}"),
        ("phase p {\n\n\ntp = 2\n\n\n\npp = 1\n\n}", "phase p {\n  tp = 2\n\n  pp = 1\n}"),
        ("let a = [\n1,\n2\n]", "let a = [\n  1,\n  2\n]"),
        ("block b(x){\nq[a,c]=x*W[a,c]\nreturn q\n}", "block b(x) {\n  q[a, c] = x * W[a, c]\n  return q\n}"),
    ],
)
def test_layout(text: str, want: str) -> None:
    assert formatted(f"moe 1\n{text}\n") == f"moe 1\n{want}\n"


def test_a_section_on_one_line_stays_there_while_it_fits() -> None:
    short = "moe 1\nlink node { bandwidth = 450 GB/s, latency = 2 us }\n"
    assert formatted(short) == short


def test_a_line_too_long_is_opened_up() -> None:
    inner = ", ".join(f"attribute_{i} = {i}" for i in range(8))
    text = f"moe 1\nphase p {{ {inner}, attention {{ dp = 1, tp = 2 }} }} # why\n"
    result = formatted(text)
    assert result.splitlines()[1:4] == ["# why", "phase p {", "  attribute_0 = 0"]
    assert result.splitlines()[-2:] == ["  attention { dp = 1, tp = 2 }", "}"]
    assert max(map(len, result.splitlines())) <= WIDTH


def test_nothing_is_broken_where_no_section_is() -> None:
    text = "moe 1\nlet a = [" + ", ".join(map(str, range(60))) + "]\n"
    assert formatted(text) == text


def test_comments_survive() -> None:
    text = "# top\nmoe 1 # one\n#a\nphase p { # open\n tp = 2 # two\n # last\n} # end\n# tail"
    result = formatted(text)
    assert [c.strip() for c in result.replace("\n", "#").split("#") if c.strip() and "=" not in c][:2] == [
        "top",
        "moe 1",
    ]
    for comment in ("# top", "# one", "#a", "# open", "# two", "# last", "# end", "# tail"):
        assert result.count(comment) == 1


@pytest.mark.parametrize("path", spread(SPECS, 3, of=lambda path: path.parent), ids=lambda p: p.stem)
def test_specs_here_keep_their_tree(path: Path) -> None:
    formatted(path.read_text())


@pytest.mark.parametrize("part", spread(range(5)))
def test_any_layout_of_a_spec_keeps_its_tree(part: int) -> None:
    rng = random.Random(part)
    for path in SPECS[part::5]:
        out = []
        for line in path.read_text().splitlines():
            code, mark, comment = line.partition("#")
            for c in "=*,":
                code = code.replace(c, " " * rng.randint(0, 2) + c + " " * rng.randint(0, 2))
            code = code.replace("=  =", "==").replace("= =", "==").replace("< =", "<=").replace("<  =", "<=")
            code = code.replace("> =", ">=").replace(">  =", ">=")
            out.append(" " * rng.randint(0, 5) + code + mark + comment + "\n" * rng.randint(0, 2))
        text = "\n".join(out)
        collector = Collector()
        parse(Source("x", text), collector)
        if not collector.items:
            formatted(text)
