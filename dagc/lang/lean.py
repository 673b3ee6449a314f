"""What need not be written of a model, since reading it fills it in."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.diagnostics import Collector
from ..base.schema.model import MODEL
from ..base.source import Source, Span
from ..base.units import Quantity
from ..spec.model import AttrValue, Model
from .body import Body
from .sections.model import PARTS, blocks_of, derived_stack, with_streams
from .typed import default_of


def told(model: Model) -> dict[str, AttrValue]:
    """Attributes that differ from their defaults and do not follow from others."""
    written: dict[str, AttrValue] = {}
    for name, value in model.attributes.items():
        section, _, attr = name.rpartition(".")
        schema = PARTS.get(section, {}) if section else MODEL
        if attr in schema and default_of(schema[attr]) == value:
            continue
        if value != _following(name, model):
            written[name] = value
    return written


def _following(name: str, model: Model) -> AttrValue | None:
    """The value that an attribute has when nobody gives it and others do. None: it has none."""
    heads = model.count("attention.heads", 1)
    if name == "attention.kv_heads":
        return Quantity(float(heads))
    if name == "attention.head_dim":
        return Quantity(float(model.count("hidden", 0) // heads))
    if name == "attention.group":
        return Quantity(float(heads // model.count("attention.kv_heads", heads)))
    if name == "experts.kind":
        return "moe_shared" if model.count("experts.shared", 0) else "moe"
    return model.attributes.get("experts.hidden") if name == "experts.shared_hidden" else None


def builtin(layer: str, attributes: Mapping[str, AttrValue]) -> tuple[str, ...]:
    """Blocks of a layer of that name when nobody defines it."""
    return blocks_of(layer, {}, attributes)


def stack_follows(model: Model) -> bool:
    """`layers` and `dense_first` alone give the stack."""
    body = Body(Span(Source("", ""), 0, 0))
    stack = derived_stack(model.attributes, Quantity(float(model.layers)), body, Collector())
    return stack is not None and with_streams(stack, model.attributes) == model.stack
