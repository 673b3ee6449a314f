"""Launchers of whole deployments, run with programs that only say what they were told."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, spec_text
from fake_servers import heard, install, told
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.export.deploy.deployment import Deployment, Place
from dagc.export.deploy.launchers import LAUNCHERS, bench_files, launcher
from dagc.export.deploy.made import deployment
from dagc.export.engines import SERVING
from dagc.export.engines.launch import export

TWO = "prefill: gpus = 0..3, tp = 4, sequences = 8 | decode: gpus = 4..7, tp = 4"
NODES = "prefill: gpus = 0..7, tp = 8, sequences = 8 | decode: gpus = 8..23\nattention { dp = 16 }\nexperts { ep = 16 }"
COPIES = "prefill: gpus = 0..7, replicas = 2, tp = 4, sequences = 8 | decode: gpus = 8..15, tp = 8"
MANY = "experts { count = 16, top_k = 8, hidden = 64 }\nlayers = 2, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 16, kv_heads = 16, head_dim = 8 }"
compiled_text = cache(dagc.compile_text)
Capture = pytest.CaptureFixture[str]


def spec_of(phases: str, head: str = "", **given: str) -> str:
    """`phases`: bodies of phases by name, `NAME: BODY | NAME: BODY`."""
    bodies = dict(part.strip().split(": ", 1) for part in phases.split("|"))
    first, *rest = bodies.items()
    extra = "\n".join(f"phase {name} {{\n{body}\n}}" for name, body in rest) + head
    given = {"model": MANY, **given}
    return spec_text(kind=first[0], phase=first[1], extra=extra, dtype="bf16", **given)


def deployed(engine: str, phases: str, head: str = "", name: str = "p", **given: str) -> Deployment:
    return deployment(compiled_text(spec_of(phases, head, **given)), engine, "org/model", name)


POOLS = spec_of(
    "prefill: hardware = pool, gpus = 0..7, tp = 8, sequences = 8 | decode: hardware = other, gpus = 0..3, tp = 4",
    "\nserve chat { arrivals = poisson(1 req/s), requests = 10, workers = 2 }",
).replace(
    "model small {",
    """hardware other {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
link pool to other { bandwidth = 400 Gbit/s, latency = 10 us }
model small {""",
)


class Started:
    """A launcher under way, on hosts of the loopback network that nobody else uses."""

    def __init__(self, folder: Path, one: Deployment, kind: str, *command: str, **further: str) -> None:
        self.folder, self.one = folder, one
        programs = install(folder)
        self.hosts = [
            f"127.{random.randrange(2, 250)}.{random.randrange(1, 250)}.{k + 2}" for k in range(len(one.hosts))
        ]
        (folder / "hosts").write_text("# addresses\n" + "".join(f"{host} slots=8\n" for host in self.hosts))
        ((name, content),) = launcher(kind).files(one).items()
        (folder / name).write_bytes(content)
        env = {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_LOG": str(folder / "log"), "HOSTS": "hosts"}
        env |= {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": ",".join(self.hosts)} if kind == "slurm" else {}
        for k, pool in enumerate(dict.fromkeys(host.pool for host in one.hosts)):
            own = (self.hosts[i] for i, host in enumerate(one.hosts) if host.pool == pool)
            env |= {f"SLURM_JOB_NODELIST_HET_GROUP_{k}": ",".join(own)} if pool else {}
        env |= {"EVERY_S": "0.1", "LIMIT_S": "300", "GRACE_S": "3", "HOME": str(folder), **further}
        self.env = env
        self.process = subprocess.Popen(
            ["bash", name, *command],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # What runs in the background may be started with interrupts ignored, which no shell takes back.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def ready(self) -> str:
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if line.startswith("ready: "):
                return seen
        raise AssertionError(seen)

    def ended(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=300)
        return self.process.returncode, out

    def left(self) -> list[int]:
        """Processes of it that still run."""
        deadline = time.monotonic() + 60
        while (left := [one["pid"] for one in heard(self.folder) if _runs(one["pid"])]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Started]]:
    made: list[Started] = []
    yield made
    for one in made:
        one.process.terminate()
        try:
            one.process.wait(60)
        except subprocess.TimeoutExpired:
            one.process.kill()
        left = one.left()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left


# -- the record ---------------------------------------------------------------------------------


def test_servers_have_hosts_gpus_and_ports_of_their_own() -> None:
    one = deployed("vllm", COPIES)
    prefill, decode = one.servers
    assert prefill.places == ((Place(0, (0, 1, 2, 3)),), (Place(0, (4, 5, 6, 7)),)) and prefill.role == "prefill"
    assert decode.places == ((Place(1, tuple(range(8))),),) and decode.has_whole_hosts and not prefill.has_whole_hosts
    assert len(set(prefill.ports["http"])) == len(set(prefill.ports["side_channel"])) == 2
    assert one.router is not None and one.entrance == (0, 9000)


@pytest.mark.parametrize("engine", SERVING)
def test_no_two_ports_of_a_host_are_the_same(engine: str) -> None:
    one = deployed(engine, "prefill: gpus = 0..3, replicas = 4, sequences = 8 | decode: gpus = 4..7, tp = 4")
    ports = [(s.places[r][0].host, p[r]) for s, r in one.ends for what, p in s.ports.items()]
    assert one.router is not None
    ports.append((0, one.router.port))
    assert len(set(ports)) == len(ports)


def test_the_workers_of_a_serving_are_replicas() -> None:
    """As many as it has, on the next GPUs, and on hosts beyond the plan's where it has too few."""
    head = "\nserve chat { arrivals = poisson(1 req/s), requests = 10, prefill_workers = 2, workers = 3 }"
    one = deployed("vllm", TWO, head)
    prefill, decode = one.servers
    assert [len(s.places) for s in one.servers] == [2, 3]
    assert [p.gpus[0] for (p,) in prefill.places] == [0, 0] and [p.host for (p,) in prefill.places] == [0, 1]
    assert [(p.host, p.gpus[0]) for (p,) in decode.places] == [(0, 4), (1, 4), (2, 0)]
    assert any("3 workers, as `chat` has" in note for note in one.notes)
    assert len(one.hosts) == 3


def test_a_pool_of_its_own_has_hosts_of_its_own() -> None:
    one = deployment(compiled_text(POOLS), "vllm", "m", "q")
    assert [(h.pool, h.number) for h in one.hosts] == [("pool", 0), ("other", 0)]
    assert [(p.host, p.gpus) for own in one.server("decode").places for p in own] == [
        (1, (0, 1, 2, 3)),
        (1, (4, 5, 6, 7)),
    ]


def test_megatron_has_no_server(capsys: Capture) -> None:
    assert main(["export", str(ROOT / "examples/plan_b.moe"), "--to", "megatron", "--launcher", "shell"]) == 2
    assert "Megatron Core has no server" in capsys.readouterr().err


def test_a_refused_server_leaves_no_deployment(tmp_path: Path, capsys: Capture) -> None:
    spec = str(ROOT / "examples/plan_a.moe")
    assert main(["export", spec, "--to", "vllm", "--launcher", "shell", "-o", str(tmp_path / "o")]) == 2
    assert not (tmp_path / "o").exists() and "share GPUs" in capsys.readouterr().err


# -- the script ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine, phases, kind",
    spread(
        [("vllm", NODES, "shell"), ("sglang", COPIES, "shell"), ("vllm", COPIES, "slurm"), ("sglang", NODES, "slurm")],
        lambda case: case[1] is NODES,
    ),
)
def test_every_node_is_told_what_the_record_says(
    engine: str, phases: str, kind: str, tmp_path: Path, started: list[Started]
) -> None:
    one = deployed(engine, phases)
    run = Started(tmp_path, one, kind)
    started.append(run)
    out = run.ready()
    seen = heard(tmp_path)
    for server, replica in one.ends:
        for node, place in enumerate(server.places[replica]):
            argv, environment = told(one, server, replica, node, run.hosts)
            (own,) = [s for s in seen if s["argv"] == argv and s["at"] == run.hosts[place.host]]
            if not server.has_whole_hosts:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, place.gpus))
            assert own["environment"] == environment
    (router,) = [s for s in seen if "router" in " ".join(s["argv"][:3])]
    at = {f"http://{run.hosts[s.places[r][0].host]}:{s.ports['http'][r]}" for s, r in one.ends}
    assert {word for word in router["argv"] if word.startswith("http")} == at
    assert len(seen) == sum(len(own) for s in one.servers for own in s.places) + 1
    assert f"ready: http://{run.hosts[0]}:9000" in out
    run.process.send_signal(signal.SIGINT)
    assert run.ended()[0] == 130 and not run.left()


