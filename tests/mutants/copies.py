"""Mutants of passes whose work no sum shows: copies from hosts, which hand on what they read, and products in few bits, whose rounding no proof
follows. What they make is compared with what the phase alone says, written without the passes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType

import numpy as np

import dagc
from dagc.base.dtypes import dtype
from dagc.ir.graph import Graph
from dagc.ir.op import FORWARD, UPDATE, Op
from dagc.ir.ops.attributes.attention import CacheAttrs
from dagc.ir.ops.attributes.copies import ExpertCopyAttrs, HostCacheAttrs
from dagc.ir.ops.attributes.experts import RouteAttrs
from dagc.ir.ops.attributes.training import AccumulateAttrs, QuantiseAttrs, StoreAttrs
from dagc.ir.ops.op_set import OPS
from dagc.ir.segment import Segment
from dagc.passes import host_experts, offload, quantise
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

from .passes import PassVerdict, limited
from .sources import SourceMutant, source_mutants

SPEC = """moe 1
hardware from "h100-sxm" {{ gpus = 8 }}
model small {{
  layers = 2, dense_first = 1, hidden = 64, vocab = 64, dtype = bf16
  attention {{ kind = gqa, heads = 4, kv_heads = 2, head_dim = 16 }}
  mlp {{ hidden = 64 }}
  experts {{ count = 4, top_k = 2, hidden = 64 }}
}}
workload {{ sequences = 16, prompt = 16 tok, output = 4 tok }}
phase p {{ {phase} }}
"""
EXPERTS = "gpus = 0..1, attention { dp = 2 }, experts { ep = 2, "
SERVED: dict[str, str] = {
    "experts on hosts": f"kind = decode, {EXPERTS}resident = 2 }}",
    "experts on hosts, brought ahead": f"kind = decode, {EXPERTS}resident = 2, prefetch = next_layer(hit = 75%) }}",
    "experts on GPUs": f"kind = decode, {EXPERTS}resident = 4 }}",
    "a cache on hosts": "kind = decode, gpus = 0..1, tp = 2, kv_cache { offload = 50% }",
    "a cache on hosts, when it is needed": "kind = decode, gpus = 0, kv_cache { offload = 25%, prefetch = false }",
    "a cache on GPUs": "kind = decode, gpus = 0",
}
"""Name -> a phase."""
TRAINED: dict[str, str] = {
    "8 bits": "kind = train, gpus = 0..1, dp = 2, matmul_dtype = fp8",
    "8 bits, moved so": "kind = train, gpus = 0..1, dp = 2, zero = 2, matmul_dtype = fp8, quantised_weights = true",
    "8 bits, gathered for each cell": "kind = train, gpus = 0..1, dp = 2, zero = 3, matmul_dtype = fp8",
    "8 bits on the way to experts": f"kind = train, {EXPERTS.rstrip(', ')} }}, matmul_dtype = fp8, dispatch_dtype = fp8",
    "16 bits": "kind = train, gpus = 0",
}
OF: dict[str, tuple[ModuleType, dict[str, str]]] = {
    "host_experts": (host_experts, SERVED),
    "offload": (offload, SERVED),
    "quantise": (quantise, TRAINED),
}


@cache
def unit_of(phase: str) -> Unit:
    plan = dagc.compile_text(SPEC.format(phase=phase))
    return Unit(plan.spec, (*plan.spec.trainings, *plan.spec.phases)[0])


def placed(phase: str) -> Graph:
    """Lowered by the passes as they are now."""
    unit = unit_of(phase)
    *_, (_, graph) = lower(Unit(unit.spec, unit.phase))
    return graph


@cache
def true_graph(phase: str) -> Graph:
    return placed(phase)


def not_as_said(graph: Graph, unit: Unit) -> str:
    """What a phase says of hosts or of bits and the graph has not, or has and the phase does not say; or nothing."""
    checks = (_bits,) if unit.phase.training is not None else (_experts, _caches)
    return next((said for check in checks for segment in graph.segments if (said := check(segment, unit))), "")


def _experts(segment: Segment, unit: Unit) -> str:
    """A product reads an expert's weights through a copy that knows the choice, if GPUs hold fewer than there are; copies for the next layer are
    of every such weight, and stand behind the others."""
    use = unit.phase.experts
    lacking = bool(use.resident) and use.resident < unit.spec.model.count("experts.count")
    weights = {w.name for w in segment.weights if w.scope == "experts"}
    choice = next((op.name for op in segment.ops if isinstance(op.attrs, RouteAttrs)), "")
    copies = [op for op in segment.ops if isinstance(op.attrs, ExpertCopyAttrs)]
    now, ahead = ([op for op in copies if _ahead(op) == which] for which in (False, True))
    if not lacking or not weights:
        return "copies of experts that are there" if copies else ""
    if {op.inputs for op in now} != {(name, choice) for name in weights} or len(now) != len(weights):
        return "not a copy of each weight, by the choice"
    if any(weights & set(op.inputs) for op in segment.ops if op not in copies):
        return "a product that reads what may not be there"
    places = [segment.ops.index(op) for op in copies]
    if places != sorted(places) or places[-1] - places[0] != len(copies) - 1 or copies[: len(now)] != now:
        return "copies that are not together, those of this layer first"
    if places[-1] + 1 != min(segment.ops.index(user) for op in now for user in segment.users(op.name)):
        return "copies that do not come just before what reads them"
    hit = use.foretold
    if [op.inputs for op in ahead] != ([(op.inputs[0],) for op in now] if hit is not None else []):
        return "not what is brought ahead"
    share = 1.0 if hit is None else 1.0 - hit
    shares = all(_share(op) == (1.0 if _ahead(op) else share) for op in copies)
    known = {w.name: w for w in segment.weights}
    alike = all(
        (op.dims, op.dtype, op.sharding) == (w.dims, w.dtype, w.sharding)
        for op in copies
        for w in [known[op.inputs[0]]]
    )
    split = all(
        dict(op.loops) == {d: a for d, a in zip(op.dims, known[op.inputs[0]].sharding.dims, strict=True) if a}
        for op in copies
    )  # type: ignore[union-attr]
    own = all(isinstance(op.attrs, ExpertCopyAttrs) and op.attrs.resident == use.resident for op in copies)
    placed_in = all((op.block, op.scope) == ("moe", "experts") for op in copies)
    return "" if shares and alike and split and own and placed_in else "copies of another share, shape, split or place"


def _ahead(op: Op) -> bool:
    return isinstance(op.attrs, ExpertCopyAttrs) and op.attrs.prefetch


def _share(op: Op) -> float:
    return op.attrs.share if isinstance(op.attrs, ExpertCopyAttrs) else 0.0


def _caches(segment: Segment, unit: Unit) -> str:
    """Every cache is read through a copy of the host's share, if it has one."""
    kept = unit.phase.cache
    caches = [op for op in segment.ops if isinstance(op.attrs, CacheAttrs)]
    copies = [op for op in segment.ops if isinstance(op.attrs, HostCacheAttrs)]
    if not kept.offload:
        return "a copy of what is there" if copies else ""
    if [op.inputs for op in copies] != [(op.name,) for op in caches]:
        return "not a copy of each cache"
    for cache_, copy in zip(caches, copies, strict=True):
        if segment.ops.index(copy) != segment.ops.index(cache_) + 1 or list(segment.users(cache_.name)) != [copy]:
            return "a cache that is read without what its host has"
        if not segment.users(copy.name):
            return "a copy that nobody reads"
        split = {d: a for d, a in zip(cache_.dims, cache_.sharding.dims, strict=True) if a}  # type: ignore[union-attr]
        alike = (copy.dims, copy.dtype, copy.block, copy.scope) == (
            cache_.dims,
            cache_.dtype,
            cache_.block,
            cache_.scope,
        )
        if (
            copy.attrs != HostCacheAttrs(share=kept.offload, prefetch=kept.prefetch)
            or not alike
            or dict(copy.loops) != split
        ):
            return "a copy of another share, shape or split"
    return ""


