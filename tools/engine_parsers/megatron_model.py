"""Sizes of a plan's model as Megatron's arguments, which its launch scripts leave to the user."""

from __future__ import annotations

from dagc.spec.model import Model

LATENT = {"kv-lora-rank": "kv_latent", "q-lora-rank": "q_latent", "qk-head-dim": "nope_dim", "qk-pos-emb-head-dim": "rope_dim",
          "v-head-dim": "v_dim"}  # fmt: skip


def arguments(model: Model, prompt: int) -> list[str]:
    """Those that its checks of degrees ask for."""
    layers, heads = sum(layer.repeat for layer in model.stack[1:-1]), model.count("attention.heads")
    told: dict[str, object] = {
        "num-layers": layers,
        "hidden-size": model.count("hidden"),
        "num-attention-heads": heads,
        "seq-length": prompt,
        "max-position-embeddings": prompt,
        "micro-batch-size": 1,
        "tokenizer-type": "NullTokenizer",
        "vocab-size": model.count("vocab"),
    }
    switches = ["swiglu", "disable-bias-linear", "untie-embeddings-and-output-weights", "no-masked-softmax-fusion"]
    if model.count("mlp.hidden", 0):
        told["ffn-hidden-size"] = model.count("mlp.hidden")
    if model.count("attention.kv_latent", 0):
        switches.append("multi-latent-attention")
        told |= {
            name: model.count(f"attention.{key}") for name, key in LATENT.items() if model.count(f"attention.{key}", 0)
        }
    elif model.count("attention.kv_heads", heads) < heads:
        switches.append("group-query-attention")
        told["num-query-groups"] = model.count("attention.kv_heads")
    if experts := model.count("experts.count", 0):
        dense = model.count("dense_first", 0)
        told["num-experts"] = experts
        told["moe-router-topk"] = model.count("experts.top_k")
        told["moe-ffn-hidden-size"] = model.count("experts.hidden")
        told["moe-layer-freq"] = f"([0]*{dense}+[1]*{layers - dense})"
    return [*(f"--{name}={value}" for name, value in told.items()), *(f"--{name}" for name in switches)]
