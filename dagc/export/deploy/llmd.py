"""Values of llm-d's chart of model servers: one kind of prefill server and one of decode, or servers that do both."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.axes import SEQUENCE, STAGES, TENSOR
from ..engines.script import broken
from ..engines.words import Others, Shell, parts_of
from . import pods
from .deployment import HEALTH, Deployment, Server, refused
from .dns_labels import labels
from .kubernetes import INDEX, refuse_ranks_apart
from .manifest import Document, text
from .pods import Object, Words

NAME_LENGTH = 40
SERVING = {"llm-d.ai/inference-serving": "true"}
"""The label by which requests find pods."""
REST = '"$@"'
APART = 200
"""How far the port of a decode server lies from that of its pod's proxy, which takes its place."""


def write(one: Deployment) -> Mapping[str, str]:
    """Files by suffix. Raises SpecError with E05 where the chart has no place for a server, or its proxy does not know the engine."""
    refuse_ranks_apart(one)
    known = pods.platforms()["llm-d"]
    roles = _roles(one, known)
    first = roles.get("prefill", roles["decode"])
    split = "prefill" in roles
    port = pods.ports(one)["http"]
    proxy: Object = {"enabled": split}
    if split:
        proxy |= {"image": known["sidecar"], "connector": known["connectors"][one.engine]}
        proxy |= {"targetPort": port + APART, "secure": False}
    several = any(server.nodes > 1 for server in one.servers)
    content: Object = {
        "fullnameOverride": labels([one.name], NAME_LENGTH)[0],
        "multinode": several,
        "modelArtifacts": {
            "name": one.model,
            "labels": dict(SERVING),
            "uri": f"pvc://{pods.CLAIM}/{one.model.strip('/')}",
            "mountPath": pods.MODELS,
            "readOnly": False,
        },
        "accelerator": {"type": first.vendor},
        "routing": {"servicePort": port, "proxy": proxy},
    }
    for role in ("decode", "prefill"):
        server = roles.get(role)
        listens = port + APART if split and role == "decode" else port
        content[role] = {"create": False} if server is None else _pods(one, server, listens, several)
    files = [server for server in roles.values() if server.files]
    if files:
        content["extraObjects"] = [pods.config_map(_config(one, server), server.files).content for server in files]
    chart = f"the chart llm-d-modelservice {known['version']} (helm install -f)"
    needs = [f"{chart}, a gateway, and the scheduler of requests that llm-d has for it"]
    comments = [*pods.about(one, needs, "requests go to the gateway"), *_selected(several)]
    for role, server in roles.items():
        comments += ["", f"{role}:", *server.about]
    return {"llm-d.yaml": text([Document(content, tuple(comments))])}


def _roles(one: Deployment, known: Mapping[str, object]) -> Mapping[str, Server]:
    """Which server is which of the chart's two. One that does both is its `decode`."""
    roles: dict[str, Server] = {}
    for server in one.servers:
        role = server.role if server.role != "both" else "decode"
        if role in roles:
            names = f"`{roles[role].name}` and `{server.name}`"
            raise refused(
                f"llm-d's chart has one kind of {role} server: {names} are two",
                "--phase exports one of them",
                "--launcher kubernetes takes any number",
            )
        roles[role] = server
    if len({server.vendor for server in one.servers}) > 1:
        raise refused("llm-d's chart has GPUs of one vendor", "--launcher kubernetes takes several")
    connectors = known["connectors"]
    assert isinstance(connectors, dict)
    if "prefill" in roles and one.engine not in connectors:
        why = f"llm-d's proxy does not know how servers of {one.label} pass caches on"
        raise refused(why, "--launcher kubernetes, or dynamo")
    return roles


def _selected(several: bool) -> list[str]:
    if not several:
        return []
    return [f'only first pods answer requests: the pool that they are routed to selects {INDEX}: "0" too']


def _config(one: Deployment, server: Server) -> str:
    return labels([f"{one.name}-{server.name}"], NAME_LENGTH)[0] + "-config"


def _pods(one: Deployment, server: Server, listens: int, several: bool) -> Object:
    """Of one role. All pods of a server have one template, so what differs among them is decided when it starts."""
    config = _config(one, server) if server.files else ""
    words = Words(one, server, {}, node="0" if server.nodes == 1 else pods.NODE, others={"http": listens})
    box: Object = {
        "name": "engine",
        "image": pods.image(one, server),
        "modelCommand": "custom",
        **_command(server, words),
        "env": [_rendered(variable) for variable in pods.environment(words, server)],
        "ports": [{"name": "http", "containerPort": listens}],
        "resources": pods.gpus(server),
        "mountModelVolume": True,
        "volumeMounts": [mount for mount in pods.mounts(config) if mount["mountPath"] != pods.MODELS],
        "extraConfig": {**pods.locked(server), **pods.probes(_asks(server, listens))},
    }
    # The chart counts GPUs of a pod as tensor x dataLocal, and pods of a server as workers; the command has the plan's degrees.
    degrees = server.degrees
    ranks = degrees[TENSOR] * degrees[STAGES] * degrees[SEQUENCE]
    local = server.gpus_per_node // ranks if server.gpus_per_node % ranks == 0 else 1
    counted = {"tensor": server.gpus_per_node // local, "data": local * server.nodes, "dataLocal": local}
    return {
        "create": True,
        "replicas": server.replicas,
        **pods.placed(one, server),
        "enableServiceLinks": False,
        "parallelism": {**counted, "workers": server.nodes},
        "containers": [box],
        "volumes": [volume for volume in pods.volumes(config) if volume["name"] != "models"],
    }


def _command(server: Server, words: Words) -> Object:
    """Variables of the pod are put in before a shell sees the script."""
    flags = [part.word for word in server.command for part in parts_of(word) if isinstance(part, Others)]
    if not flags or server.nodes == 1:
        return pods.run(words.all(server.command), pods.PROGRAMS[server.engine])
    others = [word for word in server.command if not isinstance(parts_of(word)[0], Others)]
    choice = f'if [ "$LWS_WORKER_INDEX" = 0 ]; then set --; else set -- {" ".join(flags)}; fi'
    script = f"{choice}\n{broken(['exec', *words.all(others), Shell(REST)])}\n"
    return {"command": ["/bin/bash", "-c"], "args": [script]}


def _asks(server: Server, port: int) -> Object:
    """Whether a pod serves; one that is not the first of its server serves nobody."""
    if server.nodes == 1:
        return pods.asks(port)
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{HEALTH}', timeout=5)"
    return {"exec": {"command": ["/bin/bash", "-c", f'[ "$LWS_WORKER_INDEX" != 0 ] || exec python3 -c "{ask}"']}}


def _rendered(variable: Object) -> Object:
    """The chart takes `{{` in a variable for its own."""
    value = variable.get("value")
    return {**variable, "value": value.replace("{{", '{{ "{{" }}')} if isinstance(value, str) else variable
