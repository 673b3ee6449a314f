"""Which rows of attention an engine serves with, where a table has more than one kernel for a shape, or another's name."""

from __future__ import annotations

from .family import Row

BLACKWELL_DATACENTER = frozenset({"b200_sxm", "b300_sxm", "gb200", "gb300"})


def served_by(row: Row) -> Row | None:
    """The row, or None where its engine would run another kernel.

    SGLang on data-centre Blackwell: `fi` is not chosen by default; heads 256 wide without a window were timed with
    `trtllm_mha` and with `triton`, the one that it picks for the hybrid models that have them.
    """
    if row["backend"] != "sglang" or row["gpu"] not in BLACKWELL_DATACENTER:
        return row
    unbounded = float(row["window_size"]) == 0 and row["head_dim"] == "256"
    left_out = row["kernel"] == "fi" or (unbounded and row["kernel"] == "trtllm_mha")
    return None if left_out else row
