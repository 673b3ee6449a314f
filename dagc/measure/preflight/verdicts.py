"""A verdict on each figure of a host: what the spec wants of it and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ...base.frozen import record, replace
from ...base.units import BYTE_RATE, BYTES, POWER, TIME, Dim, show
from ...spec.hardware import Level
from .inventory import Gpu, Machine
from .kinds import capability, known_as, matches
from .wanted import Wanted

MET, FAILED, UNKNOWN = "met", "failed", "not checked"
NOT_SAID = "nothing that was read says it"
SHARED_B = 1e9
"""Memory that processes share: what NCCL's guide asks of a container (Troubleshooting: `--shm-size=1g`)."""
UNITS = {"": None, "B": BYTES, "B/s": BYTE_RATE, "s": TIME, "W": POWER}
"""Unit of a figure -> its dimension; none: a plain number."""


@record
class Check:
    """`wanted`, `found`: figures in `unit` (SI), None where it is not about an amount or nothing was found; the texts say them in
    words. `hosts`: those that the verdict is of; `why`: what is wrong, or why it was not checked."""

    pool: str
    what: str
    verdict: str
    wanted_text: str = ""
    found_text: str = ""
    wanted: float | None = None
    found: float | None = None
    unit: str = ""
    why: str = ""
    hosts: tuple[str, ...] = ()


class Seen(NamedTuple):
    """A host of a pool. `tolerance`: how much longer than its estimate an exchange may take; `gpu`: whether GPUs were looked for."""

    wanted: Wanted
    machine: Machine
    tolerance: float
    gpu: bool = True

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return self.machine.gpus


def _amount(
    seen: Seen, what: str, wanted: float, found: float | None, unit: str, *, why: str = "", ok: bool = True
) -> Check:
    """At least so much is wanted. `ok`: whether all else about it is right."""
    verdict = UNKNOWN if found is None else MET if ok and found >= wanted * (1 - 1e-9) else FAILED
    texts = _shown(wanted, unit), "" if found is None else _shown(found, unit)
    if found is not None and verdict == FAILED and texts[0] == texts[1]:
        texts = _shown(wanted, unit, 9), _shown(found, unit, 9)  # so near that they look alike
    why = why or (NOT_SAID if verdict == UNKNOWN else "")
    return Check(seen.wanted.pool, what, verdict, *texts, wanted, found, unit, why)


def _shown(value: float, unit: str, digits: int = 4) -> str:
    dim: Dim | None = UNITS[unit]
    return f"{value:g}" if dim is None else show(value, dim, digits)


def _word(seen: Seen, what: str, verdict: str, wanted: str = "", found: str = "", why: str = "") -> Check:
    return Check(seen.wanted.pool, what, verdict, wanted, found, why=why)


def _some(indices: Iterable[int]) -> str:
    """`GPU 3`, `GPUs 0, 1 and 6 more`"""
    found = list(indices)
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"GPU{'s' if len(found) > 1 else ''} {', '.join(map(str, found[:4]))}{more}"


def _count(seen: Seen) -> Iterator[Check]:
    machine, usable = seen.machine, [g for g in seen.gpus if not g.lost]
    reasons = [] if seen.gpus else [*machine.missing[:1]]
    reasons += [f"{machine.hidden} more are hidden from processes here"] if machine.hidden else []
    lost = [g.index for g in seen.gpus if g.lost]
    reasons += [f"{_some(lost)} no longer answer{'s' if len(lost) == 1 else ''}"] if lost else []
    yield _amount(seen, "GPUs", seen.wanted.gpus, len(usable), "", why="; ".join(reasons))


