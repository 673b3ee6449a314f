"""The fewest insertions and deletions that make one sequence of another. Algorithm: Myers, "An O(ND) difference algorithm and its variations",
Algorithmica 1 (1986)."""

from __future__ import annotations

from collections.abc import Sequence

MOST_EDITS = 600
"""Beyond these the sequences are of different programs."""


def aligned(planned: Sequence[int], seen: Sequence[int], free: int = 0) -> list[tuple[int, int]] | None:
    """Pairs (index of planned, index of seen) of what is the same in both, in order. None: more than MOST_EDITS differences.
    Up to `free` of the first ones planned, and any number of the last, may be absent at no cost: `seen` begins and ends in the middle."""
    n, m = len(planned), len(seen)
    # Diagonal k = x - y. reach[k]: the largest x reached on it. A path may begin at any x up to `free` on y = 0.
    history: list[dict[int, int]] = []
    reach: dict[int, int] = {k: k for k in range(min(free, n) + 1)}
    for edits in range(min(MOST_EDITS, n + m) + 1):
        if edits:
            before, reach = reach, {}
            for k in {key + step for key in before for step in (-1, 1)} | before.keys():
                x = max(before.get(k - 1, -2) + 1, before.get(k + 1, -1), before.get(k, -1))
                if 0 <= x <= n and 0 <= x - k <= m:
                    reach[k] = x
        history.append(dict(reach))
        for k, x in reach.items():
            y = x - k
            while x < n and y < m and planned[x] == seen[y]:
                x, y = x + 1, y + 1
            reach[k] = x
        ends = [k for k, x in reach.items() if x - k == m and (free or x == n)]
        if ends:
            return _pairs(history, reach, max(ends, key=lambda k: -reach[k]), planned, seen)
    return None


def beside(planned: Sequence[int], pairs: Sequence[tuple[int, int]], seen: int) -> list[tuple[int, int]]:
    """Pairs of as many, in which what is absent of `planned` is where something else is seen in its place, if neighbours that are equal to it
    allow: of `a b b c` and `a X b c` the first b, not the second. `seen`: how many."""
    out = [(-1, -1), *pairs, (len(planned), seen)]
    for at in range(1, len(out)):
        for step in (-1, 1):
            _slide(planned, out, at, step)
    return out[1:-1]


def _slide(planned: Sequence[int], pairs: list[tuple[int, int]], at: int, step: int) -> None:
    """Moves what is absent alone before pair `at` along its equals, if that is how it gets to a place where more is seen than planned."""
    (x, y), (before, behind) = pairs[at], pairs[at - 1]
    if x - before != 2 or y - behind != 1:
        return
    absent, k = x - 1, at - 1 if step < 0 else at
    while 0 < k < len(pairs) - 1 and pairs[k][0] == absent + step and planned[absent + step] == planned[absent]:
        absent += step
        other = k + step
        if abs(pairs[other][1] - pairs[k][1]) > 1 and abs(pairs[other][0] - absent) == 1:
            for i in range(at - 1, k - 1, -1) if step < 0 else range(at, k + 1):
                pairs[i] = (pairs[i][0] - step, pairs[i][1])
            return
        k = other


def _pairs(
    history: list[dict[int, int]], last: dict[int, int], k: int, planned: Sequence[int], seen: Sequence[int]
) -> list[tuple[int, int]]:
    """Back from the end on diagonal k: along each diagonal what is equal, then the step that led there."""
    out: list[tuple[int, int]] = []
    x = last[k]
    for edits in range(len(history) - 1, -1, -1):
        begin = history[edits][k]
        while x > begin:
            x -= 1
            out.append((x, x - k))
        if not edits:
            break
        x, k = _before(history[edits - 1], planned, seen, begin, k)
    out.reverse()
    return out


def _before(starts: dict[int, int], planned: Sequence[int], seen: Sequence[int], x: int, k: int) -> tuple[int, int]:
    """The furthest point of the round before from which one step leads to (x, k)."""
    for old, moved in ((k - 1, x - 1), (k + 1, x), (k, x)):
        if old in starts:
            at = starts[old]
            while at < len(planned) and at - old < len(seen) and planned[at] == seen[at - old]:
                at += 1
            if at == moved:
                return moved, old
    raise AssertionError("no step leads there")