def test_trtllm_has_its_files_and_mpi(tmp_path: Path, started: list[Started]) -> None:
    one = deployed("trtllm", NODES)
    run = Started(tmp_path, one, "shell")
    started.append(run)
    run.ready()
    mpi, serve, _ = sorted(heard(tmp_path), key=lambda s: (s["argv"][0], s["argv"][1] == "disaggregated"))
    slots = ",".join(f"{run.hosts[k]}:8" for k in (1, 2))
    assert mpi["argv"][:9] == [
        "mpirun",
        "-n",
        "16",
        "-x",
        "PATH",
        "--host",
        slots,
        "trtllm-llmapi-launch",
        "trtllm-serve",
    ]
    assert serve["files"] == [one.server("prefill").files["yaml"]]
    assert mpi["files"] == [one.server("decode").files["yaml"]]


def test_waiting_has_an_end(tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployed("vllm", TWO), "shell", FAKE_SICK="vllm", LIMIT_S="1")
    started.append(run)
    code, out = run.ended()
    assert code == 1 and "prefill is not healthy after 1 s: http://" in out and not run.left()


def test_slurm_starts_each_rank_of_trtllm(tmp_path: Path, started: list[Started]) -> None:
    one = deployed("trtllm", NODES)
    run = Started(tmp_path, one, "slurm")
    started.append(run)
    run.ready()
    decode, prefill, router = sorted((tmp_path / "log" / "srun").read_text().splitlines(), key=len, reverse=True)
    assert "--nodes=2 --ntasks=16 --ntasks-per-node=8 --gpus-per-node=8 --mpi=pmix" in decode
    assert "--nodes=1 --ntasks=8 --ntasks-per-node=8 --gpus-per-node=8 --mpi=pmix" in prefill and "--mpi" not in router
    assert decode.split("--nodelist=")[1].split()[0] == ",".join(run.hosts[1:])
    files = [s["files"] for s in heard(tmp_path) if "--config" in s["argv"]]
    assert sorted(files) == sorted([server.files["yaml"]] for server in one.servers)
    run.process.terminate()
    assert run.ended()[0] == 143 and not run.left()


