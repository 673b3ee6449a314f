"""Names that configs, papers and serving engines have for what the language calls otherwise."""

from __future__ import annotations

from .axes import AXES

SYNONYMS: dict[str, str] = {
    # Degrees, as vLLM, SGLang, TensorRT-LLM and Megatron call them.
    **{f"{word}{tail}": axis for word, axis in (
        ("tensor_parallel", "tp"), ("data_parallel", "dp"), ("expert_parallel", "ep"), ("pipeline_parallel", "pp"),
        ("context_parallel", "sp"), ("sequence_parallel_degree", "sp"), ("tensor_model_parallel", "tp"),
        ("pipeline_model_parallel", "pp"), ("expert_model_parallel", "ep"),
    ) for tail in ("", "_size", "_degree")},
    **{f"{axis}_size": axis for axis in AXES},
    "cp": "sp", "cp_size": "sp", "num_replicas": "replicas", "num_microbatches": "microbatches", "micro_batches": "microbatches",
    "gpu_memory_utilization": "memory_fraction", "mem_fraction_static": "memory_fraction", "max_num_batched_tokens": "chunk",
    **dict.fromkeys(("chunked_prefill_size", "chunked_prefill", "enable_chunked_prefill", "chunk_size", "prefill_chunk"), "chunk"),
    **dict.fromkeys(("speculative", "speculative_tokens", "num_speculative_tokens", "draft_tokens", "speculative_num_steps"), "draft"),
    **dict.fromkeys(("quantization", "quantisation", "quant", "weights_dtype"), "weight_dtype"),
    "pipeline": "pp", "stages": "pp", "etp": "tp", "num_redundant_experts": "redundant", "expert_placement_strategy": "expert_placement", "eplb": "expert_placement", "devices": "gpus", "gpu_ids": "gpus",
    # The batch.
    "batch": "sequences", "batch_size": "sequences", "max_num_seqs": "sequences", "concurrency": "sequences", "requests": "sequences",
    "max_batch": "sequences", "max_batch_size": "sequences", "seq_len": "prompt", "seqlen": "prompt", "sequence_length": "prompt",
    "isl": "prompt", "input": "prompt", "input_len": "prompt", "input_length": "prompt", "prompt_len": "prompt", "prompt_tokens": "prompt",
    "osl": "output", "output_len": "output", "output_length": "output", "max_tokens": "output", "output_tokens": "output",
    # The model, as a config.json calls it.
    "num_layers": "layers", "num_hidden_layers": "layers", "n_layers": "layers", "hidden_size": "hidden", "d_model": "hidden",
    "vocab_size": "vocab", "num_attention_heads": "heads", "num_heads": "heads", "n_heads": "heads", "num_key_value_heads": "kv_heads",
    "n_kv_heads": "kv_heads", "num_experts": "count", "n_routed_experts": "count", "num_local_experts": "count",
    "num_experts_per_tok": "top_k", "moe_intermediate_size": "hidden", "intermediate_size": "hidden", "ffn": "hidden",
    "n_shared_experts": "shared", "num_shared_experts": "shared", "first_k_dense_replace": "dense_first", "rope_theta": "theta",
    "sliding_window": "window", "tie_word_embeddings": "tied", "kv_cache_dtype": "kv_dtype", "torch_dtype": "dtype",
    "moe": "experts", "self_attention": "attention", "attn": "attention", "self_attn": "attention", "feed_forward": "mlp", "ffn_hidden": "hidden",
    # The machine.
    "gpu": "hardware", "machine": "hardware", "cluster": "hardware", "server": "hardware", "pool": "hardware",
    "vram": "memory", "hbm_capacity": "memory", "memory_bandwidth": "hbm", "mem_bw": "hbm", "flops": "compute", "peak_flops": "compute",
    "gpus_per_node": "per_node", "cost": "price", "hourly": "price", "price_per_hour": "price", "tdp": "power", "watts": "power", "num_gpus": "gpus", "gpu_count": "gpus", "bw": "bandwidth",
    # Switches.
    "yes": "true", "on": "true", "enabled": "true", "no": "false", "off": "false", "disabled": "false",
    # Dtypes.
    "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32", "double": "fp64", "float64": "fp64",
    "float8": "fp8", "fp8_e4m3": "fp8", "e4m3": "fp8", "float8_e4m3fn": "fp8", "w4a16": "int4",
}  # fmt: skip
"""What is written elsewhere -> what it is called here."""

