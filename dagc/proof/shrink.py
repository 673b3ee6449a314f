"""A small twin of a spec: every degree, the structure and all divisibility kept, every size as small as they allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import lcm

from ..lang.units import Quantity
from ..spec import AttrValue, Layer, Model, Phase, Spec, Strategy

WIDTH = 8
"""What a width becomes that no axis splits."""


def shrink(spec: Spec, phase: Phase) -> Spec:
    """The spec with this phase alone, at toy dims. Repeated layers become one for each stage that holds them."""
    strategy = phase.strategy
    degree = _degrees(strategy)
    runs = _runs(spec.model, strategy)
    micro = min(strategy.microbatches, 2)
    lanes = 2 if strategy.overlap == "two_batch" else 1
    batch = degree["batch"] * strategy.replicas * micro * lanes
    # Folded experts may cut tokens that repeat over tp.
    tokens = 2 * degree["sp"] * (degree["tp"] if strategy.sequence_parallel or strategy.experts is not None else 1)
    attributes, redundant = _attributes(spec.model, degree, strategy)
    model = replace(
        spec.model,
        attributes=attributes,
        stack=(spec.model.stack[0], *_stack(spec.model, runs), spec.model.stack[-1]),
        params_stated=None,
    )
    small = replace(strategy, microbatches=micro, redundant=redundant, layers_per_stage=tuple(len(r) for r in runs))
    context = tokens if phase.kind == "prefill" else 2 * tokens
    whole = tokens // 2 if phase.tokens < phase.context else tokens  # a cached prefix stays one
    new = whole if phase.kind == "prefill" else min(phase.tokens, 2)
    twin = replace(phase, strategy=small, sequences=batch, context=context, tokens=new)
    work = replace(spec.workload, sequences=batch, prompt=tokens, output=tokens)
    return Spec(spec.hardware, model, work, (twin,), (), spec.constants, {})


def _degrees(strategy: Strategy) -> dict[str, int]:
    """Degrees of both sides, and the ranks that the batch is split over."""
    if strategy.attention is None or strategy.experts is None:
        flat = {a: int(getattr(strategy, a)) for a in ("ep", "sp", "tp")}
        return {**flat, "etp": strategy.tp, "batch": strategy.dp * strategy.ep}
    attention, experts = dict(strategy.attention.degrees), dict(strategy.experts.degrees)
    return {
        "sp": attention["sp"],
        "tp": attention["tp"],
        "batch": attention["dp"],
        "ep": experts["ep"],
        "etp": experts["tp"],
    }


def _runs(model: Model, strategy: Strategy) -> list[list[str]]:
    """Layer names of each stage, each kind once a stage."""
    names = [layer.name for layer in model.stack[1:-1] for _ in range(layer.repeat)]
    sizes = strategy.layers_per_stage or (len(names) // strategy.pp,) * strategy.pp
    runs, start = [], 0
    for size in sizes:
        runs.append(list(dict.fromkeys(names[start : start + size])))
        start += size
    return runs


def _stack(model: Model, runs: list[list[str]]) -> tuple[Layer, ...]:
    return tuple(replace(model.kinds[name], repeat=1) for run in runs for name in run)


def _attributes(model: Model, degree: Mapping[str, int], strategy: Strategy) -> tuple[dict[str, AttrValue], int]:
    """Every count made small; heads, experts and split widths keep what their axes need."""
    tp, etp, ep = degree["tp"], degree["etp"], degree["ep"]
    out: dict[str, AttrValue] = dict(model.attributes)
    for name, value in model.attributes.items():
        if isinstance(value, Quantity) and value.value > WIDTH:
            out[name] = Quantity(float(WIDTH if value.value % tp else lcm(WIDTH, tp)))
    out |= {"vocab": _count(lcm(4 * WIDTH, tp)), "hidden": _count(WIDTH)}
    if "attention.heads" in out:
        kv, group = _heads(model, degree, strategy)
        out |= {
            "attention.kv_heads": _count(kv),
            "attention.group": _count(group),
            "attention.heads": _count(kv * group),
        }
    if "mlp.hidden" in out:
        out["mlp.hidden"] = _count(2 * tp)
    if "attention.index_top_k" in out:
        out["attention.index_top_k"] = _count(3)  # fewer than the twin's tokens: the choice must matter
    redundant = 0
    if "experts.count" in out:
        groups = model.count("experts.groups", 1)
        number = lcm(ep, groups) * (2 if groups > 1 or ep == 1 else 1)
        top_k = min(model.count("experts.top_k"), number, 4)
        per_group = number // groups
        limit = max(model.count("experts.groups_limit", 1), -(-top_k // per_group))
        redundant = ep if strategy.redundant and ep > 1 else 0
        out |= {
            "experts.count": _count(number),
            "experts.top_k": _count(top_k),
            "experts.hidden": _count(2 * etp),
            "experts.shared_hidden": _count(2 * tp),
            "experts.groups": _count(groups),
            "experts.groups_limit": _count(min(limit, groups)),
        }
    out.pop("dense_first", None)
    return out, redundant


def _heads(model: Model, degree: Mapping[str, int], strategy: Strategy) -> tuple[int, int]:
    """KV heads and query heads of each, in the same relation to tp (and sp, which Ulysses gives heads too)."""
    tp = degree["tp"]
    wanted = tp * degree["sp"] if strategy.sp_method == "ulysses" else tp
    kv = model.count("attention.kv_heads")
    small = wanted if kv % wanted == 0 else tp if kv % tp == 0 else kv
    group = max(1, min(model.count("attention.group", 1), 2))
    return small, lcm(group, max(1, wanted // small))


def _count(value: int) -> Quantity:
    return Quantity(float(value))
