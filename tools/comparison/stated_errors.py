"""The errors that reports and the README state, from servings: one file of the product, written here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagc.spec.engines import ENGINES

from . import noise, unmeasured, unseen
from .servings import Outcome
from .statistics import Errors

ROOT = Path(__file__).parents[2]
FILE = ROOT / "grammar" / "library" / "calibration" / "accuracy.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- accuracy: written by tools/accuracy.py --write -->", "<!-- end of accuracy -->"
KINDS = {"prefill": "ttft", "decode": "tpot"}
FIGURES = ("ttft", "tpot", "e2e")
ABOUT = "written by tools/accuracy.py --write; see docs/accuracy.md. phases: of a compiled phase alone, without a model of the serving, on all cases; another_gpu, roofline: the same phases, priced with kernels of the nearest other GPU, or with none; servings: of simulated servings (`dagc serve`), by engine (empty: all), with constants that knew nothing of the model; repeats: of runs of one configuration"


def of(
    done: Sequence[Outcome],
    repeats: Sequence[noise.Group],
    wider: unmeasured.Ratios,
    apart: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The content of the file. `wider`: phases without their GPU's kernels; `apart`: ratios of servings by the names of
    `unseen.name_of`."""
    sure = [o for o in done if o.case.without_doubt]
    groups: dict[str, dict[str, list[float]]] = {"phases": {}, "repeats": noise.ratios(repeats)}
    for kind, metric in KINDS.items():
        mine = [o for o in sure if o.serving.metric == metric]
        groups["phases"][kind] = [o.phase_ratio for o in mine if o.phase_ratio is not None]
    groups |= {name: {kind: [*ratios] for kind, ratios in kinds.items()} for name, kinds in wider.items()}
    return {
        "about": ABOUT,
        **{name: {key: stated(Errors.of(ratios)) for key, ratios in each.items()} for name, each in groups.items()},
        "servings": servings(apart),
    }


def servings(apart: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """By engine (empty: all of them) and figure."""
    found: dict[str, dict[str, Any]] = {}
    for engine in ("", *sorted(ENGINES)):
        for metric in FIGURES:
            errors = Errors.of(apart.get(unseen.name_of(metric, "model", engine or "all"), ()))
            if errors is not None:
                found.setdefault(engine, {})[metric] = stated(errors)
    return found


def stated(errors: Errors | None) -> dict[str, float]:
    if errors is None:
        raise ValueError("no servings of a kind of phase: nothing can be stated of it")
    return {
        "median": round(errors.median, 3), "p90": round(errors.p90, 3), "bias": round(errors.bias, 3), "cases": errors.n,
    }  # fmt: skip


def write(found: Mapping[str, Any]) -> None:
    """The file, and the README's sentences."""
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{sentences(found)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def sentences(found: Mapping[str, Any]) -> str:
    """What the README says."""
    decode, prefill = found["phases"]["decode"], found["phases"]["prefill"]
    tpot, ttft, e2e = (found["servings"][""][figure] for figure in ("tpot", "ttft", "e2e"))
    repeats = found["repeats"]["TPOT"]
    return f"""Every report prints how far similar phases were from real servings. A decode step alone was within {decode["median"]:.0%} of the
measured time per token in half of {decode["cases"]:,} cases and within {decode["p90"]:.0%} in nine of ten (median {decode["bias"]:+.0%}: a server also prefills
between steps). A prefill alone was within {prefill["median"]:.0%} and {prefill["p90"]:.0%} of the time to the first token (median {prefill["bias"]:+.0%}: a request
also waits). A `serve` section simulates such servers: on models that none of its constants was fitted on it is within {tpot["median"]:.0%} and {tpot["p90"]:.0%} (TPOT),
{e2e["median"]:.0%} and {e2e["p90"]:.0%} (a whole request), {ttft["median"]:.0%} and {ttft["p90"]:.0%} (TTFT). Runs that differ only in day and engine version
are within {repeats["median"]:.1%} and {repeats["p90"]:.0%} of one another ([docs/accuracy.md](docs/accuracy.md), made by `tools/accuracy.py`)."""
