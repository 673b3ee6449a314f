"""Writes the library of calibrations: a file for each (GPU, engine, family), and what was measured of substitutes."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import NEAREST, moved
from ..constants import Device
from ..family import COMMON, ENGINES
from ..shape import Floats
from . import file
from .fit import Part
from .siblings import near


def write(out: Path, parts: Iterable[Part], source: str, licence: str, devices: Mapping[str, Device]) -> None:
    """One file for each (gpu, engine, family) that has a part; parts without an entry leave it."""
    files: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
    for part in parts:
        files[part.key[:3]].append(part)
    for (gpu, engine, family), found in files.items():
        path = out / gpu / engine / f"{family}.json"
        made = sorted(found, key=lambda part: part.variant)
        bodies = file.bodies((part.family, part.entry) for part in made if part.entry is not None)
        if not bodies:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text(gpu, engine, source, licence, devices[gpu], bodies), encoding="utf-8")


def write_nearest(
    out: Path, parts: Sequence[Part], whole: Iterable[str], source: str, devices: Mapping[str, Device]
) -> None:
    """`nearest.json`; `whole`: families of which `parts` has every part, whose substitutes can be measured."""
    path = out / NEAREST
    errors = json.loads(path.read_text(encoding="utf-8"))["errors"] if path.exists() else {}
    for family in whole:
        errors[family] = substitute_errors([part for part in parts if part.family.name == family], devices)
    body = {
        "source": source,
        "devices": {gpu: file.peaks(device) for gpu, device in devices.items()},
        "near": {gpu: near(gpu, devices) for gpu in devices},
        "errors": dict(sorted(errors.items())),
    }
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def substitute_errors(parts: Sequence[Part], devices: Mapping[str, Device]) -> dict[str, dict[str, float]]:
    """Of every part priced as if nobody had measured it: by another engine, by another GPU, by another variant."""
    known = {part.key[:2] + part.key[3:]: part for part in parts if part.entry is not None}
    signed: dict[str, list[Floats]] = defaultdict(list)
    for (gpu, engine, variant), part in known.items():
        engines = [(gpu, other, variant) for other in ENGINES if other != engine and engine != COMMON]
        gpus = [(other, engine, variant) for other in near(gpu, devices)]
        variants = [(gpu, engine, other) for other in part.family.substitutes(variant)]
        for step, places in (("engine", engines), ("gpu", gpus), ("variant", variants)):
            entries = (known[place].entry for place in places if place in known)
            # An entry over this very GPU knows its rows.
            entry = next((entry for entry in entries if entry and not (entry.over and entry.over.gpu == gpu)), None)
            there = moved(part.family, entry, devices[gpu], variant) if entry is not None else None
            if there is not None:
                estimate = part.family.estimate_s(there, *part.family.arguments(list(part.rows)))
                signed[step].append(estimate / part.measured_s - 1)
    return {step: summary(np.concatenate(found)) for step, found in signed.items()}


def summary(signed: Floats) -> dict[str, float]:
    """Of relative errors with their sign."""
    size = np.abs(signed)
    return {
        "median": round(float(np.median(size)), 4), "p90": round(float(np.quantile(size, 0.9)), 4),
        "bias": round(float(np.median(signed)), 4), "rows": len(signed),
    }  # fmt: skip


def kernel_errors(parts: Sequence[Part]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Cross-validated errors by family, GPU and engine, over all variants; `unseen`: of shapes that the fit did not see."""
    pooled: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
    for part in parts:
        if part.entry is not None:
            pooled[part.key.family, part.key.gpu, part.key.engine].append(part)
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for (family, gpu, engine), of in sorted(pooled.items()):
        by_row = np.concatenate([part.by_row / part.measured_s - 1 for part in of])
        shaped = [part.by_shape / part.measured_s - 1 for part in of if len(part.by_shape)]
        entry: dict[str, Any] = summary(by_row)
        if shaped:
            entry["unseen"] = summary(np.concatenate(shaped))
        found.setdefault(family, {}).setdefault(gpu, {})[engine] = entry
    return found


def merged(known: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Errors with those fitted anew in the place of the old."""
    found = {family: {gpu: dict(engines) for gpu, engines in gpus.items()} for family, gpus in known.items()}
    for family, gpus in fresh.items():
        for gpu, engines in gpus.items():
            found.setdefault(family, {}).setdefault(gpu, {}).update(engines)
    return {family: dict(sorted(gpus.items())) for family, gpus in sorted(found.items())}


FEWEST_KEPT = 40


def _fitter(rows: int) -> tuple[bool, int]:
    """Order of parts by how fit they are to be kept."""
    few = rows < FEWEST_KEPT
    return few, -rows if few else rows


def keep(folder: Path, parts: Iterable[Part]) -> None:
    """All rows of one part of each family that was fitted alone, the smallest of at least `FEWEST_KEPT` rows or else the largest, as the family's
    own table: with them anyone can fit again and see that the stated errors are those of the fit."""
    chosen: dict[str, Part] = {}
    for part in parts:
        kept = chosen.get(part.family.name)
        if (
            part.entry is not None
            and part.entry.over is None
            and (kept is None or _fitter(len(part.rows)) < _fitter(len(kept.rows)))
        ):
            chosen[part.family.name] = part
    tables: dict[str, list[dict[str, str]]] = defaultdict(list)
    for part in chosen.values():
        tables[part.family.file] += [{**row, "backend": part.key.engine} for row in part.rows]
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (folder / name).open("w", encoding="utf-8", newline="") as handle:
            out = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
            out.writeheader()
            out.writerows(rows)
