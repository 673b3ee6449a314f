"""What would make a plan fit that does not: changes of a phase that are compiled, and named only when they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod

from ..base.frozen import field, mutable, record, replace
from ..base.units import BYTES, show, show_runs
from ..plan.pools import Pool, listed
from ..plan.result import PhaseResult
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.strategy import Fold
from ..spec.unit import Unit
from .changed import Changes, Refused

TRIES = 60
"""Changes of one plan that are compiled at most."""
NAMED = 3
"""Cures that a diagnostic names at most."""
BASES = 3
"""Changes that came closest, on top of which others are tried."""
MOST_PARTS = 16
"""Into which one change cuts what it makes smaller, where there are fewer GPUs."""
LONGEST = 4096
"""Layers beyond which stages are not balanced."""


@record
class PlanChange:
    """`rank`: of changes of one rank one that fits is enough. `others`: further phases that change with it. `words`: as it
    would be written in the phase's body, where the phases do not tell."""

    phase: Phase
    rank: str
    others: tuple[Phase, ...] = ()
    words: str = ""


@record
class Attempt:
    """A change as it was compiled: its phase's graph and memory, and the fullest GPU of all that shares its GPUs.
    `without`: phases there that do not fit themselves and were left out."""

    change: PlanChange
    result: PhaseResult
    peak_B: float
    fraction: float
    fits: bool
    without: tuple[str, ...] = ()


