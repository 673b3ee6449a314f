"""The parser: trees, every syntax error of a file in one run, guards, and the shipped tables."""

from __future__ import annotations

import gc
import io
import random
import sys
from pathlib import Path

import pytest
from conftest import EXAMPLES, ROOT
from tiers import spread

from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.base.syntax import ast
from dagc.base.syntax import lalr_tables as tables
from dagc.base.syntax.input import read_source
from dagc.base.syntax.parse import MAX_CHARACTERS, MAX_NESTING, parse
from dagc.base.syntax.recovery import MAX_ERRORS

SPECS = [*EXAMPLES, *sorted((ROOT / "grammar" / "library").rglob("*.moe"))]


def read(text: str) -> tuple[ast.File, list[Diagnostic]]:
    out = Collector()
    return parse(Source("x.moe", text), out), out.items


def good(text: str) -> tuple[ast.Statement, ...]:
    """The statements after `moe 1` of a text without errors."""
    file, found = read(f"moe 1\n{text}\n")
    assert not found, found
    return file.statements[1:]


def value(text: str) -> ast.Expr:
    (let,) = good(f"let a = {text}")
    assert isinstance(let, ast.Let)
    return let.value


def places(found: list[Diagnostic]) -> list[tuple[int, str]]:
    """(line, message) of each diagnostic."""
    return [(d.span.source.position(d.span.start)[0], d.message) for d in found if d.span]


def kinds(file: ast.File) -> list[str]:
    return [type(s).__name__ for s in file.statements]


# -- trees -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("10_240 tok", 10240.0, "tok"),
        ("60%", 60.0, "%"),
        ("60 %", 60.0, "%"),
        ("1.8 TB/s", 1.8, "TB/s"),
        ("400 TFLOP/s", 400.0, "TFLOP/s"),
        ("100 tok/ms", 100.0, "tok/ms"),
        ("10_000M", 10_000.0, "M"),
        ("2 us", 2.0, "us"),
        ("10e9", 10e9, None),
        ("1.5E-3 s", 1.5e-3, "s"),
        ("3 furlongs", 3.0, "furlongs"),
        ("7", 7.0, None),
    ],
)
def test_quantities(text: str, number: float, unit: str | None) -> None:
    found = value(text)
    assert isinstance(found, ast.Number)
    assert (found.value, found.unit) == (number, unit)
    assert found.span.text == text


def test_a_unit_is_never_a_reserved_word() -> None:
    (param,) = good("param n = 8 in [1, 2]")
    assert isinstance(param, ast.Param) and isinstance(param.domain, ast.ListExpr)
    assert isinstance(param.default, ast.Number) and param.default.unit is None
    (param,) = good("param n = 8 in 1..8")
    assert isinstance(param, ast.Param) and isinstance(param.domain, ast.Range)


def test_a_slash_divides_unless_it_makes_a_unit() -> None:
    assert isinstance(value("8 GB / 2"), ast.Binary)
    assert isinstance(value("8 GB/n"), ast.Binary)
    assert isinstance(value("8 GB/s"), ast.Number)


def test_precedence_and_association() -> None:
    assert value("1 + 2 * 3") == value("1 + (2 * 3)") != value("(1 + 2) * 3")
    assert value("8 - 4 - 2") == value("(8 - 4) - 2") != value("8 - (4 - 2)")
    assert value("-a * b") == value("(-a) * b")
    assert value("0..n - 1") == value("0..(n - 1)")


def test_names_calls_lists_and_tensors() -> None:
    assert value("prefill.memory.peak") == ast.Name(value("a").span, ("prefill", "memory", "peak"))
    call = value("attend(rope(q), k, causal = true)")
    assert isinstance(call, ast.CallExpr) and call.func.text == "attend" and len(call.args) == 2
    assert [(k, type(v)) for k, v in call.kwargs] == [("causal", ast.Bool)]
    assert value("Wq[hidden, kv_heads]") == ast.Indexed(call.span, "Wq", ("hidden", "kv_heads"))
    assert value("[]") == ast.ListExpr(call.span, ())
    assert value("[\n  1,\n  2\n]") == value("[1, 2]")
    stack = value("[embed, 3 * dense, 58 * sparse, lm_head]")
    assert isinstance(stack, ast.ListExpr) and [type(i) for i in stack.items] == [
        ast.Name,
        ast.Binary,
        ast.Binary,
        ast.Name,
    ]


