"""require: judge each requirement against the metrics of the compiled plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from ..base import coming
from ..base.axes import DEGREES
from ..base.collectives import TRANSFERS
from ..base.diagnostics import Collector, Label, did_you_mean
from ..base.phase_kinds import PREFILL
from ..base.syntax import ast
from ..base.units import (
    BYTE_RATE,
    BYTES,
    FLOP_RATE,
    SCALAR,
    TIME,
    TOKEN_RATE,
    TOKENS,
    Dim,
    Quantity,
    show,
)
from ..cost.kv_cache import cache_policy, sequence_tokens
from ..ir.graph import DTYPE_BYTES
from ..ir.mesh import axis_coordinates
from ..ir.ops.kind import Tokens
from ..ir.ops.ops import OPS, state_of
from ..lang.values.evaluate import compare, holds, names_in
from ..spec.factors import factorisations
from ..spec.metrics import meant_metric, metric, percent
from ..spec.model import AttrValue
from ..spec.requirement import Requirement
from ..spec.spec import Spec
from .pools import Pool, heading, kv_tokens, listed, text
from .result import PhaseResult

ABOUT = "judge every requirement"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged requirement: `value` and `bound` are its left and right side in SI units of `dim`."""

    requirement: Requirement
    value: float
    bound: float
    dim: Dim
    passed: bool
    share: bool = False  # a fraction, shown as percent

    def shown(self, value: float) -> str:
        """One of its sides for people."""
        return percent(value) if self.share else show(value, self.dim)


def run(
    spec: Spec,
    phases: Mapping[str, PhaseResult],
    params: tuple[float, float],
    pools: Sequence[Pool],
    out: Collector,
) -> tuple[Verdict, ...]:
    """Verdicts in the spec's order. A requirement on a phase that was not compiled is left out."""
    metrics = all_metrics(spec, phases, params, pools)
    skipped = {p.name for p in spec.phases} - set(phases)
    verdicts = []
    for requirement in spec.requirements:
        if skipped & {name.parts[0] for name in names_in(requirement.test)}:
            continue
        found = compare(requirement.test, lambda node: _lookup(node, metrics, spec, phases, out), out)
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
                because=[f"{heading(p)}: {text(p)}" for p in pools if p.shared and _asks_of(requirement, p.phases)],
            )
    return tuple(verdicts)


def is_share(test: ast.Comparison) -> bool:
    """Is a fraction judged: a metric that is one, a ratio of sizes, or a bound in percent?"""
    return any(_fraction(side) or _in_percent(side) for side in (test.left, test.right))


def _fraction(expr: ast.Expr) -> bool:
    if isinstance(expr, ast.Name):
        found = metric(expr.text)
        return found is not None and found.share
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


POOLED = ("memory.peak", "memory.fraction", "memory.kv_tokens")
"""Metrics of a phase that count all that its GPUs hold, for whatever phase."""


def _asks_of(requirement: Requirement, phases: Collection[str]) -> list[str]:
    """Those of the phases whose GPUs' memory a requirement names."""
    names = (".".join(name.parts) for name in names_in(requirement.test))
    asked = {n.partition(".")[0] for n in names if n.partition(".")[2].removesuffix("_free") in POOLED}
    return [phase for phase in phases if phase in asked or "hardware" in asked]


def warn_of_phases_left_out(
    requirement: Requirement, spec: Spec, phases: Mapping[str, PhaseResult], out: Collector
) -> None:
    """Memory of GPUs that a phase shares with one that was not compiled counts less than they hold."""
    known = {p.name: set(p.gpus) for p in spec.phases}
    left = [p.name for p in spec.phases if p.name not in phases]
    asked = _asks_of(requirement, phases)
    every = any(name.parts[0] == "hardware" for name in names_in(requirement.test))
    for name in asked[:1] if every else asked:
        missing = [n for n in left if every or known[name] & known[n]]
        if missing:
            whose = "the fullest GPU" if every else f"`{name}`"
            where = "" if every else " on the same GPUs"
            out.add(
                "W06",
                f"memory of {whose} is judged without {listed([f'`{n}`' for n in missing])}{where}",
                requirement.span,
                help=("compile all phases to judge everything on their GPUs",),
            )


