"""The table of `dagc measure`: every kernel of the plan, measured against estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .extract import PlanKernel
from .jobs import Job
from .timer import Result

HEAD = ("kernel", "layers", "size on one rank", "measured", "spread", "estimated", "ratio", "estimate from")


def report(kernels: Sequence[PlanKernel], results: Mapping[Job, Result], title: str) -> str:
    """Text; a ratio above 1 is a kernel slower than estimated."""
    lines = [title]
    for phase in dict.fromkeys(kernel.phase for kernel in kernels):
        own = [kernel for kernel in kernels if kernel.phase == phase]
        table = [HEAD, *(_row(kernel, result) for kernel in own if (result := _timed(kernel, results)))]
        lines += ["", f"phase {phase}", *_aligned(table), *_summary(own, results), *_left_out(own, results)]
    return "\n".join(lines) + "\n"


def _timed(kernel: PlanKernel, results: Mapping[Job, Result]) -> Result | None:
    result = results.get(kernel.job) if kernel.job is not None else None
    return result if result is not None and result.timing is not None else None


def _row(kernel: PlanKernel, result: Result) -> tuple[str, ...]:
    assert result.timing is not None and kernel.job is not None
    time_s = result.timing.median_s
    ratio = f"{time_s / kernel.estimate_s:.2f}" if kernel.estimate_s else "-"
    return (
        f"{kernel.segment} {kernel.kind} {_short(kernel.ops)}", str(kernel.layers), kernel.job.text(),
        f"{time_s * 1e6:.1f} us", f"{result.timing.spread:.0%}", f"{kernel.estimate_s * 1e6:.1f} us", ratio, kernel.family,
    )  # fmt: skip


def _short(ops: Sequence[str]) -> str:
    """Names of ops that share a block: `gqa.q+k+v`; of many the first and how many follow."""
    first, rest = ops[0], [name.rpartition(".")[2] for name in ops[1:]]
    return "+".join([first, *rest]) if len(rest) < 4 else f"{first} and {len(rest)} more"


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    right = {1, 3, 4, 5, 6}
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _summary(kernels: Sequence[PlanKernel], results: Mapping[Job, Result]) -> list[str]:
    whole = sum(kernel.estimate_s * kernel.layers for kernel in kernels)
    timed = [(kernel, result) for kernel in kernels if (result := _timed(kernel, results)) and kernel.estimate_s]
    if not timed or not whole:
        return ["  nothing timed"]
    estimated_s = sum(kernel.estimate_s * kernel.layers for kernel, _ in timed)
    measured_s = sum(result.timing.median_s * kernel.layers for kernel, result in timed if result.timing)
    logs = [math.log(result.timing.median_s / kernel.estimate_s) for kernel, result in timed if result.timing]
    return [
        f"  over all layers: measured {measured_s * 1e3:.3f} ms, estimated {estimated_s * 1e3:.3f} ms, ratio "
        f"{measured_s / estimated_s:.2f} (geometric mean of kernels {math.exp(sum(logs) / len(logs)):.2f})",
        f"  timed kernels are {estimated_s / whole:.0%} of the estimated time of these kernels",
    ]


def _left_out(kernels: Sequence[PlanKernel], results: Mapping[Job, Result]) -> list[str]:
    reasons: dict[str, list[PlanKernel]] = {}
    for kernel in kernels:
        if _timed(kernel, results) is None:
            result = results.get(kernel.job) if kernel.job is not None else None
            reasons.setdefault(kernel.reason or (result.reason if result else "not timed"), []).append(kernel)
    return [
        f"  not timed: {', '.join(dict.fromkeys(f'{k.segment} {k.kind} {_short(k.ops)}' for k in found))}: {reason}"
        for reason, found in reasons.items()
    ]
