"""The command line. Parsing the arguments imports nothing heavy; each command imports what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

INTERNAL = 3
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback leaves here unless DAGC_DEBUG is set."""
    from .arguments import parse_arguments

    try:
        args = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        if isinstance(args, int):
            return args
        from importlib import import_module

        code: int = import_module(f".{args.command}", __name__).run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): nothing more to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("DAGC_DEBUG"):
            raise
        text = str(error).splitlines()
        print(f"dagc: internal error: {type(error).__name__}: {text[0] if text else ''}", file=sys.stderr)
        print("  this is a bug in dagc, not in the spec; DAGC_DEBUG=1 shows where", file=sys.stderr)
        return INTERNAL
