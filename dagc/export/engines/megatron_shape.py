"""The shape of a plan's model as Megatron-LM's arguments; what it computes otherwise is refused."""

from __future__ import annotations

from itertools import groupby
from math import isclose, log, sqrt

from ...base.units import Quantity
from ...spec.model import Model
from .draft import ServerDraft

ATTENTION, FEED_FORWARD, SPARSE = ("gqa", "mla"), ("mlp", "moe", "moe_shared"), ("moe", "moe_shared")
"""Blocks that Megatron's GPT has, those of experts last."""
LLAMA3 = {"rope.low": 1.0, "rope.high": 4.0, "rope.original": 8192.0}
"""What `--use-rope-scaling` takes for granted (rotary_pos_embedding.py: _apply_scaling)."""
YARN = {"rope.beta_fast": 32.0, "rope.beta_slow": 1.0, "rope.original": 4096.0, "rope.magnitude": 1.0}
"""What latent attention takes for granted (transformer_config.py: MLATransformerConfig), and mscale over mscale_all_dim."""


def number(model: Model, name: str, default: float = 0.0) -> float:
    value = model.attributes.get(name)
    return float(value.value) if isinstance(value, Quantity) else default


def shape(draft: ServerDraft, positions: int) -> None:
    """`positions`: tokens of a sequence."""
    model = draft.layout.spec.model
    body = [layer for layer in model.stack[1:-1] for _ in range(layer.repeat)]
    known = (
        all(len(own.blocks) == 2 and own.blocks[0] in ATTENTION and own.blocks[1] in FEED_FORWARD for own in body)
        and len({own.blocks[0] for own in body}) == 1
    )
    names = sorted({block for own in body for block in own.blocks} - {*ATTENTION, *FEED_FORWARD})
    draft.refuse(not known, f"its GPT has no layers of {', '.join(names) or 'these blocks'}", "blocks")
    if not known:
        return
    draft.flag("layers", len(body))
    draft.flag("hidden", model.count("hidden"))
    if model.count("mlp.hidden", 0):
        draft.flag("ffn", model.count("mlp.hidden"))
    draft.flag("sequence", positions)
    draft.flag("positions", max(positions, model.count("rope.original", 0)))
    attention(draft, model)
    rotary(draft, model)
    draft.flag("norm", "RMSNorm")
    draft.flag("norm_eps", number(model, "norm_eps", 1e-5))
    draft.flag("gated")
    draft.flag("no_bias")
    draft.flag("attention_dropout", 0)
    if not model.attributes.get("tied"):
        draft.flag("untied")
    if any(own.blocks[1] in SPARSE for own in body):
        experts(draft, model, [own.blocks[1] in SPARSE for own in body])


def attention(draft: ServerDraft, model: Model) -> None:
    heads, latent = model.count("attention.heads"), bool(model.count("attention.kv_latent", 0))
    draft.flag("heads", heads)
    if latent:
        draft.flag("latent")
        for key, name in (
            ("q_latent", "q_latent"), ("kv_latent", "kv_latent"), ("nope", "nope_dim"), ("rope_width", "rope_dim"), ("v_width", "v_dim"),
        ):  # fmt: skip
            if width := model.count(f"attention.{name}", 0):
                draft.flag(key, width)
    else:
        draft.flag("head_width", model.count("attention.head_dim"))
        if model.count("attention.kv_heads", heads) < heads:
            draft.flag("grouped")
            draft.flag("groups", model.count("attention.kv_heads"))
    for name, key in (("qk_norm", "qk_norm"), ("bias", "qkv_bias")):
        if model.attributes.get(f"attention.{name}"):
            draft.flag(key)
    for name in ("window", "clip", "chunk"):
        draft.lack(
            number(model, f"attention.{name}") != 0, f"attention.{name}: its argument is not written", "attention"
        )
    draft.lack(
        bool(model.attributes.get("attention.out_bias")), "attention.out_bias: biases are all or none", "attention"
    )
    scale = number(model, "attention.scale", 1.0)
    draft.lack(not latent and scale != 1.0, f"attention.scale = {scale:g}: its argument is not written", "attention")