def test_pools_are_parts_of_a_job(tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployment(compiled_text(POOLS), "vllm", "m", "q"), "slurm", "true")
    started.append(run)
    assert run.ended()[0] == 0
    steps = (tmp_path / "log" / "srun").read_text()
    assert [sum(f"--het-group={k} " in line for line in steps.splitlines()) for k in (0, 1)] == [2, 2]
    header = (tmp_path / "q.vllm.sbatch").read_text().partition("\nset ")[0]
    first, second = header.split("#SBATCH hetjob")
    assert all("#SBATCH --nodes=1\n" in part and "#SBATCH --gpus-per-node=8" in part for part in (first, second))


def test_a_part_of_a_node_is_all_that_a_job_asks_for() -> None:
    whole, part = (
        launcher("slurm").files(deployed("vllm", f"decode: gpus = {gpus}, tp = {n}"))["p.vllm.sbatch"].decode()
        for gpus, n in (("0..7", 8), ("0..3", 4))
    )
    assert "--gpus-per-node=8\n#SBATCH --exclusive" in whole
    assert "--gpus-per-node=4\n" in part and "exclusive" not in part


def test_a_job_is_submitted(tmp_path: Path) -> None:
    name = "p.vllm.sbatch"
    (tmp_path / name).write_bytes(launcher("slurm").files(deployed("vllm", TWO))[name])
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", name], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "it is a job: sbatch" in done.stderr and len([*tmp_path.iterdir()]) == 1


def test_trtllm_has_a_front_end(tmp_path: Path, started: list[Started]) -> None:
    one = deployed("trtllm", COPIES)
    run = Started(tmp_path, one, "shell")
    started.append(run)
    run.ready()
    (front,) = [s for s in heard(tmp_path) if "disaggregated" in s["argv"]]
    a, b = run.hosts
    assert f'urls: ["{a}:8000", "{a}:8004"]' in front["files"][0] and f'urls: ["{b}:8000"]' in front["files"][0]


def test_gpus_of_a_part_of_each_node_reach_all_ranks() -> None:
    one = deployed("trtllm", "decode: gpus = [0..3, 8..11], pp = 2, tp = 4")
    text = launcher("shell").files(one)["p.trtllm.deploy.sh"].decode()
    assert "export CUDA_VISIBLE_DEVICES=0,1,2,3\n" in text and "mpirun -n 8 -x PATH -x CUDA_VISIBLE_DEVICES \\" in text
    one = deployed("trtllm", "decode: gpus = [0..3, 12..15], pp = 2, tp = 4")
    with pytest.raises(SpecError, match="other GPUs on each of its nodes"):
        launcher("shell").files(one)
    text = launcher("slurm").files(one)["p.trtllm.sbatch"].decode()
    assert 'local gpus=("0,1,2,3" "4,5,6,7")' in text and "CUDA_VISIBLE_DEVICES=${gpus[node]}" in text


