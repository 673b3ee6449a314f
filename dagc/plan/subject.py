"""What metrics are of: a plan and one of its phases, with what several of them need worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..base.collectives import REQUESTS
from ..base.dtypes import DTYPE_BYTES
from ..base.frozen import field, record, replace
from ..base.phase_kinds import PREFILL
from ..base.units import Quantity
from ..cost.attention_bytes import AttentionBytes, attention_bytes
from ..cost.footprint import StageMemory
from ..cost.fused_blocks import launches
from ..cost.kv_cache import cache_policy, host_bytes, kept_share, sequence_tokens
from ..ir.mesh import Mesh
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, state_of
from ..ir.requests import request_moves
from ..spec.exits import depth as mean_depth
from ..spec.hardware import Hardware, Link
from ..spec.metrics.known_metrics import TABLE, of_phase, of_serving, of_training
from ..spec.metrics.metric import HARDWARE, MODEL, PHASE, SERVE, TRAIN, Metric
from ..spec.phase import Phase
from ..spec.spec import Spec
from .pools import Pool, kv_tokens
from .result import PhaseResult

if TYPE_CHECKING:
    from ..serving.result import ServeResult
    from .trained import TrainingResult


@record(slots=False)
class Subject:
    """`name`: the phase, the serving, or the pool of GPUs that is asked about; metrics of the plan itself need none. `params`: (total, active per
    token). `servings`: those that were simulated."""

    spec: Spec
    phases: Mapping[str, PhaseResult]
    params: tuple[float, float]
    pools: Sequence[Pool]
    name: str = ""
    servings: Mapping[str, ServeResult] = field(default_factory=dict)
    trainings: Mapping[str, TrainingResult] = field(default_factory=dict)

    def of(self, name: str) -> Subject:
        """The same plan, one of its phases."""
        return replace(self, name=name)

    @property
    def result(self) -> PhaseResult:
        return self.phases[self.name]

    @property
    def depth(self) -> float | None:
        """Layers that a token goes through on average; None where none is generated."""
        phase = self.spec.phase(self.name)
        return mean_depth(phase.exits, self.spec.model.layers) if phase.generates else None

    @property
    def padding(self) -> float | None:
        """Share of what a pass takes in that belongs to no prompt; None where all are equally long."""
        phase = self.spec.phase(self.name)
        return None if phase.lengths is None else 1.0 - phase.filled

    @property
    def step(self) -> TrainingResult:
        return self.trainings[self.name]

    @property
    def serving(self) -> ServeResult:
        return self.servings[self.name]

    def of_change(self, value: float) -> float | None:
        """A figure of how workers of the serving change roles, where that is worked out."""
        serve = self.spec.serve(self.name)
        return value if serve.roles == "switch" and serve.switch_s is None else None

    def time_s(self, name: str) -> float | None:
        """The phase's time, if that is what phases of its kind call it."""
        return self.result.time_s if self.result.phase_kind.metric == name else None

    @property
    def mesh(self) -> Mesh:
        return self.result.graph.the_mesh

    @property
    def gpus(self) -> float:
        if self.name in self.trainings:
            return float(len(self.step.gpus))
        return float(len(self.result.gpus))

    @property
    def price_per_s(self) -> float | None:
        """Money over time for the GPUs of the phase or serving; None: not given."""
        return self._together(lambda hardware: hardware.price_per_s)

    @property
    def power_W(self) -> float | None:
        """What these GPUs draw at most; None: not given."""
        return self._together(lambda hardware: hardware.power_W)

    def _together(self, each: Callable[[Hardware], float | None]) -> float | None:
        """What one GPU has, summed over those of the phase or serving."""
        if self.name not in self.servings:
            own = self._mean(self.name, each) if self.name in (*self.phases, *self.trainings) else each(self.hardware)
            return None if own is None else own * self.gpus
        serve, total = self.spec.serve(self.name), 0.0
        for role in self.serving.roles:
            phase = serve.prefill if role.role == PREFILL.name else serve.decode or serve.mixed or serve.prefill
            own = self._mean(str(phase), each)
            if own is None:
                return None
            total += own * role.gpus
        return total

    def _mean(self, name: str, each: Callable[[Hardware], float | None]) -> float | None:
        """Of the GPUs of a phase, which may be of two pools."""
        phase = self.spec.phase(name)
        own, count = each(self.of(name).hardware), len(phase.gpus)
        if phase.strategy.apart is None or own is None:
            return own
        there = each(self.spec.of(phase).experts_on(phase))
        return None if there is None else (own * count + there * (phase.gpu_count - count)) / phase.gpu_count

    @cached_property
    def load_s(self) -> float | None:
        """Seconds until every GPU of the phase has its weights: what the GPUs of a host hold, copies of one weight each for itself, comes from
        the host's storage; and no GPU takes less than its own over its link. None: no figure for the storage."""
        disk_Bps, each_s = self.hardware.disk_Bps, 0.0
        if disk_Bps is None:
            return None
        hosts: dict[int, float] = {}
        for seat, need in zip(self.result.seats, self.result.memory.stages, strict=True):
            each_s = max(each_s, need.weights_B / self.hardware.host_link.bandwidth_Bps)
            for gpu in seat.ids:
                host = gpu // self.hardware.per_host
                hosts[host] = hosts.get(host, 0.0) + need.weights_B
        return max(each_s, max(hosts.values()) / disk_Bps)

    @cached_property
    def phase(self) -> Phase:
        return self.spec.phase(self.name)

    @cached_property
    def hardware(self) -> Hardware:
        """The pool of the phase, or the pool itself."""
        if self.name in self.phases or self.name in self.trainings:
            return self.spec.of(self.phase).hardware
        return self.spec.pools.get(self.name, self.spec.hardware)

    @cached_property
    def held(self) -> list[Pool]:
        """What GPUs of the pool hold."""
        return [pool for pool in self.pools if pool.hardware in ("", self.hardware.name)]

    @cached_property
    def memory(self) -> StageMemory:
        """Of the fullest stage."""
        return self.result.memory.worst

    @cached_property
    def shared(self) -> list[Pool]:
        """GPUs that the phase shares with another."""
        return [pool for pool in self.pools if pool.shared and self.name in pool.phases]

    @property
    def cached_tokens(self) -> int:
        """Tokens of all its sequences when its cache is fullest."""
        return sum(part.sequences * part.context for part in self.phase.as_parts)

    @cached_property
    def attention(self) -> AttentionBytes | None:
        """What attention moves in a pass; None where nothing attends."""
        return attention_bytes(self.result.graph)

    @cached_property
    def launches(self) -> float:
        """Kernels that a GPU launches in a pass."""
        costs = self.result.costs
        if costs.kernels is not None:
            return costs.kernels
        return launches(self.result.graph, costs.ops, apart=self.phase.fuse == ())

    @cached_property
    def host_B(self) -> float | None:
        """Cache and experts that host memory keeps for the fullest GPU; None: all of them are on GPUs."""
        experts = self.result.expert_cache
        return (
            host_bytes(self.result.graph, cache_policy(self.phase)) + (0.0 if experts is None else experts.host_B)
            or None
        )

    @cached_property
    def host_copies_B(self) -> float | None:
        """That come from host memory and go there in a pass, of one GPU; None: nothing does."""
        experts, cache = self.result.expert_cache, self.attention
        found = (0.0 if experts is None else experts.copied_B) + (0.0 if cache is None else cache.copied_B)
        return found or None

    @cached_property
    def room(self) -> float | None:
        """Tokens of cache that the fullest stage has room for; None: nothing is cached."""
        room = min(kv_tokens(self.result, self.pools, self.cached_tokens))
        return room if isfinite(room) else None

    def calls(self, kind: str) -> float:
        """Calls of a collective by one device per stage in one pass."""
        graph = self.result.graph
        if kind in REQUESTS:
            return float(sum(m.kind == kind for m in request_moves(graph)) * graph.microbatches * graph.lanes)
        return float(sum(c.count for c in self.result.collectives if c.kind == kind))

    @cached_property
    def transfer(self) -> tuple[float, float] | None:
        """(bytes, seconds) to send the cache of one sequence to its receiver; None where there is none."""
        return None if self.receiver is None else kv_transfer(self.result, self.receiver, self.spec)

    @cached_property
    def receiver(self) -> PhaseResult | None:
        """The first decode on other GPUs, to which a link leads, of a phase that takes prompts."""
        own = self.result
        if not own.graph.takes_prompts:
            return None
        apart = (r for r in self.phases.values() if r.graph.generates and not r.shares(own))
        return next((r for r in apart if joined(own, r, self.spec) is not None), None)


