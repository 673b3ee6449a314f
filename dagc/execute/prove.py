"""Compare a compiled plan with its model, number by number and byte by byte. The verdict is `equal`, `differs` or `not run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..base.frozen import record
from ..cost.footprint import Memory
from ..cost.kv_cache import cache_policy
from ..cost.records import Costs, OpCost
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.naming import remembers
from ..ir.op import Op
from ..ir.ops.kind import Tokens
from ..ir.ops.leaving import EVERY
from ..ir.ops.op_set import OPS, state_of
from ..ir.routed_dims import drops
from ..ir.segment import Segment
from ..ir.text.write import lines_around
from ..ir.verify.verify import verify
from ..pipeline.lower import lower
from ..plan.plan import CompiledPlan
from ..spec.unit import Unit
from .checkpoint import CheckpointError
from .chosen import are_largest
from .failure import ExecutionError
from .held import wrong_memory
from .inputs import History, Inputs, WeightSource, random_weight
from .lowered_alike import otherwise
from .machine import RankMachine, alike
from .shards import Shards
from .token_groups import with_groups
from .traffic import compare_bytes, compare_requests
from .twin import NoTwin, Twin, or_no_twin, twin_of
from .values import Floats, Ints
from .work import wrong_work

TOLERANCE = 1e-9
"""Largest allowed error of logits and KV cache, relative to their scale."""
CHOICES = ("argmax", "route")
"""Ops whose results are choices: a near tie may fall either way, which `tied` judges and the logits decide."""
DIVERGED = 1e-7
"""Error of any other tensor from which on it counts as the place where two runs part."""


@record
class Proof:
    """`verdict`: equal; differs, the lowering computes or moves something else; not run, `why`: nothing is known.
    `error`: of the logits, `cache_error`: of the KV cache, the largest difference relative to their scale; `same`:
    the chosen tokens agree, but for near ties; `first`: where the two runs part, when they do: segment[layer]/op.
    `bytes_wrong`: the collectives, sends and requests, by name, whose counted bytes are not the compiler's. `collectives`: how
    many were counted, and `requests`: whether a scatter and a gather were. `reference_error`: of the model's own logits against another program's. `lines`: of the IR
    around `first`. `work_wrong`: ops whose FLOPs, counted on every rank, are not the compiler's; `memory_wrong`:
    stages whose weights or cache are not."""

    phase: str
    ranks: int
    error: float
    cache_error: float
    same: bool
    first: str = ""
    collectives: int = 0
    bytes_wrong: tuple[str, ...] = ()
    reference_error: float | None = None
    why: str = ""
    lines: tuple[str, ...] = ()
    work_wrong: tuple[str, ...] = ()
    memory_wrong: tuple[str, ...] = ()
    requests: int = 0

    @property
    def verdict(self) -> str:
        if self.why:
            return "not run"
        errors = (self.error, self.cache_error, self.reference_error or 0.0)
        same = self.same and not self.first and all(e <= TOLERANCE for e in errors) and not self.bytes_wrong
        same = same and not self.work_wrong and not self.memory_wrong
        return "equal" if same else "differs"

    @property
    def holds(self) -> bool:
        return self.verdict == "equal"


def prove(plan: CompiledPlan, phase: str, **given: object) -> Proof:
    """Run a phase at its full dims on one rank and on all of its ranks, and count what its collectives move. For
    small models: everything is float64 and every rank is in memory at once. `given`: see `prove_graph`."""
    result = plan.phases[phase]
    stated = {"memory": result.memory_without_drafts, "requests": result.requests}
    return prove_graph(result.graph, plan.units[phase], result.costs, **stated, **given)  # type: ignore[arg-type]


def prove_small(plan: CompiledPlan, phase: str) -> Proof:
    """Like prove, of a phase of any size: its own lowering, run on the sizes of its small twin. The bytes counted there,
    times the elements that the plan has for each of the twin's, are those that the plan's cost pass states."""
    result, unit = plan.phases[phase], plan.units[phase]
    try:
        twin = twin_of_phase(plan, phase)
    except NoTwin as error:
        return not_run(phase, unit, f"it has no small twin: {error}")
    differs = otherwise(result.graph, twin.placed)
    if differs:
        return not_run(phase, unit, f"the twin was lowered otherwise: {differs}")
    given = {"inputs": twin_inputs(twin), "model": twin.model, "costed": result.graph}
    given |= {"memory": result.memory_without_drafts, "requests": result.requests}
    return prove_graph(twin.placed, unit, result.costs, **given)  # type: ignore[arg-type]


def twin_of_phase(plan: CompiledPlan, phase: str) -> Twin:
    """The small twin of a phase. Raises NoTwin."""
    unit = plan.units[phase]
    with or_no_twin():
        return verified(twin_of(plan.phases[phase].graph, model_graph(unit), unit.routing))


def verified(twin: Twin) -> Twin:
    """Raises VerifyError."""
    verify(twin.placed)
    verify(twin.model)
    return twin


def twin_inputs(twin: Twin) -> Inputs:
    """Random token ids for all of a twin's sequences."""
    shape = twin.sequences, int(twin.placed.segments[0].sizes["seq"])
    return Inputs(np.random.default_rng(1).integers(0, twin.vocab, shape), twin.routing)


