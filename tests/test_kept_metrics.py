"""Another requirement on a plan that `dagc check` has seen compiles nothing, and prints what it would print."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import spec_text
from test_kept_verdicts import Capture, run
from tiers import spread

from dagc.base import user_cache
from dagc.base.diagnostics import Collector, Diagnostic
from dagc.base.frozen import replace
from dagc.base.source import Source, Span
from dagc.cli import kept_metrics, kept_verdicts
from dagc.lang.load import load
from dagc.pipeline import compile as pipeline

PHASES = """phase decode { gpus = 0..7, tp = 8 }
let most = 30 ms
"""
SERVE = "serve traffic { prefill = prefill, decode = decode, arrivals = poisson(10 req/s), requests = 2 }\n"
ASKED = """require "first" prefill.ttft <= 1 us
require decode.tpot <= most and_more
require "memory" prefill.memory.fraction <= 90
require "kv" decode.memory.kv_cache + prefill.memory.weights >= 1 TB
require "whole" model.params_total > 0
""".replace(" and_more", "")
SERVED = 'require "served" traffic.ttft.p99 <= 1 s\n'
TEXT = spec_text(extra=PHASES + ASKED)
SERVING = TEXT + SERVE + SERVED


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each plan that is compiled by a dagc that is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DAGC_CACHE", raising=False)
    monkeypatch.setattr(user_cache, "identity", lambda: "installed")
    monkeypatch.setattr(kept_verdicts, "_elsewhere", kept_verdicts.Elsewhere())
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    compile_spec = pipeline.compile_spec

    def counted(*args: Any, **more: Any) -> Any:
        found.append("compiled")
        return compile_spec(*args, **more)

    monkeypatch.setattr(pipeline, "compile_spec", counted)
    return found


def check(text: str, capsys: Capture, *more: str) -> tuple[int, str, str]:
    Path("plan.moe").write_text(text)
    return run(capsys, "plan.moe", *more)


def fresh(text: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, str, str]:
    with monkeypatch.context() as patch:
        patch.setenv("DAGC_CACHE", "off")
        return check(text, capsys, *more)


def entry_of_the_plan() -> Path:
    (found,) = (path for path in Path("cache/dagc/kept").glob("*.json") if '"metrics"' in path.read_text())
    return found


def edited(rng: random.Random, text: str) -> str:
    """Other bounds, another order of requirements, fewer of them, comments between."""
    plan = [line for line in text.split("\n") if not line.startswith("require") or "traffic" in line]
    asked = [line for line in text.split("\n") if line.startswith("require") and "traffic" not in line]
    rng.shuffle(asked)
    number = lambda _: rng.choice(("1", "70", "5000"))  # noqa: E731
    changed = (re.sub(r"\b\d+\b", number, line) + rng.choice(("", " # said")) for line in asked if rng.random() < 0.8)
    return "\n".join([*plan, *(f"{line}\n" + rng.choice(("", "\n# between\n")) for line in changed)])


@pytest.mark.parametrize("base", [TEXT, SERVING], ids=["plan", "serving"])
def test_other_requirements_are_judged_on_what_is_kept(
    compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    rng = random.Random(1)
    check(base, capsys)
    assert len(compilations) == 1
    for more in ([], ["--format", "json"], ["-q"]):
        text = edited(rng, base)
        found = check(text, capsys, *more)
        assert len(compilations) == 1
        assert found == fresh(text, capsys, monkeypatch, *more) and found[1:] != ("", "")
        compilations.pop()


@pytest.mark.parametrize(
    "text",
    [
        TEXT + 'require "another metric" decode.memory.weights <= 1 TB\n',
        TEXT + 'require "a function" decode.gpu(tp = 0) == 0\n',
        TEXT.replace("sequences = 64", "sequences = some").replace("let most", "let some = 32\nlet most"),
        TEXT.replace("gpus = 0..7, tp = 8", "gpus = 0..3, tp = 4"),
        TEXT + "require decode.tpot <= 3 GB\n",
        TEXT + "require decode.none <= 3\n",
    ],
)
def test_what_else_is_asked_for_is_compiled(
    compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    check(TEXT, capsys)
    found = check(text, capsys)
    assert len(compilations) == 2 and found == fresh(text, capsys, monkeypatch)


def test_a_requirement_on_a_serving_is_of_the_plan(
    compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its requests must keep follows from it, and whether it is simulated."""
    check(SERVING, capsys)
    for text in (SERVING.replace("p99 <= 1 s", "p99 <= 2 s"), SERVING.replace(SERVED, "")):
        compilations.clear()
        found = check(text, capsys)
        assert len(compilations) == 1 and found == fresh(text, capsys, monkeypatch)


