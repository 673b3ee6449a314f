"""What a simulated run amounts to: latencies, rates, how full everything was, and whether the plan keeps up.

The whole run counts, from the first arrival to the last token: the empty start and the drain at the end are inside, as in
benchmarks of a finite number of requests. Percentiles of requests are exact: of all of them, linear between neighbours (numpy's
default, which the benchmark scripts of the engines use)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import field, record, replace
from ..base.units import REQUEST_RATE, TIME, show
from ..spec.serve import Arrivals
from . import gaps
from .records import Outcome, Served, Setup, Switch, Workers
from .verdict import Growth, fuller, growth, verdict, waits_grew

Column = NDArray[np.float64]
PERCENTILES = (50, 90, 99)


@record
class Spread:
    """Of one figure over all requests, in seconds."""

    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float


NOTHING = Spread(*[float("nan")] * 4)
"""Of no requests at all."""


@record
class Limits:
    """What a request must keep to count for goodput; None: any. See `dagc.plan.goodput` for how a spec says it."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    @property
    def any(self) -> bool:
        return any(limit is not None for limit in (self.ttft_s, self.tpot_s, self.e2e_s))


@record
class RoleResult:
    """The workers of one role. Means are over the run. `busy`: share of the time in a step, `gpus_busy`: of their GPUs' time in one, as some
    phases leave GPUs idle; `imbalance`: tokens of the busiest rank over the mean; `waiting`, `running`: requests of
    them all; `kv_fill`: held blocks over all blocks; `kv_waste`: share of the held blocks' places that have no token; `saturated`:
    share of the time in which requests wait."""

    role: str
    workers: int
    gpus: int
    busy: float
    waiting_mean: float
    waiting_most: int
    running_mean: float
    running_most: int
    kv_fill_mean: float
    kv_fill_most: float
    kv_waste: float
    saturated: float
    gpus_busy: float
    imbalance: float


@record(slots=False)
class ServeResult:
    """A simulated serving `name`. Rates are over `duration_s`, from the first arrival to the last token.

    `ttft`: from arrival to the first token at the client; `tpot`: (e2e - ttft) / (output - 1) of a request, over those with
    more than one token; `itl`: over all gaps between deliveries of tokens, percentiles to `gaps.RESOLUTION`; `e2e`: from arrival to the last token.
    `offered_per_s`: requests that come per second, as the spec says or as counted where it says none; infinite where all come at once.
    `met`: share of all that arrived that meet every limit; `met_each`: of those that ended, by limit. `prices_error`: bound of what interpolation adds to a step's time,
    relative. `to_decode_s`, `to_prefill_s`: times of a change of roles, without caches; `moved_B`: weights that move in both."""

    name: str
    arrivals: Arrivals
    outcome: Outcome = field(repr=False, compare=False)
    setup: Setup = field(repr=False, compare=False)
    limits: Limits
    ttft: Spread
    tpot: Spread
    itl: Spread
    e2e: Spread
    duration_s: float
    offered_per_s: float
    met: float
    met_each: Mapping[str, float]
    roles: tuple[RoleResult, ...]
    growth: Growth
    verdict: str
    prices_error: float = 0.0
    to_decode_s: float = 0.0
    to_prefill_s: float = 0.0
    moved_B: float = 0.0

    def __repr__(self) -> str:
        times = f"TTFT p99 {show(self.ttft.p99_s, TIME)}, TPOT p99 {show(self.tpot.p99_s, TIME)}"
        return f"<ServeResult {self.name}: {times}, goodput {show(self.goodput_per_s, REQUEST_RATE)}, {self.verdict}>"

    @property
    def counts(self) -> Mapping[str, int]:
        return self.outcome.counts

    @property
    def arrived(self) -> int:
        return self.counts["arrived"]

    @property
    def finished(self) -> int:
        return self.counts["finished"]

    def count(self, what: str) -> int:
        """Rejected, preempted, switches, steps, ..."""
        return self.counts.get(what, 0)

    @cached_property
    def gpus(self) -> int:
        return sum(role.gpus for role in self.roles)

    @property
    def rate_per_s(self) -> float:
        """Requests that end, per second."""
        return self.finished / self.duration_s

    @property
    def goodput_per_s(self) -> float:
        """Requests per second that meet every limit."""
        return self.met * self.arrived / self.duration_s

    @property
    def throughput_tok_s(self) -> float:
        """Output tokens per second."""
        return self.counts["output_tokens"] / self.duration_s

    @property
    def throughput_per_gpu_tok_s(self) -> float:
        return self.throughput_tok_s / self.gpus

    @property
    def throughput_per_user_tok_s(self) -> float:
        """Tokens per second that half of the users see at least, once their output has begun."""
        return 1.0 / self.tpot.p50_s if self.tpot.p50_s else float("inf")

    @property
    def prompt_tok_s(self) -> float:
        """Prompt tokens per second, those of a prefix cache included."""
        return self.counts["prompt_tokens"] / self.duration_s

    @cached_property
    def utilization(self) -> float:
        """Share of the GPUs' time in which they are in a step."""
        return sum(role.gpus_busy * role.gpus for role in self.roles) / self.gpus

    @cached_property
    def imbalance(self) -> float:
        """Tokens of the busiest attention-DP rank over the mean, of the role where that is most."""
        return max(role.imbalance for role in self.roles)

    @cached_property
    def gpu_imbalance(self) -> float:
        """Time in steps of the GPUs that work most, which serve every step of their worker, over the mean of all GPUs; 1 where none works."""
        return max(role.busy for role in self.roles) / self.utilization if self.utilization else 1.0

    @property
    def queue_mean(self) -> float:
        """Requests that wait, for whichever role."""
        return sum(role.waiting_mean for role in self.roles)

    @property
    def queue_most(self) -> int:
        return max(role.waiting_most for role in self.roles)

    @property
    def running_mean(self) -> float:
        return sum(role.running_mean for role in self.roles)

    @property
    def running_most(self) -> int:
        return max(role.running_most for role in self.roles)

    @cached_property
    def fullest(self) -> RoleResult:
        """The role whose cache is fullest."""
        return max(self.roles, key=lambda role: role.kv_fill_mean)

    @property
    def saturated(self) -> float:
        """Share of the time in which requests wait."""
        return max(role.saturated for role in self.roles)

    @property
    def hit_rate(self) -> float:
        """Share of the prompts' tokens that a prefix cache had."""
        prompts = self.counts["prompt_tokens"]
        return self.count("hit_tokens") / prompts if prompts else 0.0

    def without_requests(self) -> ServeResult:
        """The same figures without what was kept of every request and moment."""
        bare = replace(self.outcome, served=Served(), gaps={}, series={}, steps=())
        return replace(self, outcome=bare)


