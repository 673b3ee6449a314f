"""dropout_mask: which numbers a dropout keeps: by where they are, so that all ranks and both backends agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base.arrays import NDArray
from ..ir.ops.attributes.elementwise import DropoutAttrs
from .dispatcher import OpCall
from .values import Ints

MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def kept(places: Sequence[Ints], rate: float) -> NDArray[np.bool_]:
    """`places`: of each dimension the global place of each row, after what else tells dropouts apart (arrays of one number). SplitMix64 of
    all of them (Steele et al., 2014), as a share of 2^64."""
    state = np.zeros((1,) * len(places), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for axis, own in enumerate(places):
            shape = [1] * len(places)
            shape[axis] = len(own)
            state = mixed(state + np.asarray(own, dtype=np.uint64).reshape(shape) + np.uint64(0x9E3779B97F4A7C15))
    found: NDArray[np.bool_] = state >= np.uint64(int(rate * 2**64))
    return found


def mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * MIX[0]
    state = (state ^ (state >> np.uint64(27))) * MIX[1]
    return state ^ (state >> np.uint64(31))


def dropped_where(call: OpCall) -> NDArray[np.bool_]:
    """Of the rank's part of a value, what stays: by layer, the dropout's number there, and where each number is in the whole batch."""
    attrs, segment = call.op.of(DropoutAttrs), call.segment
    places: list[Ints] = [np.array([call.layer]), np.array([attrs.number])]
    for dim in call.op.dims:
        part = call.part(dim)
        if dim == "seq":
            places.append(call.places("seq"))
        else:
            first = call.shards.first(segment) if dim == "batch" else 0
            places.append(np.arange(part.start, part.stop) + first)
    found: NDArray[np.bool_] = kept(places, attrs.rate)[0, 0]
    return found