def test_a_port_in_use_is_no_server_of_this_run(tmp_path: Path, started: list[Started]) -> None:
    one = deployed("vllm", TWO)
    run = Started(tmp_path, one, "shell")
    started.append(run)
    run.ready()
    again = subprocess.run(
        ["bash", "p.vllm.deploy.sh"], cwd=tmp_path, env={**run.env, "LOGS": "again"}, capture_output=True, text=True
    )
    assert again.returncode == 1 and f"prefill: something answers at http://{run.hosts[0]}:8000/health" in again.stderr
    assert len(heard(tmp_path)) == 3


def test_what_a_log_ends_with_is_harmless(tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployed("vllm", TWO), "shell", SETUP="printf '\\033[31mred\\n'", FAKE_FAILS="--port 8004")
    started.append(run)
    code, out = run.ended()
    assert code == 1 and "[31mred" in out and "\033" not in out


def test_a_server_that_ends_ends_all(tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployed("vllm", TWO), "shell", FAKE_FAILS="--port 8004")
    started.append(run)
    code, out = run.ended()
    assert code == 1 and "decode has ended" in out and "no GPU here" in out and not run.left()


@pytest.mark.parametrize("kind", spread(["shell", "slurm"]))
def test_a_server_that_is_killed_later_ends_all(kind: str, tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployed("vllm", TWO), kind)
    started.append(run)
    run.ready()
    os.kill(next(s["pid"] for s in heard(tmp_path) if "8004" in s["argv"]), signal.SIGKILL)
    code, out = run.ended()
    assert code == 1 and "decode has ended" in out and not run.left()


def test_the_end_of_the_launcher_is_the_end_of_all(tmp_path: Path, started: list[Started]) -> None:
    """Also where it has no time to say so."""
    run = Started(tmp_path, deployed("vllm", NODES), "shell")
    started.append(run)
    run.ready()
    run.process.kill()
    assert not run.left()


def test_a_command_runs_in_between(tmp_path: Path, started: list[Started]) -> None:
    one = deployed("vllm", TWO)
    run = Started(tmp_path, one, "shell", "sh", "-c", 'curl -fsS "$URL/health" && echo "asked $URL"; exit 7')
    started.append(run)
    found, out = run.ended()
    assert found == 7 and f"asked http://{run.hosts[0]}:9000" in out and not run.left()


