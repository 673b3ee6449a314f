"""Where `place = best` put the ranks of a phase, in words."""

from __future__ import annotations

from ...base.units import BYTES, TIME, show
from ...plan.placement import Placement
from ...plan.pools import listed
from ...plan.result import PhaseResult
from ...plan.trained import TrainingResult


def placement_lines(result: PhaseResult | TrainingResult) -> list[str]:
    """Where `place = best` put the axes, what that gains over the default order, and what was tried."""
    one = result.placement
    if one is None:
        return []
    where = "; ".join(
        f"{' x '.join(f'{axis} {n}' for axis, n in axes.items())} {'inside' if i == 0 else 'over'} {level}"
        for i, (level, axes) in enumerate(one.inside)
    )
    where = where or (f"outermost first {', '.join(one.order)}" if one.order else "")
    kept = "" if one.moved else "the default order, which no other betters"
    others = [name for name in one.together if name != result.name]
    together = f", together with {listed(others)}" if others else ""
    sent = ", ".join(
        f"{row.level} {show(row.before_B, BYTES, 3)} -> {show(row.after_B, BYTES, 3)}" for row in one.levels
    )
    once = "in one step" if isinstance(result, TrainingResult) else "in one pass"
    gain = f"{-one.gain:+.1%}" if abs(one.gain) >= 0.0005 else "as long"
    lines = [
        f"placed best: {': '.join(filter(None, (kept, where))) or 'GPU by GPU'}{together}",
        f"  default order -> placed: {result.graph.phase_kind.metric} {show(one.before_s, TIME, 3)} -> {show(one.after_s, TIME, 3)} "
        f"({gain}); sent by a device of every stage {once}, by links: {sent}",
        f"  {searched(one)}",
    ]
    if one.held_back:
        lines.append(f"  {one.held_back} better ways would store weights a second time on GPUs that other phases use")
    return lines


def searched(one: Placement) -> str:
    """What was tried, and whether that is all."""
    ways = "1 way" if one.ways == 1 else f"{one.ways:,} ways"
    space = "every assignment of GPUs" if one.every else "orders of axes over the levels of links"
    if one.complete:
        return f"{ways} tried ({space}): {one.priced} compiled, {one.alike} of equal groups; none is better"
    more = " of more" if one.cut else ""
    left = one.ways - one.priced - one.alike
    return (
        f"{ways}{more} ranked ({space}) by their collectives: the first {one.priced} compiled, {one.alike} of equal groups, "
        f"{left} only ranked: the best is not proved"
    )
