"""Faults for a process of `dagc run`: a collective that is left out, one too many, and a rank that comes late to one."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from dagc.execute.torch.rank import Rank


def name(rank: Rank, place: Any) -> str:
    segment, layer, op = place
    return f"{rank.shards.graph.layer_name(segment.name, layer)}/{op.name}"


def put_in(faults: dict[str, Any]) -> None:
    """`faults`: {"removed": OP, "added": OP, "delayed": [OP, RANK, SECONDS]}."""
    collective, around = Rank.collective, Rank.around

    def without(self: Rank, place: Any, operands: Any) -> Any:
        return operands if name(self, place) == faults["removed"] else collective(self, place, operands)

    def with_more(self: Rank, place: Any, step: Any) -> Any:
        """An all-reduce of 7 numbers before an op; and a rank that comes late to another."""
        if name(self, place) == faults["added"]:
            dist.all_reduce(torch.ones(7))
        late, rank, seconds = faults["delayed"]
        if name(self, place) == late and self.ranks.rank == rank:
            time.sleep(seconds)
        return around(self, place, step)

    Rank.collective = without  # type: ignore[method-assign]
    Rank.around = with_more  # type: ignore[method-assign]
