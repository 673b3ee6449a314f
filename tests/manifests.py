"""Checks of Kubernetes manifests for the tests: schemas of every kind, and that what one object names is there in another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "deploy"
CORE = {"Service", "ConfigMap", "Deployment", "Pod"}
CUSTOM = {
    "LeaderWorkerSet": "leaderworkerset.v1",
    "DynamoGraphDeployment": "dynamographdeployment.v1beta1",
    "values": "llm-d-modelservice.v0.4.12",
}
"""Schemas of our own by kind; `values` are those of llm-d's chart, which have no kind."""
KUBERNETES = "1.33"
GIVEN = {"LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX"}
"""Variables that the controller of LeaderWorkerSets adds."""

Object = dict[str, Any]


@cache
def _validator(name: str) -> Any:
    import jsonschema

    schema = json.loads((DATA / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@cache
def _package() -> Any:
    """kubernetes-validate, whose files of schemas are read once."""
    import kubernetes_validate

    kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
    return kubernetes_validate


def documents(text: str) -> list[Object]:
    import yaml

    return list(yaml.safe_load_all(text))


def kind(document: Object) -> str:
    return str(document.get("kind", "values"))


def faults(document: Object) -> list[str]:
    """What is wrong with a document by itself."""
    name = kind(document)
    if name in CUSTOM:
        found = [f"{e.json_path}: {e.message}" for e in _validator(CUSTOM[name]).iter_errors(document)]
        return found or [fault for pod in pods(document) for fault in faults(pod)]
    assert name in CORE, name
    core = _package()
    try:
        core.validate(document, KUBERNETES, strict=True)
    except core.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def pods(document: Object) -> Iterator[Object]:
    """The templates of a document as pods."""
    match kind(document):
        case "LeaderWorkerSet":
            group = document.get("spec", {}).get("leaderWorkerTemplate", {})
            templates = [group[key] for key in ("leaderTemplate", "workerTemplate") if key in group]
        case "Deployment":
            templates = [document["spec"]["template"]]
        case "DynamoGraphDeployment":
            components = document.get("spec", {}).get("components", [])
            templates = [one["podTemplate"] for one in components if "podTemplate" in one]
        case "values":
            templates = [_of_chart(document[role]) for role in ("decode", "prefill") if document[role].get("create")]
        case _:
            templates = []
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **template.get("metadata", {})}}
        yield {**pod, "spec": template.get("spec")}


def _of_chart(values: Object) -> Object:
    """What the chart makes of the values of a role, as far as these say it (templates/_helpers.tpl: container, modelPod)."""
    boxes = []
    for one in values["containers"]:
        box = {k: v for k, v in one.items() if k not in ("modelCommand", "mountModelVolume", "extraConfig")}
        box |= one.get("extraConfig", {})
        if one.get("mountModelVolume"):
            box["volumeMounts"] = [*box.get("volumeMounts", ()), {"name": "model-storage", "mountPath": "/models"}]
        boxes.append(box)
    storage = {"name": "model-storage", "persistentVolumeClaim": {"claimName": "model-cache", "readOnly": False}}
    return {"spec": {"containers": boxes, "volumes": [*values.get("volumes", ()), storage]}}


def loose_ends(found: list[Object]) -> list[str]:
    """What pods name and do not have: volumes, ports of probes, variables; and objects that documents name and nothing makes."""
    maps = {one["metadata"]["name"] for one in every(found) if kind(one) == "ConfigMap"}
    out = []
    for document in found:
        for pod in pods(document):
            spec = pod["spec"]
            volumes = {one["name"]: one for one in spec.get("volumes", ())}
            out += [f"volume {name} twice" for name in volumes if len(volumes) != len(spec.get("volumes", ()))]
            named = {one["configMap"]["name"] for one in volumes.values() if "configMap" in one}
            out += [f"no ConfigMap {name}" for name in named - maps]
            for box in [*spec.get("initContainers", ()), *spec["containers"]]:
                out += _of_container(box, set(volumes))
    return out


def every(found: list[Object]) -> Iterator[Object]:
    for document in found:
        yield document
        yield from document.get("extraObjects", ())


def _of_container(box: Object, volumes: set[str]) -> Iterator[str]:
    mounts = box.get("volumeMounts", ())
    yield from (f"no volume {one['name']}" for one in mounts if one["name"] not in volumes)
    paths = [one["mountPath"] for one in mounts]
    yield from (f"{path} is mounted twice" for path in paths if paths.count(path) > 1)
    ports = {one["name"]: one["containerPort"] for one in box.get("ports", ())}
    for key in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = box.get(key, {}).get("httpGet", {}).get("port")
        if asked is not None and asked not in ports and asked not in ports.values():
            yield f"{key} asks port {asked}"
    names = [one["name"] for one in box.get("env", ())]
    yield from (f"{name} is set twice" for name in names if names.count(name) > 1)
    known = set(GIVEN)
    for one in box.get("env", ()):
        yield from (f"{one['name']} refers to {name}" for name in variables(one.get("value", "")) if name not in known)
        known.add(one["name"])
    for word in [*box.get("command", ()), *box.get("args", ())]:
        yield from (f"{word!r} refers to {name}" for name in variables(word) if name not in known)


def variables(word: str) -> list[str]:
    """Names that Kubernetes replaces: `$$` is a dollar sign."""
    return [name for name in re.findall(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)", word) if name]


def expanded(word: str, known: Mapping[str, str]) -> str:
    """As Kubernetes does (third_party/forked/golang/expansion): names that it does not know stay."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else known.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)", one, word)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every key in a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from paths(inner, (*at, key))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from paths(inner, (*at, k))
