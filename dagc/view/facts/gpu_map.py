"""gpu_map: what a phase does with every GPU: its rank's place along each axis, its experts and its memory, by node, rack and pool.

A GPU is coloured by a number: its place along an axis (`tp`: ranks with equal numbers hold the same shard), its group over the axis
(`tp-group`: ranks with equal numbers exchange with each other), or which phases use it (`phases`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from ...base.arrays import NDArray
from ...base.axes import DEGREES, STAGES
from ...base.frozen import field, record
from ...base.units import BYTES, show, show_runs
from ...cost.placed_experts import HeldExperts, held_experts
from ...plan.held_memory import PARTS
from ...plan.plan import CompiledPlan
from ...plan.pools import listed
from ...plan.result import PhaseResult, Seat
from ...plan.trained import TrainingResult
from ...spec.hardware import Hardware
from ...spec.spec import Spec
from ...spec.unit import Unit
from .map_colourings import GROUP, PHASES
from .training_words import HELD_BANDS, part_B

Mapped = PhaseResult | TrainingResult

Ints = NDArray[np.int64]
MOST_GPUS = 4096
"""GPUs of a map; of a larger pool the first nodes are drawn."""
MOST_IDLE = 8
"""Neighbouring nodes that no phase uses, beyond which they share a line."""


@record
class Colouring:
    """`each`: number -> how many GPUs have it; `without`: GPUs of the phase that have none, as the axis is one of the ranks that have
    experts alone, or of the others. `sets`: the phases that each number is for, where it is for phases."""

    name: str
    each: Mapping[int, int]
    without: int = 0
    sets: tuple[tuple[str, ...], ...] = ()

    @property
    def axis(self) -> str:
        return self.name.removesuffix(GROUP)

    @property
    def of_groups(self) -> bool:
        return self.name.endswith(GROUP)

    def words(self, number: int) -> str:
        """`tp 3`, `tp group 3` or `prefill and decode`."""
        if self.sets:
            return listed(self.sets[number])
        return f"{self.axis}{' group' if self.of_groups else ''} {number}"


@record
class Device:
    """A GPU of a pool: the phases that use it; for the phase of the map its stage, its side (see Sharding) and its number in each
    colouring; the hint says all that is known of it."""

    gpu: int
    phases: tuple[str, ...]
    seat: int | None
    numbers: Mapping[str, int]
    hint: str


@record
class Domain:
    """`number`-th set of GPUs that a level of links joins, the first of its pool 0: `first` to `first + count - 1`. Of several equal
    and unused ones (`alike`) the first. `inner`: the domains in it; empty where `devices` are its GPUs, or nothing is drawn of it."""

    level: str
    number: int
    first: int
    count: int
    alike: int = 1
    inner: tuple[Domain, ...] = ()
    devices: tuple[Device, ...] = ()


@record
class PoolMap:
    """`uses`: (phases, GPUs that they use), in the order of GPU ids; `hidden` GPUs of `hidden_nodes` are too many to draw."""

    hardware: Hardware
    domains: tuple[Domain, ...]
    uses: tuple[tuple[tuple[str, ...], int], ...]
    hidden: int = 0

    @property
    def devices(self) -> Iterator[Device]:
        """Every GPU that is drawn for itself."""
        return (device for domain in self.domains for device in _devices(domain))


@record
class Held:
    """What a GPU of a seat holds: (number of its colour, words, bytes) of each kind."""

    bands: tuple[tuple[int, str, float], ...]
    peak_B: float
    capacity_B: float

    @property
    def words(self) -> str:
        """`weights 3 GB, KV cache 1 GB: 4 GB of 80 GB (5%)`"""
        parts = ", ".join(f"{name} {show(size_B, BYTES, 3)}" for _, name, size_B in self.bands if size_B > 0)
        return f"{parts}: {show(self.peak_B, BYTES, 3)} of {show(self.capacity_B, BYTES, 3)} ({self.peak_B / self.capacity_B:.0%})"


@record
class DeviceMap:
    """The pools of a spec, those that the phase uses first. `colourings`: that make sense for the phase, the default one first;
    `held`: by seat."""

    result: Mapped = field(repr=False)
    colourings: tuple[Colouring, ...]
    pools: tuple[PoolMap, ...]
    held: tuple[Held, ...] = ()

    def colouring(self, name: str) -> Colouring:
        """By its name, nothing: the default. Along an axis that the phase has not, or of one rank, no GPU has a number."""
        found = next((c for c in self.colourings if name in ("", c.name)), None)
        if found is not None:
            return found
        return Colouring(name, {}, len(self.result.gpus))


def gpu_map(plan: CompiledPlan, phase: str) -> DeviceMap:
    """Of all GPUs of all pools, as one phase uses them."""
    result = plan.trainings.get(phase) or plan.phases[phase]
    names, own_seats = _axes(result), seats_of(result)
    seats = [_Seated(result, seat, names, len(own_seats[0].gpus)) for seat in own_seats]
    held = tuple(held_by_seat(result))
    texts = _Texts(plan, result, held, list(held_experts(result.graph, Unit(plan.spec, plan.spec.phase(phase)))))
    users = _users(plan.spec)
    first = plan.spec.hardware.name
    own = dict.fromkeys(seat.seat.hardware or first for seat in seats)
    pools = []
    for name in dict.fromkeys((*own, *plan.spec.pools)):
        mine = [seat for seat in seats if (seat.seat.hardware or first) == name]
        pools.append(_Drawn(plan.spec.pools[name], users, mine, texts).pool())
    by_phases = Counter(number for found in users.of.values() for number in found.tolist() if number >= 0)
    return DeviceMap(
        result, (*_colourings(names, seats), Colouring(PHASES, by_phases, 0, users.sets)), tuple(pools), held
    )


def seats_of(result: Mapped) -> tuple[Seat, ...]:
    """Of a phase that trains its stages."""
    if isinstance(result, TrainingResult):
        return tuple(Seat(s.index, s.layers, "", result.hardware, s.gpus) for s in result.graph.stages)
    return result.seats


def held_by_seat(result: Mapped) -> Iterator[Held]:
    if isinstance(result, TrainingResult):
        for need in result.memory:
            bands = tuple((hue, name, sum(part_B(need, part) for part in parts)) for hue, name, parts in HELD_BANDS)
            yield Held(bands, need.peak_B, need.capacity_B)
        return
    for held in result.memory.stages:
        bands = tuple((k, name, getattr(held, key)) for k, (name, key) in enumerate(PARTS))
        yield Held(bands, held.peak_B, held.capacity_B)


@record
class Users:
    """Which phases use a GPU: its number among `sets`, by pool and id; -1: none."""

    sets: tuple[tuple[str, ...], ...]
    of: Mapping[str, Ints]


def _users(spec: Spec) -> Users:
    """Of all phases, whether they are compiled or not."""
    sets: list[tuple[str, ...]] = [()]
    of = {name: np.zeros(own.gpus, np.int64) for name, own in spec.pools.items()}
    for phase in (*spec.phases, *spec.trainings):
        apart = phase.strategy.apart
        own = phase.hardware or spec.hardware.name
        parts = [(own, phase.gpus), *([(apart.hardware or own, apart.gpus)] if apart is not None else [])]
        for pool, gpus in parts:
            ids = np.asarray(gpus, np.int64)
            before = of[pool][ids]
            for number in np.unique(before).tolist():
                wanted = (*sets[number], phase.name)
                sets += [] if wanted in sets else [wanted]
                of[pool][ids[before == number]] = sets.index(wanted)
    used = [k for k in range(1, len(sets)) if any((found == k).any() for found in of.values())]
    renumbered = np.full(len(sets), -1)
    renumbered[used] = np.arange(len(used))
    return Users(tuple(sets[k] for k in used), {name: renumbered[found] for name, found in of.items()})


def _axes(result: Mapped) -> list[str]:
    """Those of several ranks: stages, then from the outermost one inwards."""
    mesh = result.graph.the_mesh
    several = [axis for axis in DEGREES if axis != STAGES and mesh.of(axis)]
    inner = sorted(several, key=lambda axis: min(mesh.index[atom] for atom in mesh.of(axis)))
    return [STAGES, *inner] if mesh.stages > 1 else inner


class _Seated:
    """Ranks of a stage, of one side, with their number in each colouring."""

    def __init__(self, result: Mapped, seat: Seat, names: Sequence[str], others: int) -> None:
        """`others`: GPUs of a seat of the other side."""
        mesh = self.mesh = result.graph.the_mesh
        self.seat, self.stage, self.atoms = seat, seat.index % mesh.stages, mesh.on(seat.on)
        self.ids = np.asarray(seat.ids, np.int64)
        at = np.unravel_index(np.arange(len(self.ids)), [mesh.sizes[atom] for atom in self.atoms]) if self.atoms else ()
        self.at: dict[str, Ints] = dict(zip(self.atoms, at, strict=True))
        self.lists: dict[tuple[str, ...], list[int]] = {}
        self.numbers: dict[str, Ints] = {}  # by colouring
        for axis in names:
            if axis == STAGES:
                self.numbers[axis] = np.full(len(self.ids), self.stage)
                before = others if seat.on else 0  # pipelines of the other side count first
                self.numbers[axis + GROUP] = np.arange(len(self.ids)) + before
            elif set(mesh.of(axis)) <= set(self.atoms):
                rest = tuple(atom for atom in self.atoms if atom not in mesh.of(axis))
                self.numbers[axis] = self.places(mesh.of(axis))
                self.numbers[axis + GROUP] = self.stage * mesh.size(rest) + self.places(rest)

    @cached_property
    def rows(self) -> list[dict[str, int]]:
        """The numbers of each rank."""
        columns = [column.tolist() for column in self.numbers.values()]
        return [dict(zip(self.numbers, row, strict=True)) for row in zip(*columns, strict=True)] or [
            {} for _ in self.ids
        ]

    @cached_property
    def said(self) -> list[str]:
        """The place of each rank along each axis."""
        axes = [axis for axis in self.numbers if not axis.endswith(GROUP)]
        alone = ["experts alone"] if self.seat.on else []
        return [", ".join([*(f"{axis} {row[axis]}" for axis in axes), *alone]) for row in self.rows]

    def among(self, axes: tuple[str, ...]) -> list[int]:
        """`places` as a list, made once."""
        if axes not in self.lists:
            self.lists[axes] = self.places(axes).tolist()
        return self.lists[axes]

    def places(self, atoms: Sequence[str]) -> Ints:
        """The place of each rank along some atoms, major first."""
        out = np.zeros(len(self.ids), np.int64)
        for atom in atoms:
            out = out * self.mesh.sizes[atom] + self.at[atom]
        return out


def _colourings(names: Sequence[str], seats: Sequence[_Seated]) -> Iterator[Colouring]:
    """Places along axes, then groups."""
    for name in (*names, *(axis + GROUP for axis in names)):
        ours = [seat.numbers[name] for seat in seats if name in seat.numbers]
        values, counts = np.unique(np.concatenate(ours), return_counts=True)
        each = dict(zip(values.tolist(), counts.tolist(), strict=True))
        yield Colouring(name, each, sum(len(seat.ids) for seat in seats) - int(counts.sum()))


class _Texts:
    """What the hint of a GPU says; parts that GPUs share are made once."""

    def __init__(
        self, plan: CompiledPlan, result: Mapped, held: Sequence[Held], experts: Sequence[HeldExperts]
    ) -> None:
        self.result = result
        turns = isinstance(result, PhaseResult) and result.takes_turns
        self.of_seat = [experts if bool(seat.on) == turns else [] for seat in seats_of(result)]
        self.memory = [one.words for one in held]
        self.known: dict[tuple[int, tuple[int, ...]], str] = {}
        first = plan.spec.hardware.name
        self.together = {(own.hardware or first, own.phases): show(own.peak_B, BYTES, 3) for own in plan.shared}

    def hint(self, pool: str, phases: tuple[str, ...], seated: _Seated | None, rank: int) -> str:
        """`pp 0, tp 3; experts 6..7; weights 3 GB, KV cache 1 GB: 4 GB of 80 GB (5%); also decode, together at most 7 GB`"""
        if seated is None:
            return listed(phases) if phases else "no phase uses it"
        others = [name for name in phases if name != self.result.name]
        shared = self.together.get((pool, phases))
        parts = (
            seated.said[rank],
            self.experts(seated, rank),
            self.memory[seated.seat.index],
            f"also {listed(others)}{f', together at most {shared}' if shared else ''}" if others else "",
        )
        return "; ".join(filter(None, parts))

    def experts(self, seated: _Seated, rank: int) -> str:
        """`experts 0..7`; where layers differ, of the first ones, and how many others there are."""
        mine = self.of_seat[seated.seat.index]
        places = tuple(seated.among(own.axes)[rank] for own in mine)
        key = seated.seat.index, places
        if key not in self.known:
            sets = list(experts_of(self.result, seated.stage, mine, places))
            several = len({experts for _, experts in sets}) > 1
            said = []
            for experts, same in itertools.groupby(sets, key=lambda one: one[1]):
                layers = [layer for layer, _ in same]
                where = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
                said.append(f"experts {show_runs(experts, most=6)}{f' ({where})' if several else ''}")
            more = f", others in {len(said) - 2} more" if len(said) > 2 else ""
            self.known[key] = ", ".join(said[:2]) + more
        return self.known[key]


def experts_of(
    result: Mapped, stage: int, held: Sequence[HeldExperts], places: Sequence[int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(kind or number of layer, experts) of a rank with these places among the ranks of each of `held`, for layers of its stage."""
    graph = result.graph
    layers = graph.stages[stage].layers
    first = graph.first_layer(stage)
    numbers = range(first, first + sum(count for _, count in layers))
    for own, place in zip(held, places, strict=True):
        if own.segment.name not in {name for name, _ in layers}:
            continue
        for k, slots in enumerate(own.slots):
            if not own.layers or own.layers[k] in numbers:
                name = f"layer {own.layers[k]}" if own.layers else own.segment.name
                yield name, tuple(np.unique(slots[place]).tolist())


