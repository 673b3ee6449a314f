"""Elaboration of the model: attributes, derived sizes, the stack of layers, and the blocks that they use."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import cast

from ...base.diagnostics import Collector, Label
from ...base.frozen import replace
from ...base.schema.attribute import Attribute, dtype_of
from ...base.schema.model import ATTENTION, EXPERTS, MLP, MODEL, ROPE, STREAMS
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.model import AttrValue, Layer, Model, stays
from ...spec.residual_streams import Streams
from .. import library
from ..block_checks import mentioned
from ..body import Body
from ..reader import Reader
from ..values.evaluate import evaluate, quantity
from ..values.functions import env
from ..values.names import Names

Blocks = Mapping[tuple[str, str | None], ast.BlockDef]


def read_model(
    name: str,
    body: Body,
    names: Names,
    layers: Mapping[str, ast.LayerDef],
    own_blocks: Blocks,
    checkpoint: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> Model | None:
    """The model, or None when something it cannot do without is wrong."""
    out = names.out
    stack_assign = body.assigns.pop("stack", None)
    sections = tuple(key for key in body.sections if key not in ("weights",) and " " not in key)
    values = Reader(
        "model",
        body,
        {k: v for k, v in MODEL.items() if k != "stack"},
        names,
        (*sections, "weights", "preset weights"),
        free=True,
    ).read()
    attributes: dict[str, AttrValue] = {k: v for k, v in values.items() if _plain(v) and k not in _OWN}  # type: ignore[misc]
    for key in [key for key in _IF_ANY if attributes.get(key) == Quantity(0.0)]:
        del attributes[key]
    for section in dict.fromkeys((*PARTS, *sections)):
        _read_part(section, PARTS.get(section, {}), body, names, attributes)
    if out.failed:
        return None
    _derive(attributes, body, out)
    blocks = ChainMap(dict(own_blocks), cast("dict[tuple[str, str | None], ast.BlockDef]", library.stock()))
    stack = _stack(stack_assign, attributes, layers, body, names)
    if stack is None:
        return None
    stack = with_streams(stack, attributes)
    _streams_in_turn(stack, attributes, layers, body, out)
    used = _used_blocks(stack, layers, blocks, body, out, Streams.of(attributes))
    _unused_attributes(attributes, used, body, out)
    dtype = str(values["dtype"])
    weight_dtype = str(values["weight_dtype"] or dtype)
    asked = weight_dtype if "preset weights" in body.sections else None
    tables = {block for layer in (stack[0], stack[-1]) for block in layer.blocks}
    dtypes = {
        part: kept
        for part, kept in _weight_dtypes(body, names, blocks, asked, dtype, tables).items()
        if ((part, None) in used and kept != weight_dtype) or (part == "experts" and "experts.count" in attributes)
    }
    if set(dtypes.values()) == {weight_dtype}:
        dtypes = {}  # `experts` alone may say what holds anyway
    stated = values["params"]
    return Model(
        name=name,
        dtype=dtype,
        weight_dtype=weight_dtype,
        kv_dtype=str(values["kv_dtype"] or dtype),
        attention_dtype=str(values["attention_dtype"] or dtype),
        weight_dtypes=dtypes,
        attributes=attributes,
        stack=stack,
        blocks=used,
        checkpoint={block: dict(weights) for block, weights in checkpoint.items() if _is_used(block, used)},
        params_stated=stated.value if isinstance(stated, Quantity) else None,
        spans=body.spans() | body.inner_spans() | _layer_spans(stack, layers),
        span=body.span,
    )


def _layer_spans(stack: Sequence[Layer], layers: Mapping[str, ast.LayerDef]) -> dict[str, Span]:
    """Where layers of the stack name their blocks: `layer NAME.BLOCK`."""
    written = [layers[name] for name in dict.fromkeys(layer.name for layer in stack) if name in layers]
    return {f"layer {one.name}.{block.text}": block.span for one in written for block in one.blocks}


def _is_used(scope: str, used: Blocks) -> bool:
    """Whether a section of the checkpoint is of a block of the stack, or of its second use in a layer (`NAME2`), its third..."""
    return (scope, None) in used or (scope.rstrip("0123456789"), None) in used


PARTS: dict[str, Mapping[str, Attribute]] = {
    "attention": ATTENTION, "experts": EXPERTS, "mlp": MLP, "rope": ROPE, "streams": STREAMS,
}  # fmt: skip
"""Sections of a model with attributes of their own; any other section is free."""

_OWN = ("dtype", "weight_dtype", "kv_dtype", "attention_dtype", "params", "layers")
"""Attributes with a place of their own in the record."""


_IF_ANY = ("mtp_layers",)
"""Counts that a model with none of it does not have."""


def _plain(value: object) -> bool:
    return isinstance(value, (Quantity, str, bool))


def _has_none(part: Body, names: Names) -> bool:
    """`kind = none`: a model of this architecture has no such part."""
    kind = part.assigns.get("kind")
    return (
        kind is not None
        and evaluate(kind.value, env(replace(names, out=Collector()), words=True), Collector()) == "none"
    )


def _read_part(
    section: str, schema: Mapping[str, Attribute], body: Body, names: Names, attributes: dict[str, AttrValue]
) -> None:
    inner = body.sub(section, names.out)
    if inner is None or _has_none(inner, names):
        return
    read = Reader(section, inner, schema, names, free=True).read()
    said = {k: v for k, v in read.items() if v != "" or k not in schema}  # an empty list of numbers is none
    attributes.update({f"{section}.{k}": v for k, v in said.items() if _plain(v)})  # type: ignore[misc]


def _derive(attributes: dict[str, AttrValue], body: Body, out: Collector) -> None:
    """Sizes that follow from others: kv_heads, head_dim, group; the expert block and shared width."""

    def count(name: str) -> int | None:
        value = attributes.get(name)
        return int(value.value) if isinstance(value, Quantity) else None

    heads, hidden = count("attention.heads"), count("hidden")
    if heads:
        attributes.setdefault("attention.kv_heads", Quantity(float(heads)))
        kv = count("attention.kv_heads") or heads
        where = body.span_of("attention")
        if heads % kv:
            out.add(
                "E03",
                f"{heads} heads do not divide into {kv} kv_heads groups",
                where,
                help=(f"kv_heads must divide {heads}",),
            )
        attributes.setdefault("attention.group", Quantity(float(heads // kv or 1)))
        if "attention.head_dim" not in attributes and hidden:
            attributes["attention.head_dim"] = Quantity(float(hidden // heads))
    if "experts.count" in attributes:
        shared = count("experts.shared") or 0
        attributes.setdefault("experts.kind", "moe_shared" if shared else "moe")
        attributes.setdefault("experts.shared_hidden", attributes["experts.hidden"])
        top_k, number = count("experts.top_k") or 1, count("experts.count") or 1
        if top_k > number:
            out.add("E03", f"top_k {top_k} exceeds the {number} experts", body.span_of("experts"))


MAX_TURNS, MAX_KINDS = 1000, 64
"""How often a stack may go from one kind of layer to another, and how many kinds it may have: each is costed by itself."""


def _stack(
    assign: ast.Assign | None,
    attributes: Mapping[str, AttrValue],
    layers: Mapping[str, ast.LayerDef],
    body: Body,
    names: Names,
) -> tuple[Layer, ...] | None:
    """The layers in order: as written, else derived from layers, dense_first, attention, experts and mlp."""
    out = names.out
    stated = body.assigns.get("layers")
    number = None if stated is None else quantity(stated.value, env(names), out)
    if assign is None:
        return derived_stack(attributes, number, body, out)
    items = assign.value.items if isinstance(assign.value, ast.ListExpr) else (assign.value,)
    stack = []
    for item in items:
        entries = _entries(item, names)
        if entries is None:
            return None
        stack += [Layer(name, repeat, blocks_of(name, layers, attributes)) for name, repeat in entries]
    if len(stack) < 3:
        out.add("E13", "a stack is an embedding, layers, and a head", assign.value.span)
        return None
    total = sum(s.repeat for s in stack[1:-1])
    if total > MODEL["layers"].high:
        out.add("E09", f"a stack has at most {MODEL['layers'].high:g} layers", assign.value.span, f"this has {total}")
        return None
    turns, kinds = sum(1 for _ in groupby(s.name for s in stack)), len({s.name for s in stack})
    if turns > MAX_TURNS or kinds > MAX_KINDS:
        what = (
            f"changes from one layer to another {turns - 1} times"
            if turns > MAX_TURNS
            else f"has {kinds} different layers"
        )
        out.add(
            "E13",
            f"the stack {what}",
            assign.value.span,
            help=(f"at most {MAX_TURNS} changes and {MAX_KINDS} different layers",),
        )
        return None
    if number is not None and number.value != total:
        assert stated is not None
        also = (Label(assign.value.span, f"{total} layers"),)
        out.add("E03", f"`layers = {number.value:g}`, but the stack has {total}", stated.value.span, also=also)
    return tuple(stack)


def with_streams(stack: tuple[Layer, ...], attributes: Mapping[str, AttrValue]) -> tuple[Layer, ...]:
    """The stack with the blocks that mix its residual streams, where it has several."""
    streams = Streams.of(attributes)
    if streams is None:
        return stack
    first, *inner, last = stack
    return (
        replace(first, blocks=streams.behind(first.blocks)),
        *(replace(layer, blocks=streams.around(layer.blocks)) for layer in inner),
        replace(last, blocks=streams.before(last.blocks)),
    )


def _streams_in_turn(
    stack: tuple[Layer, ...],
    attributes: Mapping[str, AttrValue],
    layers: Mapping[str, ast.LayerDef],
    body: Body,
    out: Collector,
) -> None:
    """Refuses layers that mix streams otherwise than around each block."""
    streams = Streams.of(attributes)
    if streams is None:
        return
    for layer in {layer.name: layer for layer in stack[1:-1]}.values():
        if not streams.in_turn(layer.blocks):
            span = layers[layer.name].span if layer.name in layers else body.span_of("streams")
            out.add(
                "E13", f"layer `{layer.name}` does not have each block between `{streams.collapse}` and `{streams.expand}`", span,
                help=("leave both out: they are put around each block of a layer",),
            )  # fmt: skip


def _entries(item: ast.Expr, names: Names) -> list[tuple[str, int]] | None:
    """(layer, how many) of one item of a stack: `embed`, `16 * sparse`, `each(16, if(...))`."""
    if isinstance(item, ast.CallExpr):
        listed = evaluate(item, env(names, words=True), names.out)
        if listed is None:
            return None
        if isinstance(listed, tuple) and all(isinstance(name, str) for name in listed):
            return [(str(name), len(list(alike))) for name, alike in groupby(listed)]
    repeat: Quantity | None = Quantity(1.0)
    node = item
    if isinstance(item, ast.Binary) and item.op == "*":
        if isinstance(item.left, ast.Name) and isinstance(item.right, ast.Number):
            turned = f"write `{item.right.span.text} * {item.left.text}`"
            names.out.add("E08", "a stack consists of layers, how many of them first", item.span, help=(turned,))
            return None
        repeat, node = quantity(item.left, env(names), names.out), item.right
    if isinstance(node, ast.Name) and repeat is not None and repeat.value >= 1 and repeat.value == int(repeat.value):
        return [(node.text, int(repeat.value))]
    names.out.add("E08", "a stack consists of layers: `embed`, `16 * sparse`", item.span)
    return None


def blocks_of(name: str, layers: Mapping[str, ast.LayerDef], attributes: Mapping[str, AttrValue]) -> tuple[str, ...]:
    """Blocks of a layer; `attention.kind` in a layer means the block that the attribute names."""
    if name in layers:
        return tuple(str(attributes.get(b.text, b.text)) for b in layers[name].blocks)
    if name in ("dense", "sparse"):
        return (str(attributes.get("attention.kind", "gqa")), _feed_forward(name, attributes))
    return (name,)


def _feed_forward(layer: str, attributes: Mapping[str, AttrValue]) -> str:
    return str(attributes.get("mlp.kind", "mlp") if layer == "dense" else attributes.get("experts.kind", "moe"))


def derived_stack(
    attributes: Mapping[str, AttrValue], number: Quantity | None, body: Body, out: Collector
) -> tuple[Layer, ...] | None:
    """Dense layers first, then sparse ones."""
    if number is None:
        if not out.incomplete:
            out.add("E10", "`model` needs `layers` or a `stack`", body.span)
        return None
    first = attributes.get("dense_first")
    dense = int(first.value) if isinstance(first, Quantity) else 0
    total = int(number.value)
    if "experts.count" not in attributes:
        dense = total
    if dense > total:
        out.add("E03", f"dense_first = {dense} of {total} layers", body.span_of("dense_first"))
        return None
    if dense and "mlp.hidden" not in attributes and _slip(("experts", "mlp"), body, out):
        return None
    if "attention.heads" not in attributes and _slip(("attention",), body, out):
        return None
    if dense and "mlp.hidden" not in attributes:
        what = "dense layers need" if "experts.count" in attributes else "`model` needs an `experts { ... }` or"
        out.add("E10", f"{what} an `mlp {{ hidden = ... }}` section", body.span)
        return None
    if "attention.heads" not in attributes:
        out.add("E10", "`model` needs an `attention` section", body.span)
        return None
    attention = str(attributes.get("attention.kind", "gqa"))
    parts = [("dense", dense), ("sparse", total - dense)]
    inner = [Layer(name, n, (attention, _feed_forward(name, attributes))) for name, n in parts if n]
    return (Layer("embed", 1, ("embed",)), *inner, Layer("lm_head", 1, ("lm_head",)))


def _slip(missing: Sequence[str], body: Body, out: Collector) -> bool:
    """A section that probably means a missing one is reported, instead of the missing one."""
    for name, sections in body.sections.items():
        near = out.near(name, [m for m in missing if m not in body.sections]) if name not in PARTS else None
        if near is not None:
            span = sections[-1].kind_span
            out.add("E02", f"`model` has no `{name}`", span, help=(f"did you mean `{near}`?",))
            return True
    return False


def _used_blocks(
    stack: tuple[Layer, ...], layers: Mapping[str, ast.LayerDef], blocks: Blocks, body: Body, out: Collector,
    streams: Streams | None,
) -> Blocks:  # fmt: skip
    used: dict[tuple[str, str | None], ast.BlockDef] = {}
    mixing = () if streams is None else streams.mixing
    for layer in stack:
        for name in layer.blocks:
            bodies = {key: blocks[key] for key in blocks if key[0] == name}
            if not bodies:
                near = out.near(name, {key[0] for key in blocks})
                definition = layers.get(layer.name)
                part = "streams" if name in mixing else "attention"
                span = definition.span if definition and name not in mixing else body.span_of(part)
                hint = f"did you mean `{near}`?" if near else f"blocks: {', '.join(sorted({k[0] for k in blocks}))}"
                out.add("E02", f"unknown block `{name}`", span, help=(hint,))
            elif (name, None) not in bodies:
                out.add(
                    "E13",
                    f"block `{name}` has a body only for {next(iter(bodies))[1]}",
                    next(iter(bodies.values())).span,
                )
            used.update(bodies)
    return used


def _weight_dtypes(
    body: Body, names: Names, blocks: Blocks, asked: str | None, activations: str, tables: set[str]
) -> dict[str, str]:
    """Dtypes by part. `asked`: the `weight_dtype` that the spec writes over its preset's: it replaces those of the
    preset's parts, but for what `stays`. `tables`: embedding and head."""
    schema = {name: dtype_of(f"weights of block {name}") for name, _ in blocks}
    schema["experts"] = dtype_of("weights of routed experts")
    dtypes: dict[str, str] = {}
    for sections, own in ((body.sections.get("preset weights"), False), (body.sections.get("weights"), True)):
        if not sections:
            continue
        inner = Body(sections[-1].kind_span)
        for section in sections:
            inner.add(section.body, names.out)
        read = {k: str(v) for k, v in Reader("weights", inner, schema, names).read().items() if v is not None}
        dtypes |= {k: v for k, v in read.items() if own or asked is None or stays(k, v, asked, activations, tables)}
    return dtypes


