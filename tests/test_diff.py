"""Two plans compared: what counts as a change, as better, and as a reason to stop a pull request."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compiled, spec_text

import dagc
from dagc.base.units import TIME
from dagc.cli import main
from dagc.view.report.diff import Change, Diff, Figure, compare
from dagc.view.report.diff_text import markdown, plain, text

pytestmark = pytest.mark.usefixtures("shared_servings")

Capture = pytest.CaptureFixture[str]
MIXTRAL = "examples/mixtral_8xh100.moe"


def found(a: str, b: str) -> Diff:
    return compare(dagc.compile_text(a), dagc.compile_text(b))


def without_servings(folder: Path) -> Path:
    """The example without its serving: the regressions of its phases are the same, and no requests are simulated."""
    text, servings = re.subn(r"\nserve .*?\n}\n", "", Path(MIXTRAL).read_text(), flags=re.DOTALL)
    text, requirements = re.subn(r"\nrequire [^\n]* chat\.[^\n]*", "", text)
    assert (servings, requirements) == (1, 1)
    path = folder / "steps.moe"
    path.write_text(text)
    return path


def test_a_plan_and_itself() -> None:
    same = compare(compiled("plan_a"), compiled("plan_a"))
    assert same.empty and same.regressions(0) == []
    assert text(same, "a", "b") == "a and b are the same\n"


def test_inputs_structure_results() -> None:
    diff = found(
        spec_text(phase="gpus = 0..7, ep = 4, tp = 2", extra='require "r" prefill.ttft <= 1 s'),
        spec_text(phase="gpus = 0..7, ep = 8", extra='require "r" prefill.ttft <= 1 ns\nrequire "new" 1 == 1'),
    )
    inputs = {c.name: (c.before, c.after) for c in diff.inputs}
    assert inputs == {
        "phase.prefill.ep": ("4", "8"),
        "phase.prefill.tp": ("2", "1"),
        'require "r"': ("prefill.ttft <= 1 s", "prefill.ttft <= 1 ns"),
    }
    structure = {c.name: (c.before, c.after) for c in diff.structure}
    assert structure["prefill: mesh"] == ("ep 4 x tp 2", "ep 8")
    assert structure["prefill: all_reduce over tp (2) in each sparse"][1] is None
    assert structure["prefill: all_to_all over ep (8) in each sparse"] == (None, "2")
    assert {(t.label, t.before, t.after) for t in diff.requirements} == {("r", True, False), ("new", None, True)}
    ttft = next(f for f in diff.results if f.name == "prefill.ttft")
    assert ttft.better == (ttft.after < ttft.before)
    assert "r" in diff.regressions(1e9) and "new" not in diff.regressions(0)


def test_settings_of_one_spec_and_both_ways(capsys: Capture) -> None:
    """Forwards and backwards say the same with the sides exchanged."""
    main(["diff", MIXTRAL, "--set-a", "batch=32", "--set-b", "batch=64", "--format", "json"])
    there = json.loads(capsys.readouterr().out)
    main(["diff", MIXTRAL, "--set-a", "batch=64", "--set-b", "batch=32", "--format", "json"])
    back = json.loads(capsys.readouterr().out)
    assert there["a"] == f"{MIXTRAL} (batch=32)" == back["b"]
    for key in ("inputs", "structure", "results"):
        assert [(x["name"], x["before"], x["after"]) for x in there[key]] == [
            (x["name"], x["after"], x["before"]) for x in back[key]
        ]
    by_name = {x["name"]: x for x in there["results"]}
    assert by_name["prefill.memory.kv_cache"]["change"] == pytest.approx(1.0)
    assert by_name["prefill.memory.peak"]["better"] is False and by_name["decode.throughput"]["better"] is True


def test_exit_codes(capsys: Capture, tmp_path: Path) -> None:
    steps = str(without_servings(tmp_path))
    worse = ["diff", steps, "--set-a", "batch=32", "--set-b", "batch=64"]
    assert main(worse) == 0
    assert main([*worse, "--fail-on-regression"]) == 1
    assert "regression: prefill.ttft" in capsys.readouterr().err
    assert main([*worse, "--fail-on-regression", "95%"]) == 0
    assert main([*worse, "--fail-on-regression", "50"]) == 1
    assert main(["diff", steps, steps, "--fail-on-regression"]) == 0
    bad = tmp_path / "bad.moe"
    bad.write_text("moe 1\nphase")
    for args in (
        ["diff", steps],
        ["diff", steps, str(bad)],
        ["diff", "-", "-"],
        ["diff", "-"],
        ["diff", steps, "--set-a", "batch"],
        ["diff", steps, "--set-b", "size=1"],
        ["diff", steps, steps, "--fail-on-regression", "x"],
        ["diff", steps, steps, "--fail-on-regression=-1"],
        ["diff", steps, str(tmp_path / "none.moe")],
    ):
        assert main(args) == 2, args
        out = capsys.readouterr()
        assert out.err and "internal error" not in out.err


def test_a_figure_that_was_zero_can_be_a_regression() -> None:
    from_zero = Figure("decode.tpot", 0.0, 1.0, TIME, False)
    assert Diff((), (), (from_zero,), ()).regressions(1e6) == ["decode.tpot"]
    little = replace(from_zero, before=1.0, after=1.049)
    assert Diff((), (), (little,), ()).regressions(5) == []


def test_a_phase_that_came() -> None:
    both = spec_text(extra="phase decode { gpus = 8..15, ep = 8 }")
    diff = found(spec_text(), both)
    assert ("decode: GPUs", None, "8") in {(c.name, c.before, c.after) for c in diff.structure}
    gone = {c.name: c.after for c in found(both, spec_text()).structure}
    assert gone["decode: GPUs"] is None and gone["decode: mesh"] is None


def test_formats(capsys: Capture) -> None:
    diff = compare(compiled("plan_a"), compiled("plan_b"))
    shown = text(diff, "a.moe", "b.moe")
    assert [line for line in shown.splitlines() if line and line[0] != " "] == [
        "a.moe -> b.moe",
        "inputs",
        "structure",
        "results",
        "requirements",
    ]
    assert "↑" in shown and "↓" in shown and "dp * 16 + ep" in shown
    marked = markdown(diff, "a.moe", "b|<b>.moe")
    assert marked.startswith("## a.moe → b\\|&lt;b&gt;.moe\n") and "<b>" not in marked
    for line in marked.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (4, 6)
    data = plain(diff, "a", "b")
    assert len(data["results"]) == len(diff.results) and data["schema"] == 2


def test_inputs_are_told_as_a_spec_writes_them() -> None:
    """Names and units of the language, not the program's fields in SI."""
    text = spec_text()
    other = (
        text.replace("memory = 64 GB", "memory = 80 GB")
        .replace("mfu = 60%", "mfu = 55%")
        .replace("= 50 GB/s", "= 400 Gbit/s")
    )
    other = (
        other.replace("400 TFLOP/s", "989 TFLOP/s")
        .replace("prompt = 256 tok", "prompt = 512 tok")
        .replace("latency = 6 us", "latency = 7 us")
    )
    found = {c.name: (c.before, c.after) for c in compare(dagc.compile_text(text), dagc.compile_text(other)).inputs}
    assert found == {
        "hardware.memory": ("64 GB", "80 GB"),
        "hardware.mfu": ("60%", "55%"),
        "hardware.compute": ("400 TFLOP/s", "989 TFLOP/s"),
        "hardware.link cluster.latency": ("6 us", "7 us"),
        "workload.prompt": ("256 tok", "512 tok"),
        "phase.prefill.context": ("256 tok", "512 tok"),
        "phase.prefill.tokens": ("256", "512"),
    }


