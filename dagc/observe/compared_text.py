"""A comparison as text for a terminal, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..base.harmless import harmless, shortened
from ..view.report.terminal_text import WIDTH, narrow, table
from .against_plan import Compared, Row
from .busy import Activity
from .kernel_classes import UNKNOWN
from .matching.deviations import Beside
from .measured_rank import MeasuredRank
from .rank_rows import SLOW

SCHEMA = 1
MOST_ROWS = 16
"""Ranks that a report lists."""
LEAST_S = 1e-9
"""Planned times below it are none: sums of many times do not come to zero."""
LONGEST = 60
"""Characters of a kernel's name in a report."""
TIMES = ("span", "busy", "compute", "copy", "exchange", "overlap", "exposed", "idle")


def text(found: Compared, spec: str, calls: Sequence[str] = (), width: int = WIDTH) -> str:
    """The report. `calls`: lines about collectives, one by one."""
    return "\n".join(narrow(_lines(found, spec, calls), width)) + "\n"


def _lines(found: Compared, spec: str, calls: Sequence[str]) -> Iterator[str]:
    first = found.ranks[0]
    device = f", {first.device}" if first.device else ""
    traces = (
        f"{len(found.ranks)} rank{'s' * (len(found.ranks) > 1)} of {found.gpus} GPU{'s' * (found.gpus > 1)}{device}"
    )
    yield harmless(f"{found.phase} of {spec}: {traces}")
    passes = f"{found.passes:g} pass{'es' * (found.passes != 1)}"
    yield harmless(f"{passes} per rank ({first.said}); all times are of one pass, the mean of ranks")
    yield ""
    yield from table(_rows(found), "<>>>>>")
    yield ""
    yield from table(_activity(found), "<>>>")
    yield ""
    yield from _streams(first)
    yield from _sorted(found)
    yield from _stragglers(found)
    yield from map(harmless, calls)
    for note in dict.fromkeys((*found.notes, *(note for one in found.ranks for note in one.notes))):
        yield harmless(f"note: {note}")
    yield _verdict(found)


def _ms(time_s: float | None) -> str:
    return "-" if time_s is None else f"{time_s * 1e3:.3f}"


def _ratio(measured: float | None, planned: float | None) -> str:
    return f"{measured / planned:.2f}" if measured is not None and planned is not None and planned > LEAST_S else "-"


def _calls(calls: float | None) -> str:
    return "-" if calls is None else f"{calls:,.1f}".removesuffix(".0")


def _rows(found: Compared) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("class", "kernels", "ms", "planned ops", "planned ms", "ratio")]
    for row in found.rows:
        rows.append(
            (
                row.name,
                _calls(row.calls),
                _ms(row.measured_s),
                _calls(row.planned_calls),
                _ms(row.planned_s),
                _ratio(row.measured_s, row.planned_s) + (" !" if row.drifts else "  "),
            )
        )
    return rows


def _times(one: Activity, pass_s: float) -> tuple[float, ...]:
    return (
        pass_s,
        one.busy_s,
        one.compute_s,
        one.copy_s,
        one.exchange_s,
        one.overlap_s,
        one.exposed_s,
        max(0.0, pass_s - one.busy_s),
    )


ABOUT = ("one pass", "busy", "compute", "copy", "exchange", "overlap", "exposed exchange", "idle")


def _activity(found: Compared) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("GPU", "ms", "planned ms", "ratio")]
    pairs = zip(_times(found.measured, found.pass_s), _times(found.planned, found.planned_pass_s), strict=True)
    for name, (measured, planned) in zip(ABOUT, pairs, strict=True):
        drifts = name == ABOUT[0] and found.pass_drifts
        rows.append((name, _ms(measured), _ms(planned), _ratio(measured, planned) + (" !" if drifts else "  ")))
    return rows


def _streams(one: MeasuredRank) -> Iterator[str]:
    span_s = one.activity.span_s or 1.0
    shares = (f"{s.stream}: {s.busy_s / span_s:.1%} ({s.kernels:,} kernels)" for s in one.streams[:6])
    rank = "" if one.rank is None else f" of rank {one.rank}"
    more = f"; {len(one.streams) - 6} more" if len(one.streams) > 6 else ""
    yield f"busy streams{rank}: {', '.join(shares)}{more}"


def sorted_share(one: MeasuredRank) -> float:
    """Share of GPU time whose class is known."""
    total = one.gpu_s
    unknown = sum(row.time_s for row in one.classes if row.name == UNKNOWN)
    return 1.0 - unknown / total if total else 0.0


def _sorted(found: Compared) -> Iterator[str]:
    least = min(found.ranks, key=sorted_share)
    yield f"{sorted_share(least):.2%} of GPU time sorted into classes; {found.in_plan:.2%} is of classes that the plan has"
    total = least.gpu_s or 1.0
    for name, time_s in least.unknown[:3]:
        yield harmless(f"    unknown: {time_s / total:.2%} {shortened(name, LONGEST)}")


