"""Trees of drafted tokens: how many candidates follow each node, by depth, and what of them is accepted on average.

A tree `(4, 2, 1)` has 4 candidates for the next token, 2 behind each of them, and 1 behind each of those: 4 + 8 + 8 nodes (the Cartesian
tree of Medusa, arXiv 2401.10774, section 2.1.2). A chain of drafts is a tree of ones. Nodes are numbered by depth, and in one depth by their
parent; the root, which is no draft, is number 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul

MOST_NODES = 1000
MOST_DEPTHS = 100
_WORD = re.compile(r"[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){0,99}")

Chances = tuple[tuple[float, ...], ...]
"""By depth, of each candidate behind a node by its rank: that it is the token which the model would have made."""


def levels(tree: Sequence[int]) -> tuple[int, ...]:
    """Nodes of each depth, the root's 1 first."""
    return tuple(accumulate(tree, mul, initial=1))


def nodes(tree: Sequence[int]) -> int:
    """Drafted tokens of a tree."""
    return sum(levels(tree)[1:])


def depths(tree: Sequence[int]) -> list[int]:
    """Of every node, the root included."""
    return [depth for depth, count in enumerate(levels(tree)) for _ in range(count)]


def parents(tree: Sequence[int]) -> list[int]:
    """Number of the node before each node; the root is its own."""
    found, first = [0], 0
    for depth, width in enumerate(tree):
        count = levels(tree)[depth]
        found += [first + node // width for node in range(count * width)]
        first += count
    return found


def lineage(tree: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(node, each node that it comes from, itself included)."""
    before = parents(tree)
    for node in range(len(before)):
        at = node
        yield node, at
        while at:
            at = before[at]
            yield node, at


def word(tree: Sequence[int]) -> str:
    """`4x2x1`, as attributes of ops have it; nothing for no tree."""
    return "x".join(map(str, tree))


def of_word(text: str) -> tuple[int, ...]:
    """The tree of such a word. ValueError where it is none, or has too many nodes."""
    if not text:
        return ()
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} is no tree: 4x2x1")
    found = tuple(int(part) for part in text.split("x"))
    if nodes(found) > MOST_NODES:
        raise ValueError(f"a tree of {nodes(found)} tokens: {MOST_NODES} at most")
    return found


def is_tree(text: str) -> bool:
    try:
        return bool(of_word(text))
    except ValueError:
        return False


def reached(tree: Sequence[int], chances: Chances) -> tuple[float, ...]:
    """Chance that an accepted path is at least so deep, of each depth from 1 on: some candidate of it was right, and of all before it.
    `chances` beyond the tree's depth or width are those of candidates that are not drafted."""
    right = (sum(own[:width]) for width, own in zip(tree, chances, strict=False))
    return tuple(accumulate(right, mul))


def expected_tokens(reached: Sequence[float]) -> float:
    """Tokens that a step brings on average: its own, and one for each depth that is reached (the sum over nodes of the product of
    the chances on the way to them: Medusa, section 2.3.3; for one chance of all, (1 - a^(n+1)) / (1 - a): arXiv 2211.17192, equation 1)."""
    return sum((1.0, *reached))


def spread(reached: Sequence[float]) -> float:
    """Variance of the tokens of a step."""
    mean = expected_tokens(reached)
    # P(tokens > i) is `reached[i - 1]`, so E[tokens^2] = 1 + the sum of (2 i + 1) of it
    return 1.0 + sum((2 * i + 1) * chance for i, chance in enumerate(reached, start=1)) - mean * mean


def in_turn(chance: float, width: int) -> tuple[float, ...]:
    """Of candidates by rank, each accepted with one chance where none before it was (independent drafts, tried one after the other:
    arXiv 2305.09781)."""
    return tuple(chance * (1.0 - chance) ** rank for rank in range(width))
