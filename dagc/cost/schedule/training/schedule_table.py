"""schedule_table: who makes each schedule of the table (`base/pipeline_schedules.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ....base.pipeline_schedules import SCHEDULES, Unmet, chunks_of
from .cell_orders import PipelineSchedule
from .dualpipe import dualpipe, dualpipe_v
from .gpipe import gpipe
from .interleaved import interleaved
from .one_f_one_b import one_f_one_b
from .v_blocks import v_half, v_min
from .zb_v import zb_v
from .zero_bubble import zb_h1, zb_h2

__all__ = ["MAKERS", "SCHEDULES", "Unmet", "make"]

MAKERS: Mapping[str, Callable[[int, int, int], PipelineSchedule]] = {
    "gpipe": gpipe,
    "one_f_one_b": one_f_one_b,
    "interleaved": interleaved,
    "zb_h1": zb_h1,
    "zb_h2": zb_h2,
    "zb_v": zb_v,
    "v_half": v_half,
    "v_min": v_min,
    "dualpipe": dualpipe,
    "dualpipe_v": dualpipe_v,
}
"""Name -> the schedule of (GPUs, micro-batches, chunks)."""


PAIRED: Mapping[str, Callable[[int, int, int], PipelineSchedule]] = {
    "one_f_one_b": partial(one_f_one_b, paired=True), "interleaved": partial(interleaved, paired=True),
}  # fmt: skip
"""Of those that can have pairs of cells that overlap."""


def make(
    name: str, gpus: int, microbatches: int, chunks: int | None = None, *, overlapped: bool = False
) -> PipelineSchedule:
    """`chunks` may be left out where the schedule says how many there are. `overlapped`: forward and backward cells run at once where the
    schedule can have them so. Raises `Unmet` where it cannot be made."""
    makers = PAIRED if overlapped and name in PAIRED else MAKERS
    return makers[name](gpus, microbatches, chunks_of(name, gpus, microbatches, chunks))