@mutable
class Cures:
    """The search for one plan, and what is left of its tries."""

    spec: Spec
    results: Mapping[str, PhaseResult]
    units: Mapping[str, Unit]
    left: int = TRIES
    tried: int = field(default=0)
    cured: dict[str, PhaseResult] = field(default_factory=dict)
    """Phases that did not fit, with the first of their cures: those of later phases fit together with it, if any do."""

    def of_phase(self, name: str) -> tuple[str, ...]:
        """Help for a phase that does not fit: changes with which it, and all that shares its GPUs, does. Where none does,
        two together: on top of those that came closest."""
        before = self.tried
        found = self.cures_of(name)
        if not found and self.cured.keys() - {name}:  # together with those of other phases nothing does: by itself then
            self.cured, self.left = {}, max(self.left, TRIES // 2)
            found = self.cures_of(name)
        if found:
            self.cured[name] = found[0].result
        elif self.results[name].memory.fraction > most_divided(self.units[name].phase) ** 2:
            return (
                "no other layout or batch takes so much less: use more GPUs, larger ones, or a smaller model or dtype",
            )
        return self.help(found, self.tried - before)

    def cures_of(self, name: str) -> list[Attempt]:
        """Single changes that fit, else two together."""
        result, phase = self.results[name], self.units[name].phase
        first = self.attempts(self.changes(result, phase, result.memory.fraction, 2))
        fitting = [attempt for attempt in first if attempt.fits]
        for base in sorted(first, key=lambda attempt: attempt.fraction)[:BASES] if not fitting else ():
            second = self.changes(base.result, base.change.phase, base.fraction, 1)
            fitting += [a for a in self.attempts(second, 1) if a.fits]
        return fitting

    def changes(self, result: PhaseResult, phase: Phase, fraction: float, left: int) -> Iterator[PlanChange]:
        """Those that may help where so many may be made: of a plan that is further from fitting than any layout takes it, smaller batches alone."""
        if fraction > most_divided(phase) ** left:
            return fewer_sequences(result, phase)
        return changes(self.spec, result, phase)

    def of_pool(self, pool: Pool) -> tuple[str, ...]:
        """Help for phases that do not fit together: lay them out in the same way, or take less at once."""
        changes: list[PlanChange] = []
        if pool.copies_B:
            pairs = ((a, b) for a in pool.phases for b in pool.phases if a != b)
            changes += [self.alike(other, (one,)) for one, other in islice(pairs, 12)]
            if len(pool.phases) > 2:
                changes += [self.alike(one, [n for n in pool.phases if n != one]) for one in pool.phases[:4]]
        for name in pool.phases:
            phase = self.units[name].phase
            changes += [*more_microbatches(phase), *shorter_chunks(phase), *fewer_sequences(self.results[name], phase)]
        before = self.tried
        return self.help([attempt for attempt in self.attempts(changes) if attempt.fits], self.tried - before)

    def alike(self, model: str, names: Sequence[str]) -> PlanChange:
        """Phases in the layout of another one, each with its own batches."""
        theirs = self.units[model].phase
        changed = []
        for name in names:
            mine = self.units[name].phase
            own = mine.strategy
            strategy = replace(theirs.strategy, microbatches=own.microbatches, overlap=own.overlap)
            changed.append(replace(mine, gpus=theirs.gpus, strategy=strategy))
        return PlanChange(changed[0], "alike", tuple(changed[1:]), f"the GPUs, degrees and order of `{model}`")

    def attempts(self, found: Iterable[PlanChange], enough: int = NAMED) -> list[Attempt]:
        """Changes as they were compiled, until enough of them fit; of each rank one that does."""
        out: list[Attempt] = []
        ranks: set[str] = set()
        for change in found:
            if len(ranks) >= enough or self.left <= 0:
                break
            attempt = self.attempt(change) if change.rank not in ranks else None
            if attempt is not None:
                out.append(attempt)
                ranks |= {change.rank} if attempt.fits else set()
        return out

    def help(self, found: Sequence[Attempt], tried: int) -> tuple[str, ...]:
        """A line for each of what fits. Empty where nothing was tried."""
        if found or not tried:
            return tuple(dict.fromkeys(self.words(attempt) for attempt in found[:NAMED]))
        many = (
            f"none of the {tried} other layouts and batches that were" if tried > 1 else "the one other layout that was"
        )
        missing = "" if tried > 1 else "not "
        return (f"{many} tried would {missing}fit: use more GPUs, larger ones, or a smaller model or dtype",)

    def words(self, attempt: Attempt) -> str:
        """`microbatches = 4 fits: 71 GB on the fullest GPU`"""
        change = attempt.change
        phases = (change.phase, *change.others)
        place = f"{listed([f'`{phase.name}`' for phase in phases])} with " if len(self.spec.phases) > 1 else ""
        told = change.words or ", ".join(differences(self.units[change.phase.name].phase, change.phase))
        verb = "fit" if change.others else "fits"
        beside = f", {listed([f'`{name}`' for name in attempt.without])} left out" if attempt.without else ""
        return f"{place}{told} {verb}: {show(attempt.peak_B, BYTES)} on the fullest GPU{beside}"

    def attempt(self, change: PlanChange) -> Attempt | None:
        """None where the change is not legal."""
        phases = (change.phase, *change.others)
        plan = Changes(self.spec, self.results)
        for phase in phases:
            if plan.refusal(phase) is not None:
                return None
            self.left, self.tried = self.left - 1, self.tried + 1
        held = plan.held(phases, self.cured, leave=True)
        if isinstance(held, Refused):
            return None
        pool = max(held.pools, key=lambda pool: pool.peak_B)
        return Attempt(
            change, held.results[change.phase.name], pool.peak_B, held.fullest.fraction, held.fits, held.without
        )


def most_divided(phase: Phase) -> float:
    """By how much one change of a layout divides what a GPU holds, at most."""
    return float(max(MOST_PARTS, len(phase.gpus)))


def changes(spec: Spec, result: PhaseResult, phase: Phase) -> Iterator[PlanChange]:
    """The least intrusive first."""
    yield from balanced_stages(spec, result, phase)
    if phase.takes_prompts and not phase.strategy.sequence_parallel:
        strategy = replace(phase.strategy, sequence_parallel=True)
        yield PlanChange(replace(phase, strategy=strategy), "sequence_parallel")
    yield from shared_context(phase)
    yield from more_microbatches(phase)
    yield from shorter_chunks(phase)
    yield from other_degrees(phase)
    yield from fewer_sequences(result, phase)
    yield from more_gpus(spec, phase)


def balanced_stages(spec: Spec, result: PhaseResult, phase: Phase) -> Iterator[PlanChange]:
    """Layers moved from the fullest stages to the others."""
    from ..cost.kv_cache import cache_bytes, cache_policy
    from ..cost.memory import weight_bytes

    graph, stages = result.graph, phase.strategy.pp
    if stages < 2 or phase.strategy.balanced or not stages <= spec.model.layers <= LONGEST:
        return
    passes, policy = graph.microbatches * graph.lanes, cache_policy(phase)
    size = {
        s.name: weight_bytes(s, graph.the_mesh, {}) + passes * cache_bytes(s, graph.the_mesh, graph.kind, policy)
        for s in graph.segments
    }
    names = [segment.name for segment, _ in graph.layers]
    first, *body, last = [size[name] for name in names]
    fixed = [s.peak_B - s.weights_B - s.kv_cache_B for s in result.memory.stages]
    cut = tuple(partition(body, [f + (k == 0) * first + (k == stages - 1) * last for k, f in enumerate(fixed)]))
    if cut == tuple(sum(n for name, n in s.layers if name in names[1:-1]) for s in graph.stages):
        return
    strategy = replace(phase.strategy, layers_per_stage=cut)
    yield PlanChange(replace(phase, strategy=strategy), "stages")


def partition(sizes: Sequence[float], fixed: Sequence[float]) -> list[int]:
    """How many of the sizes, in order, go to each part (one at least), so that the largest sum of a part with what is
    fixed on it is as small as can be."""

    def filled(limit: float) -> list[int] | None:
        counts, at = [], 0
        for k, own in enumerate(fixed):
            after = len(fixed) - k - 1
            total, start = own, at
            while at < len(sizes) - after and (at == start or total + sizes[at] <= limit):
                total, at = total + sizes[at], at + 1
            if total > limit:
                return None
            counts.append(at - start)
        return counts if at == len(sizes) else None

    low, high = 0.0, sum(sizes) + sum(fixed)
    best = filled(high) or []
    for _ in range(60):
        middle = (low + high) / 2
        found = filled(middle)
        low, high, best = (low, middle, found) if found is not None else (middle, high, best)
    return best


def shared_context(phase: Phase) -> Iterator[PlanChange]:
    """The cache of a decode phase split by tokens over more of the ranks of tp that keep copies of it."""
    s = phase.strategy
    tp = s.tp if s.attention is None else dict(s.attention.degrees).get("tp", 1)
    for dcp in range(2 * s.dcp, tp + 1, s.dcp) if not phase.takes_prompts else ():
        if tp % dcp == 0:
            yield PlanChange(replace(phase, strategy=replace(s, dcp=dcp)), "dcp")


def more_microbatches(phase: Phase) -> Iterator[PlanChange]:
    """Smaller ones: what is live at once follows the tokens of one."""
    for factor in (2, 4, 8, 16):
        count = phase.strategy.microbatches * factor
        if phase.sequences % count == 0:
            strategy = replace(phase.strategy, microbatches=count)
            yield PlanChange(replace(phase, strategy=strategy), "microbatches")


def shorter_chunks(phase: Phase) -> Iterator[PlanChange]:
    """A prompt in more passes: activations follow the tokens of one."""
    new = phase.new_tokens
    for factor in (2, 4, 8):
        chunk = -(-phase.tokens // factor)
        if phase.takes_prompts and chunk > 1:
            changed = replace(phase, tokens=chunk, passes=-(-new // chunk), last=new % chunk)
            yield PlanChange(changed, "chunk")


def other_degrees(phase: Phase) -> Iterator[PlanChange]:
    """One axis raised at the cost of another, on the same GPUs."""
    for factor in (2, 4, 8):
        yield from (_folded if phase.strategy.attention is not None else _flat)(phase, factor)


UP = ("ep", "tp", "pp", "dp", "sp")


def _flat(phase: Phase, factor: int) -> Iterator[PlanChange]:
    s = phase.strategy
    for up in UP:
        for down in ("dp", "sp", "ep", "tp", "pp"):
            if up != down and getattr(s, down) % factor == 0:
                degrees = {up: getattr(s, up) * factor, down: getattr(s, down) // factor}
                strategy = replace(s, **degrees, layers_per_stage=None if "pp" in degrees else s.layers_per_stage)
                yield PlanChange(replace(phase, strategy=strategy), f"{up} up")


def _folded(phase: Phase, factor: int) -> Iterator[PlanChange]:
    s = phase.strategy
    assert s.attention is not None and s.experts is not None
    dense, routed = dict(s.attention.degrees), dict(s.experts.degrees)
    free = len(phase.gpus) // (s.pp * s.replicas) // prod(routed.values())
    for up, down in (("ep", ""), ("tp", ""), ("ep", "tp"), ("tp", "ep")):
        if (free if not down else routed[down]) % factor == 0:
            degrees = {**routed, up: routed[up] * factor} | ({down: routed[down] // factor} if down else {})
            yield _folding(phase, "experts", Fold(tuple(degrees.items())), f"experts {up}")
    for up, down in (("tp", "dp"), ("tp", "sp"), ("dp", "tp"), ("sp", "dp"), ("dp", "sp")):
        if dense[down] % factor == 0:
            degrees = {**dense, up: dense[up] * factor, down: dense[down] // factor}
            yield _folding(phase, "attention", Fold(tuple(degrees.items())), f"attention {up}")


def _folding(phase: Phase, side: str, fold: Fold, rank: str) -> PlanChange:
    strategy = replace(phase.strategy, attention=fold) if side == "attention" else replace(phase.strategy, experts=fold)
    return PlanChange(replace(phase, strategy=strategy), rank)


def differences(old: Phase, new: Phase) -> Iterator[str]:
    """What to write in the body of a phase to make it another one."""
    if new.gpus != old.gpus:
        yield f"gpus = [{show_runs(new.gpus)}]"
    before, after = old.strategy, new.strategy
    for name in ("pp", "dp", "ep", "sp", "tp", "dcp", "microbatches"):
        if getattr(after, name) != getattr(before, name):
            yield f"{name} = {getattr(after, name)}"
    for name, one, other in (
        ("attention", before.attention, after.attention),
        ("experts", before.experts, after.experts),
    ):
        if other is not None and other != one:
            yield f"{name} {{ {', '.join(f'{axis} = {n}' for axis, n in other.degrees if n > 1) or 'tp = 1'} }}"
    if after.layers_per_stage != before.layers_per_stage:
        cut = after.layers_per_stage
        yield f"layers_per_stage = [{', '.join(map(str, cut))}]" if cut else "no layers_per_stage"
    if after.sequence_parallel != before.sequence_parallel:
        yield "sequence_parallel = true"
    if (new.tokens, new.passes) != (old.tokens, old.passes):
        yield f"chunk = {new.tokens} tok"
    if new.sequences != old.sequences:
        yield f"sequences = {new.sequences}"


def fewer_sequences(result: PhaseResult, phase: Phase) -> Iterator[PlanChange]:
    """The most that the cache has room for with the rest, then less: some of the rest follows the batch too. Of prompts that are packed
    none: which ones they would be is not known."""
    if phase.lengths is not None and phase.lengths.prompts:
        return
    worst, capacity_B = result.memory.worst, result.memory.capacity_B
    fixed = worst.weights_B + worst.reserve_B + worst.engine_B
    moving = worst.peak_B - fixed
    step = batch_parts(phase)
    share = (capacity_B - fixed) / moving if moving else 0.0
    most = int(phase.sequences * min(share, 1.0)) // step * step
    seen: set[int] = set()
    for count in (most, most - step, most * 3 // 4 // step * step, most // 2 // step * step, step):
        if 0 < count < phase.sequences and count not in seen:
            seen.add(count)
            yield PlanChange(replace(phase, sequences=count), "sequences")


def batch_parts(phase: Phase) -> int:
    """Equal parts that the strategy splits the batch into."""
    s = phase.strategy
    ranks = dict(s.attention.degrees).get("dp", 1) if s.attention is not None else s.dp * s.ep
    return s.rounds * s.replicas * ranks * s.lanes


def more_gpus(spec: Spec, phase: Phase) -> Iterator[PlanChange]:
    """Twice as many or more, where the hardware has that many that no phase uses."""
    spare = list(islice(spec.unused(phase), len(phase.gpus) * 7))
    s = phase.strategy
    for factor in (2, 4, 8):
        need = len(phase.gpus) * (factor - 1)
        if need > len(spare) or s.place is not None:
            return
        gpus = tuple(sorted((*phase.gpus, *spare[:need])))
        for up in ("tp", "ep", "pp") if s.attention is None else ("pp",):
            strategy = replace(s, **{up: getattr(s, up) * factor}, layers_per_stage=None)
            yield PlanChange(replace(phase, gpus=gpus, strategy=strategy), "gpus")