IN_SERVINGS: dict[str, tuple[str, ...]] = {
    # The scheduler, as engines call it.
    **dict.fromkeys(("max_num_seqs", "max_batch_size", "max_running_requests", "batch", "batch_size", "max_sequences"), ("slots",)),
    **dict.fromkeys(("max_num_batched_tokens", "max_num_tokens", "max_prefill_tokens", "token_budget"), ("batch_tokens",)),
    **dict.fromkeys(("scheduling_policy", "schedule_policy", "scheduler"), ("policy",)),
    **dict.fromkeys(("block_size", "page_size", "tokens_per_block"), ("kv_block",)),
    **dict.fromkeys(("enable_prefix_caching", "prefix_caching", "radix_cache"), ("prefix_cache",)),
    **dict.fromkeys(("max_total_tokens", "kv_cache_tokens", "num_kv_tokens"), ("kv_tokens",)),
    **dict.fromkeys(("enable_balance", "timeout_iters", "attention_dp_config"), ("balance",)), "batching_wait_iters": ("gather",),
    # The load, as benchmarks call it.
    **dict.fromkeys(("rate", "request_rate", "qps", "rps", "traffic"), ("arrivals", "poisson")),
    **dict.fromkeys(("concurrency", "max_concurrency", "clients", "users"), ("arrivals", "closed")),
    **dict.fromkeys(("num_prompts", "num_requests", "count"), ("requests",)),
    **dict.fromkeys(("exponential", "markov"), ("poisson",)), **dict.fromkeys(("fixed", "uniform", "regular"), ("constant",)),
    **dict.fromkeys(("inf", "all", "saturated", "batch_mode", "offline"), ("burst",)), "file": ("trace",), "csv": ("trace",),
    "normal": ("lognormal",), "time": ("duration",), "replicas": ("workers",), "router": ("route",), "routing": ("route",),
    "fifo": ("fcfs",), "sjf": ("shortest",), "least_loaded": ("least",), "random": ("round_robin",), "cache_aware": ("prefix",),
}  # fmt: skip
"""The same in a `serve` section, whose words differ: the first that its place takes."""

IN_TRAINING: dict[str, tuple[str, ...]] = {
    # Schedules, as papers and trainers call them.
    **dict.fromkeys(("1f1b", "pipedream", "pipedream_flush", "dapple", "non_interleaved"), ("one_f_one_b",)),
    **dict.fromkeys(("1f1b_interleaved", "interleaved_1f1b", "vpp", "virtual_pipeline", "looped"), ("interleaved",)),
    **dict.fromkeys(("afab", "fill_drain", "all_forward_all_backward"), ("gpipe",)),
    **dict.fromkeys(("zb", "zb1p", "zero_bubble", "zerobubble", "h1"), ("zb_h1",)), **dict.fromkeys(("zb2p", "h2"), ("zb_h2",)),
    # What makes new weights, and what is shared out.
    **dict.fromkeys(("adam", "fused_adam", "distributed", "distributed_optimizer"), ("adamw",)), "momentum": ("sgd",),
    **dict.fromkeys(("optim", "optimiser"), ("optimizer",)),
    **dict.fromkeys(("fsdp", "zero_stage", "sharding", "data_parallel_sharding_strategy", "use_distributed_optimizer"), ("zero",)),
    **dict.fromkeys(("grad_dtype", "main_grads_dtype", "grad_reduce_in_fp32"), ("gradient_dtype",)),
    **dict.fromkeys(("main_params_dtype", "params_dtype"), ("master_dtype",)), **dict.fromkeys(("exp_avg_dtype", "adam_dtype"), ("moment_dtype",)),
    **dict.fromkeys(("overlap_grad_reduce", "overlap_param_gather", "overlap_grad"), ("grad_overlap",)),
    **dict.fromkeys(("overlap_moe_expert_parallel_comm", "ep_overlap", "moe_overlap"), ("exchange_overlap",)),
    # What products compute in: recipes and formats of Transformer Engine, Megatron-LM, Megatron-Bridge and torchao.
    **dict.fromkeys(("fp8_format", "fp8_recipe", "fp4_format", "fp4_recipe", "mixed_precision", "compute_dtype", "precision", "float8"), ("matmul_dtype",)),
    **dict.fromkeys(("fp8_param_gather", "fp4_param_gather", "fp8_param", "fp8_primary_weights", "enable_fsdp_float8_all_gather"), ("quantised_weights",)),
    **dict.fromkeys(("tensorwise", "current", "current_scaling", "delayed", "delayed_scaling", "hybrid", "fp8_cs", "fp8_ds"), ("fp8",)),
    **dict.fromkeys(("blockwise", "subchannel", "sub_channel", "fp8_sc", "float8blockscaling"), ("fp8_block",)),
    **dict.fromkeys(("fp8_mx", "mx", "mxfp8blockscaling"), ("mxfp8",)), **dict.fromkeys(("fp4", "e2m1", "nvfp4blockscaling"), ("nvfp4",)),
    # The order of work, what is done anew, and losses.
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accumulation", "accumulation", "ga", "num_micro_batches"), ("microbatches",)),
    **dict.fromkeys(("vp", "virtual_stages", "virtual_pipeline_model_parallel_size", "chunks_per_stage"), ("virtual",)),
    **dict.fromkeys(("activation_checkpointing", "gradient_checkpointing", "checkpointing", "recompute_granularity", "recompute_modules", "remat"), ("recompute",)),
    **dict.fromkeys(("moe_aux_loss_coeff", "load_balancing_loss", "router_aux_loss_coef"), ("aux_loss",)), "moe_z_loss_coeff": ("z_loss",),
    "mtp_loss_scaling_factor": ("mtp_loss",), **dict.fromkeys(("batch", "global", "global_batch"), ("micro_batch",)),
}  # fmt: skip
"""The same in a phase that trains."""