def _bits(segment: Segment, unit: Unit) -> str:
    """All three products of a weight in few bits read nothing but values in those, made once each; no other product does, and new weights are
    stored in them."""
    training = unit.phase.training
    assert training is not None
    made = [op for op in segment.ops if op.kind == "quantise"]
    if not training.quantises or all(op.cell == FORWARD for op in segment.ops):
        return "bits that the phase does not have" if made else ""
    few = {w.name for w in segment.weights if w.name.rpartition(".")[2] in FEW and segment.name != "lm_head"}
    each_cell = training.zero == 3 and not training.quantised_weights
    if {w.name for w in segment.weights if dtype(w.dtype).quantised} != (set() if each_cell else few):
        return "weights in other bits"
    of: dict[str, str] = {}
    for op in segment.ops:
        if isinstance(op.attrs, AccumulateAttrs) and f"@{op.attrs.weight}" in few:
            of |= {_root(segment, name, ADDED): f"@{op.attrs.weight}" for name in op.inputs}
        for name in op.inputs if OPS[op.kind].product else ():
            if (weight := _root(segment, name, (*MOVED, "quantise"))) in few:
                of[op.name] = weight
    if sorted(of.values()) != sorted([*few] * 3):
        return "not three products of each weight"
    for op in segment.ops:
        for name in op.inputs if OPS[op.kind].product else ():
            if _few(segment, name) != (op.name in of):
                return f"`{op.name}` reads other bits"
    own = [(op.inputs[0], op.dtype, op.cell if _root(segment, op.inputs[0], MOVED) in few else "") for op in made]
    if len(set(own)) != len(own) or any(not segment.users(op.name) for op in made):
        return "a value that is quantised twice, or for nothing"
    if any(op.dtype != training.matmul_dtype for op in made):
        return "other bits"
    held = {w.name: w for w in segment.weights}
    for op in made:
        weight = held.get(
            f"@{op.attrs.weight}"
            if op.cell == UPDATE and isinstance(op.attrs, QuantiseAttrs)
            else _root(segment, op.inputs[0], MOVED)
        )
        routed = "slot" in op.dims if weight is None else weight.scope == "experts"
        if (op.scope == "experts") != routed:
            return f"`{op.name}` has the scope of others"
        if weight is not None and any(
            user.cell != op.cell for user in segment.users(op.name) if OPS[user.kind].product
        ):
            return f"`{op.name}` is read in another cell"
    strange = [op for op in segment.ops if dtype(op.dtype).quantised and not (op.is_collective or op.kind in HOLD_FEW)]
    if strange:
        return f"`{strange[0].name}` is in few bits"
    for op in segment.ops:
        if isinstance(op.attrs, StoreAttrs) and f"@{op.attrs.weight}" in few:
            before = segment.by_name[_root(segment, op.inputs[0], MOVED)]
            attrs = QuantiseAttrs(weight=op.attrs.weight, moved=training.quantised_weights)
            held_in = dtype(op.dtype).quantised, (before.kind == "quantise")
            if held_in != (not each_cell, not each_cell) or (not each_cell and before.attrs != attrs):
                return "a new weight in other bits, or moved in others"
    sent = [op for op in segment.ops if op.kind == "dispatch"]
    told = unit.phase.dispatch_dtype is not None
    alike = all((op.dtype == training.matmul_dtype) == told == _few(segment, op.inputs[0]) for op in sent)
    return "" if alike else "tokens that move in other bits"


