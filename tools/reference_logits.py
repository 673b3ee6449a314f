"""Makes reference cases: a tiny random model of an architecture, run by Hugging Face transformers in float64.

Needs torch and transformers (not needed by dagc or its tests). For each case a folder with `config.json`, `weights.npz`
and `reference.npz` (input_ids, logits, decode_logits). Usage: python tools/reference_logits.py OUT [case ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = {
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GQA = COMMON | {"num_key_value_heads": 2, "head_dim": 4}
MLA = COMMON | {
    "num_key_value_heads": 4, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 3,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20,
    "first_k_dense_replace": 1,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 1.0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FACTORS = {"embedding_multiplier": 1.5, "residual_multiplier": 0.7, "attention_multiplier": 0.3, "logits_scaling": 2.0}
ROUTED = {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "n_shared_experts": 1,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip
HYBRID = GQA | {
    "num_hidden_layers": 4, "partial_rotary_factor": 0.5, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 4,
    "linear_value_head_dim": 3, "linear_conv_kernel_dim": 3, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 12,
}  # fmt: skip
# With few heads every score of a token may be rectified to nothing: equal scores leave the choice open.
INDEXER = {"q_lora_rank": 8, "n_shared_experts": 1, "index_topk": 4, "index_n_heads": 4, "index_head_dim": 8}
FALCON = {
    "num_hidden_layers": 2, "intermediate_size": 20, "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_d_ssm": 12, "mamba_d_conv": 3,
    "ssm_multipliers": [0.5, 1.5, 0.75, 1.25, 2.0], "mlp_multipliers": [0.5, 1.5], "key_multiplier": 0.75, "attention_in_multiplier": 1.25,
    "attention_out_multiplier": 0.5, "ssm_in_multiplier": 1.5, "ssm_out_multiplier": 0.25, "lm_head_multiplier": 0.5, "embedding_multiplier": 3.0,
}  # fmt: skip
OLMO_HYBRID = {
    "num_hidden_layers": 3, "num_key_value_heads": 2, "intermediate_size": 20, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 4, "linear_value_head_dim": 3, "linear_conv_kernel_dim": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "pad_token_id": None, "eos_token_id": None,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "mixtral": ("mixtral", GQA | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 12, "sliding_window": 5}),
    "llama": ("llama", GQA | {"intermediate_size": 20, "rope_parameters": LLAMA3}),
    "llama_bias_tied": ("llama", GQA | {"intermediate_size": 20, "attention_bias": True, "tie_word_embeddings": True}),
    "mistral": ("mistral", GQA | {"intermediate_size": 20, "sliding_window": 4}),
    "qwen2": ("qwen2", GQA | {"intermediate_size": 20}),
    "qwen3": ("qwen3", GQA | {"intermediate_size": 20}),
    "qwen3_moe_dense_first": (
        "qwen3_moe",
        GQA | {"num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "mlp_only_layers": [0], "decoder_sparse_step": 2},
    ),
    "olmoe": ("olmoe", COMMON | {"num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 8, "clip_qkv": 0.8}),
    "deepseek_v2": ("deepseek_v2", MLA | {"q_lora_rank": 8, "n_shared_experts": 2, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.0}),
    "deepseek_v2_lite": ("deepseek_v2", MLA | {"q_lora_rank": None, "n_shared_experts": 1, "topk_method": "greedy"}),
    "deepseek_v3_yarn": ("deepseek_v3", MLA | {"q_lora_rank": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "rope_parameters": YARN}),
    "glm4_moe": (
        "glm4_moe",
        GQA | {"attention_bias": True, "use_qk_norm": True, "partial_rotary_factor": 0.5, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 8, "intermediate_size": 20, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.5},
    ),
    "minimax_m2": ("minimax_m2", GQA | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 8, "rotary_dim": 2}),
    "llama4": (
        "llama4_text",
        GQA | {"num_hidden_layers": 4, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size": 8, "intermediate_size_mlp": 20, "interleave_moe_layer_step": 2, "attention_chunk_size": 5, "use_qk_norm": True, "floor_scale": 4, "attn_scale": 0.3},
    ),
    "dbrx": (
        "dbrx",
        {"d_model": 16, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": 48, "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.8, "rope_theta": 10000.0}, "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 4, "moe_top_k": 2, "moe_normalize_expert_weights": 1.0}},
    ),
    "phimoe": ("phimoe", GQA | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 8, "attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.01, "sliding_window": None}),
    "gpt_oss_yarn": (
        "gpt_oss",
        GQA | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 8, "sliding_window": 4, "rope_parameters": {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 16}},
    ),
    "qwen3_next": ("qwen3_next", HYBRID | {"intermediate_size": 20, "mlp_only_layers": [1], "full_attention_interval": 2}),
    "qwen3_5_moe": ("qwen3_5_moe_text", HYBRID | {"layer_types": ["linear_attention", "full_attention", "linear_attention"], "num_hidden_layers": 3}),
    "deepseek_v32": ("deepseek_v32", MLA | INDEXER | {"n_group": 4, "topk_group": 2}),
    "glm_moe_dsa": ("glm_moe_dsa", MLA | INDEXER | {"index_n_heads": 8, "n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-5}),
    "llama3_bounds": ("llama", GQA | {"intermediate_size": 20, "head_dim": 8, "rope_parameters": LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 3.0}}),
    "llama_linear": ("llama", GQA | {"intermediate_size": 20, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}}),
    "gpt_oss_bounds": (
        "gpt_oss",
        GQA | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 8, "sliding_window": 4, "head_dim": 16, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1500.0, "factor": 8.0, "beta_fast": 4.0, "beta_slow": 0.5, "truncate": False, "original_max_position_embeddings": 32}},
    ),
    "phimoe_jitter": ("phimoe", GQA | {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 8, "attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.4, "sliding_window": None}),
    "qwen3_5": ("qwen3_5_text", HYBRID | {"intermediate_size": 20, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "num_hidden_layers": 3}),
    "dots1": ("dots1", GQA | ROUTED | {"first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": True}),
    "solar_open": ("solar_open", GQA | ROUTED),
    "glm4_moe_lite": ("glm4_moe_lite", MLA | {"q_lora_rank": 8, "n_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"]}),
    "ernie4_5": ("ernie4_5", GQA | {"intermediate_size": 20}),
    "ernie4_5_moe": ("ernie4_5_moe", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "moe_intermediate_size": 8, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 2}),
    "olmo2": ("olmo2", GQA | {"intermediate_size": 20}),
    "olmo3": ("olmo3", GQA | {"intermediate_size": 20, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}}),
    "flex_olmo": ("flex_olmo", GQA | {"pad_token_id": None, "intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}),
    "exaone4": ("exaone4", GQA | {"intermediate_size": 20, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    "exaone_moe": ("exaone_moe", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "num_shared_experts": 1}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", GQA | {"intermediate_size": 20, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0, "alpha": 50.0}}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", GQA | {"intermediate_size": 8, "num_experts": 8, "moe_topk": [2, 2], "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0, "alpha": 50.0}}),
    "granite": ("granite", GQA | {"intermediate_size": 20, **FACTORS}),
    "granitemoe": ("granitemoe", GQA | {"intermediate_size": 8, "num_local_experts": 4, "num_experts_per_tok": 2, **FACTORS}),
    "granitemoeshared": ("granitemoeshared", GQA | {"intermediate_size": 8, "shared_intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2, **FACTORS}),
    "afmoe": ("afmoe", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "moe_intermediate_size": 8, "num_dense_layers": 1, "num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1, "route_scale": 1.5, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "mup_enabled": True}),
    "mimo_v2_flash": (
        "mimo_v2_flash",
        GQA | {"num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 8, "v_head_dim": 4, "intermediate_size": 20, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_group": 1, "topk_group": 1, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"],
               "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}},
    ),
    "nemotron_h": (
        "nemotron_h",
        GQA | {"num_hidden_layers": 4, "layers_block_type": ["mamba", "moe", "attention", "mlp"], "intermediate_size": 20, "ssm_state_size": 4, "mamba_num_heads": 4, "mamba_head_dim": 3, "n_groups": 2, "conv_kernel": 3, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "moe_shared_expert_intermediate_size": 12, "routed_scaling_factor": 2.5},
    ),
    "nemotron_h_latent": (
        "nemotron_h",
        GQA | {"num_hidden_layers": 3, "layers_block_type": ["mamba", "moe", "attention"], "intermediate_size": 20, "ssm_state_size": 4, "mamba_num_heads": 4, "mamba_head_dim": 3, "n_groups": 2, "conv_kernel": 3, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "moe_shared_expert_intermediate_size": 12, "moe_latent_size": 6},
    ),
    "kimi_linear": (
        "kimi_linear",
        COMMON | {"num_hidden_layers": 3, "num_key_value_heads": 4, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 3, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "n_shared_experts": 1, "linear_head_dim": 4, "linear_num_heads": 2, "linear_conv_kernel_dim": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"], "pad_token_id": None},
    ),
    "gemma3": ("gemma3_text", GQA | {"intermediate_size": 20, "sliding_window": 4, "query_pre_attn_scalar": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "ministral3": ("ministral3", GQA | {"intermediate_size": 20, "rope_parameters": YARN | {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 4}}),
    "mistral4": ("mistral4", MLA | {"q_lora_rank": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "rope_parameters": YARN | {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 4}}),
    "jamba": ("jamba", GQA | {"num_hidden_layers": 4, "intermediate_size": 12, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 3, "expert_layer_offset": 2, "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 4, "mamba_d_conv": 3, "mamba_expand": 2, "mamba_dt_rank": 3}),
    "granitemoehybrid": (
        "granitemoehybrid",
        GQA | {"num_hidden_layers": 3, "intermediate_size": 8, "shared_intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_d_head": 8, "mamba_d_conv": 3, "position_embedding_type": "rope", **FACTORS},
    ),
    "gemma4": ("gemma4_text", GQA | {"intermediate_size": 20, "sliding_window": 4, "head_dim": 4, "global_head_dim": 8, "num_global_key_value_heads": 1, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0, "layer_types": ["sliding_attention", "full_attention"], "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8, "final_logit_softcapping": 1.5}),
    "gemma4_dense": ("gemma4_text", GQA | {"intermediate_size": 20, "sliding_window": 4, "head_dim": 4, "global_head_dim": 8, "hidden_size_per_layer_input": 0, "layer_types": ["sliding_attention", "full_attention"]}),
    # Models without an architecture in the library: these have a `model.moe` with them.
    "gemma2": ("gemma2", GQA | {"intermediate_size": 20, "query_pre_attn_scalar": 6, "sliding_window": 4, "attn_logit_softcapping": None, "final_logit_softcapping": 1.5}),
    "gpt_neox": ("gpt_neox", COMMON | {"intermediate_size": 20, "rotary_pct": 0.5, "hidden_act": "gelu", "attention_bias": True, "use_parallel_residual": True}),
    "nemotron": ("nemotron", GQA | {"intermediate_size": 20, "partial_rotary_factor": 0.5, "hidden_act": "relu2"}),
    # Behind these, so that what is above keeps its numbers.
    "glm_moe_dsa_shared": ("glm_moe_dsa", MLA | INDEXER | {"num_hidden_layers": 4, "first_k_dense_replace": 2, "index_n_heads": 8, "n_group": 1, "topk_group": 1, "indexer_types": ["full", "shared", "shared", "full"], "rms_norm_eps": 1e-5}),
    "lfm2": ("lfm2", GQA | {"num_hidden_layers": 3, "block_ff_dim": 20, "intermediate_size": 20, "block_multiple_of": 4, "block_ffn_dim_multiplier": 1.2, "conv_bias": True, "layer_types": ["conv", "full_attention", "conv"], "head_dim": 4}),
    "lfm2_moe": ("lfm2_moe", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "moe_intermediate_size": 8, "num_experts": 8, "num_experts_per_tok": 2, "num_dense_layers": 1, "routed_scaling_factor": 1.5, "layer_types": ["conv", "full_attention", "conv"], "head_dim": 4}),
    "hy_v3": ("hy_v3", GQA | {"intermediate_size": 20, "moe_intermediate_size": 8, "num_experts": 8, "num_experts_per_tok": 2}),
    "cohere": ("cohere", GQA | {"intermediate_size": 20, "use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2": ("cohere2", GQA | {"num_hidden_layers": 2, "intermediate_size": 20, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "logit_scale": 0.3}),
    "cohere2_moe": ("cohere2_moe", GQA | {"num_hidden_layers": 3, "intermediate_size": 8, "prefix_dense_intermediate_size": 20, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"], "logit_scale": 0.3, "num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}),
    "sarvam_moe": ("sarvam_moe", GQA | {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 8, "intermediate_size": 20, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}),
    "sarvam_mla": ("sarvam_mla", MLA | {"q_lora_rank": None, "n_shared_experts": 1, "rope_parameters": YARN}),
    "axk1": ("axk1", MLA | {"q_lora_rank": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "mlp_layer_types": ["dense", "sparse"]}),
    "mellum": (
        "mellum",
        GQA | {"intermediate_size": 20, "num_hidden_layers": 3, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"],
               "rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 500000.0, "factor": 8.0, "original_max_position_embeddings": 16}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "seed_oss": ("seed_oss", GQA | {"intermediate_size": 20}),
    "smollm3": ("smollm3", GQA | {"intermediate_size": 20, "no_rope_layers": [1, 0], "pad_token_id": None}),
    "phi3": ("phi3", GQA | {"intermediate_size": 20, "sliding_window": 5, "pad_token_id": None}),
    "ministral": ("ministral", GQA | {"intermediate_size": 20, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    "laguna": (
        "laguna",
        GQA | {"intermediate_size": 20, "num_hidden_layers": 3, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention"], "num_attention_heads_per_layer": [4, 6, 4], "moe_routed_scaling_factor": 2.5, "moe_router_logit_softcapping": 1.5,
               "rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 500000.0, "partial_rotary_factor": 0.5, "factor": 8.0, "original_max_position_embeddings": 16}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}}},
    ),
    "step3p5": (
        "step3p5",
        GQA | {"intermediate_size": 20, "num_hidden_layers": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "share_expert_dim": 12, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "num_sliding_attention_heads": 6, "moe_router_scaling_factor": 2.5, "swiglu_limits": [None, None, 0.4, None], "swiglu_limits_shared": [None, None, 0.3, None], "query_pre_attn_scalar": None,
                "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", GQA | {"tie_word_embeddings": False, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}}),
    "qwen3_omni_moe": ("qwen3_omni_moe_text", GQA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}}),
    "bailing_hybrid": (
        "bailing_hybrid",
        COMMON | {"num_hidden_layers": 3, "num_key_value_heads": 4, "head_dim": 4, "q_lora_rank": 8, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 3, "num_local_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "short_conv_kernel_size": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"], "pad_token_id": None},
    ),
    "minimax_m3": (
        "minimax_m3_vl_text",
        GQA | {"num_hidden_layers": 3, "intermediate_size": 8, "dense_intermediate_size": 20, "shared_intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, "swiglu_limit": 0.6, "index_n_heads": 2, "index_head_dim": 6, "index_block_size": 3, "index_topk_blocks": 2, "index_local_blocks": 1, "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"], "mlp_layer_types": ["dense", "sparse", "sparse"]},
    ),
    "granite_swa": ("granite_swa", GQA | {"intermediate_size": 20, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"], "layer_rope_theta": [0, 5000.0], **FACTORS}),
    "granitemoe_swa": ("granitemoe_swa", GQA | {"intermediate_size": 8, "shared_intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "layer_rope_theta": [10000.0, 500.0], **FACTORS}),
    "youtu": ("youtu", COMMON | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 3, "intermediate_size": 20}),
    "glm4": ("glm4", GQA | {"intermediate_size": 20, "pad_token_id": None}),
    "arcee": ("arcee", GQA | {"intermediate_size": 20}),
    "muse_spark": ("muse_spark_text", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "moe_intermediate_size": 8, "moe_hidden_size": 6, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "mlp_layer_types": ["dense", "sparse", "sparse"], "layer_rope_theta": [500000.0, 0, 500000.0], "output_multiplier": 0.7, "final_logit_softcapping": 1.5, "pad_token_id": None, "routed_scaling_factor": 1.5}),
    "axk2": ("axk2", MLA | INDEXER | {"index_n_heads": 8, "gated_norm_rank": 3, "n_group": 4, "topk_group": 2, "mlp_layer_types": ["dense", "sparse"]}),
    "dots3_note": (
        "dots3_note_text",
        MLA | INDEXER | {"num_hidden_layers": 3, "index_n_heads": 8, "n_group": 1, "topk_group": 1, "sliding_window": 4, "layer_types": ["indexed_attention", "sliding_attention", "indexed_attention"], "shared_experts_intermediate_size": 12, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_q_lora_rank": 6, "swa_kv_lora_rank": 4, "swa_head_dim": 10, "swa_qk_nope_head_dim": 6, "swa_v_head_dim": 5, "pad_token_id": None},
    ),
    "lfm3": ("lfm3", GQA | {"pad_token_id": None, "num_hidden_layers": 3, "intermediate_size": 20, "conv_L_cache": 3, "sliding_window": 4, "layer_types": ["conv", "sliding_attention", "full_attention"]}),
    "longcat_flash": ("longcat_flash", COMMON | {"head_dim": 4, "num_layers": 2, "num_hidden_layers": 4, "q_lora_rank": 8, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 3, "ffn_hidden_size": 20, "expert_ffn_hidden_size": 8, "n_routed_experts": 8, "moe_topk": 3, "zero_expert_num": 4, "routed_scaling_factor": 1.5}),
    "bamba": ("bamba", GQA | {"num_hidden_layers": 3, "intermediate_size": 20, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_d_head": 8, "mamba_d_conv": 3, "attention_bias": True}),
    "falcon_h1": ("falcon_h1", GQA | FALCON),
    "falcon_h1_normed": ("falcon_h1", GQA | FALCON | {"num_hidden_layers": 2, "mamba_rms_norm": True, "mamba_norm_before_gate": False}),
    "olmo_hybrid": ("olmo_hybrid", COMMON | OLMO_HYBRID | {"rope_parameters": None}),
    "olmo_hybrid_rotated": ("olmo_hybrid", COMMON | OLMO_HYBRID | {"linear_allow_neg_eigval": False, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "apertus": ("apertus", GQA | {"intermediate_size": 20}),
    "kolibri1": ("kolibri1", GQA | {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma2_capped": ("gemma2", GQA | {"intermediate_size": 20, "query_pre_attn_scalar": 6, "sliding_window": 4, "attn_logit_softcapping": 0.8, "final_logit_softcapping": 1.5}),
    "gemma4_per_layer": ("gemma4_text", GQA | {"num_hidden_layers": 6, "intermediate_size": 12, "sliding_window": 4, "head_dim": 4, "global_head_dim": 8, "hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 48, "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"], "final_logit_softcapping": 1.5}),
    "glm5_next": (
        "glm5_next_text",
        COMMON | {"num_hidden_layers": 3, "num_key_value_heads": 4, "kv_lora_rank": 6, "q_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 0, "v_head_dim": 3, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 20, "n_shared_experts": 1, "linear_head_dim": 4, "linear_num_heads": 2, "linear_conv_kernel_dim": 3, "layer_types": ["linear_attention"] * 3, "mlp_layer_types": ["dense", "sparse", "sparse"], "swiglu_limit": 0.6, "hc_mult": 3, "hc_sinkhorn_iters": 2, "hc_eps": 0.01, "pad_token_id": None},
    ),
    "minimax": ("minimax", GQA | {"num_hidden_layers": 3, "intermediate_size": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 4, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_attn_alpha_factor": 1.5, "linear_attn_beta_factor": 0.5, "full_attn_alpha_factor": 1.25, "full_attn_beta_factor": 0.75, "mlp_alpha_factor": 2.0, "mlp_beta_factor": 0.5}),
    "deepseek_v4_attention": (
        "deepseek_v4",
        {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8, "max_position_embeddings": 64, "q_lora_rank": 6, "partial_rotary_factor": 0.5, "sliding_window": 4, "o_groups": 2, "o_lora_rank": 5, "index_n_heads": 8, "index_head_dim": 6, "index_topk": 2, "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 4}, "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention", "compressed_sparse_attention"], "hc_mult": 1, "moe_intermediate_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0}},
    ),
    "hy_v4": (
        "hy_v4",
        MLA | INDEXER | {"num_hidden_layers": 4, "index_n_heads": 16, "n_group": 1, "topk_group": 1, "mlp_layer_types": ["dense", "sparse", "sparse", "dense"], "indexer_types": ["full", "shared", "full", "shared"], "hc_mult": 3, "hc_magnitude": 1.5, "hc_eps": 0.01, "swiglu_limit": 0.6, "pad_token_id": None, "rope_parameters": YARN},
    ),
    "deepseek_v4": (
        "deepseek_v4",
        {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8, "max_position_embeddings": 64, "q_lora_rank": 6, "partial_rotary_factor": 0.5, "sliding_window": 4, "o_groups": 2, "o_lora_rank": 5, "index_n_heads": 8, "index_head_dim": 6, "index_topk": 2, "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 4}, "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention", "compressed_sparse_attention"], "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"], "hc_mult": 3, "hc_sinkhorn_iters": 2, "hc_eps": 0.01, "swiglu_limit": 0.6, "moe_intermediate_size": 8, "n_routed_experts": 8, "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0}},
    ),
    "phi3_longrope": ("phi3", GQA | {"intermediate_size": 20, "head_dim": 4, "pad_token_id": None, "original_max_position_embeddings": 8, "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.25, 3.5], "short_factor": [1.0, 1.5]}}),
    "mistral_large4": (
        "mistral_large4_text",
        {k: v for k, v in (MLA | INDEXER).items() if k != "q_lora_rank"} | {"num_hidden_layers": 6, "index_n_heads": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "no_rope_layers": [1, 0, 1, 0, 1, 0], "kv_source_layers": [0, 1, 0, 1, 4, 5], "indexer_types": ["full", "full", "full", "shared", "shared", "full"], "final_logit_softcapping": 1.5, "pad_token_id": None, "rope_parameters": YARN | {"attention_factor": 1.0, "mscale_all_dim": 0.0}},
    ),
    "cwm": ("cwm", GQA | {"intermediate_size": 20, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"], "rope_parameters": LLAMA3}),
    "hyperclovax": ("hyperclovax", GQA | {"intermediate_size": 20, "attention_bias": True, **FACTORS}),
    "jais2": ("jais2", GQA | {"intermediate_size": 20}),
    "internlm3": ("internlm3", GQA | {"intermediate_size": 20}),
    "iquestcoder": ("iquestcoder", GQA | {"intermediate_size": 20}),
    "exaone": ("exaone", GQA | {"intermediate_size": 20}),
}  # fmt: skip

OF_CHECKPOINTS = ("_bias", "layer_scalar", ".tid2eid")
"""Ends of the names of buffers that checkpoints have."""
CONSTANT = ("slope_rate",)
"""Those of them that a layer's place makes; they are rounded, so that files of float32 have them exactly."""
OF_TEXT = {
    "mistral_large4_text": ("mistral_large4", "MistralLarge4TextModel", "MistralLarge4TextConfig"),
    "glm5_next_text": ("glm5_next", "Glm5NextTextModel", "Glm5NextTextConfig"),
    "dots3_note_text": ("dots3_note", "Dots3NoteTextModel", "Dots3NoteTextConfig"),
    "muse_spark_text": ("muse_spark", "MuseSparkTextModel", "MuseSparkTextConfig"),
    "qwen3_omni_moe_text": ("qwen3_omni_moe", "Qwen3OmniMoeThinkerTextModel", "Qwen3OmniMoeTextConfig"),
    "qwen3_vl_moe_text": ("qwen3_vl_moe", "Qwen3VLMoeTextModel", "Qwen3VLMoeTextConfig"),
    "step3p5": ("step3p7", "Step3p7TextModel", "Step3p7TextConfig"),
}
"""Models for text alone that have no class with a head: module, model, config."""
NOT_COUNTED = ("bamba", "minimax")
"""Models that do not count the tokens of a cache: they are told where the next one is."""
WITHOUT_ATTENTION = ("glm5_next_text",)
"""Cases whose layers all have states: the library asks a cache of keys how many tokens it has seen."""
NOT_AUTOMATIC = {"mistral4": "Mistral4ForCausalLM"}
"""Classes that the library does not find by their config."""


