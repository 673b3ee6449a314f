"""expand: blocks of the language become ops on named-dimension tensors, one segment a kind of layer."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from ...base.dtypes import dtype as dtype_record
from ...base.frozen import replace
from ...base.traced import number
from ...ir.entries import group_of
from ...ir.graph import Graph, Stage
from ...ir.naming import of_part
from ...ir.op import Op, Taken, Weight
from ...ir.ops.attributes.attention import PoolAttrs
from ...ir.ops.attributes.experts import RouteAttrs
from ...ir.ops.leaving import EXIT_HEAD, EXIT_TOKEN
from ...ir.ops.op_set import OPS
from ...ir.requests import IDS
from ...ir.segment import Segment
from ...spec.batching import Batching
from ...spec.exits import STAYS, LayerExit, rows_left, with_exits
from ...spec.model import Layer
from ...spec.residual_streams import STREAM
from ...spec.unit import Unit
from .block import Block
from .builder import BlockBuilder, Ref, Source
from .further_tokens import blocks, further_tokens, with_shared, with_side
from .join_parts import CannotJoin, joined
from .thinned import CannotThin, thinned


def run(unit: Unit, batching: Batching | None = None) -> Graph:
    """The model graph of a phase. `batching`: other than its own."""
    phase = unit.phase
    model, exits = with_exits(unit.spec.model, phase.exits)
    spec = replace(unit.spec, model=model) if exits else unit.spec
    unit = replace(unit, spec=spec) if exits else unit
    batching = batching or phase.batching
    kinds = spec.model.kinds
    sources: Sources = {}
    if exits:
        before: dict[str, Source] = {}
        each = ((layer, exits.get(layer.name, STAYS)) for layer in kinds.values())
        segments = tuple(_with_exit(unit, layer, batching, own, before) for layer, own in each)
    else:
        segments = tuple(of_all_parts(unit, layer, batching, sources) for layer in kinds.values())
    if spec.model.attributes.get("tied"):
        heads = (tie(segments[0], s, unit) if exits.get(s.name, STAYS).leaves else s for s in segments[:-1])
        segments = (*heads, tie(segments[0], segments[-1], unit))
    wanted = {EXIT_TOKEN, *(one.name for segment in segments for one in segment.taken)}
    segments = tuple(
        replace(s, handed=tuple(p for p in s.handed if p[0] in wanted)) if s.handed else s for s in segments
    )
    segments = with_shared(segments, unit)
    unit.out.check()
    stack = groupby(spec.model.stack, key=attrgetter("name"))
    order = tuple((name, sum(layer.repeat for layer in group)) for name, group in stack)
    return Graph(
        phase.name,
        phase.graph_kind,
        "model",
        segments,
        batching.microbatches,
        batching.lanes,
        stages=(Stage(0, order),),
    )


Sources = dict[str, dict[str, Source]]
"""Of each part of a mixed step (any other pass: of ""), what layers hand on."""


def of_all_parts(unit: Unit, layer: Layer, batching: Batching, sources: Sources) -> Segment:
    """One kind of layer; of a mixed step, its parts joined. `sources`: what earlier kinds hand on, to which it adds its own."""
    phase = unit.phase
    if not phase.is_packed:
        return expanded(
            replace(unit, phase=phase.as_parts[0]), layer, number(batching.part), sources.setdefault("", {})
        )
    rooms = [room for room, _ in batching.parts]
    alone = [
        (part.scope, expanded(replace(unit, phase=own), layer, number(room.part), sources.setdefault(part.scope, {})))
        for part, own, room in zip(phase.parts, phase.as_parts, rooms, strict=True)
    ]
    for scope, segment in alone:
        names = [op.name for op in segment.ops if (segment.name, op.name) in unit.spans]
        unit.spans.update({(segment.name, of_part(name, scope)): unit.spans[segment.name, name] for name in names})
    try:
        return joined(alone, batching.ranks)
    except CannotJoin as error:
        unit.stop(
            "E13", f"layer `{layer.name}` has no mixed step: {error}", help=("write a prefill and a decode phase",)
        )


def _with_exit(unit: Unit, layer: Layer, batching: Batching, own: LayerExit, sources: dict[str, Source]) -> Segment:
    """A kind of layer where sequences leave early, of those that have not left before it. `sources`: what kinds before hand on."""
    still = rows_left(batching.each, own.gone) * batching.ranks
    segment = expanded(replace(unit, phase=unit.phase.as_parts[0]), layer, number(still), sources, leaves=own.leaves)
    try:
        segment = thinned(segment, number(batching.part), batching.ranks) if own.gone else segment
        if not own.leaves:
            return segment
        made = [op.name for op in segment.ops if op.name.startswith(EXIT_HEAD)]
        return replace(segment, handed=(*segment.handed, (EXIT_TOKEN, made[-1])))
    except CannotThin as error:
        unit.stop(
            "E13", f"no sequence leaves before layer `{layer.name}`: {error}", at="exit",
            help=("write the phase without `exit`",),
        )  # fmt: skip


def expanded(unit: Unit, layer: Layer, batch: float, sources: dict[str, Source], *, leaves: bool = False) -> Segment:
    """One kind of layer with `batch` sequences as a segment. `sources`: what earlier kinds hand on, to which it adds its own."""
    model, phase = unit.spec.model, unit.phase
    first = layer.name == model.stack[0].name
    sizes = {"batch": batch, "seq": number(phase.tokens), "context": number(phase.seen)}
    if "hidden" in model.attributes:
        sizes["hidden"] = float(model.count("hidden"))
    if model.streams is not None:
        sizes[STREAM] = float(model.streams.count)
    entry = Ref(IDS, ("batch", "seq")) if first else Ref("x", model.residual)
    head = layer.name == model.stack[-1].name
    streams = () if model.streams is None else model.streams.mixing
    further = {key[0]: block.params[1:] for key, block in model.blocks.items()}
    wanted = frozenset(name for params in further.values() for name in params)
    by_layers = {name for block, params in further.items() if block not in streams for name in params}
    builder = BlockBuilder(with_side(unit), layer.name, sizes=sizes, entry=entry, sources=sources, wanted=wanted)
    if first and IDS in wanted:
        builder.handed[entry.name] = entry
    current = entry
    used: dict[str, int] = {}
    for i, name in enumerate(layer.blocks):
        used[name] = used.get(name, 0) + 1
        block = Block(builder, name, name if used[name] == 1 else f"{name}{used[name]}")
        block.last_of_layer = head if i == len(layer.blocks) - 1 else None
        block.adds = bool(streams) and not first and not head and name not in streams
        current = block.expand(current)
    if leaves:  # whoever leaves has its token by a head of this layer
        blocks(builder, model.stack[-1].blocks, EXIT_HEAD, current, head=True)
    further_tokens(builder, unit, head=head)
    handed = {name: ref for name, ref in builder.handed.items() if name in by_layers}
    for dim in (*entry.dims, *(d for op in builder.ops for d in op.dims)):
        if group_of(dim) is None:
            builder.sizes.setdefault(dim, 1.0)
    segment = Segment(
        layer.name,
        layer.repeat,
        entry.name,
        entry.dims,
        "int32" if first else model.dtype,
        tuple(builder.ops),
        current.name,
        unquantised(builder, model.dtype),
        builder.sizes,
        taken=tuple(builder.taken.values()),
        handed=tuple((name, ref.name) for name, ref in sorted(handed.items())),
    )
    _sees_no_more(unit, segment, sources)
    for name, ref in handed.items():
        given = Taken(name, ref.dims, segment.dtype_of(ref.name), builder.kind_of(ref.name), segment.scope_of(ref.name))
        sources[name] = Source(given, segment)
    return segment


def _sees_no_more(unit: Unit, segment: Segment, sources: dict[str, Source]) -> None:
    """A cache keeps the tokens that its own layer sees: a layer that takes it sees the same."""
    for name in (one.name for one in segment.taken):
        source = sources[name].segment
        value = dict(source.handed)[name]
        here, there = segment.reach.get(name), source.reach.get(value)
        if here is not None and there is not None and here != there:
            words = " and ".join(
                f"`{s.name}` ({'the whole context' if r == (None, None) else f'window {r[0]}, chunk {r[1]}'})"
                for s, r in ((segment, here), (source, there))
            )
            unit.stop(
                "E13",
                f"attention to `{name}` sees other tokens in each of {words}",
                help=("write the same window in both",),
            )


def unquantised(builder: BlockBuilder, dtype: str) -> tuple[Weight, ...]:
    """The weights; those that no quantisation takes (all but matrices of products and tables) in the activations' dtype:
    gains, biases, gates of one column or of one number per head, taps, the projections to a router's scores and to what is pooled, and what mixes residual streams."""
    users: dict[str, list[Op]] = {}
    for op in builder.ops:
        for name in op.inputs:
            users.setdefault(name, []).append(op)

    scores = {name for op in builder.ops if isinstance(op.attrs, (RouteAttrs, PoolAttrs)) for name in op.inputs}
    for op in reversed(builder.ops):
        if OPS[op.kind].fused and op.name in scores:
            scores.update(op.inputs)

    streams = builder.unit.spec.model.streams
    mixing = () if streams is None else streams.mixing

    def taken(weight: Weight) -> bool:
        used = [op for op in users.get(weight.name, ()) if op.block not in mixing]
        if any(OPS[op.kind].reads_rows for op in used):
            return True
        made = [op for op in used if OPS[op.kind].product and op.name not in scores]
        return len(weight.dims) > 1 and not all(_a_number_a_head(weight, op, builder) for op in made)

    return tuple(
        w if not dtype_record(w.dtype).quantised or taken(w) else replace(w, dtype=dtype)
        for w in builder.weights.values()
    )