def columns(served: Served) -> dict[str, Column]:
    """As arrays, without a copy, and `tpot_s` (nan where the output is one token)."""
    names = ("arrival_s", "queued_s", "ttft_s", "e2e_s", "prompt", "output", "cached")
    out = {name: np.asarray(getattr(served, name)) for name in names}
    more = out["output"] - 1
    rest = out["e2e_s"] - out["ttft_s"]
    out["tpot_s"] = np.divide(rest, more, out=np.full(len(more), np.nan), where=more > 0)
    return out


def kept_limits(found: Mapping[str, Column], limits: Limits) -> dict[str, NDArray[np.bool_]]:
    """Limit -> which requests keep it. An output of one token has no gap to be late."""
    out = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        limit = getattr(limits, name)
        if limit is not None:
            out[name] = ~(found[name] > limit)
    return out


def spread(values: Column) -> Spread:
    """Exact."""
    if not len(values):
        return NOTHING
    return Spread(float(values.mean()), *(float(p) for p in np.percentile(values, PERCENTILES)))


def spread_of_gaps(histogram: Mapping[int, float], mean_s: float) -> Spread:
    """Percentiles out of a histogram, to the width of its bins; the mean is exact."""
    bins = sorted(histogram)
    if not bins:
        return NOTHING
    weights = np.cumsum([histogram[k] for k in bins])
    places = np.searchsorted(weights, np.array(PERCENTILES) / 100 * weights[-1])
    return Spread(mean_s, *(gaps.seconds(bins[min(int(k), len(bins) - 1)]) for k in places))


