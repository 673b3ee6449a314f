"""`place = best` in training: against every assignment of GPUs on small pools."""

from __future__ import annotations

import itertools
import json

import jsonschema
import pytest
from conftest import ROOT
from test_place_best import RACKS, pairs, text_of
from tiers import spread

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.frozen import replace
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.lower import unverified
from dagc.pipeline.place_best import best
from dagc.pipeline.train import costed_cells, schedule_of, step_of, training_of
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

CASES = {
    "stages and data": ("gpus = 0..3, pp = 2, dp = 2, microbatches = 4, order = [tp, pp, dp, ep, sp]", pairs(2), ""),
    "shared out": ("gpus = 0..3, dp = 2, tp = 2, order = [pp, tp, ep, sp, dp], zero = 3, microbatches = 2", pairs(2), ""),
    "two copies": ("gpus = 0..3, pp = 4, microbatches = 8, schedule = dualpipe", pairs(2), ""),
    "racks": ("gpus = [0, 1, 4, 5], microbatches = 2\nattention { dp = 2, tp = 2 }\nexperts { ep = 2, tp = 2 }", RACKS, ""),
    "a table on both ends": ("gpus = 0..3, pp = 2, tp = 2, microbatches = 4, order = [tp, pp, dp, ep, sp]", pairs(2), "tied"),
}  # fmt: skip


def text(phase: str, links: str, tied: str) -> str:
    written = text_of(
        f"kind = train\n{phase}, place = best",
        links,
        kind="step",
        workload="sequences = 8, prompt = 64 tok",
        dtype="bf16",
    )
    return written.replace("vocab", "tied = true, vocab", 1) if tied else written


def step_s(spec: Spec, ids: tuple[int, ...]) -> float:
    phase = spec.trainings[0]
    unit = Unit(spec, replace(phase, strategy=replace(phase.strategy, ids=ids)), Collector())
    return step_of(unit, schedule_of(unit, training_of(unit)), costed_cells(unit, unverified(unit))).time_s


@pytest.mark.parametrize(
    ("phase", "links", "tied"),
    spread(CASES.values(), lambda case: case in (CASES["stages and data"], CASES["a table on both ends"])),
    ids=list(CASES),
)
def test_no_assignment_of_gpus_is_faster(phase: str, links: str, tied: str) -> None:
    spec = load(Source("s.moe", text(phase, links, tied)), Collector())
    found = best(spec, spec.trainings[0]).strategy.ids
    first, *rest = spec.trainings[0].gpus  # all GPUs are alike: where one rank is does not matter
    every = {(first, *ids): step_s(spec, (first, *ids)) for ids in itertools.permutations(rest)}
    assert step_s(spec, found) == pytest.approx(min(every.values()), rel=1e-12)
    assert max(every.values()) > 1.001 * min(every.values())


def test_a_placed_step_is_said_everywhere() -> None:
    """Times before and after are those of plans in these orders; also beside a phase of inference, which does not move it."""
    phase, links, _ = CASES["stages and data"]
    written = text(phase.replace("[tp, pp, dp, ep, sp]", "[dp, pp, tp, ep, sp]"), links, "")
    for extra in ("", "phase decode { gpus = 0..3, ep = 2, tp = 2, place = best }\n"):
        plan = dagc.compile_text(written + extra)
        result = plan.trainings["step"]
        one = result.placement
        assert one is not None and one.moved and one.together == ("step",)
        assert result.time_s == pytest.approx(one.after_s, rel=1e-12) and one.after_s < one.before_s
        usual = dagc.compile_text(written.replace(", place = best", ""))
        assert usual.trainings["step"].time_s == pytest.approx(one.before_s, rel=1e-12)
        data = json.loads(json.dumps(plan.to_json()))
        jsonschema.validate(data, json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text()))
        assert data["training"]["step"]["placement"]["after_s"] == one.after_s
        assert "placed best: " in str(plan.report()) and "in one step, by links" in " ".join(str(plan.report()).split())