def _lookup(
    node: ast.Name | ast.Call,
    metrics: Mapping[str, Quantity],
    spec: Spec,
    phases: Mapping[str, PhaseResult],
    out: Collector,
) -> AttrValue | None:
    if isinstance(node, ast.Call):
        return _gpu(node, spec, phases, out)
    if node.text in metrics:
        return metrics[node.text]
    if (what := coming.metric(node.text)) is not None:
        coming.refuse(what, node.span, out)
        return None
    out.add("E02", f"unknown metric `{node.text}`", node.span, help=meant_metric(node.text, metrics))
    return None


def _gpu(node: ast.Call, spec: Spec, phases: Mapping[str, PhaseResult], out: Collector) -> Quantity | None:
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
    graph = phases[name].graph
    phase = spec.phase(name)
    mesh = graph.the_mesh
    coordinates = axis_coordinates(mesh, factorisations(phase.strategy)[0])
    ids = np.asarray(phases[name].gpus).reshape(mesh.stages, *mesh.shape)
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


def all_metrics(
    spec: Spec, phases: Mapping[str, PhaseResult], params: tuple[float, float], pools: Sequence[Pool]
) -> dict[str, Quantity]:
    """Every name that a requirement may use, with its value and dimension."""
    h, w = spec.hardware, spec.workload
    out = {k: v for k, v in spec.constants.items() if isinstance(v, Quantity)}
    out |= {f"model.{k}": v for k, v in spec.model.attributes.items() if isinstance(v, Quantity)}
    out |= {"model.params_total": Quantity(params[0]), "model.params_active": Quantity(params[1])}
    if spec.model.params_stated is not None:
        out["model.params"] = Quantity(spec.model.params_stated)
    out["model.layers"] = Quantity(float(spec.model.layers))
    out |= {
        "hardware.gpus": Quantity(float(h.gpus)),
        "hardware.per_node": Quantity(float(h.per_node)),
        "hardware.compute": Quantity(h.peak_flops(spec.model.dtype), FLOP_RATE),
        "hardware.mfu": Quantity(h.mfu),
        "hardware.memory": Quantity(h.memory_B, BYTES),
        "hardware.memory.peak": Quantity(max(pool.peak_B for pool in pools), BYTES),
        "hardware.memory.fraction": Quantity(max(pool.fraction for pool in pools)),
        "hardware.hbm": Quantity(h.hbm_Bps, BYTE_RATE),
        "hardware.mbu": Quantity(h.mbu),
        "hardware.launch": Quantity(h.launch_s, TIME),
        "hardware.reserve": Quantity(h.reserve_B, BYTES),
        "workload.sequences": Quantity(float(w.sequences)),
        "workload.prompt": Quantity(float(w.prompt), TOKENS),
        "workload.output": Quantity(float(w.output), TOKENS),
    }
    for name, result in phases.items():
        out |= {f"{name}.{k}": v for k, v in phase_metrics(result, spec, pools).items()}
        after = next((r for r in phases.values() if r.graph.generates and not set(r.gpus) & set(result.gpus)), None)
        if result.graph.takes_prompts and after is not None:
            size_B, time_s = kv_transfer(result, after, spec)
            out |= {f"{name}.kv_transfer": Quantity(time_s, TIME), f"{name}.kv_bytes": Quantity(size_B, BYTES)}
    return out


