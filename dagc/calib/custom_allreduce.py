"""The all-reduce kernels of inference engines (one-shot, two-shot), in a CUDA graph and in one node.

The form of `collective` with constants of its own: these kernels skip NCCL's launch and protocols.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from . import collective
from .collective import CollectiveConstants, bounds, bus_factor
from .family import Family, columns
from .shape import Floats


class CustomAllReduceConstants(CollectiveConstants):
    """The same terms as NCCL's, fitted apart."""

    __slots__ = ()


def time_s(c: CustomAllReduceConstants, ranks: ArrayLike, size_B: ArrayLike) -> Floats:
    """Seconds of one call; `size_B`: the buffer. One rank takes no time."""
    return collective.time_s(c, ranks, size_B)


FAMILY = Family(
    name="custom_allreduce",
    constants=CustomAllReduceConstants,
    time_s=time_s,
    file="op_custom_allreduce.csv",
    variant=lambda row: row["backend"],
    shapes=("num_gpus", "bytes"),
    ranges=("num_gpus", "bytes"),
    bounds=bounds,
    facts=bus_factor,
    arguments=columns("num_gpus", "bytes"),
    untimed="engines have it in kernels of their own",
)
