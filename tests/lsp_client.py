"""A plain client of the Language Server Protocol: JSON over the pipes of a real `dagc lsp`."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


class Client:
    """`received`: notifications that nobody asked for yet."""

    def __init__(
        self, *options: str, encodings: tuple[str, ...] = ("utf-16",), more: dict[str, Any] | None = None
    ) -> None:
        command = [sys.executable, "-m", "dagc", "lsp", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.received: list[dict[str, Any]] = []
        self.incoming: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.last = 0
        threading.Thread(target=self._read, daemon=True).start()
        asked = {
            "processId": None,
            "rootUri": None,
            "capabilities": {"general": {"positionEncodings": list(encodings)}},
        }
        self.capabilities = self.ask("initialize", {**asked, **(more or {})})["capabilities"]
        self.note("initialized", {})

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while True:
            length = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not line:
                self.incoming.put(None)
                return
            self.incoming.put(json.loads(stream.read(length)))

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def note(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def next(self) -> dict[str, Any]:
        message = self.incoming.get(timeout=PATIENCE_S)
        if message is None:
            assert self.process.stderr is not None
            raise AssertionError(f"the server ended: {self.process.stderr.read().decode()[-2000:]}")
        return message

    def start(self, method: str, params: Any) -> int:
        """Ask without waiting."""
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        return self.last

    def answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self.next()
            if message.get("id") == number and "method" not in message:
                return message
            self.received.append(message)

    def ask(self, method: str, params: Any) -> Any:
        message = self.answer(self.start(method, params))
        assert "error" not in message, message
        return message["result"]

    def wait(self, method: str) -> Any:
        for i, message in enumerate(self.received):
            if message.get("method") == method:
                return self.received.pop(i)["params"]
        while (message := self.next()).get("method") != method:
            self.received.append(message)
        return message["params"]

    # documents

    def open(self, path: Path, text: str | None = None) -> str:
        uri = path.as_uri()
        shown = path.read_text() if text is None else text
        self.note(
            "textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "moe", "version": 1, "text": shown}}
        )
        return uri

    def change(self, uri: str, version: int, text: str) -> None:
        it = {"uri": uri, "version": version}
        self.note("textDocument/didChange", {"textDocument": it, "contentChanges": [{"text": text}]})

    def at(self, uri: str, line: int, character: int, **more: Any) -> dict[str, Any]:
        return {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}, **more}

    def findings(self, uri: str, version: int) -> list[dict[str, Any]]:
        """The next ones of a version."""
        while True:
            params = self.wait("textDocument/publishDiagnostics")
            if params["uri"] == uri and params.get("version") == version:
                return list(params["diagnostics"])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> int:
        self.ask("shutdown", None)
        self.note("exit", None)
        return self.process.wait(PATIENCE_S)
