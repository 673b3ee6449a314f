"""Latency and throughput against the load, with the knee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

from .....base.units import REQUEST_RATE, TIME, Dim, show
from .....serving.knee import Knee, Point, load_kind
from .....serving.result import ServeResult
from ....facts.served_words import load_text
from ..markup import Markup
from ..plot import Axis, Panel, linear, logarithmic
from ..svg import Figure, Keys, figure, title

WIDTH, HIGH, LOW, GAP, LEFT, TOP = 840, 280, 150, 40, 66, 26
How = Callable[[ServeResult], float]
CURVES: tuple[tuple[str, str, str, How], ...] = (
    ("TTFT p99", "s0", "", lambda r: r.ttft.p99_s),
    ("TTFT p50", "s0", "faint", lambda r: r.ttft.p50_s),
    ("TPOT p99", "s1", "", lambda r: r.tpot.p99_s),
    ("TPOT p50", "s1", "faint", lambda r: r.tpot.p50_s),
)
LIMITS = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"))


def draw(knee: Knee) -> Figure:
    """Times on a logarithmic axis above, requests per second below. Loads far from the knee are left out."""
    points = shown(knee)
    kind, _ = load_kind(points[0].result.arrivals)
    across = linear(points[-1].load, lambda v: f"{v:,.6g}", most=9)
    times = [v for p in points for _, _, _, how in CURVES if isfinite(v := how(p.result)) and v > 0]
    times += [limit for _, limit in _limits(points[0].result)]
    above = Panel(
        LEFT, TOP, WIDTH, HIGH, across, logarithmic(min(times), max(times), lambda v: show(v, TIME, 3), most=9)
    )
    below = Panel(LEFT, TOP + HIGH + GAP, WIDTH, LOW, across, _rates(points))
    name = {"clients": "clients", "speed": "speed of the trace"}.get(kind, "req/s offered")
    body = [*above.frame("time", numbers=False), *below.frame("req/s", bottom=name)]
    for name, limit in _limits(points[0].result):
        body += above.level(limit, "limit", f"{name} <= {show(limit, TIME)}")
    body += _knee(knee, kind, above, below)
    for name, colour, look, how in CURVES:
        body += _curve(above, points, name, colour, look, how, kind, TIME)
    body += _curve(below, points, "served", "s2", "", lambda r: r.rate_per_s, kind, REQUEST_RATE)
    body += _curve(below, points, "goodput", "s3", "faint", lambda r: r.goodput_per_s, kind, REQUEST_RATE)
    label = f"times of {points[0].result.name} against the load, {len(points)} runs"
    return figure("load-curve", LEFT + WIDTH + 20, TOP + HIGH + GAP + LOW + 44, label, *body)


def shown(knee: Knee) -> list[Point]:
    """Up to twice the load above the knee, and no tiny ones beside large ones."""
    edge = knee.above or knee.at
    high = 2.0 * edge.load if edge is not None else float("inf")
    near = [point for point in knee.points if point.load <= high]
    return [point for point in near if point.load >= near[-1].load / 1000]


def keys(knee: Knee) -> Keys:
    """Full lines are p99, dashed ones p50; hollow dots break a requirement."""
    return [
        ("s0", "TTFT (p99, dashed p50)"), ("s1", "TPOT (p99, dashed p50)"), ("s2", "served"), ("s3", "goodput (dashed)"),
        ("path", "limits, and the knee; hollow dots: something breaks"),
    ]  # fmt: skip


def _limits(result: ServeResult) -> list[tuple[str, float]]:
    found = [(name, getattr(result.limits, field)) for name, field in LIMITS]
    return [(name, limit) for name, limit in found if limit is not None]


def _rates(points: Sequence[Point]) -> Axis:
    most = max(max(p.result.rate_per_s, p.result.goodput_per_s) for p in points)
    return linear(most, lambda v: f"{v:.3g}", most=4)


def _knee(knee: Knee, kind: str, above: Panel, below: Panel) -> list[Markup]:
    if knee.at is None:
        return []
    text = f"knee at {load_text(kind, knee.at.load)}"
    return [*above.upright(knee.at.load, "limit", text), *below.upright(knee.at.load, "limit")]


def _curve(
    panel: Panel, points: Sequence[Point], name: str, colour: str, look: str, how: How, kind: str, dim: Dim
) -> list[Markup]:
    values = [(p, how(p.result)) for p in points]
    drawn = [(p, v) for p, v in values if isfinite(v)]
    out = [panel.curve([(p.load, v) for p, v in drawn], f"{colour} {look}".strip())]
    for p, v in drawn:
        breaks = f"; breaks {'; '.join(p.broken)}" if p.broken else ""
        hint = f"{load_text(kind, p.load)}: {name} {show(v, dim)}{breaks}"
        out.append(panel.mark(p.load, v, colour, title(hint), hollow=bool(p.broken)))
    return out
