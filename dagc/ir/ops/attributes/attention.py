"""Attributes of attention, of what is done to its queries and keys, and of its cache."""

from __future__ import annotations

from ....base.schema.model import ROPE
from ....base.schema.phase_sections import ATTENTION_KERNELS
from ...sharding import Axes
from .attrs import Attrs, axes_field, count_field, flag_field, number_field, rope_field, tree_field, word_field


class RopeAttrs(Attrs):
    theta: float = rope_field("theta", default=ROPE["theta"].default)
    fraction: float = rope_field("fraction", default=ROPE["fraction"].default)
    interleaved: bool = rope_field("interleaved", default=ROPE["interleaved"].default)
    scaling: str = rope_field("scaling", default=ROPE["scaling"].default)
    factor: float = rope_field("factor", default=ROPE["factor"].default)
    original: int = rope_field("original", default=ROPE["original"].default)
    beta_fast: float = rope_field("beta_fast", default=ROPE["beta_fast"].default)
    beta_slow: float = rope_field("beta_slow", default=ROPE["beta_slow"].default)
    truncate: bool = rope_field("truncate", default=ROPE["truncate"].default)
    low: float = rope_field("low", default=ROPE["low"].default)
    high: float = rope_field("high", default=ROPE["high"].default)
    magnitude: float = rope_field("magnitude", default=ROPE["magnitude"].default)
    stretch: str = rope_field("stretch", default="")
    tail: bool = flag_field("it is the last numbers that are rotated, not the first", default=False)
    inverse: bool = flag_field("rotated back, as gradients are", default=False)
    tree: str = tree_field(default="")


class TemperAttrs(Attrs):
    floor: float = number_field("positions that share a step", default=8192.0)
    scale: float = number_field("growth with the logarithm of a step", default=0.1, open_low=False)
    first: int = count_field("position of the first token", default=1, low=0, high=1)
    tree: str = tree_field(default="")


class AttendAttrs(Attrs):
    """`pairs` queries come first, then as many keys, then the values; with `entries` as many keys of entries, and their values; sinks and
    chosen tokens where there are some."""

    causal: bool = flag_field("a token attends only to itself and earlier tokens", default=True)
    width: float | None = number_field("under the root, instead of the queries' width", default=None)
    scale: float = number_field("factor of the scores in addition to 1 / sqrt(width)", default=1.0)
    window: int = count_field("tokens that a sliding window sees (0: all)", default=0, low=0)
    chunk: int = count_field("tokens of a chunk, which sees only itself (0: all)", default=0, low=0)
    cap: float = number_field("bound that scores come near, by a tanh (0: none)", open_low=False, default=0.0)
    pairs: int = count_field("pairs of queries and keys, whose scores add", default=1, made=True)
    chosen: int = count_field(
        "tokens that `select` chose for each query (0: no choice)", default=0, low=0, high=1e9, made=True
    )
    chosen_together: int = count_field(
        "tokens of a block that `select` chose as one (0: single tokens)", default=0, low=0, made=True
    )
    entries: bool = flag_field(
        "beside tokens it sees entries of groups, once all tokens of a group are there", made=True, default=False
    )
    chosen_entries: int = count_field(
        "entries that `select` chose for each query (0: no choice)", default=0, low=0, high=1e9, made=True
    )
    ring: Axes = axes_field("axes around which keys and values travel", default=())
    tree: str = tree_field(default="")
    kernel: str = word_field(
        "flash: scores stay on the chip; unfused: they are written and read",
        *ATTENTION_KERNELS,
        made=True,
        default="flash",
    )


class CacheAttrs(Attrs):
    """What is kept of a cache. A pass begins with the tokens that are kept of those before it; its own are added."""

    keep: int = count_field("tokens that are kept from one pass to the next (0: all)", low=0, made=True, default=0)
    sinks: int = count_field("of these, the first of the sequence", low=0, made=True, default=0)
    heavy: float = number_field(
        "share of them that is chosen by the largest scores; the others are the newest",
        open_low=False,
        high=1.0,
        made=True,
        default=0.0,
    )
    ratio: float = number_field(
        "how many times fewer bytes than its numbers it takes", low=1.0, open_low=False, made=True, default=1.0
    )
    host: float = number_field("share that host memory keeps", open_low=False, high=1.0, made=True, default=0.0)
    prefetch: bool = flag_field("what is needed of it comes while the layer before runs", made=True, default=True)


class AttendGradAttrs(AttendAttrs):
    operand: int = count_field("operand whose gradient it is", low=0, high=63, made=True, default=0)


class SelectAttrs(Attrs):
    together: int = count_field(
        "tokens that are selected as one, by the largest score among them (0: single tokens)", default=0, low=0
    )
    local: int = count_field("blocks up to the query's own that are always selected", default=1)


class PoolAttrs(Attrs):
    overlap: bool = flag_field(
        "an entry is of several groups, the last of them its own, by the first dimension behind `seq`", default=False
    )


class LeavingAttrs(Attrs):
    """Of the ops between all sequences of a step and those that have not left early."""

    groups: int = count_field("ranks that split the sequences: of each the first ones stay", high=1e9, made=True)