def _kind(seen: Seen) -> Iterator[Check]:
    kinds = seen.wanted.kinds
    names = list(dict.fromkeys(g.name for g in seen.gpus if g.name))
    found = ", ".join(known_as(name) or name for name in names[:3])
    if not kinds:
        yield _word(seen, "kind", UNKNOWN, "", found, "no GPU of the library has these peaks and this memory bandwidth")
    elif not names:
        yield _word(seen, "kind", UNKNOWN, " or ".join(kinds), "", "the driver gives no name")
    else:
        ok = all(any(matches(kind, name) for kind in kinds) for name in names)
        why = "" if ok else f"the driver calls it {', '.join(f'`{name}`' for name in names[:3])}"
        yield _word(seen, "kind", MET if ok else FAILED, " or ".join(kinds), found, why)


def _whole(seen: Seen) -> Iterator[Check]:
    cut = [g.index for g in seen.gpus if g.mig]
    parts = sum(g.mig_devices for g in seen.gpus)
    why = (
        f"{_some(cut)}: MIG is on, {parts} instance{'s' if parts != 1 else ''}; a plan takes whole GPUs" if cut else ""
    )
    if seen.machine.vendor == "nvidia":
        yield _word(seen, "whole GPUs", FAILED if cut else MET, "MIG off", "MIG on" if cut else "MIG off", why)


def _health(seen: Seen) -> Iterator[Check]:
    if seen.machine.vendor != "nvidia":
        yield _word(seen, "health", UNKNOWN, why="rocm-smi says nothing of it")
        return
    ills = []
    for gpu in seen.gpus:
        own = [f"{gpu.uncorrected} uncorrected memory errors"] if gpu.uncorrected else []
        own += ["remapping of memory rows failed"] if gpu.remap_failed else []
        own += [f"the driver asks for: {gpu.recovery}"] if gpu.recovery else []
        own += [f"slowed by {gpu.slowed}"] if gpu.slowed else []
        own += ["no process may compute on it (compute mode)"] if gpu.compute_mode == "Prohibited" else []
        ills += [f"GPU {gpu.index}: {', '.join(own)}"] if own else []
    more = f" and {len(ills) - 3} more" if len(ills) > 3 else ""
    found = f"{len(ills)} GPU{'s' if len(ills) > 1 else ''}" if ills else "nothing wrong"
    yield _word(seen, "health", FAILED if ills else MET, "nothing wrong", found, "; ".join(ills[:3]) + more)


def _memory(seen: Seen) -> Iterator[Check]:
    sizes = [g.memory_B for g in seen.gpus if g.memory_B is not None]
    hardware = seen.wanted.hardware
    yield _amount(seen, "memory of a GPU", hardware.memory_B, min(sizes, default=None), "B")
    free = {g.index: g.free_B for g in seen.gpus if g.free_B is not None}
    least = min(free.values(), default=None)
    short = [gpu for gpu, own in free.items() if own < seen.wanted.free_B]
    why = f"{_some(short)}: other programs hold memory, or it has less" if short else ""
    yield _amount(seen, "free of it", seen.wanted.free_B, least, "B", why=why)


def _power(seen: Seen) -> Iterator[Check]:
    """What GPUs may draw, against the spec's `power`, else against what their maker allows them."""
    limits = {g.index: g.power_W for g in seen.gpus if g.power_W is not None}
    usual = [g.usual_power_W for g in seen.gpus if g.usual_power_W is not None]
    wanted = seen.wanted.hardware.power_W or max(usual, default=None)
    if wanted is None:
        return
    low = [gpu for gpu, own in limits.items() if own < wanted]
    why = f"{_some(low)}: a lower limit makes products slower than the plan has them" if low else ""
    yield _amount(seen, "power limit", wanted, min(limits.values(), default=None), "W", why=why)


def _capability(seen: Seen) -> Iterator[Check]:
    known = capability(seen.wanted.hardware.compute_flops)
    if known is None or seen.wanted.hardware.vendor != "nvidia":
        return
    name, least = known
    found = min((g.capability for g in seen.gpus if g.capability is not None), default=None)
    why = f"for products in {name}" if found is not None else "`nvidia-smi --query-gpu=index,compute_cap` gave none"
    yield _amount(seen, "compute capability", least, found, "", why=why)


