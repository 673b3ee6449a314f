"""The answer of a plan: what every output says first, and that all of them say the same."""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import pairwise

import pytest
from conftest import SOME_EXAMPLES, compiled
from test_page import read

from dagc.api import Plan, compile_text
from dagc.cli import main
from dagc.view.facts.plan_answer import OF_A_SERVING, answer, title
from dagc.view.report.markdown import markdown
from dagc.view.report.markdown_text import escaped
from dagc.view.report.page.page import page as page_of
from dagc.view.report.terminal import report

pytestmark = pytest.mark.usefixtures("shared_servings")

SMALL = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { }
workload { sequences = SEQUENCES, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..7, tp = 8 }
phase decode { gpus = 0..7, tp = 8 }
"""


def reported(plan: Plan, width: int = 80) -> str:
    """The terminal's report, but for what faster hardware would buy."""
    return report(plan, dict.fromkeys(plan.phases, ()), width=width)


@cache
def shown_page(name: str) -> str:
    """The page of an example, but for what faster hardware would buy."""
    return page_of(compiled(name), dict.fromkeys(compiled(name).phases, ()))


@cache
def notebook_text(name: str) -> str:
    return read(compiled(name)._repr_html_()).text


def test_colours_take_no_room(example: Plan) -> None:
    none = dict.fromkeys(example.phases, ())
    for width in (60, 80):
        shown = report(example, none, color=True, width=width)
        assert "\x1b[1mmodel\x1b[0m" in shown and re.sub(r"\x1b\[[0-9;]*m", "", shown) == reported(example, width)


def small(*requirements: str, sequences: int = 8) -> Plan:
    text = SMALL.replace("SEQUENCES", str(sequences))
    return compile_text(text + "".join(f'require "{r}" {r}\n' for r in requirements))


@SOME_EXAMPLES
def test_every_output_begins_with_the_verdict_and_a_report_ends_with_it(example_name: str) -> None:
    example = compiled(example_name)
    found = answer(example)
    lines = reported(example).splitlines()
    assert lines[0] == lines[-1] == found.verdict
    assert markdown(example, dict.fromkeys(example.phases, ())).splitlines()[0].endswith(escaped(found.verdict))
    page, notebook = read(shown_page(example_name)).text, notebook_text(example_name)
    for shown in (notebook, page):
        at = 0
        for words in (found.verdict, *found.limits, *(one.value for one in found.figures)):
            at = shown.index(words, at)
    assert at < page.index("Requirements") < page.index("hardware")


def test_what_fails_comes_first_the_furthest_before_the_others(example: Plan) -> None:
    found = answer(example)
    assert sorted(v.requirement.label for v in found.requirements) == sorted(
        v.requirement.label for v in example.requirements
    )
    verdicts = [v.passed for v in found.requirements]
    assert verdicts == sorted(verdicts)
    assert all(a.distance >= b.distance for a, b in pairwise(found.failing))
    for shown in (reported(example, 200), markdown(example, dict.fromkeys(example.phases, ()))):
        rows = [
            line for line in shown.splitlines() if re.search(r"^(  (FAIL|pass)  |\| :(x|white_check_mark): \|)", line)
        ]
        marks = ["FAIL" in row or ":x:" in row for row in rows]
        assert len(rows) >= len(verdicts) and marks == sorted(marks, reverse=True)


@pytest.mark.parametrize(
    ("test", "by"),
    [
        ("hardware.hbm <= 1 TB/s", "2.35 TB/s over (3.35 times)"), ("hardware.hbm >= 4 TB/s", "650 GB/s under (-16.2%)"),
        ("hardware.gpus == 10", "2 under (-20.0%)"), ("hardware.mbu >= 90%", "10 points under (-11.1%)"),
        ("prefill.gpus <= 8", ""), ("prefill.gpus == 0", "8 over"),
    ],
)  # fmt: skip
def test_by_how_much(test: str, by: str) -> None:
    (verdict,) = small(test).requirements
    assert verdict.by == by


def test_the_limit_that_is_missed_by_most_binds_or_the_one_with_the_least_room() -> None:
    plan = small("prefill.ttft <= 1 ms", "decode.tpot <= 1 us", "hardware.gpus == 1000000")
    assert answer(plan).limits[0].startswith('missed by most: "decode.tpot <= 1 us"')
    assert [line.partition(":")[0] for line in answer(plan).limits[1:]] == ["decode"], "the phase of that requirement"
    held = small("prefill.ttft <= 1000 s", "decode.tpot <= 1 s")
    (room,) = {
        v.requirement.label for v in held.requirements if v.distance == min(v.distance for v in held.requirements)
    }
    assert answer(held).limits[0].startswith(f'least room: "{room}"')
    free = answer(small())
    assert free.verdict == "passed: no requirements" and [line.split(":")[0] for line in free.limits] == [
        "prefill",
        "decode",
    ]


