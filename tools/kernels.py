"""Errors of the fitted kernels by family, GPU and engine: python tools/kernels.py [--write]

Prints docs/kernels.md from what tools/fit.py wrote (tools/kernel_errors.json, grammar/library/calibration/nearest.json);
`--write` writes it. tools/accuracy.py --write does so too.
"""

from __future__ import annotations

import argparse
import sys

from comparison import kernel_page


def main() -> int:
    parser = argparse.ArgumentParser(description="errors of the fitted kernels")
    parser.add_argument("--write", action="store_true", help="write docs/kernels.md")
    text = kernel_page.read()
    if parser.parse_args().write:
        kernel_page.PAGE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