def test_commas_and_newlines_separate_alike() -> None:
    assert good("phase p { tp = 2, pp = 4, }") == good("phase p {\n\n tp = 2 # two\n pp = 4\n}")
    assert read("moe 1, let a = 1")[0] == read("moe 1\nlet a = 1\n")[0]


def test_sections() -> None:
    named, preset, quoted, both = good(
        'hardware pool { gpus = 8 }\nhardware from "h800-sxm"\nmodel "my model" { layers = 2 }\n'
        'model x from "y" { layers = 2 }'
    )
    assert isinstance(named, ast.Section) and (named.kind, named.name, named.preset) == ("hardware", "pool", None)
    assert named.kind_span.text == "hardware" and len(named.body) == 1
    assert isinstance(preset, ast.Section) and preset.preset and preset.preset.value == "h800-sxm" and not preset.body
    assert isinstance(quoted, ast.Section) and quoted.name == "my model"
    assert isinstance(both, ast.Section) and both.name == "x" and both.preset and both.body


def test_bare_names_and_directives() -> None:
    (phase,) = good("phase p { attention { dp, tp }\nplace gpu = dp*16 + ep }")
    assert isinstance(phase, ast.Section)
    attention, place = phase.body
    assert isinstance(attention, ast.Section) and [type(s) for s in attention.body] == [ast.Bare, ast.Bare]
    assert isinstance(place, ast.Directive) and (place.keyword, place.name) == ("place", "gpu")


def test_requirements() -> None:
    first, second, third = good(
        'require "peak"  p.memory.peak  <= 90% * hardware.memory\nrequire a ~ 5 GB +- 2%\n'
        "require prefill.gpu(dp = 7, ep = 0) == 112"
    )
    assert isinstance(first, ast.Require) and first.label == "peak" and first.test.op == "<="
    assert first.text == "p.memory.peak <= 90% * hardware.memory"
    assert isinstance(second, ast.Require) and second.label is None and second.test.op == "~"
    assert isinstance(second.test.tolerance, ast.Number)
    assert isinstance(third, ast.Require) and isinstance(third.test.left, ast.CallExpr)


def test_blocks_and_layers() -> None:
    block, layer = good(
        "block mla(x, y) in decode {\n let n = 2\n q[batch, seq] = x * W[batch, seq]\n r = q\n return q + r\n}\n"
        "layer sparse { mla, moe }"
    )
    assert isinstance(block, ast.BlockDef)
    assert (block.name, block.params, block.phase) == ("mla", ("x", "y"), "decode")
    assert [type(s) for s in block.body] == [ast.Let, ast.TensorAssign, ast.TensorAssign, ast.Return]
    assert [s.dims for s in block.body if isinstance(s, ast.TensorAssign)] == [("batch", "seq"), None]
    assert isinstance(layer, ast.LayerDef) and [b.text for b in layer.blocks] == ["mla", "moe"]


@pytest.mark.parametrize("path", spread(SPECS, SPECS[::4]), ids=lambda p: p.stem)
def test_every_spec_here_parses(path: Path) -> None:
    file, found = read(path.read_text())
    assert not found and len(file.statements) > 1


def test_layout_never_changes_the_tree() -> None:
    assert good("let a=1+2*b#c") == good("let   a = 1 +\t2 * b")


