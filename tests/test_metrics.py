"""The table of metrics: one record is all that a metric takes, and every output has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES, ROOT, SHOWN, compiled, spec_text
from tiers import spread

import dagc
from dagc.base.synonyms import OF_METRICS
from dagc.base.units import TIME, Quantity
from dagc.cli import main
from dagc.plan.subject import AskedMetrics, Subject, all_metrics
from dagc.spec.metrics import known_metrics
from dagc.spec.metrics.known_metrics import TABLE, of_phase, of_serving, of_training
from dagc.spec.metrics.meant import meant_metric
from dagc.spec.metrics.metric import PHASE, Metric

pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]
SCHEMA = json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
MINE = Metric(
    PHASE, "mine.wait", TIME, "lower", "two of its steps", lambda s: 2 * s.result.schedule.period_s, json="mine_wait_s",
    row="mine_wait_s", reported=True, usual=True, gated=True,
)  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec, while the table has one record more."""
    monkeypatch.setattr(known_metrics, "TABLE", (*TABLE, MINE))
    path = tmp_path / "p.moe"
    path.write_text(spec_text() + 'param k = 1 in [1, 2]\nrequire "mine" prefill.mine.wait < 1 s\n')
    return path


def output(capsys: Capture, *args: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(args)) == code
    return capsys.readouterr().out


def test_one_record_reaches_every_output(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    plan = dagc.compile(spec)
    value = 2 * plan.phases["prefill"].schedule.period_s
    text = MINE.shown(value)
    assert [v.value for v in plan.requirements] == [value] and plan.passed
    assert plan.rows("phases")[0]["mine_wait_s"] == value
    written = output(capsys, "compile", str(spec), "--json")
    assert json.loads(written)["phases"]["prefill"]["mine_wait_s"] == value
    assert f"mine.wait {text}" in plan.report()
    for shown in (plan.markdown(), plan.html(), plan._repr_html_()):
        assert "mine.wait" in shown and text in shown
    assert MINE.about in plan.html()
    assert output(capsys, "sweep", str(spec), "--workers", "1").splitlines()[0].split().count("prefill.mine.wait") == 1
    assert f"{value:.6g}" in output(
        capsys, "sweep", str(spec), "--workers", "1", "--format", "csv", "--metric", "prefill.mine.wait"
    )
    assert "PHASE.mine.wait" in output(capsys, "list", "metrics")
    recorded = tmp_path / "before.json"
    before = json.loads(written)
    before["phases"]["prefill"]["mine_wait_s"] = value / 2
    recorded.write_text(json.dumps(before))
    found = output(capsys, "diff", str(recorded), str(spec), "--fail-on-regression", code=1)
    (line,) = (row for row in found.splitlines() if "prefill.mine.wait" in row)
    assert text in line and line.endswith("worse")


def test_a_name_that_is_almost_one_is_told(spec: Path, capsys: Capture) -> None:
    spec.write_text(spec.read_text().replace("prefill.mine.wait", "prefill.mine.wai"))
    capsys.readouterr()
    assert main(["check", str(spec)]) == 2
    assert "did you mean `prefill.mine.wait`?" in capsys.readouterr().err
    spec.write_text(spec.read_text().replace("prefill.mine.wai", "mine.wait"))
    assert main(["check", str(spec)]) == 2
    assert "a metric follows its phase: `prefill.mine.wait`" in capsys.readouterr().err


@pytest.mark.parametrize("path", spread(EXAMPLES, lambda path: path.stem in SHOWN), ids=lambda p: p.stem)
def test_json_and_rows_are_the_metrics(path: Path) -> None:
    """`json` and `row` of a record say where its value is, also in objects that are made elsewhere."""
    plan = compiled(path.stem)
    found: dict[str, Any] = plan.to_json()
    rows = {row["phase"]: row for row in plan.rows("phases")}
    for name in plan.phases:
        for metric in of_phase():
            value = metric.how(plan.subject(name))
            if metric.json:
                place: Any = found["phases"][name]
                for key in metric.json.split("."):
                    place = place.get(key)
                assert place == (value if value is None or metric.unit != "tok" else int(value)), metric.name
            if metric.row and value is not None:
                assert rows[name][metric.row] == value


def test_the_schema_has_every_field_of_the_table() -> None:
    """The schema is a contract with readers: a metric in `--json` is in it by the same name."""
    for owner, metrics in (("phase", of_phase()), ("training", of_training())):
        for metric in metrics:
            place = SCHEMA["$defs"][owner]["properties"]
            for key in metric.json.split(".") if metric.json else ():
                assert key in place, metric.name
                place = place[key].get("properties", {})


def test_names_of_a_table_are_its_own() -> None:
    assert len({m.full for m in TABLE}) == len(TABLE)
    for key in ("json", "row"):
        names = [(m.owner, getattr(m, key)) for m in TABLE if getattr(m, key) and m.name not in ("ttft", "tpot")]
        assert len(set(names)) == len(names)


def test_words_of_monitoring_are_known() -> None:
    """What dashboards call a metric leads to its name here."""
    names = [*(f"chat.{m.name}" for m in of_serving()), *(f"decode.{m.name}" for m in of_phase())]
    assert meant_metric("chat.gpu_utilization", names)[0] == "did you mean `chat.utilization`?"
    assert meant_metric("decode.load_balance", names)[0] == "did you mean `decode.imbalance`?"
    assert meant_metric("chat.kv_cache_usage", names)[0] == "did you mean `chat.kv_fill`?"
    assert meant_metric("decode.memory.utilization", names)[0] == "did you mean `decode.memory.fraction`?"
    every = {m.name for m in TABLE}
    for word, meant in OF_METRICS.items():
        assert word not in every and set(meant) <= every, word


def test_metrics_that_are_asked_for_are_all_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of phases only those that a requirement names are found, until one names something else."""
    text = spec_text(
        phase="gpus = 0..7, ep = 4, tp = 2", extra="phase decode { gpus = 8..15, tp = 8 }\nparam limit = 2 in [1, 2]"
    )
    subject = dagc.compile_text(text).subject()
    every, asked = all_metrics(subject), AskedMetrics(subject)
    assert {name: asked[name] for name in every} == every and dict(asked) == every and len(asked) == len(every)
    assert "prefill.nothing" not in asked and "nothing.ttft" not in asked

    def whole(subject: Subject) -> dict[str, Quantity]:
        raise AssertionError("all of them are found")

    monkeypatch.setattr("dagc.plan.subject.all_metrics", whole)
    few = AskedMetrics(subject)
    assert few["decode.tpot"] == every["decode.tpot"] and few["prefill.ttft"] == every["prefill.ttft"]
    plan = dagc.compile_text(text + '\nrequire "quick" decode.tpot <= 1 s\nrequire "first" prefill.ttft <= 2 s\n')
    assert [verdict.passed for verdict in plan.requirements] == [True, True]
