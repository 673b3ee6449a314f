"""What `phase` takes, and which of it may be left open."""

from __future__ import annotations

from ..axes import AXES, STAGES
from ..low_precision import RECIPES, WHOLE
from ..phase_kinds import PHASE_KINDS
from ..pipeline_schedules import SCHEDULES
from ..units import TIME, TOKENS
from .attribute import Attribute, count_of, dtype_of, word_of

EXCHANGES = ("deepep_ht", "deepep_ll", "deepep_v2", "nvlink_one_sided", "nvlink_two_sided")

KV_BLOCK = 16
"""Tokens of a block of the KV cache, of a phase without an engine."""

PLACINGS = ("linear", "eplb", "balanced")
"""Ways to place experts on ranks."""

OPTIMIZERS = ("adamw", "sgd")

PHASE: dict[str, Attribute] = {
    "kind": word_of("prefill, decode, mixed or train", None, *PHASE_KINDS, otherwise="the phase's name"),
    "hardware": word_of(
        "pool of GPUs that it runs on (needed where there are several)", None, otherwise="the only one"
    ),
    "gpus": Attribute("GPU ids, e.g. 0..63", "counts"),
    "sequences": count_of("sequences in this phase's batch", None, high=1e9, otherwise="the workload's"),
    "context": count_of(
        "KV length a step attends to", None, high=1e9, dim=TOKENS, otherwise="prompt, in decode prompt + output"
    ),
    **{name: count_of(f"degree of {name}", 1, high=axis.most) for name, axis in AXES.items()},
    "replicas": count_of("independent copies of the whole phase", 1, high=1e6),
    "microbatches": count_of("micro-batches of a pass", 1, high=1e6),
    "redundant": count_of("spare copies of routed experts", 0, low=0, high=1e4),
    "expert_placement": word_of(
        "which experts each rank has: as they are numbered, or by their loads",
        None,
        *PLACINGS,
        otherwise="linear, with spare copies eplb",
    ),
    "routing": Attribute("how tokens choose experts", "routing", default=None, otherwise="as in the workload"),
    "order": Attribute("axes, outermost first", "list", default=None, otherwise=", ".join(AXES)),
    "place": word_of(
        "which GPU each rank is: as `order` deals them out, or where it costs least", "order", "order", "best"
    ),
    "layers_per_stage": Attribute(
        "layers of each stage, when uneven", "counts", default=None, otherwise="as `stages` cuts them"
    ),
    "stages": word_of(
        "how layers are cut into stages: equally many each, or so that the busiest takes the least time",
        "even",
        "even",
        "balanced",
    ),
    "sequence_parallel": Attribute("split the residual sequence over tp", "flag", default=False),
    "sp_method": word_of("how attention sees the whole context", "allgather", "allgather", "ring", "ulysses"),
    "dcp": count_of(
        "decode: ranks of tp over which the KV cache is split by tokens (decode context parallel)", 1, high=1e6
    ),
    "sp_layout": word_of("which tokens of a sequence an sp rank has", "contiguous", "contiguous", "zigzag"),
    "dispatch": word_of("how tokens reach their experts", "all_to_all", "all_to_all", "allgather"),
    "exchange": word_of(
        "whose kernels take tokens to their experts and back",
        None,
        *EXCHANGES,
        otherwise="those that the engine runs in such a phase",
    ),
    "weight_dtype": dtype_of("weights in this phase", otherwise="the model's"),
    "kv_dtype": dtype_of("KV cache in this phase", otherwise="the model's"),
    "attention_dtype": dtype_of("math of prefill attention in this phase", otherwise="the model's"),
    "dispatch_dtype": dtype_of("tokens on their way to experts", otherwise="dtype"),
    "quantise": word_of(
        "activations of fp8 and fp4 GEMMs: in the op before, or by a kernel", "fused", "fused", "separate"
    ),
    "expert_activations": word_of(
        "what kernels of MXFP4 experts multiply their weights with",
        None,
        "bf16",
        "mxfp8",
        otherwise="the engine's own choice",
    ),
    "engine": word_of(
        "whose measured kernels set the times, and whose memory budget counts where it is named",
        "trtllm",
        "trtllm",
        "vllm",
        "sglang",
    ),
    "window_cache": word_of("the KV cache of layers with a window or chunk", "freed", "freed", "whole"),
    "memory_fraction": Attribute(
        "share of a GPU that the engine fills (gpu_memory_utilization, mem-fraction-static)",
        default=None,
        low=0.01,
        high=1.0,
        open_low=False,
        otherwise="the engine's, else 100%",
    ),
    "kv_block": count_of(
        "tokens of one block of the KV cache", None, high=1024, dim=TOKENS, otherwise=f"the engine's, else {KV_BLOCK}"
    ),
    "prefix": count_of("tokens of a prompt that are in the cache already", 0, low=0, high=1e9, dim=TOKENS),
    "chunk": count_of("tokens of a prompt per pass", None, high=1e9, dim=TOKENS, otherwise="all"),
    "lengths": Attribute(
        'prefill: tokens of each prompt: a list, or fixed, uniform(50%, 150%), lognormal(1), histogram("F.csv"), trace("F.csv")',
        "form",
        default=None,
        otherwise="all as the workload's",
    ),
    "packing": word_of(
        "prefill: prompts of several lengths fill their rows up to the longest, or share rows of tokens",
        "packed",
        "padded",
        "packed",
    ),
    "chunk_by": word_of(
        "prefill: chunks of equally many tokens, or of equally much work, later ones shorter",
        "tokens",
        "tokens",
        "work",
    ),
    "chunk_overlap": word_of(
        "prefill: whether a chunk enters a stage when the one before has left it, or when that has left all",
        "none",
        "none",
        "full",
    ),
    "draft": count_of(
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
    "drafter": word_of(
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
    "decode": count_of("mixed: sequences in decode", 0, low=0, high=1e9),
    "prompt_tokens": count_of(
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
    "schedule": word_of("train: order of forward and backward passes on the stages", "one_f_one_b", *SCHEDULES),
    "virtual": count_of("train: chunks of layers on each GPU", None, high=1e4, otherwise="as the schedule needs"),
    "recompute": Attribute(
        "train: blocks, kinds of op or ops done anew before their gradients; full: all",
        "list",
        default=None,
        otherwise="none",
    ),
    "matmul_dtype": word_of(
        "train: what products of layers compute in, forward and backward; of 8 or 4 bits their operands are quantised",
        None,
        *WHOLE,
        *RECIPES,
        otherwise="the model's `weight_dtype`",
    ),
    "fp8_scaling": word_of(
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
    "optimizer": word_of("train: what makes new weights", "adamw", *OPTIMIZERS),
    "zero": count_of(
        "train: 1 shares out the optimizer's states among data-parallel ranks, 2 gradients too, 3 weights too",
        0,
        low=0,
        high=3,
    ),
    "gradient_dtype": word_of("train: sums of gradients", "fp32", "fp32", "bf16"),
    "master_dtype": word_of("train: the optimizer's own copy of the weights", "fp32", "fp32", "bf16", "none"),
    "moment_dtype": word_of("train: the optimizer's moments", "fp32", "fp32", "bf16", "fp8"),
    "grad_overlap": word_of(
        "train: whether gradients are reduced, and weights gathered, while other layers compute", "none", "none", "full"
    ),
    "exchange_overlap": word_of(
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
    "aux_loss_over": word_of(
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
    "overlap": word_of("overlap of compute and communication", "none", "none", "two_batch"),
    "strategy": word_of(
        "any: degrees and methods that the phase does not give are left to `dagc search`",
        None,
        "any",
        otherwise="as written",
    ),
}

STRATEGY = (STAGES, "replicas", "microbatches", "sequence_parallel", "sp_method", "dcp", "dispatch", "overlap")
"""What `strategy = any` leaves open, and attention's and experts' degrees."""

OPEN = (
    "hardware", "weight_dtype", "kv_dtype", "attention_dtype", "gpus", "sequences", *AXES, "replicas", "microbatches", "stages", "redundant", "expert_placement", "sequence_parallel", "sp_method",
    "sp_layout", "dcp", "dispatch", "exchange", "dispatch_dtype", "chunk", "draft", "decode", "prompt_tokens", "overlap",
    "schedule", "virtual", "recompute", "zero", "grad_overlap", "exchange_overlap", "matmul_dtype", "quantised_weights",
)  # fmt: skip
"""Attributes of a phase that may be left open; the others are not for a search to choose."""
