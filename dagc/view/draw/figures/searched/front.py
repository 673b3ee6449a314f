"""Plans of a phase by tokens per second and user, and per GPU: those that no other is better than in both, and those that were chosen. A
training step has no users: its plans are by memory."""

from __future__ import annotations

from collections.abc import Sequence

from .....base.units import BYTES, TIME, TOKEN_RATE, show
from .....plan.searched import Findings, PhasePlan, Space
from ....facts.found_plans import TIED, choices_text, is_of
from ..markup import Markup
from ..plot import Axis, Panel, linear, logarithmic, thinned
from ..svg import Figure, Keys, figure, title, words

WIDTH, HEIGHT, LEFT, TOP = 760, 380, 74, 30
MOST = 1_200
"""Plans that are drawn beside the front."""
NEAR = 30, 15
"""Pixels across and down within which plans of the table share a label: it would lie over the other one."""
GB = 1e9
FAR = 30
"""Ratio from which an axis is logarithmic."""


def draw(found: Findings, space: Space) -> Figure:
    """A dot for each legal plan that was costed; the front as a line; numbers are those of the table."""
    plans = space.legal
    edge = front(plans)
    across, up = _axis([_across(p) for p in plans]), _axis([p.per_gpu_tok_s for p in plans])
    panel = Panel(LEFT, TOP, WIDTH, HEIGHT, across, up)
    body = panel.frame("tok/s per GPU", bottom=axis_name(space))
    body += [_dot(panel, plans[k], "s0", hollow=True) for k in thinned([0.0] * len(plans), MOST)]
    body.append(panel.curve([(_across(p), p.per_gpu_tok_s) for p in edge], "s1"))
    body += [_dot(panel, one, "s1") for one in edge]
    body += _chosen(panel, found, space)
    label = f"{len(plans):,} plans of {space.phase} by {axis_name(space)} and tok/s per GPU"
    return figure("plan-front", LEFT + WIDTH + 30, TOP + HEIGHT + 46, label, *body)


def axis_name(space: Space) -> str:
    """What plans are laid out by, beside tok/s per GPU."""
    return "GB of the fullest GPU" if any(one.mfu is not None for one in space.legal) else "tok/s per user"


def _across(one: PhasePlan) -> float:
    return one.per_user_tok_s if one.mfu is None else one.peak_B / GB


def keys(found: Findings, space: Space) -> Keys:
    return [
        ("s0", f"{len(space.legal):,} legal plans that were costed"),
        ("s1", f"front: {len(front(space.legal)):,} that none of them is better than in both"),
        ("s2", "plans of the table"),
    ]


def front(plans: Sequence[PhasePlan]) -> list[PhasePlan]:
    """By tokens per second and user, the fewest first, or by memory, the least first; of equals one."""
    out: list[PhasePlan] = []
    for one in sorted(plans, key=lambda p: (-_across(p) if p.mfu is None else _across(p), -p.per_gpu_tok_s)):
        if not out or one.per_gpu_tok_s > out[-1].per_gpu_tok_s:
            out.append(one)
    return out[::-1] if plans and plans[0].mfu is None else out


def _axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    return (
        logarithmic(low, high, lambda v: f"{v:,.6g}", most=9)
        if high > FAR * low > 0
        else linear(high * 1.03, lambda v: f"{v:,.6g}", most=8)
    )


def _hint(one: PhasePlan) -> Markup:
    users = f"{show(one.per_user_tok_s, TOKEN_RATE)} per user" if one.mfu is None else f"MFU {one.mfu:.2%}"
    figures = f"{show(one.per_gpu_tok_s, TOKEN_RATE)} per GPU, {users}"
    held = f"{one.time_name} {show(one.time_s, TIME)}, {show(one.peak_B, BYTES)} on the fullest GPU"
    return title(f"{figures}; {held}; {choices_text(one.choices).replace(TIED, ' ')}")


def _dot(panel: Panel, one: PhasePlan, cls: str, *, hollow: bool = False) -> Markup:
    return panel.mark(_across(one), one.per_gpu_tok_s, cls, _hint(one), hollow=hollow)


def _chosen(panel: Panel, found: Findings, space: Space) -> list[Markup]:
    """Plans whose dots are near each other have one label."""
    at: list[tuple[float, float, list[str]]] = []
    out: list[Markup] = []
    for k, plan in enumerate(found.plans, 1):
        for one in plan.phases:
            if is_of(plan, one, space):
                x, y = panel.point(_across(one), one.per_gpu_tok_s)
                near = next((names for px, py, names in at if abs(px - x) < NEAR[0] and abs(py - y) < NEAR[1]), None)
                if near is None:
                    at.append((x, y, [str(k)]))
                else:
                    near.append(str(k))
                out.append(_dot(panel, one, "s2"))
    for x, y, names in at:
        end = x > LEFT + WIDTH - 60
        shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
        out.append(words(x + (-8 if end else 8), max(TOP + 14, y - 7), shown, "strong end" if end else "strong"))
    return out
