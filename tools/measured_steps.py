"""Training steps that were measured, compiled: how far their times are from what was measured.

python tools/measured_steps.py [--list] [--fit]

Of each set the errors with the constants that dagc has, and with constants that were fitted without the model of the step (nothing is
fitted to NVIDIA's runs). `--list` prints every step. `--fit` first fits the constants of
dagc/grammar/library/calibration/training.json anew, and writes them there with their errors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from step_sets import bridge, seqpar, simumax
from step_sets.fit import FILE, Constants, fitted, fitted_low, low_times_of, times_of, using, using_low
from step_sets.measured_rows import Step, compiled

SETS: Mapping[str, Callable[[], list[Step]]] = {
    "b200": simumax.steps, "nvidia": bridge.steps, "a100": seqpar.steps, "low": bridge.low_precision,
}  # fmt: skip
TITLES = {
    "b200": "8 B200, Megatron-LM in bf16 (published with SimuMax)",
    "nvidia": "64 and 256 B200, GB200, GB300 (NVIDIA, Megatron-Bridge)",
    "a100": "8 to 280 A100 (arXiv 2205.05198)",
    "low": "8 to 1024 H100, B200 to GB300 in 8 and 4 bits (NVIDIA)",
}
FITTED_TO = ("b200", "a100")
ABOUT = (
    "written by tools/measured_steps.py --fit. sustained: share of their speed in tables that products and attention keep in a step, by GPU; "
    "like: whose share GPUs take that have none, others the mean. attention_backward: speed of the gradients of attention over that of "
    "attention, as figures of FlashAttention 2 and 3 have it (arXiv 2307.08691, 2407.08608). rows: share of the memory's bandwidth of what puts "
    "rows of tokens in another order. low_precision: sustained and rows of steps whose products have 8 or 4 bits, one number each for all GPUs, with errors "
    "of their own. errors: by GPU, of measured steps, each with constants that were fitted without its model; of no GPU: of all of them, fitted without their GPU"
)


def errors(steps: Sequence[Step]) -> dict[str, float]:
    """Of times, over what was measured. Several runs may have one spec."""
    times = {spec: compiled(spec).time_s for spec in dict.fromkeys(step.spec for step in steps)}
    return {step.name: times[step.spec] / step.measured_s - 1 for step in steps}


Found = dict[str, dict[str, float]]
"""Set -> step -> error."""


def left_out(every: Mapping[str, list[Step]]) -> tuple[Constants, Found, Found]:
    """Constants fitted to all models, the errors of each step with those that were fitted without its model, and without its GPU."""
    fit_on = [step for name in FITTED_TO for step in every[name]]
    times = times_of(fit_on)
    whole = fitted(fit_on, times)
    found: Found = {}
    elsewhere: Found = {}
    for name in FITTED_TO:
        found[name] = {}
        for model in dict.fromkeys(step.model for step in every[name]):
            others = fitted([step for step in fit_on if step.model != model], times)
            with using(others):
                found[name] |= errors([step for step in every[name] if step.model == model])
        with using(fitted([step for other in FITTED_TO if other != name for step in every[other]], times)):
            elsewhere[name] = errors(every[name])
    with using(whole):  # of the rest nothing is known
        found["nvidia"] = elsewhere["nvidia"] = errors(every["nvidia"])
    return whole, found, elsewhere


def low_left_out(steps: Sequence[Step]) -> tuple[tuple[float, float], dict[str, float], dict[str, float]]:
    """The same of steps in 8 and 4 bits, whose constants are of all GPUs."""
    times = low_times_of(steps)

    def without(key: Callable[[Step], str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for left in dict.fromkeys(map(key, steps)):
            with using_low(*fitted_low([step for step in steps if key(step) != left], times)):
                found |= errors([step for step in steps if key(step) == left])
        return found

    return fitted_low(steps, times), without(lambda step: step.model), without(lambda step: step.gpu)


def summary(found: Sequence[float]) -> dict[str, float]:
    sizes = sorted(abs(error) for error in found)
    return {
        "median": round(median(sizes), 3), "p90": round(sizes[min(len(sizes) - 1, round(0.9 * (len(sizes) - 1)))], 3),
        "bias": round(median(found), 3), "cases": len(sizes),
    }  # fmt: skip


def by_gpu(every: Mapping[str, list[Step]], found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of the steps on each GPU, of whatever set."""
    gpus: dict[str, list[float]] = {}
    for name, steps in every.items():
        for step in steps:
            gpus.setdefault(step.gpu, []).append(found[name][step.name])
    return {gpu: summary(each) for gpu, each in gpus.items()}


def line(title: str, found: Mapping[str, float]) -> str:
    return f"{title:<58} median {found['median']:5.1%}  p90 {found['p90']:5.1%}  bias {found['bias']:+6.1%}  of {found['cases']:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print every step")
    parser.add_argument("--fit", action="store_true", help="fit the constants anew")
    chosen = parser.parse_args()
    every = {name: make() for name, make in SETS.items()}
    if chosen.fit:
        whole, found, elsewhere = left_out(every)
        file = json.loads(FILE.read_text(encoding="utf-8"))
        file |= {"about": ABOUT, "sustained": dict(whole.sustained), "rows": whole.rows}
        file["errors"] = {
            **by_gpu({name: each for name, each in every.items() if name in found}, found),
            "": summary([e for each in elsewhere.values() for e in each.values()]),
        }
        low, found["low"], elsewhere["low"] = low_left_out(every["low"])
        file["low_precision"] = {
            "sustained": low[0], "rows": low[1],
            "errors": {**by_gpu({"low": every["low"]}, found), "": summary([*elsewhere["low"].values()])},
        }  # fmt: skip
        FILE.write_text(json.dumps(file, indent=1) + "\n", encoding="utf-8")
        for name, each in found.items():
            for case, error in each.items() if chosen.list else ():
                print(f"{case:<58} without its model {error:+7.1%}")
            print(line(f"without the model: {TITLES[name]}"[:58], summary([*each.values()])))
        for name, each in elsewhere.items():
            print(line(f"without the GPU: {TITLES[name]}"[:58], summary([*each.values()])))
    for name, steps in every.items():
        own = errors(steps)
        for case, error in own.items() if chosen.list else ():
            print(f"{case:<58} {error:+7.1%}")
        print(line(TITLES[name], summary([*own.values()])))
        by_model: dict[str, list[float]] = {}
        for step in steps:
            by_model.setdefault(step.model, []).append(own[step.name])
        for model, each in by_model.items():
            print(line(f"  {model}", summary(each)))


if __name__ == "__main__":
    main()