def _a_number_a_head(weight: Weight, op: Op, builder: BlockBuilder) -> bool:
    """Decays, rates and gates of heads: too few columns for a kernel of quantised weights, so checkpoints leave them (Qwen3-Next:
    in_proj_ba, DeepSeek-V3.2: indexer.weights_proj)."""
    others = {d for name in op.inputs if name != weight.name for d in builder.dims_of(name)}
    result = [d for d in weight.dims if d in op.dims and d not in others]
    return bool(result) and all(d.endswith("heads") or d in ("group", "value_group") for d in result)


def tie(first: Segment, head: Segment, unit: Unit) -> Segment:
    """The head with its projection marked as the embedding's table: one tensor of the same dims and dtype."""
    tables = [first.weight[op.inputs[1]] for op in first.ops if OPS[op.kind].reads_rows]
    for table in tables:
        for weight in head.weights:
            if set(weight.dims) == set(table.dims) and weight.dtype == table.dtype:
                tied = replace(weight, tied=table.name)
                return replace(head, weights=tuple(tied if w is weight else w for w in head.weights))
    model = unit.spec.model
    unit.out.add(
        "E13",
        "`tied`: the head has no weight with the dimensions and dtype of the embedding's table",
        model.spans.get("tied", model.span),
    )
    return head