def in_float64() -> None:
    """The library casts norms, rotary angles and softmax to float32: here they stay in float64."""
    torch.set_default_dtype(torch.float64)

    def widened(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: object, **kwargs: object) -> torch.Tensor:
            swap = lambda v: torch.float64 if v is torch.float32 else v  # noqa: E731
            return function(*map(swap, args), **{k: swap(v) for k, v in kwargs.items()})

        return call

    plain_to = torch.Tensor.to
    torch.Tensor.to, torch.Tensor.float = widened(plain_to), lambda self: plain_to(self, torch.float64)
    torch.Tensor.type, torch.Tensor.softmax = widened(torch.Tensor.type), widened(torch.Tensor.softmax)
    torch.arange, F.softmax = widened(torch.arange), widened(F.softmax)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Values at which every part of the model matters, exactly representable in float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n.endswith(OF_CHECKPOINTS))]
    for name, tensor in ((n, t) for n, t in tensors if t.is_floating_point()):
        values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.ndim == 1 and "bias" not in name and "sink" not in name:
            values = 1.0 + 0.2 * values
        else:
            values = values * (0.2 if tensor.ndim == 1 else tensor.shape[-1] ** -0.5)
        tensor.data.copy_(values.to(torch.float16).double())
    for name, table in model.named_buffers():
        if name.endswith(".tid2eid"):  # experts by token: different ones
            count = int(model.config.n_routed_experts)
            rows = [torch.randperm(count, generator=generator)[: table.shape[1]] for _ in table]
            table.copy_(torch.stack(rows))


