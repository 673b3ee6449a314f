"""Attributes that sections take: dimension, range, default and a line of documentation each."""

from __future__ import annotations

from .axes import ATTENTION_SIDE, AXES, IN_EXPERTS, STAGES
from .dtypes import NAMED
from .frozen import record
from .low_precision import RECIPES, WHOLE
from .phase_kinds import PHASE_KINDS
from .pipeline_schedules import SCHEDULES
from .units import BYTE_RATE, BYTES, FLOP_RATE, MONEY_RATE, POWER, REQUEST_RATE, REQUESTS, SCALAR, TIME, TOKENS, Dim

REQUIRED = object()
LARGE = 1e18
LEAST_RATE = 1.0
"""Per second: times stay finite."""
LEAST_SHARE = 1e-6


@record
class Attribute:
    """`kind`: number, count (a whole number), word, dtype, flag, list, counts (a list of whole numbers), text (a string), or
    routing and form, which are read apart.

    A count may be written with the unit `dim`.
    """

    about: str
    kind: str = "number"
    dim: Dim = SCALAR
    default: object = REQUIRED
    low: float = 0.0
    high: float = LARGE
    open_low: bool = True  # the lower bound itself is not allowed
    words: tuple[str, ...] = ()
    otherwise: str = ""  # where `default` is None: what holds, in words


def _count(
    about: str, default: object = REQUIRED, low: float = 1, high: float = 1e12, dim: Dim = SCALAR, otherwise: str = ""
) -> Attribute:
    return Attribute(about, "count", dim, default, low, high, open_low=False, otherwise=otherwise)


def _word(about: str, default: object, *words: str, otherwise: str = "") -> Attribute:
    return Attribute(about, "word", default=default, words=words, otherwise=otherwise)


def _share(about: str, default: float) -> Attribute:
    return Attribute(about, "number", SCALAR, default, LEAST_SHARE, 1.0)


def dtype_of(about: str, default: object = None, otherwise: str = "") -> Attribute:
    return Attribute(about, "dtype", default=default, words=DTYPES, otherwise=otherwise)


DTYPES = tuple(NAMED)
ATTENTION_KERNELS = ("flash", "unfused")
EXCHANGES = ("deepep_ht", "deepep_ll", "deepep_v2", "nvlink_one_sided", "nvlink_two_sided")

KV_BLOCK = 16
"""Tokens of a block of the KV cache, of a phase without an engine."""

HARDWARE: dict[str, Attribute] = {
    "gpus": _count("GPUs in the pool", high=1e6),
    "per_node": _count("GPUs in one node", 8, high=1e6),
    "per_host": _count("GPUs of one host, where it is not a node", None, high=1e6, otherwise="a node's"),
    "compute": Attribute("peak FLOP/s of one GPU, or a section by dtype", dim=FLOP_RATE, low=LEAST_RATE),
    "mfu": _share("share of the compute peak that kernels reach", 0.6),
    "memory": Attribute("memory of one GPU", dim=BYTES),
    "hbm": Attribute("memory bandwidth of one GPU", dim=BYTE_RATE, low=LEAST_RATE),
    "mbu": _share("share of the memory bandwidth that kernels reach", 0.8),
    "launch": Attribute("time to launch one kernel", dim=TIME, default=2e-6, open_low=False, high=1.0),
    "calibration": _word(
        'measured constants of its kernels, e.g. h100_sxm or "mine.json"', None, otherwise="none: mfu and mbu"
    ),
    "reserve": Attribute("memory the runtime keeps for itself", dim=BYTES, default=0.0, open_low=False),
    "price": Attribute(
        "money for one GPU over time, for costs",
        dim=MONEY_RATE,
        default=None,
        low=1e-12,
        high=1e6,
        otherwise="no costs",
    ),
    "power": Attribute(
        "what one GPU draws at most, for energies", dim=POWER, default=None, low=1e-3, high=1e6, otherwise="no energies"
    ),
    "host_memory": Attribute(
        "memory of one host, for what its GPUs keep there", dim=BYTES, default=None, otherwise="as much as is needed"
    ),
    "host_link": Attribute(
        "bytes per second between the memories of a GPU and of its host, per GPU and direction",
        dim=BYTE_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="50 GB/s: four fifths of PCIe 5 x16",
    ),
    "disk": Attribute(
        "bytes per second from the storage of one host",
        dim=BYTE_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="no times of loading from it",
    ),
    "vendor": _word("who makes its GPUs: some engines run on one's alone", "nvidia", "nvidia", "amd"),
    "kind": _word(
        "what its devices are: of a CPU each process is one, and no serving engine is told of it", "gpu", "gpu", "cpu"
    ),
}

