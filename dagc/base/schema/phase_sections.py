"""What the sections of a phase take."""

from __future__ import annotations

from ..axes import ATTENTION_SIDE, IN_EXPERTS
from ..units import BYTES, TOKENS
from .attribute import Attribute, count_of, word_of

ATTENTION_KERNELS = ("flash", "unfused")

BESIDE: dict[str, Attribute] = {
    "tokens": count_of(
        "tokens of the largest batch that the engine keeps room for",
        None,
        low=0,
        high=1e9,
        dim=TOKENS,
        otherwise="the engine's, else 0",
    ),
    "sequences": count_of(
        "sequences whose scores over the vocabulary it keeps room for",
        None,
        low=0,
        high=1e9,
        otherwise="the engine's, else 0",
    ),
    "graphs": Attribute("CUDA graphs", dim=BYTES, default=None, open_low=False, otherwise="the engine's, else 0 B"),
    "communication": Attribute(
        "buffers of communication libraries",
        dim=BYTES,
        default=None,
        open_low=False,
        otherwise="the engine's, else 0 B",
    ),
    "padding": Attribute(
        "what kernels add to weights to fill their tiles",
        dim=BYTES,
        default=None,
        open_low=False,
        otherwise="by the engine's tiles",
    ),
}
"""Section `memory` of a phase: what an engine keeps in addition to weights and cache."""

KV_CACHE: dict[str, Attribute] = {
    "keep": count_of(
        "tokens of each sequence that stay in the cache; others are evicted between passes",
        None,
        high=1e9,
        dim=TOKENS,
        otherwise="all",
    ),
    "sinks": count_of("of these, the first of the sequence (attention sinks)", 0, low=0, high=1e9, dim=TOKENS),
    "heavy": Attribute(
        "share of the kept tokens that have the largest scores so far (heavy hitters); the others are the newest",
        default=0.0,
        high=1.0,
        open_low=False,
    ),
    "ratio": Attribute(
        "how many times fewer bytes than its numbers the cache takes (compression)",
        default=1.0,
        low=1.0,
        high=1e3,
        open_low=False,
    ),
    "offload": Attribute("share of the tokens that host memory keeps", default=0.0, high=1.0, open_low=False),
    "prefetch": Attribute("what the host keeps for a layer comes while the layer before runs", "flag", default=True),
}
"""Section `kv_cache` of a phase: what is kept of the cache, where, and in how many bytes."""

EXIT: dict[str, dict[str, Attribute]] = {
    "at": {
        "layers": count_of("layers that they go through", high=1e5),
        "share": Attribute("of all sequences of the batch", low=0.0, high=1.0, open_low=False),
    },
}
"""An early exit: its word and arguments."""

FOLD_ATTENTION = {a: count_of(f"degree of {a} in attention", 1, high=1e6) for a in ATTENTION_SIDE}

FOLD_EXPERTS = {a: count_of(f"degree of {a} in the experts", 1, high=1e6) for a in IN_EXPERTS}

EXPERT_CACHES = ("lru", "frequency")

MOST_SKIPPED = 0.99
"""Of the choices of experts: something is left to compute."""

ATTENTION_USE = {
    "kernel": word_of(
        "flash: scores stay on the chip; unfused: three kernels, which write scores and read them",
        "flash",
        *ATTENTION_KERNELS,
    ),
}
"""Of a phase's section `attention`, beside the degrees."""

EXPERT_GPUS = {
    "hardware": word_of("pool of these GPUs", None, otherwise="the phase's"),
    "gpus": Attribute(
        "GPU ids that have the experts and nothing else, e.g. 16..31",
        "counts",
        default=None,
        otherwise="those of attention",
    ),
}
"""Of a phase's section `experts`, beside the degrees."""

EXPERT_USE = {
    "skip": Attribute(
        "share of the choices of experts that are left out, each for itself; a list: of a token's first choice, its second, ...",
        "shares",
        default=0.0,
        high=MOST_SKIPPED,
        open_low=False,
    ),
    "skip_below": Attribute(
        "where choices are skipped: those of less than this share of the token's largest weight",
        default=0.5,
        high=1.0,
        open_low=False,
    ),
    "resident": count_of(
        "experts of a layer that its GPUs hold, all together; the others are in host memory",
        None,
        high=65_536,
        otherwise="all",
    ),
    "cache": word_of("which of them: those used last, or always the most popular", "lru", *EXPERT_CACHES),
    "prefetch": Attribute(
        "what comes from host memory before its layer asks for it: none, or next_layer(hit = 80%)",
        "form",
        default="none",
    ),
    "warm": Attribute("they are there already; else none of them is yet", "flag", default=True),
    "hits": Attribute(
        "share of the experts that a step needs which its GPUs hold, where it was measured",
        default=None,
        high=1.0,
        open_low=False,
        otherwise="by `trace`, else by the routing, and the rule of `cache`",
    ),
    "trace": Attribute(
        "loads of experts in steps, one after the other, which the rule of `cache` is run over: a file, whose first column is `step`, or a list",
        "series",
        default=None,
        otherwise="steps are drawn by the routing",
    ),
}
"""Of the same section: which experts are used, and where they are."""

PREFETCHES = {
    "none": {},
    "next_layer": {
        "hit": Attribute(
            "share of what comes that the layer before names rightly", default=1.0, high=1.0, open_low=False
        )
    },
}
"""How experts come ahead: word -> its arguments, in order."""

REBALANCE = {
    "loads": Attribute("loads of experts over time: a file, whose first column is `step`, or a list of them", "series"),
    "window": count_of("steps that the loads of one step of the file are of", 1, high=1e9),
    "every": count_of("steps between two placements of the experts, each by the loads of the period before", high=1e9),
}
"""Section `rebalance` of a phase."""
