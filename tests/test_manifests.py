"""Manifests of Kubernetes, Dynamo and llm-d: their schemas, what their objects name of each other, and what pods run in the end."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from conftest import spec_text
from tiers import spread

pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")

from manifests import CORE, CUSTOM, Object, documents, every, expanded, faults, kind, loose_ends, paths, pods

import dagc
from dagc.base.diagnostics import SpecError
from dagc.engines.facts import facts
from dagc.export.deploy.deployment import Deployment, Server
from dagc.export.deploy.dns_labels import LONGEST, label, labels
from dagc.export.deploy.launchers import launcher
from dagc.export.deploy.made import deployment
from dagc.export.deploy.manifest import Document, text
from dagc.export.deploy.pods import platforms
from dagc.export.engines import SERVING
from dagc.export.engines.words import Address, Beside, Fabric, Listen, Part

PLANS = {
    "one": "prefill: gpus = 0..7, tp = 8 | decode: gpus = 0..7, tp = 8",
    "split": "prefill: gpus = 0..3, tp = 4, sequences = 8 | decode: gpus = 4..7, tp = 4",
    "nodes": "prefill: gpus = 0..7, tp = 8, sequences = 8 | decode: gpus = 8..23\nattention { dp = 16 }\nexperts { ep = 16 }",
    "copies": "prefill: gpus = 0..7, replicas = 2, tp = 4, sequences = 8 | decode: gpus = 8..15, tp = 8",
}
MODEL = "experts { count = 16, top_k = 8, hidden = 64 }\nlayers = 2, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 16, kv_heads = 16, head_dim = 8 }"
KINDS = ("kubernetes", "dynamo", "llm-d")
REFUSED = {
    ("kubernetes", "trtllm", "nodes"): "starts its ranks by MPI",
    ("llm-d", "trtllm", "nodes"): "starts its ranks by MPI",
    ("llm-d", "trtllm", "split"): "does not know how servers of TensorRT-LLM",
    ("llm-d", "trtllm", "copies"): "does not know how servers of TensorRT-LLM",
}
"""(launcher, engine, plan) -> why."""
CASES = [
    case for kind in KINDS for engine in SERVING for plan in PLANS if (case := (kind, engine, plan)) not in REFUSED
]
cases = pytest.mark.parametrize(("launcher_name", "engine", "plan"), CASES)


_compiled = cache(dagc.compile_text)


@cache
def compiled(phases: str) -> dagc.Plan:
    bodies = dict(part.strip().split(": ", 1) for part in phases.split("|"))
    (first, body), *rest = bodies.items()
    extra = "\n".join(f"phase {name} {{\n{inner}\n}}" for name, inner in rest)
    return dagc.compile_text(spec_text(kind=first, phase=body, extra=extra, dtype="bf16", model=MODEL))


@cache
def deployed(engine: str, plan: str, version: str | None = None) -> Deployment:
    return deployment(compiled(PLANS[plan]), engine, "org/model", "p", version)


def made(launcher_name: str, engine: str, plan: str) -> tuple[Deployment, str]:
    chosen = launcher(launcher_name)
    one = deployed(engine, plan, chosen.engine_version(engine))
    (content,) = chosen.files(one).values()
    return one, content.decode()


@pytest.mark.parametrize(("launcher_name", "engine", "plan"), spread(CASES, CASES[::3]))
def test_a_manifest_keeps_its_schemas(launcher_name: str, engine: str, plan: str) -> None:
    _, content = made(launcher_name, engine, plan)
    found = documents(content)
    assert [fault for one in every(found) for fault in faults(one)] == []
    assert loose_ends(found) == []
    names = [(kind(one), one["metadata"]["name"]) for one in every(found) if kind(one) != "values"]
    assert len(set(names)) == len(names)
    assert content.isascii() and all(line.isprintable() for line in content.splitlines())


@pytest.mark.parametrize(("case", "why"), REFUSED.items())
def test_what_a_launcher_cannot_start_is_refused(case: tuple[str, str, str], why: str) -> None:
    with pytest.raises(SpecError) as error:
        made(*case)
    (found,) = error.value.diagnostics
    assert found.code == "E05" and why in found.message and found.help


# -- schemas ------------------------------------------------------------------------------------

FREE = {"labels", "annotations", "matchLabels", "selector", "data", "limits", "requests", "nodeSelector"}
"""Maps whose keys are the user's."""


