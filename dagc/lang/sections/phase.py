"""Elaboration of phases: GPU ids and strategy. Whether the strategy fits the model is judged in `shape`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...base import coming
from ...base.axes import ATTENTION_SIDE, AXES, EXPERT_SIDE, IN_EXPERTS, REPLICA, TENSOR
from ...base.diagnostics import Collector, Label
from ...base.frozen import record, replace
from ...base.phase_kinds import MIXED, PHASE_KINDS, PREFILL, TRAIN
from ...base.schema.attribute import Attribute
from ...base.schema.phase import KV_BLOCK, OPEN, PHASE
from ...base.schema.phase_sections import ATTENTION_USE, BESIDE, EXPERT_GPUS, EXPERT_USE, FOLD_ATTENTION, FOLD_EXPERTS
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import SCALAR, Quantity
from ...spec.choice import ALTERNATIVE
from ...spec.engines import ENGINES, engine_memory
from ...spec.hardware import Hardware
from ...spec.kv_cache import KvCache
from ...spec.model import AttrValue, Model, Precision
from ...spec.phase import EngineMemory, Launches, Phase
from ...spec.strategy import ExpertGpus, Fold, Strategy
from ...spec.workload import Workload
from ..body import Body
from ..fits import StrategyFit
from ..math_units import check_units
from ..pools import Pools
from ..reader import Reader
from ..typed import whole_numbers
from ..values.evaluate import Value, kind_of, number
from ..values.names import Names
from .draft_words import ModelNamed, read_drafter, read_drafts
from .early_exits import read_exits
from .kv_cache import read_cache
from .loads_over_time import read_rebalance
from .mixed_step import belongs, read_parts
from .prompt_lengths import belongs_to_prefill, chunks_of, left_open, read_batch
from .token_choice import read_routing
from .training import (
    belongs_to_training,
    has_further_layers,
    has_units_to_train,
    has_what_it_is_over,
    is_there,
    nothing_left_open,
    read_training,
    trained_in,
)
from .used_experts import read_expert_use, uses_alone

DTYPES = ("weight_dtype", "kv_dtype", "attention_dtype")
NOTHING_MORE: Mapping[str, Attribute] = {}
SECTIONS = ("attention", "experts", "rebalance", "shard", "memory", "kv_cache", ALTERNATIVE)


def read_phase(
    section: ast.Section,
    body: Body,
    names: Names,
    pools: Pools,
    model: Model | None,
    workload: Workload | None,
    model_named: ModelNamed,
    *,
    judged: bool = True,
) -> Phase | None:
    """The phase, or None when its own attributes are wrong; shape errors are reported as well where it is `judged`. `model_named`: another
    model than the spec's."""
    out = names.out
    name = str(section.name)
    errors = out.errors
    if section.preset is not None:
        out.add("E12", "a phase has no presets", section.preset.span)
    values = Reader(f"phase {name}", body, PHASE, names, SECTIONS, ("place gpu",), (*OPEN, "strategy")).read()
    kind = values["kind"] or (name if name in PHASE_KINDS else None)
    later = {*body.assigns, *body.sections, *body.bare} & ({*coming.ATTRIBUTES["phase"]} - {*PHASE})
    if kind is None and "kind" not in body.assigns and not out.incomplete:
        near = out.near(name, tuple(PHASE_KINDS))
        help_ = (f"did you mean `phase {near}`?",) if near else ()
        out.add(
            "E10",
            f"phase `{name}` needs `kind = prefill`, `kind = decode`, `kind = mixed` or `kind = train`",
            section.kind_span,
            help=help_,
        )
    pool = pools.named_by(values["hardware"], body, section, names)
    hardware = None if pool is None else pools.of(pool)
    gpus = _gpus(values.get("gpus"), body, hardware, out, pool)
    strategy, of_experts = _strategy(values, body, names, Seats(pools, pool, gpus))
    if later or pool is None or strategy is None or gpus is None or kind is None or model is None or workload is None:
        return None
    context = values["context"]
    length = (
        int(context.value)
        if isinstance(context, Quantity)
        else workload.prompt + (workload.output if kind == "decode" else 0)
    )
    belongs(str(kind), body, out)
    belongs_to_training(str(kind), body, out)
    drafter, draft_model = "none", None
    if kind != TRAIN.name:
        drafter, draft_model = read_drafter(values, model, body, out, model_named)
    drafts = read_drafts(values, body, names)
    belongs_to_prefill(str(kind), body, out)
    chunks_of(str(kind), body, out)
    exits = read_exits(str(kind), body, names, model) if "exit" in body.assigns else ()
    if not judged and kind == PREFILL.name:
        left_open(body, out)
    parts = read_parts(values, drafts.count, body, workload, out) if kind == MIXED.name else ()
    if kind == MIXED.name and not parts:
        return None
    own = values["sequences"]
    sequences = int(own.value) if isinstance(own, Quantity) else workload.sequences
    prefix, draft = int(_number(values["prefix"])), drafts.count
    if (draft and kind == "prefill") or (prefix and kind == "decode"):
        name_, other = ("tree" if drafts.tree else "draft", "decode") if draft else ("prefix", "prefill")
        out.add("E12", f"`{name_}` belongs to a {other} phase", body.span_of(name_))
    elif kind == PREFILL.name:
        for word in ("draft_model", "drafter"):
            if values[word] not in (None, "none"):
                out.add("E12", f"`{word}` belongs to a decode phase", body.span_of(word))
    batch = None
    if kind == PREFILL.name and "lengths" in body.assigns:
        listed = body.assigns["lengths"].value
        if isinstance(listed, ast.ListExpr) and "sequences" not in body.assigns:
            sequences = len(listed.items)
        batch = read_batch(values, body, names, workload.prompt, prefix, sequences, strategy)
        if batch is None:
            return None
    training = read_training(values, body, out) if kind == TRAIN.name else None
    if training is not None:
        nothing_left_open(values, body, out)
        length = int(_number(values["context"])) or workload.prompt
        tokens = length
    else:
        tokens = workload.prompt - prefix if kind == "prefill" else 1 + draft
    if batch is not None:
        tokens, length, parts = batch.tokens, batch.context, batch.parts
    chunk = max(1, min(int(_number(values["chunk"])) or tokens, tokens))
    if kind == "decode" and values["chunk"] is not None:
        out.add("E12", "`chunk` belongs to a prefill phase", body.span_of("chunk"))
        chunk = tokens
    if parts and batch is None:
        sequences, tokens, length = sum(p.sequences for p in parts), parts[0].tokens, parts[0].context
        chunk = tokens
    passes = max(1, -(-tokens // chunk))
    if kind == "decode" and "sp_layout" in body.assigns:
        out.add("E12", "`sp_layout` belongs to a prefill phase", body.span_of("sp_layout"))
    if kind in (PREFILL.name, TRAIN.name) and _number(values["dcp"]) > 1:
        out.add("E12", "`dcp` belongs to a decode phase", body.span_of("dcp"))
    if "exchange" in body.assigns and values["dispatch"] == "allgather":
        help_ = ("write `dispatch = all_to_all`, or leave `exchange` out",)
        out.add("E12", "`exchange` belongs to `dispatch = all_to_all`", body.span_of("exchange"), help=help_)
    engine = str(values["engine"]) if "engine" in body.assigns and values["engine"] is not None else None
    memory = _memory(
        body, names, values, engine_memory(engine, hardware, strategy, len(gpus) // strategy.replicas // strategy.pp)
    )
    precision = _precision(values)
    if training is not None:
        precision = trained_in(precision, training, model, body, out)
        training = training if training.quantises else replace(training, matmul_dtype="")
    if precision is not None:
        model = model.stored_as(precision)
        if hardware is not None and not (training is not None and training.quantises):
            check_units(hardware, model, {name: body.span_of(name) for name in DTYPES if name in body.assigns}, out)
    if training is not None:
        is_there(training, model, values, body, out)
        has_units_to_train(training, hardware, body, out)
        has_further_layers(training, model, body, out)
        has_what_it_is_over(training, body, out)
    routing = read_routing(body, names, None) if "routing" in body.assigns else None
    if strategy.rebalance is not None:
        routing = replace(strategy.rebalance.series.mean, span=body.span_of("rebalance"))
    kernel = _attention_kernel(body, names)
    fuse = _fused(values["fuse"], body, model, out)
    generated = None if kind == PREFILL.name else 1 + draft
    cache = read_cache(body, names, model, generated) if training is None else KvCache()
    if cache.heavy and kernel == "flash":
        help_ = ("write `attention { kernel = unfused }`, or leave out `heavy`",)
        out.add(
            "E12", "`heavy` needs scores, which flash attention does not hand out", body.span_of("kv_cache"), help=help_
        )
    block = int(_number(values["kv_block"])) or (ENGINES[engine].block if engine is not None else KV_BLOCK)
    phase = Phase(
        name, str(kind), gpus, length, chunk if passes > 1 else tokens, sequences, strategy, drafts.acceptance,
        passes, tokens % chunk if passes > 1 else 0, str(values["dispatch_dtype"]) if values["dispatch_dtype"] else None, str(values["exchange"]) if values["exchange"] else None, str(values["quantise"]), str(values["expert_activations"]) if values["expert_activations"] else None, str(values["engine"]), _number(values["host"]), bool(values["cuda_graph"]),
        str(values["window_cache"]), block, memory, _launches(values["launch"], engine), routing,
        parts=parts, precision=precision, hardware=pool, drafter=drafter, draft_model=draft_model, draft_name="" if draft_model is None else draft_model.name, chunk=int(_number(values["chunk"])), training=training, tree=drafts.tree, chances=drafts.chances,
        lengths=None if batch is None else batch.lengths, exits=exits,
        by_work=passes > 1 and values["chunk_by"] == "work", chunks_overlap=passes > 1 and values["chunk_overlap"] == "full",
        experts=read_expert_use(of_experts, body, str(kind), model, strategy, names), cache=cache, attention_kernel=kernel, fuse=fuse, span=section.kind_span, spans=body.spans(),
    )  # fmt: skip
    if judged and out.errors == errors:
        StrategyFit(phase, body, model, workload, out).check()
    return phase


def _precision(values: Mapping[str, Value | None]) -> Precision | None:
    """The dtypes that the phase says; None where it says none."""
    given = {name: str(values[name]) for name in DTYPES if values[name] is not None}
    return Precision(given.get("weight_dtype"), given.get("kv_dtype"), given.get("attention_dtype")) if given else None


def _memory(body: Body, names: Names, values: Mapping[str, Value | None], default: EngineMemory) -> EngineMemory:
    """The engine's defaults, and what the phase says over them."""
    inner = body.sub("memory", names.out)
    read = {} if inner is None else Reader("memory", inner, BESIDE, names).read()
    given = {name: value.value for name, value in read.items() if isinstance(value, Quantity)}
    fraction = values["memory_fraction"]
    graphs_B = given.get("graphs", default.graphs_B if values["cuda_graph"] else 0.0)
    return replace(
        default,
        fraction=fraction.value if isinstance(fraction, Quantity) else default.fraction,
        tokens=int(given.get("tokens", default.tokens)),
        sequences=int(given.get("sequences", default.sequences)),
        graphs_B=graphs_B,
        communication_B=given.get("communication", default.communication_B),
        padding_B=given.get("padding"),
    )


FULL = "full"


def _fused(value: Value | None, body: Body, model: Model, out: Collector) -> tuple[str, ...] | None:
    """Blocks that run as one kernel each; `none` is an empty list."""
    if value is None:
        return None
    items = value if isinstance(value, tuple) else (value,)
    strange = next((item for item in items if not isinstance(item, str)), None)
    if strange is not None:
        help_ = ("write `fuse = none`, `fuse = full` or `fuse = [gqa, moe]`",)
        out.add("E08", f"`fuse` has names of blocks, not {kind_of(strange)}", body.span_of("fuse"), help=help_)
        return None
    names = tuple(dict.fromkeys(str(name) for name in items if name != "none"))
    if names and "none" in items:
        help_ = ("leave out `none`, or the blocks",)
        out.add("E12", "`none` fuses no block", body.span_of("fuse"), help=help_)
    known = dict.fromkeys((FULL, *(block for layer in model.stack for block in layer.blocks)))
    for name in names:
        if name not in known:
            near = out.near(name, known)
            help_ = (f"did you mean `{near}`?",) if near else (f"it has {', '.join(known)}",)
            out.add("E02", f"the model has no block `{name}` to fuse", body.span_of("fuse"), help=help_)
    if FULL in names and len(names) > 1:
        out.add("E12", "`full` fuses all blocks of a layer", body.span_of("fuse"), help=("write `fuse = full`",))
    return names


def _attention_kernel(body: Body, names: Names) -> str:
    """What the section `attention` says beside degrees, read without what is wrong there."""
    inner = body.sub("attention", names.out)
    said = None if inner is None else inner.assigns.get("kernel")
    return said.value.text if said is not None and isinstance(said.value, ast.Name) else "flash"


def _launches(value: Value | None, engine: str | None) -> Launches:
    """The engine's, and what the phase says over them."""
    default = ENGINES[engine].launches if engine is not None else Launches()
    return replace(default, layer_s=value.value) if isinstance(value, Quantity) else default


def _number(value: Value | None) -> float:
    return value.value if isinstance(value, Quantity) else 0.0


def _gpus(
    value: Value | None, body: Body, hardware: Hardware | None, out: Collector, name: str | None
) -> tuple[int, ...] | None:
    ids = whole_numbers(value)
    if ids is None:
        return None
    span = body.span_of("gpus")
    if len(set(ids)) != len(ids):
        twice = sorted(i for i, n in Counter(ids).items() if n > 1)
        out.add("E03", f"{_are(twice)} listed twice", span)
        return None
    if hardware is not None and max(ids) >= hardware.gpus:
        beyond = sorted(i for i in ids if i >= hardware.gpus)
        pool = hardware.span if hardware.span is not None and hardware.span.source == span.source else None
        out.add(
            "E03",
            f"{_are(beyond)} not in {f'the {hardware.gpus} of the pool `{name}`' if name else f'the pool of {hardware.gpus}'}",
            span,
            also=() if pool is None else (Label(pool, f"{hardware.gpus} GPUs"),),
            help=(
                f"ids run from 0 to {hardware.gpus - 1}"
                + (f"; {ids[0]} GPUs are `0..{ids[0] - 1}`" if len(ids) == 1 else ""),
            ),
        )
        return None
    return ids


def _are(ids: list[int]) -> str:
    """`GPU 8 is`, `GPUs 8, 9 are`."""
    shown = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"GPUs {shown} are" if len(ids) > 1 else f"GPU {shown} is"


def _strategy(
    values: Mapping[str, Value | None], body: Body, names: Names, seats: Seats
) -> tuple[Strategy | None, Mapping[str, Value | None]]:
    """And what the section `experts` says beside degrees."""
    out = names.out
    counts = {
        k: int(v.value)
        for k in (*AXES, "replicas", "microbatches", "redundant", "dcp")
        if isinstance(v := values[k], Quantity)
    }
    if len(counts) < len(AXES) + 4:
        return None, {}
    attention, _, _ = _fold(body, "attention", FOLD_ATTENTION, counts, names, ATTENTION_USE)
    experts, inner, more = _fold(body, "experts", FOLD_EXPERTS, counts, names, {**EXPERT_GPUS, **EXPERT_USE})
    apart = None
    if inner is not None and not inner.assigns.keys().isdisjoint(EXPERT_GPUS):
        apart = seats.for_experts(more, inner, body, names)
        if apart is None:
            return None, more
    if experts is not None and attention is None:
        attention = Fold(tuple((a, counts[a]) for a in ATTENTION_SIDE))
    if attention is not None and experts is None:
        experts = Fold(tuple((a, counts[a]) for a in IN_EXPERTS))
    order = _order(values["order"], body, out)
    passes = _passes(values["passes"], body, out)
    stages = whole_numbers(values["layers_per_stage"])
    place = body.directives.get("place gpu")
    if place is not None and "place" in body.assigns:
        help_ = ("leave one of them out",)
        out.add("E12", "`place gpu` gives the ids that `place` is to choose", place.span, help=help_)
    elif place is not None:
        _check_place(place.value, names)
    if stages is not None and values["stages"] == "balanced":
        help_ = ("leave one of them out",)
        out.add("E12", "`layers_per_stage` gives the cut that `stages` is to find", body.span_of("stages"), help=help_)
    if order is None or passes is None:
        return None, more
    strategy = Strategy(
        **counts,
        attention=attention,
        experts=experts,
        order=order,
        place=None if place is None else place.value,
        best=values["place"] == "best",
        ids=(),
        layers_per_stage=stages,
        balanced=values["stages"] == "balanced",
        sequence_parallel=values["sequence_parallel"] is True,
        sp_method=str(values["sp_method"]),
        sp_layout=str(values["sp_layout"]),
        expert_placement=str(values["expert_placement"]) if values["expert_placement"] else None,
        dispatch=str(values["dispatch"]),
        overlap=str(values["overlap"]),
        shard=_shard(body, names),
        passes=passes,
        apart=apart,
        rebalance=read_rebalance(body, values, names),
    )
    return strategy, more


def _fold(
    body: Body, section: str, schema: Mapping[str, Attribute], counts: Mapping[str, int], names: Names,
    more: Mapping[str, Attribute] = NOTHING_MORE,
) -> tuple[Fold | None, Body | None, Mapping[str, Value | None]]:  # fmt: skip
    """`attention { dp = 8, tp }`: a bare name takes the phase's value, else a param's or let's. `more`: what else the section
    takes. Its degrees, itself, and what it says."""
    inner = body.sub(section, names.out)
    if inner is None:
        return None, None, {}
    degrees: dict[str, int] = {}
    said = {*inner.assigns, *inner.bare}
    alone = uses_alone(inner) or (bool(said) and said <= {*ATTENTION_USE})
    bare = {name: statement for name, statement in inner.bare.items() if name not in more}
    for name in bare:
        del inner.bare[name]
    for axis, statement in bare.items():
        if axis not in schema:
            near = names.out.near(axis, schema)
            names.out.add(
                "E02",
                f"`{section}` has no axis `{axis}`",
                statement.span,
                help=(f"did you mean `{near}`?",) if near else (),
            )
            continue
        constant = None if axis in body.assigns else names.constants.get(axis)
        degrees[axis] = counts[axis] if constant is None else _degree(axis, constant, statement.span, names.out)
    read = Reader(section, inner, {**schema, **more}, names, open=schema).read()
    for axis in schema:
        value = read[axis]
        if axis not in degrees:
            degrees[axis] = int(value.value) if isinstance(value, Quantity) else 1
    if alone:
        return None, inner, read
    return Fold(tuple((axis, degrees[axis]) for axis in schema)), inner, read


@record
class Seats:
    """Of a phase: the pools, its own by name where there are several, and its GPUs, as far as these can be read."""

    pools: Pools
    pool: str | None
    gpus: tuple[int, ...] | None

    def for_experts(
        self, said: Mapping[str, Value | None], experts: Body, body: Body, names: Names
    ) -> ExpertGpus | None:
        """What `experts { gpus = 16..31 }` gives to experts alone; None where it is wrong."""
        out, pool = names.out, said["hardware"]
        if "gpus" not in experts.assigns:
            out.add(
                "E10",
                "`hardware` in `experts` needs `gpus` there",
                experts.span_of("hardware"),
                help=("write `gpus = 0..7`, ids in that pool",),
            )
            return None
        if isinstance(pool, str) and pool not in self.pools.known:
            if self.pools.sure:
                out.add(
                    "E02",
                    f"there is no pool `{pool}`",
                    experts.span_of("hardware"),
                    help=(self.pools.meant(pool, out),),
                )
            return None
        other = pool if isinstance(pool, str) and self.pools.several and pool != self.pool else ""
        name = other or self.pool
        own = _gpus(said["gpus"], experts, None if name is None else self.pools.of(name), out, name)
        both = sorted({*(own or ())} & {*(self.gpus or ())}) if not other else []
        if both:
            out.add(
                "E03", f"{_are(both)} in `gpus` of the experts and of the phase",
                experts.span_of("gpus"), also=(Label(body.span_of("gpus"), "attention and all else here"),),
                help=("experts have GPUs of their own, or leave out `gpus` and share those of the phase",),
            )  # fmt: skip
        return None if own is None or both else ExpertGpus(own, other)


def _degree(axis: str, constant: AttrValue, span: Span, out: Collector) -> int:
    """The param or let that a bare axis name means."""
    if isinstance(constant, Quantity) and constant.dim == SCALAR and 1 <= constant.value == int(constant.value) <= 1e6:
        return int(constant.value)
    value = f"{constant.value:g}" if isinstance(constant, Quantity) else kind_of(constant)
    out.add("E08", f"`{axis}` must be a whole number of at least 1", span, f"the constant `{axis}` is {value}")
    return 1


def _order(value: Value | None, body: Body, out: Collector) -> tuple[str, ...] | None:
    if value is None:
        return tuple(AXES) if "order" not in body.assigns else None
    items = tuple(str(v) for v in value) if isinstance(value, tuple) else (str(value),)
    if sorted(items) != sorted(AXES):
        out.add("E03", f"`order` must name each of {', '.join(AXES)} once", body.span_of("order"))
        return None
    return items


def _passes(value: Value | None, body: Body, out: Collector) -> tuple[str, ...] | None:
    """Names of plugins' passes; whether they are installed is seen when they run."""
    items = value if isinstance(value, tuple) else ()
    names = tuple(v for v in items if isinstance(v, str))
    if len(names) < len(items) or len(set(names)) < len(names):
        out.add("E08", "`passes` is a list of names, each of them once", body.span_of("passes"))
        return None
    return names


MAX_PLACE = 100
"""Operators and operands of a `place` expression."""


def _check_place(expr: ast.Expr, names: Names) -> None:
    """`place` consists of plain numbers, axes, constants and + - * /."""
    known = (*AXES, REPLICA, *(a for a in EXPERT_SIDE if a not in AXES), *names.constants)
    out = names.out
    stack, seen = [expr], 0
    while stack:
        node = stack.pop()
        seen += 1
        if seen > MAX_PLACE:
            out.add("E09", f"a `place` expression has more than {MAX_PLACE} terms", expr.span)
            return
        if isinstance(node, ast.Name):
            constant = names.constants.get(node.text)
            if node.text in known and (constant is None or isinstance(constant, Quantity)):
                continue
            if node is expr and node.text in coming.CHOICES:
                formula = ("`place = best` chooses the ids",)
                out.add("E02", "`place gpu` is a formula over axes", node.span, help=formula)
            elif node.text not in names.unknown:
                near = out.near(node.text, known)
                help_ = (f"did you mean `{near}`?",) if near and near != node.text else ()
                out.add("E02", f"`place` names `{node.text}`, which is not an axis", node.span, help=help_)
        elif isinstance(node, ast.Number):
            value = number(node, out)
            if value is not None and (value.dim != SCALAR or abs(value.value) > 1e9):
                out.add("E08", "`place` computes GPU ids from plain numbers", node.span)
        elif isinstance(node, ast.Unary):
            stack.append(node.operand)
        elif isinstance(node, ast.Binary):
            stack += [node.right, node.left]
        else:
            out.add("E08", "a `place` expression consists of numbers, axes and + - * /", node.span)


def _shard(body: Body, names: Names) -> tuple[tuple[str, str], ...]:
    """Extra rules: `shard { my_heads = tp }`."""
    inner = body.sub("shard", names.out)
    if inner is None:
        return ()
    rules = []
    for dim, bare in inner.bare.items():
        names.out.add("E10", f"`{dim}` has no value", bare.span, help=(f"write `{dim} = tp`",))
    for dim, assign in inner.assigns.items():
        axis = assign.value.text if isinstance(assign.value, ast.Name) else ""
        if axis != TENSOR:
            names.out.add("E08", f"`{dim}` can only be sharded over `tp`", assign.value.span)
        rules.append((dim, axis))
    return tuple(rules)
