"""require: judge each requirement against the metrics of the compiled plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf, log
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Label, did_you_mean
from ..base.frozen import record, replace
from ..base.schema.hardware import HARDWARE as OF_HARDWARE
from ..base.syntax import ast
from ..base.units import (
    BYTES,
    EXAMPLES,
    SCALAR,
    Dim,
    Quantity,
    number,
    show,
)
from ..lang.values.evaluate import compare, holds, names_in
from ..spec.metrics.known_metrics import metric, of_serving
from ..spec.metrics.meant import meant_metric
from ..spec.metrics.metric import HARDWARE, percent
from ..spec.model import AttrValue
from ..spec.requirement import Requirement
from ..spec.spec import Spec
from .pools import Pool, heading, listed, text

if TYPE_CHECKING:
    from ..serving.result import ServeResult
    from .result import PhaseResult
    from .subject import Subject
    from .trained import TrainingResult


MANY = 3.0
"""From here on people say how many times, not how many percent more."""


@record
class Verdict:
    """A judged requirement: `value` and `bound` are its left and right side in SI units of `dim`."""

    requirement: Requirement
    value: float
    bound: float
    dim: Dim
    passed: bool
    share: bool = False  # a fraction, shown as percent

    def __repr__(self) -> str:
        return f"<Verdict {'pass' if self.passed else 'FAIL'} {self.requirement.label!r}: {self.sides}>"

    def shown(self, value: float) -> str:
        """One of its sides for people."""
        return percent(value) if self.share else show(value, self.dim)

    @property
    def sides(self) -> str:
        """`107.6 ms <= 10 s`, or where it does not hold `12 s, not <= 10 s`"""
        return f"{self.shown(self.value)}{'' if self.passed else ', not'} {self.requirement.test.op} {self.shown(self.bound)}"

    @property
    def is_limit(self) -> bool:
        """One side may be as far from the other as it likes; else they are to be alike."""
        return self.requirement.test.op not in ("~", "==")

    @property
    def distance(self) -> float:
        """How far what was found is from what is required, alike for twice and for half of it."""
        if self.value == self.bound:
            return 0.0
        return abs(log(self.value / self.bound)) if self.value * self.bound > 0 else inf

    @property
    def by(self) -> str:
        """The same in words: `5.79 s over (+57.9%)`, `16,800 tok/s under (-16.8%)`; nothing where both sides are equal."""
        gap = self.value - self.bound
        if self.distance < 1e-9:
            return ""
        size = f"{number(100 * abs(gap))} points" if self.share else show(abs(gap), self.dim)
        ratio = self.value / self.bound if self.bound else 0.0
        change = f"{ratio - 1:+.1%}" if abs(ratio - 1) >= 0.001 else f"{100 * (ratio - 1):+.1g}%"
        part = f" ({number(ratio, 3)} times)" if ratio >= MANY else f" ({change})" if self.bound else ""
        return f"{size} {'over' if gap > 0 else 'under'}{part}"


def run(
    spec: Spec,
    phases: Mapping[str, PhaseResult],
    params: tuple[float, float],
    pools: Sequence[Pool],
    out: Collector,
    servings: Mapping[str, ServeResult] | None = None,
    metrics: Mapping[str, Quantity] | None = None,
    trainings: Mapping[str, TrainingResult] | None = None,
) -> tuple[Verdict, ...]:
    """Verdicts in the spec's order. `metrics`: all of the plan, where they are known. A requirement on a phase that was not compiled is left out, and one on a serving that was not
    simulated: who did not simulate it says so."""
    servings = servings or {}
    if not spec.requirements:
        return ()
    if metrics is None:
        from .subject import AskedMetrics, Subject

        metrics = AskedMetrics(Subject(spec, phases, params, pools, servings=servings, trainings=trainings or {}))
    skipped = {p.name for p in (*spec.phases, *spec.trainings)} - {*phases, *(trainings or ())} | {
        s.name for s in spec.serves
    } - set(servings)
    verdicts = []
    for requirement in spec.requirements:
        if skipped & owners(requirement):
            continue
        found = compare(requirement.test, lambda node: _lookup(node, metrics, spec, phases, out, servings), out)
        if found is None:
            continue
        warn_of_phases_left_out(requirement, spec, phases, out)
        left, right, passed = found
        dim = left.dim if left.dim != SCALAR else right.dim
        share = dim == SCALAR and is_share(requirement.test)
        verdict = Verdict(requirement, left.value, right.value, dim, passed, share)
        verdicts.append(verdict)
        if dim == SCALAR:
            warn_of_percent(requirement, left.value, right.value, out)
        if not passed:
            out.add(
                "R07",
                f"requirement `{requirement.label}` does not hold",
                requirement.span,
                f"{verdict.shown(left.value)} against {verdict.shown(right.value)}",
                because=[
                    f"{heading(p)}: {text(p)}"
                    for p in pools
                    if p.shared and _asks_of(requirement, p.phases, p.hardware)
                ],
            )
    return tuple(verdicts)


def judged(subject: Subject, requirements: Sequence[Requirement], out: Collector | None = None) -> tuple[Verdict, ...]:
    """Verdicts of some requirements on a plan with whatever servings; nobody but `out` is told."""
    spec = replace(subject.spec, requirements=tuple(requirements))
    told = Collector() if out is None else out
    return run(spec, subject.phases, subject.params, subject.pools, told, subject.servings, trainings=subject.trainings)


def owners(requirement: Requirement) -> set[str]:
    """What precedes the metrics that it names: phases, servings, pools of GPUs."""
    return {name.parts[0] for name in names_in(requirement.test)}


def is_share(test: ast.Comparison) -> bool:
    """Is a fraction judged: a metric that is one, a ratio of sizes, or a bound in percent?"""
    return any(_fraction(side) or _in_percent(side) for side in (test.left, test.right))


def _fraction(expr: ast.Expr) -> bool:
    if isinstance(expr, ast.Name):
        known = metric(expr.text)
        return known is not None and known.share
    if isinstance(expr, ast.Binary) and expr.op == "/":
        sizes = [metric(side.text) for side in (expr.left, expr.right) if isinstance(side, ast.Name)]
        return len(sizes) == 2 and all(m is not None and m.dim == BYTES for m in sizes)
    return False


def _in_percent(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Number) and expr.unit == "%"


MOST_SHARE = 1.5
"""From where on a bound of a fraction is probably a percentage."""


def warn_of_percent(requirement: Requirement, left: float, right: float, out: Collector) -> None:
    """`memory.fraction <= 90` holds always: 90 % is meant."""
    test = requirement.test
    for side, other, bound in ((test.left, test.right, right), (test.right, test.left, left)):
        if _fraction(side) and not _in_percent(other) and MOST_SHARE < bound <= 100:
            out.add(
                "W06",
                f"a fraction is compared with {bound:g}: 1 is all of it, so this {'always' if requirement_holds(test, left, right) else 'never'} holds",
                other.span,
                f"did you mean {bound:g}%?",
                also=(Label(side.span, "a fraction"),),
            )


def requirement_holds(test: ast.Comparison, left: float, right: float) -> bool:
    return holds(test.op, left, Quantity(right), None)


def _asked(requirement: Requirement) -> set[str]:
    """Phases and pools, whose GPUs' memory a requirement names."""
    names = (".".join(name.parts) for name in names_in(requirement.test))
    return {n.partition(".")[0] for n in names if (m := metric(n)) is not None and m.pooled}