def _driver(seen: Seen) -> Iterator[Check]:
    machine = seen.machine
    found = f"{machine.driver or 'unknown'}" + (f", CUDA {machine.cuda}" if machine.cuda else "")
    if not machine.torch_cuda or not machine.cuda:
        why = (
            "no PyTorch is installed here that says which CUDA it needs"
            if not machine.torch_cuda
            else "it names no CUDA"
        )
        yield _word(seen, "driver", UNKNOWN, "", found, why)
        return
    ok = int(machine.torch_cuda.partition(".")[0]) <= _major(machine.cuda)
    why = "" if ok else "a driver runs programs of its own major version of CUDA and of older ones"
    yield _word(
        seen, "driver", MET if ok else FAILED, f"CUDA {machine.torch_cuda}, of PyTorch {machine.torch}", found, why
    )


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else 0


def _inside(seen: Seen) -> Iterator[Check]:
    """Links that GPUs have ports for."""
    for level in seen.wanted.inside:
        yield _level(seen, level)
    if not seen.wanted.inside:
        return
    states = {g.index: g.fabric for g in seen.gpus if g.fabric}
    ill = [gpu for gpu, state in states.items() if state != "Completed"]
    if states:
        why = f"{_some(ill)}: {states[ill[0]]}" if ill else ""
        found = "not joined" if ill else "joined"
        yield _word(seen, "NVLink fabric", FAILED if ill else MET, "joined", found, why)


def _level(seen: Seen, level: Level) -> Check:
    what = f"link {level.name}"
    wanted = level.link.bandwidth_Bps
    if seen.machine.vendor != "nvidia":
        return _amount(seen, what, wanted, None, "B/s", why="rocm-smi gives no rate: `--exchange` measures it")
    rates = {g.index: g.nvlink_Bps for g in seen.gpus if g.nvlink_Bps is not None}
    joined = seen.machine.joined
    if not rates and not (joined and not any(word.startswith("NV") for word in joined)):
        return _amount(seen, what, wanted, None, "B/s", why="`nvidia-smi nvlink --status` gave no rates")
    if not any(rates.values()):
        lanes = [g.pcie_Bps for g in seen.gpus if g.pcie_Bps is not None]
        why = "PCIe, no NVLink" if lanes else "no NVLink, and the rate of PCIe is not told"
        return _amount(seen, what, wanted, min(lanes, default=None), "B/s", why=why)
    apart = sum(count for word, count in joined.items() if not word.startswith("NV"))
    slowest = min(rates, key=lambda gpu: rates[gpu])
    most = max(g.links_up or 0 for g in seen.gpus)
    weak = [g.index for g in seen.gpus if (g.links_up or 0) < most]
    notes = (
        [f"{_some(weak)}: {most - min(g.links_up or 0 for g in seen.gpus)} of {most} links are down"] if weak else []
    )
    notes += [f"{apart} pairs of GPUs are not joined by NVLink"] if apart else []
    notes += [f"{most} NVLinks"] if not notes else []
    return _amount(seen, what, wanted, rates[slowest], "B/s", why="; ".join(notes), ok=not apart)


def _outside(seen: Seen) -> Iterator[Check]:
    """Network cards: those that share a PCIe switch with GPUs in use, or all where none does."""
    ports = [n for n in seen.machine.nics if n.active]
    near = [n for n in ports if n.near]
    chosen = near or ports
    down = [n.name for n in seen.machine.nics if not n.active]
    for link in seen.wanted.between:
        if not ports:
            why = (
                "no InfiniBand or RoCE port is active" if seen.machine.nics else "no InfiniBand or RoCE port was found"
            )
            found = 0.0 if seen.machine.nics else None
            yield _amount(seen, f"{link.name}, of a host", link.bandwidth_Bps, found, "B/s", why=why)
            continue
        why = f"{len(chosen)} port{'s' if len(chosen) > 1 else ''}{' beside GPUs' if near else ''}"
        why += f"; {', '.join(down[:4])} not active" if down else ""
        yield _amount(
            seen, f"{link.name}, of a host", link.bandwidth_Bps, sum(n.rate_Bps for n in chosen), "B/s", why=why
        )


