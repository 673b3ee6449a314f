"""What `model` and its sections take."""

from __future__ import annotations

from .attribute import Attribute, count_of, dtype_of, share_of, word_of

MODEL: dict[str, Attribute] = {
    "layers": count_of("transformer layers", None, high=1e5, otherwise="those of `stack`"),
    "hidden": count_of("width of the residual stream", high=1e7),
    "vocab": count_of("size of the vocabulary", high=1e9),
    "dtype": dtype_of("activations", "bf16"),
    "weight_dtype": dtype_of("weights", otherwise="dtype"),
    "kv_dtype": dtype_of("KV cache", otherwise="dtype"),
    "attention_dtype": dtype_of("math of prefill attention", otherwise="dtype"),
    "params": Attribute("parameters as stated; checked, never used", default=None, otherwise="nothing to check"),
    "dense_first": count_of("leading layers with a dense feed-forward", 0, low=0, high=1e5),
    "norm_eps": Attribute("added to the mean square in norms", default=1e-6),
    "mtp_layers": count_of(
        "layers that predict further tokens (MTP), beside the stack", None, low=0, high=64, otherwise="0"
    ),
    "tied": Attribute("the head uses the embedding's table", "flag", default=False),
    "stack": Attribute(
        "layers in order, e.g. [embed, 16 * sparse, lm_head]",
        "list",
        default=None,
        otherwise="embed, `dense_first` dense layers, sparse ones, lm_head",
    ),
}

ATTENTION: dict[str, Attribute] = {
    "kind": word_of("block of the attention", "gqa"),
    "heads": count_of("query heads", high=1e6),
    "kv_heads": count_of("key and value heads", None, high=1e6, otherwise="heads"),
    "head_dim": count_of("width of a head", None, high=1e6, otherwise="hidden / heads"),
    "scale": Attribute("factor of the scores in addition to 1 / sqrt(width)", default=1.0),
    "window": count_of("tokens that a sliding window sees (0: all)", 0, low=0, high=1e9),
    "bias": Attribute("queries, keys and values have biases", "flag", default=False),
    "out_bias": Attribute("the output projection has a bias", "flag", default=False),
    "qk_norm": Attribute("queries and keys are normed, head by head", "flag", default=False),
    "clip": Attribute("bound of queries, keys and values (0: none)", default=0.0, open_low=False),
}

EXPERTS: dict[str, Attribute] = {
    "kind": word_of("block of the expert layer", None, otherwise="moe, or moe_shared"),
    "count": count_of("routed experts", high=65_536),
    "top_k": count_of("experts per token", high=65_536),
    "hidden": count_of("width of one expert", high=1e7),
    "shared": count_of("shared experts", 0, low=0, high=1e4),
    "shared_hidden": count_of("width of one shared expert", None, high=1e7, otherwise="hidden"),
    "score": word_of("router score", "softmax", "softmax", "sigmoid", "sqrtsoftplus"),
    "normalize": Attribute("the chosen weights sum to one", "flag", default=True),
    "groups": count_of("expert groups of group-limited routing", 1, high=1e6),
    "groups_limit": count_of("groups that a token may use", 1, high=1e6),
    "group_score": word_of("strength of a group: its best expert or its two best", "best_two", "best", "best_two"),
    "bias": Attribute("a bias that shifts the choice and not the weights", "flag", default=False),
    "scale": Attribute("factor of the chosen weights", default=1.0),
    "capacity": Attribute(
        "tokens that an expert takes, over the mean; more are dropped (0: no bound)", default=0.0, open_low=False
    ),
}

STREAMS: dict[str, Attribute] = {
    "count": count_of("residual streams", low=2, high=64),
    "collapse": word_of("block that makes of all streams what a block of a layer is given", "hyper_collapse"),
    "expand": word_of(
        "block that adds to all streams what a block of a layer adds to what it is given", "hyper_expand"
    ),
    "spread": word_of("block that makes them of the embedding's result", "hyper_spread"),
    "merge": word_of("block that makes one of them for the head", "hyper_merge"),
    "iterations": count_of("times that columns of the mixing are divided by their sums, rows between", 20, high=1000),
    "eps": Attribute("added to weights of the streams and to sums of the mixing", default=1e-6, open_low=False),
    "factor": Attribute("factor of the weights by which a result is added to the streams", default=2.0),
}
"""Several residual streams (hyper-connections). The last three are read by the stock blocks."""

ROPE: dict[str, Attribute] = {
    "theta": Attribute("base of the rotary frequencies", default=10_000.0, low=1.0),
    "fraction": share_of("share of a head's width that is rotated, from its start", 1.0),
    "interleaved": Attribute("pairs are neighbours (else: halves)", "flag", default=False),
    "scaling": word_of(
        "how frequencies are stretched to longer contexts, or laid out",
        "none",
        "none",
        "default",
        "linear",
        "yarn",
        "llama3",
        "proportional",
    ),
    "factor": Attribute("how far they are stretched", default=1.0),
    "original": count_of("context that the model was first trained on", 4096, high=1e9),
    "beta_fast": Attribute("yarn: rotations above which a frequency is kept", default=32.0),
    "beta_slow": Attribute("yarn: rotations below which a frequency is divided by the factor", default=1.0),
    "truncate": Attribute("yarn: the bounds between them are whole numbers", "flag", default=True),
    "low": Attribute("llama3: rotations below which a frequency is divided by the factor", default=1.0),
    "high": Attribute("llama3: rotations above which a frequency is kept", default=4.0),
    "magnitude": Attribute("factor of the rotated values", default=1.0),
    "stretch": Attribute(
        "what each frequency is divided by, a number for each pair, in place of `scaling`",
        "text",
        default=None,
        otherwise="1 for all",
    ),
}
"""What `rope(...)` in a block does; a keyword of the call takes precedence."""

MLP: dict[str, Attribute] = {
    "kind": word_of("block of the dense feed-forward", "mlp"),
    "hidden": count_of("width of the dense feed-forward", high=1e7),
}
