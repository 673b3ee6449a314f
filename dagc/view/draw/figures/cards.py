"""The stages of a phase as cards: what each holds, needs and takes, and what it sends to the next."""

from __future__ import annotations

import itertools

from ....base.frozen import record
from ....base.units import show_runs
from ....cost.footprint import StageMemory
from ....ir.requests import request_moves
from ....plan.result import PhaseResult
from ..dot import COLORS, identifier
from ..overview import (
    Card,
    collectives_of,
    columns,
    contents,
    gpus_of,
    handed_on,
    held_parts,
    is_slowest,
    layers_of,
    layers_text,
    memory_text,
    name_of,
    pool_of,
    requests_of,
    shown_cards,
    sizes,
    time_text,
)
from .looks import SMALL
from .markup import BOLD, Markup, fit, join, tag, width, wrapped
from .svg import Figure, Keys, figure, rect, title, words

CARD, PAD, LINE, BAR = 404.0, 12.0, 17.0, 9.0
DOWN, ACROSS = 44.0, 96.0


@record
class CardPlace:
    """The upper left corner of a card, and how high it is."""

    x: float
    y: float
    height: float


def draw(result: PhaseResult) -> Figure:
    """A few stages one below the other, many in rows that are read like a text."""
    shown = shown_cards(result)
    across = columns(shown)
    lines = [_chips(result, card) for card in shown]
    places: list[CardPlace] = []
    y = 0.0
    for start in range(0, len(shown), across):
        row = slice(start, start + across)
        height = max(_height(result, c, chips) for c, chips in zip(shown[row], lines[row], strict=True))
        places += [CardPlace(k * (CARD + ACROSS), y, height) for k in range(len(shown[row]))]
        y += height + DOWN
    body = [_card(result, card, chips, place) for card, chips, place in zip(shown, lines, places, strict=True)]
    for (a, source), (b, target) in itertools.pairwise(zip(shown, places, strict=True)):
        key = identifier(result.name, name_of(result, a), "to", name_of(result, b))
        body.append(_send(handed_on(result, a, b), key, source, target))
    wide = CARD + (across - 1) * (CARD + ACROSS)
    return figure("overview", wide + 2, y - DOWN + 2, f"{len(result.graph.stages)} stages of {result.name}", *body)


def keys(result: PhaseResult) -> Keys:
    """Parts of the memory that are held, and collectives that are drawn."""
    parts = held_parts(result)
    kinds = {op.runtime_kind for s in result.graph.segments for op in s.ops}
    kinds |= {"send"} if len(result.graph.stages) > 1 else set()
    kinds |= {move.kind for move in request_moves(result.graph)}
    return [*parts, *((f"k-{k}", k) for k in COLORS if k in kinds)]


def _chips(result: PhaseResult, card: Card) -> list[list[tuple[str, str]]]:
    """The collectives of a layer of each kind, in lines of (kind, words)."""
    lines: list[list[tuple[str, str]]] = []
    for name in layers_of(result.seats[card[0]]):
        counts = collectives_of(result, name, result.seats[card[0]].on)
        if not counts:
            continue
        lines.append([("", f"{name}:")])
        x = width(f"{name}:", 12)
        for (kind, over), n in counts.items():
            chip = f"{n} {kind}({over})"
            need = width(chip, 12) + 28
            if x + need > CARD - 2 * PAD:
                lines.append([])
                x = 16.0
            lines[-1].append((kind, chip))
            x += need
    ends = [(kind, f"{kind}({over})") for kind, over in requests_of(result, card)]
    return [*lines, [("", "requests:"), *ends]] if ends else lines


def _height(result: PhaseResult, card: Card, chips: list[list[tuple[str, str]]]) -> float:
    parts = len(_held(result.memory.stages[card[0]]))
    return PAD * 2 + LINE * (3 + len(_heads(result, card)) + len(chips)) + BAR + 6 + 13 * parts


def _heads(result: PhaseResult, card: Card) -> list[str]:
    """Which stages, and their layers."""
    each = " each" if len(card) > 1 else ""
    return wrapped(
        f"{name_of(result, card)}: {layers_text(result.seats[card[0]])}{each}", (CARD - 2 * PAD) / BOLD, 12, 3
    )


