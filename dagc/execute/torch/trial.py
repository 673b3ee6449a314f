"""Run a phase on the processes of this job, compare its logits with the model's, and its times with the estimate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...base.collectives import GATHER, SEND
from ...base.frozen import record
from ...cost.records import value_at
from ...ir.graph import Graph
from ...ir.requests import request_moves
from ...pipeline.analyse import cost_graph
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult
from ..chosen import are_largest
from ..inputs import Inputs, random_weight
from ..machine import RankMachine
from ..op_classes import class_of
from ..prove import (
    Comparison,
    Recording,
    logits_of,
    model_graph,
    random_inputs,
    single,
    twin_inputs,
)
from ..shards import Shards
from ..token_groups import with_groups
from ..twin import Twin
from .communicator import Communicator
from .groups import Ranks, make_groups
from .outcome import DTYPES, TOLERANCE, ClassTime, Options, Outcome
from .processes import LaunchError, in_vain
from .rank import Key, Rank
from .repeats import repeated
from .spans import Timeline


def run(plan: CompiledPlan, phase: str, options: Options, twin: Twin | None = None) -> Outcome | None:
    """Every process of the job calls this; the first one gets the outcome. With a twin its sizes run, else the plan's."""
    result, unit = plan.phases[phase], plan.units[phase]
    planned = (unit.spec.hardware.kind, unit.spec.model.dtype)
    job = Job(result, model_graph(unit), random_inputs(unit, random_weight), *planned)
    if twin is not None:
        job = Job(cost_graph(twin.placed, twin.unit(unit)), twin.model, twin_inputs(twin), *planned)
    return in_job(options, lambda device: measured(job, options, device))


def in_job(options: Options, work: Callable[[Any], Outcome | None]) -> Outcome | None:
    """What the processes of this job do together, on a device each. Raises LaunchError."""
    torch.manual_seed(0)
    cuda = options.device == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=options.limit)
    except (ValueError, RuntimeError) as error:  # torch's DistError is a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LaunchError(f"the processes of the job do not find each other: {reason}") from None
    try:
        outcome = work(torch.device(options.device))
    except RuntimeError as error:
        reason = in_vain(error)
        if not reason:
            raise
        raise LaunchError(f"process {dist.get_rank()} waited in vain for another: {reason}") from error
    dist.destroy_process_group()  # not behind a failure: it may wait for what did not come
    return outcome


@record(slots=False)
class Job:
    """What runs, the model that it is of, what both are given, and the kind of device and the dtype that its estimates are of."""

    result: PhaseResult
    model: Graph
    inputs: Inputs
    planned: str
    planned_dtype: str


def measured(job: Job, options: Options, device: Any) -> Outcome | None:
    result, inputs = job.result, job.inputs
    graph = result.graph
    ranks = Ranks(graph, dist.get_rank())
    shards = Shards(graph, inputs, graph.the_mesh)
    rank = Rank(
        shards, ranks, Communicator(shards, ranks, make_groups(ranks, options.limit)), device, DTYPES[options.dtype]
    )
    rank.watch = logits_of(job.model)
    with torch.inference_mode():
        rank.run()  # makes the weights, and warms up
        shown = Shown(dict(rank.watched), dict(rank.chosen), dict(rank.taken))
        rank.watch = ""
        runs = repeated(rank, options)
    mine = (
        by_class(result, ranks, runs.times),
        runs.wall_s,
        shown if options.check else Shown({}, {}, {}),
        runs.kept(options),
    )
    everyone: list[Any] | None = [None] * dist.get_world_size() if ranks.rank == 0 else None
    dist.gather_object(mine, everyone)
    if everyone is None:
        return None
    error, same = None, True
    if options.check:
        places = {int(number): at for at, number in np.ndenumerate(ranks.number)}
        model = RankMachine(job.model, with_groups(inputs, graph), single())
        error, same = compared(result, model, places, [m[2] for m in everyone], TOLERANCE[options.dtype])
    return Outcome(
        graph.phase,
        len(everyone),
        options.device,
        options.dtype,
        max(wall for _, wall, _, _ in everyone),
        result.schedule.latency_s,
        error,
        TOLERANCE[options.dtype],
        averaged([classes for classes, _, _, _ in everyone]),
        same,
        job.planned,
        job.planned_dtype,
        Timeline(result, tuple(m[3] for m in everyone), result.per_node) if options.trace is not None else None,
    )


