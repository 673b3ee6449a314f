"""What a run showed by the names of a spec: `traffic.ttft.p99`, `decode.memory.weights`, `hardware.memory.peak`."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from ...base.frozen import field, record, replace
from ...base.phase_kinds import DECODE, PHASE_KINDS, PREFILL
from ...base.units import BYTES, show
from ...plan.goodput import limits
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult
from ...plan.subject import all_metrics
from ...serving.result import Limits
from ...spec.metrics.known_metrics import metric
from ...spec.metrics.metric import HARDWARE
from ..memory.memory_rows import Row, rows, together
from . import benchmark, clients
from .figures import DRIVERS, Figure, figures, watched
from .run_files import Run

SERVE = "SERVE."
PHASE = "PHASE."
RUN = "run"
"""Owner of what a serving shows, where the spec has none."""


@record
class Measured:
    """`figures`: by name; `planned`: of the plan, where it has the same; `memory`: by kind; `about`: a line on each file."""

    figures: Mapping[str, Figure]
    planned: Mapping[str, float]
    memory: tuple[Row, ...]
    about: tuple[str, ...]
    doubts: tuple[str, ...] = field(default=())


def measured(plan: CompiledPlan, run: Run, serve: str, window_s: float | None) -> Measured:
    """`serve`: the serving of the spec that was run; nothing: it has none. `window_s`: see `figures.figures`."""
    found: dict[str, Figure] = {}
    doubts = list(run.doubts)
    kept = limits(plan.spec, serve) if serve else Limits()
    for one in run.requests:
        found |= clients.figures(one, kept)
    for name, result in run.results:
        found = benchmark.figures(result, name) | found
    split = _is_split(plan, serve)
    found = (
        _of_all(_of_phases(figures(run.servers, window_s, split), plan, run, serve), *_watched(plan, run, serve))
        | found
    )
    if split and any(not server.role and server.of_an_engine for server in run.servers):
        phases = " and ".join(name for group in together(plan) for name in group)
        doubts.append(f"{phases} have servers of their own: `--metrics PHASE=FILE` says whose metrics a file has")
    doubts += _machine(plan, run, serve)
    if window_s is not None:
        found.setdefault("SERVE.duration", Figure.exact(window_s, "--window"))
    memory, more = _memory(plan, run, found, doubts)
    found = more | found
    named = _named(plan, found, serve, doubts)
    return Measured(
        _with_derived(plan, named, serve),
        {name: quantity.value for name, quantity in all_metrics(plan.subject()).items()},
        tuple(memory),
        tuple(run.about),
        tuple(dict.fromkeys(doubts)),
    )


UNLIKE = 0.1
"""Share by which GPUs may differ from the spec's in memory."""


def _watched(plan: CompiledPlan, run: Run, serve: str) -> tuple[int, int]:
    """GPUs that drivers were asked about, and that the plan has."""
    own = (
        plan.servings[serve].gpus if serve in plan.servings else len({g for r in plan.phases.values() for g in r.gpus})
    )
    return watched(run.servers)[0], own


def _of_all(found: Mapping[str, Figure], count: int, own: int) -> dict[str, Figure]:
    """Between which bounds figures of all GPUs are, where drivers were asked about some: of the others nothing is known."""
    if not 0 < count < own:
        return dict(found)
    share = count / own

    def known(name: str, one: Figure) -> Figure:
        bounds = {
            "SERVE.utilization": (one.low * share, one.high * share + 1 - share),
            "SERVE.gpu_imbalance": (1.0, float(own)),
            "PHASE.memory.peak": (one.low, inf),
            "hardware.memory.fraction": (one.low, inf),
        }
        if one.source not in DRIVERS or name not in bounds:
            return one
        low, high = bounds[name]
        return replace(one, low=low, high=high, note=f"{count} of {own} GPUs were watched")

    return {name: known(name, one) for name, one in found.items()}


def _of_phases(found: Mapping[str, Figure], plan: CompiledPlan, run: Run, serve: str) -> dict[str, Figure]:
    """The same of a phase's own GPUs, where the command line says whose a file is."""
    out = dict(found)
    for name, result in plan.phases.items():
        key = f"{name}.memory.peak"
        count, own = (
            watched([server for server in run.servers if server.phase == name])[0],
            _gpus_of(plan, serve, result),
        )
        if key in out and out[key].source in DRIVERS and count < own:
            out[key] = replace(out[key], high=inf, note=f"{count} of {own:g} GPUs were watched")
    return out


def _machine(plan: CompiledPlan, run: Run, serve: str) -> list[str]:
    """What says that the run was on other GPUs than the plan's."""
    sizes = watched(run.servers)[1]
    count, own = _watched(plan, run, serve)
    found = [f"{count} GPUs were watched, and the plan has {own}"] if count and count != own else []
    if sizes and not plan.spec.others:
        most, said = max(sizes), plan.spec.hardware.memory_B
        if abs(most - said) > UNLIKE * said:
            found.append(f"the GPUs of the run have {show(most, BYTES)}, those of the spec {show(said, BYTES)}")
    return found


