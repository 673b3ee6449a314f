"""Routed rows between ranks: each member of a group gets the rows, and the part of each, that the result's layout gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.collectives import REDUCTIONS
from ...ir.op import Op
from ...ir.segment import Segment
from ..failure import Wrong
from ..shards import Coordinates, Shards
from ..values import Floats, Ints, Ragged

AGREE = 1e-9
"""Largest difference between copies of one block, relative to its largest value."""


def move_rows(
    shards: Shards, segment: Segment, op: Op, ranks: Sequence[Coordinates], values: Sequence[Ragged],
    takers: Sequence[Coordinates] | None = None,
) -> list[Ragged]:  # fmt: skip
    """What each member of a group has after a collective (or a slice: a group of one) on routed rows. `takers`: who gets them, if
    not the members. Raises Wrong."""
    have, got = segment.sharding_of(op.inputs[0]), op.sharding
    assert have is not None and got is not None
    rows, offset = shards.rows(segment, op.inputs[0]), shards.offset
    code = [rows.code(value.physical, value.keys, offset) for value in values]
    codes, first = np.unique(np.concatenate(code), return_index=True)
    owner = np.concatenate([value.physical for value in values])[first]
    labels = np.concatenate([value.keys for value in values])[first]
    inner = [int(segment.size(d, "experts")) for d in rows.inner(op.dims)]
    total, seen = np.zeros((len(codes), *inner)), np.zeros((len(codes), *inner), dtype=np.int64)
    for rank, at, value in zip(ranks, code, values, strict=True):
        place: Any = (np.searchsorted(codes, at), *rows.box(op.dims, have, rank))
        if op.kind == "permute" or op.is_across:  # of ranks with the same rows any one sends
            _agree(op, value.data, total[place], seen[place])
            total[place], seen[place] = value.data, 1
            continue
        total[place] += value.data
        seen[place] += 1
    wanted = shards.mesh.size(op.axes) if op.kind in REDUCTIONS else 1
    if (seen > wanted).any():
        raise Wrong(f"{op.name}: two members of a group send the row of one token")
    out = []
    for rank in ranks if takers is None else takers:
        experts, box = rows.experts(op.dims, got, rank), rows.box(op.dims, got, rank)
        mine = (owner >= experts.start) & (owner < experts.stop) & rows.mine(op.dims, got, rank, labels, offset)
        where: Any = (mine, *box)
        if (seen[where] != wanted).any():
            raise Wrong(f"{op.name}: a rank needs what no member of its group has")
        out.append(Ragged(owner[mine], labels[mine], total[where], experts))
    return out


def _agree(op: Op, block: Floats, other: Floats, seen: Ints) -> None:
    """Copies of a row are one and the same."""
    apart = float(np.abs(np.where(seen > 0, block - other, 0.0)).max(initial=0.0))
    if apart > AGREE * float(np.abs(block).max(initial=0.0)):
        raise Wrong(f"{op.name}: members of a group have different values of one row")
