"""Many micro-batches in closed form, against the recurrence taken step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
from conftest import examples, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import spread

import dagc
from dagc.cost.schedule import microbatches
from dagc.cost.schedule.microbatches import Column, Columns, Row, walk
from dagc.cost.schedule.records import Run, Schedule


@contextmanager
def stepwise() -> Iterator[None]:
    """No micro-batch is left out."""
    before = microbatches.LEAST
    microbatches.LEAST = 10**9
    try:
        yield
    finally:
        microbatches.LEAST = before


def same(found: Schedule, slow: Schedule) -> None:
    """Every time of every cell, and the path."""
    assert found.latency_s == pytest.approx(slow.latency_s, rel=1e-9)
    assert found.period_s == pytest.approx(slow.period_s, rel=1e-9)
    near = {"rel": 1e-9, "abs": 1e-9 * slow.latency_s}
    runs: list[tuple[Run, Run]] = []
    for row, other in zip(found.cells, slow.cells, strict=True):
        for cell, wanted in zip(row, other, strict=True):
            assert [(r.segment, r.count) for r in cell] == [(r.segment, r.count) for r in wanted]
            runs += zip(cell, wanted, strict=True)
    begun, wanted_begun = (np.array([(r.start_s, r.period_s) for r in side]) for side in zip(*runs, strict=True))
    assert np.allclose(begun, wanted_begun, rtol=near["rel"], atol=near["abs"])
    for name in ("starts", "finishes"):
        times, wanted_times = [], []
        for a, b in runs:
            ours, theirs = getattr(a, name), getattr(b, name)
            for key, wanted_array in theirs.items():
                assert ours[key].shape == wanted_array.shape
                times.append((a.start_s + ours[key]).ravel())
                wanted_times.append((b.start_s + wanted_array).ravel())
        assert np.allclose(np.concatenate(times), np.concatenate(wanted_times), rtol=1e-9, atol=1e-12)
    assert dict(found.sends) == {k: pytest.approx(v, **near) for k, v in slow.sends.items()}
    steps, wanted_steps = ({(s.segment, s.op): s for s in x.path} for x in (found, slow))
    assert sum(s.time_s for s in found.path) == pytest.approx(sum(s.time_s for s in slow.path), rel=1e-9)
    total = slow.period_s
    for key in steps.keys() | wanted_steps.keys():
        a, b = (x[key].time_s if key in x else 0.0 for x in (steps, wanted_steps))
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6 * total)  # of equal paths either may be named


SPECS = {
    "two stages": "gpus = 0..15, pp = 2, ep = 4, tp = 2",
    "uneven": "gpus = 0..15, pp = 4, tp = 4, layers_per_stage = [1, 4, 2, 1]",
    "one stage": "gpus = 0..7, ep = 4, tp = 2",
    "overlap": "gpus = 0..7, pp = 2, ep = 4, overlap = two_batch",
    "ring": "gpus = 0..7, pp = 2, sp = 4, sp_method = ring",
    "late": "gpus = 0..7, pp = 8, layers_per_stage = [1, 1, 1, 1, 1, 1, 1, 1]",
    "zipf": "gpus = 0..15, pp = 2, ep = 8",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    spread(
        list(product(SPECS, ["prefill", "decode"])),
        [("two stages", "prefill"), ("uneven", "decode"), ("one stage", "prefill"), ("zipf", "prefill")],
    ),
)
def test_equal_to_the_recurrence(name: str, kind: str) -> None:
    count = 60
    text = spec_text(kind=kind, phase=f"{SPECS[name]}, microbatches = {count}").replace("layers = 4", "layers = 8")
    text = text.replace("sequences = 64", f"sequences = {count * 32}").replace("memory = 64 GB", "memory = 6400 GB")
    if name == "zipf":
        text = text.replace("output = 16 tok", "output = 16 tok, routing = zipf(1)")
    found = dagc.compile_text(text).phases[kind].schedule
    with stepwise():
        slow = dagc.compile_text(text).phases[kind].schedule
    assert isinstance(found.cells[0], Row) and not isinstance(slow.cells[0], Row)
    assert len(found.cells[0].evaluated) < count / 2
    same(found, slow)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_a_million(kind: str) -> None:
    """Work does not grow with the number: the rate is that of a thousand, and time that the pipeline fills with is lost once."""
    figures = {}
    for count in (1000, 1_000_000):
        text = spec_text(kind=kind, phase=f"gpus = 0..15, pp = 4, tp = 4, microbatches = {count}")
        text = text.replace("sequences = 64", f"sequences = {count}").replace("memory = 64 GB", "memory = 1e9 GB")
        plan = dagc.compile_text(text)
        result = figures[count] = plan.phases[kind]
        row = result.schedule.cells[-1]
        assert isinstance(row, Row) and len(row.evaluated) < 200 and len(row) == count
        assert plan.report() and plan.to_json()
    few, many = (figures[n].schedule for n in (1000, 1_000_000))
    slope = (many.latency_s - few.latency_s) / (1_000_000 - 1000)
    assert slope == pytest.approx(max(few.stage_s), rel=0.5)
    # Of the head: a layer that waits for its stage, not for the stage before, begins when its input is there.
    starts = [few.cells[-1][j][-1].start_s for j in (998, 999)]
    assert slope == pytest.approx(starts[1] - starts[0], rel=1e-6)
    assert many.cells[-1][-1][-1].start_s == pytest.approx(starts[1] + slope * 999_000, rel=1e-6)


def systems(draw: Callable[[st.SearchStrategy], object]) -> np.ndarray:  # type: ignore[type-arg]
    size = draw(st.integers(1, 5))
    values = st.one_of(st.just(-np.inf), st.sampled_from([0.0, 0.5, 1.0, 1.25, 1.5, 1.5001, 2.0, 3.0]))
    rows = draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=size, max_size=size))
    matrix = np.array(rows)
    np.fill_diagonal(matrix, np.maximum(np.diag(matrix), 0.0))  # a stream is never free earlier than before
    return matrix


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_system_of_sums_and_maxima(data: st.DataObject) -> None:
    """States of random max-plus matrices, which may have several rates, long transients and periods."""
    matrix = systems(data.draw)
    count = data.draw(st.integers(1, 400))
    begin = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, 7.0, 40.0]), min_size=len(matrix), max_size=len(matrix)))
    )

    def step(before: Column[None] | None) -> Column[None]:
        x = begin if before is None else np.array([float(a[0]) for a in before.states])
        after = (matrix + x[None, :]).max(axis=1)
        return Column((), (), tuple(np.array([v]) for v in after), float(after.max()), None)

    found: Columns[None] = walk(step, count)
    x = begin
    states = []
    for _ in range(count):
        x = (matrix + x[None, :]).max(axis=1)
        states.append(x)
    assert found.count == count
    assert np.allclose(np.concatenate(found.columns[-1].states), states[-1], rtol=1e-9)
    for j in range(count):
        place = found.place(j)
        at, before = (np.concatenate(found.columns[k].states) for k in (place.index, place.before))
        assert np.allclose(at + place.times * (at - before), states[j], rtol=1e-9)
