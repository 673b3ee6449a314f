"""Two plans side by side: what was put in, what became of the structure, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ...base.frozen import record
from ...base.schema.homes import HOMES
from ...base.source import Span
from ...base.units import BYTE_RATE, BYTES, FLOP_RATE, REQUEST_RATE, SCALAR, TIME, Dim, Quantity, show, show_runs
from ...ir.graph import Graph, Stage
from ...plan.plan import CompiledPlan
from ...plan.recorded import SCHEMA, Metric, Recorded
from ...plan.result import PhaseResult
from ...plan.subject import phase_metrics, result_metrics, training_metrics
from ...spec.hardware import Level
from ...spec.metrics.known_metrics import metric, of_serving
from ...spec.metrics.metric import percent
from ...spec.spec import Spec
from ..facts.axes_words import axes_text

if TYPE_CHECKING:
    from ...plan.trained import TrainingResult
    from ...serving.result import ServeResult

FITS = "every GPU holds what it must"
"""The verdict on memory, among those of requirements."""
SAME = 1e-9
"""Relative differences below this are none."""


@record
class Change:
    """An input or a part of the structure; absent on one side, it came or went."""

    name: str
    before: str | None
    after: str | None


@record
class Figure:
    """A result that changed. `better` is None where neither direction is better."""

    name: str
    before: float
    after: float
    dim: Dim
    better: bool | None

    def shown(self, value: float) -> str:
        """One of its values for people."""
        found = metric(self.name)
        return percent(value) if found is not None and found.share else show(value, self.dim)

    @property
    def ratio(self) -> float | None:
        """Relative change."""
        return (self.after - self.before) / abs(self.before) if self.before else None


@record
class Turn:
    """A requirement whose verdict differs. None: not there."""

    label: str
    before: bool | None
    after: bool | None


@record
class Diff:
    inputs: tuple[Change, ...]
    structure: tuple[Change, ...]
    results: tuple[Figure, ...]
    requirements: tuple[Turn, ...]

    @property
    def empty(self) -> bool:
        return not (self.inputs or self.structure or self.results or self.requirements)

    def regressions(self, percent: float) -> list[str]:
        """What got worse by more than some percent, and requirements that no longer hold."""
        found = [
            figure.name
            for figure in self.results
            if figure.better is False and _gated(figure.name) and _beyond(figure, percent)
        ]
        return found + [t.label for t in self.requirements if t.before and t.after is False]


def _gated(name: str) -> bool:
    """Can it be a regression? The other figures follow from these or explain them."""
    found = metric(f"phase.{name.split('.', 1)[1]}")
    return found is not None and found.gated


def _beyond(figure: Figure, percent: float) -> bool:
    return figure.ratio is None or abs(figure.ratio) > percent / 100 + SAME


def compare(a: CompiledPlan | Recorded, b: CompiledPlan | Recorded) -> Diff:
    """From a to b. Of a plan that was written as JSON the spec is not known: what both sides tell is compared."""
    if isinstance(a, Recorded) or isinstance(b, Recorded):
        before, after = _recorded(a), _recorded(b)
        shapes = tuple(_changes(_shape(before), _shape(after)))
        return Diff((), shapes, (*_figures(before, after), *_pools(before, after)), tuple(_turns(before, after)))
    before, after = _recorded(a), _recorded(b)
    return Diff(
        tuple(_changed_inputs(a.spec, b.spec)),
        tuple(_changes(structure(a), structure(b))),
        (*_figures(before, after), *_pools(before, after)),
        tuple(_turns(before, after)),
    )


def _recorded(plan: CompiledPlan | Recorded) -> Recorded:
    """What a diff compares of a plan, whether it was compiled or read."""
    if isinstance(plan, Recorded):
        return plan
    both: dict[str, PhaseResult | TrainingResult] = {**plan.phases, **plan.trainings}
    return Recorded(
        SCHEMA,
        plan.params,
        {name: len(result.gpus) for name, result in both.items()},
        {name: dict(result.graph.the_mesh.degrees) for name, result in both.items()},
        {name: _of(phase_metrics(plan.subject(name))) for name in plan.phases},
        {pool.phases: pool.peak_B for pool in plan.shared},
        {v.requirement.label: v.passed for v in plan.requirements},
        plan.fits,
        {name: _served(plan, result) for name, result in plan.servings.items()},
        {name: result.verdict for name, result in plan.servings.items()},
        {name: result.hardware for name, result in both.items() if result.hardware},
        {name: _of(training_metrics(plan.subject(name))) for name in plan.trainings},
    )


def _of(found: Mapping[str, Quantity]) -> dict[str, Metric]:
    return {name: (q.value, q.dim) for name, q in found.items()}


def _served(plan: CompiledPlan, result: ServeResult) -> dict[str, tuple[float, Dim]]:
    dims = {m.name: m.dim for m in of_serving()}
    return {name: (value, dims[name]) for name, value in result_metrics(plan.subject(), result).items()}


def _shape(plan: Recorded) -> dict[str, str]:
    """GPUs and degrees of every phase, and whether servings keep up."""
    out: dict[str, str] = {}
    for name, degrees in plan.degrees.items():
        out |= {f"{name}: pool": plan.hardware[name]} if name in plan.hardware else {}
        out[f"{name}: GPUs"] = str(plan.gpus[name])
        out |= {f"{name}: {axis}": str(degree) for axis, degree in degrees.items() if degree > 1}
    return out | {f"{name}: verdict": verdict for name, verdict in plan.kept_up.items()}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _changed_inputs(a: Spec, b: Spec) -> Iterator[Change]:
    """A requirement that only one side has is reported among the verdicts."""
    yield from _changes(inputs(a), inputs(b))
    before, after = ({f'require "{r.label}"': r.text for r in spec.requirements} for spec in (a, b))
    yield from (c for c in _changes(before, after) if c.before is not None and c.after is not None)


# -- inputs ----------------------------------------------------------------------------------------


def inputs(spec: Spec) -> dict[str, str]:
    """Everything that a spec says, flat: `phase.prefill.strategy.tp` -> `2`."""
    out: dict[str, str] = {}
    for name, value in spec.constants.items():
        out[f"param.{name}" if name in spec.params else f"let.{name}"] = _value(value)
    for own in spec.pools.values():
        _flatten(f"hardware.{own.name}" if spec.others else "hardware", own, out)
    for link in spec.pool_links:
        _flatten(f"link {' to '.join(link.pools)}", link, out)
    model = spec.model
    for name in ("name", "dtype", "weight_dtype", "kv_dtype", "attention_dtype", "params_stated", "weight_dtypes"):
        _flatten(f"model.{name}", getattr(model, name), out)
    for name, value in model.attributes.items():
        out[f"model.{name}"] = _value(value)
    out["model.stack"] = ", ".join(f"{s.repeat} x {s.name} [{', '.join(s.blocks)}]" for s in model.stack)
    out |= {
        f"model.block {name}{f' ({kind})' if kind else ''}": _source(block.span)
        for (name, kind), block in model.blocks.items()
    }
    _flatten("workload", spec.workload, out)
    for phase in (*spec.phases, *spec.trainings):
        _flatten(f"phase.{phase.name}", phase, out)
    for serve in spec.serves:
        _flatten(f"serve.{serve.name}", serve, out)
    return out


def _flatten(name: str, value: Any, out: dict[str, str]) -> None:
    if name.endswith(".place") and value is not None:
        from ...lang.printer.expressions import expression

        out[name] = expression(value)
    elif name.endswith(".exits"):
        out |= {name: ", ".join(f"{one.share:.4g} behind {one.layer}" for one in value)} if value else {}
    elif name.endswith(".best"):
        out |= {f"{name.removesuffix('best')}place": "best"} if value else {}
    elif is_dataclass(value) and not isinstance(value, Quantity):
        for field in fields(value):
            if field.name not in ("span", "spans", "ids", "pools", "draft_model") and not (
                isinstance(value, Level) and field.name == "name"
            ):
                part = getattr(value, field.name)
                named, dim = _as_written(field.name)
                if isinstance(part, float) and dim is not None:
                    part = Quantity(part, dim)
                elif isinstance(part, Mapping) and dim is not None:
                    part = {key: Quantity(v, dim) for key, v in part.items()}
                _flatten(f"{name}.{named}" if named else name, part, out)
    elif isinstance(value, tuple) and value and isinstance(value[0], Level):
        for level in value:
            _flatten(f"{name.rpartition('.')[0]}.link {level.name}", level, out)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _flatten(name if key == "default" else f"{name}.{key}", part, out)
    elif value not in (None, ""):
        known = [schema[last] for schema in HOMES.values() if (last := name.rpartition(".")[2]) in schema]
        if known and isinstance(value, int | float) and not isinstance(value, bool):
            share = known[0].kind == "number" and known[0].high == 1 and known[0].dim == SCALAR
            out[name] = percent(value) if share else _value(Quantity(float(value), known[0].dim))
        else:
            out[name] = _value(value)


_SUFFIXES = {"_B": BYTES, "_Bps": BYTE_RATE, "_s": TIME, "_flops": FLOP_RATE}
_WRITTEN = {
    "node": "link node",
    "cluster": "link cluster",
    "params_stated": "params",
    "strategy": "",
    "precision": "",
    "degrees": "",
}


def _as_written(field: str) -> tuple[str, Dim | None]:
    """How a spec writes a field of a record (`memory_B`: `memory`), and what its number is in."""
    if field == "rate_per_s":
        return "rate", REQUEST_RATE
    for suffix, dim in _SUFFIXES.items():
        if field.endswith(suffix):
            return field.removesuffix(suffix), dim
    return _WRITTEN.get(field, field), None


def _value(value: object) -> str:
    if isinstance(value, Quantity):
        return show(value.value, value.dim)
    if isinstance(value, tuple) and value and all(isinstance(v, tuple) and len(v) == 2 for v in value):
        return " x ".join(f"{name} {size}" for name, size in value)
    if isinstance(value, tuple) and value and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
        return show_runs(value, most=6)
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    return f"{value:.6g}"


def _source(span: Span) -> str:
    """A block by its words, however they are laid out."""
    return " ".join(span.text.split())


# -- structure -------------------------------------------------------------------------------------


def structure(plan: CompiledPlan) -> dict[str, str]:
    """Phases, their stages, and the collectives of each kind of layer."""
    out: dict[str, str] = {}
    both: dict[str, PhaseResult | TrainingResult] = {**plan.phases, **plan.trainings}
    for name, result in both.items():
        out |= {f"{name}: pool": result.hardware} if result.hardware else {}
        out[f"{name}: GPUs"] = str(len(result.gpus))
        out[f"{name}: mesh"] = axes_text(result.graph)
        out[f"{name}: layers by stage"] = _stages(result.graph.stages)
        for key, count in _collectives(result.graph).items():
            out[f"{name}: {key}"] = str(count)
    for name, trained in plan.trainings.items():
        from ..facts.training_words import schedule_text

        out[f"{name}: schedule"] = schedule_text(trained)
        if trained.steps.schedule.chunks > 1:
            out[f"{name}: layers by virtual stage"] = _stages(trained.stages)
    return out | {f"{name}: verdict": result.verdict for name, result in plan.servings.items()}


def _stages(stages: Sequence[Stage]) -> str:
    texts = [", ".join(f"{n} {layer}" for layer, n in s.layers) for s in stages]
    return " | ".join(texts) if len(texts) <= 8 else f"{' | '.join(texts[:4])} | ... {len(texts)} stages"


def _collectives(graph: Graph) -> dict[str, int]:
    """`all_reduce over tp (4) in a sparse` -> how many."""
    mesh = graph.the_mesh
    found: dict[str, int] = {}
    for segment in graph.segments:
        for op in segment.ops:
            if op.is_collective:
                over = "+".join(mesh.label(op.axes, op.scope))
                cell = f"{op.cell} of each" if op.cell else "each"
                key = f"{op.runtime_kind} over {over} ({mesh.ranks_of(op.kind, op.axes)}) in {cell} {segment.name}"
                found[key] = found.get(key, 0) + 1
    if mesh.stages > 1:
        found["send between stages"] = mesh.stages - 1
    return found


# -- results ---------------------------------------------------------------------------------------


def _figures(a: Recorded, b: Recorded) -> Iterator[Figure]:
    totals = ("model.params_total", "model.params_active")
    for name, before, after in zip(totals, a.params, b.params, strict=True):
        if _differ(before, after):
            yield Figure(name, before, after, SCALAR, None)
    for owner, left, right in _owners(a, b):
        for name, (before, dim) in left.items():
            after = right.get(name, (before, dim))[0]
            if _is_result(name) and _differ(before, after):
                yield Figure(f"{owner}.{name}", before, after, dim, _better(name, before, after))


def _owners(a: Recorded, b: Recorded) -> Iterator[tuple[str, Mapping[str, Metric], Mapping[str, Metric]]]:
    """Phases, those that train, then servings of both sides."""
    for before, after in ((a.metrics, b.metrics), (a.trainings, b.trainings), (a.servings, b.servings)):
        yield from ((name, left, after.get(name, {})) for name, left in before.items())


def _pools(a: Recorded, b: Recorded) -> Iterator[Figure]:
    """Memory of GPUs that phases share, in both plans."""
    for phases, before in a.pools.items():
        after = b.pools.get(phases, before)
        if _differ(before, after):
            yield Figure(f"{'+'.join(phases)}.memory.peak", before, after, BYTES, after < before)


def _is_result(name: str) -> bool:
    found = metric(f"phase.{name}")
    return found is not None and found.is_result


def _differ(before: float, after: float) -> bool:
    return abs(after - before) > SAME * max(abs(before), abs(after))


def _better(name: str, before: float, after: float) -> bool | None:
    found = metric(f"phase.{name}")
    if found is None or not found.better:
        return None
    return after > before if found.better == "higher" else after < before


def _turns(a: Recorded, b: Recorded) -> Iterator[Turn]:
    before, after = a.verdicts, b.verdicts
    if a.fits != b.fits:
        yield Turn(FITS, a.fits, b.fits)
    for label in dict.fromkeys((*before, *after)):
        if before.get(label) != after.get(label):
            yield Turn(label, before.get(label), after.get(label))
