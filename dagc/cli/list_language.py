"""What `dagc list` says of the language: sections, attributes, functions, dimensions, dtypes, blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def sections() -> list[Record]:
    from ..base.sections import SECTIONS

    return [
        {"section": path, "written": one.written, "about": one.about, "attributes": list(one.attributes), "free": one.free}
        for path, one in SECTIONS.items()
    ]  # fmt: skip


def attributes() -> list[Record]:
    from ..base.schema.attribute import REQUIRED
    from ..base.sections import SECTIONS, default_text, kind_text, range_text
    from ..base.units import unit_name

    return [
        {
            "section": path, "name": name, "takes": kind_text(name, one), "unit": unit_name(one.dim), "range": range_text(one),
            "required": one.default is REQUIRED, "default": default_text(one), "open": name in section.open, "about": one.about,
        }
        for path, section in SECTIONS.items()
        for name, one in section.attributes.items()
    ]  # fmt: skip


def functions() -> list[Record]:
    from ..ir.ops.op_set import OPS
    from ..lang.expand.functions import FUNCTIONS as IN_BLOCKS
    from ..lang.values.functions import FUNCTIONS as IN_EXPRESSIONS

    found: list[Record] = [
        {"name": name, "in": "expressions", "written": one.written, "keywords": [], "about": one.about}
        for name, one in IN_EXPRESSIONS.items()
    ]
    for name, function in IN_BLOCKS.items():
        defaults = {field.name: field.default for field in OPS[name].attrs.fields}
        takes: list[Record] = [
            {"name": key, "default": _value(defaults.get(key)), "about": one.about}
            for key, one in function.keywords.items()
        ]
        shown = [f"{one['name']} = {'...' if one['default'] is None else str(one['default']).lower()}" for one in takes]
        written = f"{name}({', '.join((function.operands, *shown))})"
        found.append({"name": name, "in": "blocks", "written": written, "keywords": takes, "about": OPS[name].about})
    return found


def _value(default: object) -> object:
    """As JSON has it: None where there is no default, or none that is finite."""
    from math import isfinite

    plain = isinstance(default, (str, bool)) or (isinstance(default, (int, float)) and isfinite(default))
    return default if plain else None


def dims() -> list[Record]:
    from ..ir.axes import HEADS, TENSOR_DIMS
    from ..lang.block_checks import dims_of
    from ..lang.expand.scope import MADE_DIMS, PHASE_DIMS
    from ..lang.library import stock

    stored: dict[str, list[str]] = {}
    for block in stock().values():
        for dim in dims_of(block):
            stored.setdefault(dim, []).append(block.name)
    of_model = sorted({*stored, *TENSOR_DIMS, *HEADS} - {*PHASE_DIMS, *MADE_DIMS})
    found: list[Record] = [{"name": name, "size": "the phase's", "about": about} for name, about in PHASE_DIMS.items()]
    found += [
        {"name": name, "size": "made", "about": f"`{by}` makes it, anew in each call"} for name, by in MADE_DIMS.items()
    ]
    for name in of_model:
        about = [
            what for what, dims in (("tp splits it", TENSOR_DIMS), ("a dimension of heads", HEADS)) if name in dims
        ]
        about += [f"in the blocks {', '.join(dict.fromkeys(stored[name]))}"] if name in stored else []
        found.append({"name": name, "size": "the model's", "about": "; ".join(about)})
    return found


def dtypes() -> list[Record]:
    from ..base.dtypes import FORMS, NAMED

    return [
        *({"name": one.name, "bytes": round(one.bytes, 6), "about": _blocks(one.block)} for one in NAMED.values()),
        {"name": "(others)", "bytes": None, "about": FORMS},
    ]


def _blocks(block: tuple[int, int]) -> str:
    along, across = block
    if not along:
        return ""
    return f"one scale for {along} x {across} numbers" if across > 1 else f"one scale for {along} numbers"


def blocks() -> list[Record]:
    from ..lang.block_checks import dims_of
    from ..lang.library import stock

    return [
        {"name": one.name, "phase": one.phase or "", "about": f"[{', '.join(sorted(dims_of(one)))}]"}
        for one in stock().values()
    ]


def schedules() -> list[Record]:
    from ..base.pipeline_schedules import SCHEDULES

    return [
        {
            "name": name,
            "title": one.title,
            "chunks": "v" if one.chunks is None else str(one.chunks),
            "idle": ("at most " if one.bubble.at_most else "") + one.bubble.formula,
            "holds": one.held,
        }
        for name, one in SCHEDULES.items()
    ]