def _unused_attributes(attributes: Mapping[str, AttrValue], used: Blocks, body: Body, out: Collector) -> None:
    """A size that no block of the stack mentions is probably misspelt."""
    words: set[str] = set()
    for block in used.values():
        words |= mentioned(block)
    for name in attributes:
        section, _, attr = name.rpartition(".")
        schema = PARTS.get(section, {}) if section else MODEL
        if attr in schema:
            _ignored(section, attr, attributes, used, words, body, out)
            continue
        if attr == "group":
            continue
        if attr not in words and name not in words:
            inner = body.sub(section, out) if section else body
            span = inner.assigns[attr].name_span if inner and attr in inner.assigns else body.span
            near = out.near(attr, [*schema, *words])
            part = (
                next((p for p, names in PARTS.items() if near in names), None)
                if not section and near not in MODEL
                else None
            )
            near = f"{part} {{ {near} = ... }}" if part else near
            out.add(
                "W06",
                f"no block of this model uses `{name}`",
                span,
                help=(f"did you mean `{near}`?",) if near else (),
            )


def _ignored(
    section: str,
    attr: str,
    attributes: Mapping[str, AttrValue],
    used: Blocks,
    words: set[str],
    body: Body,
    out: Collector,
) -> None:
    """A value of a known attribute that is written over a preset and changes nothing: who writes it means something by it."""
    name = f"{section}.{attr}" if section else attr
    if section not in _READ_BY_BLOCKS or not any(library.ships(span.source) for span in body.spans().values()):
        return
    inner = body.sub(section, out)
    if inner is None or attr not in inner.assigns or library.ships(inner.assigns[attr].value.span.source):
        return
    value, usual = attributes[name], PARTS[section][attr].default
    if attr == "kind":
        if any(block == value for block, _ in used):
            return
        own = sorted({block for block, _ in used} - {"embed", "lm_head"})
        out.add(
            "W06", f"no layer of this model has `{value}`", inner.assigns[attr].value.span,
            help=(f"its layers are written: {', '.join(own)}",),
        )  # fmt: skip
        return
    plain = value.value if isinstance(value, Quantity) else value
    if plain != usual and attr not in _READ_BY_ALL and not {attr, name} & words:
        out.add("W06", f"no block of this model uses `{name}`", inner.assigns[attr].name_span)


_READ_BY_BLOCKS = ("attention", "experts", "mlp")
"""Sections whose attributes have an effect where blocks read them."""
_READ_BY_ALL = ("count", "capacity", "heads", "kv_heads", "head_dim")
"""But for these, which routers and layouts ask for, too."""
