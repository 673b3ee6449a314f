"""Run a built ASTRA-sim on the traces of phases, and print what it simulates over what dagc estimates.

python tools/astra_sim.py SIMULATOR [SPEC ...] [--roofline | --replay] [--datasheet] [--calls]

SIMULATOR is the program AstraSim_Analytical_Congestion_Unaware; without specs, all examples. `--calls` prints the collectives of one
rank, each kind with its group: how long the simulator takes for one call, over its price. Exit 1 where a rank does not finish.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import dagc
from dagc.export.chakra.folder import folder

ROOT = Path(__file__).resolve().parent.parent
FINISHED = re.compile(r"sys\[(\d+)\] finished, (\d+) cycles")
CALL = re.compile(r"(issue|callback),sys->id=0, tick=(\d+), node->id=(\d+), node->name=(\S+),")
LIMIT_S = 1200.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", type=Path)
    parser.add_argument("specs", nargs="*", type=Path)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--roofline", action="store_true", help="times of compute are the simulator's own")
    mode.add_argument("--replay", action="store_true", help="no network: collectives take what dagc estimates")
    parser.add_argument("--datasheet", action="store_true", help="the spec's links, not those fitted to a calibration")
    parser.add_argument("--calls", action="store_true")
    given = parser.parse_args()
    specs = given.specs or sorted((ROOT / "examples").glob("*.moe"))
    print(f"{'phase':<40}{'ranks':>7}{'finished':>10}{'pass':>14}{'simulated':>14}{'ratio':>8}")
    whole = True
    for spec in specs:
        whole &= run(spec, given)
    return 0 if whole else 1


def run(spec: Path, given: argparse.Namespace) -> bool:
    """The phases of a spec; whether every rank of each finished."""
    whole = True
    plan = dagc.compile(spec)
    for phase in (*plan.phases, *plan.trainings):
        with tempfile.TemporaryDirectory(prefix="traces") as made:
            directory = Path(made)
            try:
                folder(plan, phase, target=directory)["chakra"](directory)
            except dagc.SpecError as error:
                print(f"{spec.stem} {phase}: {error.diagnostics[0].message}")
                continue
            about = json.loads((directory / "ranks.json").read_text())
            system = json.loads((directory / f"system{'.roofline' if given.roofline else ''}.json").read_text())
            system |= {"replay-only": int(given.replay), "trace-enabled": int(given.calls)}
            (directory / "system.json").write_text(json.dumps(system))
            finished, output = simulated(given.simulator.resolve(), directory, about["command"], given)
        ranks = len(about["gpus"])
        pass_s, took_s = about["pass_s"], max(finished.values(), default=0) / 1e9
        whole &= len(finished) == ranks
        name = f"{spec.stem} {phase}"
        print(
            f"{name:<40}{ranks:>7}{len(finished):>10}{pass_s * 1e3:>11.4f} ms{took_s * 1e3:>11.4f} ms{took_s / pass_s:>8.4f}"
        )
        if given.calls:
            print_calls(plan.trainings.get(phase) or plan.phases[phase], output)
    return whole


def simulated(program: Path, directory: Path, command: str, given: argparse.Namespace) -> tuple[dict[int, int], str]:
    """Nanoseconds at which each rank finished, and all that was printed. The exit code says nothing: the simulator frees some
    groups twice after all results are out."""
    words = [word.replace(f"{directory.name}/", f"{directory}/", 1) for word in command.split()[1:]]
    if given.datasheet and (directory / "network.datasheet.yml").exists():
        words = [word.replace("/network.yml", "/network.datasheet.yml") for word in words]
    done = subprocess.run([str(program), *words], cwd=directory, capture_output=True, text=True, timeout=LIMIT_S)
    output = done.stdout + "".join(p.read_text() for p in sorted(directory.glob("log/*")) if given.calls)
    found = {int(rank): int(ns) for rank, ns in FINISHED.findall(output)}
    if not found:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return found, output


def print_calls(result: Any, output: str) -> None:
    """Calls of rank 0 by op: seconds from their issue to their end."""
    begun: dict[str, tuple[int, str]] = {}
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for what, tick, node, name in CALL.findall(output):
        if what == "issue":
            begun[node] = (int(tick), name)
        elif node in begun:
            start, name = begun.pop(node)
            cell, _, op = name.partition("/")
            segment = next((s.name for s in result.graph.segments if f".{s.name}." in f"{cell}."), "")
            found[segment, op].append(int(tick) - start)
    for (segment, op), took_ns in found.items():
        cost = result.costs.ops.get((segment, op))
        if cost is not None and cost.group is not None:
            priced_s = float(cost.time_s.max())
            mean_s = sum(took_ns) / len(took_ns) / 1e9
            print(
                f"    {segment}/{op:<36}{cost.group.ranks:>4} in {cost.group.nodes:<4}{cost.algorithm or cost.family:<28}"
                f"{cost.bound:<9}{cost.payload_B:>14,.0f} B {priced_s * 1e6:>10.1f} us{mean_s / priced_s:>8.3f}"
            )


if __name__ == "__main__":
    raise SystemExit(main())