def test_memory_of_shared_gpus_is_compared() -> None:
    """A second copy of the weights is seen, and is a regression."""
    text = "phase decode {{ gpus = 0..7\nattention {{ tp = 8 }}\nexperts {{ {0} }} }}\n"
    prefill = "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }"
    a, b = (dagc.compile_text(spec_text(phase=prefill, extra=text.format(e))) for e in ("ep = 8", "ep = 4, tp = 2"))
    found = compare(a, b)
    (pool,) = [f for f in found.results if f.name == "prefill+decode.memory.peak"]
    assert pool.better is False and pool.after == b.pools[0].peak_B and pool.before == a.pools[0].peak_B
    assert "prefill+decode.memory.peak" in found.regressions(0.0)
    assert Change("phase.decode.experts", "ep 8 x tp 1", "ep 4 x tp 2") in found.inputs
    assert any(c.name == "decode: mesh" for c in found.structure)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_lost(width: int) -> None:
    small, large = (dagc.compile(MIXTRAL, settings={"batch": batch}, phases=["decode"]) for batch in (16, 64))
    lines = text(compare(small, large), "a", "b", width).splitlines()
    assert max(map(len, lines)) <= width
    words = text(compare(small, large), "a", "b", 1000).split()
    assert [word for line in lines for word in line.split()] == words
