"""objectives: what makes one plan better than another, as a figure of its time, its batch and its GPUs.

One formula serves exact plans and bounds: of a time that is never above the true one it gives a figure that is never worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record, replace
from ...base.phase_kinds import TRAIN
from ...base.suggest import did_you_mean
from ...base.units import BYTES, ENERGY_PER_TOKEN, MONEY_PER_TOKEN, REQUEST_RATE, SCALAR, TIME, TOKEN_RATE, Dim
from ...spec.hardware import Hardware
from ...spec.metrics.known_metrics import of_phase, of_training
from ...spec.metrics.known_metrics import of_serving as metrics_of_serving
from ...spec.metrics.metric import Metric

Floats = NDArray[np.float64]
Figure = float | Floats


@record
class Terms:
    """Of one plan, or columns of many. `time_s`: what the phase's kind calls it (ttft, tpot, step_time); `throughput`: tokens/s of
    all its GPUs; `sequences` in its batch. `price_per_s`,
    `power_W`: of all its GPUs, not a number where the hardware has none. Of a training step: `mfu`, and `peak_B` on the fullest GPU."""

    time_s: Figure
    throughput: Figure
    gpus: Figure
    sequences: Figure
    price_per_s: Figure = float("nan")
    power_W: Figure = float("nan")
    mfu: Figure = float("nan")
    peak_B: Figure = float("nan")


@record
class Objective:
    """`name`: the metric of the phase where it is one. `better`: lower or higher. `figure`: in SI units of `dim`. `measured`: a metric that is read off a
    plan, or serving, of which no bound is known. `needs`: what the hardware must give.
    """

    name: str
    better: str
    dim: Dim
    about: str
    figure: Callable[[Terms], Figure]
    phase: str = ""
    measured: bool = False
    needs: str = ""

    def score(self, terms: Terms) -> Figure:
        """The figure, so that less is better."""
        return self.figure(terms) if self.better == "lower" else -self.figure(terms)

    def shown(self, score: float) -> float:
        """The figure of a score."""
        return score if self.better == "lower" else -score


def _time(name: str, about: str) -> Objective:
    return Objective(name, "lower", TIME, about, lambda t: t.time_s)


TABLE: Mapping[str, Objective] = {
    one.name: one
    for one in (
        Objective("throughput", "higher", TOKEN_RATE, "tokens per second of all GPUs of the phase", lambda t: t.throughput),
        Objective("throughput_per_gpu", "higher", TOKEN_RATE, "the same per GPU", lambda t: t.throughput / t.gpus),
        Objective(
            "throughput_per_user", "higher", TOKEN_RATE, "tokens per second of one sequence", lambda t: t.throughput / t.sequences
        ),
        _time("ttft", "prefill: the first token of the last sequence of the batch"),
        _time("tpot", "decode: between two tokens of a sequence"),
        _time("step_time", "mixed: one step of prompts and decode together; train: one step"),
        Objective("gpus", "lower", SCALAR, "GPUs of the phase", lambda t: t.gpus),
        Objective(
            "cost_per_token", "lower", MONEY_PER_TOKEN, "price of its GPUs over its throughput", lambda t: t.price_per_s / t.throughput,
            needs="price",
        ),
        Objective(
            "energy_per_token", "lower", ENERGY_PER_TOKEN, "power of its GPUs over its throughput: an upper bound",
            lambda t: t.power_W / t.throughput, needs="power",
        ),
    )
}  # fmt: skip
OF_STEPS: Mapping[str, Objective] = {
    **{name: one for name, one in TABLE.items() if name not in ("throughput_per_user", "ttft", "tpot")},
    **{
        one.name: one
        for one in (
            Objective("mfu", "higher", SCALAR, "FLOPs of the model over those of the GPUs at their peak", lambda t: t.mfu),
            Objective("memory.peak", "lower", BYTES, "everything on the fullest GPU", lambda t: t.peak_B),
        )
    },
}  # fmt: skip
"""Those of phases that train: of each a bound is known."""


def table_of(kind: str) -> Mapping[str, Objective]:
    """Objectives of a kind of phase of which bounds are known, by name."""
    return OF_STEPS if kind == TRAIN.name else TABLE


SHORT: Mapping[str, str] = {
    "per_gpu": "throughput_per_gpu",
    "per_user": "throughput_per_user",
    "latency": "time",
    "fewest_gpus": "gpus",
    "cost": "cost_per_token",
    "energy": "energy_per_token",
    "memory": "memory.peak",
}
"""Other words for them."""
TIMES = {"prefill": "ttft", "decode": "tpot", "mixed": "step_time", "train": "step_time"}
"""What a phase's time is called, by its kind."""


