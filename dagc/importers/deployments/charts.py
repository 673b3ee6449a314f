"""Values of llm-d's chart of model servers, and the services of a compose file: containers without objects around them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...base.harmless import harmless
from ...base.yaml_text import Node, Scalar, at, entries_at, items_at, text_at
from .manifests import About, container, count, gpus_of, maps_of, mounted, span_of, volumes_of, words_of
from .servers_found import Placed
from .wrappers import Program, Read, entry_of, unwrapped

ROLES = ("prefill", "decode")


def is_values(documents: Sequence[Node]) -> bool:
    return any(
        at(one, "modelArtifacts") is not None or items_at(one, role, "containers")
        for one in documents
        for role in ROLES
    )


def values(documents: Sequence[Node], where: str, read: Read) -> list[Placed]:
    """`prefill` and `decode` of the chart llm-d-modelservice (templates/_helpers.tpl). Raises ShellError."""
    out: list[Placed] = []
    for one in documents:
        maps = maps_of(items_at(one, "extraObjects"))
        both = all(text_at(one, role, "create") != "false" and items_at(one, role, "containers") for role in ROLES)
        for role in ROLES:
            part = at(one, role)
            replicas = 1 if at(part, "replicas") is None else count(part, "replicas")
            if text_at(part, "create") == "false" or not replicas:
                continue
            degrees = _degrees(part)
            nodes = degrees.workers if text_at(one, "multinode") == "true" else 1
            about = About(role, replicas, nodes, (), where, role if both else "")
            # The pod gets GPUs for its ranks where the container does not say how many.
            for box in items_at(part, "containers"):
                program = _program(box, one, degrees)
                gpus = gpus_of(box) or degrees.local * degrees.tensor
                files = mounted(box, volumes_of(items_at(part, "volumes")), maps)
                out += container(box, about, files, read, gpus=gpus, outer=degrees.environment, program=program)
    return out


@record
class Degrees:
    """What the chart works out of `parallelism`: _helpers.tpl, dataParallelism and its like."""

    tensor: int
    data: int
    local: int
    workers: int

    @property
    def environment(self) -> dict[str, str]:
        return {"DP_SIZE": str(self.data), "TP_SIZE": str(self.tensor), "DP_SIZE_LOCAL": str(self.local)}


def _degrees(part: Node | None) -> Degrees:
    ranks, local, workers = (count(part, "parallelism", key) for key in ("data", "dataLocal", "workers"))
    return Degrees(
        count(part, "parallelism", "tensor") or 1,
        ranks or (local * (workers or 1)) or 1,
        local or (ranks // (workers or 1)) or 1,
        workers or (ranks // local if ranks and local else 1),
    )


def _program(box: Node, whole: Node, degrees: Degrees) -> tuple[str, ...]:
    """What the chart puts before the container's own words, by `modelCommand`."""
    kind = text_at(box, "modelCommand") or "custom"
    starts = {"vllmServe": ("vllm", "serve"), "imageDefault": (*entry_of(text_at(box, "image") or ""), "--model")}
    # aiconfigurator writes a word that the chart does not have.
    if kind == "sglangServe":
        return ("python3", "-m", "sglang.launch_server")
    if kind not in starts:
        return ()
    words = [*starts[kind], _model(whole)]
    for option, degree in (
        ("--tensor-parallel-size", degrees.tensor),
        ("--data-parallel-size", degrees.data),
        ("--data-parallel-size-local", degrees.local),
    ):
        if degree > 1:
            words += [option, str(degree)]
    return tuple(words)


def _model(whole: Node) -> str:
    """Of `modelArtifacts.uri`: hf://org/name, pvc://claim/path, pvc+hf://claim/path/org/name."""
    protocol, _, path = (text_at(whole, "modelArtifacts", "uri") or "").partition("://")
    if protocol == "pvc":
        return f"{text_at(whole, 'modelArtifacts', 'mountPath') or '/model-cache'}/{path.partition('/')[2]}"
    if protocol == "pvc+hf":
        return "/".join(path.split("/")[-2:])
    return path or text_at(whole, "modelArtifacts", "name") or ""


def is_compose(documents: Sequence[Node]) -> bool:
    def runs(service: Node) -> bool:
        return any(at(service, key) is not None for key in ("image", "build", "command"))

    return any(any(runs(service) for service in entries_at(one, "services").values()) for one in documents)


def compose(documents: Sequence[Node], where: str, read: Read) -> list[Placed]:
    """Services of a compose file. Raises ShellError, and SpecError for a command that is none."""
    out: list[Placed] = []
    for one in documents:
        for name, service in entries_at(one, "services").items():
            out += _service(name, service, where, read)
    return out


def _service(name: str, service: Node, where: str, read: Read) -> list[Placed]:
    environment: dict[str, str] = {}
    for key, value in entries_at(service, "environment").items():
        environment[key] = (
            _filled(value.text, read) if isinstance(value, Scalar) and value.value is not None else f"${key}"
        )
    for item in words_of(at(service, "environment")):
        key, equals, text = item.partition("=")
        environment[key] = _filled(text, read) if equals else f"${key}"
    entry = _words(at(service, "entrypoint"), read)
    argv = (*(entry or entry_of(text_at(service, "image") or "")), *_words(at(service, "command"), read))
    replicas = at(service, "deploy", "replicas") or at(service, "scale")
    number = count(replicas) if replicas is not None else 1
    if not argv or not number:
        return []
    devices = items_at(service, "deploy", "resources", "reservations", "devices")
    ids = [word for device in devices for word in words_of(at(device, "device_ids"))]
    gpus = len(ids) or max((count(device, "count") for device in devices), default=0)
    if ids and all(word.isdigit() for word in ids):
        environment.setdefault("CUDA_VISIBLE_DEVICES", ",".join(ids))
    started = unwrapped(Program(argv, environment, {}), read)
    spot = span_of(at(service, "command") or service)
    return [Placed(p, "", number, 1, gpus, name, (name,), where, spot) for p in started]


def _words(node: Node | None, read: Read) -> tuple[str, ...]:
    if isinstance(node, Scalar) and node.value is not None:
        try:
            return tuple(shlex.split(_filled(node.text, read)))
        except ValueError as why:
            message = f"the command is no words of a shell: {harmless(str(why))}"
            raise SpecError([Diagnostic("E05", message, span_of(node))]) from None
    return tuple(_filled(word, read) for word in words_of(node))


def _filled(text: str, read: Read) -> str:
    """With `${NAME:-default}` of compose, which the shell has too; `$$` is `$`."""
    if "$" not in text:
        return text
    name = re.compile(r"\$\$|\$\{([A-Za-z_]\w*)(?::?[-=]([^}]*))?\}")

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return read.variables().get(found[1]) or (found[2] if found[2] is not None else f"${found[1]}")

    return name.sub(value, text)