def _host(seen: Seen) -> Iterator[Check]:
    machine, wanted = seen.machine, seen.wanted
    less = machine.available_B is not None and machine.available_B < wanted.host_weights_B
    whole = show(wanted.host_weights_B, BYTES)
    why = f"less than the {whole} that its GPUs load: files are read more than once" if less else ""
    yield _amount(seen, "memory of the host", wanted.weights_B, machine.available_B, "B", why=why)
    if wanted.gpus > 1:
        yield _amount(seen, "shared memory", SHARED_B, machine.shared_B, "B")


def _processes(seen: Seen) -> Iterator[Check]:
    """Of a plan for CPUs: each device is a process."""
    machine, wanted = seen.machine, seen.wanted
    count = None if machine.processors is None else float(machine.processors)
    yield _amount(seen, "processors", wanted.gpus, count, "", why="one for each process at least")
    whole = wanted.gpus * wanted.hardware.memory_B
    yield _amount(seen, "memory of all processes", whole, machine.memory_B, "B")


def _disk(seen: Seen) -> Iterator[Check]:
    machine, size = seen.machine, seen.wanted.checkpoint_B
    there = machine.weights_there_B or 0.0
    if there >= ALMOST * size:
        why = f"weights in `{machine.disk}`"
        yield replace(_amount(seen, "weights on disk", size, there, "B", why=why), verdict=MET)
        return
    why = f"free for `{machine.disk}`" if machine.disk else ""
    free = None if machine.disk_free_B is None else machine.disk_free_B + there
    yield _amount(seen, "room for weights", size, free, "B", why=why)


ALMOST = 0.95
"""Of the weights by the spec, those in a folder: a checkpoint may have other scales and no drafter."""


def _exchange(seen: Seen) -> Iterator[Check]:
    machine = seen.machine
    if not machine.exchange:
        if seen.wanted.gpus > 1:
            why = next((m for m in machine.missing if m.startswith("exchange")), "`--exchange` measures it")
            yield _word(seen, "exchange", UNKNOWN, why=why.removeprefix("exchange: "))
        return
    for one in machine.exchange:
        what = f"{one.what}, {one.ranks} ranks" if one.ranks > 2 else one.what
        wanted, found = show(one.wanted_s, TIME), show(one.time_s, TIME)
        ok = one.time_s <= one.wanted_s * (1 + seen.tolerance)
        times = f"{show(one.size_B, BYTES)}"
        times += f": {one.time_s / one.wanted_s:.2f} times the estimate" if one.wanted_s else ""
        check = Check(
            seen.wanted.pool, what, MET if ok else FAILED, wanted, found, one.wanted_s, one.time_s, "s", times
        )
        if (machine.exchange_on == "cuda") != (seen.wanted.hardware.kind == "gpu"):
            why = f"{show(one.size_B, BYTES)} on CPUs: a time of theirs, which says nothing of GPUs"
            check = replace(check, verdict=UNKNOWN, why=why)
        yield check


OF_GPUS: tuple[Callable[[Seen], Iterator[Check]], ...] = (
    _kind, _whole, _health, _memory, _power, _capability, _driver, _inside,
)  # fmt: skip
"""Asked where a host has GPUs."""
OF_HOST: tuple[Callable[[Seen], Iterator[Check]], ...] = (_outside, _host, _disk, _exchange)


def of_host(seen: Seen) -> Iterator[Check]:
    """Every verdict on one host."""
    if seen.wanted.hardware.kind == "cpu":
        chosen = (_processes, *OF_HOST)
    elif not seen.gpu:
        chosen = OF_HOST
    else:
        chosen = (_count, *(OF_GPUS if seen.gpus else ()), *OF_HOST)
    for check in chosen:
        for one in check(seen):
            yield replace(one, hosts=(seen.machine.host,))