def usual(phase: str, kind: str) -> Objective:
    """What a phase is searched for where nothing is said."""
    return replace(TABLE["throughput_per_gpu"], phase=phase)


@record
class Split:
    """Prefill and decode as one deployment: requests per second that both keep up with, all their GPUs, generated tokens of a
    request; `price_per_s`, `power_W`: of all its GPUs, not a number where the hardware has none. Of one pair, or arrays of many."""

    rate: Figure
    gpus: Figure
    output: float
    price_per_s: Figure = float("nan")
    power_W: Figure = float("nan")


def rate(prefill: Figure, decode: Figure, shared: bool | NDArray[np.bool_]) -> Figure:
    """Requests per second of two phases that keep up with so many each by themselves. On GPUs that they share they take turns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        turns = 1 / (1 / np.asarray(prefill) + 1 / np.asarray(decode))
    return np.where(shared, turns, np.minimum(prefill, decode))


@record
class System:
    """An objective of prefill and decode together. `needs`: what the hardware must give."""

    name: str
    better: str
    dim: Dim
    about: str
    figure: Callable[[Split], Figure]
    needs: str = ""

    def score(self, split: Split) -> Figure:
        return self.figure(split) if self.better == "lower" else -self.figure(split)

    @property
    def as_objective(self) -> Objective:
        return Objective(
            self.name, self.better, self.dim, self.about, lambda t: t.throughput, TOGETHER, needs=self.needs
        )


TOGETHER = "all"
"""Whose figures are of prefill and decode together."""
SYSTEMS: Mapping[str, System] = {
    one.name: one
    for one in (
        System("throughput", "higher", TOKEN_RATE, "generated tokens per second that prefill and decode keep up with", lambda s: s.rate * s.output),
        System("throughput_per_gpu", "higher", TOKEN_RATE, "the same per GPU of both", lambda s: s.rate * s.output / s.gpus),
        System("rate", "higher", REQUEST_RATE, "requests per second that both keep up with", lambda s: s.rate),
        System("gpus", "lower", SCALAR, "GPUs of both", lambda s: s.gpus),
        System(
            "cost_per_token", "lower", MONEY_PER_TOKEN, "price of all GPUs over the generated tokens", lambda s: s.price_per_s / (s.rate * s.output),
            needs="price",
        ),
        System(
            "energy_per_token", "lower", ENERGY_PER_TOKEN, "power of all GPUs over the generated tokens: an upper bound",
            lambda s: s.power_W / (s.rate * s.output), needs="power",
        ),
    )
}  # fmt: skip


def of_system(word: str) -> System | None:
    """The objective of prefill and decode together that a word means."""
    return SYSTEMS.get(SHORT.get(word, word))


def unbounded(metric: Metric, owner: str) -> Objective:
    """Of a metric that is read off a compiled plan alone."""
    best = float("-inf") if metric.better == "lower" else float("inf")
    return Objective(
        metric.name, metric.better, metric.dim, metric.about, lambda t: best, owner, measured=True, needs=metric.needs
    )


def scored(objectives: Sequence[Objective], figures: Sequence[float]) -> tuple[float, ...]:
    """Figures so that less is better."""
    return tuple(f if o.better == "lower" else -f for o, f in zip(objectives, figures, strict=True))


LEAST = 1e-300
"""A figure of nothing, in a product."""


def product_of(objectives: Sequence[Objective | System], scores: Sequence[Figure]) -> Figure:
    """One score for all objectives: of several the product of their ratios to any other plan's, by logarithms."""
    if len(scores) == 1:
        return scores[0]
    signs = [1 if one.better == "lower" else -1 for one in objectives]
    logs = [sign * np.log(np.maximum(np.abs(s), LEAST)) for sign, s in zip(signs, scores, strict=True)]
    total: Figure = np.sum(logs, axis=0)
    return total