def rotary(draft: ServerDraft, model: Model) -> None:
    latent, theta = bool(model.count("attention.kv_latent", 0)), number(model, "rope.theta", 10_000.0)
    scaling, factor = model.attributes.get("rope.scaling", "none"), number(model, "rope.factor", 1.0)
    draft.flag("positions_kind", "rope")
    draft.lack(theta != int(theta), f"rope.theta = {theta:g} is no whole number", "positions")
    draft.flag("theta", int(theta))
    if (share := number(model, "rope.fraction", 1.0)) != 1.0:
        draft.flag("rotary_share", share)
    if model.attributes.get("rope.interleaved") and not latent:  # latent attention always turns pairs of neighbours
        draft.flag("interleaved")
    scale = number(model, "attention.scale", 1.0)
    if scaling == "llama3" and not latent:
        draft.lack(_other(model, LLAMA3), "rope: llama3 with other bounds than Llama's", "positions")
        draft.flag("rope_scaling")
        draft.flag("rope_factor", factor)
    elif scaling == "yarn" and latent and factor > 1:
        draft.lack(_other(model, YARN), "rope: yarn with other bounds than DeepSeek's", "positions")
        mscale = (sqrt(scale) - 1) / (0.1 * log(factor))  # yarn_rotary_pos_embedding.py: _yarn_get_mscale
        draft.flag("rope_kind", "yarn")
        draft.flag("latent_factor", factor)
        draft.flag("mscale", round(mscale, 6))
        draft.flag("mscale_all", round(mscale, 6))
    else:
        draft.lack(scaling != "none", f"rope.scaling = {scaling} of such attention is not written", "positions")
        if latent:
            draft.flag("rope_kind", "rope")
            draft.lack(scale != 1.0, f"attention.scale = {scale:g}: its argument is not written", "attention")


def _other(model: Model, granted: dict[str, float]) -> bool:
    return any(not isclose(number(model, name, value), value) for name, value in granted.items())


def experts(draft: ServerDraft, model: Model, sparse: list[bool]) -> None:
    top_k, score = model.count("experts.top_k"), model.attributes.get("experts.score", "softmax")
    draft.flag("experts", model.count("experts.count"))
    draft.flag("top_k", top_k)
    draft.flag("expert_ffn", model.count("experts.hidden"))
    draft.flag("grouped_products")
    if not all(sparse):
        runs = [(own, len(list(group))) for own, group in groupby(sparse)]
        draft.flag("sparse_layers", f"({'+'.join(f'[{int(own)}]*{count}' for own, count in runs)})")
    if shared := model.count("experts.shared", 0):
        draft.flag("shared_ffn", shared * model.count("experts.shared_hidden"))
    draft.refuse(
        score not in ("softmax", "sigmoid"), f"scores of experts are softmax or sigmoid, not {score}", "router"
    )
    draft.flag("score", score)
    weighted = bool(model.attributes.get("experts.normalize", True))
    draft.refuse(
        score == "sigmoid" and not weighted and top_k > 1, "it makes chosen sigmoid scores sum to one", "router"
    )
    if score == "softmax" and not weighted:
        draft.flag("pre_softmax")
    if (scale := number(model, "experts.scale", 1.0)) != 1.0:
        draft.flag("score_scale", scale)
    if model.attributes.get("experts.bias"):
        draft.refuse(score == "softmax", "experts.bias is added to sigmoid scores alone", "router")
        draft.flag("expert_bias")
    if (groups := model.count("experts.groups", 1)) > 1:
        limit = model.count("experts.groups_limit", 1)
        best = {"best": 1, "best_two": 2}[str(model.attributes.get("experts.group_score", "best_two"))]
        draft.refuse(
            top_k != best * limit,
            f"a group is as strong as its {top_k // limit} best experts there, {best} here",
            "router",
        )
        draft.flag("expert_groups", groups)
        draft.flag("expert_groups_limit", limit)
