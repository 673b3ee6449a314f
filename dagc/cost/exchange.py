"""exchange: measured times of collectives and of tokens on their way to experts and back.

Inside a domain an all-reduce is the engine's choice, as its table has it: kernels of its own, or NCCL. Between nodes a
collective is NCCL's, for the engines' own kernels reach over NVLink alone. Two rules apply beyond the measured range. An
exchange between nodes is never faster than the same one inside a node, whose launches and protocols it has too. And beyond
the ranks that a kernel was measured on, a domain is never slower than the same ranks as nodes joined by the domain's own
links: it can run what they run, though what they would send inside and between them passes the same ports. No price is below
the time that the links need for what passes them. Prices never fall as messages grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..base.collectives import ACROSS, COLLECTIVES
from ..base.dtypes import DTYPE_BYTES, dtype
from ..base.frozen import replace
from ..calib import all_to_all, cluster_collective, cluster_exchange, collective, custom_allreduce, domain_a2a, moe_a2a
from ..calib.calibration import Calibration
from ..calib.constants import Entry
from ..calib.family import ENGINES, Family
from ..calib.rising import rising_s
from ..calib.shape import Floats
from ..ir.groups import GroupShape
from ..ir.op import Op
from ..ir.ops.attributes.experts import DispatchAttrs
from ..ir.routed_dims import kept_choices, rows_of
from ..ir.segment import Segment
from ..spec.hardware import Hardware, Link
from ..spec.unit import Unit
from .measured import Measured, faster, scaled
from .network import Network, beyond_ports, collective_time, ports_s

C = TypeVar("C")
SCALE_BLOCK = 128
"""Elements that share one fp32 scale when tokens are dispatched in fewer bits (deepseek-ai/DeepEP)."""


class Kernel(NamedTuple):
    """A family that times a collective, and which of its variants; without one, the engine's own under a CUDA graph or
    without."""

    family: Family[Any]
    variant: str = ""
    name: str = ""


def _nccl(kind: str) -> Kernel:
    return Kernel(collective.FAMILY, kind, f"nccl {kind}")


KERNELS: Mapping[str, tuple[Kernel, ...]] = {
    "all_reduce": (Kernel(custom_allreduce.FAMILY), _nccl("all_reduce")),
    "all_gather": (_nccl("all_gather"),),
    "reduce_scatter": (_nccl("reduce_scatter"),),
    "all_to_all": (Kernel(all_to_all.FAMILY, "all_to_all", "all_to_all"),),
    "permute": (),
    **{kind: () for kind in ACROSS},
}
"""Measured families of each collective, the first that was measured on so many ranks decides: an engine's times are those of
its choice between its kernels and NCCL. None where only the model of the network prices it."""


V2_MODES = {True: "_context", False: "_generation"}
"""Kernels of DeepEP's version 2, where prompts are taken in and where not."""


class Tokens(NamedTuple):
    """What one rank sends to experts or gets back from them. `back`: combine, else dispatch."""

    tokens: float
    hidden: float
    top_k: float
    element_B: float
    back: bool

    def sizes(self, ranks: int, element_B: float | None = None) -> tuple[float, ...]:
        """Arguments of the families of kernels for tokens."""
        sent_B = self.element_B if element_B is None else element_B
        return (float(self.tokens), float(self.hidden), float(self.top_k), float(ranks), float(sent_B))

    def buffer_B(self, copies: float) -> float:
        """Bytes of the rows with so many copies of a token."""
        return float(self.tokens * self.hidden * self.element_B * copies)


class Option(NamedTuple):
    """A measured kernel, and the most ranks that it was measured on."""

    found: Measured
    most_ranks: float

    @property
    def time_s(self) -> float:
        return float(self.found.time_s)


