"""`dagc serve`: report, table, files and exit codes."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, spec_text

import dagc
import dagc.serving.simulate as simulate_module
from dagc.cli import main, manner
from dagc.export import served_events, served_files
from dagc.export.events import EventSpan
from dagc.export.json import dumps
from dagc.export.served_files import HEAD, requests_csv
from dagc.serving.offered import load_of
from dagc.serving.records import Stretch
from dagc.spec.serve import Arrivals
from dagc.view.facts import served_words

Capture = pytest.CaptureFixture[str]
TEXT = spec_text(
    phase="gpus = 0..0",
    gpus=1,
    model="layers = 1, hidden = 64, vocab = 512, dtype = fp16\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
    "experts { count = 8, top_k = 2, hidden = 32 }",
    extra="""
phase decode { gpus = 0..0 }
param most = 1 us in [1 us, 20 ms, 100 ms]
serve chat { arrivals = poisson(200 req/s), lengths = uniform(80%, 100%), requests = 300, slots = 8, prompts = first, host = 100 us }
serve once { arrivals = burst, requests = 40, slots = 8, prompts = first }
require "first token" chat.ttft.p99 <= most
require chat.tpot.p90 <= 20 ms
""",
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "small.moe"
    path.write_text(TEXT)
    return path


def test_rules_say_what_a_step_and_the_host_do_to_a_request() -> None:
    """Prompts of 16 times a step are not called whole, and time that the host takes before the queue is named."""
    extra = "phase decode { gpus = 0..0 }\nserve chat { arrivals = burst, requests = 1, batch_tokens = 16 tok, slots = 4, request = 65 ms }"
    found = dagc.compile_text(TEXT.split("phase decode")[0] + extra)
    result = found.serve("chat")
    rules = served_words.rules_text(found.spec.serve("chat"), result)
    assert "steps of up to 16 tok, prompts not cut further, in decode steps, 65 ms of the host" in rules
    assert "1 request;" in served_words.ends_text(found.spec.serve("chat")) + ";"
    assert result.roles[0].running_mean + 65e-3 / result.duration_s == pytest.approx(1)


@pytest.fixture(scope="module")
def plan() -> dagc.Plan:
    made = dagc.compile_text(TEXT)
    return dataclasses.replace(made, servings={**made.servings, "once": made.serve("once")})


def ran(*args: str | Path) -> int:
    return main(["serve", *map(str, args)])


def test_a_report_is_one_screen_and_judges_the_requirements(spec: Path, capsys: Capture) -> None:
    assert ran(spec, "chat") == 1
    out = capsys.readouterr().out
    assert (
        out.startswith("FAILED: 1 of 2 requirements fail\n")
        and "\nchat ----" in out
        and len(out.splitlines()) <= 40
        and max(map(len, out.splitlines())) <= 80
    )
    for word in (
        "Poisson arrivals, 200 req/s",
        "300 requests",
        "8 slots",
        "TTFT",
        "goodput",
        "cache",
        "FAIL  first token",
        "pass  chat.tpot",
    ):
        assert word in out, word
    assert ran(spec, "--set", "most=100 ms") == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    heads = [line.split()[0] for line in out.splitlines() if line.endswith("-----")]
    assert heads == ["chat", "once"], "without names all, in the order of the spec"


def test_the_same_input_gives_the_same_bytes(spec: Path, tmp_path: Path) -> None:
    for name in "ab":
        ran(spec, "chat", "-o", tmp_path / name, "--emit", "csv,json,svg,perfetto")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        f"small.chat.{end}"
        for end in ("latencies.svg", "pftrace", "requests.csv", "series.svg", "serve.json", "steps.svg", "trace.json")
    ]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_json_is_of_the_schema_and_diff_reads_it(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    schema = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    ran(spec, "--json", "--set", "most=100 ms")
    text = capsys.readouterr().out
    data = json.loads(text)
    jsonschema.validate(data, schema)
    assert list(data["servings"]) == ["chat", "once"] and data["servings"]["once"]["load"]["offered_per_s"] is None
    (tmp_path / "a.json").write_text(text)
    ran(spec, "--json", "--set", "most=100 ms", "--seed", "3")
    (tmp_path / "b.json").write_text(capsys.readouterr().out)
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    shown = capsys.readouterr().out
    assert "chat.ttft.p99" in shown and "prefill.ttft" not in shown
    assert main(["compile", str(spec), "--json"]) == 1
    compiled = json.loads(capsys.readouterr().out)
    jsonschema.validate(compiled, schema)
    assert list(compiled["servings"]) == ["chat"], "a requirement names it"
    assert compiled["servings"]["chat"]["metrics"] == data["servings"]["chat"]["metrics"] | {
        key: compiled["servings"]["chat"]["metrics"][key] for key in ("goodput", "met")
    }


def test_a_plan_without_simulated_servings_has_none_in_its_json() -> None:
    assert "servings" not in dagc.compile_text(spec_text()).to_json()


def test_a_comparison_says_what_traffic_changed_and_whether_the_plan_still_keeps_up(
    tmp_path: Path, capsys: Capture
) -> None:
    text = TEXT.replace("poisson(200 req/s)", "poisson(come)").replace(
        "param most", "param come = 200 req/s\nparam most"
    )
    (tmp_path / "two.moe").write_text(text)
    two = str(tmp_path / "two.moe")
    assert main(["diff", two, "--set-b", "come=20000 req/s", "--fail-on-regression", "5"]) == 1
    out, err = capsys.readouterr()
    for words in ("serve.chat.arrivals.rate  200 req/s", "chat: verdict  ", "stable", "overloaded", "chat.queue "):
        assert words in out, words
    assert "regression: chat.ttft.p99" in err


@pytest.mark.parametrize(
    ("servings", "words"),
    [
        ([], "servings: is not an object"), ({"chat": {}}, "servings.chat.metrics: is missing"),
        ({"chat": {"metrics": {"ttft.p99": "1"}}}, "servings.chat.metrics.ttft.p99: is not a number"),
        ({"chat": {"metrics": {}, "verdict": 1}}, "servings.chat.verdict: is not a word"),
    ],
)  # fmt: skip
def test_servings_of_a_recorded_plan_that_cannot_be_are_refused(
    servings: object, words: str, tmp_path: Path, capsys: Capture
) -> None:
    data = dagc.compile_text(spec_text()).to_json() | {"servings": servings}
    (tmp_path / "a.json").write_bytes(dumps(data))
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 2
    assert words in capsys.readouterr().err


def test_the_table_marks_the_knee(spec: Path, capsys: Capture) -> None:
    base, policies = ("chat", "--set", "most=20 ms"), ("fcfs", "shortest")
    assert ran(spec, *base, "--over", "rate=20..9020/3,policy=fcfs,shortest", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["rate"], row["policy"]) for row in rows] == [(r, p) for r in ("20", "4520", "9020") for p in policies]
    for policy in policies:
        series = [row for row in rows if row["policy"] == policy]
        held = [k for k, row in enumerate(series) if not row["breaks"]]
        assert held == list(range(len(held))) and 0 < len(held) < 3
        assert [row["knee"] for row in series] == ["knee" if k == held[-1] else "" for k in range(3)]
    assert "ttft.p99 [s]" in rows[0] and rows[-1]["verdict"] == "overloaded"
    assert ran(spec, *base, "--over", "rate=20", "--metric", "kv_fill", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (
        row["settings"] == {"rate": "20"}
        and not row["knee"]
        and row["broken"] == []
        and 0 < row["metrics"]["kv_fill"] < 1
    )
    assert ran(spec, "chat", "--over", "most=1 us,100 ms") == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:]] == ["stable"]
    assert ran(spec, "chat", "--over", "rate=3000") == 1


def test_a_table_leaves_out_servings_to_which_a_word_does_not_apply(spec: Path, capsys: Capture) -> None:
    assert ran(spec, "--over", "rate=20", "--set", "most=100 ms") == 0
    assert "once" not in capsys.readouterr().out
    assert ran(spec, "once", "--over", "rate=20") == 2
    assert "arrivals of `once` are burst" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("chut",), "did you mean `chat`?"),
        (("--over", "rat=1"), "did you mean `rate`?"),
        (("--over", "rate"), "not of the form"),
        (("--over", "rate=1,rate=2"), "given twice"),
        (("--over", "rate=1..2/1"), "from 2 to"),
        (("--over", "rate=1..9/200,slots=1..9/200"), "are more than"),
        (("--over", "rate="), "a value is missing"),
        (("--over", "rate=1", "--knee"), "cannot be said together"),
        (("--over", "rate=1", "--metric", "ttft.p9"), "did you mean `ttft.p90`?"),
        (("--emit", "svf"), "did you mean `svg`?"),
        (("--format", "csv"), "--format is of the table"),
        (("chat", "--write-trace", "t.txt"), "ends in .csv or .jsonl"),
        (("--write-trace", "t.csv"), "is of one serving"),
        (("chat", "--phase", "decode"), "`--phase` leaves out `prefill`, which serves in `chat`"),
        (("once", "--knee"), "all its requests come at once"),
    ],
)
def test_what_is_wrong_is_said(args: tuple[str, ...], words: str, spec: Path, capsys: Capture) -> None:
    assert ran(spec, *args) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("rate=0", "0 req/s is not a number from"), ("rate=1 ms", "is not a number in req/s"), ("slots=1.5", "is not a whole number"),
        ("policy=fcfx", "did you mean `fcfs`?"), ("prefix_cache=yes", "neither true nor false"), ("clients=3", "are poisson"),
        ("rate=)", "is not a number"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_said_in_its_row(over: str, words: str, spec: Path, capsys: Capture) -> None:
    assert ran(spec, "chat", "--over", over, "--format", "json") == 2
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_a_spec_without_servings_says_how_to_write_one(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.moe").write_text(spec_text())
    assert ran(tmp_path / "p.moe") == 2
    assert "the spec has no serving" in capsys.readouterr().err


def test_the_knee_and_what_breaks_above_it(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    assert ran(spec, "chat", "--knee", "--set", "most=20 ms", "--emit", "svg,json", "-o", tmp_path) == 0
    out = capsys.readouterr().out
    assert "what breaks first: " in out and "  knee " in out and "  above " in out
    found = json.loads((tmp_path / "small.chat.serve.json").read_text())["knee"]
    assert found["at"] < found["above"] <= found["at"] * 1.0101
    by_load = {point["load"]: point for point in found["points"]}
    assert by_load[found["at"]]["broken"] == [] and by_load[found["above"]]["broken"]
    assert by_load[found["at"]]["metrics"]["ttft.p99"] <= 0.02
    assert (tmp_path / "small.chat.load.svg").exists()


def test_the_knee_follows_from_the_seed_alone(plan: dagc.Plan) -> None:
    serve = plan.spec.serve("chat")
    slow = dataclasses.replace(serve, arrivals=dataclasses.replace(serve.arrivals, rate_per_s=50.0))
    relaxed = dagc.compile_text(TEXT, settings={"most": "20 ms"})
    first, second = relaxed.knee(serve), relaxed.knee(slow)
    assert first.at is not None and second.at is not None
    assert first.at.load == second.at.load


def test_the_requests_are_a_line_each(plan: dagc.Plan) -> None:
    served = plan.servings["chat"].outcome.served
    lines = b"".join(requests_csv(served)).decode().splitlines()
    assert lines[0] == HEAD and len(lines) == 301
    came, queued, first, each, whole, prompt, output, cached = lines[17].split(",")
    assert (int(prompt), int(output), int(cached)) == (served.prompt[16], served.output[16], served.cached[16])
    assert float(queued) == pytest.approx(served.queued_s[16], rel=1e-8)
    assert float(came) == pytest.approx(served.arrival_s[16], abs=1e-9)
    assert float(each) == pytest.approx((float(whole) - float(first)) / (int(output) - 1), rel=1e-6)


def test_a_written_trace_is_read_again(spec: Path, tmp_path: Path, plan: dagc.Plan) -> None:
    trace = tmp_path / "t.csv"
    assert ran(spec, "chat", "--write-trace", trace) == 0
    serve = plan.spec.serve("chat")
    again = dataclasses.replace(
        serve, arrivals=Arrivals("trace", path=trace), lengths=dataclasses.replace(serve.lengths, kind="trace")
    )
    assert list(load_of(again).requests) == list(load_of(serve).requests)


def test_every_report_of_the_plan_has_the_servings_that_were_simulated(plan: dagc.Plan) -> None:
    page, text, markdown = plan.html(), plan.report(), plan.markdown()
    for name in plan.servings:
        assert f"<h2>{name}</h2>" in page and f"\n{name} -----" in text and f"| {name} | " in markdown
    assert plan._repr_html_().count(">TTFT p50</th>") == 1
    assert page.count('class="fig latencies"') == 2 and 'class="curve s' in page
    assert "backlogged: " in text and ">backlogged</span>" in page
    bare = dagc.compile_text(spec_text())
    assert "curve s" not in bare.html() and "| serving |" not in bare.markdown()


def test_pictures_are_drawn_of_every_serving(plan: dagc.Plan) -> None:
    for name in plan.servings:
        for view in ("latencies", "series", "steps"):
            root = ET.fromstring(plan.serving_svg(name, view))
            assert root.tag.endswith("svg") and float(root.attrib["width"]) > 600
    with pytest.raises(ValueError, match="no view 'x' of a serving: latencies, series, steps, load"):
        plan.serving_svg("chat", "x")


def test_a_timeline_has_steps_without_overlap_and_every_request(plan: dagc.Plan) -> None:
    result = plan.servings["chat"]
    steps = [Stretch(0, -1, 0.0, 0.5, 5, 3, 0), Stretch(0, -1, 0.5, 0.6, 1, 3, 64)]
    found = dataclasses.replace(result, outcome=dataclasses.replace(result.outcome, steps=steps))
    spans = [e for e in served_events.events(found) if isinstance(e, EventSpan)]
    assert [(e.name, e.start_ns, e.end_ns) for e in spans[:2]] == [
        ("decode", 0, 500_000_000),
        ("mixed", 500_000_000, 600_000_000),
    ]
    requests = [e for e in spans if e.category == "request"]
    assert len(requests) == 2 * 300
    by_lane: dict[int, list[EventSpan]] = {}
    for e in requests:
        by_lane.setdefault(e.track.uuid, []).append(e)
    for mine in by_lane.values():
        assert all(a.end_ns <= b.start_ns for a, b in itertools.pairwise(mine))


def test_rows_for_a_data_frame(plan: dagc.Plan) -> None:
    rows = plan.rows("servings")
    assert [row["serving"] for row in rows] == ["chat", "once"] and len({tuple(row) for row in rows}) == 1
    assert rows[0]["ttft.p99"] == plan.servings["chat"].ttft.p99_s


def test_a_terminal_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with manner.shown_progress() as told:
        assert told is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with manner.shown_progress("chat: ") as told:
        assert told is not None
        told("100%")
        told("5%")
    assert capsys.readouterr().err == "\rchat: 100%\rchat: 5%  \r          \r"


@pytest.mark.parametrize("place", ["the simulation", "a file"])
def test_an_interrupted_run_leaves_nothing(
    place: str, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Neither in the middle of the run, nor in the middle of a file that is streamed."""
    reached = []

    def stopped(*args: object, **more: object) -> Iterator[bytes]:
        reached.append(place)
        yield b"the beginning"
        raise KeyboardInterrupt

    def run(*args: object, **more: object) -> None:
        reached.append(place)
        raise KeyboardInterrupt

    if place == "a file":
        monkeypatch.setattr(served_files, "requests_csv", stopped)
    else:
        monkeypatch.setattr(simulate_module, "simulate", run)
    assert ran(spec, "once", "-o", tmp_path / "out", "--emit", "json,csv") == 130
    assert reached == [place] and list(tmp_path.iterdir()) == []
    assert "once ----" not in capsys.readouterr().out
