"""The passes that draft the tokens which a step then checks: graphs of their own, lowered and priced like any step.

The layers of a model that predict further tokens (MTP) draft one token of every sequence in a pass: embedding, projection,
layer and head. Another model does the same with all of its layers. They run on the GPUs of the last stage, in the phase's layout, before
the step, as often as it drafts one token behind another.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from ..base.axes import DATA, EXPERT, SEQUENCE, TENSOR
from ..base.diagnostics import Collector, SpecError
from ..base.draft_trees import levels
from ..base.frozen import replace
from ..base.phase_kinds import DECODE
from ..cost.memory import drafter_weights, with_drafter, with_model
from ..plan.result import Chunk, Drafter, DraftPass, PhaseResult, joined_path, passes_s
from ..spec.model import Layer, Model
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from ..spec.unit import Unit
from ..spec.workload import Routing
from .analyse import bound_shares, graph_flops, held, phase_tokens, price, whole_memory
from .kept_lowerings import lowered
from .parameters import count_parameters

if TYPE_CHECKING:
    from ..cost.footprint import Memory, StageMemory
    from ..ir.graph import Graph
    from ..spec.hardware import Hardware

NONE = "none"
EMBED, JOIN = "mtp_embed", "mtp_join"
"""Stock blocks before a layer that predicts further tokens."""


def with_drafts(result: PhaseResult, unit: Unit) -> PhaseResult:
    """The result with the passes of the phase's drafter: their time in each step, their weights and cache on the last stage."""
    if unit.phase.drafter == NONE:
        return result
    passes: list[DraftPass] = []
    units = list(draft_units(unit, result.graph))
    for count, own in units:
        try:
            graph = lowered(own)
        except SpecError:
            for found in own.out.items:
                unit.out.take(found)
            raise
        passes.append(DraftPass(graph, replace(price(graph, own)[0], count=count)))
    first, layers = passes[0], drafter_layers(unit)
    own_memory = whole_memory(first.graph, units[0][1], first.chunk.costs).stages[-1]
    memory, weights_B = memory_with(result.memory, result.graph, unit, first.graph, own_memory)
    params = drafter_params(unit, first.graph)
    cache_B = memory.stages[-1].kv_cache_B - result.memory.stages[-1].kv_cache_B
    drafter = Drafter(_name(unit), layers, params, weights_B, cache_B, tuple(passes))
    both = replace(result, drafter=drafter, memory=memory)
    tokens, time_s, before_s = phase_tokens(unit.phase), passes_s(both.all_passes), passes_s(result.chunks)
    flops = sum(one.chunk.count * graph_flops(one.graph) for one in passes) * unit.phase.batching.filled
    peak = unit.spec.hardware.peak_flops(unit.spec.model.weight_dtype) * len(unit.phase.gpus)
    return replace(
        both,
        flops_per_token=result.flops_per_token + flops / tokens,
        utilization=(result.utilization * before_s + flops / peak) / time_s,
        throughput_tok_s=tokens / time_s,
        bound_by=bound_shares(joined_path(both.all_passes)),
    )


def held_with_drafter(memory: Memory, graph: Graph, unit: Unit) -> Memory:
    """The memory of a phase with what its drafter stores, if it has one. Raises SpecError."""
    if unit.phase.drafter == NONE:
        return memory
    _, own = next(draft_units(unit, graph))
    draft = lowered(own)
    return memory_with(memory, graph, unit, draft, held(draft, own).stages[-1])[0]


def memory_with(memory: Memory, graph: Graph, unit: Unit, draft: Graph, of_draft: StageMemory) -> tuple[Memory, float]:
    """The memory of a phase with what its drafter stores, and the bytes of the drafter's weights. `draft`, `of_draft`: its first
    pass, and what it stores."""
    if unit.phase.draft_model is not None:
        return with_model(memory, draft, of_draft, unit)
    has_table = len(graph.stages) == 1 or any(w.tied for w in graph.head.weights)
    return with_drafter(memory, draft, of_draft, unit, drafter_layers(unit), has_table=has_table)


def _name(unit: Unit) -> str:
    return unit.phase.drafter if unit.phase.draft_model is None else unit.phase.draft_model.name


def drafter_layers(unit: Unit) -> int:
    """Layers of the drafter that are stored, embedding and head not counted."""
    other = unit.phase.draft_model
    return unit.spec.model.count("mtp_layers") if other is None else sum(layer.repeat for layer in other.stack[1:-1])


def drafter_params(unit: Unit, draft: Graph) -> float:
    """Parameters of the drafter: of a model of its own all of them, of layers for further tokens those that are not the model's."""
    if unit.phase.draft_model is not None:
        return count_parameters(draft)[0]
    return drafter_layers(unit) * sum(
        segment.count(weight.dims) for segment in draft.segments for weight in drafter_weights(segment, draft)
    )


