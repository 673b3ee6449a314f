"""A script followed as the shell would, without running anything: values of variables, loops, branches, files that it writes.

Programs are taken to succeed, loops that wait for them to end at once. Where a branch depends on what only the run knows, each of its
arms is followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ...base.frozen import record
from .builtin_commands import BUILTINS
from .followed_shell import Leave, Shell, Spent, Started
from .script_text import parse_script
from .shell_fault import ShellError
from .unknown import CLOSE, OPEN, shown


@record
class Followed:
    """`files`: that it writes. `variables`: as they are in the end. `unset`: variables that the script asks for and does not set. `branched`: whether arms were followed that exclude each other."""

    started: tuple[Started, ...]
    files: Mapping[str, str]
    variables: Mapping[str, str]
    unset: tuple[str, ...]
    branched: bool


def follow(
    text: str,
    given: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    name: str = "script.sh",
    spent: Spent | None = None,
) -> Followed:
    """`spent`: by scripts around it, which it adds to. `given`: variables that it finds, which are not in what programs get of it; `name`: of the script, which is its `$0`. Raises ShellError."""
    for mark in (OPEN, CLOSE):
        if mark in text:
            raise ShellError("the script has a control character", text.index(mark))
    shell = Shell(BUILTINS, dict(given or {}), arguments=[name, *arguments], spent=spent or Spent())
    with suppress(Leave):
        shell.all(parse_script(text))
    files = {shown(path): shown(text) for path, text in shell.files.items()}
    variables = {name: shown(value) for name, value in shell.variables.items()}
    return Followed(tuple(shell.started), files, variables, tuple(dict.fromkeys(shell.unset)), shell.branched)