_NO_UNITS = "the GPU has none, and refuses such weights"
_PEAK_OF = {"fp8": _NO_UNITS, "nvfp4": _NO_UNITS} | {
    one.name: f"that of `{one.unit}`" + (", else of `default`" if one.widened else "")
    for one in NAMED.values()
    if one.unit != one.name
}
COMPUTE: dict[str, Attribute] = {
    **{
        dtype: Attribute(
            f"peak FLOP/s in {dtype}",
            dim=FLOP_RATE,
            default=None,
            low=LEAST_RATE,
            otherwise=_PEAK_OF.get(dtype, "that of `default`"),
        )
        for dtype in DTYPES
    },
    "default": Attribute(
        "peak FLOP/s in all other dtypes",
        dim=FLOP_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="the larger of bf16 and fp16, else the largest",
    ),
}
"""Section `compute` of hardware, where peaks differ by dtype."""

LINK: dict[str, Attribute] = {
    "bandwidth": Attribute("bytes per second, per GPU and direction", dim=BYTE_RATE, low=LEAST_RATE),
    "latency": Attribute("latency of one message", dim=TIME, open_low=False, high=10.0),
    "gpus": _count("GPUs that it joins", None, high=1e6, otherwise="all"),
    "oversubscription": Attribute(
        "how much more its GPUs can send than what crosses it can carry", default=1.0, low=1.0, open_low=False, high=1e3
    ),
    "nics": _count(
        "NICs of a node, where its GPUs share them; bandwidth is then of one NIC",
        None,
        high=1e6,
        otherwise="one for each GPU",
    ),
}

POOL_LINK: dict[str, Attribute] = {
    "bandwidth": Attribute(
        "bytes per second from one pool to the other, per GPU and direction", dim=BYTE_RATE, low=LEAST_RATE
    ),
    "latency": LINK["latency"],
}
"""`link A to B`."""

