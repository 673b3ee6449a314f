"""Counts the parameters of transformers' own defaults: what its class of each architecture says without a checkpoint, on the meta device.

Needs torch and transformers (not needed by dagc or its tests). Writes `tests/data/config_defaults.json`: model_type -> the config's fields and
the number of parameters, a table that embedding and head share counted once, and rows that it never reads not. Usage: python tools/config_defaults.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from reference_logits import config_of, made_of

from dagc.lang import library

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "config_defaults.json"
OF_THE_PROGRAM = (
    "transformers_version",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "problem_type",
    "architectures",
    "_name_or_path",
)
"""Fields that say nothing of the model."""
GIVEN: dict[str, dict[str, object]] = {
    "dots1": {"n_shared_experts": 2, "n_routed_experts": 128, "num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "gemma4_text": {
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "attention_k_eq_v": True,
    },
    "glm4_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "qwen3_omni_moe_text": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 64, "moe_topk": 8},
}
"""What a class leaves to the checkpoint, as its documentation has it."""
UNREAD = {"longcat_flash": (".experts.gate_up_proj", "zero_expert_num")}
"""Tensors of a class whose last rows no forward reads, as many as a field says: those of experts that compute nothing."""


def counted(kind: str) -> dict[str, object]:
    """Raises ValueError where the release has no such class, or no model of text for it."""
    config = config_of(kind, GIVEN.get(kind, {}))
    with torch.device("meta"):
        model = made_of(kind, config)
    end, rows = UNREAD.get(kind, ("", ""))
    unread = sum(one[0].numel() for name, one in model.named_parameters() if end and name.endswith(end))
    sizes = {id(one): one.numel() for one in model.parameters()}
    fields = json.loads(config.to_json_string(use_diff=False))
    return {
        "config": {k: v for k, v in fields.items() if k not in OF_THE_PROGRAM and v is not None},
        "parameters": sum(sizes.values()) - unread * getattr(config, rows, 0),
    }


def main() -> None:
    found, absent = {}, {}
    for kind in library.architectures():
        try:
            found[kind] = counted(kind)
        except (
            ValueError,
            KeyError,
            AttributeError,
            TypeError,
        ) as error:  # the last two: a class that cannot make a model of its own defaults
            absent[kind] = str(error).splitlines()[0]
    OUT.write_text(
        json.dumps({"transformers": transformers.__version__, "models": found}, indent=1, sort_keys=True) + "\n"
    )
    for kind, why in absent.items():
        print(f"{kind}: {why[:120]}")


if __name__ == "__main__":
    main()