def of_pool(wanted: Wanted, machines: Sequence[Machine], tolerance: float, *, gpu: bool = True) -> list[Check]:
    """The plan itself, how many hosts there are, each of them, and what must be the same on all."""
    found, needed = len(machines), len(wanted.hosts)
    plan = Check(
        wanted.pool,
        "the plan fits",
        MET if wanted.fits else FAILED,
        why="" if wanted.fits else "`dagc check` says by how much",
    )
    verdict = MET if found >= needed else UNKNOWN
    why = "" if found >= needed else "the others were not looked at: `--read` takes what `--json` printed on each"
    hosts = Check(wanted.pool, "hosts", verdict, f"{needed}", f"{found}", float(needed), float(found), why=why)
    each = [check for one in machines for check in of_host(Seen(wanted, one, tolerance, gpu))]
    return [plan, hosts, *folded(each), *(_domain(wanted, machines) if gpu else ())]


def _domain(wanted: Wanted, machines: Sequence[Machine]) -> Iterator[Check]:
    """Links of GPUs that reach beyond a host: its GPUs must be in one NVLink domain."""
    wide = [level for level in wanted.inside if (level.gpus or wanted.hardware.gpus) > wanted.hardware.per_host]
    if not wide or len(wanted.hosts) < 2 or not any(m.gpus for m in machines):
        return
    cliques = {g.clique for m in machines for g in m.gpus}
    size = wide[-1].gpus or wanted.hardware.gpus
    domains = {gpu // size for gpu in wanted.ids}
    names = tuple(m.host for m in machines)
    if "" in cliques:
        alone = [m.host for m in machines if any(not g.clique for g in m.gpus)]
        why = f"GPUs of {', '.join(alone[:4])} are in none that reaches beyond the host"
        yield Check(wanted.pool, "NVLink domain", FAILED, f"{len(domains)} of {size} GPUs", "", why=why, hosts=names)
        return
    ok = len(cliques) <= len(domains)
    verdict = FAILED if not ok else MET if len(machines) > 1 else UNKNOWN
    why = "" if len(machines) > 1 else "one host says nothing of the others"
    yield Check(
        wanted.pool,
        "NVLink domain",
        verdict,
        f"{len(domains)}",
        f"{len(cliques)}",
        float(len(domains)),
        float(len(cliques)),
        why=why,
        hosts=names,
    )


def folded(checks: Iterable[Check]) -> list[Check]:
    """Equal verdicts of several hosts as one, in the order of the first of each kind."""
    kinds: dict[str, dict[Check, list[str]]] = {}
    for check in checks:
        kinds.setdefault(check.what, {}).setdefault(replace(check, hosts=()), []).extend(check.hosts)
    return [replace(check, hosts=tuple(hosts)) for own in kinds.values() for check, hosts in own.items()]


def assigned(
    pools: Sequence[Wanted], machines: Sequence[Machine]
) -> tuple[list[tuple[Wanted, list[Machine]]], list[Machine]]:
    """Hosts to pools by what their GPUs are, as many as a pool needs first; and hosts that no pool takes."""
    if len(pools) == 1:
        return [(pools[0], list(machines))], []
    out: list[tuple[Wanted, list[Machine]]] = [(one, []) for one in pools]
    rest: list[Machine] = []
    for machine in machines:
        names = {g.name for g in machine.gpus}
        fitting = [own for one, own in out if names and all(any(matches(k, n) for k in one.kinds) for n in names)]
        needing = [own for one, own in out if any(own is fit for fit in fitting) and len(own) < len(one.hosts)]
        chosen = [*needing, *fitting][:1]
        (chosen[0] if chosen else rest).append(machine)
    return out, rest
