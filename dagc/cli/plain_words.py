"""The plainest command line, `dagc check SPEC ...`, read without argparse: its import and its work take longer than reading the spec."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace

from .manner import AUTO


def plain_arguments(argv: Sequence[str]) -> SimpleNamespace | None:
    """What `parse_arguments` makes of specs without an option; None for any other command line."""
    command, *specs = argv or [""]
    if command != "check" or not specs or any(not word or word[0] == "-" for word in specs):
        return None
    run = import_module(f".{command}", __package__).run
    return SimpleNamespace(
        quiet=False, verbose=False, color=AUTO, command=command,
        specs=specs, set=[], phase=[], allow_import=[], format="text", watch=False, run=run,
    )  # fmt: skip
