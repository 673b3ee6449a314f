"""A pool of equal GPUs and its links, in SI units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import gcd

from ..base import dtypes
from ..base.frozen import field, record, replace
from ..base.source import Span
from .host_constants import host_link_Bps


@record
class Link:
    """Per GPU and direction. `onward`: through the ports of the next inner level, which its bytes pass, too."""

    bandwidth_Bps: float
    latency_s: float
    onward: bool = False


@record
class Level:
    """One level of links, as a spec has it: it joins every `gpus` GPUs in the order of their ids, None: all. `bandwidth_Bps` is
    per GPU and direction, or of one NIC; what crosses the level gets 1 / `oversubscription` of it. `nics`: of one node."""

    name: str
    gpus: int | None
    bandwidth_Bps: float
    latency_s: float
    oversubscription: float = 1.0
    nics: int | None = None

    @property
    def link(self) -> Link:
        return Link(self.bandwidth_Bps / self.oversubscription, self.latency_s)


@record
class PoolLink:
    """Between any GPU of one pool and any of the other, per GPU and direction."""

    pools: tuple[str, str]
    bandwidth_Bps: float
    latency_s: float
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def link(self) -> Link:
        return Link(self.bandwidth_Bps, self.latency_s)


@record
class Tier:
    """Adjacent levels whose links are alike, which to a message are one. `gpus`: joined by it, None: all; `levels`: their
    indices. `bound`: what waits for it is bound by this word."""

    name: str
    link: Link
    gpus: int | None
    levels: tuple[int, ...]

    @property
    def bound(self) -> str:
        return f"{self.name} link" if self.name in NOT_LINKS else self.name


NOT_LINKS = ("compute", "memory", "latency", "launch", "host")
"""What else an op can be bound by."""
SHORT = ("node", "cluster")
"""Names of the levels that `per_node` tells apart without further sizes."""


@record(slots=False)
class Hardware:
    """A pool of equal GPUs. `compute_flops` maps dtype -> peak FLOP/s; key "default" serves the rest. `levels`: of links,
    innermost first; `per_host`: GPUs of one host, the machine that processes and ports are on. `price_per_s`: money for one GPU over time; `power_W`: what one GPU draws
    at most; None: not given. `host_memory_B`: of one host; `host_link_Bps`: between a GPU's memory and its host's, see `host_link`; `disk_Bps`: from
    the storage of one host. `vendor`: nvidia or amd; `kind`: gpu, or cpu: then a device is a process with its share of the machine."""

    name: str
    gpus: int
    compute_flops: Mapping[str, float]
    mfu: float
    memory_B: float
    hbm_Bps: float
    mbu: float
    launch_s: float
    reserve_B: float
    levels: tuple[Level, ...]
    per_host: int
    calibration: str | None = None
    price_per_s: float | None = None
    power_W: float | None = None
    vendor: str = "nvidia"
    kind: str = "gpu"
    host_memory_B: float | None = None
    host_link_Bps: float | None = None
    disk_Bps: float | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def peak_flops(self, dtype: str) -> float:
        """Datasheet peak for a dtype, FLOP/s."""
        found = dtypes.find(dtype)
        known = dtype if dtype in self.compute_flops or found is None else found.unit
        return self.compute_flops.get(known, self.compute_flops["default"])

    @property
    def host_link(self) -> Link:
        """Between the memory of a GPU and its host's; a copy is launched as kernels are."""
        return Link(host_link_Bps() if self.host_link_Bps is None else self.host_link_Bps, self.launch_s)

    @property
    def per_node(self) -> int:
        """GPUs of the level called `node`, or of the innermost."""
        return node_size(self.levels, self.gpus)

    @property
    def node(self) -> Link:
        """The innermost links."""
        return self.levels[0].link

    @property
    def cluster(self) -> Link:
        """The outermost links."""
        return self.levels[-1].link

    @property
    def short(self) -> bool:
        """Whether `link node` and `link cluster` with `per_node` say all there is to the levels."""
        node, cluster = self.levels[0], self.levels[-1]
        plain = all(level.oversubscription == 1 and level.nics is None for level in self.levels)
        return (
            tuple(level.name for level in self.levels) == SHORT and plain and cluster.gpus is None and bool(node.gpus)
        )

    @property
    def nics(self) -> tuple[int, int] | None:
        """(NICs, GPUs that have so many), in lowest terms; None where no GPU shares one."""
        count = next((level.nics for level in self.levels if level.nics is not None), None)
        if count is None or count >= self.per_node:
            return None
        common = gcd(count, self.per_node)
        return count // common, self.per_node // common

    @cached_property
    def tiers(self) -> tuple[Tier, ...]:
        """The levels as prices see them: adjacent ones whose links are alike as one.

        GPUs have ports of their own for the links inside, and NICs for the levels from the first that names `nics` on; or,
        where none does, from the largest fall of bandwidth on. Bytes that cross a further level of the same ports pass the
        ones inside it, so that no level is faster than those.
        """
        out: list[Tier] = []
        outside = self.outside
        for i, level in enumerate(self.levels):
            link = replace(level.link, onward=i not in (0, outside))
            if out and link.onward:
                link = replace(link, bandwidth_Bps=min(link.bandwidth_Bps, out[-1].link.bandwidth_Bps))
            last = out[-1] if out else None
            alike = last is not None and (last.link.bandwidth_Bps, last.link.latency_s) == (
                link.bandwidth_Bps, link.latency_s
            )  # fmt: skip
            if last is None or not alike or (i == outside and self.nics is not None):
                out.append(Tier(level.name, link, level.gpus, (i,)))
            else:
                both = replace(link, onward=last.link.onward and link.onward)
                out[-1] = Tier(level.name, both, level.gpus, (*last.levels, i))
        return tuple(out)

    @property
    def outside(self) -> int:
        """The first level that goes over NICs."""
        if len(self.levels) == 1:
            return 1
        named = next((i for i, level in enumerate(self.levels) if level.nics is not None), None)
        falls = [a.bandwidth_Bps / b.bandwidth_Bps for a, b in zip(self.levels, self.levels[1:], strict=False)]
        return named if named is not None else 1 + falls.index(max(falls))

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Of the tiers, innermost first."""
        return tuple(tier.link for tier in self.tiers)

    @property
    def domains(self) -> tuple[int, ...]:
        """GPUs in a domain of each tier, innermost first; of the last only where it is the only one."""
        tiers = self.tiers[:-1] or self.tiers
        return tuple(tier.gpus or self.gpus for tier in tiers)

    def changed(self, tier: Tier, bandwidth: float = 1.0, latency_s: float = 0.0) -> Hardware:
        """With the bandwidth of a tier times a factor, and its latency changed by so many seconds, not below none."""
        levels = [
            level
            if i not in tier.levels
            else replace(
                level,
                bandwidth_Bps=level.bandwidth_Bps * bandwidth,
                latency_s=max(0.0, level.latency_s + latency_s),
            )
            for i, level in enumerate(self.levels)
        ]
        return replace(self, levels=tuple(levels))


def node_size(levels: Sequence[Level], gpus: int) -> int:
    """GPUs of the level called `node`, or of the innermost; where it joins all, of the pool."""
    return next((level for level in levels if level.name == SHORT[0]), levels[0]).gpus or gpus


@record
class Fault:
    """What is wrong with a level: its index and attribute, a message, and what helps."""

    level: int
    attribute: str
    code: str
    message: str
    help: str


def faults(levels: Sequence[Level], gpus: int, per_host: int | None = None) -> Iterator[Fault]:
    """Levels that do not nest, that leave GPUs apart, or whose NICs are too many or not the same. `per_host`: where given."""
    inner: int | None = None
    for i, level in enumerate(levels):
        name, size = f"`link {level.name}`", level.gpus
        if size is None and i < len(levels) - 1:
            yield Fault(
                i, "", "E10", f"{name} does not say how many GPUs it joins",
                f"`gpus = ...`: only the outermost link, `link {levels[-1].name}`, joins all without it",
            )  # fmt: skip
            return
        within = f"`link {levels[i - 1].name}`"
        if inner is not None and size is not None and size <= inner:
            yield Fault(
                i, "gpus", "E03", f"{name} joins {size} GPUs, no more than the {inner} of {within} inside it",
                "links are written innermost first, each joins more GPUs than the one before",
            )  # fmt: skip
            return
        if inner is not None and size is not None and size % inner:
            yield Fault(
                i, "gpus", "E03", f"{name} joins {size} GPUs, not a multiple of the {inner} of {within} inside it",
                f"{size - size % inner} and {size - size % inner + inner} are multiples of {inner}",
            )  # fmt: skip
            return
        inner = size
    last = levels[-1]
    if last.gpus is not None and last.gpus < gpus:
        yield Fault(
            len(levels) - 1, "gpus", "E10", f"no link joins all {gpus} GPUs: `link {last.name}` joins {last.gpus}",
            "a further link without `gpus` joins all: `link cluster { bandwidth = ..., latency = ... }`",
        )  # fmt: skip
    per_node = node_size(levels, gpus)
    first: Level | None = None
    for i, level in enumerate(levels):
        if level.nics is None:
            continue
        if i == 0:
            yield Fault(
                i, "nics", "E12", f"`link {level.name}` is the innermost: GPUs reach it through ports of their own",
                "`nics` belongs to the first link that nodes are joined by",
            )  # fmt: skip
        elif level.nics > per_node:
            yield Fault(
                i, "nics", "E09", f"{level.nics} NICs for the {per_node} GPUs of a node are more than one each",
                "`bandwidth` is per GPU where each has NICs of its own",
            )  # fmt: skip
        elif first is not None and first.nics != level.nics:
            yield Fault(
                i, "nics", "E03", f"a node has {level.nics} NICs here and {first.nics} in `link {first.name}`",
                "further links go over the same NICs: give `nics` once",
            )  # fmt: skip
        first = first or level
    for level in levels:
        if per_host is not None and level.gpus is not None and level.gpus % per_host and per_host % level.gpus:
            yield Fault(
                -1, "per_host", "E03", f"hosts of {per_host} GPUs and the {level.gpus} of `link {level.name}` do not nest",
                "one is a multiple of the other",
            )  # fmt: skip
            return
