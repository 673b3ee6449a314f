"""What pods get, whichever kind of object makes them: their image, command, GPUs, volumes and probes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from ...engines.facts import facts
from ..engines.words import Address, Beside, Fabric, Listen, Node, Others, Own, Port, parts_of
from .deployment import HEALTH, Deployment, Router, Server, refused
from .dns_labels import label
from .manifest import Document

MODELS = "/models"
"""Where pods have the volume of checkpoints."""
CLAIM, SECRET, TOKEN = "model-cache", "hf-token", "HF_TOKEN"
"""Names of the claim and of the secret, which the cluster has to have, and the key in the latter."""
CONFIG = "/etc/dagc"
"""Where pods have the files of their server."""
HEAD, NODE, OWN = "$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)", "$(POD_IP)"
"""Variables of a pod: two of its LeaderWorkerSet, and one that refers to a field of the pod."""
POOL = "dagc.pool"
"""Label of nodes: which of a plan's pools their GPUs are."""
PERIOD_S = 10
START_S = 2 * 60 * 60
"""How long a server may take until it answers."""
PROGRAMS = {"vllm": 2, "sglang": 3, "trtllm": 1}
"""By engine: words of a server's command before its arguments."""

Object = dict[str, Any]


@cache
def platforms() -> Mapping[str, Any]:
    """What the programs that start pods are told: their versions, images and words."""
    found: Mapping[str, Any] = json.loads((files(__package__) / "platforms.json").read_text())
    return found


def image(one: Deployment, server: Server) -> str:
    """Of the engine, in the version that the options were written for. Raises SpecError where none is known for the GPUs."""
    known: Mapping[str, str] = platforms()["images"][one.engine]
    if one.image is None and server.vendor not in known:
        raise refused(f"no image of {one.label} is known for GPUs of {server.vendor}", "--image names one")
    return one.image or known[server.vendor].format(version=one.version)


def ports(one: Deployment) -> Mapping[str, int]:
    """What every server listens on: each pod has an address of its own, so that they need not differ as they do on one host."""
    known: Mapping[str, Sequence[int]] = facts(one.engine, one.version).words["ports"]
    return {what: first for what, (first, *_) in known.items()}


