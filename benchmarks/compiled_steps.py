"""Prices of the steps of servings: how many steps are compiled for one, how long that and a price take, and how far prices are from
steps compiled whole, at random sizes.

python benchmarks/compiled_steps.py [-n STEPS] [SPEC ...]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.base.syntax.input import read_source
from dagc.lang.load import load
from dagc.pipeline.compile import compile_spec
from dagc.pipeline.serve import Servings
from dagc.pipeline.step_kinds import Source as Phases
from dagc.pipeline.step_kinds import halves
from dagc.pipeline.step_points import Knot, compiled
from dagc.pipeline.step_prices import Host, StepPrices
from dagc.spec.spec import Spec

ROOT = Path(__file__).resolve().parent.parent
TRAFFIC = "\nserve traffic { arrivals = poisson(4 req/s), requests = 500 }\n"


def spec_of(path: Path) -> Spec:
    """With traffic, where it has none."""
    source = read_source(str(path))
    spec = load(source, Collector(), {}, path.parent)
    return spec if spec.serves else load(Source(source.name, source.text + TRAFFIC), Collector(), {}, path.parent)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def errors(prices: StepPrices, spec: Spec, steps: int) -> tuple[float, list[float]]:
    """(what is said, relative errors) at random steps, of the GPUs alone."""
    rng = random.Random(0)
    gpus = StepPrices(prices.price, prices.limits, Host(), *prices.sources, ranks=prices.ranks)
    decode, prompts, mixed = prices.sources
    found = []

    def compare(source: Phases, b: int, m: int, t: int, x: int, scale: float) -> None:
        every = source.lockstep * source.copies
        pairs = t * x + t * (t + 1) / 2
        line = gpus.step(b * scale, b * scale * m, t * scale, pairs * scale, t * scale)
        count, each, end = halves(t, 1, x, source) if t else (0, 0, 0)
        exact = compiled(Knot(source.phase, b * every, m, count * every, each, end, source.microbatches), spec).time_s
        found.append(abs((line.base_s + line.per_token_s * b * scale * m) / exact - 1))

    for _ in range(steps):
        b, m, x = rng.randint(1, 64), rng.randint(50, 4000), rng.choice([0, rng.randint(64, 3000)])
        if decode is not None:
            compare(decode, 2 * b, m, 0, 0, decode.lockstep / prices.ranks)
        for source, sequences in ((prompts, 0), (mixed, b)):
            if source is not None and (not sequences or decode is not None):
                whole = 2 * source.grain
                t = (
                    rng.randint(1, prices.limits.batch_tokens // whole) * whole
                    - sequences * source.drafted % source.grain
                )
                compare(source, sequences, m, t, x, source.lockstep / prices.ranks)
    return gpus.error, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*", type=Path, default=sorted((ROOT / "examples").glob("*.moe")))
    parser.add_argument("-n", "--steps", type=int, default=10, help="random steps of every kind (default: 10)")
    args = parser.parse_args()
    print(
        f"{'serving, workers':<34} {'compiled':>8} {'ms each':>8} {'us a price':>10}  {'error said':>10} {'found: median':>13} {'most':>6}"
    )
    for path in args.specs:
        spec = spec_of(path)
        servings = Servings(compile_spec(spec, Collector()))
        for serve in spec.serves:
            spent: dict[Knot, float] = {}
            price = servings.price

            def timed(knot: Knot, price=price, spent=spent) -> object:  # type: ignore[no-untyped-def]
                start = time.process_time()
                found = price(knot)
                spent.setdefault(knot, time.process_time() - start)
                return found

            servings.price = timed  # type: ignore[assignment]
            setup = servings.setup(serve)
            servings.run(serve)
            for workers in setup.workers:
                prices = workers.engine.prices
                assert isinstance(prices, StepPrices)
                took = [s for knot, s in spent.items() if knot.phase in {p.phase for p in prices.sources if p}]
                calls = [(float(b), 1000.0 * b) for b in range(1, 33)] if workers.role != "prefill" else []
                more = (
                    [(0.0, 0.0, 100.0 * k, 5e3 * k, 100.0 * k) for k in range(1, 33)]
                    if workers.role != "decode"
                    else []
                )
                for call in (*calls, *more):
                    prices.step(*call)
                again = seconds(lambda p=prices, c=(*calls, *more): [p.step(*x) for _ in range(100) for x in c])  # type: ignore[misc]
                said, found = errors(prices, spec, args.steps)
                name = f"{path.stem}, {serve.name}, {workers.role}"
                print(
                    f"{name:<34} {len(took):8d} {1e3 * statistics.mean(took):8.1f} {again / 100 / len((*calls, *more)) * 1e6:10.2f}"
                    f"  {said:10.2%} {statistics.median(found):13.2%} {max(found):6.2%}"
                )


if __name__ == "__main__":
    main()
