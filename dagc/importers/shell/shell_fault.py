"""What is wrong with a script."""

from __future__ import annotations


class ShellError(Exception):
    """The text is no script that is read. `at`: where."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why, self.at = why, at
