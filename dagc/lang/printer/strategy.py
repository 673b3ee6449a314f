"""The strategy of a phase, and how its experts are used, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...base.axes import AXES
from ...base.units import show_runs
from ...spec.expert_use import ExpertUse
from ...spec.phase import Phase
from ...spec.rebalance import LoadSeries, Rebalance
from ...spec.strategy import Strategy
from .expressions import expression
from .written import number, shares_text, value_text


def _rebalance(r: Rebalance) -> str:
    return f"rebalance {{ loads = {series_text(r.series)}, window = {r.window}, every = {r.every} }}"


def series_text(series: LoadSeries) -> str:
    windows = (f"[{', '.join(map(shares_text, window))}]" for window in series.windows)
    return f"[{', '.join(windows)}]"


DEGREES_ALONE: Mapping[str, Sequence[str]] = {}


def expert_use_text(use: ExpertUse) -> list[str]:
    return list(_expert_words(use))


def _expert_words(use: ExpertUse) -> Iterator[str]:
    if use.skip:
        skip = f"[{', '.join(map(number, use.by_choice))}]" if use.by_choice else number(use.skip)
        yield f"skip = {skip}, skip_below = {number(use.skip_below)}"
    if use.resident:
        ahead = "none" if use.foretold is None else f"next_layer(hit = {number(use.foretold)})"
        yield f"resident = {use.resident}, cache = {use.cache}, prefetch = {ahead}, warm = {value_text(use.warm)}"
    if use.resident and use.hits is not None:
        yield f"hits = {number(use.hits)}"
    if use.resident and use.trace is not None:
        yield f"trace = {series_text(use.trace)}"


def attention_use_text(p: Phase) -> list[str]:
    return [f"kernel = {p.attention_kernel}"] if p.attention_kernel != "flash" else []


def strategy_text(s: Strategy, *more: str, use: Mapping[str, Sequence[str]] = DEGREES_ALONE) -> Iterator[str]:
    """`more`: counts that this kind of phase has beside those of every kind; `use`: what its sections `attention` and `experts` say beside
    degrees."""
    yield ", ".join(f"{a} = {getattr(s, a)}" for a in (*AXES, "replicas", "microbatches", *more))
    layout = f"sp_layout = {s.sp_layout}, " if s.sp_layout != "contiguous" else ""
    yield f"order = [{', '.join(s.order)}], sp_method = {s.sp_method}, {layout}dispatch = {s.dispatch}, overlap = {s.overlap}"
    if s.expert_placement:
        yield f"expert_placement = {s.expert_placement}"
    if s.rebalance is not None:
        yield _rebalance(s.rebalance)
    if s.dcp > 1:
        yield f"dcp = {s.dcp}"
    if s.passes:
        yield f"passes = [{', '.join(s.passes)}]"
    yield f"sequence_parallel = {value_text(s.sequence_parallel)}"
    for name, fold in (("attention", s.attention), ("experts", s.experts)):
        if fold is not None:
            own = f"gpus = [{show_runs(s.apart.gpus)}], " if s.apart is not None and name == "experts" else ""
            own = f"hardware = {s.apart.hardware}, {own}" if s.apart is not None and own and s.apart.hardware else own
            said = [f"{a} = {n}" for a, n in fold.degrees] + [*use.get(name, ())]
            yield f"{name} {{ {own}{', '.join(said)} }}"
        elif use.get(name):
            yield f"{name} {{ {', '.join(use[name])} }}"
    if s.balanced:
        yield "stages = balanced"
    elif s.layers_per_stage is not None:
        yield f"layers_per_stage = [{', '.join(map(str, s.layers_per_stage))}]"
    if s.shard:
        yield f"shard {{ {', '.join(f'{d} = {a}' for d, a in s.shard)} }}"
    if s.place is not None:
        yield f"place gpu = {expression(s.place)}"
    if s.best:
        yield "place = best"
