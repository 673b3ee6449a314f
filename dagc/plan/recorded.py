"""Figures and verdicts of a plan as plain data: what `dagc compile --json` writes, by which two plans are compared."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import field, record
from ..base.units import Dim

SCHEMA = 2
"""Version of the plan object; its JSON schema is `dagc/export/plan.schema.json`, `plan.1.schema.json` the one before."""
Metric = tuple[float, Dim]


@record(slots=False)
class Recorded:
    """`metrics`: phase -> name -> (value, dimension); `degrees`: phase -> axis -> degree; `pools`: phases that share GPUs ->
    bytes on the fullest of these; `verdicts`: requirement -> whether it held; `servings`: as `metrics`, of those that were simulated; `kept_up`: their verdicts;
    `hardware`: phase -> pool of GPUs, where there are several; `trainings`: as `metrics`, of phases that train, which `gpus` and `degrees` have too."""

    schema: int
    params: tuple[float, float]
    gpus: Mapping[str, int]
    degrees: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Mapping[str, Metric]]
    pools: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    fits: bool = True
    servings: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    kept_up: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    trainings: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
