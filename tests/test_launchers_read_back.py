"""What any launcher of dagc writes starts the same servers: read back, each file says the same commands, roles, replicas and nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import spec_text
from test_deploy import COPIES, MANY, NODES, TWO, compiled_text, deployed

from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.engines.facts import facts
from dagc.export.deploy.deployment import Deployment, Server
from dagc.export.deploy.launchers import LAUNCHERS
from dagc.export.engines import SERVING
from dagc.export.engines.launch import export
from dagc.importers.deployments import any_file
from dagc.importers.engines.command import ServerCommand
from dagc.importers.engines.imported import after_program
from dagc.importers.engines.options import split

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


def options(engine: str, argv: tuple[str, ...], version: str) -> list[str]:
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


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", [one.name for one in LAUNCHERS])
@pytest.mark.parametrize("engine", SERVING)
def test_a_launcher_reads_back(engine: str, kind: str, plan: str, tmp_path: Path) -> None:
    entry = next(one for one in LAUNCHERS if one.name == kind)
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


ROUND = """moe 1
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 512 tok, output = 128 tok }
phase prefill { gpus = 0..7, sequences = 16, replicas = 2, tp = 4 }
phase decode { gpus = 8..15, tp = 8 }
"""


@pytest.mark.parametrize(
    "engine,kind", [("vllm", "shell"), ("sglang", "kubernetes"), ("trtllm", "slurm"), ("vllm", "llm-d")]
)
def test_what_is_imported_writes_the_same_files(engine: str, kind: str, tmp_path: Path) -> None:
    """Byte for byte, but for comments: a plan, its deployment, the plan that is read from it, and that one's deployment."""
    plan = tmp_path / "p.moe"
    plan.write_text(ROUND)
    words = ["--to", engine, "--launcher", kind, "--model", "mistralai/Mixtral-8x7B-v0.1"]
    assert main(["export", str(plan), *words, "-o", str(tmp_path / "first")]) == 0
    lengths = ["--prompt-tokens", "512", "--output-tokens", "128"]
    again = tmp_path / "again" / "p.moe"
    again.parent.mkdir()
    given = ["import", "--from", "auto", "--gpu", "h100-sxm", *lengths, str(tmp_path / "first"), "-o", str(again)]
    assert main(given) == 0
    assert main(["export", str(again), *words, "-o", str(tmp_path / "second")]) == 0
    for one in (tmp_path / "first").iterdir():
        if ".bench." not in one.name and not one.name.endswith(".jsonl"):  # these follow requests, not servers
            other = tmp_path / "second" / one.name
            assert without_comments(other) == without_comments(one)


def without_comments(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
