"""The figures of a training phase as plain data: its part of the plan object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..base.axes import AXES, EXPERT_SIDE
from ..base.low_precision import RECIPES
from ..cost.schedule.training.schedule_table import SCHEDULES
from ..cost.training.step_memory import TrainingMemory
from ..plan.plan import CompiledPlan
from ..plan.step_totals import layers_on, shares, step_collectives
from ..plan.subject import keyed
from ..plan.trained import TrainingResult
from ..spec.metrics.known_metrics import of_training
from ..spec.training import Training
from .placement_object import placement_object


def training_object(plan: CompiledPlan, result: TrainingResult) -> dict[str, Any]:
    """SI units; `$defs/training` of `plan.schema.json`."""
    graph, training = result.graph, result.training
    degrees = graph.the_mesh.degrees
    axes = {axis: degrees.get(axis, 1) for axis in AXES}
    axes |= {axis: d for axis, d in degrees.items() if axis not in axes and (d > 1 or axis in EXPERT_SIDE)}
    stages = range(result.steps.schedule.gpus)
    layers = [(segment, segment.repeat) for segment in graph.segments]
    beside = {"step_s": ("floor_s", result.floor_s), "throughput_per_gpu_tok_s": ("tokens", result.tokens)}
    return {
        **({"hardware": result.hardware} if result.hardware else {}),
        "gpus": list(result.gpus),
        "axes": axes,
        **keyed(plan.subject(result.name), lambda metric: metric.json, beside, of_training()),
        "schedule": _schedule(result),
        **({"placement": placement_object(result.placement)} if result.placement is not None else {}),
        **({"matmul": _matmul(training)} if training.quantises else {}),
        "recompute": list(training.recompute),
        "optimizer": {
            "name": training.optimizer,
            "zero": training.zero,
            "gradient_dtype": training.gradient_dtype,
            "master_dtype": training.master_dtype,
            "moment_dtype": training.moment_dtype,
            "overlap": training.overlap,
            "reshard_after_forward": training.reshard_after_forward,
        },
        "losses": {
            "mtp": training.mtp_loss,
            "aux": training.aux_loss,
            "aux_over": training.aux_loss_over,
            "z": training.z_loss,
        },
        "memory": {
            **_held(result.worst),
            "fraction": result.fraction,
            "fits": result.fits,
            "stages": [_stage(result, stage) for stage in stages],
        },
        "cells": [
            {
                "layer": layer,
                "layers": graph.segment(layer).repeat,
                "cell": cell,
                "time_s": cost.time_s,
                "exposed_s": cost.exposed_s,
                "collectives_s": cost.moved_s,
            }
            for (layer, cell), cost in result.cells.items()
        ],
        "collectives": [
            {"stage": stage, "cell": one.cell, **asdict(one.total)}
            for stage in stages
            for one in step_collectives(result, stage)
        ],
        "graph": {
            "ops": sum(n * sum(not op.is_collective for op in s.ops) for s, n in layers),
            "collectives": sum(n * sum(op.is_collective for op in s.ops) for s, n in layers),
        },
    }


def _schedule(result: TrainingResult) -> dict[str, Any]:
    schedule, usual = result.steps.schedule, result.usual
    beside = {} if usual is None else {"step_s": usual.time_s, "peak_B": usual.peak_B, "fits": usual.fits}
    return {
        "name": schedule.name,
        "stages": schedule.gpus,
        "chunks": schedule.chunks,
        "copies": SCHEDULES[schedule.name].copies,
        "microbatches": result.graph.microbatches,
        "makespan_s": result.steps.makespan_s,
        **({"one_f_one_b": beside} if beside else {}),
    }


def _stage(result: TrainingResult, stage: int) -> dict[str, Any]:
    """What a GPU of the pipeline holds, and what it does in a step."""
    need, part = result.memory[stage], shares(result, stage)
    return {
        "stage": stage,
        "gpus": sorted(result.graph.stages[stage].gpus),
        "layers": dict(layers_on(result, stage)),
        **_held(need),
        "in_flight": need.in_flight,
        "compute_s": part.compute_s,
        "exposed_s": part.exposed_s,
        "bubble_s": part.bubble_s,
    }


def _held(need: TrainingMemory) -> dict[str, float]:
    kinds = (
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "gathered",
        "working",
        "buffers",
        "reserve",
        "peak",
        "capacity",
    )
    host = {"host_B": need.host_B} if need.host_B else {}
    return {f"{kind}_B": getattr(need, f"{kind}_B") for kind in kinds} | host


def _matmul(training: Training) -> dict[str, Any]:
    recipe = RECIPES[training.matmul_dtype]
    gathered = training.quantised_weights and (recipe.gathers or training.zero == 3)
    return {
        "dtype": training.matmul_dtype,
        "quantised_weights": training.quantised_weights,
        "gathered_quantised": bool(gathered and training.zero),
    }