def _asks_of(requirement: Requirement, phases: Collection[str], pool: str = "") -> list[str]:
    """Those of the phases, all on one pool, whose GPUs' memory a requirement names."""
    asked = _asked(requirement)
    return [phase for phase in phases if phase in asked or (pool or HARDWARE) in asked]


def warn_of_phases_left_out(
    requirement: Requirement, spec: Spec, phases: Mapping[str, PhaseResult], out: Collector
) -> None:
    """Memory of GPUs that a phase shares with one that was not compiled counts less than they hold."""
    left = [p for p in spec.phases if p.name not in phases]
    if not left:
        return
    asked = _asks_of(requirement, phases)
    every = any(name.parts[0] == HARDWARE for name in names_in(requirement.test))
    pools = sorted(_asked(requirement) & set(spec.pools)) if spec.others else []
    for name in (*(asked[:1] if every else asked), *pools):
        wide = every or name in pools
        missing = [p.name for p in left if every or p.hardware == name or (not wide and p.shares(spec.phase(name)))]
        if missing:
            whose = "the fullest GPU" if every else f"the fullest GPU of `{name}`" if wide else f"`{name}`"
            where = "" if wide else " on the same GPUs"
            out.add(
                "W06",
                f"memory of {whose} is judged without {listed([f'`{n}`' for n in missing])}{where}",
                requirement.span,
                help=("compile all phases to judge everything on their GPUs",),
            )


