"""Faults for a process of `dagc run`: a collective that is left out, one too many, a rank that comes late to one; and of a training step
what an engine may get wrong between its cells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from dagc.execute.torch.rank import Rank


def name(rank: Rank, place: Any) -> str:
    segment, layer, op = place
    return f"{rank.shards.graph.layer_name(segment.name, layer)}/{op.name}"


def put_in(faults: dict[str, Any]) -> None:
    """`faults`: {"removed": OP, "added": OP, "delayed": [OP, RANK, SECONDS], "step": one of STEP}, as many of them as wanted."""
    collective, around = Rank.collective, Rank.around

    def without(self: Rank, place: Any, operands: Any) -> Any:
        return operands if name(self, place) == faults.get("removed") else collective(self, place, operands)

    def with_more(self: Rank, place: Any, step: Any) -> Any:
        """An all-reduce of 7 numbers before an op; and a rank that comes late to another."""
        if name(self, place) == faults.get("added"):
            dist.all_reduce(torch.ones(7))
        late, rank, seconds = faults.get("delayed", ("", 0, 0))
        if name(self, place) == late and self.ranks.rank == rank:
            time.sleep(seconds)
        return around(self, place, step)

    Rank.collective = without  # type: ignore[method-assign]
    Rank.around = with_more  # type: ignore[method-assign]
    if "step" in faults:
        STEP[faults["step"]]()


def _other_micro_batch() -> None:
    """The last stage takes the activations of its first two micro-batches in the wrong order."""
    from dagc.execute.torch.training_rank import TrainingRank

    begin_with = TrainingRank.begin_with

    def wrong(self: TrainingRank, cell: Any) -> Any:
        last = self.gpu == len(self.shards.graph.stages) - 1
        if last and cell.microbatch < 2 and cell.part.value == "F":
            cell = cell._replace(microbatch=1 - cell.microbatch)
        return begin_with(self, cell)

    TrainingRank.begin_with = wrong  # type: ignore[method-assign]


def _early_weights() -> None:
    """New weights are there before the last micro-batch has used the old ones."""
    from dagc.execute.torch.training_rank import TrainingRank

    cell = TrainingRank.cell

    def early(self: TrainingRank, one: Any) -> None:
        if one.part.value == "F" and one.microbatch == self.schedule.microbatches - 1:
            for segment, layer in self.layers[self.own[0]]:
                if any(key[0] == layer for key in self.gradients):
                    self.update_layer(segment, layer, None)
        cell(self, one)

    TrainingRank.cell = early  # type: ignore[method-assign]


def _last_gradient_alone() -> None:
    """Gradients of micro-batches replace each other."""
    from dagc.execute.torch.training_rank import TrainingRank

    add_up = TrainingRank.add_up

    def replaced(self: TrainingRank, segment: Any, layer: int, env: Any) -> None:
        for key in [key for key in self.gradients if key[0] == layer]:
            del self.gradients[key]
        add_up(self, segment, layer, env)

    TrainingRank.add_up = replaced  # type: ignore[method-assign]


def _copies_apart() -> None:
    """Two copies of a stage do not add their gradients up."""
    from dagc.execute.torch.training_rank import TrainingRank

    update_layer = TrainingRank.update_layer

    def apart(self: TrainingRank, segment: Any, layer: int, copies: Any) -> None:
        update_layer(self, segment, layer, None)

    TrainingRank.update_layer = apart  # type: ignore[method-assign]


STEP: dict[str, Callable[[], None]] = {
    "other micro-batch": _other_micro_batch,
    "early weights": _early_weights,
    "last gradient alone": _last_gradient_alone,
    "copies apart": _copies_apart,
}
