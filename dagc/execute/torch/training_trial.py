"""Run a training step on the processes of this job, compare loss, gradients and new weights with the model's, and times with the
estimate."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...base.collectives import SEND
from ...base.frozen import record
from ...cost.records import value_at
from ...cost.schedule.training.cell_orders import PipelineSchedule
from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.ops.attributes.training import AccumulateAttrs, StoreAttrs, WeightAttrs
from ...ir.segment import Segment
from ...plan.step_totals import edge_between
from ...plan.trained import TrainingResult
from ...spec.unit import Unit
from ..inputs import Inputs
from ..op_classes import class_of
from ..prove import Comparison, Recording, single
from ..prove_training import ByRouter, Found, losses, losses_of_routers, random_step, step_inputs, whole_model, worst
from ..shards import Shards
from ..step_messages import layers_of
from ..token_groups import with_groups
from ..training import Key, TrainingMachine, with_copies
from ..twin import Twin
from ..values import Floats
from .communicator import Communicator
from .groups import Ranks, make_groups
from .outcome import DTYPES, OF_WEIGHTS, TOLERANCE, Options, Outcome, RankStep, StepFacts
from .rank import Key as OpKey
from .repeats import repeated
from .spans import Span, Timeline
from .training_rank import RECV, TrainingRank
from .trial import Times, add_calls, averaged, in_job


@record(slots=False)
class StepJob:
    """What runs, the model that it is of, what both are given, the kind of device and the dtype that its estimates are of, and GPUs of a node."""

    result: TrainingResult
    model: Graph
    inputs: Inputs
    planned: str
    planned_dtype: str
    per_node: int

    @property
    def schedule(self) -> PipelineSchedule:
        return self.result.steps.schedule


@record(slots=False)
class Made:
    """What one rank made in a step: arrays by micro-batch, and by layer and weight; and what it measured."""

    losses: Mapping[int, Floats]
    of_routers: Mapping[Key, Mapping[int, Floats]]
    gradients: Mapping[Key, Floats]
    weights: Mapping[Key, Floats]
    wall_s: float
    times: Mapping[OpKey, float]
    calls: Mapping[OpKey, int]
    spans: tuple[Span, ...]


def run_step(
    result: TrainingResult, unit: Unit, options: Options, twin: tuple[Twin, TrainingResult] | None = None
) -> Outcome | None:
    """Every process of the job calls this; the first one gets the outcome. With a twin its sizes run, else the plan's."""
    hardware = unit.spec.hardware
    planned = (hardware.kind, unit.spec.model.dtype, hardware.per_node)
    if twin is None:
        inputs = random_step(result.graph, unit.phase.sequences, unit.spec.model.count("vocab"), unit.routing)
        job = StepJob(result, whole_model(unit), inputs, *planned)
    else:
        job = StepJob(twin[1], twin[0].model, step_inputs(twin[0]), *planned)
    return in_job(options, lambda device: measured_step(job, options, device))


def measured_step(job: StepJob, options: Options, device: Any) -> Outcome | None:
    result, inputs = job.result, job.inputs
    graph = result.graph
    ranks = Ranks(graph, dist.get_rank())
    shards = Shards(graph, inputs, graph.the_mesh)
    communicator = Communicator(shards, ranks, make_groups(ranks, options.limit))
    rank = TrainingRank(
        shards,
        ranks,
        communicator,
        device,
        DTYPES[options.dtype],
        schedule=job.schedule,
        stages=result.stages,
        limit=options.limit,
    )
    with torch.no_grad():
        rank.run()  # makes the weights, and warms up
        losses = {part: as_array(value) for part, value in rank.losses.items()}
        of_routers = {
            k: {part: as_array(value) for part, value in found.items()} for k, found in rank.of_routers.items()
        }
        gradients = {k: as_array(v) for k, (_, _, v) in rank.gradients.items()} if options.check else {}
        weights = {k: as_array(value) for k, value in rank.new_weights()} if options.check else {}
        runs = repeated(rank, options)
    calls: dict[OpKey, int] = {}
    for span in runs.spans:
        calls[span.segment, span.op] = calls.get((span.segment, span.op), 0) + 1
    mine = Made(
        losses, of_routers, gradients, weights, runs.wall_s, runs.times, calls, runs.kept(options),
    )  # fmt: skip
    everyone: list[Any] | None = [None] * dist.get_world_size() if ranks.rank == 0 else None
    dist.gather_object(mine, everyone)
    return None if everyone is None else outcome(job, options, ranks, everyone)