def prove_graph(
    placed: Graph,
    unit: Unit,
    costs: Costs | None = None,
    *,
    weights: WeightSource = random_weight,
    inputs: Inputs | None = None,
    expected: Floats | None = None,
    model: Graph | None = None,
    costed: Graph | None = None,
    memory: Memory | None = None,
    requests: Mapping[str, OpCost] | None = None,
    alone: Alone | None = None,
) -> Proof:
    """Like prove, of a placed graph that may not be the plan's own. Without `costs` bytes are not compared.
    `expected`: logits [sequences, .., vocab] that the model itself must give. `model`: what it was lowered from; `costed`:
    the graph that `costs`, `memory` and `requests` are of, where its sizes are others. `alone`: the model and its inputs, where
    other graphs are compared with them too."""
    if alone is None:
        alone = Alone(model if model is not None else model_graph(unit), inputs or random_inputs(unit, weights))
    machine = RankMachine(placed, alone.inputs, placed.the_mesh)
    if drops(placed):  # what the model alone drops depends on whose ranks it is compared with
        alone = Alone(alone.graph, with_groups(alone.inputs, placed))
    try:
        return compared(alone, machine, unit, Stated(costed or placed, costs, memory, requests), expected)
    except CheckpointError:
        raise
    except Exception as error:  # nothing is known of the lowering, whatever it is
        return not_run(placed.phase, unit, f"the executor breaks off: {str(error) or type(error).__name__}")


@record
class Stated:
    """What the passes say of a graph."""

    graph: Graph
    costs: Costs | None
    memory: Memory | None
    requests: Mapping[str, OpCost] | None


def compared(alone: Alone, machine: RankMachine, unit: Unit, stated: Stated, expected: Floats | None) -> Proof:
    """Both runs, number by number, and what ranks did, moved and stored against what is stated."""
    placed, seen = machine.graph, alone.seen
    check = Comparison(machine.shards, seen)
    machine.watch = check.compare
    try:
        want = alone.results
    except ExecutionError as error:
        return not_run(placed.phase, unit, f"the model alone breaks off at {error.where}: {error.reason}")
    try:
        got = machine.run()
    except ExecutionError as error:
        return broken_off(placed, unit, error)
    same = all(alike(a, b) or seen.tied(i, b) for i, (a, b) in enumerate(zip(want, got, strict=True)))
    first = check.first or check.missed() or ("" if same else "the result")
    ran = machine.shards, machine.record
    moved = tuple(compare_bytes(*ran, stated.costs, stated.graph)) if stated.costs is not None else ()
    if stated.requests is not None:
        moved += tuple(compare_requests(*ran, stated.requests, stated.graph))
    work = tuple(wrong_work(*ran))
    policy = cache_policy(unit.phase)
    wrong = tuple(wrong_memory(*ran, stated.graph, stated.memory, policy)) if stated.memory is not None else ()
    places = [place for place in (first, *moved, *work) if place]
    return Proof(
        placed.phase,
        unit.phase.gpu_count,
        check.error["logits"],
        check.error["cache"],
        same,
        first,
        len(machine.record.traffic),
        moved,
        None if expected is None else distance(seen.whole(*seen.logits), expected),
        lines=around(placed, places[0]) if places else (),
        work_wrong=work,
        memory_wrong=wrong,
        requests=len(machine.record.requests),
    )