def _is_split(plan: CompiledPlan, serve: str) -> bool:
    """Have prompts and decode of the serving, or of the plan where it has none, GPUs and so servers of their own?"""
    if serve:
        one = plan.spec.serve(serve)
        names = [name for name in (one.prefill, one.decode, one.mixed) if name in plan.phases]
    else:
        names = list(plan.phases)
    return len([group for group in together(plan) if set(group) & set(names)]) > 1


def _memory(
    plan: CompiledPlan, run: Run, found: Mapping[str, Figure], doubts: list[str]
) -> tuple[list[Row], dict[str, Figure]]:
    """Rows by kind, and figures of phases, out of logs, snapshots and gauges of the same."""
    groups = together(plan)
    table: list[Row] = []
    out: dict[str, Figure] = {}
    gathered: dict[tuple[str, ...], tuple[dict[str, float], dict[str, float], list[str]]] = {}

    def of(phase: str) -> tuple[dict[str, float], dict[str, float], list[str]] | None:
        group = next((g for g in groups if phase in g), groups[0] if not phase and len(groups) == 1 else None)
        return None if group is None else gathered.setdefault(group, ({}, {}, []))

    for phase, log in run.logs:
        into = of(phase)
        if log.balance_count:
            balance = log.balance_sum / log.balance_count
            note = f"from the mean of mean over largest, {log.balance_count} times"
            out[f"{phase or 'PHASE'}.imbalance"] = Figure.exact(1 / balance, log.name, note)
        if into is None:
            doubts.append(_which(log.name, groups))
            continue
        for kind, size in log.fullest.items():
            into[0][kind] = max(into[0].get(kind, 0.0), size)
        into[1].update({f"{log.name}:{rank}": tokens for rank, tokens in log.tokens.items()})
        into[2].append(log.name)
    for phase, one in run.snapshots:
        into = of(phase)
        if into is None:
            doubts.append(_which(one.name, groups))
            continue
        for kind, size in one.sizes.items() if one.framed else ():
            into[0][kind] = max(into[0].get(kind, 0.0), size)
        into[2].append(one.name)
    for name, figure in found.items():
        owner, _, rest = name.partition(".")
        if rest == "memory.rank_tokens" and (into := of("" if owner == "PHASE" else owner)) is not None and not into[1]:
            into[1][figure.source] = figure.value
            into[2].append(figure.source)
        kind = {"memory.weights": "weights", "memory.engine": "engine", "memory.kv_pool": "kv_pool"}.get(rest, "")
        if kind and (into := of("" if owner == "PHASE" else owner)) is not None and kind not in into[0]:
            into[0][kind] = figure.value
            into[2].append(figure.source)
    for group, (sizes, tokens, names) in gathered.items():
        each = sum(tokens.values()) / len(tokens) if tokens else None
        source = ", ".join(dict.fromkeys(names))
        table += rows(plan, group, sizes, each, source)
        for phase in group:
            for kind in ("weights", "activations", "engine", "reserve"):
                if kind in sizes:
                    out[f"{phase}.memory.{kind}"] = Figure.exact(sizes[kind], source)
            if each:
                ways = plan.phases[phase].batch_ways
                note = f"{ways} data-parallel ranks of {each:,.0f}" if ways > 1 else ""
                out[f"{phase}.memory.kv_tokens"] = Figure.exact(each * ways, source, note)
    return table, out


def _which(name: str, groups: list[tuple[str, ...]]) -> str:
    """What to say where a file is of one of several servers."""
    return (
        f"{name}: phases run on GPUs of their own, and the file does not say which: `--metrics {groups[-1][-1]}={name}`"
    )


