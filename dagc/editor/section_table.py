"""What each section takes: its attributes with their schema, the sections in it, and a line on what it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from ..base.axes import AXES
from ..base.dtypes import NAMED
from ..base.frozen import record
from ..base.schema import (
    ATTENTION,
    BESIDE,
    EXPERT_GPUS,
    EXPERTS,
    FOLD_ATTENTION,
    FOLD_EXPERTS,
    HARDWARE,
    LEAST_RATE,
    LINK,
    MLP,
    MODEL,
    OPEN,
    OPEN_IN_SERVINGS,
    PHASE,
    POOL_LINK,
    REQUIRED,
    ROPE,
    SERVE,
    WORKLOAD,
    Attribute,
    dtype_of,
)
from ..base.units import FLOP_RATE
from ..spec.choice import ALTERNATIVE
from .statement_tree import ASSIGN, BARE, SECTION, Statement  # fmt: skip
from .statement_tree import LINK as JOINING


@record
class SectionKind:
    """`sections`: those inside of it; `open`: attributes that may be left to a search; `named`: it has a name; `presets`: it may
    begin with `from`; `free`: any attribute is allowed; `bare`: a name alone is an attribute with the phase's value."""

    about: str
    schema: Mapping[str, Attribute] = field(default_factory=dict)
    sections: Mapping[str, SectionKind] = field(default_factory=dict)
    open: tuple[str, ...] = ()
    named: str = ""
    presets: bool = False
    free: bool = False
    bare: bool = False

    def missing(self, given: set[str]) -> list[str]:
        """Attributes that it needs and that are not given."""
        return [name for name, one in self.schema.items() if one.default is REQUIRED and name not in given]


_PEAKS = {name: Attribute(f"peak FLOP/s in {name}", dim=FLOP_RATE, default=None, low=LEAST_RATE) for name in (*NAMED, "default")}  # fmt: skip
_WEIGHTS = {"experts": dtype_of("weights of routed experts")}
_LEVEL = SectionKind("a level of links, innermost first, with the GPUs that it joins", LINK, named="NAME")
_FOLDS = {
    "attention": SectionKind("degrees of attention, where they are not those of the experts", FOLD_ATTENTION, open=tuple(AXES), bare=True),
    "experts": SectionKind("degrees of the experts, or GPUs of their own", {**FOLD_EXPERTS, **EXPERT_GPUS}, open=tuple(AXES), bare=True),
    "shard": SectionKind("dimensions of your own and the axis that splits each", free=True),
    "memory": SectionKind("what an engine keeps beside weights and cache", BESIDE),
}  # fmt: skip
_ALTERNATIVE = SectionKind(
    "a layout of the phase, of which a plan has one; it overrides what the phase says", PHASE, _FOLDS, OPEN, "NAME"
)

TOP: dict[str, SectionKind] = {
    "hardware": SectionKind(
        "the GPUs, their peaks and links", HARDWARE,
        {"link": _LEVEL, "compute": SectionKind("peak FLOP/s of one GPU by dtype", _PEAKS)}, presets=True,
    ),
    "model": SectionKind(
        "the model: sizes, dtypes, and how its layers are made", MODEL,
        {
            "attention": SectionKind("sizes of the attention; a block may read further ones", ATTENTION, free=True),
            "experts": SectionKind("the routed experts and their router", EXPERTS, free=True),
            "mlp": SectionKind("the dense feed-forward", MLP, free=True),
            "rope": SectionKind("rotary positions", ROPE, free=True),
            "weights": SectionKind("dtypes of parts, by block", _WEIGHTS, free=True),
        },
        presets=True, free=True,
    ),
    "workload": SectionKind("what is asked of the model: sequences and their lengths", WORKLOAD),
    "phase": SectionKind(
        "GPUs and parallel strategy of one phase", PHASE, {**_FOLDS, ALTERNATIVE: _ALTERNATIVE}, (*OPEN, "strategy"), "NAME"
    ),
    "serve": SectionKind(
        "traffic over the phases: which requests come, and how they are scheduled", SERVE, open=OPEN_IN_SERVINGS, named="NAME"
    ),
    "checkpoint": SectionKind("where a checkpoint file stores a block's weights", free=True, named="BLOCK"),
    "link": SectionKind("joins two pools of GPUs", POOL_LINK, named="A to B"),
}  # fmt: skip
"""Sections at the top of a file, by their first word."""

KEYWORDS: dict[str, str] = {
    "moe": "the version of the language, first in every file: `moe 1`",
    "import": 'statements of another file, by a path relative to this one: `import "blocks.moe"`',
    "let": "a constant: `let x = 8`",
    "param": "a constant that `--set` changes within its domain: `param x = 8 in [4, 8]`",
    "require": 'what the plan must hold: `require "label" decode.tpot <= 20 ms`; `~` is equal within 5 %, or within `+- 2%`',
    "block": "a part of a layer, in index notation: `block name(x) { ... return y }`; `in decode`: the body for decode phases",
    "layer": "blocks in order: `layer sparse { gqa, moe }`",
    "return": "the result of a block",
    "from": "a preset of the library (`dagc list presets`), a `.moe` file, or a model's config.json",
    "in": "the domain of a param; or the kind of phase that a block's body is for",
    "true": "a flag that is set",
    "false": "a flag that is not set",
}
"""Reserved words."""


def kind_of(path: Sequence[Statement]) -> SectionKind | None:
    """What the innermost of nested sections takes; None where it is unknown."""
    known: SectionKind | None = None
    for i, section in enumerate(path):
        if section.kind not in (SECTION, JOINING):
            return None
        known = TOP.get(section.word) if i == 0 else known.sections.get(section.word) if known is not None else None
        if i and known is None and path[i - 1].word == "model":
            known = SectionKind("attributes that the model's blocks read", free=True)
    return known


def given_in(section: Statement) -> set[str]:
    """Names of attributes and sections that a section has."""
    return {s.word for s in section.body if s.kind in (ASSIGN, BARE, SECTION)}