def _card(result: PhaseResult, card: Card, chips: list[list[tuple[str, str]]], place: CardPlace) -> Markup:
    x, y = place.x, place.y
    memory = result.memory.stages[card[0]]
    room = CARD - 2 * PAD
    peak = memory_text(memory)
    top = [
        *((line, "strong") for line in _heads(result, card)),
        (f"GPU {show_runs(gpus_of(result, card), most=6)}{pool_of(result, card)}", ""),
        (time_text(result, card[0]), "late" if is_slowest(result, card[0]) else ""),
    ]
    parts: list[Markup] = [rect(x, y, CARD, place.height, "box", rx=8)]
    at = y + PAD
    for text, look in top:
        parts.append(words(x + PAD, at + 11, text if look == "strong" else fit(text, room, 12), look))
        at += LINE
    for line in chips:
        parts += _line(line, x + PAD, at)
        at += LINE
    parts += [words(x + PAD, at + 11, fit(peak, room, 12)), *_bar(memory, memory.capacity_B, x + PAD, at + LINE)]
    at += LINE + BAR + 6
    for k, said in enumerate(_held(memory)):
        parts.append(words(x + PAD, at + 11 + 13 * k, said, "small"))
    hint = "; ".join([*(text for text, _ in top), peak, *_held(memory)])
    return tag("g", title(hint), join(parts), id=identifier(result.name, name_of(result, card)), cls="node")


def _held(memory: StageMemory) -> list[str]:
    """What the bar holds, in one or two lines."""
    return wrapped(contents(memory), CARD - 2 * PAD, SMALL, 2)


def _line(line: list[tuple[str, str]], x: float, y: float) -> list[Markup]:
    out = []
    x += 0.0 if line and not line[0][0] else 16.0
    for kind, text in line:
        if kind:
            out.append(rect(x, y + 2, 10, 10, f"k-{kind}"))
            x += 14
        out.append(words(x, y + 11, text))
        x += width(text, 12) + (14 if kind else 8)
    return out


def _bar(memory: StageMemory, capacity_B: float, x: float, y: float) -> list[Markup]:
    """What a GPU holds against its capacity; even the smallest part is visible."""
    room = CARD - 2 * PAD
    out = [rect(x, y, room, BAR, "trough")]
    scale = room / max(capacity_B, memory.peak_B)
    for k, size in enumerate(sizes(memory)):
        if size > 0:
            w = max(1.0, size * scale)
            out.append(rect(x, y, w, BAR, f"p{k}"))
            x += w
    return out


def _send(handed: tuple[list[str], int, str], key: str, source: CardPlace, target: CardPlace) -> Markup:
    """An arrow to the next card: down, to the right, or down to the beginning of the next row."""
    said, missing, kind = handed
    said += [f"{missing} more stages"] if missing else []
    if source.y == target.y:
        a, b, m = source.x + CARD, target.x, source.y + source.height / 2
        path, point = (
            f"M{a:.0f} {m:.0f}H{b - 7:.0f}",
            f"M{b - 8:.0f} {m - 4:.0f}L{b:.0f} {m:.0f}L{b - 8:.0f} {m + 4:.0f}z",
        )
        texts = [
            words((a + b) / 2, m - 18 + 13 * k + (24 if k else 0), t, "soft small mid") for k, t in enumerate(said)
        ]
    else:
        a, b, low, v = source.x + CARD / 2, target.x + CARD / 2, source.y + source.height, target.y
        bend = "" if a == b else f"V{low + DOWN / 2:.0f}H{b:.0f}"
        path = f"M{a:.0f} {low:.0f}{bend}V{v - 7:.0f}"
        point = f"M{b - 4:.0f} {v - 8:.0f}L{b:.0f} {v:.0f}L{b + 4:.0f} {v - 8:.0f}z"
        texts = [words(a + 10, low + DOWN / 2 + 4 if a == b else low + 14, ", ".join(said), "soft small")]
    arrow = [tag("path", d=path, cls="edge sent"), tag("path", d=point, cls=f"k-{kind}")]
    return tag("g", title(", ".join(said)), join([*arrow, *texts]), id=key)
