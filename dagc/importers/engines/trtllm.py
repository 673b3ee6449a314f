"""What settings of TensorRT-LLM say of a plan: `tensor_parallel_size` are all ranks of a stage; attention is data parallel over all of
them or tensor parallel, experts divide them into tensor (outer) x expert (inner) parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...base.diagnostics import SpecError
from .command import ServerCommand
from .config_file import mapping
from .reading import IGNORED, MISSING, Outcome, Reader, Reading, WrongValue, flag, settings, whole
from .shared_readers import SHARED, count, drafts, largest, on, prefix_cache, text


def graphs_off(reading: Reading, value: object) -> Outcome:
    reading.values["no_graphs"] = value is None
    return "cuda_graph = false" if value is None else "cuda_graph = true"


def draft(reading: Reading, value: Any) -> Outcome:
    if value is None:
        return "draft = 0"
    held = settings(value)
    method = str(held.get("decoding_type", ""))
    number = whole(held.get("num_nextn_predict_layers", held.get("max_draft_len", 1)), 1)
    return drafts(reading, number, method, mtp=method.upper() == "MTP")


def balancer(reading: Reading, value: object) -> Outcome:
    if isinstance(value, str):
        return MISSING, "copies of experts as a file says that is not read"
    return "experts are placed by their loads"


def transfer(reading: Reading, value: object) -> Outcome:
    reading.values["split"] = True
    return "caches travel between a server of prefill and one of decode"


def no_overlap(reading: Reading, value: object) -> Outcome:
    reading.values["no_overlap"] = flag(value)
    return IGNORED, "the plan has no time of the host between steps for it"


def role(reading: Reading, value: object) -> Outcome:
    roles = {"context": "prefill", "generation": "decode"}
    if str(value).lower() not in roles:
        raise WrongValue(f"one of {', '.join(roles)}")
    reading.values |= {"role": roles[str(value).lower()], "split": True}
    return f"a server of {reading.values['role']}"


def backend(reading: Reading, value: object) -> Outcome:
    if value != "pytorch":
        return MISSING, f"`{value}`: the plan is read as that of the PyTorch backend"
    return IGNORED, "it is so anyway"


def cluster(reading: Reading, value: object) -> Outcome:
    return "no clusters of experts" if whole(value, -1) in (-1, 1) else (MISSING, "clusters of experts")


def admit(reading: Reading, value: object) -> Outcome:
    words = {"GUARANTEED_NO_EVICT": "whole", "MAX_UTILIZATION": "prompt"}
    if str(value) not in words:
        return MISSING, f"requests enter by `{value}`"
    if words[str(value)] == "prompt":
        reading.values["admit"] = "prompt"
    return f"a request enters when its {'whole length' if words[str(value)] == 'whole' else 'prompt'} has room"


READERS: dict[str, Reader] = {
    **SHARED,
    "stage_ranks": count("stage_ranks", "{} ranks of a stage"),
    "ep": count("ep", "experts ep = {}", -1),
    "etp": count("etp", "experts tp = {}", -1),
    "divided_attention": on("divided", "attention is data parallel over all ranks of a stage"),
    "balanced": on("balanced", "prompts wait until every rank has one"),
    "balance_steps": count("balance_steps", "balance = {}", 0),
    "gather_steps": count("gather_steps", "gather = {}", 0),
    "layers": SHARED["stage_layers"],
    "per_node": count("per_node", "{} GPUs of a node"),
    "prefix": prefix_cache(),
    "moe_backend": lambda reading, value: (IGNORED, "which kernels run: the plan's times are those of measured ones"),
    "slots": count("slots", "{} experts with their copies"),
    "balancer": balancer,
    "no_graphs": graphs_off,
    "graph_sequences": count("graph_sequences", "steps of up to {} sequences of a rank are CUDA graphs"),
    "capture_sizes": largest("graph_sequences", "steps of up to {} sequences of a rank are CUDA graphs"),
    "rank_sequences": count("rank_sequences", "up to {} sequences of a rank at once"),
    "budget": count("budget", "up to {} tokens of a rank in a step"),
    "chunked": on("chunked", "prompts are cut where a step is full"),
    "draft": draft,
    "transfer": transfer,
    "no_overlap": no_overlap,
    "role": role,
    "backend": backend,
    "cluster": cluster,
    "admit": admit,
    "config": text("config", "settings of a file"),
}
"""By the names that trtllm.json has for them."""


def extra(
    reading: Reading,
    command: ServerCommand,
    setting: Callable[[str, object], bool],
    other: Callable[[str, object], None],
) -> None:
    """Settings of its configuration file, which hold before options. `setting` reads one by its path, if it is one; `other` gets those
    that are none."""
    path = reading.values.get("config")
    if path is None:
        return
    held_text = command.files.get(path)
    if held_text is None:
        reading.faults.append(f"its settings are in `{path}`, which is not there")
        return
    try:
        held = mapping(path, held_text)
    except SpecError as error:
        reading.faults.append(f"its settings in `{path}`: {error.diagnostics[0].message}")
        return
    for name, value in _settings(held, setting, ""):
        other(name, value)


def _settings(held: Mapping[str, Any], setting: Callable[[str, object], bool], above: str) -> Iterator[tuple[str, Any]]:
    """Those that nobody reads. What is read as a whole may have parts that are read besides."""
    for key, value in held.items():
        name = f"{above}{key}"
        read = setting(name, value)
        if isinstance(value, Mapping) and value and above.count(".") < 8:
            rest = list(_settings(value, setting, f"{name}."))
            if not read:
                yield from rest
        elif not read:
            yield name, value


def resolved(reading: Reading) -> dict[str, Any]:
    """Fields of the server."""
    v = reading.values
    pp, ranks, divided = reading.count("pp"), reading.count("stage_ranks"), bool(v.get("divided"))
    dp, tp = (ranks, 1) if divided else (1, ranks)
    ep, etp = v.get("ep", -1), v.get("etp", -1)
    ep, etp = ep if ep > 0 else -1, etp if etp > 0 else -1
    if ep < 0 and etp < 0:
        ep, etp = 1, ranks
    elif ep < 0 or etp < 0:
        known = max(ep, etp)
        other = ranks // known if ranks % known == 0 else 0
        ep, etp = (ep, other) if ep > 0 else (other, etp)
    fields: dict[str, Any] = {"pp": pp, "dp": dp, "tp": tp, "ep": 1, "etp": 1}
    if reading.moe:
        if ep * etp != ranks:
            reading.faults.append(f"experts ep {max(ep, 0)} x tp {max(etp, 0)} are not the {ranks} ranks of a stage")
            return {}
        fields |= {"ep": ep, "etp": etp}
        if ep > 1 and etp > 1:
            fields["order"] = ("pp", "dp", "sp", "tp", "ep")
        if ep > 1:
            fields["dispatch"] = "all_to_all" if divided and ranks > 1 else "allgather"
            if divided:
                reading.note("tokens are exchanged between ranks: the engine chooses that by the machine")
    if (slots := v.get("slots")) is not None and reading.moe:
        experts = reading.model.count("experts.count")
        if slots < experts:
            reading.faults.append(f"num_slots = {slots}: the model has {experts} experts")
            return {}
        fields |= {"redundant": slots - experts, "by_load": True}
    each, tokens = v.get("rank_sequences"), v.get("budget")
    if each is not None:
        fields |= {"rank_sequences": each, "sequences": each * dp}
    fields |= {"graph_sequences": v.get("graph_sequences"), "step_tokens": tokens}
    fields["cuts"] = bool(v.get("chunked"))
    if v.get("balanced") and dp > 1:
        fields |= {"balance": v.get("balance_steps", 50), "gather": v.get("gather_steps", 10)}
    if (held := v.get("per_node")) is not None and pp * ranks > held:
        fields["nodes"] = pp * ranks // held
    if v.get("split") and "role" not in v:
        v["role"] = "prefill" if v.get("no_overlap") else "decode"
        reading.note(f"a server of {v['role']}, by `disable_overlap_scheduler`, which servers of prefill have")
    return fields
