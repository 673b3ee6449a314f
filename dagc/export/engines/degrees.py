"""What an engine must reproduce: the degrees of a phase, and which rank each of its GPUs is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np

from ...base.axes import REPLICA
from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...ir.graph import Graph
from ...ir.mesh import axis_coordinates
from ...spec.factors import factorisations
from ...spec.phase import Phase
from ...spec.spec import Spec
from ...spec.strategy import Strategy
from ...spec.unit import Unit


@record(slots=False)
class EngineDegrees:
    """Degrees of attention (dp, sp, tp) and experts (edp, ep, etp) of a stage. `at`: axis -> coordinate of each GPU, GPU
    ids ascending. `exchanges`: routed tokens travel between ranks. `windows`: some attention sees a part of the context. Of replicas
    these are of the first; `replicas`: GPU ids of each, `alike`: whether all are laid out in the same way."""

    spec: Spec
    phases: tuple[Phase, ...]
    gpus: tuple[int, ...]
    per_host: int
    degree: Mapping[str, int]
    at: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]
    layers: tuple[int, ...]
    exchanges: bool
    windows: bool
    replicas: tuple[tuple[int, ...], ...]
    alike: bool

    def serves(self, phase: Phase) -> bool:
        """Whether the phase runs on some of its GPUs, exported or not."""
        return self.phases[0].shares(phase)

    @property
    def of_pool(self) -> str:
        """` of NAME` behind its GPUs, where there are several pools."""
        hardware = self.phases[0].hardware
        return f" of {hardware}" if hardware else ""

    @property
    def strategy(self) -> Strategy:
        return self.phases[0].strategy

    @property
    def name(self) -> str:
        return "+".join(p.name for p in self.phases)

    @property
    def moe(self) -> bool:
        return "experts.count" in self.spec.model.attributes

    @property
    def copies(self) -> int:
        """Replicas: servers of the same phases."""
        return len(self.replicas)

    @property
    def nodes(self) -> list[list[int]]:
        """GPU ids of each host, which engines call a node."""
        return hosts(self.gpus, self.per_host)

    @property
    def kinds(self) -> set[str]:
        """Of all phases that run on its GPUs, also of those that are not exported."""
        return {part.kind for p in self.spec.phases if self.serves(p) for part in p.as_parts}

    @property
    def dcp(self) -> int:
        """Ranks of tp that share the context of its decode phases, the most of any."""
        return max(phase.strategy.dcp for phase in self.phases)

    @property
    def graphs(self) -> bool:
        """Any phase runs its steps as CUDA graphs."""
        return any(p.cuda_graph for p in self.phases)

    def sequences(self, kind: str) -> int:
        """Of one server in its phases of a kind, 0 where it has none."""
        most = max((part.sequences for p in self.phases for part in p.as_parts if part.kind == kind), default=0)
        return ceil(most / self.copies)

    @property
    def batch_tokens(self) -> int:
        """Tokens of a rank's micro-batch in the first phase that takes in prompts; 0 where none does."""
        phase = next((p for p in self.phases if p.takes_prompts), None)
        share = self.copies * self.degree["dp"] * self.strategy.microbatches
        return sum(ceil(p.sequences / share) * p.tokens for p in phase.as_parts) if phase is not None else 0

    @property
    def decode_tokens(self) -> int:
        """Tokens of a rank in a step of decode: one of each of its sequences, and those that are drafted."""
        drafted = max((p.speculative for p in self.phases), default=0)
        return ceil(self.sequences("decode") / self.degree["dp"]) * (1 + drafted)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        work = self.spec.workload
        return max(work.prompt + work.output, *(p.context for p in self.phases))

    def misplaced(self, order: Sequence[str]) -> str:
        """The first GPU whose coordinates are not those of an engine that numbers GPUs in this order of axes, outermost
        first; empty when none."""
        sizes = [self.degree[a] for a in order]
        if prod(sizes) != len(self.gpus):
            return f"{' x '.join(f'{a} {n}' for a, n in zip(order, sizes, strict=True))} is not {len(self.gpus)} GPUs"
        wanted = np.unravel_index(np.arange(len(self.gpus)), sizes)
        for k, gpu in enumerate(self.gpus):
            theirs = {a: int(w[k]) for a, w in zip(order, wanted, strict=True) if self.degree[a] > 1}
            ours = {a: int(self.at[a][k]) for a in theirs}
            if ours != theirs:
                return f"GPU {gpu} is {_named(ours)} in the plan and {_named(theirs)} in the engine"
        return ""

    def follows(self, axis: str, order: Sequence[str]) -> bool:
        """The coordinate along one axis is the number that those of others make, outermost first."""
        index = np.zeros(len(self.gpus), dtype=np.int64)
        for name in order:
            index = index * self.degree[name] + self.at[name]
        return bool((self.at[axis] == index).all())


