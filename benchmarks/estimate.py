"""One estimate in a running process: milliseconds of CPU time of the parts of a compilation, of one estimate, and of a text that is compiled again, as it was and
with other sizes, medians.

python benchmarks/estimate.py [-n RUNS] [SPEC ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from dagc.base.diagnostics import Collector
from dagc.base.frozen import replace
from dagc.base.source import Source
from dagc.base.syntax.input import read_source
from dagc.cost.memory import stage_memory
from dagc.cost.price import price
from dagc.cost.schedule.scheduler import Scheduler
from dagc.lang.load import load
from dagc.pipeline import kept_phases
from dagc.pipeline.compile import compile_spec
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

ROOT = Path(__file__).resolve().parent.parent
TARGET_MS = 5.0
"""Of one estimate: costs, schedule and memory of a lowered phase."""
AGAIN_MS = 6.0
"""Of a phase of a text that has another comment than before, or sequences of another length."""
STEP_TOKENS = 16
"""By which they are shorter each time."""
WARM = 9
"""Sizes before those that count: the second lowers on traced sizes, the eighth prices on them."""


def median_ms(work: Callable[[], object], runs: int) -> float:
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*", type=Path, default=sorted((ROOT / "examples").glob("*.moe")))
    parser.add_argument("-n", "--runs", type=int, default=15)
    args = parser.parse_args()
    print(
        f"{'spec, phase':<34} {'text to spec':>12} {'lowering':>9} {'estimate':>9}  {'whole spec':>10} {'again':>6} {'new sizes':>9}  "
        f"(ms; targets {TARGET_MS:g} an estimate, {AGAIN_MS:g} a phase again)"
    )
    for path in args.specs:
        source = read_source(str(path))
        spec = load(source, Collector(), {}, path.parent)
        parse_ms = median_ms(lambda s=source, p=path: load(s, Collector(), {}, p.parent), args.runs)  # type: ignore[misc]

        def whole(spec=spec) -> object:  # type: ignore[no-untyped-def]
            kept_phases.forget()
            return compile_spec(spec, Collector())

        whole_ms = median_ms(whole, args.runs)
        texts = (f"{source.text}\n# {k}\n" for k in count())

        def again(name: str, source=source, texts=texts, folder=path.parent) -> object:  # type: ignore[no-untyped-def]
            changed = load(Source(source.name, next(texts)), Collector(), {}, folder)
            return compile_spec(replace(changed, requirements=(), serves=()), Collector(), [name])

        def resized(name: str, sizes: Iterator[int], source=source, texts=texts, folder=path.parent) -> object:  # type: ignore[no-untyped-def]
            changed = load(Source(source.name, next(texts)), Collector(), {}, folder)
            own = changed.phase(name)
            own = own.at_context(own.context - STEP_TOKENS * next(sizes))
            return compile_spec(replace(changed, phases=(own,), requirements=(), serves=()), Collector())

        for phase in spec.phases:
            unit = Unit(spec, phase)
            graph = list(lower(unit))[-1][1]

            def estimate(graph=graph, unit=unit) -> object:  # type: ignore[no-untyped-def]
                costs = price(graph, unit)
                return stage_memory(graph, costs, unit), Scheduler(graph, costs, False).run()

            lower_ms = median_ms(lambda s=spec, p=phase: list(lower(Unit(s, p))), args.runs)  # type: ignore[misc]
            name = f"{path.stem}, {phase.name}"
            sizes = count(1)
            for _ in range(WARM if args.runs > 1 else 1):
                resized(phase.name, sizes)
            print(
                f"{name:<34} {parse_ms:12.1f} {lower_ms:9.1f} {median_ms(estimate, args.runs):9.1f}  {whole_ms:10.1f} "
                f"{median_ms(lambda p=phase: again(p.name), args.runs):6.1f} "  # type: ignore[misc]
                f"{median_ms(lambda p=phase, k=sizes: resized(p.name, k), args.runs):9.1f}"  # type: ignore[misc]
            )


if __name__ == "__main__":
    main()
