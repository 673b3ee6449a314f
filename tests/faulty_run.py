"""`dagc run` with faults put in, for tests: one process of a job, started as torchrun would.

python tests/faulty_run.py '{"removed": OP, "added": OP, "delayed": [OP, RANK, SECONDS]}' ARGUMENTS OF DAGC
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from dagc.cli import main
from dagc.execute.torch.rank import Rank

faults: dict[str, Any] = json.loads(sys.argv[1])
collective, around = Rank.collective, Rank.around


def name(rank: Rank, place: Any) -> str:
    segment, layer, op = place
    return f"{rank.shards.graph.layer_name(segment.name, layer)}/{op.name}"


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
sys.exit(main(sys.argv[2:]))