MODEL: dict[str, Attribute] = {
    "layers": _count("transformer layers", None, high=1e5, otherwise="those of `stack`"),
    "hidden": _count("width of the residual stream", high=1e7),
    "vocab": _count("size of the vocabulary", high=1e9),
    "dtype": dtype_of("activations", "bf16"),
    "weight_dtype": dtype_of("weights", otherwise="dtype"),
    "kv_dtype": dtype_of("KV cache", otherwise="dtype"),
    "attention_dtype": dtype_of("math of prefill attention", otherwise="dtype"),
    "params": Attribute("parameters as stated; checked, never used", default=None, otherwise="nothing to check"),
    "dense_first": _count("leading layers with a dense feed-forward", 0, low=0, high=1e5),
    "norm_eps": Attribute("added to the mean square in norms", default=1e-6),
    "mtp_layers": _count(
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
    "kind": _word("block of the attention", "gqa"),
    "heads": _count("query heads", high=1e6),
    "kv_heads": _count("key and value heads", None, high=1e6, otherwise="heads"),
    "head_dim": _count("width of a head", None, high=1e6, otherwise="hidden / heads"),
    "scale": Attribute("factor of the scores in addition to 1 / sqrt(width)", default=1.0),
    "window": _count("tokens that a sliding window sees (0: all)", 0, low=0, high=1e9),
    "bias": Attribute("queries, keys and values have biases", "flag", default=False),
    "out_bias": Attribute("the output projection has a bias", "flag", default=False),
    "qk_norm": Attribute("queries and keys are normed, head by head", "flag", default=False),
    "clip": Attribute("bound of queries, keys and values (0: none)", default=0.0, open_low=False),
}

EXPERTS: dict[str, Attribute] = {
    "kind": _word("block of the expert layer", None, otherwise="moe, or moe_shared"),
    "count": _count("routed experts", high=65_536),
    "top_k": _count("experts per token", high=65_536),
    "hidden": _count("width of one expert", high=1e7),
    "shared": _count("shared experts", 0, low=0, high=1e4),
    "shared_hidden": _count("width of one shared expert", None, high=1e7, otherwise="hidden"),
    "score": _word("router score", "softmax", "softmax", "sigmoid"),
    "normalize": Attribute("the chosen weights sum to one", "flag", default=True),
    "groups": _count("expert groups of group-limited routing", 1, high=1e6),
    "groups_limit": _count("groups that a token may use", 1, high=1e6),
    "group_score": _word("strength of a group: its best expert or its two best", "best_two", "best", "best_two"),
    "bias": Attribute("a bias that shifts the choice and not the weights", "flag", default=False),
    "scale": Attribute("factor of the chosen weights", default=1.0),
    "capacity": Attribute(
        "tokens that an expert takes, over the mean; more are dropped (0: no bound)", default=0.0, open_low=False
    ),
}

ROPE: dict[str, Attribute] = {
    "theta": Attribute("base of the rotary frequencies", default=10_000.0, low=1.0),
    "fraction": _share("share of a head's width that is rotated, from its start", 1.0),
    "interleaved": Attribute("pairs are neighbours (else: halves)", "flag", default=False),
    "scaling": _word(
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
    "original": _count("context that the model was first trained on", 4096, high=1e9),
    "beta_fast": Attribute("yarn: rotations above which a frequency is kept", default=32.0),
    "beta_slow": Attribute("yarn: rotations below which a frequency is divided by the factor", default=1.0),
    "truncate": Attribute("yarn: the bounds between them are whole numbers", "flag", default=True),
    "low": Attribute("llama3: rotations below which a frequency is divided by the factor", default=1.0),
    "high": Attribute("llama3: rotations above which a frequency is kept", default=4.0),
    "magnitude": Attribute("factor of the rotated values", default=1.0),
}
"""What `rope(...)` in a block does; a keyword of the call takes precedence."""

MLP: dict[str, Attribute] = {
    "kind": _word("block of the dense feed-forward", "mlp"),
    "hidden": _count("width of the dense feed-forward", high=1e7),
}

WORKLOAD: dict[str, Attribute] = {
    "sequences": _count("sequences in the whole batch of a phase", high=1e9),
    "prompt": _count("prompt tokens per sequence", high=1e9, dim=TOKENS),
    "output": _count("generated tokens per sequence", 1, high=1e9, dim=TOKENS),
    "routing": Attribute("uniform, zipf(s), power_law(s), histogram(...) or loads(...)", "routing", default="uniform"),
}

ROUTINGS = {
    "uniform": "uniform", "zipf": "zipf(1.0)", "power_law": "power_law(1.0)", "histogram": 'histogram("FILE")',
    "loads": 'loads("FILE.csv")',
}  # fmt: skip
"""How tokens choose experts: word -> an example."""

PLACINGS = ("linear", "eplb", "balanced")
"""Ways to place experts on ranks."""

OPTIMIZERS = ("adamw", "sgd")

PHASE: dict[str, Attribute] = {
    "kind": _word("prefill, decode, mixed or train", None, *PHASE_KINDS, otherwise="the phase's name"),
    "hardware": _word("pool of GPUs that it runs on (needed where there are several)", None, otherwise="the only one"),
    "gpus": Attribute("GPU ids, e.g. 0..63", "counts"),
    "sequences": _count("sequences in this phase's batch", None, high=1e9, otherwise="the workload's"),
    "context": _count(
        "KV length a step attends to", None, high=1e9, dim=TOKENS, otherwise="prompt, in decode prompt + output"
    ),
    **{name: _count(f"degree of {name}", 1, high=axis.most) for name, axis in AXES.items()},
    "replicas": _count("independent copies of the whole phase", 1, high=1e6),
    "microbatches": _count("micro-batches of a pass", 1, high=1e6),
    "redundant": _count("spare copies of routed experts", 0, low=0, high=1e4),
    "expert_placement": _word(
        "which experts each rank has: as they are numbered, or by their loads",
        None,
        *PLACINGS,
        otherwise="linear, with spare copies eplb",
    ),
    "routing": Attribute("how tokens choose experts", "routing", default=None, otherwise="as in the workload"),
    "order": Attribute("axes, outermost first", "list", default=None, otherwise=", ".join(AXES)),
    "place": _word(
        "which GPU each rank is: as `order` deals them out, or where it costs least", "order", "order", "best"
    ),
    "layers_per_stage": Attribute(
        "layers of each stage, when uneven", "counts", default=None, otherwise="as `stages` cuts them"
    ),
    "stages": _word(
        "how layers are cut into stages: equally many each, or so that the busiest takes the least time",
        "even",
        "even",
        "balanced",
    ),
    "sequence_parallel": Attribute("split the residual sequence over tp", "flag", default=False),
    "sp_method": _word("how attention sees the whole context", "allgather", "allgather", "ring", "ulysses"),
    "dcp": _count(
        "decode: ranks of tp over which the KV cache is split by tokens (decode context parallel)", 1, high=1e6
    ),
    "sp_layout": _word("which tokens of a sequence an sp rank has", "contiguous", "contiguous", "zigzag"),
    "dispatch": _word("how tokens reach their experts", "all_to_all", "all_to_all", "allgather"),
    "exchange": _word(
        "whose kernels take tokens to their experts and back",
        None,
        *EXCHANGES,
        otherwise="those that the engine runs in such a phase",
    ),
    "weight_dtype": dtype_of("weights in this phase", otherwise="the model's"),
    "kv_dtype": dtype_of("KV cache in this phase", otherwise="the model's"),
    "attention_dtype": dtype_of("math of prefill attention in this phase", otherwise="the model's"),
    "dispatch_dtype": dtype_of("tokens on their way to experts", otherwise="dtype"),
    "quantise": _word(
        "activations of fp8 and fp4 GEMMs: in the op before, or by a kernel", "fused", "fused", "separate"
    ),
    "expert_activations": _word(
        "what kernels of MXFP4 experts multiply their weights with",
        None,
        "bf16",
        "mxfp8",
        otherwise="the engine's own choice",
    ),
    "engine": _word(
        "whose measured kernels set the times, and whose memory budget counts where it is named",
        "trtllm",
        "trtllm",
        "vllm",
        "sglang",
    ),
    "window_cache": _word("the KV cache of layers with a window or chunk", "freed", "freed", "whole"),
    "memory_fraction": Attribute(
        "share of a GPU that the engine fills (gpu_memory_utilization, mem-fraction-static)",
        default=None,
        low=0.01,
        high=1.0,
        open_low=False,
        otherwise="the engine's, else 100%",
    ),
    "kv_block": _count(
        "tokens of one block of the KV cache", None, high=1024, dim=TOKENS, otherwise=f"the engine's, else {KV_BLOCK}"
    ),
    "prefix": _count("tokens of a prompt that are in the cache already", 0, low=0, high=1e9, dim=TOKENS),
    "chunk": _count("tokens of a prompt per pass", None, high=1e9, dim=TOKENS, otherwise="all"),
    "lengths": Attribute(
        'prefill: tokens of each prompt: a list, or fixed, uniform(50%, 150%), lognormal(1), histogram("F.csv"), trace("F.csv")',
        "form",
        default=None,
        otherwise="all as the workload's",
    ),
    "packing": _word(
        "prefill: prompts of several lengths fill their rows up to the longest, or share rows of tokens",
        "packed",
        "padded",
        "packed",
    ),
    "chunk_by": _word(
        "prefill: chunks of equally many tokens, or of equally much work, later ones shorter",
        "tokens",
        "tokens",
        "work",
    ),
    "chunk_overlap": _word(
        "prefill: whether a chunk enters a stage when the one before has left it, or when that has left all",
        "none",
        "none",
        "full",
    ),
    "draft": _count(
        "tokens that a decode step checks in addition to its own (speculative decoding)", 0, low=0, high=1e3
    ),
    "acceptance": Attribute(
        "chance that a drafted token is accepted where those before it were; a list: of each position, and in it of each candidate",
        "shares",
        default=0.8,
        high=1.0,
        open_low=False,
    ),
    "tree": Attribute(
        "candidates behind each drafted token, by depth: all are checked, one path is kept",
        "counts",
        default=None,
        otherwise="a chain of `draft` tokens",
    ),
    "exit": Attribute(
        "decode: shares of the sequences that have their token behind a layer: [at(layers = 12, share = 10%), ...]",
        "form",
        default=None,
        otherwise="all go through all layers",
    ),
    "drafter": _word(
        "what drafts these tokens: the model's MTP layers, another model, or what costs nothing",
        "none",
        "none",
        "mtp",
        "model",
    ),
    "draft_model": Attribute(
        'another model that drafts these tokens: a preset, or "FILE/config.json"',
        "text",
        default=None,
        otherwise="none",
    ),
    "host": Attribute("host overhead of one pass", dim=TIME, default=0.0, open_low=False, high=100.0),
    "launch": Attribute(
        "host time to launch a layer in a step that no CUDA graph covers",
        dim=TIME,
        default=None,
        open_low=False,
        high=1.0,
        otherwise="the engine's, if `engine` is said",
    ),
    "decode": _count("mixed: sequences in decode", 0, low=0, high=1e9),
    "prompt_tokens": _count(
        "mixed: prompt tokens in the step, over all prompts",
        None,
        low=0,
        high=1e9,
        dim=TOKENS,
        otherwise="the sum of `prompts`",
    ),
    "prompts": Attribute(
        "mixed: tokens of each prompt in the step",
        "counts",
        dim=TOKENS,
        default=None,
        otherwise="whole prompts of the workload, and what is left",
    ),
    "prefixes": Attribute(
        "mixed: cached tokens before those of each prompt", "counts", dim=TOKENS, default=None, otherwise="`prefix`"
    ),
    "cuda_graph": Attribute("kernels are launched as one graph", "flag", default=True),
    "schedule": _word("train: order of forward and backward passes on the stages", "one_f_one_b", *SCHEDULES),
    "virtual": _count("train: chunks of layers on each GPU", None, high=1e4, otherwise="as the schedule needs"),
    "recompute": Attribute(
        "train: blocks, kinds of op or ops done anew before their gradients; full: all",
        "list",
        default=None,
        otherwise="none",
    ),
    "matmul_dtype": _word(
        "train: what products of layers compute in, forward and backward; of 8 or 4 bits their operands are quantised",
        None,
        *WHOLE,
        *RECIPES,
        otherwise="the model's `weight_dtype`",
    ),
    "fp8_scaling": _word(
        "train: whose largest number scales a tensor of `matmul_dtype = fp8`: its own now, or the largest of steps before",
        "current",
        "current",
        "delayed",
    ),
    "quantised_weights": Attribute(
        "train: weights of products are stored and gathered as their `matmul_dtype`; false: beside them in 16 bits",
        "flag",
        default=False,
    ),
    "optimizer": _word("train: what makes new weights", "adamw", *OPTIMIZERS),
    "zero": _count(
        "train: 1 shares out the optimizer's states among data-parallel ranks, 2 gradients too, 3 weights too",
        0,
        low=0,
        high=3,
    ),
    "gradient_dtype": _word("train: sums of gradients", "fp32", "fp32", "bf16"),
    "master_dtype": _word("train: the optimizer's own copy of the weights", "fp32", "fp32", "bf16", "none"),
    "moment_dtype": _word("train: the optimizer's moments", "fp32", "fp32", "bf16", "fp8"),
    "grad_overlap": _word(
        "train: whether gradients are reduced, and weights gathered, while other layers compute", "none", "none", "full"
    ),
    "exchange_overlap": _word(
        "train: whether tokens travel to experts while another micro-batch computes", "none", "none", "full"
    ),
    "mtp_loss": Attribute(
        "train: what the mean loss of the model's MTP layers counts; 0: they are not trained",
        default=0.0,
        low=0.0,
        high=1e3,
        open_low=False,
    ),
    "reshard_after_forward": Attribute(
        "train, zero = 3: gathered weights are freed behind each forward pass; false: kept for the gradients",
        "flag",
        default=True,
    ),
    "aux_loss": Attribute(
        "train: what the loss counts that evens out the choices of each router; 0: there is none",
        default=0.0,
        low=0.0,
        high=1e3,
        open_low=False,
    ),
    "aux_loss_over": _word(
        "train: the tokens over which shares of experts are taken: of each data-parallel rank, each sequence, or a whole micro-batch",
        "rank",
        "rank",
        "sequence",
        "micro_batch",
    ),
    "z_loss": Attribute(
        "train: what the loss counts that keeps scores of routers small; 0: there is none",
        default=0.0,
        low=0.0,
        high=1e3,
        open_low=False,
    ),
    "offload": Attribute(
        "train: share of what layers keep for their gradients that waits in host memory, copied while the next layer computes",
        default=0.0,
        low=0.0,
        high=1.0,
        open_low=False,
    ),
    "dropout": Attribute(
        "train: share of what layers add to the residual stream, and of the embedding's rows, that is put to nothing at random",
        default=0.0,
        low=0.0,
        high=0.99,
        open_low=False,
    ),
    "fuse": Attribute(
        "blocks whose ops run as one kernel each between exchanges; full: all of a layer do; none: each op is a kernel of its own",
        "list",
        default=None,
        otherwise="as the engine's kernels do",
    ),
    "passes": Attribute("graph passes of installed plugins, in order", "list", default=None, otherwise="none"),
    "overlap": _word("overlap of compute and communication", "none", "none", "two_batch"),
    "strategy": _word(
        "any: degrees and methods that the phase does not give are left to `dagc search`",
        None,
        "any",
        otherwise="as written",
    ),
}

ANY = "any"
"""The word that leaves an attribute to a search."""
STRATEGY = (STAGES, "replicas", "microbatches", "sequence_parallel", "sp_method", "dcp", "dispatch", "overlap")
"""What `strategy = any` leaves open, and attention's and experts' degrees."""
OPEN = (
    "hardware", "weight_dtype", "kv_dtype", "attention_dtype", "gpus", "sequences", *AXES, "replicas", "microbatches", "stages", "redundant", "expert_placement", "sequence_parallel", "sp_method",
    "sp_layout", "dcp", "dispatch", "exchange", "dispatch_dtype", "chunk", "draft", "decode", "prompt_tokens", "overlap",
    "schedule", "virtual", "recompute", "zero", "grad_overlap", "exchange_overlap", "matmul_dtype", "quantised_weights",
)  # fmt: skip
"""Attributes of a phase that may be left open; the others are not for a search to choose."""
OPEN_IN_SERVINGS = (
    "batch_tokens",
    "chunk",
    "slots",
    "workers",
    "prefill_workers",
    "prompts",
    "policy",
    "route",
    "admit",
    "balance",
    "gather",
)
"""Those of a serving."""

BESIDE: dict[str, Attribute] = {
    "tokens": _count(
        "tokens of the largest batch that the engine keeps room for",
        None,
        low=0,
        high=1e9,
        dim=TOKENS,
        otherwise="the engine's, else 0",
    ),
    "sequences": _count(
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
    "keep": _count(
        "tokens of each sequence that stay in the cache; others are evicted between passes",
        None,
        high=1e9,
        dim=TOKENS,
        otherwise="all",
    ),
    "sinks": _count("of these, the first of the sequence (attention sinks)", 0, low=0, high=1e9, dim=TOKENS),
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

MOST_REQUESTS = 1e8
"""Of one serving: their results are kept in columns."""
_RATE = Attribute("requests per second, on average", dim=REQUEST_RATE, low=1e-6, high=1e6, open_low=False)
_FILE = Attribute("a file", "text")

ARRIVALS: dict[str, dict[str, Attribute]] = {
    "poisson": {"rate": _RATE},
    "constant": {"rate": _RATE},
    "gamma": {"rate": _RATE, "cv": Attribute("standard deviation of the gaps over their mean", low=0.01, high=100.0)},
    "closed": {
        "clients": _count("clients, of which each waits for its answer", high=1e6, dim=REQUESTS),
        "think": Attribute("from an answer to the client's next request", dim=TIME, default=0.0, open_low=False, high=1e6),
    },
    "burst": {},
    "trace": {
        "file": _FILE, "speed": Attribute("times its own rate", default=1.0, low=1e-6, high=1e6, open_low=False),
    },
}  # fmt: skip
"""When requests come: word -> its arguments, in order."""
LENGTHS: dict[str, dict[str, Attribute]] = {
    "fixed": {},
    "uniform": {
        "low": Attribute("least share of the mean", low=0.0, high=100.0), "high": Attribute("largest share of it", low=0.0, high=100.0),
    },
    "lognormal": {"cv": Attribute("standard deviation over the mean", low=0.0, high=100.0)},
    "histogram": {"file": _FILE},
    "trace": {},
}  # fmt: skip
"""Lengths of prompts and outputs: word -> its arguments, in order."""
BATCH_LENGTHS: dict[str, dict[str, Attribute]] = {**LENGTHS, "trace": {"file": _FILE}}
"""Those of the prompts of one batch."""
EXIT: dict[str, dict[str, Attribute]] = {
    "at": {
        "layers": _count("layers that they go through", high=1e5),
        "share": Attribute("of all sequences of the batch", low=0.0, high=1.0, open_low=False),
    },
}
"""An early exit: its word and arguments."""

SERVE: dict[str, Attribute] = {
    "prefill": _word("phase of passes over prompts", None, otherwise="the only one of this kind"),
    "decode": _word("phase of steps that generate", None, otherwise="the only one of this kind"),
    "mixed": _word("phase of steps of both", None, otherwise="the only one of this kind"),
    "arrivals": Attribute("when requests come: poisson(12 req/s), closed(64), trace(\"F.csv\"), ...", "form"),
    "lengths": Attribute("of prompts and outputs", "form", default=None, otherwise="fixed, or those of the trace"),
    "prompt": _count("mean tokens of a prompt", None, high=1e9, dim=TOKENS, otherwise="the workload's"),
    "output": _count("mean generated tokens", None, high=1e9, dim=TOKENS, otherwise="the workload's"),
    "requests": _count("requests that come at most", None, high=MOST_REQUESTS, dim=REQUESTS, otherwise="no bound but `duration` and the trace"),
    "duration": Attribute("until when requests come", dim=TIME, default=None, high=1e8, otherwise="no bound but `requests`"),
    "seed": _count("of everything random", 0, low=0, high=2**53),
    "policy": _word("which waiting request is next", "fcfs", "fcfs", "priority", "shortest"),
    "prompts": _word("prompts in decode steps, or in steps of their own", None, "mixed", "first", otherwise="the engine's"),
    "batch_tokens": _count("tokens of a step at most", None, high=1e9, dim=TOKENS, otherwise="the engine's"),
    "chunk": _count("tokens of one prompt in a step at most", None, high=1e9, dim=TOKENS, otherwise="the engine's"),
    "slots": _count("sequences of a rank at once", None, high=1e6, otherwise="the engine's"),
    "kv_block": _count("tokens of one block of the KV cache", None, high=1024, dim=TOKENS, otherwise="the phase's"),
    "kv_tokens": _count("tokens of KV cache of a rank", None, high=1e12, dim=TOKENS, otherwise="what its memory has room for"),
    "admit": _word(
        "a request enters when its prompt has room, or prompt and whole output", None, "prompt", "whole", otherwise="the engine's"),
    "preempt": _word("what a preempted request does with its cache", "recompute", "recompute", "swap"),
    "prefix_cache": Attribute("cached blocks of earlier prompts are used again", "flag", default=False),
    "prefix": _count("leading tokens that all prompts share", 0, low=0, high=1e9, dim=TOKENS),
    "queue": _count("requests that wait at most; more are turned away", None, high=MOST_REQUESTS, dim=REQUESTS, otherwise="all wait"),
    "route": _word("which rank takes a request", "round_robin", "round_robin", "least", "prefix"),
    "balance": _count("steps in which prompts may wait until every attention-DP rank has one", 0, low=0, high=1e6),
    "gather": _count("steps in which they then wait for more prompts", 0, low=0, high=1e6),
    "workers": _count("workers that decode, or do both", 1, high=65_536),
    "prefill_workers": _count("workers of a prefill on GPUs of its own", 1, high=65_536),
    "roles": _word("whether workers change between prefill and decode", "fixed", "fixed", "switch"),
    "switch": Attribute("time of such a change", dim=TIME, default=None, open_low=False, high=1e6, otherwise="what moves then takes"),
    "weights": _word("what GPUs store of phases that take turns: the weights of both, or of one, and the others are moved", "both", "both", "moved"),
    "hand_over": _word("when a prefill worker sends a cache on", "whole", "whole", "chunk"),
    "host": Attribute("host time of a step", dim=TIME, default=None, open_low=False, high=100.0, otherwise="as measured for the engine"),
    "launch": Attribute(
        "host time of a layer of a step that no CUDA graph covers", dim=TIME, default=None,
        open_low=False, high=1.0, otherwise="as measured for the engine"),
    "request": Attribute(
        "time of a request before its first token, beside the GPUs", dim=TIME, default=None,
        open_low=False, high=100.0, otherwise="as measured for the engine"),
}  # fmt: skip

FOLD_ATTENTION = {a: _count(f"degree of {a} in attention", 1, high=1e6) for a in ATTENTION_SIDE}
FOLD_EXPERTS = {a: _count(f"degree of {a} in the experts", 1, high=1e6) for a in IN_EXPERTS}
EXPERT_CACHES = ("lru", "frequency")
MOST_SKIPPED = 0.99
"""Of the choices of experts: something is left to compute."""
ATTENTION_USE = {
    "kernel": _word(
        "flash: scores stay on the chip; unfused: three kernels, which write scores and read them",
        "flash",
        *ATTENTION_KERNELS,
    ),
}
"""Of a phase's section `attention`, beside the degrees."""
EXPERT_GPUS = {
    "hardware": _word("pool of these GPUs", None, otherwise="the phase's"),
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
    "resident": _count(
        "experts of a layer that its GPUs hold, all together; the others are in host memory",
        None,
        high=65_536,
        otherwise="all",
    ),
    "cache": _word("which of them: those used last, or always the most popular", "lru", *EXPERT_CACHES),
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
    "window": _count("steps that the loads of one step of the file are of", 1, high=1e9),
    "every": _count("steps between two placements of the experts, each by the loads of the period before", high=1e9),
}
"""Section `rebalance` of a phase."""

HOMES: dict[str, dict[str, Attribute]] = {
    "the hardware": HARDWARE, "a link": LINK, "the model": MODEL, "the model's attention": ATTENTION, "the model's experts": EXPERTS,
    "the model's rope": ROPE, "the model's mlp": MLP, "the workload": WORKLOAD, "the phase": PHASE,
    "the serve section": SERVE,
}  # fmt: skip
"""Where each attribute belongs."""
LISTS = {name for schema in HOMES.values() for name, attribute in schema.items() if attribute.kind == "list"}
"""Attributes that are lists of names."""