def test_a_phase_waits_for_what_takes_most_of_its_path(example: Plan) -> None:
    for line in answer(example).limits:
        name, _, rest = line.partition(": ")
        if name in example.phases and "of its time" in rest:
            result = example.phases[name]
            total: dict[str, float] = {}
            for step in result.path:
                total[step.bound] = total.get(step.bound, 0.0) + step.time_s
            share = max(total.values()) / sum(total.values())
            assert rest.startswith(f"{share:.0%} of its time waits for ")
            ratio = re.search(r"; ([\d.]+) times its floor", rest)
            assert ratio is not None and math.isclose(float(ratio[1]), result.time_s / result.floor_s, rel_tol=5e-3)


def test_what_does_not_fit_is_the_answer() -> None:
    plan = small("prefill.ttft <= 1 us", sequences=40_000)
    found = answer(plan)
    assert not plan.fits and found.verdict.startswith("DOES NOT FIT: prefill and decode need ")
    pool = max(plan.pools, key=lambda one: one.fraction)
    assert f"(+{pool.fraction - 1:.1%})" in found.limits[0] and found.limits[0].startswith("memory of ")
    lines = reported(plan, 100).splitlines()
    assert lines[0] == lines[-1] == found.verdict and plan.overflow[0] in " ".join(reported(plan, 100).split())


def test_three_figures_are_those_that_the_spec_asks_for() -> None:
    names = [one.name for one in answer(small()).figures]
    assert names == ["decode TPOT", "prefill TTFT", "decode throughput per GPU"] or names[0] == "prefill TTFT"
    asked = answer(small("decode.utilization >= 1%", "prefill.memory.fraction <= 90%", "decode.tpot <= 1 us"))
    assert [one.name for one in asked.figures] == ["decode TPOT", "prefill memory fraction", "decode utilization"]
    assert [(one.required, one.holds) for one in asked.figures][:2] == [("<= 1 us", False), ("<= 90%", True)]
    served = answer(compiled("plan_a"))
    assert [one.name for one in served.figures] == [title(name) for name in OF_A_SERVING]
    p99 = compiled("plan_a").servings["traffic"].ttft.p99_s
    assert served.figures[0].value == f"{1000 * p99:.4g} ms"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_report_is_as_wide_as_the_terminal(example: Plan, width: int) -> None:
    """Names of the spec may be longer; no figure is apart from its unit."""
    lines = reported(example, width).splitlines()
    unit = re.compile(r"\d$")
    begins = re.compile(r"(?:[kMGTP]?B|[munk]?s|tok|req|GFLOP|MFLOP)(?:/\w+)?\b")
    for line, following in pairwise(lines):
        assert not (unit.search(line) and begins.match(following.strip())), (line, following)
    longest = max((line for line in lines if " " in line.strip()), key=len)
    assert len(longest) <= max(width, 80 if width < 60 else 0) or width < 60, longest
    rules = {len(line) for line in lines if line.endswith("----")}
    assert rules == {min(width, 120)}


def test_a_pipe_has_80_columns_whatever_the_terminal_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["compile", "examples/mixtral_8xh100.moe"])
    assert capsys.readouterr().out == compiled("mixtral_8xh100").report(width=80)


def test_check_has_a_line_a_plan_and_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("examples/mixtral_8xh100.moe", "examples/custom_attention.moe", "tests/golden/E01.moe")
    assert main(["check", *names]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [*names, "3 plans"]
    assert lines[-1] == "3 plans: 2 passed, 1 not a valid plan"


OTHERS = re.compile(
    r"""tok/ms|\btokens?\ ?(/|per\ )\ ?(s|ms|sec|second|minute)\b|\bt/s\b|\bTPS\b|\btps\b|\b[KMGT]iB\b|\bKB\b|\d\ ?[gmk]b\b
    |\d\ ?(msecs?|secs?|seconds?|millis\w*|usec|µs)\b|\breq(uests?)?\ ?(/|per\ )\ ?(sec|second|m|min|minute)\b|\b(rps|qps|QPS|RPS)\b
    |\$/(hr|hour|MTok|M\b)|\bUSD\b|\d[kMGT]?B/sec|[KMGT]Bps|[Gg]bps|TFLOPS\b""",
    re.VERBOSE,
)
"""Other spellings of the units."""
LONG = re.compile(r"(?<![\w.,])\d+\.\d*[1-9]\d*(?= (?:[munk]?s|[kMGTP]?B|tok/s|req/s|\$/\w+)\b)")


@SOME_EXAMPLES
def test_units_have_one_spelling_and_few_digits(example_name: str) -> None:
    """What the spec itself says is left out: labels, and its listing on the page."""
    example = compiled(example_name)
    none = dict.fromkeys(example.phases, ())
    listing = re.compile(r'<ol class="listing">.*?</ol>', re.DOTALL)
    page = read(listing.sub("", shown_page(example_name))).text
    labels = sorted({v.requirement.label for v in example.requirements}, key=len, reverse=True)
    for shown in (
        reported(example),
        reported(example, 200),
        markdown(example, none),
        page,
        notebook_text(example_name),
    ):
        bare = shown
        for label in labels:
            for words in (label, escaped(label), *(label[:k] + "..." for k in range(len(label), 8, -1))):
                bare = bare.replace(words, "")
        assert not (found := OTHERS.search(bare)), bare[found.start() - 60 : found.end() + 20]
        for figure in LONG.findall(bare) if shown is not page else ():  # where moments of a long run are told apart
            assert len(figure.replace(".", "").lstrip("0")) <= 4, figure