# -- errors and recovery ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("", "the file is empty", ""),
        ("# only a comment\n\n", "the file is empty", ""),
        ("let a = 1", "the first statement must be `moe 1`", "let a = 1"),
        ("moe 2", "language version 2 is not known", "moe 2"),
        ("moe 1.5", "language version 1.5 is not known", "moe 1.5"),
        ("moe 1\nmoe 1", "`moe` is given twice", "moe 1"),
        ("moe 1\nlet a = 1e400", "the number 1e400 is too large", "1e400"),
        ("moe 1\nlet a = " + "9" * 5000, "a number of 5000 characters is too long", "9"),
        ("moe " + "9" * 5000, "a number of 5000 characters is too long", "9"),
        ('moe 1\nimport "open', "a string does not end on its line", '"'),
        ("moe 1\nlet a = 1 \0", "this is not a text file: it contains a zero byte", "\0"),
        ("moe 1\nlet a = " + "(" * 10_000, f"brackets nest deeper than {MAX_NESTING}", "("),
        ("moe 1\nlet a = " + "-" * 10_000 + "1", f"signs nest deeper than {MAX_NESTING}", "-"),
        ("moe 1\nlet a = " + "(--" * 40 + "1" + ")" * 40, f"brackets nest deeper than {MAX_NESTING}", "("),
        ("moe 1\nlet a = 'x'", "`'` is not allowed here", "'"),
        ("moe 1\nlet a = )", "`)` has no opening bracket", ")"),
        ("moe 1\nphase p { tp = 2 pp = 4 }", "a comma or a newline is missing before `pp`", "pp"),
        ("moe 1\nlet kind = gqa heads = 4", "a comma or a newline is missing before `heads`", "heads"),
        ("moe 1\nlet a = (1 + 2]", "unexpected `]`", "]"),
        ("moe 1\nlet a = 1 in 2", "unexpected `in`", "in"),
        ("moe 1\nrequire a", "unexpected end of the line", ""),
        ("moe 1\nlayer x { }", "unexpected `}`", "}"),
    ],
)
def test_one_error(text: str, message: str, marked: str) -> None:
    _, found = read(text)
    (error,) = found
    assert (error.code, error.message) == ("E01", message)
    assert error.span is not None and error.span.text == marked


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("require a != 3", "`!=` does not exist; state what must hold"),
        ("let in = 3", "`in` is a reserved word"),
        ("phase p { tp 2 }", "write `name = value`"),
        ("phase p\n{\n tp = 2\n}", "the `{` belongs on this line"),
        ("blok g(x) {\n return x\n}", "did you mean `block`?"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    (error,) = read(f"moe 1\n{text}")[1]
    assert error.help == (hint,)


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("model m { layer = 3 }", "did you mean `layers`?"),
        ("model m { param = 3 }", "did you mean `params`?"),
        ("workload { prompt = 4k tok }", "spell the number out: `4_000 tok`, or `4_096 tok` if 1024 is meant"),
        ("workload { prompt = 1.5M tokens }", "spell the number out: `1_500_000 tok`"),
        ("hardware h { memory = 64 G B }", "write `64 GB`"),
        ("hardware h { hbm = 1.8 T B/s }", "write `1.8 TB/s`"),
        ("phase p { gpus = 0..3, 8..15 }", "a list is written in brackets: `gpus = [0..3, 8..15]`"),
        ("phase p { gpus = 0..3, 8..15, tp = 2 }", "a list is written in brackets: `gpus = [0..3, 8..15]`"),
        ("phase p { gpus = 0:7 }", "a range is written `0..7`"),
        ("phase p { gpus = 0\u20137 }", "a range is written `0..7`"),
        ("phase p { experts = { ep = 2 } }", "a section has no `=`: write `experts { ... }`"),
        ("phase p = { ep = 2 }", "a section has no `=`: write `phase p { ... }`"),
        ("workload: { prompt = 3 tok }", "a section has no `:`: write `NAME { ... }`"),
        ('phase p { "tp" = 2 }', "names are written without quotes: `tp = ...`"),
        ("model from \u201cmixtral\u201d { }", 'strings are written in plain double quotes: "..."'),
        ("hardware h { memory = 64\u00a0GB }", "this is a no-break space: write a plain one"),
        ("let a = 2 \u00b5s", "microseconds are written `us`"),
        ("require a \u2264 2", "write `<=`"),
        ("require a =< 2", "comparisons are <= >= < > == ~"),
    ],
)
def test_what_was_meant(text: str, help: str) -> None:
    (error,) = read(f"moe 1\n{text}")[1]
    assert error.code == "E01" and error.help[0] == help


def test_bytes_that_are_no_text_have_a_line_and_a_column(tmp_path: Path) -> None:
    for data, place in ((b"moe 1\n# gr\xf6\xdfe\n", (2, 5)), (b"\xef\xbb\xbfmoe 1\r\n# \xc3\xa9 \xe9", (2, 5))):
        (tmp_path / "a.moe").write_bytes(data)
        error = failure(str(tmp_path / "a.moe"))
        assert error.code == "E01" and "UTF-8" in error.message and error.span is not None
        assert error.span.source.position(error.span.start) == place
    (tmp_path / "a.moe").write_bytes("moe 1".encode("utf-16"))
    assert "UTF-16" in failure(str(tmp_path / "a.moe")).message


INDENTED = """moe 1
phase a {
  attention { dp = 2
  experts { ep = 2 }
}
phase b { tp = = 2 }
"""


def test_a_missing_brace_is_told_where_it_is_missing() -> None:
    """The brace of `attention`, by the indentation; what follows is read on."""
    _, found = read(INDENTED.replace("  attention", "    attention"))
    assert sorted(place[0] for place in places(found)) == [3, 6]
    (brace,) = (d for d in found if "never closed" in d.message)
    assert brace.also[0].span.text == "phase" and brace.also[0].span.source.position(brace.also[0].span.start) == (6, 1)


