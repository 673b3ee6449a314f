"""What is wrong with a file of a real run."""

from __future__ import annotations

from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError


class TraceFault(SpecError):
    """A file that cannot be used. The message names it and what is wrong, and quotes nothing of it."""

    def __init__(self, path: Path | str, reason: str, *help: str) -> None:
        super().__init__([Diagnostic("E05", f"`{path}` {reason}", help=help)])
