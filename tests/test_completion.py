"""Completion in the real shells: what they offer is what the parsers take."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiers import spread

from dagc.cli import main
from dagc.cli.commands import COMMANDS
from dagc.cli.completion import SHELLS

Complete = Callable[[str], set[str]]
SPEC = "moe 1\nparam batch = 4\n  param   width = 2\nphase decode { }\n  phase pre-fill.2 {\n# phase none {\nphase $(touch x) {\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of the shells, beside a spec and files that are none."""
    made = tmp_path_factory.mktemp("completion")
    (made / "plan.moe").write_text(SPEC)
    (made / "notes.txt").write_text("")
    (made / "deep").mkdir()
    for shell in SHELLS:
        with pytest.MonkeyPatch.context() as patch, (made / f"dagc.{shell}").open("w") as file:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
    return made


def bash(folder: Path, line: str) -> set[str]:
    words = line.split(" ")
    code = (
        f"source dagc.bash; COMP_WORDS=({' '.join(words)!s}{' ' + repr('') if not words[-1] else ''}); "
        f'COMP_CWORD={len(words) - 1}; _dagc; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def fish(folder: Path, line: str) -> set[str]:
    code = f"source dagc.fish; complete -C {line!r}"
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], cwd=folder, capture_output=True, text=True, check=True, env=environment
    )
    return {one.split("\t")[0] for one in done.stdout.splitlines()}


def zsh(folder: Path, line: str) -> set[str]:
    """What an interactive shell on a terminal lists after two tabs."""
    import pty

    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder), "COLUMNS": "2000", "LINES": "1000"}
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    )
    os.close(theirs)
    setup = (
        "unsetopt zle_bracketed_paste; PROMPT=; stty columns 500 rows 500 -echo; autoload -U compinit; compinit -u -D; source ./dagc.zsh; "
        "zstyle ':completion:*' list-prompt ''; LISTMAX=0; setopt no_auto_menu no_list_ambiguous; echo rea''dy\n"
    )
    os.write(ours, setup.encode())
    _until(ours, b"ready\r\n")
    os.write(ours, f"{line}\t\t".encode())
    time.sleep(0.5)
    os.write(ours, b"\x15echo do''ne\n")
    said = _until(ours, b"done\r\n").decode()
    os.close(ours)
    process.kill()
    process.wait()
    return set(re.findall(r"[\w.=/-]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", said)))


def _until(handle: int, end: bytes) -> bytes:
    said = b""
    while end not in said:
        said += os.read(handle, 65536)
    return said


@pytest.fixture(params=spread(SHELLS, ("bash", "fish")))
def complete(request: pytest.FixtureRequest, folder: Path) -> Complete:
    shell = {"bash": bash, "fish": fish, "zsh": zsh}[request.param]
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return lambda line: shell(folder, line)


def test_commands(complete: Complete) -> None:
    assert set(COMMANDS) <= complete("dagc ")
    assert {"check", "compile"} <= complete("dagc c") and "sweep" not in complete("dagc c")


def test_options_and_their_values(complete: Complete) -> None:
    assert {"--phase", "--set", "--format", "--quiet", "--color"} <= complete("dagc check --")
    assert {"json", "sarif", "github"} <= complete("dagc check plan.moe --format ")
    assert {"h100-sxm", "h200-sxm"} <= complete("dagc init --gpu h")
    assert {"chakra", "svg"} <= {one.removeprefix("dot,") for one in complete("dagc compile plan.moe --emit dot,")}
    assert {"presets", "attributes"} <= complete("dagc list ")


def test_names_of_the_spec(complete: Complete, folder: Path) -> None:
    assert {"decode", "pre-fill.2"} <= complete("dagc check plan.moe --phase ") - {"none"}
    assert {"batch", "width"} <= {one.rstrip("=") for one in complete("dagc check plan.moe --set ")}
    assert not (folder / "x").exists(), "a name of a spec was run"


@pytest.mark.parametrize("complete", SHELLS, indirect=True)
def test_specs(complete: Complete) -> None:
    found = complete("dagc check ")
    assert "plan.moe" in found and "notes.txt" not in found and {one.rstrip("/") for one in found} >= {"deep"}


def test_the_scripts_parse(folder: Path) -> None:
    for shell in SHELLS:
        if shutil.which(shell):
            assert subprocess.run([shell, "-n", str(folder / f"dagc.{shell}")], check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "-s", "bash", "-S", "error", str(folder / "dagc.bash")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
