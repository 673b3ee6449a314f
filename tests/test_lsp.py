"""An editor's session: messages in, answers out, with a real `dagc lsp`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsp_client import Client

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    one = Client()
    yield one
    assert one.end() == 0


def test_findings_come_as_one_types_and_then_with_costs(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.moe"
    text = (EXAMPLES / "mixtral_8xh100.moe").read_text().replace("10 s", "1 ms")
    uri = client.open(path, text.replace("tp = 8, micro", "tpp = 8, micro"))
    (slip,) = client.findings(uri, 1)
    assert slip["code"] == "E02" and "help: did you mean `tp`?" in slip["message"] and slip["severity"] == 1
    assert slip["codeDescription"]["href"].endswith("E02.md")
    line, start = slip["range"]["start"]["line"], slip["range"]["start"]["character"]
    assert text.splitlines()[line][start:].startswith("tp = 8")
    client.change(uri, 2, text)
    assert client.findings(uri, 2) == []  # syntax and spec
    (failed,) = (d for d in client.findings(uri, 2) if d["code"] == "R07")  # and the compiled plan
    assert "first token" in failed["message"]
    client.change(uri, 3, f"# one line more\n{text}")
    assert {d["code"] for d in client.findings(uri, 3)} >= {"R07"}  # known from before, one line further down
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_without_pygls_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pygls'] = None\n")
    hidden = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "dagc", "lsp"], capture_output=True, text=True, env=hidden, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "dagc-moe[lsp]" in done.stderr