def test_constants_of_requirements_are_judged_as_they_are_now(
    compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT + "let half = most / 2\nrequire decode.tpot <= half\n"
    check(text, capsys)
    for bound in ("1 us", "30 us", "2 s"):
        other = text.replace("30 ms", bound)
        assert check(other, capsys) == fresh(other, capsys, monkeypatch)
    assert len(compilations) == 4
    assert check(text.replace("30 ms", "30 GB"), capsys)[0] == 2


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("let limit_a = 3 ms # why\nlet limit_b = 2 * limit_a", ""),
        ("let limit_a = 3\nlet limit_b = 2\nphase decode { batch = limit_a }", "let limit_a = 3\nphase decode { batch = limit_a }"),
        ("let limit_a = 3\nlet limit_b = limit_a\nphase d { b = limit_b }", "let limit_a = 3\nlet limit_b = limit_a\nphase d { b = limit_b }"),
        ("block b(x) {\n  let limit_a = 3\nlet limit_b = 3\n}", "block b(x) {\n  let limit_a = 3\nlet limit_b = 3\n}"),
        ("let hidden = 3\nlet limit_a = (3)\nlet limit_b = 1, let limit_c = 2", "let hidden = 3\nlet limit_a = (3)\nlet limit_b = 1, let limit_c = 2"),
        ('let limit_a = 3\nserve s { trace = "limit_a.csv" }', 'let limit_a = 3\nserve s { trace = "limit_a.csv" }'),
    ],
)  # fmt: skip
def test_constants_that_nothing_else_names(text: str, left: str) -> None:
    """Those of library blocks are named there."""
    base = spec_text(extra="")
    source = Source("plan.moe", base + text + "\n")
    own = kept_metrics.plan_text(load(Source("other.moe", base), Collector()), source)
    assert own is not None and own.text == kept_metrics.said(base + left).text


def test_a_requirement_may_be_wrong_without_a_plan(compilations: list[str], capsys: Capture) -> None:
    """What the text says wrong is told before anything is looked for."""
    check(TEXT, capsys)
    assert check(TEXT + "require nothing.tpot <= 3 s\n", capsys)[0] == 2 and len(compilations) == 1


@pytest.mark.parametrize(
    "text",
    [
        spec_text(phase="gpus = 0..0", workload="sequences = 100000, prompt = 8192 tok, output = 16 tok", extra=ASKED.partition("require d")[0]),
        'moe 1\nimport "more.moe"\n' + TEXT.removeprefix("moe 1\n"),
    ],
)  # fmt: skip
def test_of_some_plans_nothing_is_kept(compilations: list[str], capsys: Capture, text: str) -> None:
    """One that does not fit, as what would cure it is looked for, and one of other files."""
    Path("more.moe").write_text("moe 1\nlet x = 2\n")
    check(text, capsys)
    assert not any('"metrics"' in path.read_text() for path in Path("cache/dagc/kept").glob("*.json"))


def test_a_part_of_a_plan_is_compiled(compilations: list[str], capsys: Capture) -> None:
    for bound in ("1 us", "2 us"):
        check(TEXT.replace("1 us", bound), capsys, "--phase", "prefill")
    assert len(compilations) == 2


SPOILS: list[Callable[[dict[str, Any]], Any]] = [
    lambda e: e.pop("metrics"),
    lambda e: e.update(metrics=[]),
    lambda e: e["metrics"].update({"prefill.ttft": ["1", *[0] * 7]}),
    lambda e: e["metrics"].update({"prefill.ttft": [1.0, *[0] * 6]}),
    lambda e: e["metrics"].update({"prefill.ttft": 1.0}),
    lambda e: e.update(names=[[], []]),
    lambda e: e.update(names=[[1], [], []]),
    lambda e: e.update(names={}),
    lambda e: e["pools"][0].pop(),
    lambda e: e["pools"][0].__setitem__(1, "1"),
    lambda e: e["pools"][0].__setitem__(-1, 10**9),
    lambda e: e["pools"][0].__setitem__(0, [3]),
    lambda e: e.update(diagnostics={}),
    lambda e: e.update(diagnostics=[["E03", "no", None, "", [], [], []]]),
]


@pytest.mark.parametrize("spoil", spread(SPOILS, SPOILS[::3]))
def test_an_entry_of_another_form_counts_as_absent(
    compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    check(TEXT, capsys)
    path = entry_of_the_plan()
    found = json.loads(path.read_text().partition("\n")[2])
    spoil(found)
    user_cache.write(path.stem, found)
    text = TEXT.replace("1 us", "2 us")
    assert check(text, capsys) == fresh(text, capsys, monkeypatch)
    assert len(compilations) == 3


def test_what_a_text_says_of_the_plan() -> None:
    source = Source("plan.moe", SERVING)
    spec = load(source, Collector())
    own = kept_metrics.plan_text(spec, source)
    assert own is not None and own.text.count("require") == 1 and SERVED.strip() in own.text
    assert own.text.startswith("moe 1\n") and own.place(SERVING.index("require")) is None
    assert kept_metrics.plan_text(spec, Source("other.moe", SERVING)) is None


def test_what_is_told_of_another_file_is_of_no_requirement_of_this_one() -> None:
    """At the place that one has here: such a plan is not kept, instead of without the warning."""
    source, out = Source("plan.moe", TEXT), Collector()
    spec = load(source, out)
    plan = pipeline.compile_spec(spec, out)
    own = kept_metrics.plan_text(spec, source)
    place = plan.spec.requirements[0].span
    assert own is not None and place is not None and kept_metrics.entry(plan, (), source, own) is not None
    told = Diagnostic("W06", "doubtful", Span(Source("library/blocks.moe", TEXT), place.start, place.end))
    assert kept_metrics.entry(replace(plan, diagnostics=(*plan.diagnostics, told)), (), source, own) is None
