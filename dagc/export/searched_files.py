"""The answer of a search as files: JSON, the plans as specs, and every plan that was costed as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

from ..base.harmless import file_part, in_json
from ..base.picture_words import Theme
from ..base.units import unit_name
from ..plan.searched import Findings, PhasePlan, Space
from ..spec.metrics.known_metrics import of_serving
from .pictures import file_of

SCHEMA = 2
"""2: with the units of objectives and of figures of servings."""


def as_object(found: Findings) -> dict[str, Any]:
    """Plain data in SI units, as `search.schema.json` describes it."""
    units = {metric.name: unit_name(metric.dim) for metric in of_serving()}
    return {
        "schema": SCHEMA,
        "spec": found.spec,
        "complete": found.complete,
        "interrupted": found.interrupted,
        "gap": found.gap,
        "seconds": found.seconds,
        "objectives": [{"name": m.name, "phase": m.phase, "better": m.better, "unit": unit_name(m.dim)} for m in found.measures],
        "plans": [
            {
                "figures": list(plan.figures),
                "behind": plan.behind,
                "equal": plan.equal,
                "gpus": plan.gpus,
                "slow_B": plan.slow_B,
                "alternatives": dict(plan.picked),
                "servings": {name: dict(choices) for name, choices in plan.servings.items()},
                "phases": {one.phase: _phase(one) for one in plan.phases},
                "spec": plan.spec,
            }
            for plan in found.plans
        ],
        "spaces": {space.phase: _space(space) for space in found.spaces},
        "joined": None if (joined := found.joined) is None else {
            "tried": joined.tried, "refused": joined.refused, "left": joined.left, "reasons": dict(joined.reasons),
            "near": [{"rule": rule, "how": how, "choices": dict(choices)} for rule, how, choices in joined.near],
        },
        "why": {
            "versus": [
                {
                    "plan": one.name, "phase": one.phase, "per": one.per, "best_s": one.own, "other_s": one.other,
                    "parts": [{"name": p.name, "best_s": p.own, "other_s": p.other} for p in one.parts],
                    "idle": {"best": one.idle[0], "other": one.idle[1]},
                }
                for one in found.versus
            ],
            "served": [
                {"plan": one.name, "serving": one.serving, "figures": [
                    {"name": n, "unit": units.get(n, "1"), "best": a, "other": b} for n, a, b in one.figures
                ]}
                for one in found.served
            ],
            "against": None if (today := found.against) is None else {
                "spec": today.name, "figures": list(today.figures), "gains": [_finite(gain) for gain in today.gains], "passed": today.passed,
            },
            "binding": None if (bound := found.binding) is None else {
                "requirement": bound.label, "slack": bound.slack, "found": bound.found, "bound": bound.bound, "refused": bound.refused,
                "without": bound.without, "gain": _finite(bound.gain), "sure": bound.sure,
            },
            "gpus": [
                {"phase": one.phase, "gpus": one.gpus, "figure": one.figure, "change": _finite(one.change), "complete": one.complete}
                for one in found.steps
            ],
        },
        "recompute": [
            {
                "phase": one.phase, "recompute": one.recompute, "step_s": one.time_s, "peak_B": one.peak_B, "mfu": one.mfu, "fits": one.fits,
                "chosen": one.chosen,
            }
            for one in found.anew
        ],
        "errors": {one.phase: {"median": one.median, "cases": one.cases} for one in found.errors},
    }  # fmt: skip


def _finite(share: float | None) -> float | None:
    """JSON has no infinity: how much better than 0 something is, is no share."""
    return None if share is None or not isfinite(share) else share


def _phase(one: PhasePlan) -> dict[str, Any]:
    return {
        "choices": dict(one.choices),
        "gpus": one.gpus,
        "sequences": one.sequences,
        "time": one.time_name,
        "time_s": one.time_s,
        "throughput_tok_s": one.throughput_tok_s,
        "throughput_per_gpu_tok_s": one.per_gpu_tok_s,
        "throughput_per_user_tok_s": one.per_user_tok_s,
        "peak_B": one.peak_B,
        "capacity_B": one.capacity_B,
        "mfu": one.mfu,
    }


def _space(space: Space) -> dict[str, Any]:
    return {
        "size": space.size,
        "complete": space.complete,
        "gap": space.gap,
        "costed": space.costed,
        "compiled": space.compiled,
        "bounded": space.bounded,
        "equal": space.equal,
        "left": space.left,
        "choices": dict(space.choices),
        "rejected": [
            {"rule": one.rule, "about": one.about, "code": one.code, "count": one.count, "example": dict(one.example)}
            for one in space.refusals
        ],
        "near": [{"rule": rule, "how": how, "choices": dict(choices)} for rule, how, choices in space.near],
    }


def as_json(found: Findings) -> bytes:
    return (in_json(json.dumps(as_object(found), indent=1)) + "\n").encode()


def as_csv(space: Space) -> str:
    """A row for each legal plan that was costed, the best first; units in the names of the columns."""
    paths = list(space.choices)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures: tuple[str, ...] = ("gpus", "sequences", "time_s", "throughput_tok_s", "throughput_per_gpu_tok_s", "throughput_per_user_tok_s", "peak_B")  # fmt: skip
    figures = (*figures, *(("mfu",) if any(one.mfu is not None for one in space.legal) else ()))
    writer.writerow(["phase", *(f"choice.{path}" for path in paths), *figures])
    for one in space.legal:
        row = _phase(one)
        writer.writerow([one.phase, *(one.choices.get(path, "") for path in paths), *(row[name] for name in figures)])
    return out.getvalue()


def _file(space: str) -> str:
    """`decode`; `decode.small` of an alternative."""
    return file_part(space.replace(" (", ".").removesuffix(")"))


def files(found: Findings, name: str, kinds: Sequence[str] = ("svg",), theme: Theme = "auto") -> dict[str, bytes]:
    """Name -> content: `NAME.1.moe` is the best plan; `kinds`: of pictures. Raises SpecError with E16 without a program for one."""
    from ..view.draw.figures.searched.search_sheets import front_svg, map_svg
    from ..view.report.page.found import page

    pictures: dict[str, str] = {}
    out = {f"{name}.{k}.moe": plan.spec.encode() for k, plan in enumerate(found.plans, 1)}
    out[f"{name}.search.json"] = as_json(found)
    for space in found.spaces:
        out[f"{name}.{_file(space.phase)}.csv"] = as_csv(space).encode()
        if space.legal:
            pictures[f"{_file(space.phase)}.front"] = front_svg(found, space, theme)
    for one in found.maps:
        pictures[f"{_file(one.phase)}.map"] = map_svg(found, one, theme)
    out |= {f"{name}.{of}.{kind}": file_of(drawn, kind) for of, drawn in pictures.items() for kind in kinds}
    out[f"{name}.html"] = page(found, theme).encode()
    return out
