"""What arguments of Megatron Core say of a plan: attention and experts fold the ranks of a stage independently. How many ranks there are,
`torchrun` says."""

from __future__ import annotations

import re
from typing import Any

from .reading import Outcome, Reader, Reading, WrongValue
from .shared_readers import SHARED, count, on


def stages(reading: Reading, value: object) -> Outcome:
    """Layers of each stage: `E|t*31|t*30L`, or as dagc writes it. Raises WrongValue."""
    text = str(value)
    counts = []
    for stage in text.split("|") if len(text) < 100_000 else ():
        bare = stage.removeprefix("E").removesuffix("L")
        found = re.fullmatch(r"(?:t\*(\d{1,5}))|(t*)", bare)
        if found is None:
            raise WrongValue("stages of layers, as `Et*31|t*30L`")
        counts.append(int(found[1]) if found[1] else len(found[2]))
    if not counts or not min(counts):
        raise WrongValue("stages of layers, as `Et*31|t*30L`")
    reading.values["layers"] = tuple(counts)
    return f"layers_per_stage = {counts}"


def dispatcher(reading: Reading, value: object) -> Outcome:
    words = {"alltoall": "all_to_all", "flex": "all_to_all", "allgather": "allgather"}
    if value not in words:
        raise WrongValue(f"one of {', '.join(words)}")
    reading.values["dispatch"] = words[str(value)]
    return f"dispatch = {words[str(value)]}"


def dtype(name: str) -> Reader:
    def read(reading: Reading, value: object) -> Outcome:
        reading.values["dtype"] = name
        return f"dtype = {name}"

    return read


READERS: dict[str, Reader] = {
    **SHARED,
    "tp": count("tp", "tp = {}"),
    "ep": count("ep", "experts ep = {}"),
    "etp": count("etp", "experts tp = {}"),
    "layout": stages,
    "sequence_parallel": on("sequence_parallel", "sequence_parallel = true"),
    "dispatcher": dispatcher,
    "bf16": dtype("bf16"),
    "fp16": dtype("fp16"),
    "per_node": count("per_node", "{} processes of a node"),
}
"""By the names that megatron.json has for them."""


def resolved(reading: Reading) -> dict[str, Any]:
    """Fields of the server."""
    v = reading.values
    pp, tp = reading.count("pp"), reading.count("tp")
    ranks = reading.count("per_node") * reading.count("nodes")
    if ranks % (pp * tp):
        reading.faults.append(f"pp {pp} x tp {tp} do not divide its {ranks} ranks")
        return {}
    dp = ranks // pp // tp
    fields: dict[str, Any] = {
        "pp": pp,
        "dp": dp,
        "tp": tp,
        "ep": 1,
        "etp": 1,
        "sequence_parallel": bool(v.get("sequence_parallel")),
    }
    if reading.moe:
        ep = reading.count("ep")
        etp = reading.count("etp", tp)
        if (dp * tp) % (ep * etp):
            reading.faults.append(f"experts ep {ep} x tp {etp} do not divide the {dp * tp} ranks of a stage")
            return {}
        fields |= {"ep": ep, "etp": etp, "dispatch": v.get("dispatch", "allgather")}
    return fields
