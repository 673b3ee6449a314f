"""Schedules of a training step: their closed forms, orders, memory and times, against formulas, a slow run of their own and PyTorch."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import pytest
from conftest import ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import exhaustive, spread

from dagc.base.frozen import replace
from dagc.base.pipeline_schedules import SCHEDULES, Unmet
from dagc.cost.schedule.training.cell_orders import (
    Cell,
    Entry,
    Loop,
    Overlap,
    Part,
    PipelineSchedule,
    Route,
    cells_of,
)
from dagc.cost.schedule.training.in_flight import peaks
from dagc.cost.schedule.training.makespan import StepTimes, step_times
from dagc.cost.schedule.training.schedule_table import MAKERS, make
from dagc.cost.schedule.training.stage_times import StageTimes
from dagc.cost.schedule.training.verify_orders import verify_orders
from dagc.ir.verify.violation import VerifyError

FOR_GOLDENS = {
    "gpipe": (2, 3),
    "one_f_one_b": (3, 4),
    "interleaved": (2, 4),
    "zb_h1": (3, 4),
    "zb_h2": (3, 5),
    "zb_v": (2, 4),
    "v_half": (2, 4),
    "v_min": (2, 4),
    "dualpipe": (4, 8),
    "dualpipe_v": (2, 5),
}


def sizes(name: str) -> Iterator[tuple[int, int, int]]:
    """(p, m, v) from too few micro-batches to fill the pipeline to many."""
    for p in (1, 2, 3, 4, 6, 7):
        for m in sorted({1, p, 2 * p - 1, 2 * p, 3 * p + p % 2}):
            for v in (2, 3) if SCHEDULES[name].chunks is None else (None,):
                try:
                    made = make(name, p, m, v)
                except Unmet:
                    continue
                yield p, m, made.chunks


SECONDS = [(1, 1, 1), (2, 2, 1), (3, 3, 2), (2, 3, 1), (3, 1, 2), (2, 2, 2), (5, 7, 4), (1, 3, 3)]
"""Of forward, input and weight cells."""


def value(formula: str, names: dict[str, object]) -> object:
    """Of a formula as the table writes it: a space between factors."""
    python = re.sub(r"(?<=[\d)pmvFBW]) (?=[(\w])(?!and)", " * ", formula)
    return eval(python, {"min": min}, names)


def test_every_schedule_has_a_maker() -> None:
    assert list(MAKERS) == list(SCHEDULES)
    assert all(make(name, 4, 8, 2 if SCHEDULES[name].chunks is None else None).name == name for name in SCHEDULES)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_closed_forms(name: str) -> None:
    """The bubble for every F, B, W for which its authors give it, and the activations held, exactly."""
    for p, m, v in sizes(name):
        closed_forms(name, p, m, v)


def closed_forms(name: str, p: int, m: int, v: int) -> None:
    schedule, known = make(name, p, m, v), SCHEDULES[name]
    tried = 0
    chunks = schedule.stages // p  # a chunk takes whole seconds, and a stage as many times as long
    for forward, inputs, weights in SECONDS:
        for overlap in (
            {max(forward, inputs + weights), forward + inputs + weights} if "FB" in known.bubble.formula else {0}
        ):
            backward = inputs + weights
            seconds = {"F": forward, "B": backward, "W": weights, "FB": overlap}
            names = {"p": Fraction(p), "m": m, "v": v, **{key: chunks * s for key, s in seconds.items()}}
            if not value(known.bubble.when, names):
                continue
            tried += 1
            times = StageTimes.alike(schedule.stages, forward, backward, weights, overlap_s=overlap)
            found = step_times(schedule, times)
            step_s = found.span_s if known.bubble.own_step else found.makespan_s
            bubble, wanted = step_s - min(found.busy_s), value(known.bubble.formula, names)
            assert bubble <= wanted if known.bubble.at_most else bubble == wanted
    assert tried or m < 2 * p
    held = value(known.held, {"p": p, "m": m, "v": Fraction(v)})
    assert max(Fraction(peak.held).limit_denominator(100) for peak in peaks(schedule)) == held


@pytest.mark.parametrize(("name", "chunks"), [("one_f_one_b", 1), ("interleaved", 2), ("interleaved", 3)])
@pytest.mark.parametrize(("p", "m"), [(1, 1), (1, 7), (2, 4), (3, 9), (4, 32)])
def test_pairs_in_schedules_that_can_have_them(name: str, chunks: int, p: int, m: int) -> None:
    """Every cell is there once and waits for nobody in a circle; a GPU runs as many pairs as it can, and no pair waits for a part of
    another: once it has begun a GPU of many micro-batches is busy."""
    schedule = make(name, p, m, chunks, overlapped=True)
    verify_orders(schedule)
    pairs = [sum(isinstance(entry, Overlap) for entry in schedule.written(gpu)) for gpu in range(p)]
    assert pairs[-1] == m * chunks - min(m * chunks, (chunks - 1) * p + 1)
    stages = p * chunks
    times = StageTimes.alike(stages, 2.0, 2.0, 1.0, overlap_s=3.0)
    found = step_times(schedule, times)
    same(found, slow_times(schedule, times))
    by_both = replace(times, overlap_s=None, pairs_s={(a, b): 3.0 for a in range(stages) for b in range(stages)})
    assert step_times(schedule, by_both).ends_s == found.ends_s
    assert found.busy_s[-1] == 4.0 * m * chunks - pairs[-1]
    if p == 1:
        assert found.makespan_s == found.busy_s[0]


def test_pairs_hold_more_micro_batches() -> None:
    """One more where a GPU is the last, with several chunks one chunk more; else as many as there are GPUs behind it, besides."""

    def held(name: str, chunks: int, *, overlapped: bool) -> list[float]:
        return [peak.held for peak in peaks(make(name, 4, 32, chunks, overlapped=overlapped))]

    assert held("one_f_one_b", 1, overlapped=True) == [8, 6, 4, 2]
    assert held("one_f_one_b", 1, overlapped=False) == [4, 3, 2, 1]
    alone = held("interleaved", 2, overlapped=False)
    assert held("interleaved", 2, overlapped=True) == [each + 1 / 2 for each in alone]


def test_zero_bubble_where_weights_take_longer_than_forward_cells() -> None:
    """There the fixed orders of the paper miss its closed forms: of H1 by what weights take more, and H2 has no less than nothing."""
    p, m = 4, 12
    for forward, inputs, weights in itertools.product((1, 2, 3, 5), repeat=3):
        work = forward + inputs + weights
        times = StageTimes.alike(p, forward, inputs + weights, weights)
        h1, h2 = (step_times(make(name, p, m), times).span_s - m * work for name in ("zb_h1", "zb_h2"))
        assert h1 == (p - 1) * (work - 2 * weights + max(0, weights - forward))
        assert h2 == (p - 1) * max(0, work - 3 * weights, inputs - forward)


def slow_times(schedule: PipelineSchedule, times: StageTimes) -> dict[tuple[int, Entry], float]:
    """The end of every cell: the longest path to it, cell by cell, by what each is named after."""
    place = {
        (seat.gpu, seat.chunk): (r, k) for r, route in enumerate(schedule.routes) for k, seat in enumerate(route.seats)
    }
    orders = [list(schedule.written(gpu)) for gpu in range(schedule.gpus)]
    arrived: dict[tuple[int, int, int, str], float] = {}  # route, stage, micro-batch, what
    ends: dict[tuple[int, Entry], float] = {}
    free, at = [0.0] * schedule.gpus, [0] * schedule.gpus
    going = True
    while going:
        going = False
        for gpu, order in enumerate(orders):
            while at[gpu] < len(order):
                entry = order[at[gpu]]
                moments, lengths = [free[gpu]], []
                for cell in cells_of(entry):
                    r, k = place[gpu, cell.chunk]
                    if cell.part is Part.FORWARD and k:
                        moments.append(arrived.get((r, k, cell.microbatch, "activation"), -1.0))
                    if cell.part in (Part.BACKWARD, Part.INPUT) and k < schedule.stages - 1:
                        moments.append(arrived.get((r, k, cell.microbatch, "gradient"), -1.0))
                    lengths.append(
                        {
                            Part.FORWARD: times.forward_s[k],
                            Part.INPUT: times.input_s[k],
                            Part.WEIGHT: times.weight_s[k],
                            Part.BACKWARD: times.input_s[k] + times.weight_s[k],
                        }[cell.part]
                    )
                if min(moments) < 0:
                    break
                length = sum(lengths)
                if isinstance(entry, Overlap) and times.overlap_s is not None:
                    length = times.overlap_s[place[gpu, entry.forward.chunk][1]]
                ends[gpu, entry] = free[gpu] = max(moments) + length
                for cell in cells_of(entry):
                    r, k = place[gpu, cell.chunk]
                    seats = schedule.routes[r].seats
                    if cell.part is Part.FORWARD and k < schedule.stages - 1:
                        send = times.sends_s[k] if seats[k + 1].gpu != gpu else 0.0
                        arrived[r, k + 1, cell.microbatch, "activation"] = free[gpu] + send
                    if cell.part in (Part.BACKWARD, Part.INPUT) and k:
                        send = times.returns_s[k - 1] if seats[k - 1].gpu != gpu else 0.0
                        arrived[r, k - 1, cell.microbatch, "gradient"] = free[gpu] + send
                at[gpu] += 1
                going = True
    assert all(done == len(order) for done, order in zip(at, orders, strict=True))
    return ends


def same(found: StepTimes, ends: dict[tuple[int, Entry], float]) -> None:
    """Every cell's end, and what follows from them."""
    schedule = found.schedule
    near = {"rel": 1e-9, "abs": 1e-9}
    timed = {(gpu, one.entry): one for gpu in range(schedule.gpus) for one in found.written(gpu)}
    assert {key: one.end_s for key, one in timed.items()} == {
        key: pytest.approx(end, **near) for key, end in ends.items()
    }
    assert found.makespan_s == pytest.approx(max(ends.values()), **near)
    for gpu in range(schedule.gpus):
        own = [one for (other, _), one in timed.items() if other == gpu]
        assert found.busy_s[gpu] == pytest.approx(sum(one.end_s - one.start_s for one in own), **near)
        assert found.starts_s[gpu] == pytest.approx(min(one.start_s for one in own), **near)
        assert found.bubbles_s[gpu] == pytest.approx(max(ends.values()) - found.busy_s[gpu], **near)