def kv_transfer(prefill: PhaseResult, decode: PhaseResult, spec: Spec) -> tuple[float, float]:
    """(bytes, seconds) to send the cache of one sequence from one pool of GPUs to another.

    Every rank that holds a part of it sends over its own cluster link; the pool with fewer such ranks sets the pace.
    """
    size_B, hardware = 0.0, spec.hardware
    policy = cache_policy(spec.phase(prefill.name))
    for segment in prefill.graph.segments:
        for op in (state_of(segment, op) or op for op in segment.ops):
            if OPS[op.kind].tokens is Tokens.CACHE:
                each_B = segment.count(op.dims) / segment.size("batch") * DTYPE_BYTES[op.dtype]
                if "context" in op.dims:
                    each_B *= sequence_tokens(segment, op, PREFILL.name, policy) / segment.size("context")
                size_B += each_B * segment.repeat
    links = min(_ranks_of_a_sequence(prefill), _ranks_of_a_sequence(decode))
    return size_B, size_B / (links * hardware.cluster.bandwidth_Bps) + hardware.cluster.latency_s


def _ranks_of_a_sequence(result: PhaseResult) -> int:
    """GPUs that hold the cache of one sequence."""
    return max(1, len(result.gpus) // result.batch_ways)


def phase_metrics(result: PhaseResult, spec: Spec, pools: Sequence[Pool]) -> dict[str, Quantity]:
    """Metrics of one phase; throughput counts all its GPUs unless the name says otherwise. `memory.peak`,
    `memory.fraction` and `memory.kv_tokens` count all that its GPUs hold, other phases' part included; the parts of
    memory and `memory.own` are the phase's."""
    phase = spec.phase(result.name)
    held = [pool for pool in pools if pool.shared and result.name in pool.phases]
    room = min(kv_tokens(result, pools, phase.sequences * phase.context))
    mesh = result.graph.the_mesh
    memory = result.memory.worst
    gpus = float(len(result.gpus))
    degrees = {a: float(mesh.degrees.get(a, 1)) for a in DEGREES}
    out = {k: Quantity(v) for k, v in degrees.items()}
    out |= {
        result.graph.phase_kind.metric: Quantity(result.time_s, TIME),
        "makespan": Quantity(result.schedule.latency_s, TIME),
        "floor": Quantity(result.floor_s, TIME),
        "step": Quantity(result.schedule.period_s, TIME),
        "throughput": Quantity(result.throughput_tok_s, TOKEN_RATE),
        "throughput_per_gpu": Quantity(result.throughput_tok_s / gpus, TOKEN_RATE),
        "throughput_per_node": Quantity(result.throughput_tok_s / max(1.0, gpus / result.per_node), TOKEN_RATE),
        "imbalance": Quantity(result.costs.imbalance),
        "gpus": Quantity(gpus),
        "stages": Quantity(float(mesh.stages)),
        "sequences": Quantity(float(phase.sequences)),
        "microbatches": Quantity(float(result.graph.microbatches)),
        "layers_per_stage": Quantity(spec.model.layers / mesh.stages),
        "flops_per_token": Quantity(result.flops_per_token, (0, 0, 1, -1)),
        "utilization": Quantity(result.utilization),
        "idle_gpus": Quantity(float(spec.hardware.gpus) - gpus),
        "memory.weights": Quantity(memory.weights_B, BYTES),
        "memory.kv_cache": Quantity(memory.kv_cache_B, BYTES),
        "memory.activations": Quantity(memory.activations_B, BYTES),
        "memory.buffers": Quantity(memory.buffers_B, BYTES),
        "memory.reserve": Quantity(memory.reserve_B, BYTES),
        "memory.engine": Quantity(memory.engine_B, BYTES),
        "memory.capacity": Quantity(memory.capacity_B, BYTES),
        "memory.own": Quantity(memory.peak_B, BYTES),
        "memory.peak": Quantity(max([memory.peak_B, *(pool.peak_B for pool in held)]), BYTES),
        "memory.fraction": Quantity(max([result.memory.fraction, *(pool.fraction for pool in held)])),
    }
    if isfinite(room):
        out["memory.kv_tokens"] = Quantity(room, TOKENS)
        out["memory.kv_tokens_free"] = Quantity(max(0.0, room - phase.sequences * phase.context), TOKENS)
    for kind in TRANSFERS:
        count = sum(c.count for c in result.collectives if c.kind == kind)
        out[f"collectives.{kind}"] = Quantity(float(count))
    return out
