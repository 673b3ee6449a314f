"""`dagc completion SHELL`: a script that completes command lines of dagc, made from its parsers and tables."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=" or ".join(SHELLS))


def run(args: Namespace) -> int:
    from . import bash_script, fish_script, zsh_script
    from .command_records import command_line

    scripts = {"bash": bash_script.script, "zsh": zsh_script.script, "fish": fish_script.script}
    sys.stdout.write(scripts[args.shell](command_line(), kinds()))
    return 0


def kinds() -> Mapping[str, Sequence[str]]:
    """Kind of value -> its words, of those that tables have. Files, and names of a spec, are found by the shell."""
    from ..base.codes import TABLE
    from ..base.dtypes import NAMED
    from ..base.picture_words import ALL, EVERY_VIEW
    from ..export.engines import ENGINES
    from ..export.registry import EMIT, names
    from ..lang import library
    from ..spec.metrics.known_metrics import TABLE as METRICS
    from .commands import COMMANDS
    from .list_ import LISTS

    return {
        "hardware": library.names("hardware"),
        "model": library.names("model"),
        "metric": sorted({m.full.replace("PHASE", "decode") for m in METRICS}),
        "code": [one.code for one in TABLE],
        "command": list(COMMANDS),
        "exporter": list(names(EMIT)),
        "view": [*EVERY_VIEW, ALL],
        "dtype": list(NAMED),
        "engine": list(ENGINES),
        **{kind: [str(r["name"]) for r in LISTS[plural][1]()] for kind, plural in LISTED.items()},
    }


LISTED = {"pass": "passes", "launcher": "launchers", "import": "imports"}
"""Kind of value -> what `dagc list` calls all of them."""
