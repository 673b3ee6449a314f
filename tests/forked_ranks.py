"""Commands with torch whose ranks are forks of one process that has torch already: to import it takes longer than to run a small plan.

A rank is started as torchrun starts one: by its variables of the environment. As a script it reads a job a line, and answers each."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


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


def _work() -> None:
    """Answers until nobody asks any more."""
    import dagc.cli.run
    import dagc.execute.prove
    import dagc.execute.step_twin
    import dagc.execute.torch.training_trial
    import dagc.execute.torch.trial
    import dagc.pipeline.compile
    import dagc.pipeline.trained_phase  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")  # nothing else may write between the answers
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_job(**json.loads(line))) + "\n")
        answers.flush()


def _job(
    arguments: Sequence[str], ranks: int, faults: dict[str, Any] | None, environment: dict[str, str] | None
) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
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

    code = 70
    try:
        if faults is not None:
            import faulty_run

            faulty_run.put_in(faults)
        code = main([*arguments])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


if __name__ == "__main__":
    _work()
