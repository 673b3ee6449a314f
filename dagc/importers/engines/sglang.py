"""What options of SGLang say of a plan: its `tp` are all ranks of a stage, which attention and experts divide, each in its own way."""

from __future__ import annotations

from math import ceil
from typing import Any

from .reading import IGNORED, MISSING, Outcome, Reader, Reading, WrongValue, whole
from .shared_readers import SHARED, count, largest, on, policy, text


def exchange(reading: Reading, value: object) -> Outcome:
    reading.values["exchange"] = str(value)
    if value == "none":
        reading.values["dispatch"] = "allgather"
        return "dispatch = allgather"
    reading.values["dispatch"] = "all_to_all"
    if value not in reading.facts.words["exchange"].values():
        reading.note(f"tokens travel by `{value}`: the plan has the kernels of its own engine for that")
    return "dispatch = all_to_all"


def exchange_mode(reading: Reading, value: object) -> Outcome:
    named = {mode: word for word, mode in reading.facts.words["exchanges"].items()}
    if value == "auto":
        return "kernels for throughput where prompts are taken in, for latency else"
    if value not in named:
        raise WrongValue(f"one of auto, {', '.join(named)}")
    reading.values["kernels"] = named[str(value)]
    return f"exchange = {named[str(value)]}"


def server_tokens(reading: Reading, value: object) -> Outcome:
    tokens = whole(value, -1)
    if tokens <= 0:
        reading.values["uncut"] = True
        return MISSING, "prompts are never cut: the plan cuts them where a step is full"
    reading.values["server_tokens"] = tokens
    return f"up to {tokens} tokens of prompts in a step, divided by the ranks of attention data parallelism"


def dense_tp_size(reading: Reading, value: object) -> Outcome:
    reading.values["dense_tp"] = whole(value, 1)
    return IGNORED, "dense layers are cut as attention is"


def algorithm(reading: Reading, value: object) -> Outcome:
    reading.values["algorithm"] = str(value).upper()
    if reading.values["algorithm"] not in ("EAGLE", "NEXTN", "EAGLE3"):
        reading.note(f"drafts of `{value}` cost nothing in the plan: it knows MTP layers alone")
    return f"steps of decode check tokens that {value} drafted"


def draft_width(reading: Reading, value: object) -> Outcome:
    width = whole(value, 1)
    if width > 1:
        reading.note(f"trees of {width} drafts: the plan has one draft after another")
    return f"{width} draft for each place"


def role(reading: Reading, value: object) -> Outcome:
    if value == "null":
        return "a server that does both"
    if value not in ("prefill", "decode"):
        raise WrongValue("one of null, prefill, decode")
    reading.values |= {"role": str(value), "split": True}
    return f"a server of {value}"


def mixed_chunk(reading: Reading, value: object) -> Outcome:
    reading.values["prompts"] = "mixed"
    return "prompts = mixed: prompts in steps of decode"


def base_gpu(reading: Reading, value: object) -> Outcome:
    reading.values["base_gpu"] = whole(value)
    return f"from GPU {reading.values['base_gpu']} of its host on"


def moe_dp(reading: Reading, value: object) -> Outcome:
    reading.values["moe_dp"] = whole(value, 1)
    return f"{reading.values['moe_dp']} copies of the experts"