class NoObjective(ValueError):
    """A word that is none; `help`: what is meant, or the list; `why`: what is wrong, where it is a word for something."""

    def __init__(self, word: str, help: str, why: str = "") -> None:
        super().__init__(why or f"there is no objective `{word}`")
        self.help = help


def of_serving(word: str, serves: Sequence[str]) -> Objective | None:
    """A metric of a serving that a word means: `chat.goodput`; None: it means none. Raises NoObjective."""
    owner, _, name = word.partition(".")
    if owner not in serves:
        metric = next((m for m in metrics_of_serving() if m.name == word and m.better), None)
        return unbounded(metric, serves[0]) if metric is not None and word in ONLY_SERVED and len(serves) == 1 else None
    own = SHORT.get(name, name)
    metric = next((m for m in metrics_of_serving() if m.name == own and m.better), None)
    if metric is not None:
        return unbounded(metric, owner)
    known = [m.name for m in metrics_of_serving() if m.better]
    near = did_you_mean(name, known)
    raise NoObjective(
        word, f"did you mean `{owner}.{near}`?" if near else f"objectives of a serving: {', '.join(known)}"
    )


ONLY_SERVED = ("goodput", "rate", "cost_per_request")
"""Metrics that phases do not have: no serving needs to be named where there is one."""


def objective(word: str, kinds: Mapping[str, str], serves: Sequence[str] = ()) -> Objective:
    """What a word of the command line means. `kinds`: phases that may be meant, and their kinds; the first of them that has such a
    figure is meant where the word names none (`decode.tpot`). `serves`: servings, whose figures are known too. Raises NoObjective."""
    phase, _, rest = word.partition(".")
    name = rest if phase in kinds else word
    name = SHORT.get(name, name)
    phases = [phase] if phase in kinds else list(kinds)
    known = list(dict.fromkeys(n for kind in kinds.values() for n in (*_untimed(kind), TIMES[kind])))
    for one in phases:
        kind = kinds.get(one)
        own = TIMES.get(kind or "") if name == "time" else name
        found = table_of(kind or "").get(own or "")
        metrics = of_training() if kind == TRAIN.name else of_phase()
        metric = next((m for m in metrics if m.name == name and m.better), None)
        if found is None and metric is not None and kind is not None:
            return unbounded(metric, one)
        if kind is None or found is None or (found.name in TIMES.values() and found.name != TIMES[kind]):
            continue
        return replace(found, phase=one)
    if any(m.name == name and m.better for m in metrics_of_serving()) and (
        name in ONLY_SERVED or "." in name or serves
    ):
        raise NoObjective(word, _of_servings(name, serves), f"`{name}` is a figure of a serving")
    near = did_you_mean(name, (*known, *SHORT))
    raise NoObjective(word, f"did you mean `{near}`?" if near else _list(known, kinds, serves))


def _untimed(kind: str) -> tuple[str, ...]:
    """Objectives of a kind of phase but for its time."""
    return tuple(n for n in table_of(kind) if n not in TIMES.values())


def _of_servings(name: str, serves: Sequence[str]) -> str:
    if not serves:
        return "the search has none: `serve chat { arrivals = poisson(4 req/s), requests = 1000 }`"
    return f"write {' or '.join(f'`{one}.{name}`' for one in serves[:8])}"


EXAMPLES = {"price": "price = 2 $/h", "power": "power = 700 W"}


def check_given(objectives: Sequence[Objective | System], pools: Mapping[str, Hardware]) -> None:
    """Raises NoObjective where no pool has what an objective needs."""
    for one in objectives:
        if one.needs and all(getattr(own, GIVEN[one.needs]) is None for own in pools.values()):
            raise NoObjective(one.name, f"the hardware gives no {one.needs}: write `{EXAMPLES[one.needs]}` in it")


GIVEN = {"price": "price_per_s", "power": "power_W"}


def _list(known: Sequence[str], kinds: Mapping[str, str], serves: Sequence[str]) -> str:
    served = f"; of a serving: {', '.join(f'{one}.goodput' for one in serves[:8])}" if serves else ""
    named = ", ".join(f"{phase}.throughput" for phase in [*kinds][:8])
    return f"objectives: {', '.join(known)}; of a phase: {named}{served}; and what `dagc list metrics` calls better when higher or lower"