def broken_off(graph: Graph, unit: Unit, error: ExecutionError) -> Proof:
    """What a run that did not come to its end proves: that the lowering is wrong, or nothing."""
    where = f"{error.where}: {error.reason}"
    if not error.wrong:
        return not_run(graph.phase, unit, f"the executor breaks off at {where}")
    lines = around(graph, error.where)
    return Proof(graph.phase, unit.phase.gpu_count, np.inf, np.inf, False, where, lines=lines)


def not_run(phase: str, unit: Unit, why: str) -> Proof:
    return Proof(phase, unit.phase.gpu_count, np.inf, np.inf, False, why=why)


def around(graph: Graph, where: str) -> tuple[str, ...]:
    """Lines of the IR about `segment[layer]/op`."""
    segment, _, op = where.partition(": ")[0].partition("/")
    name = segment.partition("[")[0]
    found = next((s for s in graph.segments if s.name == name and op in s.by_name), None)
    return () if found is None else lines_around(graph, found, op)


def single() -> Mesh:
    """One rank."""
    return Mesh((), {}, {})


def distance(found: Floats, expected: Floats) -> float:
    """Largest difference relative to the largest value."""
    if found.shape != expected.shape:
        return float("inf")
    return largest(found - expected) / max(1e-300, largest(expected))


def largest(values: Floats) -> float:
    """The largest magnitude; of what is not a number an infinite one, since a NaN compares with nothing."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest if np.isfinite(largest) else np.inf


def model_graph(unit: Unit) -> Graph:
    """The graph of the model alone: one rank, nothing split."""
    return next(graph for _, graph in lower(Unit(unit.spec, unit.phase)))


def random_inputs(unit: Unit, weights: WeightSource) -> Inputs:
    """Random token ids of the phase's batch. Empty places of the batch get a sequence too."""
    shape = unit.phase.batching.token_shape(unit.phase.tokens)
    ids = np.random.default_rng(1).integers(0, unit.spec.model.count("vocab"), shape)
    return Inputs(ids, unit.routing, weights)


def logits_of(graph: Graph) -> str:
    """The op whose value the last token is chosen by: what argmax or route reads, or the result itself."""
    last = graph.head
    output = last.by_name[last.output]
    while output.kind in ("argmax", "route", "slice") or output.is_collective:
        output = last.by_name[output.inputs[0]]
    return output.name


