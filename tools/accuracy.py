"""Compare compiled plans with published figures: python tools/accuracy.py --data DIR [--configs DIR] [--write]

DIR holds any of e2e_static.json, measured_serving.csv, measured_*.json, and servings with arrivals of their own (serving_mlperf*.csv,
serving_rates_*.csv, serving_vllm_per_request.csv), in the folder itself or in one below it.
`--write` writes docs/accuracy.md, docs/kernels.md, the errors that reports print (grammar/library/calibration/accuracy.json), and the
README's sentences about them; `--out` only the first page.
`--fit` first fits the constants of each engine on the half of the servings set aside for it (grammar/library/serving/engines.json).
`--only static` (or serving) leaves the other half out and prints to standard output. `--list` prints every case.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from comparison import summary as report

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description="compare compiled plans with published figures")
    parser.add_argument("--data", type=Path, required=True, help="folder of the cases")
    parser.add_argument("--configs", type=Path, help="folder of published config.json files, NAME.json")
    parser.add_argument("--out", type=Path, help="page to write (default: standard output)")
    parser.add_argument(
        "--write", action="store_true", help="write docs/accuracy.md, and the errors that reports state"
    )
    parser.add_argument("--only", choices=("static", "serving"), help="one part, to standard output")
    parser.add_argument("--fit", action="store_true", help="fit the host overhead of each engine first")
    parser.add_argument("--list", type=Path, help="CSV to write every case to")
    parser.add_argument("--workers", type=int, help="processes (default: one a CPU)")
    parser.add_argument("--doubtful", action="store_true", help="simulate rows that may speculate, too")
    parser.add_argument("--cache", type=Path, help="folder of estimates made before by the same compiler")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write needs all cases: not with --only")
    found = report.run(
        report.Options(
            options.data,
            options.configs,
            options.only,
            options.fit,
            options.write,
            options.list,
            options.workers,
            options.cache,
            options.doubtful,
        )
    )
    options.out = HERE.parent / "docs" / "accuracy.md" if options.write and options.out is None else options.out
    if options.out is None or options.only:
        sys.stdout.write(found)
    else:
        options.out.write_text(found, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
