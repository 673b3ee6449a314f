"""`dagc export`: launch commands and configs for serving engines."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..base.diagnostics import SpecError
from .common import compiled, stem, tell
from .writing import refuse_existing, write_all


def run(args: Namespace) -> int:
    from ..export.engines.launch import export

    try:
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        tell(plan.diagnostics, requirements=False)
        files = export(plan, args.to, args.model, stem(args.spec))
        if args.output:
            directory = Path(args.output)
            refuse_existing(directory, args.force)
            write_all({directory / name: data for name, data in files.items()})
            for name in files:
                print(f"wrote {directory / name}")
        else:
            for name, data in files.items():
                sys.stdout.write(f"# ---- {name}\n{data.decode()}")
        return 0 if plan.fits else 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2
