"""The extension of VS Code: what it contains, what it names, and what its client tells when there is no server."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import textmate
from conftest import ROOT
from node_modules import EDITOR, needs_node, node

import dagc
from dagc.base.version import VERSION

PACKAGE: dict[str, Any] = json.loads((EDITOR / "package.json").read_text())
VSIX = Path(os.environ.get("DAGC_VSIX", EDITOR / "out" / "moe-dagc.vsix"))
needs_vsix = pytest.mark.skipif(
    not VSIX.is_file(), reason="the extension is not packaged: `npm run package` in editors/vscode"
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vsix")
    with zipfile.ZipFile(VSIX) as archive:
        archive.extractall(folder)
    return folder / "extension"


@needs_vsix
def test_package_has_what_it_names_and_nothing_else(unpacked: Path) -> None:
    parts = PACKAGE["contributes"]
    named = {PACKAGE["main"], *(g["path"] for g in parts["grammars"]), *(s["path"] for s in parts["snippets"])}
    named |= {language["configuration"] for language in parts["languages"]}
    found = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    beside = {"package.json", "readme.md", "LICENSE.txt", "out/THIRD_PARTY.txt"}
    assert found == {os.path.normpath(name) for name in named} | beside


@needs_vsix
def test_its_grammar_and_licence_are_the_repository_s(unpacked: Path) -> None:
    assert (unpacked / "out" / "moe.tmLanguage.json").read_text() == textmate.TARGET.read_text()
    assert (unpacked / "LICENSE.txt").read_text() == (ROOT / "LICENSE").read_text()
    assert "vscode-languageclient 1" in (unpacked / "out" / "THIRD_PARTY.txt").read_text()


@needs_node
@needs_vsix
@pytest.mark.parametrize("path", ["/nowhere/dagc", "dagc-that-is-nowhere"])
def test_a_missing_command_is_named_once(unpacked: Path, path: str) -> None:
    told = {"extension": str(unpacked / "out" / "extension.js"), "settings": {"server": True, "path": path}}
    answer = node(EDITOR / "test" / "activate.mjs", told=told)
    (warning,) = answer["warnings"]
    assert f"`{path}`" in warning and "pip install 'dagc-moe[lsp]'" in warning
    assert answer["commands"] == [c["command"] for c in PACKAGE["contributes"]["commands"]]


@needs_node
@needs_vsix
def test_the_server_is_spoken_to_over_its_standard_input(unpacked: Path, tmp_path: Path) -> None:
    """A script in the place of dagc writes down how it was called and what it was told first, and ends: the user learns that it did."""
    command, called, told = tmp_path / "dagc", tmp_path / "called", tmp_path / "told"
    command.write_text(f'#!/bin/sh\necho "$@" > {called}\nhead -c 200 > {told}\nexit 1\n')
    command.chmod(0o755)
    settings = {"server": True, "path": str(command)}
    answer = node(
        EDITOR / "test" / "activate.mjs",
        told={"extension": str(unpacked / "out" / "extension.js"), "settings": settings},
    )
    assert called.read_text() == "lsp\n"
    assert told.read_text().startswith("Content-Length: ") and '"method":"initialize"' in told.read_text()
    assert "The language server did not start" in answer["warnings"][0]


@needs_node
@needs_vsix
def test_without_a_server_nothing_is_started_or_told(unpacked: Path) -> None:
    told = {"extension": str(unpacked / "out" / "extension.js"), "settings": {"server": False, "path": "/nowhere/dagc"}}
    assert node(EDITOR / "test" / "activate.mjs", told=told)["warnings"] == []


def test_versions_and_names_are_the_package_s() -> None:
    assert PACKAGE["version"] == VERSION.split("+")[0].split(".dev")[0]
    assert PACKAGE["contributes"]["grammars"][0]["scopeName"] == textmate.grammar()["scopeName"]
    assert PACKAGE["license"] == "Apache-2.0"


def test_every_setting_that_the_client_reads_is_declared() -> None:
    code = (EDITOR / "src" / "extension.js").read_text()
    read = {f"dagc.{name}" for name in re.findall(r'settings\.get\("(\w+)"', code)}
    declared = set(PACKAGE["contributes"]["configuration"]["properties"])
    assert read and read <= declared
    assert declared - read == {"dagc.trace.server"}  # of the client library
    readme = (EDITOR / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in declared)


def test_lock_names_no_registry() -> None:
    lock = json.loads((EDITOR / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert lock["packages"][""]["devDependencies"] == PACKAGE["devDependencies"]


def _plain(snippet: dict[str, Any]) -> str:
    """The text that a snippet inserts when every stop keeps its default."""
    text = "\n".join(snippet["body"])
    text = re.sub(r"\$\{\d+\|([^,|]*)[^}]*\}", r"\1", text)
    return re.sub(r"\$\d+", "", re.sub(r"\$\{\d+:([^}]*)\}", r"\1", re.sub(r"\$\{2:x\}", "x", text)))


def test_snippets_are_specs() -> None:
    """The whole spec compiles, and so does it with each other snippet in the place of what it is."""
    snippets = {s["prefix"]: _plain(s) for s in json.loads((EDITOR / "snippets" / "moe.json").read_text()).values()}
    whole = snippets.pop("moe")
    by_hand = "\n".join(
        ["moe 1", *(snippets[k] for k in ("hardware", "model", "workload", "phase", "block", "require"))]
    )
    for text in (whole, by_hand, whole + snippets["serve"]):
        plan = dagc.compile_text(text)
        assert plan.requirements


def test_language_configuration() -> None:
    told = json.loads((EDITOR / "language-configuration.json").read_text())
    increase, decrease = (
        re.compile(told["indentationRules"][f"{way}IndentPattern"]) for way in ("increase", "decrease")
    )
    for line in ("phase prefill {", "block f(x) in decode {", "order = [", "model m {  # by hand"):
        assert increase.search(line), line
    for line in ("workload { sequences = 64 }", "gpus = 0..7, ep = 4", "# an open {", "}", "order = [pp, tp]"):
        assert not increase.search(line), line
    assert decrease.search("  }") and decrease.search("]") and not decrease.search("phase prefill {")
    assert all(re.fullmatch(told["wordPattern"], word) for word in ("kv_heads", "32_000", "W2"))