READERS: dict[str, Reader] = {
    **SHARED,
    "stage_ranks": count("stage_ranks", "{} ranks of a stage"),
    "copies": count("plain_dp", "{} data-parallel ranks"),
    "any_dp": count("plain_dp", "{} data-parallel ranks"),
    "divided_attention": count("attention_dp", "attention dp = {}"),
    "divided_attention_on": on("divided", "attention is data parallel inside the ranks of a stage"),
    "dense_tp_size": dense_tp_size,
    "ep": count("ep", "experts ep = {}"),
    "exchange": exchange,
    "exchange_mode": exchange_mode,
    "graph_sequences": count("graph_sequences", "steps of up to {} sequences of a rank are CUDA graphs"),
    "capture_sizes": largest("graph_sequences", "steps of up to {} sequences of a rank are CUDA graphs"),
    "server_sequences": count("server_sequences", "up to {} sequences of a server at once"),
    "server_tokens": server_tokens,
    "prompt_tokens": count("prompt_tokens", "up to {} tokens of prompts of a rank in a step"),
    "draft": algorithm,
    "draft_steps": count("draft_steps", "{} steps of drafting"),
    "draft_width": draft_width,
    "draft_tokens": count("draft_tokens", "a step of decode checks {} tokens"),
    "draft_model": text("draft_model", "drafts of another model"),
    "role": role,
    "policy": policy("fcfs"),
    "mixed_chunk": mixed_chunk,
    "base_gpu": base_gpu,
    "moe_dp": moe_dp,
}
"""By the names that sglang.json has for them."""


def resolved(reading: Reading) -> dict[str, Any]:
    """Fields of the server. With attention data parallelism `dp` divides the ranks of a stage; else it is copies of all of it."""
    v = reading.values
    pp, ranks = reading.count("pp"), reading.count("stage_ranks")
    plain = reading.count("plain_dp")
    dp = reading.count("attention_dp", plain if v.get("divided") else 1)
    copies = plain if not v.get("divided") and "attention_dp" not in v else 1
    if ranks % dp:
        reading.faults.append(f"attention dp {dp} does not divide the {ranks} ranks of a stage")
        return {}
    tp = ranks // dp
    deep = v.get("dispatch") == "all_to_all" and reading.moe
    ep = reading.count("ep", ranks if deep else 1) if reading.moe else 1
    if deep and ep != ranks:
        reading.note(f"ep = {ranks}, all ranks, as the engine sets it for `{v['exchange']}`")
        ep = ranks
    moe_dp = reading.count("moe_dp")
    if ranks % (ep * moe_dp):
        reading.faults.append(
            f"experts ep {ep}{f' x {moe_dp} copies' if moe_dp > 1 else ''} do not divide the {ranks} ranks of a stage"
        )
        return {}
    fields: dict[str, Any] = {
        "pp": pp,
        "dp": dp,
        "tp": tp,
        "ep": ep,
        "etp": ranks // ep // moe_dp if reading.moe else 1,
    }
    if copies > 1 and reading.moe:
        fields["replicas"] = copies
        reading.note(f"{copies} data-parallel ranks with experts are copies of the whole server: replicas = {copies}")
    elif copies > 1:
        fields["dp"] = copies
        fields |= {"order": ("dp", "pp", "ep", "sp", "tp")} if pp > 1 else {}
    if ep > 1:
        fields |= {"dispatch": v.get("dispatch", "allgather"), "exchange": v.get("kernels", "") if deep else ""}
    if v.get("dense_tp", tp) != tp and dp > 1:
        reading.note(f"dense layers are cut over {v['dense_tp']} ranks there, over tp {tp} in the plan")
    steps, checked = v.get("draft_steps"), v.get("draft_tokens")
    if "algorithm" in v:
        fields["draft"] = checked - 1 if checked is not None and checked > 1 else steps or 1
        own = v["algorithm"] in ("EAGLE", "NEXTN") and "draft_model" not in v
        fields["drafter"] = "mtp" if own else "none"
    sequences = v.get("server_sequences")
    if sequences is not None:
        shared = fields["dp"] if copies > 1 and not reading.moe else 1
        fields["sequences"] = sequences * shared
        fields["rank_sequences"] = ceil(sequences / dp)
    fields["graph_sequences"] = v.get("graph_sequences")
    limits = [n for n in (v.get("server_tokens", 0) // dp, v.get("prompt_tokens", 0)) if n]
    fields["step_tokens"] = min(limits) if limits else None
    if len(set(limits)) > 1:
        reading.note(f"a step takes {min(limits):,} tokens of prompts of a rank: the smaller of its two limits")
    if base := v.get("base_gpu"):
        fields["local"] = tuple(range(base, base + ranks * pp))
    return fields
