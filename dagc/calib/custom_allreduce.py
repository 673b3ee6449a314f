"""What an inference engine calls for an all-reduce in one NVLink domain: kernels of its own, and NCCL from the size on at
which the engine hands over to it. In a CUDA graph (`graph`), or launched from the host (`eager`), whose time is in it.

The form of `collective` with constants of its own; the step at which an engine hands over is left to the residual.
"""

from __future__ import annotations

from ..base.arrays import ArrayLike
from . import collective
from .collective import CollectiveConstants, bounds, bus_factor
from .family import Family, Row, Table, columns
from .shape import Floats


class CustomAllReduceConstants(CollectiveConstants):
    """The same terms as NCCL's, fitted apart."""

    __slots__ = ()


def time_s(c: CustomAllReduceConstants, ranks: ArrayLike, size_B: ArrayLike) -> Floats:
    """Seconds of one call; `size_B`: the buffer. One rank takes no time."""
    return collective.time_s(c, ranks, size_B)


def _variant(row: Row) -> str:
    """Tables without the column are of CUDA graphs."""
    return row.get("mode", "graph")


def _other_mode(variant: str) -> tuple[str, ...]:
    return ("eager",) if variant == "graph" else ("graph",)


FAMILY = Family(
    name="custom_allreduce",
    constants=CustomAllReduceConstants,
    time_s=time_s,
    file="op_custom_allreduce.csv",
    tables=(Table("custom_allreduce.csv"),),
    variant=_variant,
    shapes=("num_gpus", "bytes"),
    ranges=("num_gpus", "bytes"),
    unseen=("num_gpus", "bytes"),
    lengths=(0.6, 4.0),
    bounds=bounds,
    facts=bus_factor,
    substitutes=_other_mode,
    arguments=columns("num_gpus", "bytes"),
    untimed="engines have it in kernels of their own",
)
