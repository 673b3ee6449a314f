"""What a search prints and writes: plans, counts, reasons, what an engine runs."""

from __future__ import annotations

import csv
import json
import random
import re
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, spec_text
from drawings import faults
from tiers import exhaustive, spread

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.picture_words import THEMES
from dagc.base.source import Source
from dagc.cli import main
from dagc.export.engines.launch import export
from dagc.export.engines.runnable import Runs
from dagc.export.searched_files import as_csv, files
from dagc.lang.open_spec import load_open
from dagc.optimize.search import why
from dagc.optimize.search.answer import Answer
from dagc.optimize.search.apart import Apart
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.plain_answer import findings
from dagc.optimize.search.space_map import BOUND, map_of
from dagc.optimize.search.why import Explainer
from dagc.plan.refusal_rules import of_engine
from dagc.plan.searched import Findings, Step
from dagc.view.draw.figures.searched import front
from dagc.view.facts import found_plans as said
from dagc.view.report.search_report import answer, reasons

SCHEMA = json.loads((ROOT / "dagc" / "export" / "search.schema.json").read_text())
PHASE = "gpus = any(4, 8), attention { tp = any }, experts { ep = any(2, 4), tp = any }, sequences = any(8, 64), redundant = any(0, 8)"
LIMIT = 'require "fast" decode.tpot <= 0.145 ms'


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explanations have the time that they need, however busy the machine is."""
    monkeypatch.setattr(why, "EXTRA_S", 120.0)


@cache
def answered(phase: str = PHASE, extra: str = LIMIT) -> tuple[Asked, Answer]:
    asked = Asked(top=4)
    return asked, search(
        load_open(Source("plan.moe", spec_text(kind="decode", phase=phase, extra=extra)), Collector()), asked
    )


@cache
def found(phase: str = PHASE, extra: str = LIMIT, engine: str = "", against: str = "") -> Findings:
    text = spec_text(kind="decode", phase=phase, extra=extra)
    spec = load_open(Source("plan.moe", text), Collector())
    asked = Asked(top=4, allowed=Runs(engine) if engine else None)
    got = search(spec, asked) if engine else answered(phase, extra)[1]
    today = ("today.moe", dagc.compile_text(against).spec) if against else None
    return Explainer(spec, asked, got).explained(findings(got, "plan.moe"), today)


def test_the_table_is_sorted_and_shows_what_differs_alone() -> None:
    own = found()
    per_gpu = [plan.phases[0].per_gpu_tok_s for plan in own.plans]
    assert per_gpu == sorted(per_gpu, reverse=True) and len(per_gpu) == 4
    text = answer(own)
    (differ,), (same,) = said.varied(own).values(), said.common(own).values()
    assert differ and same and not set(differ) & set(same)
    head = next(line for line in text.splitlines() if "tok/s/GPU" in line)
    assert not any(path in head for path in same)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_every_plan_of_the_space_is_counted_once_in_words() -> None:
    (space,) = found().spaces
    rows = said.counts(space)
    assert sum(count for count, _, _ in rows) == space.size
    assert all(example for count, what, example in rows if "rule" in what)


def test_the_reasons_add_up_to_the_difference() -> None:
    own = found()
    (one,) = own.versus
    assert (
        sum(p.own for p in one.parts)
        == pytest.approx(one.own)
        == pytest.approx(1 / own.plans[0].phases[0].per_gpu_tok_s)
    )
    other = own.plans[int(one.name.removeprefix("plan ")) - 1]
    assert (
        sum(p.other for p in one.parts) == pytest.approx(one.other) == pytest.approx(1 / other.phases[0].per_gpu_tok_s)
    )


def test_the_binding_requirement_says_what_it_costs() -> None:
    own, free = found(), found(extra="")
    assert own.binding is not None and own.binding.label == "fast" and own.binding.refused > 0 and own.binding.sure
    assert own.binding.without == free.plans[0].figures[0] > own.plans[0].figures[0]


def test_what_a_stopped_search_may_better_is_at_least_or_at_most() -> None:
    shown = found()
    step = Step("decode", 4, 1.0, 0.25, complete=False)
    assert "at least " in said.step_text(shown, step) and "(+25.0%)" in said.step_text(shown, step)
    lower = replace(shown, measures=(replace(shown.measures[0], name="cost_per_token", better="lower"),))
    assert "at most " in said.step_text(lower, step) and "at most " not in said.step_text(
        lower, replace(step, complete=True)
    )
    assert "(the same)" in said.step_text(lower, replace(step, change=-1e-5))


def test_the_next_number_of_gpus_is_the_best_there() -> None:
    own = found()
    (step,) = own.steps
    alone = found(phase=PHASE.replace("any(4, 8)", f"0..{step.gpus - 1}"))
    assert {own.plans[0].gpus, step.gpus} == {4, 8} and step.complete
    assert step.figure == alone.plans[0].figures[0]


def test_todays_plan_is_compared_by_the_same_figures() -> None:
    today = spec_text(kind="decode", phase="gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }, sequences = 8")
    own = found(against=today)
    assert own.against is not None
    assert own.against.figures[0] == dagc.compile_text(today).phases["decode"].throughput_tok_s / 8
    assert own.against.gains[0] == pytest.approx(own.plans[0].figures[0] / own.against.figures[0] - 1)
    assert "today.moe" in reasons(own)


@pytest.mark.parametrize("engine", spread(["vllm", "sglang", "trtllm"]))
def test_an_engine_runs_the_plans_that_its_exporter_writes(engine: str) -> None:
    """Of all plans of the space: those and no others."""
    phase = "gpus = 0..3, attention { tp = any(2, 4), dp = any(1, 2) }, experts { ep = any, tp = any }, redundant = any(0, 4)"
    own, free = found(phase=phase, extra="", engine=engine), found(phase=phase, extra="")
    runs = []
    for plan in every_plan(phase):
        runs.append(Runs(engine)([plan.units["decode"]]) is None)
        assert runs[-1] == exported(plan, engine)
    assert any(runs) and not all(runs)
    refused = {one.rule: one.count for one in own.spaces[0].refusals}
    assert refused[of_engine(engine)] > 0
    assert own.complete and own.plans[0].figures[0] <= free.plans[0].figures[0]
    assert all(exported(dagc.compile_text(one.spec), engine) for one in own.plans)


@cache
def every_plan(phase: str) -> tuple[dagc.Plan, ...]:
    spec = load_open(Source("plan.moe", spec_text(kind="decode", phase=phase)), Collector())
    return tuple(dagc.compile_text(one.text) for one in search(spec, Asked(top=99)).ranked)


def exported(plan: dagc.Plan, engine: str) -> bool:
    try:
        return bool(export(plan, engine, None, "plan"))
    except dagc.SpecError:
        return False


def test_csv_has_every_legal_plan_that_was_costed() -> None:
    (space,) = found().spaces
    rows = list(csv.DictReader(StringIO(as_csv(space))))
    assert len(rows) == space.costed == len(space.legal)
    assert float(rows[0]["throughput_per_gpu_tok_s"]) == found().plans[0].figures[0]
    assert rows[0]["choice.experts.ep"] == found().plans[0].phases[0].choices["experts.ep"]


def test_the_map_has_the_best_of_each_pair_of_values() -> None:
    """Each cell against all plans of the space that were costed; what was not costed says why."""
    _, got = answered()
    (one,) = got.searched.values()
    drawn = map_of(one.name, one)
    assert drawn is not None and len(drawn.cells) == len(drawn.across[1]) * len(drawn.up[1])
    for cell in drawn.cells:
        values = {drawn.across[0]: drawn.across[1][cell.across], drawn.up[0]: drawn.up[1][cell.up]}
        here = [p for p in found().spaces[0].legal if values.items() <= p.choices.items()]
        assert cell.figure == max((p.per_gpu_tok_s for p in here), default=None)
        assert bool(cell.why) == (cell.figure is None)
    reasons = {cell.why for cell in drawn.cells if cell.figure is None}
    refusals = found().spaces[0].refusals
    known = {BOUND, "another plan in other words", *(f"not so: {r.about}" if r.legal else r.rule for r in refusals)}
    assert reasons <= known and any(reason.startswith("not so: ") for reason in reasons)


def test_the_front_is_of_plans_that_no_other_is_better_than() -> None:
    (space,) = found().spaces
    edge = front.front(space.legal)
    assert edge and all(
        not any(o.per_gpu_tok_s > p.per_gpu_tok_s and o.per_user_tok_s > p.per_user_tok_s for o in space.legal)
        for p in edge
    )


def test_pictures_and_page_are_whole() -> None:
    """Texts are inside of their pictures and large enough; the page has everything, and loads nothing."""
    _, got = answered()
    own = replace(found(), maps=tuple(m for one in got.searched.values() if (m := map_of(one.name, one)) is not None))
    made = files(own, "plan")
    assert {
        "plan.1.moe",
        "plan.search.json",
        "plan.decode.csv",
        "plan.decode.front.svg",
        "plan.decode.map.svg",
        "plan.html",
    } <= made.keys()
    for name in ("plan.decode.front.svg", "plan.decode.map.svg"):
        root = ElementTree.fromstring(made[name])
        wide, high = (float(root.attrib[side]) for side in ("width", "height"))
        texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert texts and all(0 <= float(t.attrib["x"]) <= wide and 0 <= float(t.attrib["y"]) <= high for t in texts)
        assert not {"small", "tiny"} & {word for t in texts for word in t.attrib.get("class", "").split()}
    for theme in THEMES:
        pictures = {k: v.decode() for k, v in files(own, "plan", ("svg",), theme).items() if k.endswith(".svg")}
        assert len(pictures) == 2 and not [fault for svg in pictures.values() for fault in faults(svg)]
    page = made["plan.html"].decode()
    assert page.count("<svg") == 2 and "default-src 'none'" in page
    assert all(f">{word}<" in page for word in ("Plans", "Why", "The best plan as a spec"))
    jsonschema.validate(json.loads(made["plan.search.json"]), SCHEMA)


@exhaustive
def test_the_documented_answer_is_that_of_the_command(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word by word; numbers follow the calibration, and are written anew with --update-golden."""
    monkeypatch.chdir(ROOT)
    page = ROOT / "docs" / "search.md"
    text = page.read_text()
    found = re.search(r"```sh\n(dagc search .*)\n```\n\n```\n(.*?)```\n", text, re.DOTALL)
    assert found is not None
    assert main([*found[1].split()[1:], "--workers", "1"]) == 0
    out = capsys.readouterr().out
    if request.config.getoption("--update-golden"):
        page.write_text(text[: found.start(2)] + out + text[found.end(2) :])
        return
    assert _words(found[2]) == _words(out)


