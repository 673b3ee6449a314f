"""Size of the IR's text: the plain form against the full one, over the examples after every pass.

python benchmarks/ir_text.py [SPEC ...]
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import dagc
from dagc.ir.text.write import print_full, print_graph
from dagc.pipeline.lower import lower

ROOT = Path(__file__).resolve().parent.parent


def sizes(text: str) -> Counter[str]:
    return Counter(characters=len(text), lines=text.count("\n"))


def main() -> int:
    specs = [Path(arg) for arg in sys.argv[1:]] or sorted((ROOT / "examples").glob("*.moe"))
    plain, full = Counter[str](), Counter[str]()
    longest = {"plain": 0, "full": 0}
    for spec in specs:
        for unit in dagc.compile(spec).units.values():
            for _, graph in lower(unit):
                texts = {"plain": print_graph(graph), "full": print_full(graph)}
                plain += sizes(texts["plain"])
                full += sizes(texts["full"])
                longest = {name: max(longest[name], *map(len, text.splitlines())) for name, text in texts.items()}
    print(f"{'form':6} {'characters':>10} {'lines':>7} {'longest line':>13}")
    for name, counts in (("full", full), ("plain", plain)):
        print(f"{name:6} {counts['characters']:10,} {counts['lines']:7,} {longest[name]:13}")
    print(f"plain / full: {plain['characters'] / full['characters']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
