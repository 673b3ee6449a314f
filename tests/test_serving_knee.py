"""The knee is the last load that holds, in steps of three digits, whatever the load it is looked for from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from conftest import compiled

from dagc.serving.knee import Knee, Point, knee, rung, rung_of


@dataclass
class Found:
    """As much of a result as the search asks for."""

    load: float
    running_most: int = 9
    queue_most: int = 9


def looked_for(limit: float, start: float, **more: Any) -> Knee:
    return knee(Found, lambda found: ("late",) if found.load > limit else (), start, **more)  # type: ignore[arg-type, attr-defined]


def test_rungs_have_three_digits_and_rise() -> None:
    rates = [rung(k, False) for k in range(-2000, 2000)]
    assert rates == sorted(set(rates)) and all(float(f"{rate:.2e}") == rate for rate in rates)
    clients = [rung(k, True) for k in range(1, 5000)]
    assert (
        clients == sorted(set(clients)) and all(c == int(c) for c in clients) and clients[:1000] == list(range(1, 1001))
    )
    assert all(rung_of(rung(k, whole), whole) == k for whole in (False, True) for k in range(1, 4000, 7))
    assert (rung_of(12.349, False), rung_of(1019.0, True)) == (rung_of(12.3, False), rung_of(1010.0, True))


@pytest.mark.parametrize("start", [0.5, 7.77, 12.0, 900.0])
@pytest.mark.parametrize("limit", [0.0137, 1.0, 7.77, 3205.0])
def test_the_knee_and_the_next_load_enclose_the_limit(start: float, limit: float) -> None:
    found = looked_for(limit, start)
    assert found.at is not None and found.above is not None
    assert found.at.load <= limit < found.above.load <= found.at.load * 1.0101
    assert (found.at.broken, found.above.broken) == ((), ("late",))
    assert [p.load for p in found.points] == sorted({p.load for p in found.points}) and len(found.points) <= 30


def test_clients_are_whole() -> None:
    found = looked_for(77, 64, whole=True)
    assert found.at is not None and found.above is not None
    assert (found.at.load, found.above.load) == (77, 78)
    assert looked_for(0.5, 64, whole=True).at is None


def test_where_nothing_holds_or_breaks_the_search_ends() -> None:
    none = knee(lambda load: Found(load, 1 if load < 1 else 9, 1), lambda found: ("slow",), 12)  # type: ignore[arg-type, return-value]
    assert none.at is None and none.above is not None
    assert len(none.points) == 5, "with one request at a time, a lower load changes nothing"
    every = looked_for(float("inf"), 12)
    assert every.above is None and every.at is not None and len(every.points) == 21


def test_every_load_is_told_before_it_runs_and_runs_once() -> None:
    told: list[float] = []
    found = looked_for(100, 12, told=told.append)
    assert sorted(told) == [point.load for point in found.points]


def test_where_no_load_holds_the_least_that_was_tried_is_named() -> None:
    from dagc.view.report.served_report import knee_lines

    served = compiled("mixtral_8xh100").serve("chat")
    alone = Point(1e-5, served, ("first token: 3 s, not <= 1 s",))
    *_, said = lines = knee_lines(served, Knee(None, alone, (alone,)), 100)
    assert any(line.lstrip().startswith("least") for line in lines) and "the least that was tried" in said
