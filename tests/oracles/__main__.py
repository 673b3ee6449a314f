"""`python -m tests.oracles`: write `docs/oracles.md`, or print the page of another directory of records.

python -m tests.oracles                        the page of the stored data, to docs/oracles.md
python -m tests.oracles --records DIR          the page of DIR, to standard output
python -m tests.oracles --records DIR --store  DIR as the stored data (tests/data)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import operators, page, records, reshards

JAX = "jax 0.10.2, Shardy or GSPMD and the XLA SPMD partitioner; `normalised` reading"
TORCH = "torch 2.13.0, DTensor, CommDebugMode"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracles", description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, metavar="DIR", help="a directory of records instead of the stored data")
    parser.add_argument("--store", action="store_true", help="make DIR the stored data")
    arguments = parser.parse_args()
    if arguments.records is None:
        page.PAGE.write_text(page.page(page.stored()))
        return 0
    source = page.directory(arguments.records)
    if arguments.store:
        store(source)
    else:
        sys.stdout.write(page.page(source))
    return 0


def store(source: page.Source) -> None:
    (records.DATA / "oracles.json").write_text(records.dump_cases(source.cases, f"{JAX}. {TORCH}."))
    (records.DATA / "oracle_operators.json").write_text(operators.dump_operators(source.operators, f"{JAX}."))
    for tool, rows in source.reshards.items():
        about = f"{JAX if tool == 'jax' else TORCH}: from layout to layout; wire_B per device."
        (records.DATA / reshards.FILES[tool]).write_text(reshards.dump_rows(rows, about))


if __name__ == "__main__":
    raise SystemExit(main())
