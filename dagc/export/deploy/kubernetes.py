"""Objects of Kubernetes: a LeaderWorkerSet for each server, whose groups are its replicas, and a router in front of them."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import record
from . import pods
from .deployment import HEALTH, Deployment, Router, Server, refused
from .dns_labels import labels
from .manifest import Document, text
from .pods import Object, Words

PLAN, COMPONENT = "app.kubernetes.io/part-of", "app.kubernetes.io/component"
SET, INDEX = "leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/worker-index"
"""Labels; the last two are the controller's own, by which a service finds first pods."""
LINKS = {"enableServiceLinks": False}
"""Otherwise pods get variables that are called like services: one of a plan `vllm` would set VLLM_..., which the engine reads."""
WAIT = """\
import sys, time, urllib.request
end = time.monotonic() + float(sys.argv[1])
for url in sys.argv[2:]:
    while True:
        try:
            urllib.request.urlopen(url, timeout=5)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(5)
"""
"""What a router's pod runs first: a router looks for its servers once."""


@record
class Names:
    """Of objects: all different, since a set has a service of its own name. `sets`, `services`: by server."""

    plan: str
    router: str
    sets: Mapping[str, str]
    services: Mapping[str, str]

    @classmethod
    def of(cls, one: Deployment) -> Names:
        servers = [server.name for server in one.servers]
        own = [f"{one.name}-{name}" for name in servers]
        plan, router, *made = labels([one.name, f"{one.name}-router", *own, *(f"{name}-http" for name in own)])
        sets = dict(zip(servers, made, strict=False))
        return cls(plan, router, sets, dict(zip(servers, made[len(servers) :], strict=True)))


def write(one: Deployment) -> Mapping[str, str]:
    """Files by suffix. Raises SpecError with E05 where pods cannot run a server."""
    refuse_ranks_apart(one)
    names = Names.of(one)
    documents = [document for server in one.servers for document in _server(one, server, names)]
    front, port = names.services[one.servers[0].name], pods.ports(one)["http"]
    if one.router is not None:
        documents += _router(one, one.router, names)
        front, port = names.router, one.router.port
    first, *rest = documents
    needs = ("the LeaderWorkerSet controller (leaderworkerset.x-k8s.io/v1)",)
    about = pods.about(one, needs, pods.forwarded(one, front, port))
    return {
        "kubernetes.yaml": text(
            [Document(first.content, (*about, *[""] * bool(first.comments), *first.comments)), *rest]
        )
    }


def refuse_ranks_apart(one: Deployment) -> None:
    """Pods have no MPI between them."""
    for server in one.servers:
        if server.by_rank and server.nodes > 1:
            message = f"`{server.name}` spans {server.nodes} nodes: {one.label} starts its ranks by MPI, which pods do not have"
            raise refused(message, "--launcher dynamo, whose operator starts them, or slurm")


def _server(one: Deployment, server: Server, names: Names) -> list[Document]:
    name = names.sets[server.name]
    marks = {PLAN: names.plan, COMPONENT: server.role if server.role != "both" else "server"}
    config = f"{name}-config" if server.files else ""
    apart = server.nodes > 1
    template: Object = {"size": server.nodes}
    if apart:
        template["leaderTemplate"] = _pod(one, server, names.sets, marks, config, first=True)
    template["workerTemplate"] = _pod(one, server, names.sets, marks, config, first=not apart)
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "labels": dict(marks)},
        "spec": {"replicas": server.replicas, "leaderWorkerTemplate": template},
    }
    documents = [pods.config_map(config, server.files)] if config else []
    selector = {SET: name, INDEX: "0"}
    service = _service(names.services[server.name], selector, pods.ports(one)["http"], marks)
    return [*documents, Document(body, server.about), Document(service)]


def _pod(
    one: Deployment, server: Server, names: Mapping[str, str], marks: Mapping[str, str], config: str, *, first: bool
) -> Object:
    words = Words(one, server, names, node="0" if first else pods.NODE)
    box: Object = {
        "name": "engine",
        "image": pods.image(one, server),
        **pods.run(words.all(server.command), pods.PROGRAMS[server.engine]),
        "env": pods.environment(words, server),
        "resources": pods.gpus(server),
        **pods.locked(server),
        "volumeMounts": pods.mounts(config),
    }
    if first:
        box["ports"] = [{"name": "http", "containerPort": words.ports["http"]}]
        box |= pods.probes(pods.asks("http"))
    spec = {"containers": [box], "volumes": pods.volumes(config), **pods.placed(one, server), **LINKS}
    return {"metadata": {"labels": dict(marks)}, "spec": spec}


def _service(name: str, selector: Mapping[str, str], port: int, marks: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(marks)},
        "spec": {"selector": dict(selector), "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
    }


def _router(one: Deployment, router: Router, names: Names) -> list[Document]:
    """A pod that waits for every server, and then routes."""
    name = names.router
    marks = {PLAN: names.plan, COMPONENT: "router"}
    words = Words(one, None, names.sets)
    command = words.all(router.command)
    picture = pods.platforms()["routers"].get(one.engine) or pods.image(one, one.servers[0])
    urls = [
        f"http://{names.sets[server.name]}-{replica}.{names.sets[server.name]}:{words.ports['http']}{HEALTH}"
        for server, replica in one.ends
    ]
    box: Object = {
        "name": "router",
        "image": picture,
        **pods.run(command, 1),
        "ports": [{"name": "http", "containerPort": router.port}],
        "readinessProbe": {**pods.asks("http"), "periodSeconds": pods.PERIOD_S, "timeoutSeconds": pods.PERIOD_S},
    }
    waits = {"name": "wait", "image": picture, "command": ["python3", "-c", WAIT], "args": [str(pods.START_S), *urls]}
    spec: Object = {"initContainers": [waits], "containers": [box], **LINKS}
    documents = []
    if router.file:
        config = f"{name}-config"
        documents.append(pods.config_map(config, {"yaml": "".join(words.one_word(piece) for piece in router.file)}))
        box["volumeMounts"] = [{"name": "config", "mountPath": pods.CONFIG, "readOnly": True}]
        spec["volumes"] = [{"name": "config", "configMap": {"name": config}}]
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": dict(marks)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": dict(marks)},
            "template": {"metadata": {"labels": dict(marks)}, "spec": spec},
        },
    }
    service = _service(name, marks, router.port, marks)
    return [*documents, Document(body), Document(service)]
