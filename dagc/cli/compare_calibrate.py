"""`dagc compare SPEC TRACE... --calibrate FILE.json`: a calibration with what the traces show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.harmless import harmless
from .writing import check_folder, seen_from, write_all

if TYPE_CHECKING:
    from ..measure.jobs import Job
    from ..measure.timing import Timing
    from ..observe.matching.rank_calls import RankCalls
    from ..observe.measured_rank import MeasuredRank
    from ..plan.plan import CompiledPlan


def check(path: str, plan: CompiledPlan, phase: str) -> None:
    """Before the traces are read. Raises SpecError."""
    hardware = plan.units[phase].spec.hardware
    if not path.endswith(".json"):
        raise SpecError(
            [Diagnostic("E14", f"`--calibrate {harmless(path)}`: a calibration is a file that ends in .json")]
        )
    if hardware.calibration is None:
        message = f"`{hardware.name}` has no calibration that traces could correct: few sizes fit no kernel anew"
        help = ("`dagc measure SPEC --fit` makes one; `calibration = h100_sxm` in `hardware` takes one of the library",)
        raise SpecError([Diagnostic("E16", message, help=help)])
    check_folder(Path(path).absolute().parent)


def write(
    path: str, spec: str, plan: CompiledPlan, phase: str, calls: Sequence[RankCalls], ranks: Sequence[MeasuredRank]
) -> None:
    """`spec`: its file, which finds the calibration by a path of its own. Raises SpecError."""
    from ..calib import load
    from ..cost.measured import faster
    from ..measure.corrected import corrected

    unit = plan.units[phase]
    hardware = unit.spec.hardware
    timed = _timed(calls, _nodes(plan, phase))
    if not timed:
        message = "the traces time nothing that a calibration has"
        help = (
            "of collectives it takes NCCL's metadata and traces of all ranks of a group in one node, of products `record_shapes=True`",
        )
        raise SpecError([Diagnostic("E16", message, help=help)])
    assert hardware.calibration is not None
    base = load(hardware.calibration)
    device = next((one.device for one in ranks if one.device), "")
    source = f"dagc compare, traces of {harmless(device) or 'a run'}"
    by_engine = not any(one.phase for one in calls)
    found = corrected(base, faster(base, hardware), unit.phase, timed, source, by_engine)
    if not found.changed:
        message = "the calibration has none of the kernels that the traces time"
        raise SpecError([Diagnostic("E16", message, help=found.lines)])
    write_all({Path(path): found.text.encode()})
    told = [
        f'wrote {path}; in a spec: hardware {{ calibration = "{seen_from(spec, path)}" }}',
        *(f"  {line}" for line in found.lines),
    ]
    print(*map(harmless, told), sep="\n", file=sys.stderr)


def _nodes(plan: CompiledPlan, phase: str) -> list[int]:
    """Of each rank."""
    result = plan.phases[phase]
    return [gpu // result.per_node for gpu in sorted(result.graph.the_mesh.all_gpus)]


def _timed(calls: Sequence[RankCalls], node_of: Sequence[int]) -> dict[Job, Timing]:
    from ..measure.jobs import Exchange, Gemm
    from ..measure.timing import Timing
    from ..observe.matching.timed_calls import timed_calls

    found: dict[Job, Timing] = {}
    for (kind, size, size_B), times_s in timed_calls(calls, node_of).items():
        found[Exchange(kind, size, size_B)] = Timing.of(times_s, "trace")
    products: dict[Job, list[float]] = {}
    for one in calls:
        for product, times in one.products.items():
            products.setdefault(Gemm(product.dtype, product.m, product.n, product.k), []).extend(times)
    return found | {job: Timing.of(times, "trace") for job, times in products.items()}
