"""What options of vLLM say of a plan: attention is tensor parallel inside a data-parallel rank; experts take all ranks of both."""

from __future__ import annotations

from typing import Any

from .reading import IGNORED, MISSING, READ, Outcome, Reader, Reading, flag, settings, whole
from .shared_readers import SHARED, count, drafts, largest, on


def exchange(reading: Reading, value: object) -> Outcome:
    words = reading.facts.words
    named = {backend: word for word, backend in words["exchanges"].items()}
    reading.values["exchange"] = str(value)
    if value in (words["gathered"], "naive", "pplx"):
        reading.values["dispatch"] = "allgather"
        return "dispatch = allgather" if value == words["gathered"] else f"dispatch = allgather, in place of `{value}`"
    reading.values["dispatch"] = "all_to_all"
    if value in named:
        reading.values["kernels"] = named[str(value)]
        return f"dispatch = all_to_all, exchange = {named[str(value)]}"
    reading.note(f"tokens travel by `{value}`: the plan has the kernels of its own engine for that")
    return "dispatch = all_to_all"


def redundant_experts(reading: Reading, value: Any) -> Outcome:
    held = settings(value)
    found = held.get("num_redundant_experts", 0)
    reading.values["redundant"] = whole(found)
    return f"redundant = {found}"


def draft(reading: Reading, value: Any) -> Outcome:
    held = settings(value)
    method = str(held.get("method", ""))
    number = whole(held.get("num_speculative_tokens", 1), 1)
    mtp = method == "mtp" or method.endswith("_mtp")
    return drafts(reading, number, method or str(held.get("model", "a model")), mtp=mtp)


def transfer(reading: Reading, value: Any) -> Outcome:
    role = str(settings(value).get("kv_role", "kv_both"))
    reading.values["split"] = True
    if role in ("kv_producer", "kv_consumer"):
        reading.values["role"] = "prefill" if role == "kv_producer" else "decode"
        return f"a server of {reading.values['role']}"
    return "caches travel between a server of prefill and one of decode"


def compilation(reading: Reading, value: Any) -> Outcome:
    held = settings(value)
    read = []
    if str(held.get("cudagraph_mode", "")).upper() == "NONE":
        reading.values["no_graphs"] = True
        read.append("cuda_graph = false")
    if (size := held.get("max_cudagraph_capture_size")) is not None:
        reading.values["graph_tokens"] = whole(size, 1)
        read.append(f"steps of up to {size} tokens are CUDA graphs")
    return (READ, ", ".join(read)) if read else (IGNORED, "how kernels are compiled")


def chunked(reading: Reading, value: object) -> Outcome:
    reading.values["chunked"] = flag(value)
    if not reading.values["chunked"]:
        return MISSING, "a step takes whole prompts alone: the serving cuts them where it is full"
    return "prompts are cut where a step is full"


def local_ranks(reading: Reading, value: object) -> Outcome:
    reading.values["local_ranks"] = whole(value)
    return IGNORED, "which ranks a node runs follows from the layout"


READERS: dict[str, Reader] = {
    **SHARED,
    "attention_tp": count("tp", "attention tp = {}"),
    "attention_dp": count("dp", "attention dp = {}"),
    "whole_experts": on("whole_experts", "experts are whole on each rank: ep = dp x tp"),
    "exchange": exchange,
    "redundant_experts": redundant_experts,
    "graph_tokens": count("graph_tokens", "steps of up to {} tokens are CUDA graphs"),
    "capture_sizes": largest("graph_tokens", "steps of up to {} tokens are CUDA graphs"),
    "compilation": compilation,
    "rank_sequences": count("rank_sequences", "up to {} sequences of a rank at once"),
    "budget": count("budget", "up to {} tokens of a rank in a step"),
    "chunk": count("chunk", "up to {} tokens of one prompt in a step", 0),
    "chunked": chunked,
    "draft": draft,
    "transfer": transfer,
    "local_ranks": local_ranks,
}
"""By the names that vllm.json has for them."""


def resolved(reading: Reading) -> dict[str, Any]:
    """Fields of the server."""
    v = reading.values
    pp, dp, tp = reading.count("pp"), reading.count("dp"), reading.count("tp")
    whole_ = reading.moe and bool(v.get("whole_experts")) and dp * tp > 1
    if v.get("whole_experts") and not reading.moe:
        reading.note("the model has no experts: expert parallelism does nothing")
    if reading.moe and not whole_ and (v.get("by_load") or v.get("redundant")):
        reading.faults.append("EPLB needs expert parallelism: --enable-expert-parallel")
    fields: dict[str, Any] = {"pp": pp, "dp": dp, "tp": tp}
    fields |= {"ep": dp * tp if whole_ else 1, "etp": dp * tp if reading.moe and not whole_ else 1}
    if whole_:
        if "dispatch" not in v and dp > 1:
            reading.note(f"tokens reach experts by {reading.facts.words['gathered']}, the engine's default")
        fields["dispatch"] = v.get("dispatch", "allgather") if dp > 1 else "allgather"
        fields["exchange"] = v.get("kernels", "") if dp > 1 else ""
    elif "exchange" in v:
        reading.note(f"`{v['exchange']}` has nothing to do: tokens are exchanged with expert parallelism alone")
    if dp > 1 and pp > 1:
        fields["order"] = ("dp", "pp", "ep", "sp", "tp")
    drafted = 1 + reading.count("draft", 0)
    each, graph = v.get("rank_sequences"), v.get("graph_tokens")
    if each is not None:
        fields |= {"rank_sequences": each, "sequences": each * dp}
    if graph is not None:
        fields["graph_sequences"] = graph // drafted
    if v.get("exchange") in reading.facts.words["buffered"] and whole_ and dp > 1:
        fields |= {
            "buffered": reading.facts.words["buffered_tokens"],
            "usual_step": reading.facts.words["buffered_step"],
        }
    fields |= {"step_tokens": v.get("budget"), "chunk": v.get("chunk") or None}
    return fields
