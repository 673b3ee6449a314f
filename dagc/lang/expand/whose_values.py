"""whose_values: an error inside a block of the library is told where the spec brought it: at the attribute, the layer or the model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...base.diagnostic import Diagnostic, Label
from ...base.frozen import replace
from ...base.source import Span
from ...base.syntax import ast
from ...spec.model import Model
from .. import library
from ..block_checks import walk, walk_expression
from ..sections.model import PARTS
from .scope import GIVE_SIZE

MOST = 3
"""Attributes that are shown beside the first."""


def told_where_used(found: Diagnostic, definition: ast.BlockDef, layer: str, model: Model) -> Diagnostic:
    """At what of the spec the block computes with, the line of the library below it; as it is where a file of the spec has the block."""
    span = found.span
    if (
        span is None
        or model.span is None
        or span.source is not definition.span.source
        or not library.ships(span.source)
    ):
        return found
    own = list(dict.fromkeys(_given(found, span, definition, layer, model)))
    first, *more = own or [model.span]
    because = (
        []
        if own
        else [f"`{key}` is `{text}` of the config" for key, text in _of_config(found, span, definition, model)]
    )
    lacks = next((text for text in found.help if text.startswith(GIVE_SIZE)), None)
    if lacks is not None:
        (name,) = re.findall(r"`(\w+)`", found.message)
        found = replace(
            found, help=tuple(_said_in_the_model(name, definition, model) if t is lacks else t for t in found.help)
        )
    also = [Label(each, "and this") for each in more[:MOST]]
    return replace(
        found, span=first, label=found.label if own and found.label else "",
        also=(*also, *found.also, Label(span, f"in block `{definition.name}` of the library")),
        because=(*found.because, *because[:MOST]),
    )  # fmt: skip


def _of_config(found: Diagnostic, span: Span, definition: ast.BlockDef, model: Model) -> Iterator[tuple[str, str]]:
    """Attributes that an architecture makes of fields of a config."""
    for key in _attributes(found, span, definition, model):
        if (place := model.spans.get(key)) is not None and "config." in place.text:
            yield key, " ".join(place.text.split())


def _attributes(found: Diagnostic, span: Span, definition: ast.BlockDef, model: Model) -> list[str]:
    """Those that the message names, then those that the place computes with."""
    lets = {s.name: s.value for s in definition.body if isinstance(s, ast.Let)}
    said = re.findall(r"`([\w.]+)`", found.message)
    written = [name for node in walk(definition) if _inside(node.span, span) for name in _names(node)]
    written = [] if found.code == "E02" else written  # what it lacks nobody gave
    return [key for name in _with_lets([*said, *written], lets) for key in _keys(name, model)]


def _given(found: Diagnostic, span: Span, definition: ast.BlockDef, layer: str, model: Model) -> Iterator[Span]:
    """Places in files of the spec: values that the message names, those that the place computes with, what asked for the block."""
    attributes = _attributes(found, span, definition, model)
    sections = [f"{key.split('.')[0]}.kind" for key in attributes if "." in key]
    for keys in (attributes, sections, [f"layer {layer}.{definition.name}", *_kinds(definition, model)]):
        places = [model.spans[key] for key in keys if key in model.spans]
        own = [place for place in places if not library.ships(place.source)]
        yield from own
        if own:
            return


def _said_in_the_model(name: str, definition: ast.BlockDef, model: Model) -> str:
    sections = [section for section, schema in PARTS.items() if name in schema]
    sections += [key.split(".")[0] for key in _kinds(definition, model)]
    return f"give it: `{sections[0]} {{ {name} = ... }}`" if sections else f"give it in the model: `{name} = ...`"


def _kinds(definition: ast.BlockDef, model: Model) -> list[str]:
    """Attributes that name the block."""
    return [key for key, value in model.attributes.items() if key.endswith(".kind") and value == definition.name]


def _inside(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _names(node: ast.Node) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.text]
    return list(getattr(node, "dims", None) or ())


def _with_lets(names: list[str], lets: dict[str, ast.Expr]) -> Iterator[str]:
    """Names, and those that a block's own sizes are computed from; each once."""
    seen, waiting = set[str](), names[::-1]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in lets:
            waiting += [n for node in walk_expression(lets[name]) for n in _names(node)][::-1]
        else:
            yield name


def _keys(name: str, model: Model) -> list[str]:
    """Attributes that a block may call so."""
    return [name] if name in model.spans else [key for key in model.spans if key.endswith(f".{name}")]