@cache
def one_of_each() -> dict[str, Object]:
    """By kind."""
    written = [("kubernetes", "vllm", "nodes"), ("kubernetes", "trtllm", "split"), ("dynamo", "vllm", "nodes")]
    found = [one for case in [*written, ("llm-d", "vllm", "nodes")] for one in documents(made(*case)[1])]
    return {kind(one): one for one in reversed(found)}


def test_every_kind_is_tried() -> None:
    assert set(one_of_each()) == (CORE - {"Pod"}) | set(CUSTOM)


@pytest.mark.parametrize("name", sorted((CORE - {"Pod"}) | set(CUSTOM)))
def test_a_misspelt_field_breaks_a_schema(name: str) -> None:
    document = one_of_each()[name]
    tried = set()
    for path in paths(document):
        shape = tuple(step for step in path if isinstance(step, str))
        if shape in tried:
            continue
        if any(step in FREE for step in path[:-1]) or path[-1] in ("apiVersion", "kind"):
            continue
        other = copy.deepcopy(document)
        inner: object = other
        for step in path[:-1]:
            inner = inner[step]  # type: ignore[index]
        assert isinstance(inner, dict)
        inner[f"{path[-1]}s"] = inner.pop(path[-1])
        assert faults(other), path
        tried.add(shape)
    assert len(tried) >= 3


@pytest.mark.parametrize(
    ("kind_", "path", "value"),
    [
        ("LeaderWorkerSet", ("spec", "replicas"), "2"),
        ("LeaderWorkerSet", ("spec", "leaderWorkerTemplate", "size"), 0),
        ("LeaderWorkerSet", ("metadata", "name"), "A_b"),
        ("DynamoGraphDeployment", ("spec", "backendFramework"), "megatron"),
        ("DynamoGraphDeployment", ("spec", "components", 1, "type"), "server"),
        ("DynamoGraphDeployment", ("spec", "components", 1, "podTemplate", "spec", "containers", 0, "name"), "engine"),
        ("DynamoGraphDeployment", ("spec", "components", 1, "podTemplate", "spec", "containers", 0, "args"), [8]),
        ("values", ("routing", "servicePort"), "8000"),
        ("values", ("decode", "containers", 0, "modelCommand"), "shell"),
        ("values", ("decode", "containers", 0, "command"), []),
        ("values", ("modelArtifacts", "uri"), "org/model"),
        ("Service", ("spec", "ports", 0, "port"), "http"),
        ("ConfigMap", ("data", "config.yaml"), {}),
    ],
)
def test_a_wrong_value_breaks_a_schema(kind_: str, path: tuple[str | int, ...], value: object) -> None:
    document = copy.deepcopy(one_of_each()[kind_])
    inner: object = document
    for step in path[:-1]:
        inner = inner[step]  # type: ignore[index]
    inner[path[-1]] = value  # type: ignore[index]
    assert faults(document)


def test_schemas_say_where_their_fields_come_from() -> None:
    import json

    from manifests import DATA

    for name in CUSTOM.values():
        about = json.loads((DATA / f"{name}.schema.json").read_text())["description"]
        assert "github.com/" in about and "Apache-2.0" in about
    assert not CORE & set(CUSTOM)


# -- what pods run ------------------------------------------------------------------------------


def wanted(one: Deployment, server: Server, node: int, hosts: dict[tuple[str, int, int], str]) -> list[str]:
    """The words of a node, with the addresses of pods, which all have the ports that the first server of a host has."""
    first = {what: numbers[0] for what, numbers in facts(one.engine, one.version).words["ports"].items()}
    server = replace(server, ports={what: (first[what],) * server.replicas for what in server.ports})

    def said(part: Part) -> str:
        match part:
            case Address(name, replica, number):
                return hosts[name, replica, number]
            case Listen():
                return "0.0.0.0"
            case Beside(suffix):
                return f"/etc/dagc/config.{suffix}"
        assert isinstance(part, str)
        return part

    words = [word for word in server.words(0, node) if not isinstance(word[0], Fabric)]
    return ["".join(map(said, word)) for word in words]