class _Drawn:
    """A pool as it is drawn: its nodes in the domains of further links, up to so many GPUs."""

    def __init__(
        self,
        hardware: Hardware,
        users: Users,
        seats: Sequence[_Seated],
        texts: _Texts,
    ) -> None:
        self.hardware, self.sets, self.seats, self.texts = hardware, users.sets, seats, texts
        self.set_of = users.of[hardware.name]
        self.seat_of, self.rank_of = (np.full(hardware.gpus, -1) for _ in range(2))
        for k, seat in enumerate(seats):
            self.seat_of[seat.ids] = k
            self.rank_of[seat.ids] = np.arange(len(seat.ids))
        levels = [(level.name, level.gpus) for level in hardware.levels if level.gpus and level.gpus < hardware.gpus]
        self.levels = levels or [(hardware.levels[0].name, hardware.gpus)]
        self.room = MOST_GPUS
        self.hidden = 0

    def pool(self) -> PoolMap:
        domains = tuple(self.domains(len(self.levels) - 1, 0, self.hardware.gpus))
        uses = Counter(self.set_of.tolist())
        counts = tuple((self.sets[k] if k >= 0 else (), count) for k, count in uses.items())
        return PoolMap(self.hardware, domains, counts, self.hidden)

    def domains(self, level: int, first: int, count: int) -> Iterator[Domain]:
        """The domains of a level that are in some GPUs."""
        name, size = self.levels[level]
        starts = range(first, first + count, size)
        for idle, same in itertools.groupby(
            starts, key=lambda start: bool((self.set_of[start : start + size] < 0).all())
        ):
            run = list(same)
            if idle and len(run) > MOST_IDLE:
                yield Domain(name, run[0] // size, run[0], min(first + count, run[-1] + size) - run[0], len(run))
                continue
            for start in run:
                own = min(size, first + count - start)
                if self.room < (1 if level else own):
                    self.hidden += own
                elif level:
                    yield Domain(name, start // size, start, own, inner=tuple(self.domains(level - 1, start, own)))
                else:
                    self.room -= own
                    devices = tuple(self.device(f"{name} {start // size}", gpu) for gpu in range(start, start + own))
                    yield Domain(name, start // size, start, own, devices=devices)

    def device(self, where: str, gpu: int) -> Device:
        k, rank, number = int(self.seat_of[gpu]), int(self.rank_of[gpu]), int(self.set_of[gpu])
        seated = self.seats[k] if k >= 0 else None
        phases = self.sets[number] if number >= 0 else ()
        numbers = {**(seated.rows[rank] if seated is not None else {}), **({PHASES: number} if phases else {})}
        hint = self.texts.hint(self.hardware.name, phases, seated, rank)
        return Device(
            gpu, phases, None if seated is None else seated.seat.index, numbers, f"GPU {gpu}, {where}: {hint}"
        )


def _devices(domain: Domain) -> Iterator[Device]:
    yield from domain.devices
    for inner in domain.inner:
        yield from _devices(inner)
