"""Objects of Kubernetes that run servers: sets of pods, and graphs of Dynamo, with the configuration that they mount."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...base.source import Span
from ...base.yaml_text import Entries, Node, Scalar, at, entries_at, items_at, text_at
from .servers_found import Placed
from .wrappers import Program, Read, data, entry_of, unwrapped

REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
"""In words of a container: another variable; `$$` is `$`."""
ROLE_LABEL = re.compile(r"(^|[./])(role|component|sub-component-type|disagg-role)$")
SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job", "Pod", "LeaderWorkerSet")


def is_manifest(documents: Sequence[Node]) -> bool:
    return any(text_at(one, "kind") and text_at(one, "apiVersion") for one in documents)


def placed(documents: Sequence[Node], where: str, read: Read) -> list[Placed]:
    """Programs of every container that is no one-time preparation. Raises ShellError."""
    every = [one for document in documents for one in _listed(document)]
    maps = maps_of(every)
    out: list[Placed] = []
    for one in every:
        kind = text_at(one, "kind") or ""
        if kind == "DynamoGraphDeployment":
            out += _graph(one, maps, where, read)
        elif kind in SCALED:
            out += _set(one, kind, maps, where, read)
    return out


def _listed(document: Node) -> Iterable[Node]:
    return items_at(document, "items") if (text_at(document, "kind") or "").endswith("List") else (document,)


def count(node: Node | None, *path: str | int) -> int:
    """A whole number that a file has; 0: there is none."""
    text = text_at(node, *path) or ""
    return int(text) if re.fullmatch(r"\d{1,6}", text) else 0


def _set(one: Node, kind: str, maps: Mapping[str, Node], where: str, read: Read) -> list[Placed]:
    name = text_at(one, "metadata", "name") or kind
    replicas = at(one, "spec", "replicas")
    nodes = 0
    pod = at(one, "spec") if kind == "Pod" else at(one, "spec", "template", "spec")
    labels = [at(one, "metadata", "labels"), at(one, "spec", "template", "metadata", "labels")]
    if kind == "LeaderWorkerSet":
        group = at(one, "spec", "leaderWorkerTemplate")
        first = at(group, "leaderTemplate") or at(group, "workerTemplate")
        nodes = count(group, "size") or 1
        pod, labels = at(first, "spec"), [*labels, at(first, "metadata", "labels")]
    number = count(replicas) if replicas is not None else 1
    if replicas is not None and not re.fullmatch(r"\d{1,6}", text_at(replicas) or ""):
        raise SpecError(
            [
                Diagnostic(
                    "E05", f"{where}: a number of replicas is a whole number of at most 6 digits", span_of(replicas)
                )
            ]
        )
    if not number:
        return []
    about = About(name, number, nodes, tuple(_role_words(labels)), where)
    outer = {"LWS_GROUP_SIZE": str(nodes)} if kind == "LeaderWorkerSet" else {}
    return _pod(pod, about, maps, read, outer)


def _role_words(labels: Iterable[Node | None]) -> Iterable[str]:
    for one in labels:
        for key, value in entries_at(one).items():
            if ROLE_LABEL.search(key) and isinstance(value, Scalar):
                yield value.text


@record
class About:
    """What is around a container. `names`: others of it, for its role."""

    name: str
    replicas: int
    nodes: int
    names: tuple[str, ...]
    where: str
    role: str = ""


def _pod(
    pod: Node | None,
    about: About,
    maps: Mapping[str, Node],
    read: Read,
    outer: Mapping[str, str],
) -> list[Placed]:
    volumes = volumes_of(items_at(pod, "volumes"))
    out: list[Placed] = []
    for box in items_at(pod, "containers"):
        out += container(box, about, mounted(box, volumes, maps), read, outer=outer)
    return out


def maps_of(objects: Iterable[Node]) -> dict[str, Node]:
    """Maps of configuration by name."""
    found = [one for one in objects if text_at(one, "kind") == "ConfigMap"]
    return {name: one for one in found if (name := text_at(one, "metadata", "name"))}


def volumes_of(nodes: Iterable[Node]) -> dict[str, str]:
    """Names of volumes that are maps of configuration, and of these."""
    pairs = [(text_at(one, "name"), text_at(one, "configMap", "name")) for one in nodes]
    return {name: config for name, config in pairs if name and config}


def mounted(box: Node, volumes: Mapping[str, str], maps: Mapping[str, Node]) -> dict[str, str]:
    """Files that a container has from maps of configuration."""
    files = {}
    for mount in items_at(box, "volumeMounts"):
        config = maps.get(volumes.get(text_at(mount, "name") or "", ""))
        folder = text_at(mount, "mountPath") or ""
        part = text_at(mount, "subPath")
        for key, value in entries_at(config, "data").items():
            if isinstance(value, Scalar) and (part is None or part == key):
                files[folder if part is not None else f"{folder.rstrip('/')}/{key}"] = value.text
    return files


def environment_of(nodes: Iterable[Node]) -> dict[str, str]:
    """Of `env` lists. What comes from elsewhere stays a reference."""
    found: dict[str, str] = {}
    for one in nodes:
        name = text_at(one, "name")
        if name is not None:
            value = text_at(one, "value")
            found[name] = f"${name}" if value is None else referred(value, found)
    return found


def referred(word: str, environment: Mapping[str, str]) -> str:
    """A word of a container with the variables that it refers to; the rest are for the shell or the program."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name = found[1]
        given = environment.get(name, data()["variables"].get(name))
        return str(given) if given is not None else f"${{{name}}}" if re.fullmatch(r"\w+", name) else found[0]

    return REFERENCE.sub(value, word)


