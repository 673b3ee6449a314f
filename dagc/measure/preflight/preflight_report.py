"""What a check of machines found, for terminals and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...view.report.terminal_text import Paint, narrow
from .inventory import Machine
from .inventory import plain as found
from .verdicts import FAILED, MET, UNKNOWN, Check
from .wanted import Wanted

SCHEMA = 1


def plain(checks: Sequence[Check], machines: Sequence[Machine], passed: bool) -> dict[str, Any]:
    """One object, SI units; its schema is `preflight.schema.json` of dagc.measure.preflight."""
    return {
        "schema": SCHEMA,
        "passed": passed,
        "checks": [
            {
                "pool": one.pool,
                "what": one.what,
                "verdict": one.verdict,
                "hosts": list(one.hosts),
                "wanted": one.wanted,
                "found": one.found,
                "unit": one.unit or "1",
                "wanted_text": one.wanted_text,
                "found_text": one.found_text,
                "why": one.why,
            }
            for one in checks
        ],
        "found": [found(machine) for machine in machines],
    }


def text(
    name: str, pools: Sequence[Wanted], checks: Sequence[Check], machines: Sequence[Machine], paint: Paint
) -> list[str]:
    """The report, line by line."""
    lines = [f"{name} on {_listed([machine.host for machine in machines])}"]
    names = [pool.pool for pool in pools] + ([""] if any(not one.pool for one in checks) else [])
    for pool in names:
        own = [one for one in checks if one.pool == pool]
        own_pool = next((one for one in pools if one.pool == pool), None)
        lines += ["", _heading(own_pool) if own_pool is not None else "no pool"]
        cells = [(one, _figures(one)) for one in own]
        widths = [max(len(one.what) for one in own), max((len(f) for _, f in cells), default=0)]
        for one, figures in cells:
            mark = {MET: paint(MET, "32"), FAILED: paint(FAILED, "31;1"), UNKNOWN: UNKNOWN}[one.verdict]
            fill = " " * (len(UNKNOWN) - len(one.verdict))
            where = (
                f"{_listed(one.hosts)}: " if len(machines) > 1 and one.hosts and len(one.hosts) < len(machines) else ""
            )
            lines.append(f"  {mark}{fill}  {one.what.ljust(widths[0])}  {figures}".rstrip())
            lines += [f"      {where}{one.why}".rstrip(": ")] if where or one.why else []
    counts = [(sum(one.verdict == word for one in checks), word) for word in (FAILED, MET, UNKNOWN)]
    return narrow([*lines, "", ", ".join(f"{count} {word}" for count, word in counts)], paint.width)


def _heading(pool: Wanted) -> str:
    devices, hosts = len(pool.ids), len(pool.hosts)
    one, many = ("process", "processes") if pool.hardware.kind == "cpu" else ("GPU", "GPUs")
    where = f"{hosts} host{'s' if hosts > 1 else ''} for {', '.join(pool.phases)}"
    return f"{pool.pool}: {devices} {many if devices > 1 else one} on {where}"


def _figures(one: Check) -> str:
    """`wanted 8, found 4`"""
    parts = [f"wanted {one.wanted_text}"] if one.wanted_text else []
    parts += [f"found {one.found_text}"] if one.found_text else []
    return ", ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