def measured(
    name: str,
    setup: Setup,
    outcome: Outcome,
    arrivals: Arrivals,
    limits: Limits | None = None,
    prices_error: float = 0.0,
) -> ServeResult:
    """The figures of a run. `prices_error`: see `ServeResult`."""
    limits, switch = limits or Limits(), setup.switch or Switch()
    found = columns(outcome.served)
    ended = len(found["arrival_s"])
    start_s = float(found["arrival_s"].min()) if ended else 0.0
    duration_s = max(outcome.end_s - start_s, 5e-324)
    tpot_s = found["tpot_s"][found["output"] > 1]
    gap_count = sum(outcome.gaps.values())  # with drafts fewer than tokens
    mean_gap_s = float((found["e2e_s"] - found["ttft_s"]).sum()) / gap_count if gap_count else float("nan")
    arrived = outcome.counts["arrived"]
    good = np.ones(ended, dtype=bool)
    each = kept_limits(found, limits)
    for kept in each.values():
        good &= kept
    grown, filling = _growth(found, arrivals)
    turned_away = outcome.counts.get("rejected", 0) / max(1, arrived)
    grew = filling or waits_grew(found["arrival_s"], found["ttft_s"])
    return ServeResult(
        name=name,
        arrivals=arrivals,
        outcome=outcome,
        setup=setup,
        limits=limits,
        ttft=spread(found["ttft_s"]),
        tpot=spread(tpot_s),
        itl=spread_of_gaps(outcome.gaps, mean_gap_s),
        e2e=spread(found["e2e_s"]),
        duration_s=duration_s,
        offered_per_s=arrivals.rate_per_s or _rate(found["arrival_s"]),
        met=float(good.sum()) / max(1, arrived),
        met_each={name: float(kept.mean()) if ended else 0.0 for name, kept in each.items()},
        roles=tuple(_roles(setup, outcome, duration_s)),
        growth=grown,
        verdict=verdict(arrivals.kind, grown, grew, turned_away),
        prices_error=prices_error,
        to_decode_s=float(switch.cost_s),
        to_prefill_s=float(switch.takes(decodes=False)),
        moved_B=sum(switch.moved_B),
    )


def _rate(came: Column) -> float:
    span = float(came.max() - came.min()) if len(came) else 0.0
    return (len(came) - 1) / span if span else float("inf")


def _growth(found: Mapping[str, Column], arrivals: Arrivals) -> tuple[Growth, bool]:
    came = found["arrival_s"]
    first = growth(came, came + found["ttft_s"], arrivals.rate_per_s)
    whole = growth(came, came + found["e2e_s"], arrivals.rate_per_s, whole=True)
    return fuller(first, whole, came, found["e2e_s"])


def _roles(setup: Setup, outcome: Outcome, duration_s: float) -> Iterable[RoleResult]:
    """Every role that has workers, in their order."""
    for role in dict.fromkeys(workers.role for workers in setup.workers):
        mine = [workers for workers in setup.workers if workers.role == role]

        def mean(what: str, role: str = role) -> float:
            return outcome.integrals.get(f"{role}.{what}", 0.0) / duration_s

        def most(what: str, role: str = role) -> int:
            key = f"{role}.{what}"
            return outcome.most[key] if key in outcome.most else int(max(outcome.series.get(key, ()), default=0))

        count = sum(workers.count for workers in mine)
        blocks = sum(workers.count * workers.engine.ranks * workers.engine.kv_blocks for workers in mine)
        places = mean("blocks") * mine[0].engine.kv_block
        yield RoleResult(
            role=role,
            workers=count,
            gpus=sum(workers.count * workers.gpus for workers in mine),
            busy=mean("busy") / count,
            waiting_mean=mean("waiting"),
            waiting_most=most("waiting"),
            running_mean=mean("running"),
            running_most=most("running"),
            kv_fill_mean=mean("blocks") / blocks,
            kv_fill_most=most("blocks") / blocks,
            kv_waste=1.0 - mean("tokens") / places if places else 0.0,
            saturated=_queued(outcome, role, duration_s),
            gpus_busy=_gpus_busy(mine[0], mean("prompts"), mean("busy")) / count,
            imbalance=_imbalance(outcome.loads.get(role, ())),
        )


def _gpus_busy(workers: Workers, prompts: float, busy: float) -> float:
    """Busy workers by their GPUs: `prompts` of `busy` are in steps of prompts alone."""
    gpus = workers.gpus
    return (prompts * (workers.prompt_gpus or gpus) + (busy - prompts) * (workers.decode_gpus or gpus)) / gpus


def _imbalance(loads: Sequence[int]) -> float:
    """The largest over the mean; 1 of nothing."""
    return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0


def _queued(outcome: Outcome, role: str, duration_s: float) -> float:
    """Share of the time in which requests wait: as counted, or by the samples where it was not."""
    if f"{role}.queued" in outcome.integrals:
        return outcome.integrals[f"{role}.queued"] / duration_s
    waiting, times = outcome.series.get(f"{role}.waiting", ()), outcome.series.get("time_s", ())
    held = np.diff(np.append(np.asarray(times), outcome.end_s))
    return float((held * (np.asarray(waiting) > 0)).sum()) / duration_s if len(times) else 0.0