def settle(model: torch.nn.Module) -> None:
    """Constants that are rounded, and what modules have made of them."""
    for module in model.modules():
        for name in CONSTANT:
            if name in module._buffers:
                rounded = module._buffers[name].to(torch.float16).double()
                module._buffers[name] = rounded
                module.query_decay, module.key_decay, module.diagonal_decay = module.decay_factors(rounded)


def config_of(kind: str, fields: dict[str, object]) -> transformers.PreTrainedConfig:
    if kind in OF_TEXT:
        module, _, name = OF_TEXT[kind]
        return getattr(getattr(transformers.models, module), name)(**fields)
    return AutoConfig.for_model(kind, **fields)


def text_model_of(config: transformers.PreTrainedConfig) -> torch.nn.Module:
    module, name, _ = OF_TEXT[config.model_type]
    return getattr(getattr(transformers.models, module), name)(config)


class OfText(torch.nn.Module):
    """The part for text of a model of several kinds of input, with a head: the library has no such model by itself."""

    def __init__(self, config: transformers.PreTrainedConfig) -> None:
        super().__init__()
        self.model = text_model_of(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if getattr(config, "tie_word_embeddings", False):
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, **given: object) -> SimpleNamespace:
        out = self.model(**given)
        logits = self.lm_head(out.last_hidden_state) * getattr(self.model.config, "output_multiplier", 1.0)
        if bound := getattr(self.model.config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / bound) * bound
        return SimpleNamespace(logits=logits, past_key_values=out.past_key_values)


