"""What a bound's pieces depend on: rows of equal keys have the same piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...base.axes import AXES, DATA, EXPERT, EXPERT_TENSOR, SEQUENCE, STAGES, TENSOR
from .objectives import Floats
from .rules import PARTS, Facts
from .space import Flags, Ints, Pause, Rows, packed

IN_KEYS = {
    "gpus", STAGES, "replicas", DATA, SEQUENCE, TENSOR, EXPERT, "attention.dp", "attention.sp", "attention.tp", "experts.ep", "experts.tp",
    "microbatches", "overlap", "dispatch", "sp_method", "sequence_parallel", "sequences", "dcp",
    "stages", "schedule", "virtual", "recompute", "zero", "grad_overlap", "exchange_overlap",
}  # fmt: skip
"""Choices that enter keys by what they do; all others enter as they are."""


def usable(rows: Rows, facts: Facts) -> bool:
    """Whether bounds are known of such rows: mixed steps and drafters have pieces of their own."""
    paths = {d.path for d in rows.domains}
    return (
        not paths & {*PARTS}
        and not facts.phase.parts
        and facts.phase.drafter == "none"
        and not facts.phase.strategy.passes
    )


Key = tuple[Sequence[Ints | Floats], Ints | Floats, bool]
"""Columns that must be equal, tokens, and whether a piece of fewer tokens says something of more."""


def keys(rows: Rows, facts: Facts, each: Ints, strides: Mapping[int, int] | None = None) -> list[Key]:
    """Of ops of attention, moves before the experts, ops of experts, moves from there on, and ops that take tokens there and back; of what is
    stored, weights outside of experts with the cache, and experts.

    Which chains of moves there are follows from where axes are cut: by the groups of both sides, by dcp, and by heads (`strides`). Ranks of
    tp and of sp have the same tokens of a decode step, so of these axes the cuts alone matter to moves from the experts on."""
    count = len(rows)

    def column(name: str) -> Ints:
        return np.broadcast_to(rows.number(name), (count,))

    dp, sp, tp, ep = (column(name) for name in (DATA, SEQUENCE, TENSOR, EXPERT))
    etp, copies, stages, gpus = (column(name) for name in (EXPERT_TENSOR, "replicas", STAGES, "gpus"))
    if not facts.folded:
        # Experts have their own factor between those of the batch and the sequence.
        dp = dp * ep
    prompts = np.full(count, not facts.phase.generates)
    words = {
        "sp_method": (sp > 1) & prompts,
        "sequence_parallel": (tp > 1) & prompts,
        "dispatch": ep > 1,
        "dcp": (tp > 1) & ~prompts,
    }
    method, residual, dispatch, dcp = (_word(rows, name, matters) for name, matters in words.items())
    inner = ep * etp
    dense = tp * sp
    data = np.maximum(inner // dense, 1)
    batch = column("sequences")
    groups = np.maximum(dp * copies // data, 1)
    room = np.maximum(each * dp * copies // groups, 1)
    share = np.minimum(room, -(-batch // groups)) / room
    others = [p for p, d in zip(rows.places, rows.domains, strict=True) if d.path not in IN_KEYS]
    nodes = [np.full(count, own.per_node) for own in facts.pools.values()]
    powers = np.ones(count, dtype=bool)
    for one in (dp, sp, tp, ep, etp, copies, stages, *nodes):
        powers &= (one & (one - 1)) == 0
    plain = facts.phase.strategy.place is None and facts.phase.strategy.order == tuple(AXES) and facts.folded
    everything = [gpus, stages, copies, dp, ep]
    place = [np.where(powers & plain, 0, one) for one in everything]
    attention = [sp, tp, dcp, method, residual, *others]
    cut = etp | inner | tp | dense | column("dcp")
    if strides is None:
        ends = [tp, sp]
    else:
        cut = cut | np.vectorize(strides.__getitem__, otypes=[np.int64])(tp)
        ends = []
    # Strides are flags where all of them are powers of two.
    cuts = [
        np.where(powers, cut & (2 * dense - 1), -1),
        *(np.where(powers, 0, one) for one in (np.minimum(etp, dense), np.minimum(inner, dense))),
    ]
    sent = np.broadcast_to(rows.is_("dispatch", "all_to_all"), (count,)) & (ep > 1) & (inner > dense)
    uneven = [np.where(powers, 0, one) for one in (tp, sp, dcp)]
    if facts.phase.generates:
        routed, tokens = [ep, etp, sent.astype(np.int64), share, *others], each * data
    else:
        # Of a prompt, ranks of sp have different tokens, and so have ranks of tp where the residual stream is split.
        split = np.broadcast_to(rows.is_("sequence_parallel", True), (count,))
        near = np.minimum(inner, dense)
        here = np.where(split, near, np.maximum(near // tp, 1))
        routed = [ep, etp, dispatch, share, here * data, *others]
        tokens = each * data * here / np.where(split, dense, sp)
    layout = [ep, etp, dispatch, share, dp * copies, sp, tp, dcp, method, residual, *others, *place]
    regular = plain and facts.folded
    moved = layout
    if regular:
        apart = [] if facts.phase.generates else [tp, sp, residual]
        moved = [ep, etp, dispatch, share, data, dense, *apart, *ends, *cuts, *uneven, *others, *place]
    return [
        (attention, each, True),
        ([*attention, *cuts, *place], each, False),
        (routed, tokens, True) if regular else (layout, each, True),
        (moved, each, False),
        (moved, each, True),
        (moved, each, False),
        ([*attention, *cuts[1:], *uneven, *place], each, True),
        ([ep, etp, *others] if regular else layout, np.zeros(count), False),
    ]


def _word(rows: Rows, name: str, matters: Flags) -> Ints:
    at = next((k for k, d in enumerate(rows.domains) if d.path == name), None)
    found = rows.places[at] if at is not None else np.zeros(len(rows), dtype=np.int64)
    return np.where(matters, found, -1)


def numbered(columns: Sequence[Ints | Floats], pause: Pause) -> Ints:
    """Equal rows of columns have equal numbers, from zero. Raises Late."""
    whole = [
        c if np.issubdtype(c.dtype, np.integer) else np.unique(c, return_inverse=True)[1]
        for c in map(np.asarray, columns)
    ]
    number = packed([column.astype(np.int64, copy=False) for column in whole], pause)
    pause()
    return np.unique(number, return_inverse=True)[1].astype(np.int64, copy=False)
