"""SGLang: all ranks of a stage are its `tp`; attention divides them into dp x tp, experts into ep x tp. Copies of a dense model are `dp`."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ...lang.fits import cached_heads
from . import shared_values as values
from .draft import Check, ServerDraft, Value, fill, judge
from .rules import COMMON
from .script import NODE, script
from .words import Address, Fabric, Told


def write(draft: ServerDraft) -> Mapping[str, str]:
    judge(draft, CHECKS)
    if not any(one.rule.name in ("copies_of_experts", "sequence_split") for one in draft.refused):
        attention = ("dp", "pp", "sp", "tp") if is_copied(draft) else ("pp", "dp", "sp", "tp")
        draft.ordered(attention, ("pp", "edp", "ep", "etp"))
    fill(draft, VALUES)
    return {"sh": script(draft, command(draft))}


def command(draft: ServerDraft) -> list[str]:
    out = ["python3", "-m", "sglang.launch_server", draft.name("model"), draft.model, *draft.flags]
    if draft.split:
        option = draft.name("fabric")
        out.append(Told("${IB_DEVICE:+" + option + ' "$IB_DEVICE"}', Fabric(option)))
    if len(draft.layout.nodes) > 1:
        out += [draft.name("nodes"), str(len(draft.layout.nodes)), draft.name("node"), NODE]
        port = values.own_port(draft, "master")
        out += [draft.name("master"), Told(f'"$HEAD":{port}', Address(), ":", *port.parts)]
    return out


def is_copied(draft: ServerDraft) -> bool:
    """A dense model with dp is copies of itself; with experts, attention alone is divided."""
    return not draft.layout.moe and draft.layout.degree["dp"] > 1


def is_divided(draft: ServerDraft) -> bool:
    return draft.layout.moe and draft.layout.degree["dp"] > 1


def dcp_latent(draft: ServerDraft) -> str:
    one = draft.layout
    plain = one.dcp > 1 and cached_heads(one.spec.model) > 1
    return f"dcp = {one.dcp}: it is documented of latent attention alone" if plain else ""


def exchange_over_all(draft: ServerDraft) -> str:
    one, d = draft.layout, draft.layout.degree
    ranks = stage_ranks(draft)
    if not one.moe or d["ep"] == 1 or not one.exchanges or d["ep"] == ranks:
        return ""
    return f"tokens are exchanged over ep {d['ep']}: DeepEP spans all {ranks} ranks"


def latency_tokens_fit(draft: ServerDraft) -> str:
    tokens = latency_tokens(draft)
    if not isinstance(tokens, int) or tokens <= 1024:
        return ""
    return f"{tokens:,} tokens of a rank in a step of decode: the exchange for latency takes up to 1024"


def copies_over_nodes(draft: ServerDraft) -> str:
    one = draft.layout
    apart = is_copied(draft) and len(one.nodes) > 1
    return f"dp = {one.degree['dp']} over {len(one.nodes)} nodes: copies of a dense model run on one" if apart else ""


CHECKS: dict[str, Check] = {
    **COMMON,
    "dcp_latent": dcp_latent,
    "exchange_over_all": exchange_over_all,
    "latency_tokens": latency_tokens_fit,
    "copies_over_nodes": copies_over_nodes,
}


def stage_ranks(draft: ServerDraft) -> int:
    d = draft.layout.degree
    return d["sp"] * d["tp"] if is_copied(draft) else d["dp"] * d["sp"] * d["tp"]


def dense_blocks(draft: ServerDraft) -> bool:
    return is_divided(draft) and "mlp" in {block for layer in draft.layout.spec.model.stack for block in layer.blocks}


def reads_attention_tp(draft: ServerDraft) -> bool:
    return draft.layout.spec.model.name in draft.facts.words["attention_tp_dense"]


def dense_follows(draft: ServerDraft) -> object:
    """Dense weights follow attention in the plan; there they are whole, or cut over all ranks."""
    if not dense_blocks(draft) or draft.layout.degree["tp"] == 1:
        return None
    if reads_attention_tp(draft):
        return True
    tp, ranks = draft.layout.degree["tp"], stage_ranks(draft)
    draft.note(f"dense layers are cut over all {ranks} ranks there, and over tp {tp} in the plan")
    return None


def dense_whole(draft: ServerDraft) -> object:
    return 1 if dense_blocks(draft) and draft.layout.degree["tp"] == 1 else None


def shared_follows(draft: ServerDraft) -> object:
    one = draft.layout
    if not one.exchanges or not one.spec.model.count("experts.shared", 0) or one.degree["tp"] == 1:
        return None
    if reads_attention_tp(draft):
        return True
    draft.note(f"shared experts are whole on every rank with DeepEP, and cut over tp {one.degree['tp']} in the plan")
    return None


def exchange(draft: ServerDraft) -> object:
    if not values.whole_experts(draft):
        return None
    return draft.by_vendor("exchange") if draft.layout.exchanges else "none"


def exchange_mode(draft: ServerDraft) -> object:
    if exchange(draft) != "deepep":
        return None
    kinds = draft.layout.kinds
    mode = {"prefill": "normal", "decode": "low_latency"}
    return draft.exchange or (mode[next(iter(kinds))] if len(kinds) == 1 and kinds <= set(mode) else "auto")


def latency_tokens(draft: ServerDraft) -> object:
    """Of its largest step of decode: the buffers of the exchange have room for so many. Ranks of one attention share its tokens out."""
    tokens = ceil(draft.layout.decode_tokens / draft.layout.degree["tp"])
    return max(128, tokens) if exchange_mode(draft) in ("low_latency", "auto") and tokens else None


def cache_dtype(draft: ServerDraft) -> object:
    return {"fp8": "fp8_e4m3"}.get(str(values.cache_dtype(draft)), values.cache_dtype(draft))


def server_sequences(draft: ServerDraft) -> object:
    return values.rank_sequences(draft) if is_copied(draft) else values.all_sequences(draft)


def server_tokens(draft: ServerDraft) -> object:
    """What attention-DP ranks divide among them."""
    each = values.step_tokens(draft)
    return each * (draft.layout.degree["dp"] if is_divided(draft) else 1) or None


def role(draft: ServerDraft) -> object:
    return draft.layout.phases[0].kind if draft.split else None


def drafts(count: object) -> Value:
    return lambda draft: count if values.drafted(draft) else None


VALUES: dict[str, Value] = {
    **values.SHARED,
    "stage_ranks": stage_ranks,
    "copies": lambda draft: draft.layout.degree["dp"] if is_copied(draft) else None,
    "any_dp": values.degree("dp"),
    "divided_attention": lambda draft: draft.layout.degree["dp"] if is_divided(draft) else None,
    "divided_attention_on": lambda draft: True if is_divided(draft) else None,
    "dense_follows": dense_follows,
    "dense_whole": dense_whole,
    "shared_follows": shared_follows,
    "ep": lambda draft: draft.layout.degree["ep"] if values.whole_experts(draft) else None,
    "exchange": exchange,
    "exchange_mode": exchange_mode,
    "latency_tokens": latency_tokens,
    "cache_dtype": cache_dtype,
    "server_sequences": server_sequences,
    "server_tokens": server_tokens,
    "prompt_tokens": lambda draft: values.step_tokens(draft) or None,
    # One token a step of the drafter, and no tree of them.
    "draft": drafts("EAGLE"),
    "draft_steps": lambda draft: values.drafted(draft) or None,
    "draft_width": drafts(1),
    "draft_tokens": lambda draft: values.drafted(draft) + 1 if values.drafted(draft) else None,
    "role": role,
    "bootstrap": lambda draft: values.own_port(draft, "bootstrap") if role(draft) == "prefill" else None,
}
"""By the names that sglang.json has for them."""
