"""Help of one command for a terminal: what `--help` ends with, and the full page of `dagc help`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .all_commands import EXITS
from .columns import columns
from .command_records import Command
from .help_pages import PAGES

if TYPE_CHECKING:
    from .parser import CommandParser

WIDEST = 100
"""Columns: longer lines are hard to read."""


def page(command: Command, parser: CommandParser) -> str:
    """Everything about a command."""
    about = PAGES[command.name]
    parser.description, parser.explained = None, ""
    lines = [f"dagc {command.name}: {command.about}", ""]
    for paragraph in about.more:
        lines += [*_wrapped(paragraph), ""]
    lines += [parser.format_help().rstrip(), "", "examples:"]
    for example in about.examples:
        lines += [f"  {example.command}", *_wrapped(f"{example.about}{_needs(example.needs)}", "      ")]
    lines += ["", "exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXITS), ""]
    if about.also:
        lines.append(f"see also: {', '.join(f'dagc help {name}' for name in about.also)}")
    lines.append(f"documentation: {about.docs}")
    return "\n".join(lines) + "\n"


def _needs(package: str) -> str:
    return f" (needs {package})" if package else ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    width = min(columns(), WIDEST) - 2
    return textwrap.wrap(text, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