def _words(text: str) -> list[str]:
    """Without numbers and units of times, whose width moves the ends of lines."""
    return re.sub(r"[+-]?\d[\d,.]*%?|\b[mun]?s\b", "", text).split()


HUGE = spec_text(kind="decode", gpus=64, phase="gpus = any, strategy = any, sequences = any, redundant = any")


def test_time_is_up_while_plans_are_still_listed() -> None:
    found = search(
        load_open(Source("x", HUGE.replace("gpus = any,", "gpus = 0..63,")), Collector()), Asked(budget_s=0.0)
    )
    own = found.certificate
    assert found.best is None and not found.complete and own.left == own.size == own.counted
    assert said.verdict(findings(found, "x")).startswith("nothing was looked at yet; not complete")


def test_a_space_that_is_too_large_says_what_to_bound_and_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "plan.moe"
    spec.write_text(HUGE.replace("gpus = 64", "gpus = 4096", 1))
    assert main(["search", str(spec)]) == 2
    told = capsys.readouterr().err
    assert "too many of which pass the first rules" in told and "bound `gpus`, which has" in told
    line = next(n for n, text in enumerate(spec.read_text().splitlines(), 1) if "gpus = any" in text)
    assert f"plan.moe:{line}:" in told


@pytest.mark.parametrize("engine", spread(["vllm", "sglang", "trtllm", "megatron"], {"sglang", "megatron"}))
def test_what_an_engine_refuses_at_sight_it_refuses_whatever_the_sizes(engine: str) -> None:
    phase = "gpus = any(4, 16), attention { dp = any, tp = any }, experts { ep = any, tp = any }, sequences = any(8, 65536), overlap = any, dispatch = any"
    runs = Runs(engine)
    spec = load_open(Source("x", spec_text(kind="decode", gpus=16, phase=phase)), Collector())
    space = Apart(spec, "decode", {}, merged=False, allowed=runs)
    pieces, refused, draw = space.pieces, 0, random.Random(engine)
    for row in draw.sample(range(len(space.rows)), 40):
        pieces.sighted.clear()
        at_sight = pieces.sight(row)
        if at_sight is None:
            continue
        rule, why, same = at_sight
        assert same[row]
        for other in {row, draw.choice(np.flatnonzero(same).tolist())}:
            chosen = spec.phase("decode", space.rows.values(other), Collector())
            assert chosen is not None
            found = runs(space.judge.units(chosen))
            assert found is not None and found[0] == rule and (other != row or why.startswith(found[1][:12]))
            refused += 1
    assert refused > 20