@record
class Shown:
    """What a rank has of the logits, the tokens that it chose, and those that the front end took in where it is, by first sequence."""

    logits: dict[int, Any]
    chosen: dict[int, Any]
    taken: dict[int, Any]


Times = dict[str, tuple[int, float, float]]
"""Class -> (calls, measured, estimated seconds)."""


def by_class(result: PhaseResult, ranks: Ranks, times: Mapping[Key, float]) -> Times:
    """What this rank measured, with the estimate of the same calls."""
    graph, stage = result.graph, ranks.at[0]
    parts = graph.microbatches * graph.lanes
    layers: dict[str, int] = {}
    for name, count in graph.stages[stage].layers:
        layers[name] = layers.get(name, 0) + count
    out: Times = {}
    for key, measured_s in times.items():
        if key[0]:
            each = value_at(result.costs.ops[key].time_s, ranks.at[1:])
            calls = layers[key[0]] * parts
        else:
            each = outside_s(result, stage, key[1])
            calls = parts
        add_calls(out, class_of(result, *key), calls, measured_s, calls * each)
    return out


def add_calls(times: Times, name: str, calls: int, measured_s: float, estimated_s: float) -> None:
    """To those of its class."""
    before = times.get(name, (0, 0.0, 0.0))
    times[name] = (before[0] + calls, before[1] + measured_s, before[2] + estimated_s)


def outside_s(result: PhaseResult, stage: int, kind: str) -> float:
    """Estimate of what is outside of the layers of a stage; a receive takes no time of its own."""
    if kind in result.requests:
        return float(result.requests[kind].time_s.max())
    return result.costs.edges[stage].time_s if kind == SEND.name else 0.0


def averaged(ranks: list[Times]) -> tuple[ClassTime, ...]:
    names = dict.fromkeys(name for times in ranks for name in times)
    rows = []
    for name in names:
        found = [times.get(name, (0, 0.0, 0.0)) for times in ranks]
        calls = max(calls for calls, _, _ in found)
        rows.append(ClassTime(name, calls, *(sum(f[i] for f in found) / len(ranks) for i in (1, 2))))
    return tuple(sorted(rows, key=lambda row: -row.measured_s))


def compared(
    result: PhaseResult, model: RankMachine, places: dict[int, tuple[int, ...]], shown: list[Shown], allowed: float
) -> tuple[float, bool]:
    """Error of the logits against a run of the whole model, of every part of the batch on every rank, and whether every
    rank chose, and the front end took in, tokens whose logits are the largest there, up to `allowed`."""
    seen = Recording(model)
    model.run()
    layer, name = seen.logits
    graph = result.graph
    placed = Shards(graph, model.inputs, graph.the_mesh)
    check = Comparison(placed, seen)
    op = graph.head.by_name[name]
    last = len(graph.stages) - 1
    held = {places[rank][1:]: values for rank, values in enumerate(shown) if places[rank][0] == last}
    order = [held[at] for at in np.ndindex(graph.the_mesh.shape)]
    whole = seen.whole(layer, name)
    size = whole.shape[0] // (graph.microbatches * graph.lanes)
    worst, same = 0.0, True
    end = graph.head.sharding_of(graph.head.output)
    taken = next((move.whole for move in request_moves(graph) if move.kind == GATHER.name), None)
    for offset in order[0].logits:
        part = whole[offset : offset + size]
        values: list[object] = [found.logits[offset] for found in order]
        worst = max(worst, check.difference(part, op, values))
        for at, found in zip(placed.ranks, order, strict=True):
            for layout, tokens in ((end, found.chosen), (taken, found.taken)):
                if layout is not None and offset in tokens:
                    mine = placed.shard(placed.dealt(part, op.dims), (*layout.dims, ()), at)
                    same = same and are_largest(mine, tokens[offset], allowed)
    return worst, same
