"""Local processes for a run that torchrun did not start: one per rank, found by the variables that torchrun would set."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError

QUIET = "6"
"""A level of PyTorch's profiler that no message of it has."""

PATIENCE_S = 5.0
"""How long processes that are told to end may take."""
NO_ANSWER = ("timed out", "timeout", "connection closed", "connection reset", "broken pipe", "wait timeout")
"""What gloo and NCCL say then."""


class LaunchError(Exception):
    """A process failed. `rank`, and what it said last."""


def launched() -> bool:
    """Whether this process is one of a job already."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def device_of(asked: str, local: int) -> str:
    """cpu or cuda for so many processes on this machine. Raises SpecError with E16."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cuda" and gpus < local:
        raise SpecError([Diagnostic("E16", f"`--device cuda`: {local} processes on this machine, {gpus} GPUs")])
    return asked if asked != "auto" else "cuda" if gpus >= local else "cpu"


def spawn(arguments: Sequence[str], processes: int) -> int:
    """Run `dagc ARGUMENTS` in so many processes; the first one's exit code. The others are silent. Raises LaunchError
    when one of them fails, after ending the rest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    shared["KINETO_LOG_LEVEL"] = os.environ.get("KINETO_LOG_LEVEL", QUIET)
    command = [sys.executable, "-m", "dagc", *arguments]
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as said:
        try:
            for rank in range(processes):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                out, err = (None, None) if rank == 0 else (subprocess.DEVNULL, said)
                running.append(subprocess.Popen(command, env={**os.environ, **shared, **own}, stdout=out, stderr=err))
            while any(process.poll() is None for process in running):
                if running[0].poll():
                    break  # it has said why; the others would wait for it
                failed = [r for r, p in enumerate(running) if r and p.poll() not in (None, 0)]
                if failed:
                    said.seek(0)
                    last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                    reason = "".join(last) or _ended(running[failed[0]].returncode)
                    raise LaunchError(f"process {failed[0]} of {processes} failed: {reason}")
                time.sleep(0.05)
        finally:
            end(running)
    return int(running[0].returncode)


def end(running: Sequence[subprocess.Popen[bytes]], patience_s: float = PATIENCE_S) -> None:
    """All of them, whatever they do: one that does not end by itself, or that is stopped, is killed."""
    left = [process for process in running if process.poll() is None]
    for process in left:
        process.terminate()
    until_s = time.monotonic() + patience_s
    for process in left:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def in_vain(error: RuntimeError) -> str:
    """The first line of an error by which torch.distributed tells that another process did not answer; empty where it is another one."""
    reason = re.sub(r"^\[[^]]*\]\s*", "", (str(error).splitlines() or [""])[0])  # without the file of gloo that says so
    return reason if any(word in reason.lower() for word in NO_ANSWER) else ""


def _ended(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