class AttentionLayer(torch.nn.Module):
    """A layer of DeepSeek V4 without its experts, between one residual stream as other models have it."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = layer.input_layernorm, layer.self_attn

    def forward(self, hidden: torch.Tensor, **given: object) -> torch.Tensor:
        return hidden + self.self_attn(self.input_layernorm(hidden.squeeze(2)), **given)[0].unsqueeze(2)


class OneStream(torch.nn.Module):
    """In the place of what makes one of several streams."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.squeeze(2)


def attention_alone(model: torch.nn.Module) -> torch.nn.Module:
    """Of DeepSeek V4 embedding, attention and head."""
    model.model.layers = torch.nn.ModuleList(map(AttentionLayer, model.model.layers))
    model.model.hc_head = OneStream()
    return model


def made_of(kind: str, config: transformers.PreTrainedConfig) -> torch.nn.Module:
    if kind in OF_TEXT:
        return OfText(config)
    if kind in NOT_AUTOMATIC:
        return getattr(transformers, NOT_AUTOMATIC[kind])(config)
    return AutoModelForCausalLM.from_config(config)


def at(kind: str, first: int, end: int) -> dict[str, object]:
    """Where tokens are, and that all are seen, for models that do not find it themselves."""
    places = {"position_ids": torch.arange(first, end).expand(2, -1)}
    if kind in WITHOUT_ATTENTION:
        return {**places, "attention_mask": {"linear_attention": torch.ones(2, end - first, dtype=torch.bool)}}
    return places if kind in NOT_COUNTED and first else {}