def phase_metrics(subject: Subject) -> dict[str, Quantity]:
    """Metrics of one phase by their name alone, in the order of the table."""
    found = ((m, m.how(subject)) for m in of_phase())
    return {m.name: Quantity(value, m.dim) for m, value in found if value is not None}


def serving_metrics(subject: Subject) -> dict[str, Quantity]:
    """Metrics of one serving by their name alone, in the order of the table; what is not finite is left out."""
    found = ((m, m.how(subject)) for m in of_serving())
    return {m.name: Quantity(value, m.dim) for m, value in found if value is not None and isfinite(value)}


def result_metrics(subject: Subject, result: ServeResult) -> dict[str, float]:
    """Metrics of any result of a serving of the plan, in SI units."""
    found = serving_metrics(replace(subject, name=result.name, servings={result.name: result}))
    return {name: q.value for name, q in found.items()}


def training_metrics(subject: Subject) -> dict[str, Quantity]:
    """Metrics of one training phase by their name alone, in the order of the table."""
    found = ((m, m.how(subject)) for m in of_training())
    return {m.name: Quantity(value, m.dim) for m, value in found if value is not None}


def keyed(
    subject: Subject,
    key: Callable[[Metric], str],
    beside: Mapping[str, tuple[str, Any]],
    metrics: Sequence[Metric] | None = None,
) -> dict[str, Any]:
    """Values by what an output calls them (nothing: it has them not, or elsewhere), and behind some of them a name and value
    that say more. `metrics`: those of a phase, unless given."""
    out: dict[str, Any] = {}
    for m in of_phase() if metrics is None else metrics:
        name = key(m)
        if name and "." not in name and (value := m.how(subject)) is not None:
            out[name] = value
            if name in beside:
                more, what = beside[name]
                out[more] = what
    return out


