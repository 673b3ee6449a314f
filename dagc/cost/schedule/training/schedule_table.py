"""schedule_table: who makes each schedule of the table (`base/pipeline_schedules.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def make(name: str, gpus: int, microbatches: int, chunks: int | None = None) -> PipelineSchedule:
    """`chunks` may be left out where the schedule says how many there are. Raises `Unmet` where it cannot be made."""
    return MAKERS[name](gpus, microbatches, chunks_of(name, gpus, microbatches, chunks))