class Exchanges:
    """Times of the collectives of one segment."""

    def __init__(self, segment: Segment, unit: Unit, hardware: Hardware, calibration: Calibration) -> None:
        self.segment, self.unit, self.hardware, self.calibration = segment, unit, hardware, calibration
        self.faster = faster(calibration, hardware)

    def measured(self, op: Op, payload_B: float, group: GroupShape, estimate_s: float) -> Measured | None:
        """One call, or None where no measured kernel decides; `payload_B`: the local input buffer, `estimate_s`: by the
        model of the network."""
        if group.ranks < 2:
            return None
        sent = self._sent(op, payload_B)
        network = beyond_ports(op.runtime_kind, payload_B, group, self.hardware.links)
        if network is None:
            return self._inside(op, payload_B, group, sent)
        known = max((o.most_ranks for o in self._options(op, payload_B, group.ranks, sent)), default=0)
        within = int(min(group.ranks, known))
        inside = self._inside(op, payload_B, GroupShape(within, within, 1), sent) if known > 1 else None
        if sent:
            passed = self._over_nodes(sent, network.domains, network.link_Bps)
            forwarded_s = self._forwarded_s(sent, network.domains, group.ranks)
            over: Measured | None = passed.at(np.maximum(passed.time_s, forwarded_s))
        else:
            over = self._nccl_over_nodes(op, payload_B, group.ranks, network, estimate_s)
        over_s = estimate_s if over is None else float(over.time_s)
        return inside if inside is not None and float(inside.time_s) > over_s else over

    def _sent(self, op: Op, payload_B: float) -> Tokens | None:
        """What kernels for tokens would send."""
        return self.tokens(op, payload_B) if op.is_token_exchange else None

    # -- inside a node or NVLink domain ----------------------------------------------------------

    def _inside(self, op: Op, payload_B: float, group: GroupShape, sent: Tokens | None) -> Measured | None:
        found = self._at_most_nodes(op, payload_B, group.ranks, sent)
        if found is None:
            return None
        least_s = ports_s(op.runtime_kind, found.buffer_B or payload_B, group, self.hardware.links)
        return found.at(np.maximum(found.time_s, least_s))

    def _at_most_nodes(self, op: Op, payload_B: float, ranks: int, sent: Tokens | None) -> Measured | None:
        """Beyond the ranks that were measured no slower than nodes."""
        options = self._options(op, payload_B, ranks, sent)
        known = [option for option in options if ranks <= option.most_ranks]
        if not options:
            return None
        if known and not sent:
            return known[0].found
        # Of the kernels for tokens the engine's own; of several, as inside one domain, engines take the fastest.
        best = min(known or options, key=lambda option: (option.found.instead_of != "", option.time_s)).found
        if known:
            return best
        if sent:
            links, counts = self.hardware.links[0].bandwidth_Bps, [n for n in range(2, ranks + 1) if ranks % n == 0]
            nodes = counts[int(np.argmin(self._over_nodes_s(sent, np.array(counts), links, ranks)))]
            joined = self._over_nodes(sent, nodes, links, ranks)
            if float(joined.time_s) < float(best.time_s):
                return replace(best, time_s=joined.time_s, buffer_B=joined.buffer_B)
            return best
        return replace(best, time_s=np.minimum(best.time_s, self._as_nodes_s(op, payload_B, ranks)))

    def _options(self, op: Op, payload_B: float, ranks: int, sent: Tokens | None) -> list[Option]:
        """Kernels that were measured; where none takes tokens to experts, the plain ones."""
        routed = [*self._token_kernels(sent, ranks)] if sent else []
        return routed or [*self._collective_kernels(op, payload_B, ranks)]

    def _as_nodes_s(self, op: Op, payload_B: float, ranks: int) -> float:
        """The ranks of one domain as nodes of any equal size, joined by the domain's links. What an algorithm sends inside and
        between nodes at once has the same ports."""
        inside, outside = self.hardware.links[0], self.hardware.links[-1]
        between = Link(inside.bandwidth_Bps, outside.latency_s)
        shapes = [GroupShape(ranks, size, ranks // size) for size in range(1, ranks) if ranks % size == 0]
        least_s = ports_s(op.runtime_kind, payload_B, GroupShape(ranks, ranks, 1), self.hardware.links)

        def joined_s(shape: GroupShape) -> float:
            found, moving = (
                collective_time(op.runtime_kind, payload_B, shape, inside, between, floor=floor)
                for floor in (False, True)
            )
            return found.time_s + max(0.0, least_s - moving.time_s)

        return min(joined_s(shape) for shape in shapes)

    def _collective_kernels(
        self, op: Op, payload_B: float, ranks: int, kernels: Sequence[Kernel] | None = None
    ) -> Iterator[Option]:
        size_B = payload_B * COLLECTIVES[op.runtime_kind].buffer(ranks)
        for kernel in KERNELS[op.runtime_kind] if kernels is None else kernels:
            entry = self._find(kernel.family, kernel.variant or ("graph" if self.unit.phase.cuda_graph else "eager"))
            if entry is not None:
                outside = tuple(entry.outside(num_gpus=ranks, bytes=size_B))
                time_s = rising_s(kernel.family, entry, 1, float(ranks), size_B)
                found = Measured.of(time_s, kernel.name or f"{entry.engine} {op.runtime_kind}", entry, outside)
                yield Option(found, entry.shapes["num_gpus"][1])

    def _token_kernels(self, sent: Tokens, ranks: int) -> Iterator[Option]:
        """Those that the phase names, else DeepEP's for such a phase, and kernels of a whole domain where it was timed with
        them: one-sided; or two-sided, which exchange counts before a dispatch."""
        phase = self.unit.phase
        direction = "combine" if sent.back else "dispatch"
        for name in (phase.exchange,) if phase.exchange else (phase.exchanges, *domain_a2a.KERNELS.values()):
            family = domain_a2a.FAMILY if name in domain_a2a.KERNELS.values() else moe_a2a.FAMILY
            backend = name + V2_MODES[phase.takes_prompts] if name == "deepep_v2" else name
            parts = [direction, "prepare"] if name == "nvlink_two_sided" and not sent.back else [direction]
            find = self._anywhere if phase.exchange else self._here
            entries = [find(family, moe_a2a.key(backend, part)) for part in parts]
            found = [entry for entry in entries if entry is not None]
            if len(found) == len(parts):
                yield self._token_kernel(family, found, sent, ranks)

    def _token_kernel(self, family: Family[Any], parts: list[Entry[Any]], sent: Tokens, ranks: int) -> Option:
        """One kernel, or several one after the other of which the first moves the rows and the others counts alone."""
        entry = parts[0]
        sms = (moe_a2a.SMS_V2,) if entry.variant.startswith("deepep_v2") else ()
        total = rising_s(family, entry, 0, *sent.sizes(ranks), *sms)
        narrowest = entry.shapes.get("hidden_size", (0.0, 0.0))[0]
        # What was learned of wide tokens says little of narrow ones, which have fewer bytes.
        if sent.hidden < narrowest:
            wider = sent._replace(hidden=narrowest)
            total = np.minimum(total, rising_s(family, entry, 0, *wider.sizes(ranks), *sms))
        for other in parts[1:]:
            total = total + rising_s(family, other, 0, *sent.sizes(ranks, 0.0))
        outside = tuple(entry.outside(num_tokens=sent.tokens, ep_size=ranks))
        copies = sent.top_k if "_ll_" in entry.variant else float(moe_a2a.ranks_hit(sent.top_k, ranks))
        found = replace(Measured.of(total, entry.variant, entry, outside), buffer_B=sent.buffer_B(copies))
        return Option(found, entry.shapes["ep_size"][1])

    def _find(self, family: Family[C], variants: str | tuple[str, ...]) -> Entry[C] | None:
        """The entry of the phase's engine, else the nearest."""
        entry = self.calibration.find(family, variants, self.unit.phase.engine)
        return scaled(entry, self.faster) if entry is not None else None

    def _here(self, family: Family[C], variant: str) -> Entry[C] | None:
        """The same if somebody timed it on this very GPU: whether kernels for tokens run at all depends on GPU and links."""
        entry = self._find(family, variant)
        return entry if entry is not None and entry.gpu == self.calibration.gpu else None

    def _anywhere(self, family: Family[C], variant: str) -> Entry[C] | None:
        """The nearest, if need be another engine's on another GPU."""
        engine, gpu = self.unit.phase.engine, self.calibration.gpu
        for other in (engine, *(each for each in ENGINES if each != engine)):
            entry = self.calibration.find(family, variant, other)
            if entry is not None:
                own = entry if other == engine else _instead_of(entry, f"{engine} on {gpu}")
                return scaled(own, self.faster)
        return None

    # -- over nodes ------------------------------------------------------------------------------

    def tokens(self, op: Op, payload_B: float) -> Tokens:
        source = self.segment.by_name[op.inputs[0]]
        while source.is_collective:
            source = self.segment.by_name[source.inputs[0]]
        back, rows = not isinstance(source.attrs, DispatchAttrs), rows_of(op.dims)
        assert rows is not None
        hidden, top_k = self.segment.size(op.dims[-1]), kept_choices(self.segment, rows)
        element_B = DTYPE_BYTES[op.dtype]
        tokens = payload_B / (hidden * element_B * top_k)
        if not back and (sent := self.unit.phase.dispatch_dtype) is not None:
            element_B = DTYPE_BYTES[sent] + (4 / SCALE_BLOCK if dtype(sent).quantised else 0.0)
        return Tokens(tokens, hidden, top_k, element_B, back)

    def _over_nodes(self, sent: Tokens, nodes: int, link_Bps: float, ranks: int | None = None) -> Measured:
        """`ranks`: of the one domain that the nodes are parts of."""
        kernel = self._cluster_kernel(sent)
        median = cluster_exchange.constants()[kernel].median
        time_s = self._over_nodes_s(sent, nodes, link_Bps, ranks)
        copies = self._copies(sent, ranks or nodes)
        return Measured(time_s, f"cluster_{kernel}", median, buffer_B=sent.buffer_B(copies))

    def _over_nodes_s(self, sent: Tokens, nodes: Any, link_Bps: float, ranks: int | None) -> Floats:
        """`nodes`: a number, or an array of them."""
        return cluster_exchange.time_s(
            cluster_exchange.constants()[self._cluster_kernel(sent)].constants,
            sent.tokens, sent.hidden * sent.element_B, sent.top_k, nodes, link_Bps,
            sms=moe_a2a.SMS_V2 if self.unit.phase.exchanges == "deepep_v2" else moe_a2a.SMS, reach=self._reach(nodes),
            domain=None if ranks is None else (ranks, self._reach(ranks)),
        )  # fmt: skip

    def _forwarded_s(self, sent: Tokens, nodes: int, ranks: int) -> float:
        """Seconds that the innermost links need for the copies that come to a rank over no NIC."""
        passed, received = (self._copies(sent, parts) * (1 - 1 / parts) for parts in (nodes, ranks))
        return sent.buffer_B(max(0.0, received - passed)) / self.hardware.links[0].bandwidth_Bps

    def _cluster_kernel(self, sent: Tokens) -> str:
        speed = "ll" if self.unit.phase.exchanges == "deepep_ll" else "ht"
        return f"{speed}_{'combine' if sent.back else 'dispatch'}"

    def _copies(self, sent: Tokens, parts: int) -> float:
        """Of a token for nodes or ranks, its own included."""
        c = cluster_exchange.constants()[self._cluster_kernel(sent)].constants
        return float(cluster_exchange.copies_of(c, sent.top_k, parts, self._reach(parts)))

    def _reach(self, parts: Any) -> Any:
        """Of so many parts, those that routing lets a token reach."""
        model = self.unit.spec.model
        groups = model.count("experts.groups", 1)
        limit = model.count("experts.groups_limit", 1)
        return cluster_exchange.reach(groups, limit, parts) if groups > 1 else float("inf")

    def _nccl_over_nodes(
        self, op: Op, payload_B: float, ranks: int, network: Network, estimate_s: float
    ) -> Measured | None:
        """A plain collective: NCCL's inside a node, whose launch and steps it has too, and the hops between nodes."""
        nccl = [kernel for kernel in KERNELS[op.runtime_kind] if kernel.variant]
        # A user's calibration may know an engine's kernel alone.
        for kernels in (nccl, KERNELS[op.runtime_kind]):
            if options := [*self._collective_kernels(op, payload_B, ranks, kernels)]:
                break
        else:
            return None
        known = int(min(ranks, options[0].most_ranks))
        inside = next(self._collective_kernels(op, payload_B, known, kernels)).found
        time_s = cluster_collective.time_s(
            op.runtime_kind, float(inside.time_s), network.wire_B, network.domains, network.link_Bps
        )
        if time_s <= estimate_s:
            return None
        return replace(inside, time_s=np.asarray(time_s), family=f"{inside.family}, between nodes", outside=())


@lru_cache(maxsize=256)
def _instead_of(entry: Entry[C], missing: str) -> Entry[C]:
    return replace(entry, instead_of=missing)
