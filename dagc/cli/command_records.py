"""The command line as data: each command with what its parser takes. Help pages, completion, the man page and docs are made of
it."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from .all_commands import GENERAL_TITLE
from .commands import COMMANDS

if TYPE_CHECKING:
    from .parser import CommandParser

KINDS = {
    "SPEC": "spec", "A": "spec", "B": "spec", "TRACE": "file", "FILE": "file", "FILE.ir": "file", "FILE.json": "file",
    "FILE.moe": "spec", "CONFIG.json": "file", "[PHASE=]FILE": "file", "DIR": "folder", "P": "phase", "PHASE": "phase", "K=V": "param",
    "K=V,V": "param", "M": "metric", "CODE": "code", "COMMAND": "command", "GPU": "hardware", "MODEL": "model", "PASS": "pass",
    "ENGINE": "engine", "LAUNCHER": "launcher", "KINDS": "exporter", "VIEWS": "view", "SOURCE": "import", "DTYPE": "dtype",
}  # fmt: skip
"""Metavar -> what a value of it is, which a shell completes."""
LISTS = ("exporter", "view")
"""Kinds of which a value is a comma list."""


class Argument(NamedTuple):
    """An option (`flags`), or an argument without a name. `kind`: of KINDS, empty where anything may be written; `takes_value` is false
    for a switch."""

    flags: tuple[str, ...]
    name: str
    about: str
    choices: tuple[str, ...]
    kind: str
    takes_value: bool
    optional: bool
    many: bool


class Command(NamedTuple):
    """`usage`: as `--help` prints it. `arguments`: its own; `general`: those of every command."""

    name: str
    about: str
    usage: str
    arguments: tuple[Argument, ...]
    general: tuple[Argument, ...]


def parsers(names: Collection[str] = COMMANDS) -> dict[str, CommandParser]:
    """The parsers of these commands, filled."""
    from .parser import build_parser

    (action,) = (a for a in build_parser(names)._actions if isinstance(a, argparse._SubParsersAction))
    found: dict[str, CommandParser] = dict(action.choices)
    for one in found.values():
        one.fill()
    return found


def command_line() -> dict[str, Command]:
    """All commands by name."""
    return {name: command_of(name, parser) for name, parser in parsers().items()}


def command_of(name: str, parser: argparse.ArgumentParser) -> Command:
    general = next(group for group in parser._action_groups if group.title == GENERAL_TITLE)
    shared = {id(action) for action in general._group_actions}
    found = [(id(action) in shared, _argument(action)) for action in parser._actions]
    return Command(
        name,
        COMMANDS[name],
        " ".join(parser.format_usage().split()).removeprefix("usage: "),
        tuple(one for is_shared, one in found if not is_shared),
        tuple(one for is_shared, one in found if is_shared),
    )


def _argument(action: argparse.Action) -> Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    choices = tuple(map(str, action.choices or ()))
    return Argument(
        tuple(action.option_strings),
        metavar,
        (action.help or "").replace("%%", "%"),
        choices,
        "" if choices else KINDS.get(metavar, ""),
        action.nargs != 0,
        action.nargs in ("?", "*"),
        action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction),
    )
