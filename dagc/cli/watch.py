"""`--watch`: a command again whenever a file that it read changes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..base.heard import LISTENERS, Listener

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

POLL_S = 0.2
"""Between two looks at the files."""
SETTLED_S = 0.1
"""How long files must stay as they are: editors write several times."""
CLEAR = "\x1b[H\x1b[2J\x1b[3J"

Stamp = tuple[int, int, int] | None
"""What tells one state of a file from another; None: there is none."""


class Files(Listener):
    """Every file that was asked for, whether it was there or not."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.stamps = {path: stamp(path) for path in paths}

    def opened(self, path: str) -> None:
        self.stamps.setdefault(path, stamp(path))

    def changed(self) -> bool:
        return any(stamp(path) != before for path, before in self.stamps.items())


def stamp(path: str) -> Stamp:
    """A file that was replaced by another one of the same name is another file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def watch_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on, and do it again whenever a spec or a file that it reads changes; Ctrl-C ends it",
    )


def watched(args: Namespace, specs: Iterable[str], run: Callable[[Namespace], int]) -> int:
    """The command once; with --watch again and again, until it is interrupted. Raises SpecError for what cannot be watched."""
    if not args.watch:
        return run(args)
    from ..base.diagnostics import Diagnostic, SpecError
    from .common import tell
    from .process import internal

    own = list(specs)
    if "-" in own:
        tell([Diagnostic("E14", "standard input cannot be watched", help=("name a file",))])
        return 2
    while True:
        files = Files(own)
        LISTENERS.append(files)
        try:
            _clear()
            run(args)
        except SpecError as error:
            tell(error.diagnostics)
        except Exception as error:  # of one state of the files: the next one may do
            internal(error)
        finally:
            LISTENERS.remove(files)
        print(
            f"watching {len(files.stamps)} file{'s' if len(files.stamps) != 1 else ''}; Ctrl-C ends it", file=sys.stderr
        )
        sys.stdout.flush()
        while not files.changed():
            time.sleep(POLL_S)
        _settle(files.stamps)


def _clear() -> None:
    """A screen for this run, on a terminal alone."""
    terminal = getattr(sys.stdout, "stream", sys.stdout)
    if terminal.isatty():
        terminal.write(CLEAR)
        terminal.flush()


def _settle(paths: Iterable[str]) -> None:
    """Until nothing changes for a while, and what was there is there again, if it comes back at once."""
    before = None
    while (now := [stamp(path) for path in paths]) != before:
        before = now
        time.sleep(SETTLED_S)
