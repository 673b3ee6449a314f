"""A measured step, and how far its estimate is off."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from dagc.base.diagnostics import Collector
from dagc.base.frozen import record
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.compile import compile_spec
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
    """Whether it fits or not, and nothing is sought that would."""
    out = Collector()
    return compile_spec(load(Source("measured.moe", spec), out), out).trainings["train"]