def test_what_was_asked_for_ends_too(tmp_path: Path, started: list[Started]) -> None:
    """With all that it started."""
    run = Started(tmp_path, deployed("vllm", TWO), "shell", "sh", "-c", "vllm bench; true")
    started.append(run)
    run.ready()
    deadline = time.monotonic() + 60
    while len(heard(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    assert run.ended()[0] == 130 and not run.left()


@pytest.mark.parametrize(
    "given, why",
    [
        ({"LIMIT_S": "an hour"}, "whole seconds"),
        ({"HOSTS": "nowhere"}, "cannot read nowhere"),
        ({"HOSTS": "few"}, "on 3 hosts, and there are 1"),
        ({"HOSTS": "twice"}, "b is there twice"),
        ({"HOSTS": "odd"}, "not the name or address of a host: '$(reboot)'"),
        ({"HOSTS": "option"}, "not the name or address of a host: '-oProxyCommand=x'"),
    ],
)
def test_hosts_that_are_none(given: Mapping[str, str], why: str, tmp_path: Path) -> None:
    for name, lines in {
        "few": "a",
        "twice": "a\r\nb\r\nb\r\n",
        "odd": "a\nb\n$(reboot)",
        "option": "a\nb\n-oProxyCommand=x",
    }.items():
        (tmp_path / name).write_text(lines)
    name = "p.vllm.deploy.sh"
    (tmp_path / name).write_bytes(launcher("shell").files(deployed("vllm", NODES))[name])
    done = subprocess.run(
        ["bash", name], cwd=tmp_path, env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True
    )
    assert done.returncode == 2 and why in done.stderr and not (tmp_path / "p.logs").exists()


def test_phases_may_be_called_what_the_shell_knows(tmp_path: Path, started: list[Started]) -> None:
    names = ("exec", "path", "hosts", "at")
    phases = " | ".join(f"{name}: kind = prefill, gpus = {k}, tp = 1" for k, name in enumerate(names, 4))
    one = deployed("vllm", f"decode: gpus = 0..3, tp = 4, sequences = 8 | {phases}")
    run = Started(tmp_path, one, "shell", "true")
    started.append(run)
    assert run.ended()[0] == 0
    (router,) = [s["argv"] for s in heard(tmp_path) if s["argv"][0] == "vllm-router"]
    assert [word for word in router if word.startswith("http")] == [
        f"http://{run.hosts[0]}:{8000 + k}" for k in (0, 4, 5, 6, 7)
    ]


@pytest.mark.parametrize("kind", [one.name for one in LAUNCHERS if not one.in_containers])
@pytest.mark.parametrize("engine", SERVING)
def test_scripts_are_words_to_the_shell(engine: str, kind: str, tmp_path: Path) -> None:
    for name, data in launcher(kind).files(deployed(engine, COPIES, name="it's $(odd); `p`")).items():
        assert name.startswith(f"it_s___odd____p_.{engine}.")
        (tmp_path / name).write_bytes(data)
        if name.endswith(("sh", "sbatch")):
            subprocess.run(["bash", "-n", tmp_path / name], check=True)


def test_a_model_is_a_word(tmp_path: Path, started: list[Started]) -> None:
    model = 'it\'s "$HOME" `x` \\ & <y>'
    text = spec_text(kind="decode", phase="gpus = 4..7, tp = 4", model=MANY, dtype="bf16")
    one = deployment(compiled_text(text), "vllm", model, "p")
    run = Started(tmp_path, one, "shell", "true")
    started.append(run)
    assert run.ended()[0] == 0
    assert [s["argv"][2] for s in heard(tmp_path)] == [model]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("phases", [TWO, NODES, COPIES], ids=["two", "nodes", "copies"])
def test_a_script_by_itself_says_the_same(engine: str, phases: str, tmp_path: Path) -> None:
    """What a shell makes of a word is what its parts say."""
    text = spec_of(phases)
    plan = compiled_text(text)
    one, scripts = deployment(plan, engine, "org/model", "p"), export(plan, engine, "org/model", "p")
    hosts = [f"10.0.0.{k}" for k in range(len(one.hosts))]
    for name in ("vllm", "python3"):
        (tmp_path / name).write_text('#!/usr/bin/env bash\nprintf \'%s\\0\' "${0##*/}" "$@"\n')
        (tmp_path / name).chmod(0o755)
    for server, replica in one.ends:
        (tmp_path / "s.sh").write_bytes(scripts[f"p.{server.name}.{engine}.sh"])
        for node, place in enumerate(server.places[replica]):
            seen = {"NODE": str(node), "HEAD": hosts[server.places[replica][0].host], "REPLICA": str(replica)}
            env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ADDRESS": hosts[place.host], **seen}
            done = subprocess.run(["bash", "s.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
            assert done.stdout.split("\0")[:-1] == told(one, server, replica, node, hosts)[0]


def test_network_cards_are_named_where_they_are_given(tmp_path: Path, started: list[Started]) -> None:
    run = Started(tmp_path, deployed("sglang", TWO), "shell", IB_DEVICE="mlx5_0,mlx5_1")
    started.append(run)
    run.ready()
    cards = [
        s["argv"][s["argv"].index("--disaggregation-ib-device") + 1]
        for s in heard(tmp_path)
        if "--nnodes" in s["argv"] or "--tp-size" in s["argv"]
    ]
    assert cards == ["mlx5_0,mlx5_1"] * 2


def test_a_part_of_a_plan_says_so(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.moe").write_text(spec_of(TWO))
    assert main(["export", str(tmp_path / "p.moe"), "--to", "vllm", "--launcher", "shell", "--phase", "decode"]) < 2
    text = capsys.readouterr().out
    assert "without `prefill` of the plan" in text and "serve_router" not in text


SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
"""The test extra installs it beside this Python, which need not be activated."""


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("kind", ["shell", "slurm"])
@pytest.mark.parametrize("engine", SERVING)
def test_shellcheck_has_no_warning(engine: str, kind: str, tmp_path: Path) -> None:
    one = deployed(engine, NODES)
    for name, data in {**launcher(kind).files(one), **bench_files(one)}.items():
        (tmp_path / name).write_bytes(data)
        done = subprocess.run(
            [str(SHELLCHECK), "-S", "warning", "-s", "bash", name], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_an_unknown_version_is_none(capsys: Capture) -> None:
    spec = str(ROOT / "examples/mixtral_8xh100.moe")
    assert main(["export", spec, "--to", "vllm", "--launcher", "shell", "--engine-version", "9.9"]) == 2
    assert "not known" in capsys.readouterr().err
    with pytest.raises(SpecError):
        deployment(compiled_text(spec_of(TWO)), "vllm", "-x", "p")
