"""A dagc plugin: `--emit collectives-csv`, and the presets in `hardware/` and `models/`."""

from __future__ import annotations

from dagc import Plan


def collectives_csv(plan: Plan, phase: str) -> dict[str, bytes]:
    """The collectives of a phase as a table: file suffix -> content."""
    rows = ["kind,axes,ranks,calls,payload_B,time_s"]
    for c in plan.phases[phase].collectives:
        rows.append(f"{c.kind},{'+'.join(c.axes)},{c.group_size},{c.count},{c.payload_B:g},{c.time_s:g}")
    return {"collectives.csv": ("\n".join(rows) + "\n").encode()}
