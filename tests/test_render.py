"""The renderer: the terminal layout exactly, the machine formats by their own rules."""

from __future__ import annotations

import json

import pytest

from dagc.base.diagnostics import Diagnostic, Label
from dagc.base.render import SHOWN_COLUMNS, render
from dagc.base.source import Source, Span

TEXT = "moe 1\nhardware pool {\n  memori = 64 GB, memori = 32 GB\n}\n"
SOURCE = Source("plan.moe", TEXT)


def span(part: str, start: int = 0) -> Span:
    at = TEXT.index(part, start)
    return Span(SOURCE, at, at + len(part))


FULL = Diagnostic(
    "E02",
    "`memori` is given twice",
    span("memori", 40),
    "again here",
    also=(Label(span("memori"), "first here"),),
    because=("64 GB, then 32 GB",),
    help=("did you mean `memory`?", "keep one of them"),
)
WARNING = Diagnostic("W06", "doubtful", span("64 GB"))
NOWHERE = Diagnostic("E05", "cannot read 'x'", help=("does it exist?",))


def test_text_exactly() -> None:
    assert render([FULL, WARNING, NOWHERE]) == "\n".join(
        [
            "error[E02]: `memori` is given twice",
            " --> plan.moe:3:19",
            "  |",
            "3 |   memori = 64 GB, memori = 32 GB",
            "  |                   ^^^^^^ again here",
            " ::: plan.moe:3:3",
            "  |",
            "3 |   memori = 64 GB, memori = 32 GB",
            "  |   ------ first here",
            "  |",
            "  = because: 64 GB, then 32 GB",
            "  = help: did you mean `memory`?",
            "  = help: keep one of them",
            "",
            "warning[W06]: doubtful",
            " --> plan.moe:3:12",
            "  |",
            "3 |   memori = 64 GB, memori = 32 GB",
            "  |            ^^^^^",
            "",
            "error[E05]: cannot read 'x'",
            "  = help: does it exist?",
        ]
    )


def test_the_gutter_grows_with_the_line_number() -> None:
    source = Source("x", "\n" * 99 + "abc\n")
    lines = render([Diagnostic("E01", "no", Span(source, 99, 102))]).splitlines()
    assert lines[1:] == ["   --> x:100:1", "    |", "100 | abc", "    | ^^^"]


def test_color_only_paints() -> None:
    painted = render([FULL], color=True)
    assert "\x1b[" in painted and painted.count("\x1b[0m") * 2 == painted.count("\x1b[")
    import re

    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render([FULL])


def test_a_long_line_is_cut_around_the_span() -> None:
    source = Source("x", "a" * 500 + "HERE" + "b" * 500)
    lines = render([Diagnostic("E01", "no", Span(source, 500, 504))]).splitlines()
    assert max(map(len, lines)) <= SHOWN_COLUMNS + 12
    start = lines[4].index("^")
    assert lines[3][start : start + 4] == "HERE" and lines[4].count("^") == 4


def test_a_span_over_several_lines_is_marked_on_its_first() -> None:
    source = Source("x", "let a = [\n1\n]\n")
    lines = render([Diagnostic("E01", "no", Span(source, 8, 13))]).splitlines()
    assert lines[-1].count("^") == 1 or lines[-1].strip("| ^") == ""
    assert len(lines) == 5


def test_a_span_at_the_very_end_has_a_caret() -> None:
    source = Source("x", "moe 1")
    assert render([Diagnostic("E01", "no", Span(source, 5, 5))]).splitlines()[-1] == "  |      ^"


@pytest.mark.parametrize("fmt", ["text", "concise", "github"])
def test_control_characters_never_reach_the_terminal(fmt: str) -> None:
    source = Source("e\x1bvil.moe", "let a\t= \x1b[31m\u202e x\n")
    shown = render([Diagnostic("E01", "bad \x1b[0m", Span(source, 8, 9), "la\x07bel", help=("he\x1blp",))], fmt)
    assert not any(c in shown for c in "\x1b\x07\t\u202e")


def test_tabs_keep_the_caret_in_its_column() -> None:
    source = Source("x", "\tlet\ta = $\n")
    lines = render([Diagnostic("E01", "no", Span(source, 9, 10))]).splitlines()
    assert lines[3][lines[4].index("^")] == "$"


def test_concise() -> None:
    assert render([FULL, NOWHERE], "concise") == (
        "plan.moe:3:19: E02 `memori` is given twice; first here (plan.moe:3:3)\nE05 cannot read 'x'"
    )


def test_json() -> None:
    first, second = json.loads(render([FULL, NOWHERE], "json"))
    assert first == {
        "code": "E02",
        "severity": "error",
        "message": "`memori` is given twice",
        "file": "plan.moe",
        "line": 3,
        "column": 19,
        "end_line": 3,
        "end_column": 25,
        "label": "again here",
        "also": [{"label": "first here", "file": "plan.moe", "line": 3, "column": 3, "end_line": 3, "end_column": 9}],
        "because": ["64 GB, then 32 GB"],
        "help": ["did you mean `memory`?", "keep one of them"],
    }
    assert second["file"] is None and second["line"] is None
    assert json.loads(render([], "json")) == []


def test_github_escapes() -> None:
    source = Source("a,b:c.moe", "moe 1\n")
    bad = Diagnostic("W06", "50%\nof ::error::", Span(source, 0, 3))
    line = render([bad], "github")
    assert line == "::warning file=a%2Cb%3Ac.moe,line=1,endLine=1,col=1,title=dagc W06::50%25%0Aof ::error::"


def test_sarif() -> None:
    source = Source("a b<c>.moe", TEXT)
    log = json.loads(render([Diagnostic("E02", "no", Span(source, 0, 3)), WARNING, NOWHERE], "sarif"))
    (run,) = log["runs"]
    first, second, third = run["results"]
    assert log["version"] == "2.1.0" and run["columnKind"] == "unicodeCodePoints"
    location = first["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "a%20b%3Cc%3E.moe"
    assert location["region"] == {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 4}
    assert (first["level"], second["level"]) == ("error", "warning") and "locations" not in third
    assert {r["ruleId"] for r in run["results"]} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}


@pytest.mark.parametrize("fmt", ["text", "concise", "json", "github", "sarif"])
def test_a_file_name_that_is_not_text(fmt: str) -> None:
    source = Source("bad\udcff.moe", "moe 1\n")
    render([Diagnostic("E01", "no", Span(source, 0, 3))], fmt).encode()


def test_a_requirement_has_its_own_word() -> None:
    shown = render([Diagnostic("R07", "does not hold", span("64 GB"))])
    assert shown.startswith("requirement[R07]: does not hold")