def all_metrics(subject: Subject) -> dict[str, Quantity]:
    """Every name that a requirement on the plan may use, with its value and dimension."""
    spec = subject.spec
    out = {k: v for k, v in spec.constants.items() if isinstance(v, Quantity)}
    out |= {f"model.{k}": v for k, v in spec.model.attributes.items() if isinstance(v, Quantity)}
    found = ((m, m.how(subject)) for m in TABLE if m.owner not in (PHASE, SERVE, TRAIN))
    out |= {m.full: Quantity(value, m.dim) for m, value in found if value is not None}
    if spec.others:
        out = {k: v for k, v in out.items() if not k.startswith(f"{HARDWARE}.")}
        for name in spec.pools:
            pool = subject.of(name)
            of_pool = ((m, m.how(pool)) for m in TABLE if m.owner == HARDWARE)
            out |= {f"{name}.{m.name}": Quantity(value, m.dim) for m, value in of_pool if value is not None}
    for name in subject.phases:
        out |= {f"{name}.{k}": v for k, v in phase_metrics(subject.of(name)).items()}
    for name in subject.trainings:
        out |= {f"{name}.{k}": v for k, v in training_metrics(subject.of(name)).items()}
    for name in subject.servings:
        out |= {f"{name}.{k}": v for k, v in serving_metrics(subject.of(name)).items()}
    return out


