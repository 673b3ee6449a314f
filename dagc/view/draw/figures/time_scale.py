"""Moments across a figure: from the begin to the end, or with a break where what repeats is left out."""

from __future__ import annotations

from collections.abc import Iterable

from ....base.frozen import record
from .markup import Markup, tag, width
from .svg import line, moment_text, ticks, words

BREAK = 34.0
"""Pixels of what is left out."""
PAST = 8.0
"""Pixels behind the end where a time may still stand: a heading of what is beside the rows is next."""


@record
class Piece:
    """Moments from `start_s` to `end_s` between two places."""

    start_s: float
    end_s: float
    left: float
    right: float

    def at(self, moment_s: float) -> float:
        span_s = self.end_s - self.start_s
        return self.left + (moment_s - self.start_s) / span_s * (self.right - self.left) if span_s else self.left


@record
class TimeScale:
    """One piece, or two with a break between."""

    pieces: tuple[Piece, ...]

    @staticmethod
    def of(end_s: float, left: float, room: float, cut: tuple[float, float] | None = None) -> TimeScale:
        """`cut`: from and to which moment nothing is drawn."""
        if cut is None:
            return TimeScale((Piece(0.0, end_s, left, left + room),))
        first_s, last_s = cut
        each = (room - BREAK) / (first_s + end_s - last_s)
        middle = left + first_s * each
        return TimeScale((Piece(0.0, first_s, left, middle), Piece(last_s, end_s, middle + BREAK, left + room)))

    @property
    def end(self) -> float:
        return self.pieces[-1].right

    @property
    def middle(self) -> float:
        """Of the break."""
        return (self.pieces[0].right + self.pieces[-1].left) / 2

    @property
    def shown_s(self) -> float:
        """Seconds that are drawn."""
        return sum(piece.end_s - piece.start_s for piece in self.pieces)

    def spans(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Where a stretch of time is: (left edge, width), in each piece that has some of it."""
        found = []
        for piece in self.pieces:
            a, b = max(start_s, piece.start_s), min(end_s, piece.end_s)
            if b > a or (start_s == end_s and a == b):
                found.append((piece.at(a), piece.at(b) - piece.at(a)))
        return found

    def whole(self, start_s: float, end_s: float) -> bool:
        """Whether all of a stretch is drawn."""
        return any(piece.start_s <= start_s and end_s <= piece.end_s for piece in self.pieces)

    def axis(self, top: float, bottom: float) -> list[Markup]:
        """Lines at round moments with their times above, as many as there is room for, and the sign of a break."""
        out: list[Markup] = []
        steps = ticks(self.shown_s, 9)
        step = steps[1] if len(steps) > 1 else self.shown_s
        last = -1e9
        for piece in self.pieces:
            for moment in ticks_between(piece, step):
                x = piece.at(moment)
                out.append(line(x, top - 6, x, bottom, "grid"))
                said = moment_text(moment, step if len(self.pieces) > 1 else 0.0)
                half = width(said) * 0.55 + 4
                middle = min(x, self.end + PAST - half)
                if middle - half > last:
                    out.append(words(middle, top - 10, said, "soft mid"))
                    last = middle + half
        return out

    def broken(self, top: float, bottom: float) -> list[Markup]:
        """Two wavy edges over the whole height, where there is a break."""
        if len(self.pieces) < 2:
            return []
        a, b = self.pieces[0].right, self.pieces[1].left
        steps = max(1, round((bottom - top) / 8))
        wave = "".join(f"l{3 if k % 2 == 0 else -3} {(bottom - top) / steps:.2f}" for k in range(steps))
        edges = (tag("path", d=f"M{x:.1f} {top:.1f}{wave}", cls="torn") for x in (a + 4, b - 7))
        return list(edges)


def ticks_between(piece: Piece, step_s: float) -> Iterable[float]:
    """Multiples of a step in a piece."""
    if step_s <= 0:
        return [piece.start_s]
    first = -(-piece.start_s // step_s)
    count = int((piece.end_s - first * step_s) / step_s * (1 + 1e-9)) + 1
    return [(first + k) * step_s for k in range(max(0, count))]
