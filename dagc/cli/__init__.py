"""The command line: one module per command."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than `dagc --help` to print
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words in (["--help"], ["-h"], ["help"]) and _overview():
        return 0
    if argv is None:
        # Before NumPy is imported: the threads of its OpenBLAS wait in a loop, and no matrix here is worth a second one.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import gc

    gc.set_threshold(
        400_000
    )  # modules, graphs and arrays live to the end: a verdict makes fewer, and looking for cycles finds none
    from .process import process

    code = process(words)
    if argv is None:  # the process ends with its command
        gc.freeze()  # what a plan left is not searched for cycles on the way out, which takes a sixth of a verdict
    return code


def script() -> int:
    """The same as a whole process, which ends with its verdict: to take apart modules, graphs and arrays takes a tenth of that."""
    code = main()
    if sys.argv[1:2] == ["check"] and not _awaited():
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # the interpreter says so
            return code
        os._exit(code)
    return code


def _awaited() -> bool:
    """Whether somebody waits for the end of this process within it: profilers, debuggers, other threads, who asked to be called."""
    import atexit

    watching = getattr(sys, "monitoring", None)
    threading = sys.modules.get("threading")
    return (
        getattr(atexit, "_ncallbacks", lambda: 1)() > 0
        or sys.gettrace() is not None
        or sys.getprofile() is not None
        or (watching is not None and any(map(watching.get_tool, range(6))))
        or (threading is not None and threading.active_count() > 1)
        or bool(sys.flags.interactive or sys.flags.inspect)
    )


def _overview() -> bool:
    """Print what there is, with nothing imported that it does not need. False where that fails: `process` says why."""
    from .all_commands import overview

    try:
        sys.stdout.write(overview())
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # a full disk, a pipe without a reader, no output at all
        return False
    return True
