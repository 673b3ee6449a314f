"""What was found about calls and ops, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...base.harmless import harmless
from ...base.units import TIME, show
from ...view.report.terminal_text import within
from .deviations import NEGLIGIBLE_S, Beside, Matched
from .marked import listed

LAYER = re.compile(r"\.(\d{1,9})/")
SHOWN = 20
"""Lines of deviations, and of late ranks."""


def lines(beside: Beside) -> Iterator[str]:
    """What was found call by call; why nothing was."""
    if beside.found is None:
        yield f"collectives are not laid beside the plan's: {beside.reason}"
    else:
        yield from told(beside.found)


def alone(beside: Beside, spec: str, twin: bool = False) -> Iterator[str]:
    """A whole report, of traces without kernels. `twin`: of the small twin."""
    found = beside.found
    if found is not None:
        what = "its small twin, which is planned anew" if twin else "the plan itself"
        yield from within(harmless(f"{found.phase} of {spec}: traces of `dagc run` on a CPU, of {what}"))
    yield from (part for line in (*lines(beside), *verdict(beside)) for part in within(harmless(line)))


def verdict(beside: Beside) -> Iterator[str]:
    found = beside.found
    if found is not None and found.differs:
        words = dict.fromkeys(one.word for one in found.deviations)
        counts = (f"{sum(one.word == word for one in found.deviations):,} {word}" for word in words)
        yield f"collectives are not the plan's: {', '.join(counts)}"
    if found is not None and found.drifted:
        names = ", ".join(f"{one.name} {one.measured_s / one.planned_s:.2f}" for one in found.drifted)
        yield f"drift beyond {found.tolerance:.0%} of the plan: {names}"


def told(found: Matched) -> Iterator[str]:
    """A line of all calls, one for each deviation (ranks that deviate alike in one), the late ranks, and the classes of ops."""
    whose = f"{len(found.ranks)} of {found.world} ranks" if len(found.ranks) < found.world else f"{found.world} ranks"
    passes = "one pass" if found.passes == 1 else f"{found.passes} passes"
    how = "by name" if found.named else "by kind, size, group and order: ranks are taken to be in the order of GPU ids"
    yield f"collectives of {whose} in {passes}: {found.planned:,} planned, {found.seen:,} seen, {found.same:,} the same, {how}"
    yield from _cut(list(_deviations(found)))
    yield from _cut([
        f"  late     rank {one.rank} at {one.kind} {one.name}, {_where(found, one.part, one.number)}: "
        f"its group waited {_time(one.wait_s)}"
        for one in found.late
    ])  # fmt: skip
    share = found.waited_s / (found.span_s * len(found.ranks)) if found.span_s else 0.0
    yield f"  ranks waited for each other in {share:.1%} of their time"
    if found.classes:
        yield from _classes(found)


def _deviations(found: Matched) -> Iterator[str]:
    """One line for what is the same in several layers, passes and ranks."""
    groups: dict[tuple[str, ...], dict[tuple[int, ...], set[int]]] = {}
    for one in found.deviations:
        layer = LAYER.search(one.name)
        name = one.name if layer is None else LAYER.sub(".*/", one.name)
        key = (one.word, one.kind, name, str(one.part), one.detail)
        of = (int(layer[1]),) if layer is not None else ()
        groups.setdefault(key, {}).setdefault((one.rank, *of), set()).add(one.number)
    for (word, kind, name, part, detail), places in groups.items():
        layers = listed([of[1] for of in places if len(of) > 1])
        numbers = [n for every in places.values() for n in every]
        text = f"{kind} {name.replace('.*/', f'.{layers}/') if layers else name}".strip()
        where = f", part {part}" + (f" of pass {listed(numbers)}" if found.passes > 1 else "") if name else ""
        ranks = sorted({of[0] for of in places})
        many = "ranks" if len(ranks) > 1 else "rank"
        yield f"  {word:<8} {text}{where}, {many} {listed(ranks)}{f': {detail}' if detail else ''}"


def _where(found: Matched, part: int, number: int) -> str:
    return f"part {part}" + (f" of pass {number}" if found.passes > 1 else "")


def _cut(every: list[str]) -> Iterator[str]:
    yield from every[:SHOWN]
    if len(every) > SHOWN:
        yield f"  and {len(every) - SHOWN:,} more such lines: --json has all"


def _classes(found: Matched) -> Iterator[str]:
    titles = ("measured ms", "planned ms", "ratio") if found.compares else ("measured ms",)
    yield "".join([f"{'ops, mean of ranks':<20}{'calls':>8}", *(f"{title:>14}" for title in titles)])
    for row in found.classes:
        ratio = f"{row.measured_s / row.planned_s:.2f}" if row.planned_s >= NEGLIGIBLE_S else "-"
        cells = (f"{row.measured_s * 1e3:.3f}", f"{row.planned_s * 1e3:.3f}", ratio)[: len(titles)]
        yield "".join([f"{row.name:<20}{row.calls:>8}", *(f"{cell:>14}" for cell in cells)])
    if not found.compares:
        yield "the plan's times are of another kind of device than ran: they are not compared"


def _time(seconds: float) -> str:
    return show(seconds, TIME)
