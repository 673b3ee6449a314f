"""One run of the command line: its streams, its exit code, and what ends it early."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from argparse import Namespace
    from types import SimpleNamespace

INTERNAL = 3
INTERRUPTED = 130
TERMINATED = 143
UNWRITABLE = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT)
"""What writing to standard output fails with: a full disk, a closed pipe of the shell."""


def process(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; no traceback leaves here unless DAGC_DEBUG is set."""
    from .manner import Manner, behaving
    from .printing import harmless_streams

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    with harmless_streams(), behaving(Manner.said_in(argv)):
        return _run(list(argv))


def _run(argv: list[str]) -> int:
    from .manner import behaving, manner_of
    from .verbose import listening

    before = _on_termination()
    try:
        args = _arguments(argv)
        if isinstance(args, int):
            sys.stdout.flush()
            return args
        with behaving(manner_of(args)), listening():
            code: int = args.run(args)
        with suppress(BrokenPipeError):
            sys.stdout.flush()
            return code
        _to_nowhere(sys.stdout)  # `dagc check bad | head -1`: the verdict stays what it is
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except BrokenPipeError:
        _to_nowhere(sys.stdout)  # the reader went away (`| head`): nothing more to say
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE or os.environ.get("DAGC_DEBUG"):
            return internal(error)
        with suppress(OSError):
            print(f"dagc: cannot write the output: {error.strerror}", file=sys.stderr)
        _to_nowhere(sys.stdout)
        _to_nowhere(sys.stderr)
        return 2
    except Exception as error:
        return internal(error)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _arguments(argv: list[str]) -> Namespace | SimpleNamespace | int:
    """The parsed arguments, or an exit code when there is nothing more to do."""
    from .plain_words import plain_arguments

    if (plain := plain_arguments(argv)) is not None:
        return plain
    from .parser import parse_arguments

    return parse_arguments(argv)


class Terminated(BaseException):
    """The process was asked to end: unfinished work is undone on the way out."""


def _on_termination() -> Any:
    """SIGTERM ends a command as Ctrl-C does; where somebody handles it already, or in a thread, it stays as it is."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return None

    def ended(number: int, frame: object) -> None:
        raise Terminated

    try:
        return signal.signal(signal.SIGTERM, ended)
    except ValueError:  # not the main thread
        return None


def _to_nowhere(stream: TextIO) -> None:
    """Nothing is left to fail when the interpreter flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def internal(error: Exception) -> int:
    """Tell of a fault of dagc itself."""
    if os.environ.get("DAGC_DEBUG"):
        raise error
    text = str(error).splitlines()
    print(f"dagc: internal error: {type(error).__name__}: {text[0] if text else ''}", file=sys.stderr)
    print("  this is a bug in dagc, not in the spec; DAGC_DEBUG=1 shows where", file=sys.stderr)
    return INTERNAL