def _lookup(
    node: ast.Name | ast.CallExpr,
    metrics: Mapping[str, Quantity],
    spec: Spec,
    phases: Mapping[str, PhaseResult],
    out: Collector,
    servings: Mapping[str, ServeResult],
) -> AttrValue | None:
    if isinstance(node, ast.CallExpr):
        return _gpu(node, spec, phases, out)
    if node.text in metrics:
        return metrics[node.text]
    if node.parts[1:] in (("kv_transfer",), ("kv_bytes",)) and (apart := _unlinked(node.parts[0], spec, phases)):
        source, target = phases[node.parts[0]].hardware, apart.hardware
        message = f"no link joins `{source}` to `{target}`, on which `{apart.name}` is"
        help_ = (f"write `link {source} to {target} {{ bandwidth = 50 GB/s, latency = 6 us }}`",)
        out.add("E10", f"`{node.text}`: {message}", node.span, help=help_)
        return None
    if (known := metric(node.text)) is not None and known.needs and _lacks(known.needs, node.parts[0], spec, metrics):
        example = EXAMPLES[OF_HARDWARE[known.needs].dim]
        help_ = (f"write `{known.needs} = {example}`, of one GPU, in the hardware section",)
        out.add("E10", f"`{node.text}` needs `{known.needs}` of the hardware", node.span, help=help_)
        return None
    served = servings.get(node.parts[0])
    if served is not None and (name := ".".join(node.parts[1:])) in {m.name for m in of_serving()}:
        lacking = next(m.absent for m in of_serving() if m.name == name)
        why = (
            lacking or "no request has a second token"
            if served.finished
            else f"none of its {served.arrived} requests ended"
        )
        away = served.count("rejected")
        because = (f"{away} were turned away, which never had room or met a full queue",) if away else ()
        out.add("E03", f"`{node.parts[0]}` has no `{name}`: {why}", node.span, because=because)
        return None
    out.add("E02", f"unknown metric `{node.text}`", node.span, help=meant_metric(node.text, metrics))
    return None


def _lacks(needs: str, owner: str, spec: Spec, metrics: Mapping[str, Quantity]) -> bool:
    """Whether GPUs that the owner, a phase, serving or pool, may mean have no such figure."""
    pools = (owner,) if owner in spec.pools else tuple(spec.pools) if spec.others else (HARDWARE,)
    return any(f"{pool}.{needs}" not in metrics for pool in pools)


def _unlinked(name: str, spec: Spec, phases: Mapping[str, PhaseResult]) -> PhaseResult | None:
    """The first decode on another pool, to which no link leads, of a phase whose cache goes nowhere."""
    if name not in phases or not phases[name].graph.takes_prompts:
        return None
    own = phases[name]
    apart = (r for r in phases.values() if r.graph.generates and r.hardware != own.hardware)
    return next((r for r in apart if spec.pool_link(own.hardware, r.hardware) is None), None)


def _gpu(node: ast.CallExpr, spec: Spec, phases: Mapping[str, PhaseResult], out: Collector) -> Quantity | None:
    """`decode.gpu(dp = 7, ep = 0)`: the GPU id of the first rank with these coordinates."""
    name, _, method = node.func.text.rpartition(".")
    if method != "gpu" or name not in phases:
        out.add(
            "E02",
            f"unknown function `{node.func.text}`",
            node.span,
            help=("write PHASE.gpu(axis = index, ...)",),
        )
        return None
    import numpy as np

    from ..ir.mesh import axis_coordinates
    from ..spec.factors import factorisations

    graph = phases[name].graph
    phase = spec.phase(name)
    mesh = graph.the_mesh
    coordinates = axis_coordinates(mesh, factorisations(phase.strategy)[0])
    asked = {atom for axis, _ in node.kwargs for atom in mesh.of(axis)}
    ids = np.broadcast_to(mesh.ids_on(mesh.place_of(mesh.sort([*asked]))), (mesh.stages, *mesh.shape))
    chosen = np.ones(ids.shape, dtype=bool)
    for axis, value in node.kwargs:
        if axis not in coordinates or not isinstance(value, ast.Number):
            near = did_you_mean(axis, coordinates)
            out.add("E02", f"unknown axis `{axis}`", node.span, help=(f"did you mean `{near}`?",) if near else ())
            return None
        chosen &= np.broadcast_to(coordinates[axis] == int(value.value), ids.shape)
    if not chosen.any():
        out.add("E09", "no rank has these coordinates", node.span)
        return None
    return Quantity(float(ids[chosen][0]))
