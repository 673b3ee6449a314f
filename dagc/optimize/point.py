"""A point of a sweep: what is set, and what comes of it when it is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.frozen import field, record

if TYPE_CHECKING:
    from ..base.units import Quantity
    from ..plan.require import Verdict


@record
class SweepRow:
    """One point: what was set, what came of it. `metrics`: every name that a requirement may use, in SI units;
    `failed`: requirements that do not hold, and the values; `errors`: codes and messages of a point that does not
    compile; `fits`: no GPU needs more memory than it has."""

    settings: dict[str, str]
    passed: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    fits: bool = True


@record
class Task:
    """A point with all that it takes to compile it anywhere: presets come with dagc, files from `base_dir`. `servings`: to simulate in
    addition to those that requirements name."""

    text: str
    name: str
    base_dir: str | None
    settings: tuple[tuple[str, str], ...]
    phases: tuple[str, ...] = ()
    allow_import: tuple[str, ...] = ()
    servings: tuple[str, ...] = ()


def compiled(task: Task) -> SweepRow:
    """Compile one point."""
    from ..base.diagnostics import Collector, SpecError
    from ..base.source import Source
    from ..lang.load import load
    from ..pipeline.compile import compile_spec
    from ..plan.subject import all_metrics

    settings = dict(task.settings)
    base = Path(task.base_dir) if task.base_dir is not None else None
    try:
        spec = load(Source(task.name, task.text), Collector(), settings, base, task.allow_import)
        plan = compile_spec(spec, Collector(), task.phases or None, servings=task.servings)
    except SpecError as error:
        return SweepRow(settings, errors=tuple(f"{d.code}: {d.message}" for d in error.diagnostics if d.is_error))
    except Exception as error:  # the fault of one point does not affect the others
        return SweepRow(settings, errors=(f"internal error: {type(error).__name__}: {error}",))
    return row_of(settings, all_metrics(plan.subject()), plan.requirements, plan.fits)


def row_of(
    settings: dict[str, str], metrics: Mapping[str, Quantity], verdicts: Sequence[Verdict], fits: bool
) -> SweepRow:
    failed = tuple(
        f"{v.requirement.label}: {v.shown(v.value)}, not {v.requirement.test.op} {v.shown(v.bound)}"
        for v in verdicts
        if not v.passed
    )
    numbers = {name: value.value for name, value in metrics.items()}
    return SweepRow(settings, fits and not failed, numbers, failed, fits=fits)
