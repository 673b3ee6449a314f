"""Drawing the placed graph: dagc's own coordinates against the layered layout of Graphviz, for the same boxes and edges.

python benchmarks/draw.py [-n RUNS] [--limit SECONDS] [--parts N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import dagc
from dagc.view.draw.dot import digraph, edge, node
from dagc.view.draw.figures.standalone import svg
from dagc.view.facts.lanes.fold import picture
from dagc.view.facts.lanes.grid import grid
from dagc.view.facts.lanes.shown_part import Choice
from dagc.view.facts.lanes.wires import wires

SPEC = Path(__file__).resolve().parent.parent / "examples" / "plan_a.moe"
PARTS = (
    ("folded by default", Choice()),
    ("one layer", Choice(("layer:3", "microbatch:0"), 0, ("all",))),
    ("two layers", Choice(("layer:2..3", "microbatch:0"), 0, ("all",))),
    ("four layers", Choice(("layer:0..3", "microbatch:0"), 0, ("all",))),
    ("a micro-batch", Choice(("microbatch:0",), 0, ("all",))),
    ("two micro-batches", Choice(("microbatch:0..1",), 0, ("all",))),
)


def layered(plan: dagc.Plan, choice: Choice) -> tuple[int, int, str]:
    """Boxes, edges, and DOT that leaves their places to Graphviz."""
    laid = grid(picture(plan.phases["prefill"], choice))
    body = [node(b.id, label=b.words, shape="box") for b in laid.boxes]
    drawn = wires(laid)
    body += [edge(wire.source.id, wire.target.id) for wire in drawn]
    return len(laid.boxes), len(drawn), digraph("peer", "", body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="runs of each, of which the median counts (default: 3)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which `dot` is stopped (default: 60)")
    parser.add_argument("--parts", type=int, default=len(PARTS), help="how many of the parts, the smallest first")
    args = parser.parse_args()
    plan = dagc.compile(SPEC)
    print(f"{'drawn':20} {'boxes':>7} {'edges':>7} {'dagc':>9} {'dot':>9} {'dot / dagc':>11}")
    slow = False
    for name, choice in PARTS[: args.parts]:
        boxes, edges, text = layered(plan, choice)
        ours, theirs = [], []
        for _ in range(args.n):
            start = time.perf_counter()
            svg(plan, "prefill", "lanes", choice)
            ours.append(time.perf_counter() - start)
            if slow:
                continue
            start = time.perf_counter()
            try:
                subprocess.run(
                    ["dot", "-Tsvg"], input=text.encode(), capture_output=True, check=True, timeout=args.limit
                )
            except subprocess.TimeoutExpired:
                slow = True
            theirs.append(time.perf_counter() - start)
        mine, peer = statistics.median(ours), statistics.median(theirs) if theirs else args.limit
        over = ">" if slow else ""
        print(
            f"{name:20} {boxes:7,} {edges:7,} {mine:7.2f} s {over + format(peer, '.1f'):>7} s {over + format(peer / mine, '.0f'):>11}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
