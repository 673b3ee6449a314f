"""A measured step, and how far its estimate is off."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import dagc
from dagc.base.frozen import record
from dagc.plan.trained import TrainingResult

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "training"
Row = Mapping[str, str]


@record
class Step:
    """`gpu`: name of its calibration; `spec`: the text that compiles to it."""

    name: str
    model: str
    gpu: str
    measured_s: float
    spec: str


def rows(name: str) -> list[Row]:
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compiled(spec: str) -> TrainingResult:
    return dagc.compile_text(spec).trainings["train"]
