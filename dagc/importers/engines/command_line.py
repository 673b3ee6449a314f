"""A command as the words of a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.harmless import harmless
from ...engines.facts import facts
from .command import ServerCommand
from .config_file import read_files

JOINS = ("&&", "||", ";", "|", "&")
MOST_LETTERS = 1 << 20


def commands(name: str, given: Sequence[str]) -> list[tuple[str, ServerCommand]]:
    """One server. A single word with spaces is a command that was quoted as a whole. Raises SpecError with E05."""
    words = list(given)
    if len(words) == 1 and " " in words[0].strip():
        if len(words[0]) > MOST_LETTERS:
            raise SpecError([Diagnostic("E05", f"a command of {len(words[0]):,} letters is not read")])
        try:
            words = shlex.split(words[0].replace("\\\n", " "))
        except ValueError as why:
            raise SpecError([Diagnostic("E05", f"the command is no words of a shell: {harmless(str(why))}")]) from None
    if join := next((word for word in words if word in JOINS), None):
        help_ = ("give one command; servers of a deployment are read from their scripts, --from script FILE.sh ...",)
        raise SpecError([Diagnostic("E05", f"there are several commands, joined by `{join}`", help=help_)])
    environment: dict[str, str] = {}
    while words and (words[0] in ("env", "exec", "nohup") or re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], re.DOTALL)):
        variable, equals, value = words.pop(0).partition("=")
        if equals:
            environment[variable] = value
    return [(name, ServerCommand(tuple(words), environment, read_files(words, facts(name))))]
