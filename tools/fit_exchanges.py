"""Fit exchanges of tokens across nodes: python tools/fit_exchanges.py --data DIR --out grammar/library/calibration

Reads deepep_sglang.csv (docs/calibration.md has its columns) in each folder and the published times beside this script, writes
cluster_exchange.json and prints errors: of rows that a fit did not see, of sources left out whole, and of kernels of others
that nothing is fitted to. Needs scipy.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dagc.calib.cluster_exchange import FILE, KINDS
from dagc.calib.fitting import cluster

SOURCE = (
    "fitted to tables of ai-dynamo/aiconfigurator (package aiconfigurator-core 0.12.0; Apache-2.0, copyright NVIDIA CORPORATION"
    " & AFFILIATES) and to times published by deepseek-ai/DeepEP (README, V1; MIT) and of its kernels by"
    " perplexityai/pplx-garden (fabric-lib)"
)
PUBLISHED = Path(__file__).with_name("published_exchanges.csv")
SAMPLE = 4
"""One row of so many, and every published one, goes into the sample that the tests check."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, action="append", metavar="DIR", help="folder of tables")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of calibration files")
    parser.add_argument("--sample", type=Path, metavar="FILE", help="also write a sample of the rows there")
    chosen = parser.parse_args()
    calls = cluster.read(PUBLISHED, chosen.data)
    if not any(each.source == cluster.TABLE for each in calls):
        parser.error("no deepep_sglang.csv with rows on several nodes in " + ", ".join(map(str, chosen.data)))
    kernels = {}
    print("kernel       rows  median    p90   left out: median of its rows")
    for kernel in (f"{kind}_{way}" for kind in KINDS for way in ("dispatch", "combine")):
        own = [each for each in calls if each.kernel == kernel]
        found = cluster.fit_kernel(kernel, [each for each in own if each.fit == "yes"])
        kernels[kernel] = found
        error = found["error"]
        text = "; ".join(f"{source} {median:.1%}" for source, median in found["left_out"].items())
        print(f"{kernel:12} {error['rows']:4} {error['median']:6.1%} {error['p90']:6.1%}   {text}")
        constants = KINDS[kernel.split("_")[0]](**found["constants"])
        for each in own:
            if each.source != cluster.TABLE:
                ratio = float(cluster.estimate_s(kernel, constants, [each])[0]) * 1e6 / each.latency_us
                note = "" if each.fit == "yes" else "  not fitted"
                print(
                    f"    {each.source:30} {each.nodes:3.0f} nodes {each.latency_us:7.1f} us, estimate {ratio - 1:+.0%}{note}"
                )
    (chosen.out / FILE).write_text(
        json.dumps({"source": SOURCE, "kernels": kernels}, indent=1) + "\n", encoding="utf-8"
    )
    if chosen.sample:
        rng = np.random.default_rng(0)
        write([each for each in calls if each.source != cluster.TABLE or rng.random() < 1 / SAMPLE], chosen.sample)
    return 0


def write(calls: list[cluster.Call], path: Path) -> None:
    """Calls as a table like that of the published times."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        out = csv.DictWriter(handle, list(asdict(calls[0])), lineterminator="\n")
        out.writeheader()
        out.writerows({k: f"{v:g}" if isinstance(v, float) else v for k, v in asdict(each).items()} for each in calls)


if __name__ == "__main__":
    sys.exit(main())