class Words:
    """Text of words in a pod of a server, or of the router. `names`: of the LeaderWorkerSet of each server, whose first pods have addresses
    of it; `node`: number of the pod in its server, or the variable with it; `others`: ports that differ from what all pods have."""

    def __init__(
        self,
        one: Deployment,
        server: Server | None,
        names: Mapping[str, str],
        *,
        node: str = NODE,
        others: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.one, self.server, self.names, self.node = one, server, names, node
        self.ports = {**ports(one), **others}

    def all(self, words: Sequence[str]) -> list[str]:
        """Network cards are the cluster's business: pods get those that they ask for."""
        out = []
        for word in words:
            match parts_of(word):
                case (Fabric(),):
                    continue
                case (Others(flag),):
                    out += [literal(flag)] if self.node != "0" else []
                case _:
                    out.append(self.one_word(word))
        return out

    def one_word(self, word: str) -> str:
        return "".join(self._part(part) for part in parts_of(word))

    def _part(self, part: object) -> str:
        match part:
            case str():
                return literal(part)
            case Node():
                return self.node
            case Address("", _, 0):
                return HEAD
            case Address(name, replica, 0):
                return f"{self.names[name]}-{replica}.{self.names[name]}"
            case Own():
                return OWN
            case Listen():
                return "0.0.0.0"
            case Port(what, ""):
                return str(self.router.port if self.server is None else self.ports[what])
            case Port(what):
                return str(ports(self.one)[what])
            case Beside(suffix):
                return f"{CONFIG}/config.{suffix}"
        raise TypeError(f"{part!r} is no part of a word in a pod")

    @property
    def router(self) -> Router:
        assert self.one.router is not None
        return self.one.router


def literal(word: str) -> str:
    """In a pod's command and environment `$(NAME)` is a variable, and `$$` a dollar sign."""
    return word.replace("$", "$$")


def run(words: Sequence[str], count: int) -> Object:
    """The command of a container. `count`: words of the program."""
    return {"command": list(words[:count]), "args": list(words[count:])}


def environment(words: Words, server: Server, *, left_out: Sequence[str] = ()) -> list[Object]:
    """Variables of a container. A secret is named, and pods start without it too."""
    secret = {"secretKeyRef": {"name": SECRET, "key": TOKEN, "optional": True}}
    out: list[Object] = [{"name": "HF_HOME", "value": MODELS}, {"name": TOKEN, "valueFrom": secret}]
    own = {name: words.one_word(word) for name, word in server.environment.items() if name not in left_out}
    if any(OWN in value for value in own.values()):
        out.append({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    return out + [{"name": name, "value": value} for name, value in own.items()]


def gpus(server: Server) -> Object:
    """What a container may use: GPUs by the name that their vendor's device plugin has for them."""
    return {"limits": {platforms()["gpus"][server.vendor]: str(server.gpus_per_node)}}


def volumes(config: str = "") -> list[Object]:
    """Of a pod of a server. Its processes exchange through shared memory, of which a container has 64 MB by default. `config`: name of
    the ConfigMap with its files."""
    out: list[Object] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
    ]
    return out + ([{"name": "config", "configMap": {"name": config}}] if config else [])


def mounts(config: str = "") -> list[Object]:
    out: list[Object] = [{"name": "models", "mountPath": MODELS}, {"name": "shared-memory", "mountPath": "/dev/shm"}]
    return out + ([{"name": "config", "mountPath": CONFIG, "readOnly": True}] if config else [])


def joins_others(server: Server) -> bool:
    """Whether it exchanges data with other pods."""
    return server.nodes > 1 or server.role != "both"


def locked(server: Server) -> Object:
    """Network cards read and write the memory of GPUs only where a process may lock it."""
    return {"securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}} if joins_others(server) else {}


def probes(action: Object) -> Object:
    """Of a container that answers once its server takes requests."""
    asked = {**action, "periodSeconds": PERIOD_S, "timeoutSeconds": PERIOD_S}
    return {
        "startupProbe": {**asked, "failureThreshold": START_S // PERIOD_S},
        "readinessProbe": asked,
        "livenessProbe": {**asked, "failureThreshold": 6},
    }


def asks(port: int | str) -> Object:
    return {"httpGet": {"path": HEALTH, "port": port}}


def config_map(name: str, files: Mapping[str, str]) -> Document:
    """Files of a server by suffix."""
    data = {f"config.{suffix}": text for suffix, text in files.items()}
    return Document({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def placed(one: Deployment, server: Server) -> Object:
    """Where a plan has several kinds of GPUs, each server on nodes with its own; nothing elsewhere."""
    return {"nodeSelector": {POOL: label(server.pool)}} if len({s.pool for s in one.servers}) > 1 else {}


def _beyond_hosts(one: Deployment) -> list[str]:
    """Servers whose hosts are joined by the links that GPUs of one host have."""
    hardware = {server.name: one.spec.pools.get(server.pool, one.spec.hardware) for server in one.servers}
    return [s.name for s in one.servers if s.nodes > 1 and hardware[s.name].per_node > hardware[s.name].per_host]


def about(one: Deployment, needs: Sequence[str], ask: str) -> tuple[str, ...]:
    """What a reader of a manifest is told first. `needs`: what the cluster has to have beside the volume and the secret; `ask`: where requests
    go."""
    servers = ", ".join(f"{s.name} {s.replicas} x {s.nodes} x {s.gpus_per_node} GPUs" for s in one.servers)
    lines = [
        f"{one.name} on {one.label}: {servers} (replicas x pods x GPUs)",
        *one.notes,
        *(f"needs {need}" for need in needs),
        f"needs the claim `{CLAIM}`, on which pods keep checkpoints and which all of them may mount; a checkpoint given by path lies in {MODELS} of it",
        f"needs the secret `{SECRET}` with {TOKEN}, where the checkpoint asks for one",
    ]
    pools = {label(server.pool) for server in one.servers}
    if len(pools) > 1:
        lines.append(f"needs nodes with labels of their GPUs: {', '.join(f'{POOL}={pool}' for pool in sorted(pools))}")
    if any(joins_others(server) for server in one.servers):
        lines.append("pods reach each other over the cluster's network unless they ask for network cards (rdma/...)")
    if beyond := _beyond_hosts(one):
        names = ", ".join(beyond)
        lines.append(
            f"NVLink between hosts ({names}) needs pods with a claim on a channel of a ComputeDomain (NVIDIA's DRA driver)"
        )
    return (*lines, ask)


def forwarded(one: Deployment, service: str, port: int) -> str:
    """How requests from elsewhere, those of the bench among them, come to a service."""
    return f"requests go to the service {service}; from elsewhere: kubectl port-forward service/{service} {one.entrance[1]}:{port}"
