"""Asking a machine: programs of the driver, run for a bounded time and read to a bounded length."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ...base.frozen import record, replace
from . import host_files, rocm, smi
from .inventory import Gpu, Machine, Misread, Nic, kept

LIMIT_S = 30.0
"""Of one program: a driver that hangs answers never."""
MOST_B = 16_000_000
T = TypeVar("T")
PROGRAMS = {"nvidia": "nvidia-smi", "amd": "rocm-smi"}
VISIBLE = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",), "amd": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}  # fmt: skip
"""What chooses among a host's GPUs."""


class Unanswered(Exception):
    """A program is missing, failed, or took too long: why."""


@record
class Answer:
    """What a program printed, and its exit code."""

    out: bytes
    code: int


def ask(*command: str, limit_s: float = LIMIT_S) -> Answer:
    """Raises Unanswered. What it prints goes to a file, so that a child that keeps the pipe open cannot hold us."""
    path = shutil.which(command[0])
    if path is None:
        raise Unanswered("it is not on PATH")
    with tempfile.TemporaryFile() as out:
        try:
            running = subprocess.Popen(
                [path, *command[1:]], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "LC_ALL": "C"}, preexec_fn=_bounded,
            )  # fmt: skip
        except OSError as error:
            raise Unanswered(error.strerror or str(error)) from None
        try:
            code = running.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Unanswered(f"no answer within {limit_s:g} s") from None
        finally:
            stop(running)
        out.seek(0)
        data = out.read(MOST_B + 1)
    if len(data) > MOST_B:
        raise Unanswered(f"it printed more than {MOST_B:,} bytes")
    return Answer(data, code)


def _bounded() -> None:
    """In the child: what it prints goes to a disk that others need."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_B + 1, MOST_B + 1))


def stop(running: subprocess.Popen[bytes]) -> None:
    """The process and its children, if they still run."""
    if running.poll() is None:
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            running.kill()
        with suppress(subprocess.TimeoutExpired):
            running.wait(5)  # one that waits inside the driver dies later


def found(vendor: str, weights: str | None = None) -> Machine:
    """This host. `vendor`: whose GPUs are looked for; nothing: none."""
    whole, available = host_files.memory_B()
    folder, free, there = host_files.disk(host_files.weights_folder(weights))
    torch, cuda = host_files.torch_versions()
    machine = Machine(
        kept(platform.node()) or "localhost", vendor, nics=host_files.nics(), memory_B=whole, available_B=available,
        shared_B=host_files.shared_B(), disk=folder, disk_free_B=free, weights_there_B=there, torch=torch, torch_cuda=cuda,
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    )  # fmt: skip
    return _visible(_amd(machine) if vendor == "amd" else _nvidia(machine) if vendor == "nvidia" else machine)


def _visible(machine: Machine) -> Machine:
    """The machine with the GPUs that processes of this environment may use."""
    name = next((name for name in VISIBLE.get(machine.vendor, ()) if name in os.environ), None)
    if name is None:
        return machine
    chosen = [word.strip() for word in os.environ[name].split(",")]
    gpus = tuple(g for g in machine.gpus if any(_is(g, word) for word in chosen))
    return replace(machine, gpus=gpus, hidden=len(machine.gpus) - len(gpus))


def _is(gpu: Gpu, word: str) -> bool:
    """A word of CUDA_VISIBLE_DEVICES: an index, or the beginning of an id."""
    return word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))


def _asked(read: Callable[[Answer], T], missing: list[str], *command: str) -> T | None:
    """What a program's answer says; None where it has none, with the reason in `missing`."""
    try:
        answer = ask(*command)
    except Unanswered as error:
        missing.append(f"{' '.join(command)}: {error}")
        return None
    try:
        return read(answer)
    except Misread as error:
        text = kept(answer.out.decode("utf-8", "replace"))
        said = f"exit code {answer.code}: {text}" if answer.code else str(error)
        missing.append(f"{' '.join(command)}: {said}")
        return None


def _text(answer: Answer) -> str:
    return answer.out.decode("utf-8", "replace")


def _nvidia(machine: Machine) -> Machine:
    missing: list[str] = []
    log = _asked(lambda a: smi.read_log(a.out), missing, "nvidia-smi", "-q", "-x")
    if log is None:
        return replace(machine, missing=tuple(missing))
    gpus = log.gpus
    if gpus:
        query = ("nvidia-smi", "--query-gpu=index,compute_cap", "--format=csv,noheader")
        gpus = _asked(lambda a: smi.with_capabilities(gpus, _text(a)), missing, *query) or gpus
        gpus = _asked(lambda a: smi.with_links(gpus, _text(a)), missing, "nvidia-smi", "nvlink", "--status") or gpus
    topology = None
    if len(gpus) > 1:
        topology = _asked(lambda a: smi.read_topology(_text(a)), missing, "nvidia-smi", "topo", "-m")
    made = replace(machine, driver=log.driver, cuda=log.cuda, gpus=gpus, missing=tuple(missing))
    return made if topology is None else with_topology(made, topology)


def with_topology(machine: Machine, topology: smi.Topology) -> Machine:
    """The machine with what joins its GPUs, and which of them its NICs are near."""
    near = {topology.names.get(name, name): gpus for name, gpus in topology.near.items()}
    nics = tuple(Nic(n.name, n.rate_Bps, n.active, near.get(n.name.partition(":")[0], ())) for n in machine.nics)
    return replace(machine, joined=topology.joined, nics=nics)


def _amd(machine: Machine) -> Machine:
    missing: list[str] = []
    cards = _asked(lambda a: rocm.read_cards(a.out), missing, "rocm-smi", *rocm.ASK)
    if cards is None:
        return replace(machine, missing=tuple(missing))
    return replace(machine, driver=cards.driver, gpus=cards.gpus, missing=tuple(missing))