FEW = ("Wq", "Wk", "Wv", "Wo", "Wg", "Wu", "Wd")
"""Products of attention, dense layers and experts; the router's and those of tables keep 16 bits."""
HOLD_FEW = ("quantise", "dispatch", "store", "fetch", "slice")
MOVED = ("fetch",)
ADDED = ("fetch", "add")


def _root(segment: Segment, name: str, through: tuple[str, ...]) -> str:
    """What a value is of, through exchanges and such ops."""
    while (op := segment.by_name.get(name)) is not None and (op.is_collective or op.kind in through):
        name = op.inputs[0]
    return name


def _few(segment: Segment, name: str) -> bool:
    """Whether a value is in few bits."""
    found = _root(segment, name, ())
    if found in segment.weight:
        return dtype(segment.weight[found].dtype).quantised
    return dtype(segment.by_name[found].dtype).quantised if found in segment.by_name else False


def mutants(name: str) -> Iterator[SourceMutant]:
    yield from source_mutants(OF[name][0])


def judge(name: str, mutant: SourceMutant) -> PassVerdict:
    """The first plan in which the mutant is noticed ends it."""
    lowered = []
    for plan, phase in OF[name][1].items():
        true_graph(phase)
        with mutant.applied(), np.errstate(all="ignore"), limited():
            try:
                graph = placed(phase)
            except Exception as error:
                return PassVerdict(mutant, f"stopped: {plan}: {type(error).__name__}")
        if graph == true_graph(phase):
            continue
        said = not_as_said(graph, unit_of(phase))
        if said:
            return PassVerdict(mutant, f"strategy: {plan}: {said}")
        lowered.append(plan)
    return PassVerdict(mutant, "", tuple(lowered))
