"""Sizes of the twin of a mixed step: few sequences of each part and few tokens of each, so that packed rows keep their splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Protocol

from ..base.frozen import record
from ..base.phase_kinds import DECODE, SAMPLED
from ..ir.graph import Graph
from ..ir.naming import size_key
from ..ir.ops.packing import sequences_of_rank

MORE = 40
"""So many tokens more than a prompt needs may make packed rows as even, or uneven, as the plan's are."""


class Splits(Protocol):
    """What is asked of the twin's other sizes (`Shrinker`)."""

    splits: dict[tuple[str, int], set[int]]
    degrees: list[int]

    @property
    def fewest_experts(self) -> int:
        """Physical ones of the twin, where the plan has more tokens than of its own; else 0."""

    def parts(self, *keys: tuple[str, int]) -> set[int]: ...

    def fit(self, dim: str, size: int, base: int, parts: Iterable[int]) -> int: ...


@record
class PartSizes:
    """Of a part: sequences of a packed row, tokens of each, and context."""

    scope: str
    each: int
    seq: int
    context: int


def packed_sizes(found: Splits, plan: Graph) -> Mapping[tuple[str, int], int]:
    """The plan's sizes of a mixed step by (key of the segment's sizes, size) -> the twin's."""
    head = plan.head
    ranks = int(head.sizes["batch"])
    few = found.fit("batch", ranks, min(ranks, 2), found.parts(("batch", ranks)))
    whole = [
        PartSizes(part, sequences_of_rank(head, part), int(head.size("seq", part)), int(head.size("context", part)))
        for part in head.parts
    ]
    sampled = all_tokens_sampled(plan)
    least = found.fewest_experts // few + 1 if found.fewest_experts else 0
    small = next(
        one for one in (*choices(whole, branches(plan)), whole)
        if rows(one) >= min(least, rows(whole)) and all(_as_even(found, key, a, b) for key, a, b in (
            ("seq", rows(whole), rows(one)), (size_key(SAMPLED, "seq"), rows(whole, sampled), rows(one, sampled)),
        ))
    )  # fmt: skip
    known = {("batch", ranks): few, ("seq", rows(whole)): rows(small)}
    known[size_key(SAMPLED, "seq"), rows(whole, sampled)] = rows(small, sampled)
    for one, part in zip(small, whole, strict=True):
        known[size_key(part.scope, "batch"), ranks * part.each] = few * one.each
        known[size_key(part.scope, "seq"), part.seq] = one.seq
        known[size_key(part.scope, "context"), part.context] = one.context
    return known


def branches(plan: Graph) -> bool:
    """Whether drafted tokens are a tree, which a twin has whole."""
    return any(getattr(op.attrs, "tree", "") for segment in plan.segments for op in segment.ops)


def choices(whole: list[PartSizes], branched: bool) -> Iterator[list[PartSizes]]:
    """Small sizes, the smallest first: two sequences of a part where it has more than one, two tokens of a sequence in decode
    with drafts, a few of a prompt, and room for tokens before where there are some."""
    most = max(range(len(whole)), key=lambda i: whole[i].each)
    fewest = min(range(len(whole)), key=lambda i: whole[i].each)
    for longer, wider in dict.fromkeys(((len(whole) - 1, 0), (fewest, most))):
        for more, further in product(range(MORE), range(3)):
            found = []
            for i, part in enumerate(whole):
                decodes = part.scope == DECODE.name
                few = 2 if decodes else 3 + i + (more if i == longer else 0)
                seq = part.seq if decodes and branched else min(part.seq, few)
                context = seq if part.seq == part.context else min(part.context, seq + 5)
                found.append(PartSizes(part.scope, min(part.each, 2 + (further if i == wider else 0)), seq, context))
            yield found


def rows(parts: Iterable[PartSizes], all_tokens: Mapping[str, bool] | None = None) -> int:
    """Of a packed row: all tokens, or of parts that have not `all_tokens` one a sequence."""
    return sum(p.each * (p.seq if all_tokens is None or all_tokens.get(p.scope, False) else 1) for p in parts)


def all_tokens_sampled(plan: Graph) -> dict[str, bool]:
    """Of each part whether all of its tokens are sampled: drafts are."""
    for segment in plan.segments:
        for op in segment.ops:
            if op.kind == "pack" and op.scope == SAMPLED:
                return {segment.scope_of(name): "seq" in segment.dims_of(name) for name in op.inputs}
    return {}


def _as_even(found: Splits, dim: str, size: int, small: int) -> bool:
    """Whether what divides, and what does not, is the same."""
    uneven = {p for p in (*found.degrees, *found.splits.get((dim, size), ())) if size % p}
    return all(small % p == 0 for p in found.parts((dim, size))) and all(small % p for p in uneven)
