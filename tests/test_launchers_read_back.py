"""What any launcher of dagc writes starts the same servers: read back, each file says the same commands, roles, replicas and nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from conftest import examples, spec_text
from random_exports import Drawn
from test_deploy import COPIES, MANY, NODES, TWO, compiled_text, deployed
from test_import_identity import MODEL, drawn_plan
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.engines.facts import facts
from dagc.export.deploy.deployment import Deployment, Server
from dagc.export.deploy.launchers import LAUNCHERS, launcher
from dagc.export.deploy.made import deployment
from dagc.export.engines import SERVING
from dagc.export.engines.launch import export
from dagc.importers.deployments import any_file
from dagc.importers.engines.command import ServerCommand
from dagc.importers.engines.command_words import after_program
from dagc.importers.engines.imported import imported
from dagc.importers.engines.options import split
from dagc.importers.engines.unsaid import Given

PLANS = {
    "two": TWO,
    "nodes": NODES,
    "copies": COPIES,
    "one": "decode: gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }",
    "mixed": "mixed: gpus = 0..7, tp = 8, decode = 64, prompt_tokens = 256 tok",
}
ADDRESSES = ("address", "nothing", "nodes", "checkpoint")


def plan_text(phases: str) -> str:
    (kind, first), *rest = (part.strip().split(": ", 1) for part in phases.split("|"))
    extra = "\n".join(f"phase {name} {{\n{body}\n}}" for name, body in rest)
    return spec_text(kind=kind, phase=first, extra=extra, dtype="bf16", model=MANY)


def options(engine: str, argv: tuple[str, ...], version: str | None) -> list[str]:
    """All but where servers are."""
    known = facts(engine, version)
    at = after_program(known, argv)
    assert at is not None, argv
    told = split(argv[at:], known).told
    return [t.text for t in told if t.option is None or (t.option.reads or t.option.value) not in ADDRESSES]


def command(server: Server) -> tuple[str, ...]:
    return tuple("".join(part if isinstance(part, str) else "x" for part in word) for word in server.words(0, 0))


def same(one: Deployment, server: Server, found: ServerCommand, name: str, *, dynamo: bool) -> None:
    assert (found.role or "both") == server.role, name
    assert found.replicas == server.replicas
    assert found.nodes in (0, server.nodes) and found.gpus_per_node in (0, server.gpus_per_node)
    own, theirs = options(one.engine, command(server), one.version), options(one.engine, found.argv, one.version)
    if dynamo:  # it tells each worker itself how caches travel
        own, theirs = ([t for t in texts if "disaggregation" not in t] for texts in (own, theirs))
    assert [t for t in theirs if not t.startswith("--config")] == [t for t in own if not t.startswith("--config")]
    assert sorted(found.files.values()) == sorted(server.files.values())


def read(files: Mapping[str, bytes], folder: Path) -> list[tuple[str, ServerCommand]]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return any_file.commands("auto", [str(folder)])


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("engine", SERVING)
def test_scripts_read_back(engine: str, plan: str, tmp_path: Path) -> None:
    """Those that `dagc export` writes without a launcher, each replica with the first of its GPUs."""
    try:
        text = plan_text(PLANS[plan])
        files = export(compiled_text(text), engine, "org/model", "p")
        one = deployed(engine, PLANS[plan])
    except SpecError as refused:
        assert all(d.code == "E05" for d in refused.diagnostics)
        pytest.skip("the engine does not run this")
    found = read(files, tmp_path)
    assert len(found) == len(one.servers)
    by_role = {command.role or "both": command for _, command in found}
    for server in one.servers:
        command = by_role[server.role if len(one.servers) > 1 else "both" if "both" in by_role else server.role]
        assert command.replicas == server.replicas
        seats = tuple(server.places[k][0].host * 8 + server.places[k][0].gpus[0] for k in range(server.replicas))
        assert command.first_gpus in ((), seats) and (server.replicas == 1 or command.first_gpus == seats)


CASES = [(engine, one.name, plan) for engine in SERVING for one in LAUNCHERS for plan in PLANS]


@pytest.mark.parametrize(("engine", "kind", "plan"), spread(CASES, CASES[::4]))
def test_a_launcher_reads_back(engine: str, kind: str, plan: str, tmp_path: Path) -> None:
    entry = launcher(kind)
    if plan in ("one", "mixed") and kind not in ("shell", "dynamo"):
        return  # one server is the same to all others
    try:
        one = deployed(engine, PLANS[plan])
        files = entry.files(one)
    except SpecError as refused:
        assert all(d.code == "E05" for d in refused.diagnostics)
        pytest.skip("it has no file for this")
    found = read(files, tmp_path)
    assert [which for which, _ in found] == [engine] * len(one.servers)
    by_role = {command.role or "both": command for _, command in found}
    for server in one.servers:
        same(one, server, by_role[server.role], kind, dynamo=kind == "dynamo")


def through(plan: dagc.Plan, engine: str, kind: str) -> dict[str, bytes]:
    """Files of the deployment. Raises SpecError with E05 where the launcher or the engine does not run it."""
    return launcher(kind).files(deployment(plan, engine, MODEL, "x"))


SLOW = (6,)
"""Draws whose servings take long to simulate."""


@pytest.mark.parametrize("seed", sorted({*range(examples(4, 4))} - {*SLOW}))
def test_random_deployments_come_back(seed: int, tmp_path: Path) -> None:
    """The deployment of a plan, and that of the plan that is read from it: scripts byte for byte, but for comments."""
    drawn, found = Drawn(seed), drawn_plan(seed)
    if found is None or "mixed" in drawn.kinds:  # whose phases have other names then
        return
    plan, engines = found
    for engine in engines:
        kind = Random(f"{seed} {engine}").choice(LAUNCHERS).name
        try:
            first = through(plan, engine, kind)
        except SpecError as refused:
            assert all(d.code == "E05" for d in refused.diagnostics)
            continue
        folder = tmp_path / engine
        folder.mkdir()
        phases = "both" if len(drawn.kinds) > 1 else drawn.kinds[0]
        given = Given(
            drawn.gpu, model=drawn.model, prompt=drawn.prompt, output=drawn.output, context=drawn.context, prefix=drawn.prefix, phases=phases
        )  # fmt: skip
        servers = read(first, folder)
        text = imported(servers, given).text
        second = through(dagc.compile_text(text), engine, kind)
        if launcher(kind).in_containers:  # which host a pod is on, and so its port, is not in the file
            for (_, own), (_, other) in zip(servers, read(second, folder), strict=True):
                assert options(engine, own.argv, None) == options(engine, other.argv, None)
                alike = [(c.role, c.replicas, c.nodes, c.gpus_per_node, c.files) for c in (own, other)]
                assert alike[0] == alike[1]
        else:
            assert told(second) == told(first), f"{engine} {kind}\n{drawn.text}\n{text}"


def told(files: Mapping[str, bytes]) -> dict[str, list[str]]:
    lines = {name: data.decode().splitlines() for name, data in files.items()}
    return {name: [line for line in own if not line.lstrip().startswith("#")] for name, own in lines.items()}