def make(name: str, out: Path, seed: int) -> None:
    kind, fields = CASES[name]
    config = config_of(kind, fields)
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(seed)
    model = made_of(kind, config)
    model = (attention_alone(model) if name == "deepseek_v4_attention" else model).double().eval()
    randomise(model, seed)
    settle(model)
    ids = torch.tensor(np.random.default_rng(seed).integers(0, 48, (2, 13)))
    with torch.no_grad():
        logits = model(input_ids=ids, **at(kind, 0, 13)).logits
        before, behind = (at(kind, first, end) for first, end in ((0, 12), (12, 13)))
        cache = model(input_ids=ids[:, :-1], use_cache=True, **before).past_key_values
        decode = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True, **behind).logits
    apart = float((decode - logits[:, -1:]).abs().max())
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = (*OF_CHECKPOINTS, *CONSTANT)
    tensors = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n.endswith(kept)}
    np.savez_compressed(
        folder / "weights.npz", **{n: t.detach().numpy().astype(np.float32) for n, t in tensors.items()}
    )
    np.savez_compressed(
        folder / "reference.npz", input_ids=ids.numpy(), logits=logits.numpy(), decode_logits=decode.numpy()
    )
    text = json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str)
    (folder / "config.json").write_text(text + "\n")
    print(f"{name}: {sum(t.numel() for t in tensors.values())} values, decode against prefill {apart:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    args = parser.parse_args()
    in_float64()
    for seed, name in enumerate(CASES):
        if name in args.cases:
            make(name, args.out, seed)


if __name__ == "__main__":
    main()
