"""Experts of many layers on ranks by their loads: CPU time, and how even the ranks are.

python benchmarks/placing_experts.py [-n RUNS] [--layers 61] [--experts 256] [--spare 32] [--ranks 32]

Loads are random, of four laws. `once`: the same layer by layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from dagc.cost.expert_balance import least_load
from dagc.cost.expert_packing import copies_of
from dagc.cost.expert_placement import place_experts, place_layers, rank_loads
from dagc.cost.routing import Floats, cap

TOP_K = 8.0
TARGET_S = 0.004
"""For 61 layers of 256 experts with 32 spare copies."""
LAWS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "uniform": lambda rng, n: rng.uniform(0.5, 1.5, n),
    "gamma 0.7": lambda rng, n: rng.gamma(0.7, 1.0, n),
    "zipf 1.0": lambda rng, n: rng.permutation(np.arange(1.0, n + 1) ** -1.0),
    "pareto 1.2": lambda rng, n: rng.pareto(1.2, n),
}


def cpu_s(run: Callable[[], object], runs: int) -> float:
    """The least of some runs."""
    found = []
    for _ in range(runs):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=30, metavar="RUNS")
    for name, value in (("layers", 61), ("experts", 256), ("spare", 32), ("ranks", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        f"{given.layers} layers, {given.experts} experts, {given.spare} spare copies, {given.ranks} ranks; CPU ms (goal {TARGET_S * 1e3:g})"
    )
    print(
        f"{'loads':11} {'way':9} {'ms':>7} {'once':>7}  busiest/mean: mean, largest    above the bound: mean, largest"
    )
    for law, draw in LAWS.items():
        p = np.array([cap(draw(rng, given.experts), TOP_K) for _ in range(given.layers)])
        bound = least_load(p, copies_of(p, given.spare, given.ranks), given.ranks)
        for how in ("linear", "eplb", "balanced"):
            together = cpu_s(lambda p=p, how=how: place_layers(p, given.ranks, given.spare, how=how), given.n)
            once = cpu_s(
                lambda p=p, how=how: [place_experts(own, given.ranks, given.spare, how=how) for own in p],
                min(given.n, 3),
            )
            load = rank_loads(p, place_layers(p, given.ranks, given.spare, how=how))
            even, over = load.max(axis=1) / load.mean(axis=1), load.max(axis=1) / bound
            print(
                f"{law:11} {how:9} {together * 1e3:7.2f} {once * 1e3:7.1f}  {even.mean():13.4f} {even.max():10.4f} {over.mean():18.4f} {over.max():13.4f}"
            )


if __name__ == "__main__":
    main()
