"""What `import dagc` gives: commands as functions, short texts, errors that say where, rows as data frames."""

from __future__ import annotations

import json
import math
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, compiled, spec_text
from tiers import spread

import dagc
from dagc.api.asked_specs import setting_text
from dagc.base.short_repr import LINE, ROOM, short
from dagc.base.units import TIME, show
from dagc.cli import main

MIXTRAL = ROOT / "examples" / "mixtral_8xh100.moe"
SMALL = (
    spec_text(kind="decode", extra='require "soon" decode.tpot <= 1 s')
    .replace("moe 1", "moe 1\nparam batch = 64 in [16, 32, 64]")
    .replace("sequences = 64", "sequences = batch")
)
COMMANDS = ("check", "diff", "search", "serve", "sweep", "verify")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A spec of one phase, with a param."""
    spec = tmp_path / "small.moe"
    spec.write_text(SMALL)
    return spec


def test_the_public_face_is_listed_documented_and_there() -> None:
    assert dir(dagc) == sorted([*dagc.__all__, "__version__"])
    assert set(COMMANDS) < set(dagc.__all__)
    text = pydoc.plain(pydoc.render_doc(dagc))
    for name in dagc.__all__:
        found = getattr(dagc, name)
        assert found.__doc__ and found.__module__.startswith("dagc."), name
        assert f"    {name}(" in text or f"class {name}(" in text, name


def test_a_function_of_each_command_takes_what_it_says() -> None:
    """Names that are no attribute are refused, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'compiles'"):
        _ = dagc.compiles
    assert (
        "numpy"
        not in subprocess.run(
            [sys.executable, "-c", "import sys, dagc; print(*sys.modules)"], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (64, "64"), (np.int64(64), "64"), (2.5, "2.5"), (np.float32(0.5), "0.5"), (True, "true"), (np.bool_(False), "false"),
        ("10 ms", "10 ms"), ([1, 2.5], "[1, 2.5]"), ((np.int32(3), "4 tok"), "[3, 4 tok]"),
    ],
)  # fmt: skip
def test_settings_take_numbers(value: object, text: str) -> None:
    assert setting_text(value) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, {"a": 1}, b"64", object(), 1j])
