"""The simulation of a serving: requests per second of CPU time on one core, and how many times longer stepping takes.

python benchmarks/requests_per_second.py [-n RUNS] [--chat CSV] [--long CSV] [--requests N] [--stepped N] [--many N]

Loads: `chat` (Poisson, prompts of about 1,000 tokens, no shared text) and `long` (prompts of about 7,000 tokens, many of which begin as
an earlier one did; prefix cache on). Drawn with the statistics of public traces, or read from a CSV with the
columns arrival_s, input_tokens, output_tokens and, for `long`, prefix_blocks and prefix_blocks_seen_before, of 512 tokens.
Steps have an affine price, so that only the simulation is timed. The stepwise simulation is that of the tests, on the first
`--stepped` requests; `--many` requests are streamed through the worker and the memory that is kept of each is counted.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dagc.serving.records import Engine, Line, Load, Request, Served, Setup, Workers
from dagc.serving.simulate import simulate
from dagc.serving.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
TARGET = 100_000
"""Simulated requests per second."""
TARGET_BYTES = 64
"""Kept of a finished request."""
BLOCK = 512
"""Tokens of a block of shared text."""


class Prices:
    """A step: 6 ms, 5 us per prompt token, 40 us per sequence, 2 ns per token of context and per pair; of a worker that is `faster` 6 ms and
    so much less of the rest."""

    def __init__(self, faster: float = 1.0) -> None:
        self.token, self.sequence, self.pair = 5e-6 / faster, 4e-5 / faster, 2e-9 / faster

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        return Line(6e-3 + self.token * prompt + self.sequence * sequences + self.pair * pairs, self.pair, math.inf, 0)


def read(path: Path) -> list[Request]:
    """A trace; shared text is made up so that as many leading blocks were seen before as it says."""
    made = random.Random(0)
    fresh = iter(range(1 << 40))
    earlier: list[tuple[int, ...]] = []
    requests = []
    with path.open() as file:
        for row in csv.DictReader(file):
            blocks: tuple[int, ...] = ()
            if row.get("prefix_blocks"):
                seen = int(row["prefix_blocks_seen_before"])
                if seen:
                    of = next((old for old in made.choices(earlier, k=32) if len(old) >= seen), None)
                    blocks = (of or max(earlier, key=len))[:seen]
                blocks += tuple(next(fresh) for _ in range(int(row["prefix_blocks"]) - len(blocks)))
                earlier.append(blocks)
            requests.append(
                Request(float(row["arrival_s"]), int(row["input_tokens"]), max(int(row["output_tokens"]), 1), blocks)
            )
    return requests


def drawn(count: int, rate: float, prompt: float, output: float, shared: bool) -> Iterator[Request]:
    """Poisson arrivals; lognormal lengths with these medians; of shared prompts about 40 % begin as an earlier one did."""
    made = random.Random(1)
    at = 0.0
    fresh = iter(range(1 << 40))
    earlier: list[tuple[int, ...]] = [()]
    for _ in range(count):
        at += made.expovariate(rate)
        tokens = min(1 + int(prompt * math.exp(made.gauss(0.0, 0.9))), 100_000)
        blocks: tuple[int, ...] = ()
        if shared:
            old = made.choice(earlier)
            blocks = old[: made.randrange(len(old) + 1)][: tokens // BLOCK]
            blocks += tuple(next(fresh) for _ in range(-(-tokens // BLOCK) - len(blocks)))
            earlier.append(blocks)
        yield Request(at, tokens, 1 + int(output * math.exp(made.gauss(0.0, 0.8))), blocks)


def timed(
    engine: Engine, requests: list[Request], runs: int, route: str = "round_robin"
) -> tuple[list[float], dict[str, int]]:
    setup = Setup((Workers("both", 1, engine),), route)
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        outcome = simulate(setup, Load(requests))
        # The clock of a virtual machine can stand still for a moment.
        seconds.append(max(time.process_time() - start, time.get_clock_info("process_time").resolution))
    return seconds, dict(outcome.counts)


def stepped(engine: Engine, requests: list[Request]) -> tuple[float, int]:
    """Seconds and steps of the stepwise simulation."""
    sys.path.insert(0, str(ROOT / "tests"))
    from serving_reference import Reference

    start = time.process_time()
    slow = Reference(engine, requests).run()
    return time.process_time() - start, slow.counts["steps"]


def show(name: str, engine: Engine, requests: list[Request], runs: int, few: int, route: str = "round_robin") -> None:
    seconds, counts = timed(engine, requests, runs, route)
    best, median = len(requests) / min(seconds), len(requests) / statistics.median(seconds)
    print(
        f"{name}: {len(requests):,} requests, {counts['steps']:,} steps in {counts['events']:,} events: {best:,.0f} requests/s at best,"
        f" {median:,.0f} median (target {TARGET:,}), {counts['steps'] / min(seconds):,.0f} steps/s,"
        f" {counts['hit_tokens']:,} tokens of prompts found in the cache, {counts['preempted']:,} preempted"
    )
    part = requests[:few]
    if part:
        fast, _ = timed(engine, part, max(runs, 3))
        slow, steps = stepped(engine, part)
        print(
            f"  stepwise, {len(part):,} requests, {steps:,} steps: {len(part) / slow:,.0f} requests/s, {slow / min(fast):,.0f} times longer"
        )


def many(count: int) -> None:
    """A stream of requests: what is kept of each."""
    engine = Engine(Prices(), slots=512, batch_tokens=4096, kv_blocks=1 << 17)
    served = Served()
    worker = Worker(engine, served=served)
    tracemalloc.start()
    worker.feed(drawn(count, 20.0, 400.0, 40.0, False))
    before = tracemalloc.get_traced_memory()[0]
    worker.run()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    print(
        f"many: {worker.finished:,} requests streamed: {kept / worker.finished:.1f} bytes kept of each (target {TARGET_BYTES}),"
        f" {sum(column.itemsize for column in served.columns)} of them in its columns"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5, metavar="RUNS")
    parser.add_argument("--chat", type=Path, metavar="CSV")
    parser.add_argument("--long", type=Path, metavar="CSV")
    parser.add_argument("--requests", type=int, default=20_000, metavar="N")
    parser.add_argument("--stepped", type=int, default=200, metavar="N")
    parser.add_argument("--many", type=int, default=1_000_000, metavar="N")
    given = parser.parse_args()
    chat = read(given.chat) if given.chat else list(drawn(given.requests, 5.5, 1000.0, 130.0, False))
    long = read(given.long) if given.long else list(drawn(given.requests, 3.4, 5000.0, 300.0, True))
    base = Engine(Prices(), slots=512, batch_tokens=4096, chunk=4096, kv_blocks=1 << 17)
    show("chat", base, chat, given.n, given.stepped)
    largest = max(-(-(request.prompt + request.output) // base.kv_block) for request in chat)
    show("chat, tight cache", replace(base, kv_blocks=max(1200, largest + 1)), chat, given.n, given.stepped)
    show("chat, 8 ranks", replace(base, ranks=8), chat, given.n, given.stepped)
    show("chat, 144 ranks, the least loaded", replace(base, ranks=144), chat, given.n, 0, "least")
    shared = replace(base, batch_tokens=16384, chunk=16384, prefix_cache=True, prefix_block=BLOCK)
    show("long", replace(shared, prices=Prices(8.0)), long, given.n, given.stepped // 4)
    show("long, overloaded", shared, long, given.n, 0)
    if given.many:
        many(given.many)


if __name__ == "__main__":
    main()
