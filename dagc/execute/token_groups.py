"""token_groups: which tokens share the capacity of experts: those that a rank routes, as in Megatron-LM. A run of the model alone drops what
the ranks drop that it is compared with."""

from __future__ import annotations

import numpy as np

from ..base.frozen import replace
from ..ir.graph import Graph
from ..ir.routed_dims import drops
from .inputs import Inputs
from .shards import Shards
from .values import Ints


def with_groups(inputs: Inputs, placed: Graph) -> Inputs:
    """For a run of the model alone. `placed`: the graph that it is compared with."""
    if not drops(placed):
        return inputs
    shards = Shards(placed, inputs, placed.the_mesh)

    def groups(segment_name: str, router: str) -> Ints:
        segment = placed.segment(segment_name)
        op, seq = segment.by_name[router], int(segment.sizes["seq"])
        found = np.zeros((int(segment.sizes["batch"]), seq), dtype=np.int64)
        known: dict[tuple[int, int], int] = {}
        for rank in shards.at(op.on):
            along = op.loop("batch"), op.loop("seq")
            number = known.setdefault((shards.block(along[0], rank), shards.block(along[1], rank)), len(known))
            tokens = shards.positions(segment, along[1], rank, "seq") - (int(segment.sizes.get("context", seq)) - seq)
            found[shards.part(len(found), along[0], rank), tokens] = number
        return found

    return replace(inputs, groups=groups)
