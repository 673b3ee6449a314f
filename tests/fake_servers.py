"""Programs of serving engines, Slurm and ssh that only say what they were told, for tests of what starts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagc.export.deploy.deployment import Deployment, Server
from dagc.export.engines.words import Address, Beside, Fabric, Listen, Parts

# Without http.server, which takes longer to import than all else of it.
SERVER = f"""#!{sys.executable} -SE
import json, os, sys, time
argv = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
after = lambda option, other="": argv[argv.index(option) + 1] if option in argv else other
files = [open(after(option)).read() for option in ("--config", "-c") if after(option)]
seen = {{name: value for name, value in os.environ.items() if name.startswith(("VLLM", "SGLANG", "CUDA", "URL"))}}
at = os.environ.get("FAKE_ADDRESS", "127.0.0.1")
said = {{"argv": argv, "environment": seen, "at": at, "files": files, "pid": os.getpid(), "cwd": os.getcwd()}}
path = os.path.join(os.environ["FAKE_LOG"], str(os.getpid()))
with open(path + ".part", "w") as file:
    json.dump(said, file)
os.rename(path + ".part", path)
if os.environ.get("FAKE_FAILS", "nothing") in " ".join(argv):
    sys.exit("no GPU here")
port = after("--port") or next((line[6:] for text in files for line in text.split(chr(10)) if line[:6] == "port: "), "")
if "--headless" in argv or after("--node-rank", "0") != "0" or not port:
    time.sleep(10**6)
import socket
server = socket.create_server((at, int(port)))
sick = os.environ.get("FAKE_SICK", "nothing") in " ".join(argv)
while True:
    asked, (one, _) = b"", server.accept()
    with one:
        while b"\\r\\n\\r\\n" not in asked and (more := one.recv(4096)):
            asked += more
        code = 404 if asked.split(b" ")[1:2] != [b"/health"] else 503 if sick else 200
        one.sendall(b"HTTP/1.0 %d said\\r\\n\\r\\n" % code)
"""
SSH = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift 2; done
export FAKE_ADDRESS=$1
shift
exec sh -c "$*"
"""
SRUN = f"""#!{sys.executable} -SE
import os, signal, subprocess, sys
options = dict(word[2:].split("=", 1) if "=" in word else (word[2:], "") for word in sys.argv[1:] if word.startswith("--"))
at = next(k for k, word in enumerate(sys.argv) if k and not word.startswith("--"))
nodes, each = options["nodelist"].split(","), int(options["ntasks-per-node"])
assert len(nodes) == int(options["nodes"]) and int(options["ntasks"]) == len(nodes) * each and "overlap" in options
with open(os.path.join(os.environ["FAKE_LOG"], "srun"), "a") as file:
    print(*sys.argv[1:at], file=file)
tasks = []
def end(*of):
    for task in tasks:
        try:
            os.killpg(task.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
for rank in range(len(nodes) * each):
    name = nodes[rank // each]
    own = dict(os.environ, SLURMD_NODENAME=name, FAKE_ADDRESS=name, SLURM_PROCID=str(rank))
    tasks.append(subprocess.Popen(sys.argv[at:], env=own, start_new_session=True))
os.wait()
end()
"""
SCONTROL = """#!/usr/bin/env bash
tr , '\\n' <<<"$3"
"""
LAUNCH = """#!/usr/bin/env bash
[ "$SLURM_PROCID" = 0 ] || exec sleep 60
exec "$@"
"""
SLURM = {"srun": SRUN, "scontrol": SCONTROL, "trtllm-llmapi-launch": LAUNCH}
PROGRAMS = ("vllm", "vllm-router", "python3", "trtllm-serve", "mpirun")


def install(folder: Path, **further: str) -> Path:
    """The programs, in a folder for PATH."""
    made = folder / "bin"
    made.mkdir()
    for name, text in {**dict.fromkeys(PROGRAMS, SERVER), "ssh": SSH, **SLURM, **further}.items():
        (made / name).write_text(text)
        (made / name).chmod(0o755)
    (folder / "log").mkdir()
    return made


def heard(folder: Path) -> list[dict[str, Any]]:
    """What each process was told."""
    return [json.loads(path.read_text()) for path in sorted((folder / "log").glob("[0-9]*")) if path.suffix != ".part"]


def text(parts: Parts, one: Deployment, hosts: Sequence[str], work: str = "") -> str:
    """Of a word, where addresses are known."""
    out = ""
    for part in parts:
        match part:
            case str():
                out += part
            case Address(server, replica, node):
                out += hosts[one.server(server).places[replica][node].host]
            case Listen():
                out += "0.0.0.0"
            case Beside(suffix):
                out += f"{work}/config.{suffix}"
            case _:
                raise TypeError(part)
    return out


def told(
    one: Deployment, server: Server, replica: int, node: int, hosts: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a node, from the record alone."""
    words = [w for w in server.words(replica, node) if not isinstance(w[0], Fabric)]
    argv = [text(word, one, hosts) for word in words]
    return argv, {k: text(w, one, hosts) for k, w in server.variables(replica, node).items()}