@dataclass
class Recording:
    """Every whole tensor of a run on one rank: (layer, op, first sequence) -> its value."""

    machine: RankMachine
    values: dict[tuple[int, str, int], Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine.watch = self.remember

    def remember(self, segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        if isinstance(values[0], np.ndarray) and op.kind not in CHOICES:
            self.values[layer, op.name, self.machine.shards.offset] = values[0]

    @property
    def logits(self) -> tuple[int, str]:
        """Where the logits are."""
        graph = self.machine.graph
        return max(layer for _, layer in graph.layers), logits_of(graph)

    def whole(self, layer: int, op: str) -> Floats:
        """The parts of the batch put together."""
        parts = {offset: v for (at, name, offset), v in self.values.items() if (at, name) == (layer, op)}
        return np.concatenate([parts[offset] for offset in sorted(parts)], axis=self.batch_axis(layer, op))

    def tied(self, part: int, result: Ints | Floats) -> bool:
        """Whether a result of a part of the batch, sequences first, are tokens that the logits here let be chosen too."""
        last = self.machine.graph.head
        if last.by_name[last.output].kind != "argmax" or result.dtype.kind not in "iu":
            return False
        layer, op = self.logits
        offset = sorted(at for number, name, at in self.values if (number, name) == (layer, op))[part]
        logits = np.moveaxis(self.values[layer, op, offset], self.batch_axis(layer, op), 0)
        return are_largest(logits, np.asarray(result, dtype=np.int64), TOLERANCE)

    def batch_axis(self, layer: int, name: str) -> int:
        """Where the sequences are in a value, or in a state."""
        segment = next(s for s, at in self.machine.graph.layers if at == layer)
        op = segment.by_name.get(name) or state_of(segment, segment.by_name[remembers(name)])
        rows = EVERY if op is not None and EVERY in op.dims else "batch"
        return op.dims.index(rows) if op is not None else 0

    def history(self) -> History:
        """The KV cache and the states that the run leaves: (layer, op) -> [batch, .., context, ..]."""
        kept = [
            (layer, (state_of(segment, op) or op).name)
            for segment, layer in self.machine.graph.layers
            for op in segment.ops
            if OPS[op.kind].tokens in (Tokens.CACHE, Tokens.IN_ORDER)
        ]
        return {key: self.whole(*key) for key in kept}


class Alone:
    """The model by itself, on one rank: it runs once, however many lowerings of it are compared with it."""

    def __init__(self, graph: Graph, inputs: Inputs) -> None:
        self.graph, self.inputs = graph, inputs
        self.seen = Recording(RankMachine(graph, inputs, single()))

    @cached_property
    def results(self) -> list[Ints | Floats]:
        """Of each part of the batch. Raises ExecutionError."""
        return self.seen.machine.run()

    @cached_property
    def history(self) -> History:
        """The KV cache and the states that it leaves. Raises ExecutionError."""
        assert self.results
        return self.seen.history()


def alone(unit: Unit, weights: WeightSource = random_weight) -> Alone:
    """The model of a phase, on random token ids."""
    return Alone(model_graph(unit), random_inputs(unit, weights))


@dataclass
class Comparison:
    """Every shard of a run against its part of the whole tensor, a partial sum after adding it up. `error`: of logits and
    cache, the largest; `compared`: the (layer, op, first sequence) seen; `first`: where the runs part."""

    shards: Shards
    reference: Recording
    error: dict[str, float] = field(default_factory=lambda: {"logits": 0.0, "cache": 0.0})
    compared: set[tuple[int, str, int]] = field(default_factory=set)
    first: str = ""

    def __post_init__(self) -> None:
        self.logits = logits_of(self.reference.machine.graph)

    def compare(self, segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        key = (layer, op.name, self.shards.offset)
        whole = self.reference.values.get(key)
        merges = op.sharding is not None and op.sharding.reduce != "sum"
        if whole is None or merges or not isinstance(values[0], np.ndarray):
            return  # no tensor of the model, or a value that others are made of: routed rows, part of a softmax
        worst = self.difference(whole, op, values)
        what = "cache" if OPS[op.kind].tokens is Tokens.CACHE else "logits" if op.name == self.logits else ""
        if what:
            self.error[what] = max(self.error[what], worst)
        if not self.first and not worst <= (TOLERANCE if what else DIVERGED):
            self.first = f"{segment.name}[{layer}]/{op.name}"
        self.compared.add(key)

    def difference(self, whole: Floats, op: Op, values: list[object], least: float = 0.0) -> float:
        """The largest on any rank, relative to the largest value (`least`: or to this one); infinite where shapes differ."""
        shards, layout = self.shards, op.sharding
        if layout is None:
            return np.inf
        whole = shards.dealt(whole, op.dims)
        sums: dict[tuple[int, ...], Floats] = {}
        worst = 0.0
        for rank, value in zip(shards.at(layout.on), values, strict=True):
            part = shards.shard(whole, layout.dims, rank)
            if not isinstance(value, np.ndarray) or part.shape != value.shape:
                return np.inf
            if layout.partial:
                key = tuple(at for axis, at in rank.items() if axis not in layout.partial)
                sums[key] = sums[key] + value if key in sums else value - part
            else:
                worst = max(worst, largest(part - value))
        return max([worst, *map(largest, sums.values())]) / max(1e-300, least, largest(whole))

    def missed(self) -> str:
        """The logits or a cache of the model that were compared with nothing, or nothing."""
        for segment, layer in self.reference.machine.graph.layers:
            states = [state for state in (state_of(segment, op) for op in segment.ops) if state is not None]
            for op in (*segment.ops, *states):
                if OPS[op.kind].tokens is Tokens.CACHE or (
                    segment is self.reference.machine.graph.head and op.name == self.logits
                ):
                    keys = [key for key in self.reference.values if key[:2] == (layer, op.name)]
                    if not keys or not self.compared.issuperset(keys):
                        return f"{segment.name}[{layer}]/{op.name}: nothing was compared"
        return ""
