"""The chart of a training step: what is drawn against the times of the schedule, its words, its break."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache

import pytest
from drawings import Shape, faults, parts
from text_widths import clashes, lines
from tiers import left_out

from dagc.base.picture_words import Theme
from dagc.base.pipeline_schedules import SCHEDULES
from dagc.cost.schedule.training.cell_orders import cells_of
from dagc.cost.schedule.training.makespan import StepTimes, step_times
from dagc.cost.schedule.training.schedule_table import make
from dagc.cost.schedule.training.stage_times import StageTimes
from dagc.view.draw.figures import pipeline_chart
from dagc.view.draw.figures.sheet import Sheet
from dagc.view.draw.figures.standalone import document
from dagc.view.draw.palette import PALETTE
from dagc.view.facts.pipeline_cells import StepChart, step_chart


@cache
def timed(name: str, gpus: int, microbatches: int) -> StepTimes:
    schedule = make(name, gpus, microbatches, 2 if SCHEDULES[name].chunks is None else None)
    part = 1e-3 * gpus / schedule.stages
    return step_times(schedule, StageTimes.alike(schedule.stages, 5 * part, 11 * part, 5 * part, overlap_s=13 * part))


@cache
def charted(name: str, gpus: int, microbatches: int) -> StepChart:
    return step_chart(timed(name, gpus, microbatches))


def drawn(name: str, gpus: int, microbatches: int, theme: Theme = "light") -> str:
    chart = charted(name, gpus, microbatches)
    heading = pipeline_chart.heading(chart)
    sheet = Sheet(heading, pipeline_chart.draw(chart), pipeline_chart.keys(chart))
    return document(sheet, heading[:1], theme)


@pytest.mark.parametrize(
    ("name", "gpus", "microbatches"),
    [
        *((name, 4, 8) for name in SCHEDULES),
        *map(left_out, [("v_min", 8, 16), ("dualpipe", 8, 16), ("one_f_one_b", 8, 16)]),
    ],
)
def test_every_cell_is_where_its_time_is(name: str, gpus: int, microbatches: int) -> None:
    """Every cell once, with its number where cells are as wide as usual, in its colour and shade, where its time is; words apart
    and dark enough."""
    svg = drawn(name, gpus, microbatches)
    assert clashes(svg) == [] and faults(svg) == []
    assert "left out" not in "".join(one.text for one in lines(svg))
    times = timed(name, gpus, microbatches)
    ids = re.findall(r'id="(step--[^"]*)"', svg)
    wanted = {
        f"step--{gpu}--{cell.part.value}--{cell.chunk}--{cell.microbatch}"
        for gpu in range(gpus)
        for entry in times.schedule.written(gpu)
        for cell in cells_of(entry)
    }
    assert sorted(ids) == sorted(wanted)
    numbers = [one.text for one in lines(svg) if one.text.isdigit() and len(one.text) <= 2]
    assert len(numbers) >= len(ids)
    boxes = {e.get("id"): e for e in ET.fromstring(svg).iter() if (e.get("id") or "").startswith("step--")}
    pixels = [
        (one.start_s, one.end_s, boxes[f"step--0--{c.part.value}--{c.chunk}--{c.microbatch}"], c)
        for one in times.written(0)
        for c in cells_of(one.entry)
    ]
    left = min(float(box.get("x", 0)) for _, _, box, _ in pixels)
    per_s = (max(float(b.get("x", 0)) + float(b.get("width", 0)) for b in boxes.values()) - left) / times.makespan_s
    for start_s, end_s, box, cell in pixels:
        assert float(box.get("x", 0)) == pytest.approx(left + start_s * per_s, abs=0.2)
        assert float(box.get("width", 0)) == pytest.approx((end_s - start_s) * per_s, abs=0.2)
        tone = {"F": "f", "B": "b", "I": "i", "W": "w"}[cell.part.value]
        assert box.get("fill") == PALETTE[f"t-{tone}{cell.chunk}"].light


@pytest.mark.parametrize("name", ["one_f_one_b", "v_min", "dualpipe"])
def test_what_is_idle_is_hatched(name: str) -> None:
    chart, times = charted(name, 4, 8), timed(name, 4, 8)
    for row, bubble_s in zip(chart.rows, times.bubbles_s, strict=True):
        assert row.idle_s == pytest.approx(bubble_s)
    texts = [one.text for one in lines(drawn(name, 4, 8))]
    for row in chart.rows:
        assert f"{row.idle_s / chart.end_s:.1%}" in texts and f"{row.held:.4g}" in texts
    bubbles = [one for one in parts(drawn(name, 4, 8)) if isinstance(one, Shape) and one.classes == "bubble"]
    assert len(bubbles) == sum(len(row.idle) for row in chart.rows) + 1  # and the one of the legend


def test_many_micro_batches_are_cut_in_the_middle() -> None:
    svg = drawn("zb_h1", 4, 200)
    assert clashes(svg) == [] and faults(svg) == []
    shown = {int(n) for n in re.findall(r'id="step--0--F--0--(\d+)"', svg)}
    assert {0, 1, 2, 3, 198, 199} <= shown and len(shown) < 80
    missing = set(range(200)) - shown
    assert missing == set(range(min(missing), max(missing) + 1))
    chart = charted("zb_h1", 4, 200)
    (said,) = (one.text for one in lines(svg) if "left out" in one.text)
    assert re.fullmatch(r"[\d.]+ m?s of [\d.]+ s are left out", said), said
    assert max(float(e.get("width", 0)) for e in [ET.fromstring(svg)]) < 1800
    assert chart.end_s == timed("zb_h1", 4, 200).makespan_s


def test_many_gpus_are_cut_to_the_first_and_the_last() -> None:
    svg = drawn("one_f_one_b", 32, 40)
    texts = [one.text for one in lines(svg)]
    assert "24 of 32 GPUs are drawn: the first 23 and the last" in texts
    assert "GPU 22" in texts and "GPU 31" in texts and "GPU 23" not in texts
    assert clashes(svg) == []


@pytest.mark.parametrize("theme", ["dark", "auto"])
def test_dark(theme: Theme) -> None:
    svg = drawn("dualpipe_v", 4, 8, theme)
    assert PALETTE["t-f0"].dark in svg and (PALETTE["t-f0"].light in svg) == (theme == "auto")
    assert faults(svg) == []


@pytest.mark.parametrize(("gpus", "microbatches"), [(1, 1), (1, 3), (2, 1), (5, 1)])
def test_the_smallest(gpus: int, microbatches: int) -> None:
    for name in ("gpipe", "zb_h2", "v_half"):
        svg = drawn(name, gpus, microbatches)
        assert clashes(svg) == [] and faults(svg) == []


def test_a_step_that_takes_no_time() -> None:
    schedule = make("one_f_one_b", 2, 2)
    chart = step_chart(step_times(schedule, StageTimes.alike(2, 0.0, 0.0, 0.0)))
    ET.fromstring(document(Sheet(["x"], pipeline_chart.draw(chart), pipeline_chart.keys(chart)), ["x"]))


def test_the_peak_is_when_it_begins() -> None:
    """Cells of the first GPU up to then: as many forward cells more than gradients as are held."""
    chart = charted("one_f_one_b", 8, 16)
    for row in chart.rows:
        begun = [bar for bar in row.bars if bar.start_s <= row.held_from_s + 1e-9]
        assert sum({"F": 1, "B": -1}[bar.part.value] for bar in begun) == row.held
