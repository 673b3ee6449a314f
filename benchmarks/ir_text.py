"""Size of the IR's text over the examples after every pass, and the CPU time of printing and reading a graph.

python benchmarks/ir_text.py [SPEC ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dagc
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.pipeline.lower import lower

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    specs = [Path(arg) for arg in sys.argv[1:]] or sorted((ROOT / "examples").glob("*.moe"))
    print(f"{'spec':24} {'graphs':>6} {'characters':>10} {'lines':>7} {'longest':>7} {'print ms':>8} {'read ms':>8}")
    for spec in specs:
        graphs = [graph for unit in dagc.compile(spec).units.values() for _, graph in lower(unit)]
        begun_s = time.process_time()
        texts = [print_graph(graph) for graph in graphs]
        printed_s = time.process_time()
        same = [parse_graph(text) for text in texts] == graphs
        read_s = time.process_time()
        lines = [len(line) for text in texts for line in text.splitlines()]
        each = 1e3 / len(graphs)
        print(
            f"{spec.stem:24} {len(graphs):6} {sum(map(len, texts)):10,} {len(lines):7,} {max(lines):7} "
            f"{(printed_s - begun_s) * each:8.2f} {(read_s - printed_s) * each:8.2f}" + ("" if same else "  NOT EQUAL")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
