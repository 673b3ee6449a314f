"""Metrics out of series: one rule per form of a source, and what is known of each figure beside its value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite, prod

from ...base.frozen import record
from ...serving.result import PERCENTILES
from .histograms import histogram
from .series import Series, Server
from .sources import Source, sources

PHASE = "PHASE."
MIB = float(1 << 20)
"""What drivers count memory in."""
LEAST_SAMPLES = 3
"""Of one series, before their mean is one over time: two of them are the beginning and the end of a run."""
SINCE_START = "since the server began: before and after the run give the run alone"


@record
class Figure:
    """A measured value in SI units, and between which bounds the true one is. `source`: what was read; `note`: what else it says."""

    value: float
    low: float
    high: float
    source: str
    note: str = ""

    @classmethod
    def exact(cls, value: float, source: str, note: str = "") -> Figure:
        return cls(value, value, value, source, note)

    @property
    def is_exact(self) -> bool:
        return self.low == self.high


Found = Iterator[tuple[str, Figure]]
"""(metric, figure) of one source."""


@record
class Asked:
    """What a rule works on: one source and the servers that have it, with the seconds that each was watched, where they are known."""

    source: Source
    servers: Sequence[tuple[Server, float | None]]

    def series(self, name: str = "") -> Iterator[tuple[Server, float | None, dict[str, str], Series]]:
        """Of a name, without labels that do not count."""
        for server, seconds in self.servers:
            for labels, one in server.of(name or self.source.name):
                if not any(labels.get(label) in values for label, values in self.source.without.items()):
                    yield server, seconds, labels, one

    def figure(self, value: float, note: str = "") -> tuple[str, Figure]:
        return self.source.metric, Figure.exact(value * self.source.scale, self.source.name, note)

    def note(self, name: str = "") -> str:
        """What to say of a counter that was asked once."""
        return "" if all(one.count > 1 or one.late for _, _, _, one in self.series(name)) else SINCE_START


def _ranks(asked: Asked, of: Callable[[Series], float], name: str = "") -> dict[tuple[int, str], float]:
    """(server, its data-parallel rank) -> what its series amount to: those of ranks that count the same count once, others add up."""
    copies, parallel = sources().copies, sources().data_parallel
    cells: dict[tuple[int, str], dict[tuple[tuple[str, str], ...], float]] = {}
    for server, _, labels, one in asked.series(name):
        rank = ",".join(labels[label] for label in parallel if label in labels)
        rest = tuple(item for item in labels.items() if item[0] not in copies)
        cell = cells.setdefault((id(server), rank), {})
        cell[rest] = max(cell.get(rest, float("-inf")), of(one))
    return {key: sum(cell.values()) for key, cell in cells.items()}


def _gpus(asked: Asked) -> dict[tuple[str, ...], float]:
    """A GPU, by its labels -> the mean over time, of those with enough samples."""
    keys = asked.source.rank or sources().gpu_columns
    found: dict[tuple[str, ...], list[float]] = {}
    for server, _, labels, one in asked.series():
        if one.count >= LEAST_SAMPLES:
            key = (str(id(server)), *(labels.get(key, "") for key in keys))
            found.setdefault(key, []).append(one.mean)
    return {key: sum(values) / len(values) for key, values in found.items()}


def _spread(asked: Asked) -> Found:
    """Of a histogram: the mean, and percentiles between the ends of their buckets."""
    name = asked.source.name
    buckets = [(labels | {"": str(id(server))}, one) for server, _, labels, one in asked.series(f"{name}_bucket")]
    total = sum(_ranks(asked, lambda one: one.counted, f"{name}_sum").values())
    found = histogram(buckets, total)
    if found is None or not isfinite(total):
        return
    note = asked.note(f"{name}_bucket")
    scale = asked.source.scale
    yield f"{asked.source.metric}.mean", Figure.exact(found.mean * scale, name, note)
    for percent in PERCENTILES:
        value, low, high = found.percentile(percent)
        yield f"{asked.source.metric}.p{percent}", Figure(value * scale, low * scale, high * scale, name, note)


def _rate(asked: Asked, end: str = "") -> Found:
    """What a counter counted per second, of all servers."""
    total, name = 0.0, asked.source.name + end
    if not any(True for _ in asked.series(name)):
        return
    for server, seconds in asked.servers:
        one = Asked(asked.source, [(server, seconds)])
        counted = sum(_ranks(one, lambda series: series.counted, name).values())
        if counted and not seconds:
            return
        total += counted / seconds if seconds else 0.0
    yield asked.figure(total, asked.note(name))


def _count(asked: Asked) -> Found:
    ranks = _ranks(asked, lambda one: one.counted)
    if ranks:
        yield asked.figure(sum(ranks.values()), asked.note())


def _occupancy(asked: Asked) -> Found:
    """Seconds that requests spent in a state, per second: how many were in it on average (Little's law), of those that ended."""
    for metric, figure in _rate(asked, "_sum"):
        note = f"by Little's law{f'; {figure.note}' if figure.note else ''}"
        yield metric, Figure.exact(figure.value, f"{asked.source.name}_sum", note)


def _held(asked: Asked) -> Found:
    """A level of each rank, the mean over time, added up."""
    if all(one.count >= LEAST_SAMPLES for _, _, _, one in asked.series()):
        ranks = _ranks(asked, lambda one: one.mean)
        if ranks:
            yield asked.figure(sum(ranks.values()))


def _told(asked: Asked) -> Found:
    """A rate of each rank as its log tells it at intervals, the mean of these, added up."""
    for metric, figure in _held(asked):
        yield (
            metric,
            Figure.exact(figure.value, figure.source, "the mean of intervals in the log, which leaves idle ones out"),
        )


def _waiting(asked: Asked) -> Found:
    """Share of the samples in which a rank had more than none."""
    if all(one.count >= LEAST_SAMPLES for _, _, _, one in asked.series()):
        ranks = _ranks(asked, lambda one: one.above / one.count)
        if ranks:
            yield asked.figure(min(1.0, max(ranks.values())))


def _level(asked: Asked) -> Found:
    """A level of each rank or GPU, the mean over time and over them; of several roles the one that has most."""
    means = []
    for phase in {server.phase for server, _ in asked.servers}:
        mine = Asked(asked.source, [pair for pair in asked.servers if pair[0].phase == phase])
        values = _gpus(mine)
        if values:
            means.append((sum(values.values()) / len(values), len(values)))
    if means and asked.source.metric.endswith("utilization"):
        yield asked.figure(sum(mean * count for mean, count in means) / sum(count for _, count in means))
    elif means:
        yield asked.figure(max(mean for mean, _ in means))


def _between(values: Iterable[float]) -> float | None:
    """The largest over the mean; of one alone it says nothing."""
    known = list(values)
    return max(known) * len(known) / sum(known) if len(known) > 1 and sum(known) > 0 else None


def _between_ranks(asked: Asked) -> Found:
    worst = None
    for phase in {server.phase for server, _ in asked.servers}:
        mine = Asked(asked.source, [pair for pair in asked.servers if pair[0].phase == phase])
        value = _between(_ranks(mine, lambda one: one.counted).values())
        worst = value if worst is None or (value is not None and value > worst) else worst
    if worst is not None:
        yield asked.figure(worst, asked.note())


def _between_gpus(asked: Asked) -> Found:
    value = _between(_gpus(asked).values())
    if value is not None:
        yield asked.source.metric, Figure.exact(value, asked.source.name)


def _most(asked: Asked) -> Found:
    """The largest of all samples."""
    values = [one.most for _, _, _, one in asked.series()]
    if values:
        yield asked.figure(max(values))


def _most_share(asked: Asked) -> Found:
    """The largest sample of a rank over the last ones of what it is a share of."""
    worst = None
    for server, _, labels, one in asked.series():
        key = tuple(sorted(labels.items()))
        parts = [server.series.get(name, {}).get(key) for name in asked.source.of]
        whole = sum(part.last for part in parts if part is not None)
        if whole > 0 and (parts[0] is not None):
            worst = max(worst or 0.0, one.most / whole)
    if worst is not None:
        yield asked.figure(worst)


def _rank_level(asked: Asked) -> Found:
    """Of a data-parallel rank, their mean: the last sample of each."""
    ranks = _ranks(asked, lambda one: one.last)
    if ranks:
        yield asked.figure(sum(ranks.values()) / len(ranks))


def _of_labels(asked: Asked) -> Found:
    """The product of numbers that a series has as labels, the mean of its ranks."""
    found = []
    for _, _, labels, _ in asked.series():
        values = [labels.get(label, "") for label in asked.source.of]
        if all(value.isdecimal() and len(value) < 16 for value in values):
            found.append(prod(int(value) for value in values))
    if found:
        yield asked.figure(sum(found) / len(found))


def _share(asked: Asked) -> Found:
    """One counter over another."""
    part = sum(_ranks(asked, lambda one: one.counted).values())
    whole = sum(_ranks(asked, lambda one: one.counted, asked.source.of[0]).values())
    if whole > 0 and any(True for _ in asked.series()):
        yield asked.figure(part / whole, asked.note())


def _busy(asked: Asked) -> Found:
    """Seconds of work of a rank per second, the mean of those that say it."""
    shares = []
    for server, seconds in asked.servers:
        one = Asked(asked.source, [(server, seconds)])
        if seconds:
            shares += [value / seconds for value in _ranks(one, lambda series: series.counted).values()]
    if shares:
        yield asked.figure(sum(shares) / len(shares))


def _balance(asked: Asked) -> Found:
    """Of a summary of mean over largest: its mean turned round, by phase."""
    name = asked.source.name
    sums: dict[str, list[float]] = {}
    for end, place in (("_sum", 0), ("_count", 1)):
        for _, _, labels, one in asked.series(f"{name}{end}"):
            kind = labels.get(asked.source.phase, "").lower()
            phase = "decode" if kind == "decode" else "prefill" if kind in ("extend", "prefill") else kind
            sums.setdefault(phase, [0.0, 0.0])[place] += one.counted
    for phase, (total, count) in sums.items():
        if count and total > 0:
            metric = asked.source.metric.replace("PHASE.", f"PHASE:{phase}." if phase else "PHASE.")
            yield metric, Figure.exact(count / total, name, "from the mean of mean over largest, step by step")


FORMS: dict[str, Callable[[Asked], Found]] = {
    "spread": _spread,
    "rate": _rate,
    "count": _count,
    "occupancy": _occupancy,
    "held": _held,
    "told": _told,
    "waiting": _waiting,
    "level": _level,
    "between_ranks": _between_ranks,
    "between_gpus": _between_gpus,
    "rank_level": _rank_level,
    "of_labels": _of_labels,
    "most": _most,
    "most_share": _most_share,
    "share": _share,
    "busy": _busy,
    "balance": _balance,
}


DRIVERS = ("utilization.gpu", "memory.used", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED")
"""What drivers say of each GPU."""


def watched(servers: Sequence[Server]) -> tuple[int, list[float]]:
    """GPUs that drivers were asked about, and the bytes that each has, as far as they say it."""
    count, sizes = 0, []
    for level in DRIVERS:
        count = max(count, sum(len(server.series.get(level, ())) for server in servers))
    for source in sources().series:
        if source.form == "most_share":
            for server in servers:
                for labels in server.series.get(source.name, {}):
                    parts = [server.series.get(name, {}).get(labels) for name in source.of]
                    if all(part is not None for part in parts[:2]):
                        sizes.append(sum(part.last for part in parts if part is not None) * MIB)
    return count, sizes


def figures(servers: Sequence[Server], window_s: float | None, split: bool = False) -> dict[str, Figure]:
    """Metric -> its first source that was found. `window_s`: between the first scrape and the last, where the files do not say it. What is of a phase is
    keyed by the phase that its servers serve, where that is known: `decode.memory.peak`. `split`: the roles of the serving have servers of their own:
    each metric is of the role that shows it, and times that no server sees as a client does are left out."""
    found: dict[str, Figure] = {}
    for source in sources().series:
        for phase in dict.fromkeys(server.phase for server in servers) if source.metric.startswith(PHASE) else ("",):
            mine = [s for s in servers if s.phase == phase or not source.metric.startswith(PHASE)]
            if split and not source.client and (role := sources().shown_by.get(source.metric)) is not None:
                mine = [server for server in mine if role and server.role in (role, "")]
            if any(not server.told and server.has(source.name) for server in mine):
                mine = [server for server in mine if not server.told]
            asked = Asked(source, [(server, server.seconds or window_s) for server in mine])
            for metric, figure in FORMS[source.form](asked):
                if isfinite(figure.value):
                    found.setdefault(metric.replace(PHASE, f"{phase}.", 1) if phase else metric, figure)
    return found