def _stragglers(found: Compared) -> Iterator[str]:
    if len(found.by_rank) < 2:
        return
    rows: list[tuple[str, ...]] = [("rank", "compute ms", "planned ms", "exchange ms", "waits ms", "last", "idle ms")]
    for one in found.by_rank[:MOST_ROWS]:
        last = "-" if one.last is None else f"{one.last} of {one.calls}"
        cells = (one.compute_s, one.planned_s, one.exchange_s, one.wait_s)
        rows.append(("-" if one.rank is None else str(one.rank), *map(_ms, cells), last, _ms(one.idle_s)))
    yield ""
    yield from table(rows, ">>>>>>>")
    if len(found.by_rank) > MOST_ROWS:
        yield f"    and {len(found.by_rank) - MOST_ROWS} ranks that compute less, relative to the plan"
    yield ""
    if found.waits.matched:
        yield f"waits: of {found.waits.matched:,} collectives that all ranks of their group show, what their kernels take beyond the shortest"
    slow = [str(one.rank) for one in found.by_rank if one.slow and one.rank is not None]
    if slow:
        more = f" and {len(slow) - MOST_ROWS} more" if len(slow) > MOST_ROWS else ""
        yield f"slow: rank {', '.join(slow[:MOST_ROWS])}{more} computes over {SLOW - 1:.0%} longer than the median rank"
    if found.waits.straggler is not None:
        yield f"straggler: rank {found.waits.straggler.rank}, which the others wait for"


def drifted(found: Compared) -> list[Row]:
    return [row for row in found.rows if row.drifts]


def _verdict(found: Compared) -> str:
    names = [f"{row.name} {_ratio(row.measured_s, row.planned_s)}" for row in drifted(found)]
    names = ([f"one pass {_ratio(found.pass_s, found.planned_pass_s)}"] if found.pass_drifts else []) + names
    if not names:
        return f"within {found.tolerance:.0%} of the plan"
    return f"drift beyond {found.tolerance:.0%} of the plan: {', '.join(names)}"


# -- plain data ----------------------------------------------------------------------------------


def plain(found: Compared, beside: Beside) -> dict[str, Any]:
    """As compare.schema.json describes it. Units are in the names; times are seconds of one pass, but for those of a trace."""
    return {
        "schema": SCHEMA,
        "phase": found.phase,
        "gpus": found.gpus,
        "tolerance": found.tolerance,
        "drifts": found.drifts or beside.drifts,
        "passes": found.passes,
        "classes": [
            {
                "name": row.name,
                "of": list(row.of),
                "kernels": row.calls,
                "measured_s": row.measured_s,
                "planned_ops": row.planned_calls,
                "planned_s": row.planned_s,
                "ratio": row.ratio,
                "drifts": row.drifts,
            }
            for row in found.rows
        ],
        "in_plan": found.in_plan,
        "measured": _plain_activity(found.measured, found.pass_s),
        "planned": _plain_activity(found.planned, found.planned_pass_s),
        "pass_drifts": found.pass_drifts,
        "traces": [_plain_rank(one) for one in found.ranks],
        "ranks": [
            {
                "rank": one.rank,
                "compute_s": one.compute_s,
                "planned_compute_s": one.planned_s,
                "exchange_s": one.exchange_s,
                "idle_s": one.idle_s,
                "wait_s": one.wait_s,
                "last": one.last,
                "calls": one.calls,
                "slow": one.slow,
            }
            for one in found.by_rank
        ],
        "waits": {
            "matched": found.waits.matched,
            "straggler": None if found.waits.straggler is None else found.waits.straggler.rank,
        },
        "collectives": beside.to_json(),
        "notes": list(found.notes),
    }


def _plain_activity(one: Activity, span_s: float) -> dict[str, float]:
    return {f"{name}_s": value for name, value in zip(TIMES, _times(one, span_s), strict=True)}


def _plain_rank(one: MeasuredRank) -> dict[str, Any]:
    return {
        "path": one.path,
        "rank": one.rank,
        "ranks": one.world,
        "device": one.device,
        "kernels": one.kernels,
        "passes": one.passes,
        "passes_by": one.said,
        "decodes": one.decodes,
        "between_s": one.between_s,
        "sorted": sorted_share(one),
        "whole": _plain_activity(one.whole, one.whole.span_s),
        "in_passes": _plain_activity(one.activity, one.activity.span_s),
        "classes": [{"name": c.name, "part": c.part, "kernels": c.calls, "time_s": c.time_s} for c in one.classes],
        "streams": [
            {"device": s.device, "stream": s.stream, "kernels": s.kernels, "busy_s": s.busy_s} for s in one.streams
        ],
        "unknown": [{"name": name, "time_s": time_s} for name, time_s in one.unknown],
        "notes": list(one.notes),
    }
