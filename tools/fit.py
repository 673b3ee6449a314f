"""Fit kernel-cost constants to measured tables: python tools/fit.py --data DIR --data DIR --out grammar/library/calibration

Fits every (gpu, engine, family, variant) of the tables, or those chosen, writes a file per (gpu, engine, family) and prints
the cross-validated errors; docs/kernels.md follows where the library's own are written. Needs scipy. docs/calibration.md says
how to add a table or a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from comparison import kernel_page

from dagc.calib import Device
from dagc.calib.families import FAMILIES
from dagc.calib.fitting import shipping, tables
from dagc.calib.fitting.fit import Part
from dagc.calib.fitting.folders import UnknownDevice, fit_folders

SOURCE = "fitted to tables of ai-dynamo/aiconfigurator (package aiconfigurator-core 0.12.0)"
LICENCE = "tables: Apache-2.0, copyright NVIDIA CORPORATION & AFFILIATES"
DEVICES = Path(__file__).with_name("devices.json")
ERRORS = Path(__file__).with_name("kernel_errors.json")


def tell(part: Part) -> None:
    """One line per variant."""
    head = f"{part.key.gpu:19} {part.key.engine:7} {part.family.name:18} {part.variant:26}"
    if part.entry is None:
        print(f"{head} too few rows: {len(part.rows)}")
        return
    error = part.entry.error
    unseen = "     -" if error.unseen is None else f"{error.unseen:6.1%}"
    over = f" over {part.entry.over.engine} on {part.entry.over.gpu}" if part.entry.over is not None else ""
    print(f"{head} {error.median:6.1%} {error.p90:6.1%} {error.bias:+6.1%} {unseen} {error.rows:5d}{over}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, action="append", metavar="DIR", help="folder of tables (again: more)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of calibrations (without it, nothing is written)"
    )
    parser.add_argument("--devices", type=Path, default=DEVICES, help="datasheet peaks by GPU (JSON)")
    parser.add_argument("--errors", type=Path, default=ERRORS, help="errors by family, GPU and engine (JSON)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="also write the rows of one part of each family there")
    parser.add_argument("--source", default=SOURCE, help="where the tables come from")
    parser.add_argument("--licence", default=LICENCE, help="licence of the tables")
    for name in ("engine", "family"):
        parser.add_argument(f"--{name}", action="append", default=[], help="only this one (again: more)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.family if name not in FAMILIES]:
        parser.error(f"no family {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    devices = {gpu: Device(**body) for gpu, body in json.loads(chosen.devices.read_text(encoding="utf-8")).items()}
    print(f"{'gpu':19} {'engine':7} {'family':18} {'variant':26} median   p90   bias unseen     n")

    def wanted(key: tables.Key) -> bool:
        pairs = (key.engine, chosen.engine), (key.family, chosen.family)
        return all(value in values or not values for value, values in pairs)

    try:
        found = fit_folders(chosen.data, devices, tell, wanted, chosen.jobs)
    except UnknownDevice as error:
        table, gpu = error.args
        parser.error(f"{table} has GPU {gpu}, which {chosen.devices} does not describe")
    except tables.TableError as error:
        parser.error(str(error))
    for name in sorted(set(found.absent)):
        print(f"no {name}", file=sys.stderr)
    errors = shipping.kernel_errors(found.parts)
    for family, gpus in errors.items():
        for gpu, engines in gpus.items():
            for engine, each in engines.items():
                unseen = each.get("unseen", {}).get("median", float("nan"))
                print(
                    f"{family:18} {gpu:19} {engine:7} {each['median']:6.1%} {each['p90']:6.1%} {each['bias']:+6.1%} {unseen:6.1%} {each['rows']:5d}"
                )
    if chosen.keep is not None:
        shipping.keep(chosen.keep, found.parts)
    if chosen.out is None:
        return 0
    shipping.write(chosen.out, found.parts, chosen.source, chosen.licence, devices)
    whole = [] if chosen.engine else chosen.family or list(FAMILIES)
    shipping.write_nearest(chosen.out, found.parts, whole, f"{chosen.source} ({chosen.licence})", devices)
    known = json.loads(chosen.errors.read_text(encoding="utf-8")) if chosen.errors.exists() else {}
    chosen.errors.write_text(json.dumps(shipping.merged(known, errors), indent=1) + "\n", encoding="utf-8")
    if (chosen.errors.resolve(), chosen.out.resolve()) == (kernel_page.ERRORS, kernel_page.NEAREST.parent):
        kernel_page.PAGE.write_text(kernel_page.read(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