def random_times(stages: int, chance: random.Random, *, sends: bool, overlap: bool) -> StageTimes:
    def some(count: int, most: float = 3.0) -> tuple[float, ...]:
        return tuple(chance.uniform(0.1, most) for _ in range(count))

    hops = some(stages - 1), some(stages - 1)
    none = (0.0,) * (stages - 1)
    together = some(stages, 6.0) if overlap else None
    return StageTimes(some(stages), some(stages), some(stages), *(hops if sends else (none, none)), together)


@st.composite
def cases(draw: st.DrawFn, most: int = 40) -> tuple[PipelineSchedule, StageTimes]:
    name = draw(st.sampled_from(list(SCHEDULES)))
    p, m, v = draw(st.integers(1, 6)), draw(st.integers(1, most)), draw(st.integers(2, 3))
    try:
        schedule = make(name, p, m, v if SCHEDULES[name].chunks is None else None)
    except Unmet as unmet:
        # What the message tells to write instead is taken.
        wanted = dict(re.findall(r"(\w+) = (\d+)", unmet.help))
        p, m = int(wanted.get("pp", p)), int(wanted.get("microbatches", m))
        m = p * max(1, m // p) if name == "interleaved" else max(2 * p, m + m % 2)
        schedule = make(name, p, m, v if SCHEDULES[name].chunks is None else None)
    chance = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["alike", "random", "whole"]))
    if kind == "alike":
        return schedule, StageTimes.alike(schedule.stages, 1.0, 2.1, 0.9, send_s=draw(st.sampled_from([0.0, 0.3, 2.5])))
    times = random_times(schedule.stages, chance, sends=draw(st.booleans()), overlap=draw(st.booleans()))
    if kind == "whole":
        times = replace(times, forward_s=tuple(map(round, times.forward_s)), input_s=tuple(map(round, times.input_s)))
    return schedule, times