def words_of(node: Node | None) -> list[str]:
    if isinstance(node, Scalar) and node.value is not None:
        return [node.text]
    return [one.text for one in items_at(node) if isinstance(one, Scalar)]


def container(
    box: Node,
    about: About,
    files: Mapping[str, str],
    read: Read,
    *,
    gpus: int = 0,
    outer: Mapping[str, str] | None = None,
    program: Sequence[str] = (),
) -> list[Placed]:
    """Programs that a container starts. `program`: what it runs before its own words, where something else decides that."""
    environment = {**(outer or {}), **environment_of(items_at(box, "env"))}
    command = [*program, *words_of(at(box, "command"))]
    if not command:
        command = entry_of(text_at(box, "image") or "")
    argv = [referred(word, environment) for word in (*command, *words_of(at(box, "args")))]
    if not argv:
        return []
    started = unwrapped(Program(tuple(argv), environment, files), read.beside(files))
    gpus = gpus or gpus_of(box)
    spot = span_of(at(box, "args") or at(box, "command") or box)
    return [
        Placed(one, about.role, about.replicas, about.nodes, gpus, about.name, about.names, about.where, spot)
        for one in started
    ]


def span_of(node: Node) -> Span:
    """Its first line."""
    span = node.span
    end = span.source.text.find("\n", span.start, span.end)
    return span if end < 0 else Span(span.source, span.start, end)


def gpus_of(box: Node | None) -> int:
    """That each pod gets."""
    for kind in ("limits", "requests"):
        for name, value in entries_at(box, "resources", kind).items():
            if (name == "gpu" or name.endswith("/gpu")) and isinstance(value, Scalar):
                return count(value)
    return 0


def _graph(one: Node, maps: Mapping[str, Node], where: str, read: Read) -> list[Placed]:
    """Of Dynamo: v1alpha1 has services by name, v1beta1 a list of components."""
    shared = environment_of((*items_at(one, "spec", "envs"), *items_at(one, "spec", "env")))
    out: list[Placed] = []
    for name, service in entries_at(one, "spec", "services").items():
        if text_at(service, "componentType") in ("frontend", "planner"):
            continue
        box = at(service, "extraPodSpec", "mainContainer")
        about = _component(name, service, text_at(service, "subComponentType"), where)
        if about is None or box is None:
            continue
        outer = {**shared, **environment_of(items_at(service, "envs"))}
        volumes = volumes_of(items_at(service, "extraPodSpec", "volumes"))
        out += container(box, about, mounted(box, volumes, maps), read, gpus=gpus_of(service), outer=outer)
    for part in items_at(one, "spec", "components"):
        kind = text_at(part, "type")
        about = _component(text_at(part, "name") or "", part, kind, where)
        if kind not in ("frontend", "planner") and about is not None:
            pod = at(part, "podTemplate", "spec")
            main = [box for box in items_at(pod, "containers") if text_at(box, "name") == "main"] or items_at(
                pod, "containers"
            )[:1]
            volumes = volumes_of(items_at(pod, "volumes"))
            for box in main:
                out += container(box, about, mounted(box, volumes, maps), read, outer=shared)
    return out


def _component(name: str, node: Node, kind: str | None, where: str) -> About | None:
    number = 1 if at(node, "replicas") is None else count(node, "replicas")
    role = kind if kind in ("prefill", "decode") else ""
    nodes = count(node, "multinode", "nodeCount") or 1
    return About(name, number, nodes, (), where, role) if number else None


def has_graph(documents: Sequence[Node]) -> bool:
    return any(isinstance(one, Entries) and text_at(one, "kind") == "DynamoGraphDeployment" for one in documents)
