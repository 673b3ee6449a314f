"""Commands with torch whose ranks are forks of one process that has torch already: to import it takes longer than to run a small plan.

A rank is started as torchrun starts one: by its variables of the environment. As a script it reads a job a line, and answers each. `python` is an
interpreter whose programs are such forks too, for what starts its processes itself."""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from ast import literal_eval
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PROFILER = "torch._inductor.utils"
"""What PyTorch's profiler imports when it begins, which takes a second."""


class Forks:
    """The process that forks, as long as this one lives."""

    def __init__(self) -> None:
        env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
        env |= {"OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "6"}  # as `dagc run` gives its processes
        command = [sys.executable, str(Path(__file__).resolve())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=env, text=True
        )
        atexit.register(self.end)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@cache
def forks() -> Forks:
    return Forks()


def dagc(
    *words: str, ranks: int = 1, faults: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in so many processes: the first one's output, and what all said of errors. `environment`: in the place of what a rank is
    told otherwise."""
    found = forks().run({"arguments": words, "ranks": ranks, "faults": faults, "environment": environment})
    return subprocess.CompletedProcess(["dagc", *words], found["code"], found["out"], found["err"])


def run(spec: Path, ranks: int, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """`dagc run` of a spec."""
    return dagc("run", str(spec), "--repeat", "1", "--timeout", "60", *options, ranks=ranks, **more)


@cache
def python(*imported: str) -> str:
    """In the place of `sys.executable`: takes `-m MODULE` or a script, with what they are told, and has modules already."""
    folder = Path(tempfile.mkdtemp(prefix="dagc"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command, address = folder / "python", folder / "forks"
    client = [sys.executable, "-IS", str(ROOT / "tests" / "fork_client.py"), str(address)]
    command.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    command.chmod(0o755)
    forks().run({"address": str(address), "executable": str(command), "imported": imported})
    return str(command)


COMPILED = """moe 1
hardware pool from "h100-sxm" { gpus = 2 }
model small {
  layers = 2, hidden = 64, vocab = 64, dtype = bf16
  attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
  experts { count = 4, top_k = 2, hidden = 32 }
}
workload { sequences = 2, prompt = 8 tok, output = 8 tok, routing = zipf(1) }
phase decode { gpus = 0..1, ep = 2 }
phase step { kind = train, gpus = 0..1, dp = 2 }
"""
"""Once before all forks: a hundred modules and the stock blocks are read while something is compiled."""


def _work() -> None:
    """Answers until nobody asks any more."""
    import dagc.cli.process
    import dagc.cli.run
    import dagc.execute.prove
    import dagc.execute.step_twin
    import dagc.execute.torch.training_trial
    import dagc.execute.torch.trial
    import dagc.export.json
    import dagc.pipeline.compile
    import dagc.pipeline.trained_phase

    dagc.compile_text(COMPILED)
    answers = os.fdopen(os.dup(1), "w")  # nothing else may write between the answers
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        if "--trace" in job.get("arguments", ()):
            import_module(PROFILER)
        answers.write(json.dumps(_serve(**job) if "address" in job else _job(**job)) + "\n")
        answers.flush()


def _job(
    arguments: Sequence[str], ranks: int, faults: dict[str, Any] | None, environment: dict[str, str] | None
) -> dict[str, Any]:
    import dagc

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    if arguments[0] == "run" and ranks > 1:  # what it compiles is kept, for each of them
        with suppress(Exception):
            dagc.compile(arguments[1])
    code = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        left = set()
        for rank in range(ranks):
            child = os.fork()
            if not child:
                own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ.update(own if environment is None else environment)
                os.dup2(err.fileno(), 2)
                os.dup2(out.fileno() if rank == 0 else err.fileno(), 1)
                _rank(arguments, faults)
            left.add(child)
        while left:
            child, status = os.wait()
            left.discard(child)
            if status and not code:
                code = os.waitstatus_to_exitcode(status)
                for other in left:  # they would wait for it
                    os.kill(other, signal.SIGTERM)
        return {"code": code, "out": _read(out), "err": _read(err)}


def _rank(arguments: Sequence[str], faults: dict[str, Any] | None) -> None:
    """Never returns."""
    from dagc.cli import main

    def ranked() -> int:
        if faults is not None:
            import faulty_run

            faulty_run.put_in(faults)
        return main([*arguments])

    _ended(ranked)


def _ended(program: Callable[[], object]) -> None:
    """Never returns. As Python ends: with what `sys.exit` is told."""
    code: object = 70
    try:
        code = program()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


# -- programs of `python` ------------------------------------------------------------------------


def _serve(address: str, executable: str, imported: Sequence[str]) -> dict[str, Any]:
    """A process that answers fork_client.py until its parent ends."""
    for one in imported:
        import_module(one)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    parent = os.getpid()
    if os.fork():
        listening.close()
        return {}
    listening.settimeout(5)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while os.getppid() == parent:
        try:
            asked, _ = listening.accept()
        except TimeoutError:
            continue
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _program(asked, executable)
        asked.close()
    os._exit(0)


def _program(asked: socket.socket, executable: str) -> None:
    """Never returns. The program is a child, whose end the client is told."""
    asked.setblocking(True)
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    with asked.makefile() as told:
        arguments, folder, environment = literal_eval(told.readline())
    child = os.fork()
    if child:
        asked.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    asked.close()
    for stream in range(3):
        os.dup2(streams[stream], stream)
    for stream in streams:
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, sys.argv = executable, arguments
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    _ended(_run)


def _run() -> None:
    while sys.argv[0] == "-u":
        del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


if __name__ == "__main__":
    _work()
