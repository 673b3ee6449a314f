"""What a run of a phase is asked for, and what it says."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ...base.frozen import record
from .spans import Timeline

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp64": 1e-9, "fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}
"""Largest error of logits, relative to the largest; choices of experts may differ in the small types."""
OF_WEIGHTS = {"fp64": 1e-6, "fp32": 1e-2, "bf16": 0.1, "fp16": 0.1}
"""Largest error of a new weight, relative to the largest of it: AdamW divides a gradient by its own size, so rounding decides the sign of one
that is nearly nothing, and with it a step of a thousandth either way."""


@record
class Options:
    """`trace`: the folder for traces of one more pass, under a profiler."""

    device: str
    dtype: str
    repeat: int
    check: bool
    timeout_s: float
    trace: Path | None = None

    @property
    def limit(self) -> timedelta:
        return timedelta(seconds=self.timeout_s)


@record
class ClassTime:
    """Ops of one class: the mean over ranks of what they took in one pass, and of the estimate."""

    name: str
    calls: int
    measured_s: float
    estimated_s: float


@record
class RankStep:
    """One rank in a step: how long it took, how much of that it waited for other stages; and the same of its stage in the estimate."""

    rank: int
    gpu: int
    stage: int
    measured_s: float
    waited_s: float
    estimated_s: float
    estimated_waited_s: float


@record
class StepFacts:
    """What a run says of a training step alone. `loss`: mean over tokens, of the ranks' own losses. Errors are the largest
    differences from the whole model's, relative, None when not compared; `first`: what differs, first of loss, gradients, new weights."""

    schedule: str
    microbatches: int
    loss: float
    loss_error: float | None
    gradient_error: float | None
    weight_error: float | None
    weight_allowed: float
    weights: int
    first: str
    ranks: tuple[RankStep, ...]


@record
class Outcome:
    """`planned`: what the spec's devices are, gpu or cpu, which the estimates are of, with values of `planned_dtype`. `error`: of the logits against the whole model's, relative; None when not compared. `same`: the chosen tokens are
    those of its largest logits. `timeline`: of the last timed pass, where it was asked for. `training`: of a training step, where `error` is that
    of loss and gradients, and `same` says that new weights agree."""

    phase: str
    ranks: int
    device: str
    dtype: str
    measured_s: float
    estimated_s: float
    error: float | None
    allowed: float
    classes: tuple[ClassTime, ...]
    same: bool = True
    planned: str = "gpu"
    planned_dtype: str = ""
    timeline: Timeline | None = None
    training: StepFacts | None = None

    @property
    def holds(self) -> bool:
        return self.error is None or (self.error <= self.allowed and self.same)

    @property
    def compares(self) -> bool:
        """Whether the estimates say anything about what ran: those of GPUs say nothing about a CPU, nor the other way round."""
        return (self.device == "cpu") == (self.planned == "cpu")

    def to_json(self) -> dict[str, Any]:
        """Without estimates (None) where they are of another kind of device."""
        found = {"schema": 2, **asdict(replace(self, timeline=None)), "compares": self.compares, "holds": self.holds}
        del found["timeline"]
        if self.training is None:
            del found["training"]
        if not self.compares:
            ranks = () if self.training is None else found["training"]["ranks"]
            for row in (found, *found["classes"], *ranks):
                row["estimated_s"] = None
            for row in ranks:
                row["estimated_waited_s"] = None
        return found