def test_what_is_expected_is_said_in_words() -> None:
    for text in ("phase p { tp = }", "let a = 5 5", "require a = 2", "let x = [a b]", "phase p {{ }}", "import 3"):
        (error,) = read(f"moe 1\n{text}")[1]
        assert error.label.startswith("expected ")
        assert not any(word in error.label for word in ("_END", "QUANTITY", "LBRACE", "NAME", "__"))


def test_every_error_in_one_run() -> None:
    text = (
        "moe 1\nlet a = = 1\nhardware pool {\n  gpus 8\n  link node { latency = }\n  memory = 64 GB\n}\n"
        'import 3\nlet b = "open\nlet c = 3\nphase p { tp = 2 pp = 4 }\nlet d = 1 $ 2\n'
    )
    file, found = read(text)
    assert [line for line, _ in places(found)] == [2, 4, 5, 8, 9, 11, 12]
    assert kinds(file) == ["Version", "Section", "Let"]


@pytest.mark.parametrize(
    ("text", "lines", "kept"),
    [
        ("phase = {\n tp = 2\n pp = = 3\n}\nlet c = = 1\nlet d = 2", [2, 4, 6], ["Let"]),
        ("a= {\n tp = 2\n}\nlet c = 1", [2], ["Let"]),
        ("phase p\n{\n tp = 2\n}\nlet c = 1", [2], ["Let"]),
        ("phase p {{\n tp = 2\n}\nlet c = 1", [2], ["Let"]),
        ("phase p {{\n tp = 2\n}}\nlet c = 1", [2], ["Let"]),
        ("let a = 1\n}\nlet b = 2", [3], ["Let", "Let"]),
        ("phase p { tp = 2\nlet b = 3", [2], ["Let"]),
        ("phase p {\n attention { dp = 8\n}\nlet z = 1", [3], ["Let"]),
        ("let a = (1 + 2\nlet b = 3\nlet c = 4", [2], ["Let", "Let"]),
        ("let a = [1, 2\nphase p { tp = 2 }", [2], ["Section"]),
        ("phase p {\n gpus = [1, 2\n tp = 3\n}\nlet b = )", [3, 6], ["Section"]),
        ("let a = [1, 2}\nlet b = 1", [2], ["Let"]),
        ("let a = [\n 1\n 2\n]\nlet b = 1", [4], ["Let"]),
        ("block g(x {\n q[a, b] = h * W\n return q\n}\nlet b = 1", [2], ["Let"]),
        ("block g(x) {\n q[a, b] = = h\n return q\n}\nlet b = 1", [3], ["BlockDef", "Let"]),
        ("phase p {\n attention = {\n  dp = 2\n }\n tp = 2\n}", [3], ["Section"]),
    ],
)
def test_recovery_without_cascades(text: str, lines: list[int], kept: list[str]) -> None:
    file, found = read(f"moe 1\n{text}\n")
    assert [line for line, _ in places(found)] == lines, found
    assert kinds(file) == ["Version", *kept]


def test_a_stand_in_section_never_reaches_the_tree() -> None:
    file, _ = read("moe 1\nphase p {\n attention = {\n  dp = 2\n }\n tp = 2\n}\n")
    (phase,) = (s for s in file.statements if isinstance(s, ast.Section))
    assert [s.name for s in phase.body if isinstance(s, ast.Assign)] == ["tp"] and len(phase.body) == 1


def test_spans_stay_right_after_recovery() -> None:
    file, _ = read("moe 1\nlet a = = 1\nlet b = 22\n")
    let = file.statements[1]
    assert isinstance(let, ast.Let) and let.value.span.text == "22" and let.span.text == "let b = 22"


def test_at_most_so_many_errors() -> None:
    _, found = read("moe 1\n" + "let a = = 1\n" * 100)
    assert len(found) == MAX_ERRORS


def test_an_error_in_one_file_does_not_hide_the_next_files_version() -> None:
    out = Collector()
    parse(Source("a", "moe 1\nlet a = = 1\n"), out)
    parse(Source("b", "let a = 1\n"), out)
    assert [d.message for d in out.items] == ["unexpected `=`", "the first statement must be `moe 1`"]


def test_brackets_in_strings_and_comments_do_not_nest() -> None:
    good('let a = "' + "(" * 200 + '"\n# ' + "{" * 200 + "\n# " + "-" * 200 + " " + "9" * 200)


