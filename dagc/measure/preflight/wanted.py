"""What a plan asks of each host of a pool of GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...base.collectives import COLLECTIVES
from ...base.dtypes import dtype
from ...base.frozen import record
from ...calib import load
from ...calib.family import ENGINES
from ...calib.rising import rising_s
from ...cost.exchange import KERNELS
from ...cost.measured import faster, scaled
from ...cost.network import collective_time
from ...ir.groups import GroupShape
from ...plan.plan import CompiledPlan
from ...spec.hardware import Hardware, Level
from ..extract import collectives
from ..jobs import Exchange
from .kinds import kinds_of

MOST_EXCHANGES = 6
"""Of those that are timed: the largest of each collective and number of ranks."""
MOST_EXCHANGED_B = 1 << 30
LEAST_EXCHANGED_B = 1 << 22
"""Where no table has NCCL's times: the model of the network has its bandwidth and not what a small call takes."""
USUAL, USUAL_B = ("all_reduce", "all_gather"), 1 << 26
"""What is timed over all GPUs of a host that a plan uses, also where it has no such collective: large enough to need the bandwidth."""


class Call(NamedTuple):
    """A collective inside a host, and how long NCCL is expected to take."""

    job: Exchange
    wanted_s: float


class Between(NamedTuple):
    """A link that leaves a host: its name in words, and the bandwidth that all GPUs of a host in use need, per direction."""

    name: str
    bandwidth_Bps: float


@record
class Wanted:
    """`kinds`: GPUs of the library that the hardware may be. `ids`: GPUs in use, `hosts`: which hosts these are on. `gpus`: in use on
    the fullest host. `peak_B`: on the fullest GPU; `free_B`: what must be free there, where an engine takes its share at once.
    `weights_B`: on the fullest GPU; `host_weights_B`: on all of a host; `checkpoint_B`: of the whole model. `inside`: levels of
    links that GPUs reach through ports of their own; `between`: links over network cards."""

    pool: str
    hardware: Hardware
    kinds: tuple[str, ...]
    phases: tuple[str, ...]
    ids: tuple[int, ...]
    hosts: tuple[int, ...]
    gpus: int
    peak_B: float
    free_B: float
    weights_B: float
    host_weights_B: float
    checkpoint_B: float
    fits: bool
    inside: tuple[Level, ...]
    between: tuple[Between, ...]
    calls: tuple[Call, ...]


def wanted(plan: CompiledPlan) -> tuple[Wanted, ...]:
    """Of every pool that a compiled phase uses, in the spec's order."""
    return tuple(one for name, own in plan.spec.pools.items() if (one := _of(plan, name, own)) is not None)


def _of(plan: CompiledPlan, name: str, hardware: Hardware) -> Wanted | None:
    only = not plan.spec.others
    weights: dict[int, float] = {}
    free: dict[int, float] = {}
    phases = []
    for phase, result in plan.phases.items():
        engine = plan.spec.phase(phase).memory
        for seat, stage in zip(result.seats, result.memory.stages, strict=True):
            if not only and seat.hardware != name:
                continue
            phases.append(phase)
            at_once = engine.fraction * hardware.memory_B if engine.engine and engine.of == "all" else 0.0
            for gpu in seat.ids:
                weights[gpu] = max(weights.get(gpu, 0.0), stage.weights_B)
                free[gpu] = max(free.get(gpu, 0.0), stage.peak_B, at_once)
    if not weights:
        return None
    pools = [pool for pool in plan.pools if only or pool.hardware == name]
    by_host: dict[int, list[int]] = {}
    for gpu in sorted(weights):
        by_host.setdefault(gpu // hardware.per_host, []).append(gpu)
    peak = max(pool.peak_B for pool in pools)
    most = max(len(ids) for ids in by_host.values())
    outside = min(hardware.outside, len(hardware.levels))
    return Wanted(
        name, hardware, kinds_of(hardware), tuple(dict.fromkeys(phases)), tuple(sorted(weights)), tuple(by_host), most, peak,
        max(peak, *free.values()), max(weights.values()), max(sum(weights[g] for g in ids) for ids in by_host.values()),
        _checkpoint_B(plan), all(pool.fits for pool in pools), hardware.levels[:outside] if len(weights) > 1 else (),
        tuple(_between(plan, name, hardware, outside, by_host)), tuple(_calls(plan, phases, most, hardware)),
    )  # fmt: skip


def _checkpoint_B(plan: CompiledPlan) -> float:
    graph = next(iter(plan.phases.values())).graph
    return sum(
        segment.count(weight.dims) * segment.repeat * dtype(weight.dtype).bytes
        for segment in graph.segments
        for weight in segment.weights
        if not weight.tied
    )


def _between(
    plan: CompiledPlan, name: str, hardware: Hardware, outside: int, by_host: dict[int, list[int]]
) -> Iterator[Between]:
    """The first level over network cards, where phases reach across it, and links to other pools."""
    most = max(len(ids) for ids in by_host.values())
    if outside < len(hardware.levels):
        level, inner = hardware.levels[outside], hardware.levels[outside - 1].gpus or hardware.gpus
        if len({gpu // inner for ids in by_host.values() for gpu in ids}) > 1:
            shared = level.nics is not None and level.nics < hardware.per_node
            cards = level.nics / hardware.per_node if shared and level.nics is not None else 1.0
            yield Between(f"link {level.name}", level.bandwidth_Bps * cards * most)
    used = {seat.hardware for result in plan.phases.values() for seat in result.seats}
    for link in plan.spec.pool_links:
        if name in link.pools and set(link.pools) <= used:
            yield Between(f"link {link.pools[0]} to {link.pools[1]}", link.bandwidth_Bps * most)


def _calls(plan: CompiledPlan, phases: Sequence[str], gpus: int, hardware: Hardware) -> Iterator[Call]:
    """The largest call of each collective and number of ranks, the largest first; and two that every host is asked for."""
    least_B = 0 if hardware.calibration is not None else LEAST_EXCHANGED_B
    largest: dict[tuple[str, int], Exchange] = {}
    for kernel in collectives(plan, list(dict.fromkeys(phases))):
        job = kernel.job
        if not isinstance(job, Exchange) or job.ranks > gpus or not least_B <= job.size_B <= MOST_EXCHANGED_B:
            continue
        key = (job.op, job.ranks)
        if key not in largest or job.size_B > largest[key].size_B:
            largest[key] = job
    found = sorted(largest.values(), key=lambda job: -job.size_B)[:MOST_EXCHANGES]
    asked = [Exchange(op, gpus, USUAL_B) for op in USUAL if gpus > 1 and (op, gpus) not in largest]
    for job in (*found, *asked):
        yield Call(job, nccl_s(job, hardware))


def nccl_s(job: Exchange, hardware: Hardware) -> float:
    """Seconds of the call by NCCL inside a host, whatever kernel an engine takes for it: as it was measured on such a GPU, else by the
    model of the network."""
    kernel = next((one for one in KERNELS[job.op] if one.variant), None)
    if kernel is not None and hardware.calibration is not None:
        calibration = load(hardware.calibration)
        entry = calibration.find(kernel.family, kernel.variant, ENGINES[0])
        if entry is not None:
            own = scaled(entry, faster(calibration, hardware))
            return float(rising_s(kernel.family, own, 1, float(job.ranks), float(job.size_B)))
    payload_B = job.size_B / COLLECTIVES[job.op].buffer(job.ranks)
    return float(collective_time(job.op, payload_B, GroupShape(job.ranks, job.ranks, 1), hardware.node).time_s)