def _named(plan: CompiledPlan, found: Mapping[str, Figure], serve: str, doubts: list[str]) -> dict[str, Figure]:
    """Keys by the spec's names."""
    groups = together(plan)
    out: dict[str, Figure] = {}
    for key, figure in found.items():
        owner, _, rest = key.partition(".")
        if owner == "SERVE":
            out[f"{serve or RUN}.{rest}"] = figure
        elif owner == "PHASE":
            if len(groups) == 1:
                for name in plan.phases:
                    out.setdefault(f"{name}.{rest}", figure)
            else:
                doubts.append(
                    f"{figure.source}: phases run on GPUs of their own, and it does not say of which it is: "
                    f"`--metrics {groups[-1][-1]}=FILE`"
                )
        elif owner.startswith("PHASE:"):
            of_kind = owner.removeprefix("PHASE:")
            for name, result in plan.phases.items():
                if result.phase_kind is PHASE_KINDS.get(of_kind):
                    out[f"{name}.{rest}"] = figure
        else:
            out[key] = figure
    for name in plan.spec.pools if plan.spec.others else (HARDWARE,):
        phases = [phase for phase, result in plan.phases.items() if name in (HARDWARE, result.hardware)]
        peaks = [out[f"{phase}.memory.peak"] for phase in phases if f"{phase}.memory.peak" in out]
        if name == HARDWARE and "PHASE.memory.peak" in found:
            peaks.append(found["PHASE.memory.peak"])
        if peaks:
            fullest = max(peaks, key=lambda figure: figure.value)
            shown = [any(f"{phase}.memory.peak" in out for phase in group) for group in groups if {*group} & {*phases}]
            high = max(figure.high for figure in peaks) if "PHASE.memory.peak" in found or all(shown) else inf
            out.setdefault(f"{name}.memory.peak", replace(fullest, high=high))
    if plan.spec.others:
        out = {name: figure for name, figure in out.items() if not name.startswith(f"{HARDWARE}.")}
    return {name: figure for name, figure in out.items() if not name.endswith(("kv_pool", "rank_tokens"))}


def _gpus_of(plan: CompiledPlan, serve: str, result: PhaseResult) -> float:
    """GPUs that do what a phase does, in all of its copies in the serving; a phase that shares its GPUs has the share of the largest."""
    if serve not in plan.servings:
        return float(len(result.gpus))
    group = next(group for group in together(plan) if result.name in group)
    largest = max(len(plan.phases[name].gpus) for name in group)
    roles = plan.servings[serve].roles
    role = next((role for role in roles if role.role == result.phase_kind.name), roles[0])
    return len(result.gpus) * max(1.0, role.gpus / largest)


def _with_derived(plan: CompiledPlan, found: dict[str, Figure], serve: str) -> dict[str, Figure]:
    """What follows from measured figures and from what the plan says of its GPUs."""
    out = dict(found)

    def put(name: str, of: str, scaled: float, turned: bool = False, note: str = "") -> None:
        figure = found.get(of)
        if figure is None or name in out or not scaled:
            return
        values = [
            scaled / value if turned else value * scaled
            for value in (figure.value, figure.low, figure.high)
            if value or not turned
        ]
        if len(values) == 3:
            low, high = sorted(values[1:])
            out[name] = Figure(values[0], low, high, figure.source, note or figure.note)

    owner = serve or RUN
    if serve:
        own = plan.subject(serve)
        gpus = float(own.serving.gpus) if serve in plan.servings else 0.0
        of_its = f"of the plan's {gpus:g} GPUs"
        put(f"{serve}.throughput_per_gpu", f"{serve}.throughput", 1 / gpus if gpus else 0.0, note=of_its)
        if serve in plan.servings and own.price_per_s is not None:
            put(f"{serve}.cost_per_token", f"{serve}.throughput", own.price_per_s, turned=True)
            put(f"{serve}.cost_per_request", f"{serve}.rate", own.price_per_s, turned=True)
        put(f"{serve}.throughput_per_user", f"{serve}.tpot.p50", 1.0, turned=True)
    for name, result in plan.phases.items():
        capacity = result.memory.capacity_B
        put(f"{name}.memory.fraction", f"{name}.memory.peak", 1 / capacity if capacity else 0.0)
    for kind, shown, times in ((DECODE, "throughput", True), (PREFILL, "prompt_throughput", False)):
        of_kind = [result for result in plan.phases.values() if result.phase_kind is kind]
        if len(of_kind) == 1 and (times or _is_split(plan, serve)):
            result = of_kind[0]
            running = found.get(f"{owner}.running")
            batch = plan.spec.phase(result.name).sequences
            note = f"the phase has {batch:,} sequences" + (f", the run {running.value:.4g} requests" if running else "")
            note = note if times else "of the prompts that came, not of those that it could take"
            per_gpu = 1 / _gpus_of(plan, serve, result)
            if times:
                put(f"{result.name}.tpot", f"{owner}.tpot.mean", 1.0, note=note)
            put(f"{result.name}.throughput", f"{owner}.{shown}", len(result.gpus) * per_gpu, note=note)
            put(f"{result.name}.throughput_per_gpu", f"{owner}.{shown}", per_gpu, note=note)
            put(
                f"{result.name}.throughput_per_node",
                f"{owner}.{shown}",
                per_gpu * min(result.per_node, len(result.gpus)),
                note=note,
            )
    for name in plan.spec.pools if plan.spec.others else (HARDWARE,):
        memory_B = (plan.spec.pools[name] if plan.spec.others else plan.spec.hardware).memory_B
        put(f"{name}.memory.fraction", f"{name}.memory.peak", 1 / memory_B)
    return {
        name: replace(figure, low=min(figure.low, figure.value), high=max(figure.high, figure.value))
        for name, figure in out.items()
        if metric(name) is not None
    }
