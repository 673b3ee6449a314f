"""The sections of a spec, each with how it is written and the attributes that it takes; and attributes in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .frozen import record
from .schema.attribute import REQUIRED, Attribute
from .schema.hardware import COMPUTE, HARDWARE, LINK, POOL_LINK
from .schema.model import ATTENTION, EXPERTS, MLP, MODEL, ROPE, STREAMS
from .schema.phase import OPEN, PHASE
from .schema.phase_sections import (
    ATTENTION_USE,
    BESIDE,
    EXIT,
    EXPERT_GPUS,
    EXPERT_USE,
    FOLD_ATTENTION,
    FOLD_EXPERTS,
    KV_CACHE,
    PREFETCHES,
    REBALANCE,
)
from .schema.serve import OPEN_IN_SERVINGS, SERVE
from .schema.workload import ARRIVALS, LENGTHS, ROUTINGS, WORKLOAD
from .units import SCALAR, dim_words, show, unit_name


@record
class Section:
    """`written`: as in a spec. `open`: the attributes that may be left to a search. `free`: it takes further attributes, which
    blocks read by their names."""

    written: str
    about: str
    attributes: Mapping[str, Attribute]
    open: Collection[str] = ()
    free: bool = False


def _arguments(forms: Mapping[str, Mapping[str, Attribute]]) -> dict[str, Attribute]:
    """The arguments of words, by `word.argument`."""
    return {f"{word}.{name}": attribute for word, takes in forms.items() for name, attribute in takes.items()}


SECTIONS: dict[str, Section] = {
    "hardware": Section('hardware [NAME] [from "PRESET"] { ... }', "a pool of equal GPUs", HARDWARE),
    "hardware.compute": Section("compute { fp8 = ..., bf16 = ... }", "peaks that differ by dtype", COMPUTE),
    "hardware.link": Section("link NAME { ... }", "a level of links, innermost first", LINK),
    "link": Section("link POOL to POOL { ... }", "joins two pools", POOL_LINK),
    "model": Section('model [NAME] [from "PRESET"] { ... }', "sizes of the model and its stack of layers", MODEL, free=True),
    "model.attention": Section("attention { ... }", "sizes of the attention block", ATTENTION, free=True),
    "model.experts": Section("experts { ... }", "sizes of the experts and their router", EXPERTS, free=True),
    "model.mlp": Section("mlp { ... }", "sizes of the dense feed-forward", MLP, free=True),
    "model.streams": Section("streams { ... }", "several residual streams in place of one, and how they are mixed", STREAMS, free=True),
    "model.rope": Section("rope { ... }", "what `rope(...)` does", ROPE, free=True),
    "model.weights": Section("weights { BLOCK = DTYPE, experts = DTYPE }", "dtypes of the weights of blocks", {}, free=True),
    "workload": Section("workload { ... }", "the batch, and how its tokens choose experts", WORKLOAD),
    "phase": Section("phase NAME { ... }", "GPU ids, strategy and kernels of one phase", PHASE, open=(*OPEN, "strategy")),
    "phase.attention": Section(
        "attention { ... }",
        "degrees of attention, where the experts have others, and its kernel",
        {**FOLD_ATTENTION, **ATTENTION_USE},
        open=FOLD_ATTENTION,
    ),
    "phase.experts": Section(
        "experts { ... }", "degrees of the experts, GPUs of their own, and which of them are used",
        {**FOLD_EXPERTS, **EXPERT_GPUS, **EXPERT_USE}, open=FOLD_EXPERTS
    ),
    "phase.experts.prefetch": Section("prefetch = WORD(...)", "which experts come ahead", _arguments(PREFETCHES)),
    "phase.rebalance": Section("rebalance { ... }", "experts are placed anew by loads that change", REBALANCE),
    "phase.memory": Section("memory { ... }", "what the engine keeps beside weights and cache", BESIDE),
    "phase.kv_cache": Section("kv_cache { ... }", "what is kept of the KV cache, where, and in how many bytes", KV_CACHE),
    "phase.kv_cache.dtypes": Section(
        "dtypes { LAYER = DTYPE }", "dtypes of the cache of layers or blocks, where they are not `kv_dtype`", {}, free=True
    ),
    "phase.shard": Section("shard { DIM = tp }", "dimensions of own blocks that tp splits", {}, free=True),
    "phase.alternative": Section("alternative NAME { ... }", "another layout of its phase: attributes of a phase", {}, free=True),
    "serve": Section("serve NAME { ... }", "traffic over the phases, and how it is scheduled", SERVE, open=OPEN_IN_SERVINGS),
    "serve.arrivals": Section("arrivals = WORD(...)", "when requests come", _arguments(ARRIVALS)),
    "serve.lengths": Section("lengths = WORD(...)", "lengths of prompts and outputs", _arguments(LENGTHS)),
    "checkpoint": Section(
        'checkpoint BLOCK { WEIGHT = "TENSOR DIMS" }', "where a checkpoint file stores a block's weights", {}, free=True
    ),
}  # fmt: skip
"""Path -> section: `phase.memory` is the section `memory` of a phase."""

FORMS: dict[str, Collection[str]] = {
    "arrivals": ARRIVALS,
    "lengths": LENGTHS,
    "exit": EXIT,
    "routing": ROUTINGS,
    "prefetch": PREFETCHES,
}
"""Attributes that are a word with arguments -> the words."""


def default_text(attribute: Attribute) -> str:
    """What holds where a spec says nothing: a value as it is written, or words; `required` where it must say something."""
    value = attribute.default
    if value is REQUIRED:
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return show(float(value), attribute.dim)
    return str(value) if value is not None else attribute.otherwise


def kind_text(name: str, attribute: Attribute) -> str:
    """What an attribute is: `a size (B)`, `a whole number`, or the words that it takes."""
    if name in FORMS and attribute.kind in ("form", "routing"):
        return " | ".join(FORMS[name])
    if attribute.words:
        return "a dtype" if attribute.kind == "dtype" else " | ".join(dict.fromkeys(attribute.words))
    if attribute.kind == "count":
        return "a whole number" if attribute.dim == SCALAR else f"a whole number ({unit_name(attribute.dim)})"
    kinds = {"word": "a word", "flag": "true | false", "list": "a list of names", "text": "a text in quotes"}
    kinds |= {
        "shares": f"{dim_words(attribute.dim)}, or a list",
        "counts": "a list of whole numbers",
        "number": dim_words(attribute.dim),
    }
    kinds |= {"series": "a text in quotes, or lists of numbers"}
    return kinds.get(attribute.kind, attribute.kind)


def range_text(attribute: Attribute) -> str:
    """The bounds of a number; nothing where they only keep it finite."""
    if attribute.kind not in ("number", "count", "shares"):
        return ""
    low = ("> " if attribute.open_low else ">= ") + show(attribute.low, attribute.dim)
    return f"{low}, <= {show(attribute.high, attribute.dim)}"
