"""What an engine is to read of a plan: its scripts, and the commands of its deployment, on the first node and the last."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagc
from dagc.base.diagnostics import Diagnostic
from dagc.export.deploy.deployment import Deployment, Server
from dagc.export.deploy.made import deployment
from dagc.export.engines import SERVING
from dagc.export.engines.draft import ServerDraft
from dagc.export.engines.launch import drafted
from dagc.export.engines.words import Address, Beside, Fabric, Listen, Part, Parts

from .megatron_model import arguments
from .stand_ins import words

CAPABILITY = {"h100": (9, 0), "h200": (9, 0), "b200": (10, 0), "gb200": (10, 0)}
NO_PLAN, REFUSED = "no plan", "refused by dagc"


class Nothing(NamedTuple):
    """To read. `kind`: which of the two; `rule`: its name, where there is one; `lacks`: what a refusal ought to say and does not."""

    kind: str
    rule: str
    why: str
    lacks: str = ""


def items(name: str, text: str, engine: str, version: str, configs: Path) -> Iterator[Nothing | dict[str, Any]]:
    """As JSON for the readers."""
    try:
        plan = dagc.compile_text(text)
    except dagc.SpecError as error:
        yield Nothing(NO_PLAN, "", error.diagnostics[0].message)
        return
    made = drafted(plan, engine, None, version)
    for fault, rules in zip(made.refused, made.rules, strict=True):
        yield Nothing(REFUSED, ", ".join(rules), (*fault.because, fault.message)[0], lacks(fault, rules))
    spec = plan.spec
    kinds = sorted(CAPABILITY, key=len, reverse=True)
    kind = next((key for key in kinds if spec.hardware.name.startswith(key)), "h100")
    common = {
        "plan": name,
        "machine": {
            "gpus": spec.hardware.per_host,
            "memory_B": int(spec.hardware.memory_B),
            "capability": CAPABILITY[kind],
            "name": f"NVIDIA {kind.upper()}",
        },
        "configs": str(configs),
        "version": version,
        "model": arguments(spec.model, spec.workload.prompt) if engine == "megatron" else [],
    }
    for draft, files in made.servers:
        about = {**common, "decodes": any(not p.takes_prompts for p in draft.layout.phases), "degrees": degrees(draft)}
        for node in _ends(len(draft.layout.nodes)):
            label = f"{name} {draft.layout.name}" + (f" node {node}" if len(draft.layout.nodes) > 1 else "")
            yield {**about, "name": label, "script": files["sh"], "node": node}
    if engine in SERVING and not made.refused:
        one = deployment(plan, engine, None, "plan", version)
        for server in one.servers:
            yield from _commands(server, one, common)


def lacks(fault: Diagnostic, rules: Sequence[str]) -> str:
    """Of a name of each rule, the engine's own line for each, and what to write in its place; nothing: all are there."""
    if not rules or not all(rules):
        return "no rule"
    if len(fault.because) < len(rules) or not all(re.search(r"\(.*\w.*\)$", line) for line in fault.because):
        return "no line of the engine"
    return "" if any("nearest plan that exports" in line for line in fault.help) else "no plan that exports"


def degrees(draft: ServerDraft) -> dict[str, int]:
    """Of the plan, in words that readers have."""
    one = draft.layout
    found = {"dp": one.degree["dp"], "tp": one.degree["tp"], "pp": one.degree["pp"]}
    return {**found, "ep": one.degree["ep"], "etp": one.degree["etp"]} if one.moe else found


def _ends(count: int) -> Sequence[int]:
    return sorted({0, count - 1})


def _commands(server: Server, one: Deployment, common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that launchers start: of the first replica and the last."""
    for replica in _ends(server.replicas):
        for node in _ends(server.nodes):
            words = [_known(word) for word in server.words(replica, node) if not isinstance(word[0], Fabric)]
            told = {key: _known(parts) for key, parts in server.variables(replica, node).items()}
            label = f"{common['plan']} {server.name}, deployed" + (f", replica {replica}" if replica else "")
            label += f" node {node}" if node else ""
            about = "\n".join(server.about)
            decodes = server.role != "prefill"
            yield {**common, "name": label, "argv": words, "environment": told, "about": about, "decodes": decodes}


def _known(word: Parts) -> str:
    def text(part: Part) -> str:
        match part:
            case str():
                return part
            case Address(_, replica, node):
                return f"10.0.{replica}.{node + 1}"
            case Listen():
                return "0.0.0.0"
            case Beside(suffix):
                return f"/tmp/server.{suffix}"
        raise TypeError(f"{part!r} in a command of a node")

    return "".join(map(text, word))


def alike_key(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The same for commands of a plan that differ in addresses alone, which an engine reads once: mostly a script's and a launcher's."""
    before = dict(os.environ)
    try:
        argv = item["argv"] if "argv" in item else words(item["script"], item["node"])
        names = item["environment"] if "argv" in item else re.findall(r"^export (\w+)=", item["script"], re.M)
    finally:
        os.environ.clear()
        os.environ.update(before)
    placeless = [re.sub(r"10\.\d+\.\d+\.\d+|/tmp/[\w.]+", "", word) for word in argv]
    return (item["plan"], *sorted(names), *placeless)
