"""Elaboration of phases: what each says of its steps, and with its strategy whether that fits (`lang/fits.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from ...base import coming
from ...base.diagnostics import Collector
from ...base.frozen import replace
from ...base.phase_kinds import DECODE, MIXED, PHASE_KINDS, PREFILL, TRAIN
from ...base.schema.phase import KV_BLOCK, OPEN, PHASE
from ...base.schema.phase_sections import BESIDE
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.choice import ALTERNATIVE
from ...spec.engines import ENGINES, engine_memory
from ...spec.kv_cache import KvCache
from ...spec.model import Model, Precision
from ...spec.phase import EngineMemory, Launches, Phase
from ...spec.workload import Workload
from ..body import Body
from ..fits import StrategyFit
from ..math_units import check_units
from ..pools import Pools
from ..reader import Reader
from ..values.evaluate import Value, kind_of
from ..values.names import Names
from .draft_words import Drafts, ModelNamed, read_drafter, read_drafts
from .early_exits import read_exits
from .kv_cache import read_cache
from .mixed_step import belongs, read_parts
from .prompt_lengths import belongs_to_prefill, chunks_of, left_open, read_batch
from .strategy import Seats, read_gpus, read_strategy
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
from .used_experts import read_expert_use

DTYPES = ("weight_dtype", "kv_dtype", "attention_dtype")

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
        _needs_a_kind(section, name, out)
    pool = pools.named_by(values["hardware"], body, section, names)
    hardware = None if pool is None else pools.of(pool)
    gpus = read_gpus(values.get("gpus"), body, hardware, out, pool)
    strategy, of_experts = read_strategy(values, body, names, Seats(pools, pool, gpus))
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
    _drafts_or_a_prefix(str(kind), drafts, prefix, values, body, out)
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
    _of_another_kind(str(kind), values, body, out)
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
    several = passes > 1
    phase = Phase(
        name=name,
        kind=str(kind),
        gpus=gpus,
        context=length,
        tokens=chunk if several else tokens,
        sequences=sequences,
        strategy=strategy,
        acceptance=drafts.acceptance,
        passes=passes,
        last=tokens % chunk if several else 0,
        dispatch_dtype=_word(values["dispatch_dtype"]),
        exchange=_word(values["exchange"]),
        quantise=str(values["quantise"]),
        expert_activations=_word(values["expert_activations"]),
        engine=str(values["engine"]),
        host_s=_number(values["host"]),
        cuda_graph=bool(values["cuda_graph"]),
        window_cache=str(values["window_cache"]),
        kv_block=block,
        memory=memory,
        launches=_launches(values["launch"], engine),
        routing=routing,
        parts=parts,
        precision=precision,
        hardware=pool,
        drafter=drafter,
        draft_model=draft_model,
        draft_name="" if draft_model is None else draft_model.name,
        chunk=int(_number(values["chunk"])),
        training=training,
        tree=drafts.tree,
        chances=drafts.chances,
        lengths=None if batch is None else batch.lengths,
        exits=exits,
        by_work=several and values["chunk_by"] == "work",
        chunks_overlap=several and values["chunk_overlap"] == "full",
        experts=read_expert_use(of_experts, body, str(kind), model, strategy, names),
        cache=cache,
        attention_kernel=kernel,
        fuse=fuse,
        span=section.kind_span,
        spans=body.spans(),
    )
    if judged and out.errors == errors:
        StrategyFit(phase, body, model, workload, out).check()
    return phase


def _needs_a_kind(section: ast.Section, name: str, out: Collector) -> None:
    near = out.near(name, tuple(PHASE_KINDS))
    out.add(
        "E10",
        f"phase `{name}` needs `kind = prefill`, `kind = decode`, `kind = mixed` or `kind = train`",
        section.kind_span,
        help=(f"did you mean `phase {near}`?",) if near else (),
    )


def _drafts_or_a_prefix(
    kind: str, drafts: Drafts, prefix: int, values: Mapping[str, Value | None], body: Body, out: Collector
) -> None:
    """Tokens are drafted where they are generated, and a prefix is of prompts."""
    if (drafts.count and kind == PREFILL.name) or (prefix and kind == DECODE.name):
        word, other = ("tree" if drafts.tree else "draft", "decode") if drafts.count else ("prefix", "prefill")
        out.add("E12", f"`{word}` belongs to a {other} phase", body.span_of(word))
    elif kind == PREFILL.name:
        for word in ("draft_model", "drafter"):
            if values[word] not in (None, "none"):
                out.add("E12", f"`{word}` belongs to a decode phase", body.span_of(word))


def _of_another_kind(kind: str, values: Mapping[str, Value | None], body: Body, out: Collector) -> None:
    """What a phase of this kind, or one that exchanges tokens otherwise, has no use for."""
    if kind == DECODE.name and "sp_layout" in body.assigns:
        out.add("E12", "`sp_layout` belongs to a prefill phase", body.span_of("sp_layout"))
    if kind in (PREFILL.name, TRAIN.name) and _number(values["dcp"]) > 1:
        out.add("E12", "`dcp` belongs to a decode phase", body.span_of("dcp"))
    if "exchange" in body.assigns and values["dispatch"] == "allgather":
        help_ = ("write `dispatch = all_to_all`, or leave `exchange` out",)
        out.add("E12", "`exchange` belongs to `dispatch = all_to_all`", body.span_of("exchange"), help=help_)


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


def _word(value: Value | None) -> str | None:
    return str(value) if value else None


def _number(value: Value | None) -> float:
    return value.value if isinstance(value, Quantity) else 0.0