def _named(at: Mapping[str, int]) -> str:
    return ", ".join(f"{a} {i}" for a, i in at.items())


def layout(graph: Graph, gpus: Sequence[int], unit: Unit) -> EngineDegrees:
    """Of a lowered phase; `gpus`: of its ranks in the order of the mesh. Raises SpecError."""
    mesh, strategy = graph.the_mesh, unit.phase.strategy
    if strategy.apart is not None:
        message = f"no release of an engine runs `{unit.phase.name}`: its experts have GPUs of their own"
        because = ("attention and experts of a server share its GPUs in vLLM, SGLang, TensorRT-LLM and Megatron Core",)
        help = ("leave out `gpus` in `experts`",)
        raise SpecError([Diagnostic("E05", message, unit.phase.span, because=because, help=help)])
    sides = factorisations(strategy)
    coordinates = axis_coordinates(mesh, sides[0])
    size = {"pp": strategy.pp, **{a: n for side in sides for a, n in side}}
    if len(sides) == 1:  # the flat form: the batch is split over ep too, experts over ep and tp
        ep, sp = size["ep"], size["sp"]
        coordinates["edp"], size["edp"] = coordinates["dp"] * sp + coordinates["sp"], size["dp"] * sp
        coordinates["dp"], size["dp"] = coordinates["dp"] * ep + coordinates["ep"], size["dp"] * ep
        coordinates["etp"], size["etp"] = coordinates["tp"], size["tp"]
    ids = np.asarray(gpus)
    axes = ("pp", "dp", "sp", "tp", "edp", "ep", "etp")
    zero = np.zeros(len(ids), dtype=np.int64)
    at = {a: coordinates[a].ravel() if a in coordinates else zero for a in axes}
    replica = coordinates[REPLICA].ravel() if REPLICA in coordinates else zero
    picked = [own[np.argsort(ids[own])] for r in range(size.get(REPLICA, 1)) for own in [np.flatnonzero(replica == r)]]
    replicas = tuple(tuple(int(i) for i in ids[own]) for own in picked)
    per_host = unit.spec.hardware.per_host
    shapes = {tuple(len(node) for node in hosts(own, per_host)) for own in replicas}
    alike = len(shapes) == 1 and all((at[a][own] == at[a][picked[0]]).all() for a in axes for own in picked)
    ops = [op for s in graph.segments for op in s.ops]
    stages = graph.stages
    ends = {0: 1, len(stages) - 1: 1} if len(stages) > 1 else {0: 2}  # embedding and head are not layers
    return EngineDegrees(
        unit.spec,
        (unit.phase,),
        replicas[0],
        per_host,
        {a: size.get(a, 1) for a in axes},
        {a: at[a][picked[0]] for a in axes},
        tuple(sum(n for _, n in s.layers) - ends.get(s.index, 0) for s in stages),
        any(op.is_token_exchange for op in ops),
        any(seen != (None, None) for s in graph.segments for seen in s.reach.values()),
        replicas,
        alike,
    )


def hosts(gpus: Sequence[int], per_host: int) -> list[list[int]]:
    """GPU ids of each host that has some."""
    found: dict[int, list[int]] = {}
    for gpu in gpus:
        found.setdefault(gpu // per_host, []).append(gpu)
    return list(found.values())