class AskedMetrics(Mapping[str, Quantity]):
    """The same, each found as it is asked for: requirements name few. `known`: those that were."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.known: dict[str, Quantity] = {}
        self.every: dict[str, Quantity] | None = None
        groups = ((subject.phases, of_phase), (subject.trainings, of_training), (subject.servings, of_serving))
        self.owners = {name: (subject.of(name), metrics) for names, metrics in groups for name in names}

    def __getitem__(self, name: str) -> Quantity:
        if name not in self.known:
            found = self._alone(name) if self.every is None else None
            self.known[name] = self.whole[name] if found is None else found
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def whole(self) -> dict[str, Quantity]:
        if self.every is None:
            self.every = all_metrics(self.subject)
        return self.every

    def _alone(self, name: str) -> Quantity | None:
        """A constant, a figure of the model, or a metric of a phase or serving."""
        owner, dot, rest = name.partition(".")
        if not dot:
            constant = self.subject.spec.constants.get(name)
            return constant if isinstance(constant, Quantity) else None
        if owner not in self.owners:
            return self._of_model(name) if owner == MODEL else None
        subject, metrics = self.owners[owner]
        metric = next((one for one in metrics() if one.name == rest), None)
        value = None if metric is None else metric.how(subject)
        if metric is None or value is None or (owner in subject.servings and not isfinite(value)):
            return None
        return Quantity(value, metric.dim)

    def _of_model(self, name: str) -> Quantity | None:
        metric = next((one for one in TABLE if one.owner == MODEL and one.full == name), None)
        value = None if metric is None else metric.how(self.subject)
        if metric is not None and value is not None:
            return Quantity(value, metric.dim)
        stated = self.subject.spec.model.attributes.get(name.partition(".")[2])
        return stated if isinstance(stated, Quantity) else None


def kv_transfer(prefill: PhaseResult, decode: PhaseResult, spec: Spec) -> tuple[float, float]:
    """(bytes, seconds) to send the cache of one sequence from the GPUs of one phase to those of another.

    Every rank that holds a part of it sends over its own link between nodes or pools; the phase with fewer such ranks sets the pace.
    Raises ValueError where no link joins their pools.
    """
    link = joined(prefill, decode, spec)
    if link is None:
        raise ValueError(f"no link joins {prefill.hardware} and {decode.hardware}")
    size_B = sequence_cache_B(prefill, spec, PREFILL.name)
    links = min(_ranks_of_a_sequence(prefill), _ranks_of_a_sequence(decode))
    return size_B, size_B / (links * link.bandwidth_Bps) + link.latency_s


def sequence_cache_B(result: PhaseResult, spec: Spec, kind: str) -> float:
    """Bytes of the cache and states of one sequence, all layers together, when it is fullest; of a pass of this kind."""
    size_B = 0.0
    policy = cache_policy(spec.phase(result.name))
    for segment in result.graph.segments:
        for op in (state_of(segment, op) or op for op in segment.ops):
            if OPS[op.kind].tokens is Tokens.CACHE:
                each_B = segment.count(op.dims, op.scope) / segment.size("batch", op.scope) * DTYPE_BYTES[op.dtype]
                each_B *= kept_share(op)[0]
                if "context" in op.dims:
                    each_B *= sequence_tokens(segment, op, kind, policy) / segment.size("context", op.scope)
                size_B += each_B * segment.repeat
    return size_B


def joined(one: PhaseResult, other: PhaseResult, spec: Spec) -> Link | None:
    """The links between the GPUs of two phases; None where no link joins their pools."""
    if one.hardware == other.hardware:
        ids = (gpu for result in (one, other) for gpu in result.graph.the_mesh.the_gpus.ids)
        return joining(spec.of(spec.phase(one.name)).hardware, tuple(ids))
    found = spec.pool_link(one.hardware, other.hardware)
    return None if found is None else found.link


def joining(hardware: Hardware, gpus: Sequence[int]) -> Link:
    """The innermost links between nodes that join these GPUs; what all GPUs of a node get at once where they share NICs."""
    tiers = hardware.tiers
    inside = (t for t in tiers[1:-1] if t.gpus and min(gpus) // t.gpus == max(gpus) // t.gpus)
    link = next(inside, tiers[-1]).link
    nics, sharing = hardware.nics or (1, 1)
    return replace(link, bandwidth_Bps=link.bandwidth_Bps * nics / sharing)


def _ranks_of_a_sequence(result: PhaseResult) -> int:
    """GPUs that hold the cache of one sequence."""
    return max(1, len(result.graph.the_mesh.the_gpus.ids) // result.batch_ways)