def ran(pod: Object, known: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command of the first container, and its variables, as the kubelet makes them."""
    (box,) = pod["spec"]["containers"]
    known = dict(known)
    for one in box["env"]:
        if "value" in one:
            known[one["name"]] = expanded(one["value"], known)
        elif one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "status.podIP":
            known[one["name"]] = "10.0.0.9"
    return [expanded(word, known) for word in [*box["command"], *box["args"]]], known


def group(name: str, node: int) -> dict[str, str]:
    return {"LWS_LEADER_ADDRESS": f"{name}-0.{name}.ns", "LWS_WORKER_INDEX": str(node)}


@pytest.mark.parametrize(("engine", "plan"), [(e, p) for k, e, p in CASES if k == "kubernetes"])
def test_pods_of_a_set_run_the_commands_of_the_plan(engine: str, plan: str) -> None:
    one, content = made("kubernetes", engine, plan)
    sets = [document for document in documents(content) if kind(document) == "LeaderWorkerSet"]
    assert len(sets) == len(one.servers)
    for server, found in zip(one.servers, sets, strict=True):
        name, spec = found["metadata"]["name"], found["spec"]
        assert spec["replicas"] == server.replicas and spec["leaderWorkerTemplate"]["size"] == server.nodes
        first, *others = pods(found)
        assert len(others) == (server.nodes > 1)
        for node in range(server.nodes):
            hosts = {(server.name, 0, 0): f"{name}-0.{name}.ns", (server.name, 0, node): "10.0.0.9"}
            hosts[server.name, 0, 0] = f"{name}-0.{name}.ns"
            command, variables = ran(others[0] if node else first, group(name, node))
            assert command == wanted(one, server, node, hosts)
            if "VLLM_NIXL_SIDE_CHANNEL_HOST" in server.environment:
                assert variables["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.9"
        gpus = first["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        assert int(gpus) == server.gpus_per_node


@pytest.mark.parametrize("engine", SERVING)
def test_the_router_waits_for_every_replica_and_asks_it(engine: str) -> None:
    one, content = made("kubernetes", engine, "copies")
    found = documents(content)
    (front,) = [document for document in found if kind(document) == "Deployment"]
    spec = front["spec"]["template"]["spec"]
    ends = [
        (s["metadata"]["name"], k) for s in found if kind(s) == "LeaderWorkerSet" for k in range(s["spec"]["replicas"])
    ]
    ports = {s["metadata"]["name"]: s for s in found if kind(s) == "Service"}
    urls = [f"{name}-{k}.{name}:{ports[f'{name}-http']['spec']['ports'][0]['port']}" for name, k in ends]
    assert spec["initContainers"][0]["args"][1:] == [f"http://{url}/health" for url in urls]
    (box,) = spec["containers"]
    told = " ".join([*box["command"], *box["args"]])
    told += "".join(
        one["data"]["config.yaml"] for one in found if kind(one) == "ConfigMap" and "router" in one["metadata"]["name"]
    )
    assert re.findall(r"[\w-]+\.[\w-]+:\d+", told) == urls and len(urls) == 3
    assert one.router is not None and box["ports"][0]["containerPort"] == one.router.port
    assert ports[front["metadata"]["name"]]["spec"]["selector"] == front["spec"]["selector"]["matchLabels"]


def test_what_a_router_waits_with_ends(tmp_path: Path) -> None:
    _, content = made("kubernetes", "vllm", "split")
    (front,) = [document for document in documents(content) if kind(document) == "Deployment"]
    (waits,) = front["spec"]["template"]["spec"]["initContainers"]
    script = waits["command"][2].replace("time.sleep(5)", "time.sleep(0.01)")
    there = (tmp_path / "health").as_uri()
    (tmp_path / "health").write_text("ok")
    run = ["python3", "-c", script]
    assert subprocess.run([*run, "5", there, there], timeout=20).returncode == 0
    gone = subprocess.run(
        [*run, "0.1", there, (tmp_path / "none").as_uri()], capture_output=True, text=True, timeout=20
    )
    assert gone.returncode == 1 and "URLError" in gone.stderr


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("engine", SERVING)
def test_components_of_dynamo_have_the_options_of_the_plan(engine: str, plan: str) -> None:
    """But for those that its worker or its operator gives."""
    one, content = made("dynamo", engine, plan)
    *_, found = documents(content)
    front, *components = found["spec"]["components"]
    assert front["type"] == "frontend" and found["spec"]["backendFramework"] == engine
    known = platforms()["dynamo"]["engines"][engine]
    left_out = {facts(engine, one.version).options[key].name for key in known["left_out"]}
    for server, component in zip(one.servers, components, strict=True):
        assert component["replicas"] == server.replicas
        assert component.get("multinode", {}).get("nodeCount", 1) == server.nodes
        (box,) = component["podTemplate"]["spec"]["containers"]
        words = wanted(one, server, 0, {(server.name, 0, 0): "head"})
        at = words.index("org/model")
        assert box["args"][:2] == [known["model"], "org/model"]
        want = [
            word for k, word in enumerate(words) if k > at and word not in left_out and words[k - 1] not in left_out
        ]
        want = ["--extra-engine-args" if word == "--config" else word for word in want]
        rest = box["args"][2:]
        assert rest[: len(want)] == want
        added = rest[len(want) :]
        role = [] if server.role == "both" or engine == "sglang" else ["--disaggregation-mode", server.role]
        assert added == [*role, *(known.get("split", []) if server.role != "both" else [])]
        assert ("KAI Scheduler" in content) == any(other.nodes > 1 for other in one.servers)
        assert component["type"] == ("worker" if server.role == "both" else server.role)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_pods_of_the_chart_run_the_commands_of_the_plan(engine: str, tmp_path: Path) -> None:
    """All pods of a server have one template, so a script decides."""
    for program in ("vllm", "python3"):
        (tmp_path / program).write_text('#!/bin/bash\necho "${0##*/}"\nprintf "%s\\n" "$@"\n')
        (tmp_path / program).chmod(0o755)
    one, content = made("llm-d", engine, "nodes")
    (values,) = documents(content)
    prefill, decode = values["routing"]["servicePort"], values["routing"]["proxy"]["targetPort"]
    for server in one.servers:
        (pod,) = [p for role, p in zip(("decode", "prefill"), pods(values), strict=True) if role == server.role]
        listens = decode if server.role == "decode" else prefill
        assert values[server.role]["parallelism"]["workers"] == server.nodes
        for node in range(server.nodes):
            known = group("lws", node)
            command, _ = ran(pod, known)
            env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **known}
            got = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=20).stdout
            want = wanted(one, server, node, {(server.name, 0, 0): "lws-0.lws.ns"})
            at = want.index("--port") + 1
            assert want[at] == str(prefill)
            want[at] = str(listens)
            assert sorted(got.splitlines()) == sorted(want)
    assert prefill != decode


# -- names and text -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "-", "8xh100", "A_b.c", "x" * 90, "日本", "a\x1b[31m", "a; rm -rf /", "$(reboot)", "{{ .Values }}", "a--b"],
)
def test_names_are_those_that_kubernetes_takes(name: str) -> None:
    for longest in (LONGEST, 10):
        made = label(name, longest)
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made) and len(made) <= longest
    assert len(set(labels([name, name, f"{name}!", f"{name}?"], 10))) == 4


def test_no_two_objects_have_one_name() -> None:
    """A set has a service of its own name, and stateful sets of its name with numbers."""
    plain = deployed("vllm", "nodes")
    names = ("router", "a", "a_http", "a_0", "A", "a-b", "a_b", "", "日", "x" * 80, "x" * 81, "8")
    servers = tuple(replace(plain.servers[k % 2], name=name) for k, name in enumerate(names))
    for longest in ("p", "p" * 60):
        one = replace(plain, name=longest, servers=servers, router=None)
        (content,) = launcher("kubernetes").files(one).values()
        found = documents(content.decode())
        assert [fault for document in found for fault in faults(document)] == []
        sets = [document["metadata"]["name"] for document in found if kind(document) == "LeaderWorkerSet"]
        services = [document["metadata"]["name"] for document in found if kind(document) == "Service"]
        taken = [*sets, *services, *(f"{name}-{k}" for name in sets for k in range(3))]
        assert len(set(taken)) == len(taken) and f"{longest}-router" not in taken
        assert all(len(f"{name}-999-999-0123456789") <= 63 for name in sets)


@pytest.mark.parametrize(
    "hostile",
    ["org/$(LWS_LEADER_ADDRESS)$$ {{ x }} 'a' \"b\" `id` 日", "vllm", "python3", "8", "--port 1", "$(POD_IP)"],
)
def test_hostile_words_stay_words(hostile: str) -> None:
    """Whatever a checkpoint or a plan is called, it is one word of a command in the end."""
    plain = deployed("vllm", "split", "0.31.0")
    servers = tuple(
        replace(
            server, model=hostile, command=tuple(hostile if word == "org/model" else word for word in server.command)
        )
        for server in plain.servers
    )
    one = replace(plain, name="-{{x}}\n日", model=hostile, servers=servers)
    for launcher_name in KINDS:
        ((_, content),) = launcher(launcher_name).files(one).items()
        found = documents(content.decode())
        assert [fault for document in found for fault in faults(document)] == [] and loose_ends(found) == []
        engines = [p for d in found if kind(d) != "Deployment" for p in pods(d) if "env" in p["spec"]["containers"][0]]
        assert len(engines) == 2
        for pod in engines:
            command = ran(pod, group("lws", 0))[0]
            assert command[command.index("--kv-transfer-config") + 1].startswith("{")
            at = command.index("--model") + 1 if launcher_name == "dynamo" else 2
            assert command[at] == hostile and command[at + 1] == "--tensor-parallel-size"


def test_text_reads_back_equal_in_either_version_of_yaml() -> None:
    words = [
        "8",
        "1e3",
        "0x1f",
        "0o17",
        "1_000",
        "y",
        "No",
        "null",
        "~",
        "",
        " ",
        "a: b",
        "#",
        "12:30",
        "-",
        "\x1b[31m",
        "日",
    ]
    words += [
        "a\nb\n",
        "a\n\n b",
        ".5",
        "-.inf",
        "=",
        "<<",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "{{ x }}",
        "a" * 300,
        "\t",
        "x\r\n",
    ]
    content = {"args": words, "data": {word: word for word in words}, "count": 3, "on": True}
    written = text([Document(content, ("a\x1b\nb", "日")), Document({"a": words})])
    assert documents(written) == [content, {"a": words}]
    for line in re.findall(r"^  - (\S+)$", written, re.MULTILINE):
        assert not re.fullmatch(r"[-+.]?\d.*|[yn~]", line), f"{line} is a number or a truth value to some"


def test_dynamo_runs_the_version_that_it_was_built_with() -> None:
    one = deployed("vllm", "split", "0.33.0")
    with pytest.raises(SpecError, match=r"0\.31\.0"):
        launcher("dynamo").files(one)
    (content,) = launcher("dynamo").files(replace(one, image="registry/own:1")).values()
    assert content.decode().count("image: registry/own:1") == 3


def test_images_and_gpus_are_those_of_the_vendor() -> None:
    plain = deployed("vllm", "one")
    one = replace(plain, servers=tuple(replace(server, vendor="amd") for server in plain.servers))
    (content,) = launcher("kubernetes").files(one).values()
    assert "vllm-openai-rocm:v" in content.decode() and "amd.com/gpu" in content.decode()
    other = deployed("sglang", "one")
    other = replace(other, servers=tuple(replace(server, vendor="amd") for server in other.servers))
    with pytest.raises(SpecError, match="no image of SGLang"):
        launcher("kubernetes").files(other)
    assert launcher("kubernetes").files(replace(other, image="own/sglang:1"))
    with pytest.raises(SpecError, match="no image for GPUs of amd"):
        launcher("dynamo").files(one)


@pytest.mark.parametrize("launcher_name", KINDS)
def test_servers_of_two_pools_are_on_their_own_gpus(launcher_name: str) -> None:
    text = spec_text(kind="prefill", phase="hardware = pool, gpus = 0..7, tp = 8", dtype="bf16", model=MODEL)
    pool = text[text.index("hardware pool") : text.index("model small")]
    decode = "link pool to memory { bandwidth = 50 GB/s, latency = 5 us }\nphase decode { hardware = memory, gpus = 0..7, tp = 8 }"
    plan = _compiled(text + pool.replace("pool", "memory", 1) + decode)
    one = deployment(plan, "vllm", "org/model", "p", launcher(launcher_name).engine_version("vllm"))
    (content,) = launcher(launcher_name).files(one).values()
    found = documents(content.decode())
    assert [fault for document in every(found) for fault in faults(document)] == [] and loose_ends(found) == []
    chosen = re.findall(r"^ *dagc\.pool: (\w+)$", content.decode(), re.MULTILINE)
    assert sorted(chosen) == ["memory", "pool"] and b"dagc.pool=memory, dagc.pool=pool" in content
    assert "dagc.pool" not in made(launcher_name, "vllm", "split")[1]


def test_links_beyond_a_host_are_said() -> None:
    """NVLink joins the hosts of a GB200 rack, which pods do not have by themselves."""
    text = spec_text(kind="decode", phase="gpus = 0..7, tp = 8", model=MODEL, dtype="bf16")
    for per_host, said in ((4, True), (8, False)):
        plan = dagc.compile_text(text.replace("per_node = 8", f"per_node = 8, per_host = {per_host}"))
        (content,) = launcher("kubernetes").files(deployment(plan, "vllm", "org/model", "p")).values()
        assert (b"ComputeDomain" in content) == said and content.count(b"leaderTemplate") == said


def test_where_requests_go_is_said() -> None:
    """The address that the bench has by default."""
    for launcher_name, service, port in (("kubernetes", "p-router", 9000), ("dynamo", "p-frontend", 8000)):
        one, content = made(launcher_name, "vllm", "split")
        assert f"kubectl port-forward service/{service} {one.entrance[1]}:{port}\n" in content
    assert "service/p-prefill-decode-http 8000:8000" in made("kubernetes", "vllm", "one")[1]


ROUTES = {
    "vllm": {"round_robin": "round_robin", "prefix": "cache_aware"},
    "trtllm": {"least": "{type: load_balancing}", "prefix": "{type: kv_cache_aware}"},
}


@pytest.mark.parametrize(
    ("engine", "route", "word"), [(e, r, w) for e, known in ROUTES.items() for r, w in known.items()]
)
def test_requests_are_shared_out_as_the_serving_says(engine: str, route: str, word: str) -> None:
    bodies = [one.strip() for one in PLANS["copies"].split("|")]
    serve = f"serve s {{ prefill = prefill, decode = decode, arrivals = poisson(1 req/s), requests = 20, route = {route}, prefix_cache = true, prefix = 64 tok }}"
    extra = f"phase decode {{ {bodies[1].removeprefix('decode: ')} }}\n{serve}"
    text = spec_text(kind="prefill", phase=bodies[0].removeprefix("prefill: "), extra=extra, dtype="bf16", model=MODEL)
    plan = dagc.compile_text(text)
    ((_, content),) = launcher("kubernetes").files(deployment(plan, engine, "org/model", "p")).items()
    assert re.search(rf"(- --policy\n +- |router: ){re.escape(word)}\n", content.decode())
    one = deployment(plan, engine, "org/model", "p", launcher("dynamo").engine_version(engine))
    (content,) = launcher("dynamo").files(one).values()
    mode = {"round_robin": "round-robin", "least": "least-loaded", "prefix": "kv"}[route]
    assert re.search(rf"- --router-mode\n +- {mode}\n", content.decode())
    one = deployment(dagc.compile_text(text.replace(f"route = {route}", "route = least")), "sglang", "org/model", "p")
    assert one.router is not None and "--policy" not in one.router.command
    assert all(any("route = least of `s`" in line for line in server.about) for server in one.servers)


def test_a_graph_of_dynamo_has_room_for_so_many_servers() -> None:
    one = deployed("vllm", "one", launcher("dynamo").engine_version("vllm"))
    servers = tuple(replace(one.servers[0], name=f"s{k}") for k in range(25))
    (content,) = launcher("dynamo").files(replace(one, servers=servers[:24])).values()
    assert faults(documents(content.decode())[-1]) == []
    with pytest.raises(SpecError, match="up to 24 servers"):
        launcher("dynamo").files(replace(one, servers=servers))


def test_commands_are_words_and_no_shell() -> None:
    """Only the chart's template, which all nodes of a server share, needs one."""
    for launcher_name, engine, plan in CASES:
        one, content = made(launcher_name, engine, plan)
        shells = content.count("- /bin/bash")
        assert shells == 0 or (launcher_name == "llm-d" and any(server.nodes > 1 for server in one.servers))
        assert shlex.split(one.name) == ["p"]