@settings(max_examples=examples(30))
@given(cases())
def test_random_schedules_are_valid_and_timed_right(case: tuple[PipelineSchedule, StageTimes]) -> None:
    schedule, times = case
    verify_orders(schedule)
    same(step_times(schedule, times), slow_times(schedule, times))


@pytest.mark.parametrize("name", spread(SCHEDULES, {"interleaved", "one_f_one_b", "zb_v", "dualpipe"}))
def test_many_micro_batches_are_folded_exactly(name: str) -> None:
    """Every end of every cell is that of the run without folding: of equal and unequal stages, where sends are what is waited for,
    and where one stage is barely slower than the others."""
    schedule = make(name, 3 + (name == "dualpipe"), 120, 2 if SCHEDULES[name].chunks is None else None)
    n, chance = schedule.stages, random.Random(7)
    near = tuple(1.0 + 0.01 * k for k in range(n))
    for times in (
        StageTimes.alike(n, 1.0, 2.0, 1.0, overlap_s=2.5),
        StageTimes.alike(n, 1.0, 2.0, 0.7, send_s=6.0),
        StageTimes(near, near, near[::-1], (0.1,) * (n - 1), (0.2,) * (n - 1)),
        random_times(n, chance, sends=True, overlap=True),
    ):
        found, slow = step_times(schedule, times), step_times(schedule, times, fold=False)
        assert found.makespan_s == pytest.approx(slow.makespan_s, rel=1e-12)
        assert found.ends_s == pytest.approx(slow.ends_s, rel=1e-12) and found.busy_s == slow.busy_s
        for key, track in slow.tracks.items():
            ends = list(found.tracks[key])
            assert ends == pytest.approx(list(track), rel=1e-11)
            for k in (0, len(ends) // 3, len(ends) // 2, len(ends) - 1) if ends else ():
                assert found.tracks[key][k] == ends[k]


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_what_repeats_is_not_looked_at(name: str) -> None:
    """Of 4,000 micro-batches about as many cells as of 400; orders are as short, so what is verified and held costs the same."""
    looked_at = []
    for m in (400, 4000):
        schedule = make(name, 4, m, 2 if SCHEDULES[name].chunks is None else None)
        verify_orders(schedule)
        assert sum(len(loop.body) for order in schedule.orders for loop in order) < 800
        found = step_times(schedule, StageTimes.alike(schedule.stages, 1.0, 2.3, 0.9, send_s=0.2))
        looked_at.append(sum(len(track.values) for track in found.tracks.values()))
        assert sum(map(len, found.tracks.values())) >= 2 * m * schedule.stages
    assert looked_at[1] <= looked_at[0] * 1.1


@pytest.mark.parametrize("name", spread(["one_f_one_b", "zb_h1", "zb_h2", "zb_v"], {"zb_h1", "zb_v"}))
def test_stages_that_drift_apart_are_folded_at_once(name: str) -> None:
    """Of stages that are nearly equal, one waits for another only after many micro-batches: how many is known."""
    schedule = make(name, 8, 512)
    n = schedule.stages
    ahead = (0.1153, *(0.11527,) * (n - 3), 0.10567, 0.11603)
    times = StageTimes(
        ahead, [1.15 * t for t in ahead], [0.44 * t for t in ahead[::-1]], (7e-4,) * (n - 1), (7e-4,) * (n - 1)
    )
    found, slow = step_times(schedule, times), step_times(schedule, times, fold=False)
    assert found.rounds <= 120 and slow.rounds > 500
    for key, track in slow.tracks.items():
        assert list(found.tracks[key]) == pytest.approx(list(track), rel=1e-11)


def held_slowly(schedule: PipelineSchedule, gpu: int, whole: float, rest: float) -> float:
    now = most = 0.0
    split = {(c.microbatch, c.chunk) for e in schedule.written(gpu) for c in cells_of(e) if c.part is Part.INPUT}
    for entry in schedule.written(gpu):
        now += sum(whole for cell in cells_of(entry) if cell.part is Part.FORWARD)
        most = max(most, now)
        for cell in cells_of(entry):
            if cell.part in (Part.BACKWARD, Part.INPUT):
                now -= whole - rest if (cell.microbatch, cell.chunk) in split else whole
            elif cell.part is Part.WEIGHT:
                now -= rest
    assert now == pytest.approx(0.0)
    return most


@settings(max_examples=examples(15))
@given(cases(), st.sampled_from([(1.0, 1.0), (1.0, 0.5), (3.0, 0.0)]))
def test_what_is_held_is_counted_cell_by_cell(
    case: tuple[PipelineSchedule, StageTimes], sizes: tuple[float, float]
) -> None:
    schedule, _ = case
    stages = schedule.stages
    for gpu, peak in enumerate(peaks(schedule, [sizes[0]] * stages, [sizes[1]] * stages)):
        assert peak.held == pytest.approx(held_slowly(schedule, gpu, *sizes))
        cells = [c for e in schedule.written(gpu) for c in cells_of(e)]
        forward = [c for c in cells if c.part is Part.FORWARD and c.chunk == peak.cell.chunk]
        assert forward[peak.number] == peak.cell


def test_the_moment_of_the_peak() -> None:
    """1F1B: the first GPU holds p micro-batches from when the p-th begins."""
    schedule = make("one_f_one_b", 4, 9)
    found = step_times(schedule, StageTimes.alike(4, 1.0, 2.0, 1.0))
    assert [found.peak_start_s(gpu, peak) for gpu, peak in enumerate(peaks(schedule))] == [3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_the_moment_of_the_peak_of_unequal_stages(name: str) -> None:
    """When first as many micro-batches have begun on a chunk and not had their last gradient as the peak says, cell by cell."""
    schedule = make(name, 4, 8, 2 if SCHEDULES[name].chunks is None else None)
    found = step_times(schedule, random_times(schedule.stages, random.Random(3), sends=True, overlap=True))
    for gpu, peak in enumerate(peaks(schedule, [1.0] * schedule.stages)):
        spans: dict[tuple[int, int], list[float]] = {}
        for entry, start_s, end_s in found.written(gpu):
            for cell in cells_of(entry):
                spans.setdefault((cell.chunk, cell.microbatch), []).extend((start_s, end_s))
        held = {min(s): sum(min(o) <= min(s) < max(o) - 1e-9 for o in spans.values()) for s in spans.values()}
        first_s = next(moment_s for moment_s in sorted(held) if held[moment_s] == peak.held)
        assert max(held.values()) == peak.held and first_s == pytest.approx(found.peak_start_s(gpu, peak))


# -- goldens, PyTorch's orders ------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_printed_orders(name: str, pytestconfig: pytest.Config) -> None:
    file = pytestconfig.rootpath / "tests" / "golden" / "training" / f"{name}.txt"
    p, m = FOR_GOLDENS[name]
    found = make(name, p, m, 2 if SCHEDULES[name].chunks is None else None).text()
    if pytestconfig.getoption("--update-golden"):
        file.write_text(found)
    assert found == file.read_text()


@cache
def torch_schedules() -> object:
    """Importing it takes longer than all other tests here."""
    return pytest.importorskip("torch.distributed.pipelining.schedules")


@exhaustive
@pytest.mark.parametrize(
    ("name", "theirs", "p", "m", "v"),
    [
        ("interleaved", "ScheduleInterleaved1F1B", 4, 12, 3),
        ("interleaved", "ScheduleInterleaved1F1B", 3, 6, 2),
        ("zb_v", "ScheduleZBVZeroBubble", 4, 11, 2),
        ("zb_v", "ScheduleZBVZeroBubble", 3, 4, 2),
        ("dualpipe_v", "ScheduleDualPipeV", 3, 9, 2),
        ("dualpipe_v", "ScheduleDualPipeV", 4, 8, 2),
    ],
)
def test_orders_are_those_of_pytorch(name: str, theirs: str, p: int, m: int, v: int) -> None:
    """Without ranks or stages, the class is asked for the orders alone."""
    kind = getattr(torch_schedules(), theirs, None)
    if not hasattr(kind, "_calculate_single_rank_operations"):
        pytest.skip("this version of PyTorch has no such schedule")
    empty = object.__new__(kind)
    empty.pp_group_size, empty._n_microbatches, empty.n_local_stages = p, m, v
    empty.num_stages = empty._num_stages = p * v
    empty.microbatches_per_round, empty.number_of_rounds = p, m // p
    schedule = make(name, p, m, v)
    (route,) = schedule.routes
    for gpu in range(p):
        wanted = [
            sorted(
                (a.computation_type.value, a.stage_index, a.microbatch_index) for a in action.sub_actions or [action]
            )
            for action in empty._calculate_single_rank_operations(gpu)
            if action is not None
        ]
        found = [
            sorted((c.part.value, route.seats.index((gpu, c.chunk)), c.microbatch) for c in cells_of(entry))
            for entry in schedule.written(gpu)
        ]
        assert found == wanted


# -- the page -----------------------------------------------------------------------------------------


def test_the_tables_of_the_page() -> None:
    """What each schedule needs, costs and holds by the table of the code, and seconds of one case as they are timed."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for name, known in SCHEDULES.items():
        needs = ", ".join((need.__doc__ or "").rstrip(".").replace(" is ", " ", 1) for need in known.needs) or "-"
        bubble = ("at most " if known.bubble.at_most else "") + f"`{known.bubble.formula}`"
        chunks = known.chunks or "v"
        copies = "2 x" if known.copies == 2 else "1 x"
        row = f"| `{name}` | {known.title} | {chunks} | {needs} | {bubble} | `{known.held}` | {copies} |"
        assert row in page, row
    for name, known in SCHEDULES.items():
        when = "always" if known.bubble.when == "True" else f"`{known.bubble.when}`"
        assert f"| `{name}` | {when} | {measured(name)} |" in page, f"| `{name}` | {when} | {measured(name)} |"
    for line in make("zb_h1", 3, 4).text().splitlines():
        assert line in page


def measured(name: str) -> str:
    """Of 8 GPUs and 32 micro-batches: forward, input and weight cells of a stage take 1 s each, an overlap as long as its two."""
    schedule = make(name, 8, 32, 2 if SCHEDULES[name].chunks is None else None)
    part = schedule.gpus / schedule.stages
    found = step_times(schedule, StageTimes.alike(schedule.stages, part, 2 * part, part))
    idle_s = (found.span_s if SCHEDULES[name].bubble.own_step else found.makespan_s) - min(found.busy_s)
    held = [peak.held for peak in peaks(schedule)]
    return f"{found.makespan_s:g} s | {idle_s:g} s | {max(held):g} | {min(held):g}"


# -- what is not a schedule -----------------------------------------------------------------------------


def changed(schedule: PipelineSchedule, gpu: int, *entries: Entry) -> PipelineSchedule:
    orders = list(schedule.orders)
    orders[gpu] = (Loop(entries),)
    return replace(schedule, orders=tuple(orders))


def test_mutants_are_caught() -> None:
    """Every cell of a small schedule left out, run twice, or with the next one swapped where they are of one kind or of one
    micro-batch."""
    caught = 0
    for name in ("one_f_one_b", "interleaved", "zb_h1", "zb_v", "dualpipe"):
        schedule = make(name, 2, 4, 2 if SCHEDULES[name].chunks is None else None)
        for gpu in range(2):
            order = list(schedule.written(gpu))
            for k, entry in enumerate(order):
                mutants = [order[:k] + order[k + 1 :], [*order[:k], entry, *order[k:]]]
                after = order[k + 1] if k + 1 < len(order) else None
                one, two = cells_of(entry)[-1], cells_of(after)[-1] if after else None
                if two and (one.kind == two.kind or (one.microbatch, one.chunk) == (two.microbatch, two.chunk)):
                    mutants.append([*order[:k], after, entry, *order[k + 2 :]])
                for mutant in mutants:
                    with pytest.raises(VerifyError, match=f"^GPU {gpu} "):
                        verify_orders(changed(schedule, gpu, *mutant))
                    caught += 1
    assert caught > 250


def test_a_wrong_order_of_micro_batches_is_named() -> None:
    schedule = make("one_f_one_b", 2, 3)
    order = list(schedule.written(1))
    swapped = [e if e.microbatch == 2 else Cell(1 - e.microbatch, e.chunk, e.part) for e in order]
    with pytest.raises(VerifyError, match=r"^GPU 1 runs F1 where F0 is due$"):
        verify_orders(changed(schedule, 1, *swapped))
    with pytest.raises(VerifyError, match=r"^GPU 1 runs B0 before F0$"):
        verify_orders(changed(schedule, 1, order[1], order[0], *order[2:]))
    with pytest.raises(VerifyError, match=r"^GPU 1 runs 2 backward cells of chunk 0; 3 are due$"):
        verify_orders(changed(schedule, 1, *order[:-1]))
    zero = make("zb_h1", 2, 3)
    first = list(zero.written(0))
    at = next(k for k, e in enumerate(first) if e.part is Part.WEIGHT)
    with pytest.raises(VerifyError, match=r"^GPU 0 runs W0 before I0$"):
        verify_orders(changed(zero, 0, *first[: at - 1], first[at], first[at - 1], *first[at + 1 :]))


def test_a_deadlock_names_who_waits() -> None:
    """All cells are in order on each GPU, but the first one wants a gradient before it gives what the gradient is of."""
    schedule = make("one_f_one_b", 2, 3)
    f, b = Part.FORWARD, Part.BACKWARD
    late = [Cell(*cell) for cell in ((0, 0, f), (0, 0, b), (1, 0, f), (1, 0, b), (2, 0, f), (2, 0, b))]
    early = [Cell(*cell) for cell in ((0, 0, f), (1, 0, f), (0, 0, b), (2, 0, f), (1, 0, b), (2, 0, b))]
    with pytest.raises(VerifyError, match="no GPU can go on: GPU 0 at B0, GPU 1 at F1 wait for each other"):
        verify_orders(changed(changed(schedule, 0, *late), 1, *early))


def test_what_is_held_is_bounded() -> None:
    schedule = make("gpipe", 2, 5)
    verify_orders(schedule, most=[5, 5])
    with pytest.raises(
        VerifyError, match="GPU 0 holds 4 micro-batches of a stage when F3 begins; the schedule is to hold 3"
    ):
        verify_orders(make("gpipe", 2, 4), most=[3, 3])


def test_routes_are_checked() -> None:
    schedule = make("zb_v", 2, 3)
    (route,) = schedule.routes
    with pytest.raises(VerifyError, match="chunk 1 of GPU 0 is 0 virtual stages"):
        verify_orders(replace(schedule, routes=(replace(route, seats=route.seats[:-1]),)))
    with pytest.raises(VerifyError, match="2 of 3 micro-batches have a route"):
        verify_orders(replace(schedule, routes=(Route(route.seats, 0, 2),)))


@pytest.mark.parametrize(
    ("name", "p", "m", "v", "said", "instead"),
    [
        ("interleaved", 4, 10, 2, "takes them in groups of 4", "microbatches = 8 or 12"),
        ("interleaved", 4, 3, 2, "takes them in groups of 4", "microbatches = 4"),
        ("interleaved", 4, 8, 1, "2 or more", "interleaved(2), or one_f_one_b"),
        ("dualpipe", 5, 20, None, "even number", "pp = 4 or 6"),
        ("dualpipe", 4, 11, None, "half of them come from each end", "microbatches = 10 or 12"),
        ("dualpipe", 8, 10, None, "begins with 16 in flight", "microbatches = 16 or more, or fewer stages"),
        ("dualpipe_v", 4, 3, None, "begins with 8 in flight", "microbatches = 8 or more, or fewer stages"),
        ("zb_v", 4, 8, 3, "it has 2", "zb_v without a number"),
    ],
)
def test_what_a_schedule_needs(name: str, p: int, m: int, v: int | None, said: str, instead: str) -> None:
    with pytest.raises(Unmet) as caught:
        make(name, p, m, v)
    assert said in str(caught.value)
    assert instead == caught.value.help
