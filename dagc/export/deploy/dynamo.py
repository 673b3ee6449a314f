"""A graph deployment of Dynamo: a component for each server, which its operator joins, and a front end that routes between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...engines.facts import facts
from ..engines.words import Others, parts_of
from . import pods
from .deployment import Deployment, Server, refused
from .dns_labels import labels
from .manifest import Document, text
from .pods import Object, Words

PLAN_LENGTH, COMPONENT_LENGTH = 20, 10
"""Characters: pods have names of the graph and, twice, of the component in theirs, 45 in all with what Grove appends."""
FRONT_PORT = 8000
"""Of the front end, which the operator makes a service for."""


def engine_version(engine: str) -> str | None:
    """Which Dynamo's release is built with."""
    known = pods.platforms()["dynamo"]["engines"].get(engine)
    return None if known is None else str(known["pinned"])


def write(one: Deployment) -> Mapping[str, str]:
    """Files by suffix. Raises SpecError with E05 where Dynamo's images have another version of the engine, or none for the GPUs."""
    known = pods.platforms()["dynamo"]
    engine = known["engines"][one.engine]
    picture = one.image or _image(one, known)
    if len(one.servers) > known["most_servers"]:
        message = f"a graph of Dynamo has up to {known['most_servers']} servers, and these are {len(one.servers)}"
        raise refused(message, "--phase exports some of them")
    plan = labels([one.name], PLAN_LENGTH)[0]
    _, *names = labels(["frontend", *map(_short, one.servers)], COMPONENT_LENGTH)
    front = {"name": "main", "image": picture, "command": ["python3", "-m", "dynamo.frontend"]}
    front["args"] = ["--http-port", str(FRONT_PORT), *_route(one, known)]
    components = [_named("frontend", "frontend", 1, {"containers": [front]})]
    documents = []
    for server, name in zip(one.servers, names, strict=True):
        config = f"{plan}-{name}-config" if server.files else ""
        components.append(_component(one, server, name, config, engine, picture))
        documents += [pods.config_map(config, server.files)] if config else []
    body = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": plan},
        "spec": {"backendFramework": one.engine, "components": components},
    }
    needs = [f"the operator of Dynamo (nvidia.com/v1beta1), checked against {known['version']}"]
    if any(server.nodes > 1 for server in one.servers):
        needs.append(
            "what starts pods of one server together: Grove with KAI Scheduler, or LeaderWorkerSet with Volcano"
        )
    comments = [*pods.about(one, needs, pods.forwarded(one, f"{plan}-frontend", FRONT_PORT))]
    for server, name in zip(one.servers, names, strict=True):
        comments += ["", f"component {name}:", *server.about]
    return {"dynamo.yaml": text([*documents, Document(body, tuple(comments))])}


def _route(one: Deployment, known: Mapping[str, Any]) -> list[str]:
    """How a serving shares requests out, where it says so."""
    said = next((serve.route for serve in one.spec.serves if "route" in serve.spans), None)
    return [] if said is None else ["--router-mode", known["route"][said]]


def _short(server: Server) -> str:
    return server.name if len(server.name) <= COMPONENT_LENGTH else _kind(server)


def _kind(server: Server) -> str:
    return server.role if server.role != "both" else "worker"


def _image(one: Deployment, known: Mapping[str, Any]) -> str:
    """Of Dynamo's release, with the engine in it."""
    engine = known["engines"][one.engine]
    other = next((server.vendor for server in one.servers if server.vendor != "nvidia"), None)
    if other is not None:
        raise refused(f"Dynamo {known['version']} has no image for GPUs of {other}", "--image names one")
    if one.version != engine["pinned"]:
        message = (
            f"Dynamo {known['version']} runs {engine['pinned']} of the engine, and the options are for {one.label}"
        )
        raise refused(message, "leave --engine-version out", "--image names an image with the other version")
    picture: str = known["image"].format(runtime=engine["runtime"], version=known["version"])
    return picture


def _named(name: str, kind: str, replicas: int, spec: Object, nodes: int = 1) -> Object:
    several = {"multinode": {"nodeCount": nodes}} if nodes > 1 else {}
    # Workers bring shared memory of their own, as much as a node has: the operator's has a fixed size.
    memory = {"sharedMemorySize": "0"} if "volumes" in spec else {}
    return {"name": name, "type": kind, "replicas": replicas, **several, **memory, "podTemplate": {"spec": spec}}


def _component(
    one: Deployment, server: Server, name: str, config: str, engine: Mapping[str, Any], picture: str
) -> Object:
    words = Words(one, server, {})
    options = facts(one.engine, one.version).options
    left_out = {options[key].name for key in engine["left_out"] if key in options}
    box: Object = {
        "name": "main",
        "image": picture,
        "command": ["python3", "-m", engine["module"]],
        "args": _arguments(one, server, words, engine, left_out),
        "env": pods.environment(words, server, left_out=tuple(left_out)),
        "resources": pods.gpus(server),
        **pods.locked(server),
        "volumeMounts": pods.mounts(config),
    }
    spec = {"containers": [box], "volumes": pods.volumes(config), **pods.placed(one, server)}
    return _named(name, _kind(server), server.replicas, spec, server.nodes)


def _arguments(
    one: Deployment, server: Server, words: Words, engine: Mapping[str, Any], left_out: set[str]
) -> list[str]:
    """Of Dynamo's worker: the engine's own, but for what the worker and the operator know better, and its role."""
    options = facts(one.engine, one.version).options
    renamed = {options[key].name: name for key, name in engine.get("renamed", {}).items()}
    kept: list[str] = []
    # Every command has the checkpoint before its options.
    rest = list(server.command)[server.command.index(server.model, pods.PROGRAMS[one.engine]) + 1 :]
    while rest:
        first = rest.pop(0)
        if any(isinstance(part, Others) for part in parts_of(first)):
            continue
        if str(first) in left_out:
            rest.pop(0)
            continue
        kept.append(renamed.get(first, first))
    out = [engine["model"], pods.literal(server.model), *words.all(kept)]
    if server.role != "both":
        out += [engine["role"], server.role] if "role" in engine else []
        out += engine.get("split", [])
    return out