def as_array(value: Any) -> Floats:
    found: Floats = value.double().cpu().numpy()
    return found


def outcome(job: StepJob, options: Options, ranks: Ranks, everyone: Sequence[Made]) -> Outcome:
    result = job.result
    compared = Compared.of(job, ranks, everyone, options.dtype) if options.check else None
    error = None if compared is None else max(compared.loss, compared.gradient)
    facts = StepFacts(
        job.schedule.name,
        job.schedule.microbatches,
        mean_loss(everyone),
        None if compared is None else compared.loss,
        None if compared is None else compared.gradient,
        None if compared is None else compared.weight,
        OF_WEIGHTS[options.dtype],
        0 if compared is None else compared.weights,
        "" if compared is None else compared.first,
        tuple(rank_step(result, ranks, number, made) for number, made in enumerate(everyone)),
    )
    return Outcome(
        result.name,
        len(everyone),
        options.device,
        options.dtype,
        max(made.wall_s for made in everyone),
        result.time_s,
        error,
        TOLERANCE[options.dtype],
        averaged([by_class(result, place(ranks, n), made) for n, made in enumerate(everyone)]),
        compared is None or compared.weight <= OF_WEIGHTS[options.dtype],
        job.planned,
        job.planned_dtype,
        Timeline(result, tuple(made.spans for made in everyone), job.per_node) if options.trace is not None else None,
        facts,
    )


def mean_loss(everyone: Sequence[Made]) -> float:
    """With those of routers. Ranks that have the same tokens have the same losses."""
    found: dict[object, list[float]] = {}
    for made in everyone:
        for key, by_part in (("", made.losses), *made.of_routers.items()):
            found.setdefault(key, []).extend(float(np.mean(loss)) for loss in by_part.values())
    return sum(float(np.mean(means)) for means in found.values())


def place(ranks: Ranks, number: int) -> tuple[int, ...]:
    """[stage, *mesh] of a process."""
    return tuple(int(i) for i in np.argwhere(ranks.number == number)[0])


@record
class Compared:
    """Largest relative errors over a step, and how many weights have gradients."""

    loss: float
    gradient: float
    weight: float
    weights: int
    first: str

    @classmethod
    def of(cls, job: StepJob, ranks: Ranks, everyone: Sequence[Made], dtype: str) -> Compared:
        """Against a step of the whole model, of every rank; of two copies of the model each."""
        graph, schedule = job.result.graph, job.schedule
        whole = TrainingMachine(job.model, with_groups(job.inputs, graph), single())
        whole.step()
        check = Comparison(Shards(graph, job.inputs, graph.the_mesh), Recording(whole))
        loss = max(
            losses_of_routers(check, graph, whole.of_routers, split_of_routers(job, ranks, everyone)),
            losses(check, graph, whole.losses, split_losses(job, ranks, everyone)),
            key=size,
        )
        gradient = weight = (0.0, "")
        for route in range(len(schedule.routes)):
            gradients, weights = found_in(job, ranks, everyone, route)
            gradient = max(gradient, worst(check, whole.whole_gradients, with_copies(gradients)), key=size)
            weight = max(weight, worst(check, whole.weights, weights), key=size)
        limits = ((loss, TOLERANCE[dtype]), (gradient, TOLERANCE[dtype]), (weight, OF_WEIGHTS[dtype]))
        first = next((name for (error, name), most in limits if not error <= most), "")
        return cls(size(loss), size(gradient), size(weight), len(whole.gradients), first)