def priced_again(result: PhaseResult, unit: Unit, hardware: Hardware) -> tuple[Chunk, ...]:
    """All passes of a phase on other hardware, those that draft included."""
    own = price(result.graph, unit, hardware)
    if result.drafter is None:
        return own
    units = draft_units(unit, result.graph)
    drafts = (
        replace(price(one.graph, draft, hardware)[0], count=count)
        for one, (count, draft) in zip(result.drafter.passes, units, strict=True)
    )
    return (*own, *drafts)


def draft_units(unit: Unit, graph: Graph, model: Model | None = None) -> Iterator[tuple[int, Unit]]:
    """(passes in a step, what is compiled for them). `graph`: the lowered step, whose last stage has the GPUs; `model`: the drafter,
    where it is known."""
    ids = graph.the_mesh.the_gpus.ids
    model = model or drafter_of(unit)
    alone = unit.phase.draft_model is not None
    for count, phase in draft_phases(unit.phase):
        own = replace(
            phase,
            gpus=ids[-(len(ids) // len(graph.stages)) :],
            strategy=_layout(phase.strategy, model, alone=alone),
            routing=Routing() if alone else _of_one_layer(unit.routing),
            host_s=0.0,
            acceptance=0.0,
            tree=(),
            chances=(),
            exits=(),
            drafter=NONE,
            draft_model=None,
            draft_name="",
            precision=None,
        )
        yield count, Unit(replace(unit.spec, model=model, phases=(own,)), own, Collector())


def draft_phases(phase: Phase) -> Iterator[tuple[int, Phase]]:
    """(passes, their tokens): one for each depth, of the tokens that the one before drafted; of a chain one of each sequence in decode.
    The first of a step with prompts takes their tokens too: a layer of its own has a cache of its own."""
    decode = phase.part(DECODE.name) if phase.is_packed else phase.as_parts[0]
    own = levels(phase.draft_tree)[:-1]
    if phase.is_packed:
        parts = tuple(replace(part, tokens=1) if part.scope == DECODE.name else part for part in phase.parts)
        yield 1, replace(phase, parts=parts, tokens=1)
        own = own[1:]
    for tokens, passes in groupby(own):
        yield sum(1 for _ in passes), replace(decode, tokens=tokens)


def _layout(strategy: Strategy, model: Model, *, alone: bool) -> Strategy:
    """The phase's, of one stage. A model of its own without experts has attention's degrees, and ranks that split the batch for them
    split it here too."""
    one = replace(strategy, pp=1, layers_per_stage=None, place=None, best=False, ids=(), passes=())
    if not alone:
        return one
    one = replace(one, dcp=1, shard=(), redundant=0, expert_placement=None)
    if any(name.startswith("experts.") for name in model.attributes):
        return one
    degrees = {axis: getattr(one, axis) for axis in (DATA, EXPERT, SEQUENCE, TENSOR)}
    if one.attention is not None:
        degrees |= {EXPERT: 1, **dict(one.attention.degrees)}
    dp = degrees[DATA] * degrees[EXPERT]
    return replace(one, dp=dp, ep=1, sp=degrees[SEQUENCE], tp=degrees[TENSOR], attention=None, experts=None)


def drafter_of(unit: Unit) -> Model:
    """What drafts, as a model: another one, or a layer for a further token."""
    other = unit.phase.draft_model
    if other is None:
        return drafter_model(unit.spec.model)
    return replace(other, stack=tuple(replace(layer, name=f"draft_{layer.name}") for layer in other.stack))


def drafter_model(model: Model) -> Model:
    """One layer for a further token as a model: like the last layer, behind a projection that no quantisation takes."""
    from ..lang import library

    shipped = library.stock()
    stock = {key: shipped[key] for key in shipped if key[0] in (EMBED, JOIN)}
    table = model.weight_dtypes.get(model.stack[0].blocks[0], model.weight_dtype)
    first = (EMBED, JOIN) if model.streams is None else model.streams.behind((EMBED, JOIN))
    return replace(
        model,
        attributes={name: value for name, value in model.attributes.items() if name != "tied"},
        stack=(
            Layer("mtp_embed", 1, first),
            Layer("mtp_layer", 1, model.stack[-2].blocks),
            Layer("mtp_head", 1, model.stack[-1].blocks),
        ),
        blocks={**model.blocks, **stock},
        weight_dtypes={**model.weight_dtypes, EMBED: table, JOIN: model.dtype},
        checkpoint={},
        params_stated=None,
    )


def _of_one_layer(routing: Routing) -> Routing:
    """Loads of the model's last layer, where each has its own: nothing was recorded of the layer that drafts."""
    if len(routing.layers) < 2:
        return routing
    last = routing.numbers.index(max(routing.numbers)) if routing.numbers else -1
    return replace(routing, layers=(routing.layers[last],), numbers=(), where=())
