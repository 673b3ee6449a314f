"""What the plan of a placed graph may say: numbers within the ranges of the language, and of what its IR says too, the same."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from ..base.axes import AXES, SEQUENCE
from ..base.draft_trees import MOST_NODES, nodes, of_word, word
from ..base.dtypes import find
from ..base.plain_data import DataError, check_object, from_data
from ..base.schema.attribute import DTYPES, LARGE, Attribute
from ..base.schema.hardware import HARDWARE, LINK
from ..base.schema.phase import PHASE
from ..base.schema.phase_sections import ATTENTION_KERNELS, BESIDE, EXPERT_USE, KV_CACHE, PREFETCHES, REBALANCE
from ..base.schema.workload import WORKLOAD
from ..ir.graph import Graph
from ..ir.ops.leaving import EVERY
from ..spec.exits import CLOSE, with_exits
from ..spec.expert_use import ExpertUse
from ..spec.factors import factorisations
from ..spec.hardware import SHORT, Hardware, Level, Link, faults, node_size
from ..spec.kv_cache import KvCache
from ..spec.phase import BatchLengths, EngineMemory, Launches, Part, Phase
from ..spec.rebalance import FEWEST_PERIODS, LoadSeries, Rebalance
from ..spec.strategy import Fold, Strategy
from ..spec.unit import Unit
from ..spec.workload import Routing, Workload

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PROMPT = WORKLOAD["prompt"]
RANGES: dict[type, dict[str, Attribute]] = {
    Hardware: {
        **{name: HARDWARE[name] for name in ("gpus", "per_host", "mfu", "mbu")},
        "memory_B": HARDWARE["memory"],
        "hbm_Bps": HARDWARE["hbm"],
        "launch_s": HARDWARE["launch"],
        "reserve_B": HARDWARE["reserve"],
        "price_per_s": HARDWARE["price"],
        "power_W": HARDWARE["power"],
        "host_memory_B": HARDWARE["host_memory"],
        "host_link_Bps": HARDWARE["host_link"],
        "disk_Bps": HARDWARE["disk"],
    },
    Link: {"bandwidth_Bps": LINK["bandwidth"], "latency_s": LINK["latency"]},
    Level: {
        "bandwidth_Bps": LINK["bandwidth"],
        "latency_s": LINK["latency"],
        "oversubscription": LINK["oversubscription"],
    },
    Workload: {name: WORKLOAD[name] for name in ("sequences", "prompt", "output")},
    Phase: {
        **{name: PHASE[name] for name in ("context", "acceptance", "kv_block")},
        "sequences": replace(PHASE["sequences"], high=PHASE["decode"].high + PROMPT.high),  # a mixed step has both
        "host_s": PHASE["host"],
        "tokens": PROMPT,
        "passes": PROMPT,
        "last": replace(PROMPT, low=0.0),
    },
    EngineMemory: {
        "fraction": PHASE["memory_fraction"],
        "tokens": BESIDE["tokens"],
        "sequences": BESIDE["sequences"],
        "graphs_B": BESIDE["graphs"],
        "communication_B": BESIDE["communication"],
    },
    KvCache: {
        **{name: KV_CACHE[name] for name in ("sinks", "heavy", "ratio", "offload")},
        "keep": replace(KV_CACHE["keep"], low=0.0),
    },
    ExpertUse: {
        **{name: EXPERT_USE[name] for name in ("skip", "skip_below", "hits")},
        "resident": replace(EXPERT_USE["resident"], low=0.0),
        "foretold": PREFETCHES["next_layer"]["hit"],
    },
    Launches: {"layer_s": PHASE["launch"], "prompt_tokens": BESIDE["tokens"]},
    BatchLengths: {"tokens": replace(PROMPT, high=LARGE), "longest": PROMPT, "shortest": PROMPT},
    Part: {"sequences": PHASE["sequences"], "tokens": PROMPT, "context": PHASE["context"]},
    Strategy: {name: PHASE[name] for name in (*AXES, "replicas", "microbatches", "redundant", "dcp")},
}
"""Record -> field -> the attribute of the language whose range it has."""


def check_ranges(record: Any, path: str) -> None:
    """Every number of a record, and of those in it. Raises DataError with the path of one that is out of range."""
    ranges = RANGES.get(type(record), {})
    for f in fields(record):
        value = getattr(record, f.name)
        if type(value) in RANGES:
            check_ranges(value, f"{path}.{f.name}")
        elif isinstance(value, tuple) and value and type(value[0]) in RANGES:
            for i, one in enumerate(value):
                check_ranges(one, f"{path}.{f.name}[{i}]")
        elif isinstance(value, Fold):
            for axis, degree in value.degrees:
                if axis not in AXES or not 1 <= degree <= 1e6:
                    raise DataError(f"{path}.{f.name}", f"has {axis} {degree}, not at least 1")
        elif f.name in ranges and value is not None:
            check_number(ranges[f.name], value, f"{path}.{f.name}")
    if isinstance(record, EngineMemory):
        if record.of not in ("all", "static", "free"):
            raise DataError(f"{path}.of", f"{record.of!r} is not one of all, static, free")
        if record.padding_B is not None:
            check_number(BESIDE["padding"], record.padding_B, f"{path}.padding_B")
        if any(min(tile[1:]) < 1 for tile in record.tiles):
            raise DataError(f"{path}.tiles", "has a multiple below 1")
    if isinstance(record, Hardware):
        for name, value in record.compute_flops.items():
            check_number(HARDWARE["compute"], value, f"{path}.compute_flops.{name}")
        if "default" not in record.compute_flops:
            raise DataError(f"{path}.compute_flops.default", "is missing")


def hardware_of(data: Any, path: str) -> Hardware:
    """A hardware section of a file, with `levels`, or with `node`, `cluster` and `per_node`. Raises DataError."""
    if not isinstance(data, dict):
        raise DataError(path, "is not an object")
    data = dict(data)
    if "levels" not in data:
        for name in ("per_node", *SHORT):
            if name not in data:
                raise DataError(f"{path}.{name}", "is missing")
        per_node: int = from_data(int, data.pop("per_node"), f"{path}.per_node")
        check_number(HARDWARE["per_node"], per_node, f"{path}.per_node")
        sizes: tuple[dict[str, Any], ...] = ({"gpus": per_node}, {"gpus": None})
        levels = []
        for name, size in zip(SHORT, sizes, strict=True):
            link = data.pop(name)
            check_object(link, ("bandwidth_Bps", "latency_s"), f"{path}.{name}")
            check_ranges(from_data(Link, link, f"{path}.{name}"), f"{path}.{name}")
            levels.append({"name": name, **size, **link})
        data["levels"] = levels
    per_host = data.setdefault("per_host", 1)
    found: Hardware = from_data(Hardware, data, path)
    if not found.levels:
        raise DataError(f"{path}.levels", "is empty")
    for i, level in enumerate(found.levels):
        at = f"{path}.levels[{i}]"
        check_ranges(level, at)
        for name, count in (("gpus", level.gpus), ("nics", level.nics)):
            if count is not None:
                check_number(LINK[name], count, f"{at}.{name}")
        if not NAME.fullmatch(level.name):
            raise DataError(f"{at}.name", f"{level.name!r} is not a name")
    if len({level.name for level in found.levels}) < len(found.levels):
        raise DataError(f"{path}.levels", "has a name twice")
    check_number(HARDWARE["per_host"], per_host, f"{path}.per_host")
    for key in ("vendor", "kind"):
        if getattr(found, key) not in HARDWARE[key].words:
            raise DataError(f"{path}.{key}", f"is none of {', '.join(HARDWARE[key].words)}")
    for fault in faults(found.levels, found.gpus, per_host):
        raise DataError(f"{path}.levels", fault.message)
    if "per_host" in data and per_host == 1:
        found = replace(found, per_host=node_size(found.levels, found.gpus))
    return found


def check_number(attribute: Attribute, value: float, path: str) -> None:
    """A number within the range of an attribute. Raises DataError."""
    beyond = value <= attribute.low if attribute.open_low else value < attribute.low
    if beyond or not value <= attribute.high:
        least = f"{'more than' if attribute.open_low else 'at least'} {attribute.low:g}"
        raise DataError(path, f"is {value!r}, not {least} and at most {attribute.high:g}")


def _check_drafts(phase: Phase) -> None:
    """A tree of bounded size that the step checks, and chances that are some. Raises DataError."""
    try:
        tree = of_word(word(phase.tree))
    except ValueError as error:
        raise DataError("plan.phase.tree", str(error)) from None
    if tree and nodes(tree) != phase.speculative:
        raise DataError("plan.phase.tree", f"has {nodes(tree)} tokens, and the step checks {phase.speculative}")
    if len(phase.chances) > MOST_NODES or any(
        not 0 <= sum(own) <= 1 + 1e-9 or min(own, default=-1) < 0 for own in phase.chances
    ):
        raise DataError("plan.phase.chances", "is not a list of chances by position")


def _check_word(name: str, word: str | None, path: str) -> None:
    """One of the words of an attribute of phases; none only where that is its default."""
    attribute = PHASE[name]
    if word not in attribute.words and not (word is None and attribute.default is None):
        raise DataError(f"{path}.{name}", f"{word!r} is not one of {', '.join(attribute.words)}")


def check_together(unit: Unit, graph: Graph) -> None:
    """The plan is that of the graph. Raises DataError with the path of what differs."""
    phase, strategy, model, hardware = unit.phase, unit.phase.strategy, unit.spec.model, unit.spec.hardware
    if not NAME.fullmatch(phase.name):
        raise DataError("plan.phase.name", f"{phase.name!r} is not a name")
    for name in ("dtype", "weight_dtype", "kv_dtype", "attention_dtype"):
        if find(getattr(model, name)) is None:
            raise DataError(f"plan.model.{name}", f"{getattr(model, name)!r} is not one of {', '.join(DTYPES)}")
    for name in ("window_cache", "drafter", "engine", "exchange", "quantise", "expert_activations"):
        _check_word(name, getattr(phase, name), "plan.phase")
    _check_drafts(phase)
    cuts = phase.cuts
    if cuts and (min(cuts) < 1 or len(cuts) != phase.passes or max(cuts) != phase.tokens or phase.last):
        raise DataError("plan.phase.cuts", f"are not {phase.passes} chunks of up to {phase.tokens} tokens")
    if phase.attention_kernel not in ATTENTION_KERNELS:
        kernels = ", ".join(ATTENTION_KERNELS)
        raise DataError("plan.phase.attention_kernel", f"{phase.attention_kernel!r} is not one of {kernels}")
    for layer, dtype in phase.cache.dtypes:
        if find(dtype) is None:
            raise DataError("plan.phase.cache.dtypes", f"{dtype!r} of {layer!r} is not one of {', '.join(DTYPES)}")
    for name in ("dispatch", "overlap", "sp_method", "sp_layout", "expert_placement"):
        _check_word(name, getattr(strategy, name), "plan.phase.strategy")
    if phase.dispatch_dtype is not None and find(phase.dispatch_dtype) is None:
        raise DataError("plan.phase.dispatch_dtype", f"{phase.dispatch_dtype!r} is not one of {', '.join(DTYPES)}")
    if max(phase.gpus) >= hardware.gpus:
        raise DataError("plan.hardware.gpus", f"is {hardware.gpus}, and the IR has GPU {max(phase.gpus)}")
    batching = phase.batching
    if graph.lanes != batching.lanes:
        raise DataError("ir", f"has {graph.lanes} lanes, and `overlap` of the plan makes {batching.lanes}")
    if graph.microbatches != batching.microbatches:
        made = f"makes {batching.microbatches} of {phase.sequences} sequences, the IR has {graph.microbatches}"
        raise DataError("plan.phase.strategy.microbatches", f"is {strategy.microbatches}: it {made}")
    if sorted(strategy.order) != sorted(AXES):
        raise DataError("plan.phase.strategy.order", f"does not name each of {', '.join(AXES)} once")
    for side in factorisations(strategy):
        for axis, degree in side:
            if graph.the_mesh.degrees.get(axis, 1) != degree:
                of_mesh = graph.the_mesh.degrees.get(axis, 1)
                raise DataError("plan.phase.strategy", f"has {axis} {degree}, and the mesh of the IR {of_mesh}")
    dealt = graph.the_mesh.of(SEQUENCE) if strategy.sp_layout == "zigzag" and graph.takes_prompts else ()
    if graph.the_mesh.zigzag != dealt:
        raise DataError("plan.phase.strategy.sp_layout", f"is {strategy.sp_layout}, and the mesh of the IR is not")
    if graph.the_mesh.stages != strategy.pp:
        raise DataError("plan.phase.strategy.pp", f"is {strategy.pp}, and the IR has {graph.the_mesh.stages} stages")
    _check_routing(unit.spec.workload.routing, "plan.workload.routing")
    if phase.routing is not None:
        _check_routing(phase.routing, "plan.phase.routing")
    shares = phase.experts.by_choice
    if shares and len(shares) != model.count("experts.top_k", 0):
        raise DataError("plan.phase.experts.by_choice", "has not a share for each choice of a token")
    for index, share in enumerate(shares):
        check_number(EXPERT_USE["skip"], share, f"plan.phase.experts.by_choice[{index}]")
    if phase.experts.trace is not None:
        _check_windows(phase.experts.trace, "plan.phase.experts.trace")
        if len(phase.experts.trace.windows[0][0]) != model.count("experts.count", 0):
            raise DataError("plan.phase.experts.trace", "is not of the experts of the model")
    if strategy.rebalance is not None:
        _check_series(strategy.rebalance, phase, "plan.phase.strategy.rebalance")
    cut = strategy.layers_per_stage
    inner = tuple(sum(n for name, n in s.layers if name not in _ends(graph)) for s in graph.stages)
    if cut is not None and cut != inner:
        raise DataError("plan.phase.strategy.layers_per_stage", f"is not {list(inner)}, as in the IR")
    for before, after in zip(phase.exits, phase.exits[1:], strict=False):
        if before.layer >= after.layer:
            raise DataError("plan.phase.exits", "are not in the order of their layers")
    if (
        any(not 1 <= one.layer < model.layers or not 0 < one.share <= 1 for one in phase.exits)
        or sum(one.share for one in phase.exits) > 1 + CLOSE
    ):
        raise DataError("plan.phase.exits", "are not shares of the sequences behind layers of the model")
    stack = with_exits(model, phase.exits)[0].stack
    wanted = [name for layer in stack for name in [layer.name] * min(layer.repeat, 10**6)]
    if wanted != [segment.name for segment, _ in graph.layers]:
        raise DataError("plan.model.stack", "is not the order of the layers in the IR")
    if phase.is_packed:
        _check_parts(graph, phase)
        return
    for segment in graph.segments:
        if segment.sizes.get(EVERY, segment.sizes.get("batch")) != batching.part:
            has = f"{segment.name} has batch {segment.sizes.get('batch')}"
            raise DataError("ir", f"{has}, {phase.sequences} sequences make {batching.part} a part")
        context = max(phase.tokens, phase.context) if phase.takes_prompts else phase.context
        if segment.sizes.get("context") != context:
            raise DataError(
                "plan.phase.context", f"is {context}, and {segment.name} has context {segment.sizes.get('context')}"
            )
        if phase.last >= phase.tokens or phase.new_tokens > context:
            raise DataError("plan.phase", f"takes in {phase.new_tokens} tokens in {phase.passes} passes, of {context}")
        if segment.sizes.get("seq") != phase.tokens:
            raise DataError(
                "ir", f"{segment.name} has seq {segment.sizes.get('seq')}, and the phase {phase.tokens} tokens"
            )


def _check_parts(graph: Graph, phase: Phase) -> None:
    """Sequences, tokens and context of each part of a mixed step, as the IR has them."""
    scopes = tuple(part.scope for part in phase.parts)
    for segment in graph.segments:
        if segment.parts != scopes:
            raise DataError("plan.phase.parts", f"are {', '.join(scopes)}, {segment.name} has {segment.parts}")
        for part, (room, _) in zip(phase.parts, phase.batching.parts, strict=True):
            wanted = {"batch": room.part, "seq": part.tokens, "context": part.context}
            for dim, size in wanted.items():
                if segment.size(dim, part.scope) != size:
                    found = segment.size(dim, part.scope)
                    raise DataError("ir", f"{segment.name} has {part.scope}:{dim} {found:g}, the phase makes it {size}")


def _check_routing(routing: Routing, path: str) -> None:
    if routing.kind not in ("uniform", "zipf", "power_law", "histogram", "loads"):
        raise DataError(f"{path}.kind", f"is {routing.kind!r}")
    if not 0 <= routing.s <= 10:
        raise DataError(f"{path}.s", f"is {routing.s!r}, not at least 0 and at most 10")
    if (routing.kind == "loads") != bool(routing.layers):
        raise DataError(f"{path}.layers", f"has {len(routing.layers)} layers, and the kind is {routing.kind!r}")
    for index, layer in enumerate(routing.layers):
        if len(layer) != len(routing.layers[0]) or not layer or not all(0 <= load <= LARGE for load in layer):
            raise DataError(f"{path}.layers[{index}]", "is not loads of at least 0 of as many experts as in the first")
        if max(layer) <= 0:
            raise DataError(f"{path}.layers[{index}]", "has no load above 0")
    if routing.numbers and sorted({*routing.numbers}) != sorted(routing.numbers):
        raise DataError(f"{path}.numbers", "names a layer twice")
    if len(routing.numbers) not in (0, len(routing.layers)):
        raise DataError(f"{path}.numbers", f"has {len(routing.numbers)} entries for {len(routing.layers)} layers")


def _check_windows(series: LoadSeries, path: str) -> None:
    if not series.windows:
        raise DataError(f"{path}.windows", "is empty")
    for index, window in enumerate(series.windows):
        _check_routing(Routing("loads", 0.0, (), window, series.numbers), f"{path}.windows[{index}]")
        if [len(layer) for layer in window] != [len(layer) for layer in series.windows[0]]:
            raise DataError(f"{path}.windows[{index}]", "has other layers or experts than the first")


def _check_series(plan: Rebalance, phase: Phase, path: str) -> None:
    """Loads over time: of the same layers in every window, three periods of them, and as the phase's routing in the mean."""
    for name in ("window", "every"):
        check_number(REBALANCE[name], getattr(plan, name), f"{path}.{name}")
    series = plan.series
    if plan.every % plan.window or plan.periods < FEWEST_PERIODS:
        raise DataError(
            f"{path}.every",
            f"is {plan.every}: {len(series.windows)} windows of {plan.window} steps are not three such periods",
        )
    _check_windows(series, f"{path}.series")
    if phase.routing != series.mean:
        raise DataError("plan.phase.routing", "is not the mean of the loads of `rebalance`")


def _ends(graph: Graph) -> tuple[str, str]:
    """The embedding and the head."""
    return graph.embedding.name, graph.head.name