def size(found: tuple[float, str]) -> float:
    """Of an error; of one that is not a number an infinite one."""
    return found[0] if np.isfinite(found[0]) else float("inf")


def found_in(job: StepJob, ranks: Ranks, everyone: Sequence[Made], route: int) -> tuple[Found, Found]:
    """Gradients and new weights that ranks have of one copy of the model, each with the op that it is the result of."""
    gradients: dict[Key, tuple[Segment, Op, list[Floats]]] = {}
    weights: dict[Key, tuple[Segment, Op, list[Floats]]] = {}
    seats = job.schedule.routes[route].seats
    for seat, layers in zip(seats, layers_of(job.result.graph, job.result.stages), strict=True):
        made = [everyone[number] for number in ranks.number[seat.gpu].ravel().tolist()]
        for segment, layer in layers:
            for op in segment.ops:
                key = layer, op.attrs.weight if isinstance(op.attrs, WeightAttrs) else ""
                if isinstance(op.attrs, AccumulateAttrs) and all(key in one.gradients for one in made):
                    gradients[key] = segment, op, [one.gradients[key] for one in made]
                if isinstance(op.attrs, StoreAttrs) and all(key in one.weights for one in made):
                    weights[key] = segment, op, [one.weights[key] for one in made]
    return gradients, weights


def split_losses(job: StepJob, ranks: Ranks, everyone: Sequence[Made]) -> list[list[Any]]:
    """Of each micro-batch those of every rank that has the model's end."""
    found: list[list[Any]] = []
    for route in job.schedule.routes:
        numbers = ranks.number[route.seats[-1].gpu].ravel().tolist()
        for part in range(route.first, route.first + route.count):
            found.append([everyone[n].losses.get(part) for n in numbers])
    return found


def split_of_routers(job: StepJob, ranks: Ranks, everyone: Sequence[Made]) -> ByRouter:
    """The same of each router's."""
    found: dict[Key, list[list[object]]] = {}
    for route in job.schedule.routes:
        for seat, layers in zip(route.seats, layers_of(job.result.graph, job.result.stages), strict=True):
            own, made = {layer for _, layer in layers}, [everyone[n] for n in ranks.number[seat.gpu].ravel().tolist()]
            for key in (key for key in made[0].of_routers if key[0] in own):
                parts = range(route.first, route.first + route.count)
                found.setdefault(key, []).extend([one.of_routers[key].get(part) for one in made] for part in parts)
    return found


def rank_step(result: TrainingResult, ranks: Ranks, number: int, made: Made) -> RankStep:
    stage, *_ = place(ranks, number)
    gpus = sorted(gpu for own in result.graph.stages for gpu in own.gpus)
    waited_s = made.times.get(("", RECV), 0.0)
    return RankStep(number, gpus[number], stage, made.wall_s, waited_s, result.time_s, result.steps.bubbles_s[stage])


def by_class(result: TrainingResult, at: tuple[int, ...], made: Made) -> Times:
    """What a rank measured, with the estimate of the same calls."""
    out: Times = {}
    for key, measured_s in made.times.items():
        calls = made.calls[key]
        if key[0]:
            each = value_at(result.costs.ops[key].time_s, at[1:])
        else:
            each = send_s(result, at[0]) if key[1] == SEND.name else 0.0
        add_calls(out, class_of(result, *key), calls, measured_s, calls * each)
    return out


def send_s(result: TrainingResult, gpu: int) -> float:
    """Estimate of what a GPU hands on, the mean over its neighbours; a receive takes no time of its own."""
    times = []
    for route in result.steps.schedule.routes:
        for k, (here, there) in enumerate(zip(route.seats, route.seats[1:], strict=False)):
            if gpu in (here.gpu, there.gpu) and here.gpu != there.gpu:
                times.append(edge_between(result.costs, here, there, k, back=gpu == there.gpu).time_s)
    return statistics.fmean(times) if times else 0.0
