"""What a run is given: token ids, weights, and the cache that a decode step finds. Unless told otherwise they are random,
and the same for the same name."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from ..base.dtypes import INDICES
from ..base.frozen import record
from ..ir.op import Weight
from ..ir.ops.attributes.experts import RouteAttrs
from ..ir.segment import Segment
from ..spec.workload import Routing
from .values import Floats, Ints

History = Mapping[tuple[int, str], Floats]
"""(layer, cache op) -> what a pass finds there, [batch, .., context - new tokens, ..]."""
Groups = Callable[[str, str], Ints]
WeightSource = Callable[[Segment, int, Weight], Floats]
"""(segment, layer, weight) -> the whole weight, dims in its order."""


def random_tensor(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Floats:
    """The same numbers for the same name, whoever asks."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(rng.standard_normal(shape) * scale)


def _experts_of(segment: Segment, weight: Weight) -> int:
    """How many experts there are to choose from a table."""
    route = next(op for op in segment.ops if isinstance(op.attrs, RouteAttrs) and weight.name in op.inputs)
    return int(segment.size(segment.dims_of(route.inputs[0])[-1]))


def random_table(name: str, shape: tuple[int, ...], below: int) -> Floats:
    """Rows of numbers that differ, all less than `below`: the first at random, the others at a random distance each."""
    rng, (rows, width) = np.random.default_rng(zlib.crc32(name.encode())), shape
    first, step = rng.integers(below, size=(rows, 1)), rng.integers(1, below // width + 1, size=(rows, 1))
    return np.asarray((first + step * np.arange(width)) % below, dtype=np.float64)


def random_weight(segment: Segment, layer: int, weight: Weight) -> Floats:
    """Normal numbers, scaled by the root of what a contraction sums over."""
    shape = tuple(int(segment.size(d)) for d in weight.dims)
    if weight.dtype in INDICES:
        return random_table(f"{segment.name}.{layer}.{weight.name}", shape, _experts_of(segment, weight))
    fan = prod(shape[:-1]) if len(shape) > 1 and weight.scope == "dense" else shape[-2] if len(shape) > 1 else 1
    return random_tensor(f"{segment.name}.{layer}.{weight.name}", shape, 1.0 if len(shape) == 1 else fan**-0.5)


@record(slots=False)
class Inputs:
    """What a run is given: token ids [sequences, seq], weights, and for a decode step the cache that it finds (random
    without `history`). `balanced`: tokens go to experts in order instead of by their scores. `labels`: of a training step, the token
    that follows each, and behind those of a sequence what follows it. `groups`: of (segment, router) the tokens [batch, seq] that share the
    capacity of experts, a number for each group; without it those of a rank do."""

    tokens: Ints
    routing: Routing
    weights: WeightSource = random_weight
    history: History | None = None
    balanced: bool = False
    labels: Ints | None = None
    groups: Groups | None = None