def test_nesting_up_to_the_limit_is_fine() -> None:
    good("let a = " + "1 + 1 * -(" * MAX_NESTING + "1" + ")" * MAX_NESTING)


# -- reading ---------------------------------------------------------------------------------------


def failure(path: str) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        read_source(path)
    (found,) = caught.value.diagnostics
    return found


def test_read_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.moe"
    path.write_bytes(b"\xef\xbb\xbfmoe 1\r\nlet a = 1\r\n")
    assert read_source(str(path)).text == "moe 1\nlet a = 1\n"
    assert failure(str(tmp_path)).code == "E05"
    assert failure(str(tmp_path / "none.moe")).code == "E05"
    assert failure("a\0b").code == "E05"
    path.write_bytes(b"\xff\xfe\x00")
    assert failure(str(path)).code == "E01"

    class Stdin:
        buffer = io.BytesIO(b"moe 1\n")

    monkeypatch.setattr(sys, "stdin", Stdin())
    source = read_source("-")
    assert (source.name, source.text) == ("<stdin>", "moe 1\n")


def test_a_file_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "big.moe"
    path.write_bytes(b"x" * (MAX_CHARACTERS + 1))
    out = Collector()
    parse(read_source(str(path)), out)
    (found,) = out.items
    assert found.code == "E01" and "too large" in found.message


# -- robustness ------------------------------------------------------------------------------------


def test_any_bytes_give_a_tree_or_diagnostics() -> None:
    rng = random.Random(3)
    texts = [path.read_text() for path in SPECS]
    pieces = [
        *'{}()[]=,.~%"#\n\r\t-+ é\x1b',
        "..",
        "+-",
        "1e400",
        "moe 1",
        "in",
        "block",
        "_ {",
        "_error_ {",
        "8 in",
        "\u2028",
    ]
    for _ in range(300):
        text = rng.choice(texts)
        at = rng.randrange(len(text))
        chars = list("moe 1\n" + text[at : at + rng.choice([40, 300, 2000])])
        for _ in range(rng.randint(0, 6)):
            i = rng.randrange(len(chars))
            chars[i] = rng.choice(["", chars[i] * 2, rng.choice(pieces)])
        file, found = read("".join(chars))
        assert all(d.code == "E01" and d.span is not None for d in found)
        assert file.statements or found


def test_the_cyclic_collector_is_left_as_it_was() -> None:
    for switch, on in ((gc.disable, False), (gc.enable, True)):
        switch()
        read("moe 1\nlet a = = 1\n")
        assert gc.isenabled() is on


# -- tables ----------------------------------------------------------------------------------------


def test_the_grammar_has_no_conflicts() -> None:
    pytest.importorskip("interegular")
    tables.build(tables.grammar_text(), strict=True)


def test_the_shipped_tables_are_of_this_grammar() -> None:
    text = tables.grammar_text()
    shipped = (ROOT / "grammar" / "moe.tables").read_bytes()
    assert tables.unpack(shipped, tables.table_key(text)) is not None


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x80\x05}."])
def test_damaged_tables_are_no_tables(junk: bytes) -> None:
    key = tables.table_key(tables.grammar_text())
    assert tables.unpack(key + junk, key) is None
    assert tables.unpack(junk, key) is None


def test_other_tables_are_built_once_and_none_are_read_from_where_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grammar without shipped tables. Pickles run code: one in the user's folder is not even opened."""
    changed = tables.grammar_text() + "\n"
    monkeypatch.setattr(tables, "grammar_text", lambda: changed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dagc").mkdir()
    planted = tmp_path / "dagc" / "moe.tables"
    planted.write_bytes(tables.table_key(changed) + b"cos\nabort\n(tR.")
    built: list[str] = []
    build = tables.build

    def counted(text: str) -> object:
        built.append(text)
        return build(text)

    monkeypatch.setattr(tables, "build", counted)
    tables.load.cache_clear()
    assert tables.load().parse("moe 1\n") is not None and tables.load() is tables.load() and len(built) == 1
    assert list((tmp_path / "dagc").iterdir()) == [planted]
    tables.load.cache_clear()


def test_a_file_with_errors_is_parsed_again() -> None:
    """Trees are kept of clean files only: every run reports its own diagnostics."""
    for _ in range(2):
        out = Collector()
        parse(Source("twice.moe", "moe 1\nlet a = (\n"), out)
        assert out.failed
