"""The command line: exit codes, files, formats, determinism, pictures."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import networkx as nx
import pytest
from conftest import EXAMPLES, ROOT, SOME_EXAMPLES, compiled, spec_text
from state_specs import LINEAR, state_spec
from tiers import exhaustive, spread

import dagc
from dagc.api import Plan
from dagc.base.collectives import COLLECTIVES
from dagc.cli import main
from dagc.export.json import dumps, graph_object, plan_object
from dagc.view.draw import dot
from dagc.view.draw.layer_digraph import fold
from dagc.view.draw.views import VIEWS, RendererMissing, render
from dagc.view.draw.views import dot as dot_of

pytestmark = pytest.mark.usefixtures("shared_servings")

SCHEMA = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
Capture = pytest.CaptureFixture[str]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dagc", *args], capture_output=True, text=True, cwd=ROOT, check=False)


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["check", "examples/mixtral_8xh100.moe"]) == 0
    assert main(["check", "examples/plan_a.moe"]) == 1
    assert main(["check", str(tmp_path)]) == 2
    assert main(["chek"]) == 2
    assert main([]) == 2
    assert run("check", "nowhere.moe").returncode == 2
    assert run("--help").returncode == 0
    assert run("--version").stdout.startswith("dagc ")


def test_no_colour_off_a_terminal(capsys: Capture) -> None:
    assert main(["compile", str(ROOT / "examples" / "plan_a.moe")]) == 1
    found = capsys.readouterr()
    assert "\x1b" not in found.out + found.err
    assert "W06" in found.err and "W06" not in found.out


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    class Pipe:
        buffer = io.BytesIO(spec_text().encode())

    monkeypatch.setattr(sys, "stdin", Pipe)
    assert main(["check", "-"]) == 0
    assert capsys.readouterr().out == "-: passed: no requirements\n"


@exhaustive
def test_json_of_the_command_is_the_plans() -> None:
    """In a process of its own, with other hashes of strings: the same bytes."""
    found = run("compile", str(ROOT / "examples" / "plan_a.moe"), "--json")
    assert found.stdout.rstrip().encode() == dumps(plan_object(compiled("plan_a")), indent=True).rstrip()


@SOME_EXAMPLES
def test_json_follows_the_schema(example: Plan) -> None:
    data = json.loads(dumps(plan_object(example), indent=True))
    jsonschema.validate(data, SCHEMA)
    for phase in data["phases"].values():
        memory = phase["memory"]
        parts = ("weights_B", "kv_cache_B", "activations_B", "buffers_B", "reserve_B", "engine_B")
        assert memory["peak_B"] == pytest.approx(sum(memory[p] for p in parts))
        assert sum(step["share"] for step in phase["critical_path"]) == pytest.approx(1.0)


def test_the_schema_refuses_another_object() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "phases": {}}, SCHEMA)


def test_compile_leaves_its_files_and_the_same_bytes(tmp_path: Path) -> None:
    """Here, and in a process of its own."""
    args = ["compile", str(ROOT / "examples" / "plan_a.moe"), "--emit", "dot,svg,json", "-o"]
    assert main([*args, str(tmp_path / "one")]) == run(*args, str(tmp_path / "two")).returncode == 1
    names = {p.name for p in (tmp_path / "one").iterdir()}
    assert names == {p.name for p in (tmp_path / "two").iterdir()}
    want = {"plan_a.txt", "plan_a.json"}
    for phase in ("prefill", "decode"):
        want |= {f"plan_a.{phase}.graph.json"}
        want |= {f"plan_a.{phase}.{view}.{kind}" for view in ("overview", "layer") for kind in ("dot", "svg")}
    assert names == want
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_unwritable_place_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert main(["compile", str(ROOT / "examples/plan_b.moe"), "--emit", "json", "-o", str(blocked / "out")]) == 2
    assert "error[E05]" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("sweep", "--workers", "-3"),
        ("sweep", "--workers", "0"),
        ("run", "--repeat", "0"),
        ("run", "--timeout", "nan"),
        ("run", "--timeout", "inf"),
        ("measure", "--samples", "0"),
        ("measure", "--grid", "-1"),
    ],
)
def test_numbers_out_of_range(command: str, option: str, value: str, capsys: Capture) -> None:
    assert main([command, "examples/plan_a.moe", option, value]) == 2
    said = capsys.readouterr()
    assert f"argument {option}: {value} is not from " in said.err and said.out == ""


def test_an_import_is_named_as_seen_from_here(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "main.moe").write_text('moe 1\nimport "deep/mid.moe"\n')
    (tmp_path / "deep" / "mid.moe").write_text('import "er/../../leaf.moe"\n')
    (tmp_path / "leaf.moe").write_text("hardwares x { }\n")
    assert main(["check", str(tmp_path / "main.moe")]) == 2
    assert f"--> {tmp_path / 'leaf.moe'}:1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["compile", "examples/plan_a.moe", "--emit", "dott"],
        ["compile", "examples/plan_a.moe", "--view", "layers"],
        ["compile", "examples/plan_a.moe", "--phase", "prefil"],
        ["compile", "examples/plan_a.moe", "--set", "x"],
        ["compile", "examples/plan_a.moe", "--set", "x=1"],
        ["ir", "examples/plan_a.moe", "--after", "reshrad"],
        ["show", "examples/plan_a.moe", "-o", "x.gif"],
        ["explain", "E99"],
        ["fmt", "nowhere.moe"],
    ],
    ids=lambda a: " ".join(a[2:] or a),
)
def test_wrong_arguments(args: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(args) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error[") and found.out == ""


def test_an_internal_error_is_three_and_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setenv("DAGC_CACHE", "off")  # a verdict that is kept asks no compiler
    monkeypatch.setattr("dagc.pipeline.compile.compile_spec", broken)
    monkeypatch.delenv("DAGC_DEBUG", raising=False)
    assert main(["check", str(ROOT / "examples/plan_a.moe")]) == 3
    assert "internal error" in capsys.readouterr().err


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("DAGC_CACHE", "off")
    monkeypatch.setattr("dagc.pipeline.compile.compile_spec", stopped)
    assert main(["check", str(ROOT / "examples/plan_a.moe")]) == 130


def test_ir_and_explain_and_set(capsys: Capture) -> None:
    assert main(["ir", str(ROOT / "examples/plan_a.moe"), "--after", "reshard", "--phase", "decode"]) == 0
    assert "all_to_all(%moe.t, from=slot, to=expert) over ep : [expert/ep" in capsys.readouterr().out
    assert main(["ir", str(ROOT / "examples/plan_a.moe"), "--phase", "decode", "--types"]) == 0
    assert "last(%x) : ([batch/ep, seq, hidden]) -> [batch/ep, hidden]\n" in capsys.readouterr().out
    assert main(["ir", str(ROOT / "examples/plan_a.moe"), "--after", "spec"]) == 0
    assert capsys.readouterr().out.startswith("moe 1\n")
    assert main(["explain", "e03"]) == 0
    assert "plan shape" in capsys.readouterr().out
    assert main(["check", str(ROOT / "examples/mixtral_8xh100.moe"), "--phase", "decode", "--set", "batch=16"]) == 0


def test_fmt(tmp_path: Path, capsys: Capture) -> None:
    spec = tmp_path / "x.moe"
    spec.write_text("moe 1\nlet   a=1   # keep\n\n\n\nlet b = a*( 2+3 )\nhardware h {\ngpus=8\n}\n")
    assert main(["fmt", "--check", str(spec)]) == 1
    assert main(["fmt", str(spec)]) == 0
    want = "moe 1\nlet a = 1  # keep\n\nlet b = a * (2 + 3)\nhardware h {\n  gpus = 8\n}\n"
    assert spec.read_text() == want
    assert main(["fmt", "--check", str(spec)]) == 0
    spec.write_text("moe 1\nlet a = = 1\n")
    assert main(["fmt", str(spec)]) == 2
    assert spec.read_text() == "moe 1\nlet a = = 1\n"
    capsys.readouterr()


@pytest.mark.parametrize(
    "path",
    spread([*EXAMPLES, *(ROOT / "grammar" / "library").rglob("*.moe")], 3, of=lambda path: path.parent),
    ids=lambda p: p.stem,
)
def test_formatting_keeps_the_meaning(path: Path) -> None:
    from dagc.base.diagnostics import Collector
    from dagc.base.source import Source
    from dagc.base.syntax.format import format_source
    from dagc.base.syntax.parse import parse

    text = path.read_text()
    squeezed = "\n".join(line.strip() for line in text.splitlines())
    again = format_source(Source("x", squeezed))
    assert parse(Source("x", again), Collector()) == parse(Source("x", text), Collector())
    assert format_source(Source("x", again)) == again


def test_grammar_has_no_conflicts_and_its_tables_are_current() -> None:
    from dagc.base.syntax import lalr_tables as tables

    text = tables.grammar_text()
    shipped = (ROOT / "grammar" / "moe.tables").read_bytes()
    key = tables.table_key(text)
    pytest.importorskip("interegular", reason="strict mode needs it")
    tables.build(text, strict=True)
    if shipped[: len(key)] != key:  # another lark than the one the tables were made with: it must rebuild
        assert tables.load() is not None
    else:
        assert tables.unpack(shipped, key) is not None


def test_placed_graph_of_every_rank() -> None:
    plan = dagc.compile_text(spec_text(phase="gpus = 0..15, pp = 2, ep = 4, tp = 2"))
    folded = graph_object(plan, "prefill")
    full = graph_object(plan, "prefill", ranks="all")
    assert len(full["nodes"]) == sum(len(n["gpus"]) for n in folded["nodes"])
    assert len(full["edges"]) == 8 * len(folded["edges"])
    ids = {n["id"] for n in full["nodes"]}
    assert len(ids) == len(full["nodes"])
    assert all(e["src"] in ids and e["dst"] in ids for e in full["edges"])
    for n in full["nodes"]:
        if n["kind"] in COLLECTIVES:
            assert len(n["gpus"]) == plan.phases["prefill"].graph.the_mesh.degrees[n["group"][0]]
    assert json.loads(dumps(full)) == json.loads(json.dumps(full))


# -- pictures ----------------------------------------------------------------------------------------


@SOME_EXAMPLES
def test_every_view_of_every_example_draws(example: Plan) -> None:
    for phase in example.phases:
        for view in VIEWS:
            text = dot_of(example, phase, view)
            assert text == dot_of(example, phase, view)
            assert len(re.findall(r'shape="(box|hexagon)"', text)) <= 300
            svg = render(text, "svg").decode()
            assert svg.rstrip().endswith("</svg>"), view


def test_the_layer_view_shows_every_collective_and_the_path() -> None:
    plan = compiled("plan_a")
    result = plan.phases["prefill"]
    segment = result.graph.segment("sparse")
    text = dot_of(plan, "prefill", "layer")
    collectives = [op for op in segment.ops if op.is_collective]
    assert text.count('shape="hexagon"') == len(collectives)
    for op in collectives:
        assert dot.quote(f"sparse/{op.name}") in text
    critical = {fold(segment)[s.op] for s in result.path if s.segment == "sparse"}
    assert text.count('penwidth="2.6"') == len(critical)


def test_no_two_boxes_of_a_layer_wait_for_each_other(example: Plan) -> None:
    plans = [example, dagc.compile_text(state_spec(LINEAR))]
    for result in (r for plan in plans for r in plan.phases.values()):
        for segment in result.graph.segments:
            home = fold(segment)
            edges = {(home[n], home[op.name]) for op in segment.ops for n in op.inputs if n in home}
            assert nx.is_directed_acyclic_graph(nx.DiGraph((a, b) for a, b in edges if a != b))


def test_the_terminal_report_is_eighty_columns_wide(example: Plan) -> None:
    assert max(len(line) for line in example.report().splitlines()) <= 80
    plain = re.sub(r"\x1b\[[0-9;]*m", "", example.report(color=True))
    assert plain == example.report()


def test_a_large_drawing_is_folded_to_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagc.view.draw.layer_digraph.MAX_NODES", 20)
    text = dot_of(compiled("plan_a"), "prefill", "layer")
    assert text.count('shape="') == 4  # the input, two blocks, the legend
    assert "ops folded to one box per block" in text


@pytest.mark.parametrize("name", ['a"b', "a\\", "<script>alert(1)</script>", "line\nbreak", "模型", "a&b", "%n \\N"])
def test_hostile_names_are_escaped(name: str) -> None:
    text = dot.digraph(name, name, [dot.node(name, label=name), dot.node("t", label=f"<<b>{dot.html(name)}</b>>")])
    svg = render(text, "svg").decode()
    assert "<script" not in svg
    assert svg.rstrip().endswith("</svg>")


def test_hostile_names_in_a_plan() -> None:
    text = spec_text().replace("model small", 'model "<b>x</b> \\\\ 模型"')
    plan = dagc.compile_text(text)
    for view in VIEWS:
        assert "<b>x</b>" not in render(dot_of(plan, "prefill", view), "svg").decode()


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(RendererMissing):
        render("digraph { a }", "svg")
    out = tmp_path / "out"
    assert main(["compile", str(ROOT / "examples/plan_b.moe"), "--emit", "png,json", "-o", str(out)]) == 2
    assert "librsvg2-bin" in capsys.readouterr().err
    assert not out.exists()
    assert main(["compile", str(ROOT / "examples/plan_b.moe"), "--emit", "dot,svg", "-o", str(out)]) == 1
