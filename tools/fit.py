"""Fit kernel-cost constants to measured tables: python tools/fit.py --data DIR --out grammar/library/calibration

Holds out a quarter of every (gpu, family, variant) before fitting, fits the rest in log space with a robust loss,
writes one file per GPU and prints the error on the held-out rows. Needs scipy. docs/calibration.md says how to add a GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

from dagc.calib import Device
from dagc.calib.fitting import file, tables
from dagc.calib.fitting.fit import Part, UnknownDevice, fit_folder

SOURCE = "fitted to tables of ai-dynamo/aiconfigurator (package aiconfigurator-core 0.12.0)"
LICENCE = "tables: Apache-2.0, copyright NVIDIA CORPORATION & AFFILIATES"
DEVICES = Path(__file__).with_name("devices.json")


def tell(part: Part) -> None:
    """One line per variant."""
    head = f"{part.gpu:10} {part.family.name:18} {part.variant:26}"
    if part.found is None:
        print(f"{head} too few rows: {len(part.rows)}")
        return
    error = part.found["error"]
    print(f"{head} {error['median']:6.1%} {error['p90']:6.1%} {error['rows']:4d}")


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
    print(f"{'gpu':10} {'family':18} {'variant':26} median   p90    n")
    try:
        found = fit_folder(chosen.data, devices, tell)
    except UnknownDevice as error:
        table, gpu = error.args
        parser.error(f"{table} has GPU {gpu}, which {chosen.devices} does not describe")
    except tables.TableError as error:
        parser.error(str(error))
    for family in found.absent:
        print(f"no {family.file}: {family.name} left out", file=sys.stderr)
    for gpu in found.gpus:
        body = file.text(gpu, chosen.source, chosen.licence, devices[gpu], found.families(gpu))
        (chosen.out / f"{gpu}.json").write_text(body, encoding="utf-8")
    if chosen.held_out:
        write_rows(chosen.held_out, found.parts)
    return 0


def write_rows(folder: Path, parts: list[Part]) -> None:
    """The rows set aside, as tables."""
    kept: dict[str, list[tables.Row]] = defaultdict(list)
    for part in parts:
        if part.found is not None:
            kept[part.family.file] += part.unseen
    for name, rows in kept.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as handle:
            out = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
            out.writeheader()
            out.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
