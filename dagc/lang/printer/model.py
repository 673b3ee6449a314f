"""The statements that define a model, as text."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.syntax import ast
from ...spec.model import Model
from ..lean import builtin, stack_follows, told
from .expressions import expression
from .written import billions_text, is_plain, section_text, value_text


def model_parts(model: Model, *, lean: bool = False) -> list[str]:
    """Statements that define the model: blocks, layers, checkpoint sections, the model section. `lean`: without what
    reading fills in."""
    parts = [block_text(b) for b in model.blocks.values()]
    first, last, streams = model.stack[0].name, model.stack[-1].name, model.streams
    for layer in model.kinds.values():
        known = (layer.name,) if layer.name in (first, last) else builtin(layer.name, model.attributes) if lean else ()
        if streams is not None and known:
            put = {first: streams.behind, last: streams.before}.get(layer.name, streams.around)
            known = put(known)
        if layer.blocks != known:
            parts.append(f"layer {layer.name} {{ {', '.join(layer.blocks)} }}")
    parts += [_checkpoint(block, places) for block, places in model.checkpoint.items()]
    return [*parts, _model(model, lean)]


def _checkpoint(block: str, places: Mapping[str, tuple[str, ...]]) -> str:
    def texts(found: tuple[str, ...]) -> str:
        quoted = [f'"{text}"' for text in found]
        return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"

    return section_text(f"checkpoint {block}", [f"{name} = {texts(found)}" for name, found in places.items()])


def _model(m: Model, lean: bool) -> str:
    dtypes = {"weight_dtype": m.weight_dtype, "kv_dtype": m.kv_dtype, "attention_dtype": m.attention_dtype}
    shown = [f"{name} = {dtype}" for name, dtype in dtypes.items() if not lean or dtype != m.dtype]
    lines = [", ".join([f"dtype = {m.dtype}", *shown])]
    if m.params_stated is not None:
        lines.append(f"params = {billions_text(m.params_stated)}")
    # An empty section still gives its defaults.
    groups: dict[str, list[str]] = {name.rpartition(".")[0]: [] for name in m.attributes}
    for name, value in (told(m) if lean else m.attributes).items():
        section, _, attr = name.rpartition(".")
        groups.setdefault(section, []).append(f"{attr} = {value_text(value)}")
    top = groups.pop("", [])
    by_count = lean and stack_follows(m)
    top = [f"layers = {m.layers}", *top] if by_count else top
    lines += [", ".join(top)] if lean else top
    lines += [f"{section} {{ {', '.join(items)} }}" for section, items in groups.items()]
    if m.weight_dtypes:
        lines.append(f"weights {{ {', '.join(f'{k} = {v}' for k, v in m.weight_dtypes.items())} }}")
    if not by_count:
        lines.append(f"stack = [{_stack(m)}]")
    return section_text(f"model {m.name}" if is_plain(m.name) else f'model "{m.name}"', lines)


LONG = 8
"""Items of a stack that are written one by one."""


def _stack(m: Model) -> str:
    """Runs as `3 * dense`; alternating layers as `each(...)`."""
    names = [layer.name for layer in m.stack[1:-1] for _ in range(layer.repeat)]
    turns = _turns(names) if len(m.stack) > LONG else None
    inner = [turns] if turns else [s.name if s.repeat == 1 else f"{s.repeat} * {s.name}" for s in m.stack[1:-1]]
    if m.stack[0].repeat == m.stack[-1].repeat == 1:
        return ", ".join([m.stack[0].name, *inner, m.stack[-1].name])
    return ", ".join(s.name if s.repeat == 1 else f"{s.repeat} * {s.name}" for s in m.stack)


def _turns(names: list[str]) -> str | None:
    """Kinds that repeat with a period, after a run of others: `each(48, if(equal(mod(index, 4), 3), full, linear))`."""
    for period in range(2, 9):
        if len(names) < 2 * period or any(a != b for a, b in zip(names, names[period:], strict=False)):
            continue
        usual = max(names[:period], key=names[:period].count)
        text = usual
        for index, name in reversed(list(enumerate(names[:period]))):
            if name != usual:
                text = f"if(equal(mod(index, {period}), {index}), {name}, {text})"
        return f"each({len(names)}, {text})"
    return None


def block_text(b: ast.BlockDef) -> str:
    lines = []
    for s in b.body:
        if isinstance(s, ast.Let):
            lines.append(f"let {s.name} = {expression(s.value)}")
        elif isinstance(s, ast.Return):
            lines.append(f"return {expression(s.value)}")
        else:
            dims = "" if s.dims is None else f"[{', '.join(s.dims)}]"
            lines.append(f"{s.name}{dims} = {expression(s.value)}")
    phase = "" if b.phase is None else f" in {b.phase}"
    return section_text(f"block {b.name}({', '.join(b.params)}){phase}", lines)