AS_NUMBERS: dict[str, dict[str, int]] = {
    "zero": {
        **dict.fromkeys(("none", "ddp", "off", "false", "no_shard"), 0),
        **dict.fromkeys(("true", "on", "os", "optim", "optimizer", "distributed", "distributed_optimizer", "stage1", "zero1"), 1),
        **dict.fromkeys(("optim_grads", "shard_grad_op", "os_g", "stage2", "zero2"), 2),
        **dict.fromkeys(("fsdp", "fsdp2", "full", "full_shard", "hybrid_shard", "optim_grads_params", "os_p_g", "p_os_g", "stage3", "zero3"), 3),
    },
}  # fmt: skip
"""Words where the language has a number: attribute -> word -> what it is here."""

IN_LAYERS: dict[str, str] = {
    **dict.fromkeys(("attention", "attn", "self_attention", "self_attn"), "attend"),
    **dict.fromkeys(("moe", "experts", "expert", "moe_layer"), "dispatch"), **dict.fromkeys(("mlp", "ffn", "feed_forward"), "silu"),
}  # fmt: skip
"""Parts of a layer, and a kind of op that such a block has."""

OF_METRICS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpu_utilization", "gpu_util", "busy"), ("utilization",)),
    **dict.fromkeys(("load_balance", "load_variance", "balance", "balancedness", "load_imbalance"), ("imbalance", "gpu_imbalance")),
    **dict.fromkeys(("gpu_balance", "gpu_load", "gpu_load_balance"), ("gpu_imbalance",)),
    **dict.fromkeys(("memory_utilization", "memory_usage", "mem_util", "memory.utilization", "memory.usage"), ("memory.fraction",)),
    **dict.fromkeys(("kv_cache_usage", "kv_cache_usage_perc", "kv_usage", "token_usage", "kv_utilization"), ("kv_fill",)),
    **dict.fromkeys(("time_to_first_token", "first_token"), ("ttft.p99", "ttft")),
    **dict.fromkeys(("time_per_output_token", "token_latency"), ("tpot.p99", "tpot")),
    **dict.fromkeys(("inter_token_latency",), ("itl.p99",)), **dict.fromkeys(("latency", "e2el", "request_latency"), ("e2e.p99", "tpot", "ttft")),
    **dict.fromkeys(("tokens_per_second", "output_throughput", "tps"), ("throughput",)), **dict.fromkeys(("qps", "rps", "request_throughput"), ("rate",)),
    **dict.fromkeys(("waiting", "queue_length", "num_requests_waiting"), ("queue",)), "num_requests_running": ("running",),
    **dict.fromkeys(("cost", "price_per_token", "cost_per_million", "cost_per_mtok"), ("cost_per_token",)),
    **dict.fromkeys(("cache_hit_rate", "prefix_cache_hit_rate"), ("hit_rate",)),
}  # fmt: skip
"""Metrics, as those who watch servings call them: the first that its owner has."""
