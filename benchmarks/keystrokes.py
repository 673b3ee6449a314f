"""From a keystroke to its findings: a session with a real `dagc lsp`, one example after another.

python benchmarks/keystrokes.py [-n CHANGES] [EXAMPLE ...]

Wall time and CPU time of server and checking processes, per change: `spec` until the findings of syntax and spec are there (the
30 ms included that it waits for the next keystroke), `plan` until those with costs are, where typing pauses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SPECS = ("plan_a", "plan_b", "mixtral_8xh100", "qwen3_235b_vllm", "custom_attention")
TARGET_MS = 100.0


class Session:
    """One server, spoken to without threads: what is waited for always comes."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "dagc", "lsp"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.send({"id": 0, "method": "initialize", "params": {"processId": None, "rootUri": None, "capabilities": {}}})
        while self.read().get("id") != 0:
            pass
        self.send({"method": "initialized", "params": {}})

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        stream, length = self.process.stdout, 0
        assert stream is not None
        while (line := stream.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        found: dict[str, Any] = json.loads(stream.read(length))
        return found

    def findings(self, version: int) -> None:
        """Waits for the next ones of a version."""
        while (message := self.read()).get("params", {}).get("version") != version:
            assert "id" not in message, message

    def cpu_s(self) -> float:
        """Of the server and its children so far."""
        pids = [self.process.pid]
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pids += [int(path.parent.name)] if int(fields[1]) == self.process.pid else []
        total = 0.0
        for pid in pids:
            # Nanoseconds on a processor, of each thread.
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                total += int(task.read_text().split()[0]) / 1e9
        return total

    def end(self) -> None:
        self.send({"id": 1, "method": "shutdown", "params": None})
        self.send({"method": "exit", "params": None})
        self.process.wait()


def measure(name: str, changes: int) -> None:
    path = ROOT / "examples" / f"{name}.moe"
    text, session = path.read_text(), Session()
    document: dict[str, Any] = {"uri": path.as_uri(), "version": 1}
    session.send(
        {"method": "textDocument/didOpen", "params": {"textDocument": {**document, "languageId": "moe", "text": text}}}
    )
    session.findings(1), session.findings(1)  # processes have started
    rows = []
    for version in range(2, changes + 2):
        change = {
            "textDocument": {**document, "version": version},
            "contentChanges": [{"text": f"{text}# {version}\n"}],
        }
        cpu, start = session.cpu_s(), time.perf_counter()
        session.send({"method": "textDocument/didChange", "params": change})
        session.findings(version)
        quick = time.perf_counter() - start, session.cpu_s() - cpu
        session.findings(version)
        rows.append((*quick, time.perf_counter() - start, session.cpu_s() - cpu))
    session.end()
    spec_wall, spec_cpu, plan_wall, plan_cpu = ([row[i] * 1e3 for row in rows] for i in range(4))
    figures = "".join(f"{statistics.median(v):>9.1f}{min(v):>9.1f}" for v in (spec_wall, spec_cpu, plan_wall, plan_cpu))
    print(f"{name:<20}{text.count(chr(10)):>6}{figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="changes of each example")
    parser.add_argument("examples", nargs="*", default=SPECS, metavar="EXAMPLE", help="names of examples")
    chosen = parser.parse_args()
    heads = "".join(f"{what:>11}{'min':>9}" for what in ("spec wall", "cpu", "plan wall", "cpu"))
    print(f"{'ms, median':<20}{'lines':>6}{heads}   target of `spec`: {TARGET_MS:g} for 100 lines")
    for name in chosen.examples:
        measure(name, chosen.n)


if __name__ == "__main__":
    main()