def test_other_settings_are_refused(small: Path, value: object) -> None:
    with pytest.raises(TypeError, match="a setting is a number"):
        dagc.compile(small, settings={"batch": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_infinite_settings_are_refused(small: Path, value: float) -> None:
    with pytest.raises(ValueError, match="is not a value of a param"):
        dagc.compile(small, settings={"batch": value})


def test_a_number_is_the_text_of_the_command_line(small: Path) -> None:
    by_number, by_text = (dagc.compile(small, settings={"batch": value}).to_json() for value in (32, "32"))
    assert by_number == by_text


def test_check_says_what_the_command_says() -> None:
    for example in ("plan_a",):
        found = dagc.check(ROOT / "examples" / f"{example}.moe")
        plan = compiled(example)
        assert (found.passed, found.fits, bool(found)) == (plan.passed, plan.fits, plan.passed)
        assert [v.requirement.label for v in found.failed] == [
            v.requirement.label for v in plan.requirements if not v.passed
        ]
        assert found.verdict in repr(found) and "\n" not in repr(found)


def test_check_of_a_wrong_spec_is_an_answer(tmp_path: Path) -> None:
    spec = tmp_path / "wrong.moe"
    spec.write_text(spec_text(phase="gpus = 0..7, ep = 3, tp = 2"))
    found = dagc.check(spec)
    assert not found and found.plan is None and found.requirements == () and not found.fits
    assert [d.code for d in found.diagnostics if d.severity == "error"] == ["E03"]
    assert str(found).startswith(f"{spec}: not a valid plan\n{spec}:")


def test_errors_say_where_and_what(tmp_path: Path) -> None:
    spec = tmp_path / "wrong.moe"
    spec.write_text(MIXTRAL.read_text().replace('"mixtral-8x7b"', '"mixtral-8x7"'))
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile(spec)
    error = caught.value
    line = 1 + next(number for number, text in enumerate(spec.read_text().splitlines()) if "mixtral-8x7" in text)
    assert (error.file, error.line, error.code) == (str(spec), line, "E02")
    assert error.help[0] == 'did you mean "mixtral-8x7b"?'
    first = str(error).splitlines()
    assert first[0].startswith(f"{spec}:{line}:{error.column}: E02 unknown model preset")
    assert first[1] == '  help: did you mean "mixtral-8x7b"?'
    assert any("^" in text for text in error._render_traceback_()), "a notebook shows the place"
    again = pickle.loads(pickle.dumps(error))
    assert (again.file, again.line, again.code, again.help) == (error.file, error.line, error.code, error.help)


def test_an_error_of_no_place() -> None:
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile("no-such-file.moe")
    assert (caught.value.file, caught.value.line, caught.value.column, caught.value.code) == ("", 0, 0, "E05")
    empty = dagc.SpecError([])
    assert (empty.file, empty.line, empty.code, empty.help, str(empty)) == ("", 0, "", (), "")


def test_a_phase_that_a_plan_has_not(small: Path) -> None:
    plan = dagc.compile(small)
    for asked in (plan.svg, plan.placed, plan.to_networkx, plan.sensitivities):
        with pytest.raises(dagc.SpecError, match="unknown phase `prefills`") as caught:
            asked("prefills")
        assert caught.value.help == (f"phases: {', '.join(plan.phases)}",)


def test_verify_proves_each_phase(small: Path) -> None:
    found = dagc.verify(small, phases=["decode"])
    assert found and repr(found) == "<Verification decode equal>" and found["decode"].ranks > 1
    with pytest.raises(KeyError):
        found["prefills"]
    with pytest.raises(dagc.SpecError, match="unknown phase `nothing`"):
        dagc.verify(small, phases=["nothing"])
    with pytest.raises(dagc.SpecError, match="needs weights"):
        dagc.verify(small, reference="logits.npz")


def test_sweep_has_the_rows_of_the_command(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dagc.sweep(small, {"batch": [16, 32]}, workers=1)
    assert main(["sweep", str(small), "--over", "batch=16,32", "--workers", "1", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row.settings, row.passed, row.metrics) for row in found] == [
        (row["settings"], row["passed"], row["metrics"]) for row in rows
    ]
    assert len(found) == 2 and found[0].settings == {"batch": "16"} and len(found[:1]) == 1
    assert repr(found) == "<Sweep of 2 points: 2 pass>"


def test_sweep_refuses_what_cannot_be_meant(small: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        dagc.sweep(small, {"batch": [1]}, workers=0)
    with pytest.raises(ValueError, match="has no values"):
        dagc.sweep(small, {"batch": []})
    with pytest.raises(dagc.SpecError, match="no such param"):
        dagc.sweep(small, {"batches": [1]}, workers=1)


OPEN = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 512 tok, output = 64 tok }
phase decode { gpus = 0..7, attention { tp = any, dp = any }, experts { ep = 8 } }
"""


def test_search_finds_what_brute_force_finds(tmp_path: Path) -> None:
    spec = tmp_path / "open.moe"
    spec.write_text(OPEN)
    found = dagc.search(spec, objective="throughput", workers=1)
    assert found and found.complete and found.best is not None
    every = {}
    for tp in (1, 2, 4, 8):
        text = OPEN.replace("tp = any, dp = any", f"tp = {tp}, dp = {8 // tp}")
        plan = dagc.compile_text(text)
        if plan.fits:
            every[tp] = plan.phases["decode"].throughput_tok_s
    best = max(every, key=lambda tp: every[tp])
    assert found.best.phases[0].choices["attention.tp"] == str(best)
    assert found.best.figures[0] == pytest.approx(every[best], rel=1e-12)
    assert found.compiled().phases["decode"].throughput_tok_s == pytest.approx(every[best], rel=1e-12)
    assert found.rows()[0]["decode.throughput"] == found.best.figures[0]
    assert "complete" in repr(found) and "\n" not in repr(found) and "throughput" in found.report()


def test_search_refuses_what_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no engine 'llama'"):
        dagc.search(MIXTRAL, engine="llama")
    with pytest.raises(ValueError, match="at least 1"):
        dagc.search(MIXTRAL, top=0)
    with pytest.raises(dagc.SpecError, match="leaves nothing open"):
        dagc.search(MIXTRAL, workers=1)


def test_serve_simulates_by_name() -> None:
    found = dagc.serve(MIXTRAL, settings={"rate": "2 req/s"})
    (name,) = found
    assert found[name].finished > 0
    again = dagc.serve(MIXTRAL, name, seed=1, settings={"rate": "2 req/s"})
    assert again[name].ttft.mean_s != found[name].ttft.mean_s
    with pytest.raises(dagc.SpecError, match="no serving `chats`"):
        dagc.serve(MIXTRAL, "chats")


def test_diff_of_settings_plans_and_records(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dagc.diff(small, settings_b={"batch": 32})
    assert found and main(["diff", str(small), "--set-b", "batch=32", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in json.loads(json.dumps(found.to_json())).items() if k not in ("a", "b")} == {
        k: v for k, v in printed.items() if k not in ("a", "b")
    }
    plan = dagc.compile(small)
    recorded = tmp_path / "plan.json"
    recorded.write_text(json.dumps(plan.to_json()))
    assert not dagc.diff(plan, plan) and not dagc.diff(recorded, plan)
    assert "\n" not in repr(found) and {"metric", "before", "after", "ratio", "better"} == set(found.rows()[0])
    with pytest.raises(ValueError, match="nothing to compare"):
        dagc.diff(small)
    for side in (plan, recorded):
        with pytest.raises(ValueError, match="has no params"):
            dagc.diff(side, small, settings_a={"batch": 1})


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_become_data_frames(library: str) -> None:
    frames = pytest.importorskip(library)
    plan = compiled("plan_a")
    for table in ("ops", "phases", "collectives", "memory", "pools", "critical_path", "requirements", "servings"):
        frame = plan.to_dataframe(table, library=library)
        assert isinstance(frame, frames.DataFrame)
        assert len(frame) == len(plan.rows(table)), table
    assert list(plan.to_dataframe("memory", library=library).columns) == list(plan.rows("memory")[0])
    with pytest.raises(ValueError, match="no table 'rows'"):
        plan.to_dataframe("rows")


def test_data_frames_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagc.api.data_frames.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install pandas"):
        compiled("plan_a").to_dataframe()
    with pytest.raises(ValueError, match="no data frames of 'arrow'"):
        compiled("plan_a").to_dataframe(library="arrow")


@pytest.mark.parametrize("example", spread(["plan_a", "qwen3_235b_two_pools"]))
def test_every_record_that_users_reach_prints_as_a_line(example: str) -> None:
    plan = compiled(example)
    result = next(iter(plan.phases.values()))
    for record in (
        plan,
        plan.spec,
        plan.spec.model,
        result,
        result.graph,
        result.costs,
        result.schedule,
        result.memory,
        *plan.pools,
    ):
        assert "\n" not in repr(record) and len(repr(record)) <= LINE + 60, type(record)


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10_000, list(range(10_000)), {str(k): k for k in range(1000)}, np.zeros((100, 3)), (("a" * 100,) * 100,), frozenset(range(500)),
        b"x" * 1000, [[[[0] * 50] * 50] * 50],
    ],
)  # fmt: skip
def test_values_are_cut_to_their_room(value: object) -> None:
    assert len(short(value)) <= ROOM


def test_small_values_are_printed_as_python_does() -> None:
    for value in (1, -2.5, True, None, "a\n", (1,), [1, "b"], {"a": 1}, b"x", ()):
        assert short(value) == repr(value)


@pytest.mark.parametrize("ask", [dagc.Plan.serve, dagc.Plan.knee])
def test_a_serving_that_is_not_there_is_told(ask: Callable[[dagc.Plan, str], object]) -> None:
    with pytest.raises(dagc.SpecError, match="E14 the spec has no serving `chta`"):
        ask(compiled("plan_a"), "chta")


def test_results_say_what_people_ask_of_them() -> None:
    plan = compiled("mixtral_8xh100")
    prefill, (first, *_) = plan.phases["prefill"], plan.requirements
    assert repr(prefill).startswith(f"<PhaseResult prefill: {show(prefill.time_s, TIME)}, 8 GPUs, ")
    assert repr(first) == f"<Verdict pass {first.requirement.label!r}: {first.sides}>"
    served = plan.serve("chat")
    assert repr(served).startswith("<ServeResult chat: TTFT p99 ") and repr(served).endswith(f"{served.verdict}>")
    step = compiled("mixtral_pretrain").trainings["pretrain"]
    assert repr(step).startswith(
        f"<TrainingResult pretrain: {show(step.time_s, TIME)} a step, 64 GPUs, MFU {step.mfu:.1%}"
    )
