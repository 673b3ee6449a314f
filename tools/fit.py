"""Fit kernel-cost constants to measured tables: python tools/fit.py --data DIR --out grammar/library/calibration

Holds out a quarter of every (gpu, family, variant) before fitting, fits the rest in log space with a robust loss,
writes one file a GPU and prints the error on the held-out rows. Needs scipy. docs/calibration.md says how to add a GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray
from scipy.optimize import least_squares

from dagc.calib import Device
from dagc.calib.load import FAMILIES

SOURCE = "fitted to tables of ai-dynamo/aiconfigurator (package aiconfigurator-core 0.12.0)"
LICENCE = "tables: Apache-2.0, copyright NVIDIA CORPORATION & AFFILIATES"
DEVICES = Path(__file__).with_name("devices.json")
FEWEST_ROWS = 8
STARTS = 6
# Residual (log) beyond which a row counts linearly, and the pull of a guess that the rows say nothing about.
OUTLIER, RIDGE = 0.07, 0.02


def fit(family: tables.Family, device: Device, variant: str, rows: list[tables.Row]) -> dict[str, float]:
    """Constants of one variant."""
    bounds, facts = family.bounds(device, variant), family.facts(device, variant)
    guess, least, greatest = np.log(np.array(list(bounds.values()))).T
    target = np.log(tables.column(rows, "latency_us") * tables.US)
    arguments = family.arguments(rows)

    def constants(x: NDArray[np.float64]) -> dict[str, float]:
        return facts | dict(zip(bounds, np.exp(x).tolist(), strict=True))

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        estimate = family.time_s(family.constants(**constants(x)), *arguments)
        return np.append(np.log(estimate) - target, RIDGE * (x - guess))

    rng = np.random.default_rng(0)
    best: Any = None
    for start in range(STARTS):
        first = guess + (rng.normal(0, 0.5, len(guess)) if start else 0.0)
        first = np.clip(first, least + 1e-6, greatest - 1e-6)
        found = least_squares(residual, first, bounds=(least, greatest), loss="soft_l1", f_scale=OUTLIER, max_nfev=400)
        best = found if best is None or found.cost < best.cost else best
    fitted = constants(best.x)
    return {name: float(f"{fitted[name]:.6g}") for name in family.constants.__dataclass_fields__}


def entry(family: tables.Family, device: Device, variant: str, rows: list[tables.Row], held: NDArray[np.bool_]) -> Any:
    """What a calibration file says of one variant."""
    seen = [row for row, out in zip(rows, held, strict=True) if not out]
    unseen = [row for row, out in zip(rows, held, strict=True) if out]
    constants = fit(family, device, variant, seen)
    error = tables.relative_error(family, family.constants(**constants), unseen)
    shapes = {name: [float(f(tables.column(seen, name))) for f in (np.min, np.max)] for name in family.shapes}
    median, p90 = (round(float(np.quantile(error, q)), 4) for q in (0.5, 0.9))
    return {"constants": constants, "shapes": shapes, "error": {"median": median, "p90": p90, "rows": len(unseen)}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of op_*.csv tables")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of calibration files")
    parser.add_argument("--devices", type=Path, default=DEVICES, help="datasheet peaks by GPU (JSON)")
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="also write the held-out rows there, as tables")
    parser.add_argument("--source", default=SOURCE, help="where the tables come from")
    parser.add_argument("--licence", default=LICENCE, help="licence of the tables")
    chosen = parser.parse_args()
    devices = {gpu: Device(**body) for gpu, body in json.loads(chosen.devices.read_text(encoding="utf-8")).items()}
    files: dict[str, dict[str, dict[str, Any]]] = {}
    kept: dict[str, list[tables.Row]] = defaultdict(list)
    print(f"{'gpu':10} {'family':18} {'variant':26} median   p90    n")
    for family in tables.ALL:
        if not (chosen.data / family.file).exists():
            print(f"no {family.file}: {family.name} left out", file=sys.stderr)
            continue
        parts = tables.groups(family, tables.read(chosen.data / family.file))
        for (gpu, variant), rows in sorted(parts.items()):
            if gpu not in devices:
                parser.error(f"{family.file} has GPU {gpu}, which {chosen.devices} does not describe")
            held = tables.validation_rows(f"{gpu} {family.name} {variant}", rows)
            if np.count_nonzero(~held) < FEWEST_ROWS:
                print(f"{gpu:10} {family.name:18} {variant:26} too few rows: {len(rows)}")
                continue
            found = entry(family, devices[gpu], variant, rows, held)
            files.setdefault(gpu, {name: {} for name in FAMILIES})[family.name][variant] = found
            kept[family.file] += [row for row, out in zip(rows, held, strict=True) if out]
            error = found["error"]
            print(
                f"{gpu:10} {family.name:18} {variant:26} {error['median']:6.1%} {error['p90']:6.1%} {error['rows']:4d}"
            )
    write(chosen.out, files, devices, chosen.source, chosen.licence)
    for name, rows in kept.items() if chosen.held_out else ():
        with (chosen.held_out / name).open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            out.writeheader()
            out.writerows(rows)
    return 0


def write(out: Path, files: dict[str, Any], devices: dict[str, Device], source: str, licence: str) -> None:
    """One file a GPU."""
    for gpu, families in files.items():
        device = {name: getattr(devices[gpu], name) for name in Device.__dataclass_fields__}
        body = {"gpu": gpu, "source": source, "licence": licence, "device": device, "families": families}
        (out / f"{gpu}.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
