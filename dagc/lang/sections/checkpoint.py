"""Where a checkpoint file has the weights of a model: `checkpoint` sections."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.diagnostics import Collector
from ...base.source import Span
from ...base.syntax import ast
from ..body import Body
from ..values.evaluate import evaluate
from ..values.functions import env
from ..values.names import Names


def read_checkpoint(sections: Sequence[ast.Section], names: Names) -> dict[str, dict[str, tuple[str, ...]]]:
    """Block -> weight -> where a checkpoint file has it, the first found counts."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for section in sections:
        body = Body(section.kind_span)
        body.add(section.body, names.out)
        for name, assign in body.assigns.items():
            value = evaluate(assign.value, env(names), names.out)
            places = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(p, str) for p in places):
                names.out.add("E08", f"`{name}` is one or more strings: tensor name and dimensions", assign.value.span)
                continue
            for place in places:
                _check_place(str(place), assign.value.span, names.out)
            found.setdefault(section.name or "", {})[name] = tuple(str(p) for p in places)
    return found


def _check_place(text: str, span: Span, out: Collector) -> None:
    from ...spec.tensor_place import PlaceError, TensorPlace

    try:
        TensorPlace.parse(text)
    except PlaceError as error:
        out.add("E08", f'"{text}" is not a place in a checkpoint file: {error}', span)
