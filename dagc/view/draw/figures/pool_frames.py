"""Pools of GPUs as frames: nodes of each, which phases run on them, and the links that join pools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ....base.units import BYTE_RATE, BYTES, TIME, show
from ....plan.plan import CompiledPlan
from ....plan.pools import Pool, listed
from ....spec.hardware import Hardware, PoolLink
from .looks import SMALL
from .markup import Markup, join, tag
from .svg import Figure, Keys, figure, rect, title, words

FRAME, LABEL, PAD, ROW, GAP = 620, 110, 12, 20, 26
LANE = 300
"""Room at the right of the frames for links."""
MOST_NODES, MOST_FRAMES, MOST_LINKS = 8, 16, 12
COLOURS = 6
Phases = tuple[str, ...]


def draw(plan: CompiledPlan) -> Figure:
    """A frame a pool, one below the other."""
    shown = list(plan.spec.pools.values())[:MOST_FRAMES]
    body: list[Markup] = []
    middles: dict[str, float] = {}
    y = 4.0
    for own in shown:
        drawn, height = _frame(plan, own, y)
        body += drawn
        middles[own.name] = y + height / 2
        y += height + GAP
    links = [link for link in plan.spec.pool_links if set(link.pools) <= set(middles)]
    body += _links(plan, links[:MOST_LINKS], middles)
    left = len(plan.spec.pools) - len(shown), len(plan.spec.pool_links) - len(links[:MOST_LINKS])
    for count, what in zip(left, ("pool", "link"), strict=True):
        if count:
            body.append(words(0, y, f"{count} more {what}{'s' if count > 1 else ''}, not drawn", "soft"))
            y += ROW
    label = "pools of GPUs: " + "; ".join(f"{own.name}, {own.gpus} GPUs" for own in shown)
    return figure("pools", FRAME + LANE, y, label, *body)


def keys(plan: CompiledPlan) -> Keys:
    """What the colours mean."""
    sets = _sets(plan)
    return [(f"p{k}", listed(phases)) for phases, k in sets.items()] + [("box", "no phase")]


def _sets(plan: CompiledPlan) -> dict[Phases, int]:
    """Sets of phases that share GPUs -> colour."""
    return {phases: k % COLOURS for k, phases in enumerate(dict.fromkeys(pool.phases for pool in plan.pools))}


def _frame(plan: CompiledPlan, own: Hardware, y: float) -> tuple[list[Markup], float]:
    pools = [pool for pool in plan.pools if pool.hardware in ("", own.name)]
    rows = list(_rows(own, pools))
    shown = rows[:MOST_NODES]
    facts = [_held(pool) for pool in pools]
    height = 2 * PAD + ROW * (1 + len(shown) + len(facts) + (len(rows) > len(shown)))
    body = [rect(0, y, FRAME, height, "frame", rx=8)]
    at = y + PAD
    head = f"{own.name}: {own.gpus} GPUs, {own.per_node} per node, {show(own.memory_B, BYTES)} at {show(own.hbm_Bps, BYTE_RATE)} each"
    body.append(words(PAD, at + 12, head, "strong", room=FRAME - 2 * PAD))
    at += ROW
    colours = _sets(plan)
    for first, count, runs in shown:
        name = f"node {first}" if count == 1 else f"nodes {first}..{first + count - 1}"
        body.append(words(PAD, at + 13, name, "soft"))
        body += _node(runs, own.per_node, at, colours)
        at += ROW
    if len(rows) > len(shown):
        left = sum(count for _, count, _ in rows[len(shown) :])
        body.append(words(PAD, at + 13, f"{left} more nodes, not drawn", "soft"))
        at += ROW
    for text in facts:
        body.append(words(PAD, at + 13, text, room=FRAME - 2 * PAD))
        at += ROW
    return body, height


Runs = tuple[tuple[Phases, int], ...]


def _rows(own: Hardware, pools: list[Pool]) -> Iterator[tuple[int, int, Runs]]:
    """(first node, how many alike, runs of GPUs of the same phases) of nodes that are neighbours and alike."""
    of_gpu = {gpu: pool.phases for pool in pools for gpu in pool.gpus}
    used = sorted({gpu // own.per_node for gpu in of_gpu})
    nodes = -(-own.gpus // own.per_node)
    at = 0
    kinds: list[tuple[int, int, Runs]] = []
    for node in (*used, nodes):
        full = min(node, own.gpus // own.per_node)
        if full > at:  # those between are idle
            kinds.append((at, full - at, (((), own.per_node),)))
        if node == nodes and max(at, full) < node:  # the last one is not full
            kinds.append((full, 1, (((), own.gpus % own.per_node),)))
        if node < nodes:
            ids = range(node * own.per_node, min(own.gpus, (node + 1) * own.per_node))
            runs = tuple((key, len(list(same))) for key, same in groupby(of_gpu.get(g, ()) for g in ids))
            kinds.append((node, 1, runs))
        at = node + 1
    for _, same in groupby(kinds, key=lambda kind: kind[2]):
        alike = list(same)
        yield alike[0][0], sum(count for _, count, _ in alike), alike[0][2]


def _node(runs: Runs, per_node: int, y: float, colours: dict[Phases, int]) -> list[Markup]:
    room = FRAME - LABEL - PAD
    each = min(room / per_node, 26.0)
    out = []
    x = float(LABEL)
    for phases, count in runs:
        look = f"p{colours[phases]}" if phases else "box"
        hint = title(f"{count} GPU{'s' if count > 1 else ''}: {listed(phases) if phases else 'no phase'}")
        if each >= 6:
            out += [rect(x + k * each, y + 2, each - 2, ROW - 6, look, hint) for k in range(count)]
        else:
            out.append(rect(x, y + 2, max(1.0, count * each - 0.5), ROW - 6, look, hint))
        x += count * each
    return out


def _held(pool: Pool) -> str:
    gpus = f"{len(pool.gpus)} GPU{'s' if len(pool.gpus) > 1 else ''}"
    held = f"{show(pool.peak_B, BYTES, 3)} of {show(pool.capacity_B, BYTES, 3)}"
    return f"{listed(pool.phases)}: {gpus}, the fullest holds {held} ({pool.fraction:.0%})"


def _links(plan: CompiledPlan, links: list[PoolLink], middles: dict[str, float]) -> list[Markup]:
    """A bracket at the right of both frames for each link, and beside them what each carries."""
    x = FRAME + 14 + 8.0 * len(links) + 8
    low = 0.0
    out = []
    for lane, link in enumerate(links):
        a, b = (middles[name] + 6 * lane - 3 * (len(links) - 1) for name in link.pools)
        turn = FRAME + 14 + 8.0 * lane
        path = tag("path", d=f"M{FRAME} {a:.0f}H{turn:.0f}V{b:.0f}H{FRAME}", cls="edge")
        said = [f"{show(link.bandwidth_Bps, BYTE_RATE)} per GPU, {show(link.latency_s, TIME)}", *_carried(plan, link)]
        y = max(low, (a + b) / 2 - 7 * len(said))
        texts = [words(x, y + 10, " to ".join(link.pools), "strong small")]
        texts += [
            words(x, y + 24 + 14 * k, text, "soft small", room=LANE - 8 * len(links) - 30, size=SMALL)
            for k, text in enumerate(said)
        ]
        low = y + 14 * (1 + len(said)) + 8
        out.append(tag("g", title(f"{' to '.join(link.pools)}: {', '.join(said)}"), join([path, *texts])))
    return out


def _carried(plan: CompiledPlan, link: PoolLink) -> Iterator[str]:
    """The cache of a sequence of each prefill that goes over it."""
    for name, result in plan.phases.items():
        sent = plan.subject(name).transfer
        if sent is not None and result.hardware in link.pools:
            to = plan.subject(name).receiver
            if to is not None and {result.hardware, to.hardware} == set(link.pools):
                yield f"{name} → {to.name}: {show(sent[0], BYTES, 3)} in {show(sent[1], TIME, 3)}"
