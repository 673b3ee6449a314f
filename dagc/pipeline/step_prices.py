"""What a step costs: interpolated between compiled steps, which are compiled when they are first asked for, and kept.

    decode alone     A(b, c), by sequences and context
    prompts alone    B(t, a) + E(p)
    both             J(b + t) + E(b + p) + [A(b, c) - A(b, c0) + D(b)] + [B(t, a) - B(t, a0) + P(t)]

per rank, with b sequences in decode and their context c, p prompt tokens (mean over ranks), of the rank that has most t, each of which
attends to a others on average. E is what routed experts and their exchanges take, B the rest of a prefill. A mixed step as
compiled consists of J (of all tokens: products, collectives) and E, D of its sequences in decode, P of its prompts, at the context c0
and the attended a0 that it was compiled for; what other contexts take in addition is as in steps of one kind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from math import inf

from ..base.frozen import record
from ..serving.records import Line
from .step_points import Figures, Knot, Price
from .step_tables import Curve, Errors, Ladder, between


@record
class Source:
    """A phase that steps are compiled of: `copies` of a worker fit into it, each of `ranks` that run in lockstep with `microbatches`
    in flight. Steps of serving count a micro-batch of a rank as a rank."""

    phase: str
    copies: int = 1
    ranks: int = 1
    microbatches: int = 1
    drafted: int = 1

    @property
    def lockstep(self) -> int:
        return self.ranks * self.microbatches


@record
class Limits:
    """What a rank may have at most: `slots` sequences, `batch_tokens` prompt tokens in a step, a `context`. `usual`: contexts that most
    sequences have. `sequences` and `prompts`: further knots, for values that occur often."""

    slots: int
    batch_tokens: int
    context: int
    usual: int
    sequences: tuple[int, ...] = ()
    prompts: tuple[int, ...] = ()


@record
class Host:
    """The host's part of every step, `host_s`, and `launch_s` of every layer of a step that no CUDA graph covers, while which the GPUs
    may run. Graphs cover steps with up to `captured` prompt tokens on a rank, and, where `graphs`, those without."""

    host_s: float = 0.0
    launch_s: float = 0.0
    captured: int = 0
    graphs: bool = True


class DecodeSteps:
    """A(b, c): steps without prompts."""

    def __init__(self, price: Price, source: Source, limits: Limits, errors: Errors) -> None:
        self.price, self.source, self.errors = price, source, errors
        self.usual = float(max(limits.usual, source.drafted))
        self.contexts = contexts(source.drafted, limits.context)
        self.curves: dict[float, Curve] = {}
        self.figures: dict[tuple[float, float], Figures] = {}
        ranks = source.lockstep
        few = powers(1, ranks)
        many = [float(ranks * n) for n in powers(1, limits.slots)]
        own = [float(n) for n in limits.sequences if n <= ranks or n % ranks == 0]
        self.ladder = Ladder([*few, *many, *own], self.check, errors, lambda n: ranks if n >= ranks else 1, 2.0)

    def at(self, sequences: float, context: float) -> Figures:
        """Compiled: `sequences` of a whole worker."""
        key = (sequences, context)
        found = self.figures.get(key)
        if found is None:
            knot = Knot(
                self.source.phase, int(sequences) * self.source.copies, context, microbatches=self.source.microbatches
            )
            found = self.figures[key] = self.price(knot)
        return found

    def curve(self, sequences: float) -> Curve:
        """By context of a sequence."""
        found = self.curves.get(sequences)
        if found is None:
            found = self.curves[sequences] = Curve(
                lambda context: self.at(sequences, context).time_s, self.contexts, self.errors
            )
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        found = between(mid, low, self.at(low, self.usual).time_s, high, self.at(high, self.usual).time_s)
        return found, self.at(mid, self.usual).time_s

    def line(self, b: float, c: float) -> tuple[float, float, float, float]:
        """(seconds at no context, per token of context, since, until) that hold at c."""
        x = b * self.source.lockstep
        if abs(x - round(x)) < 1e-6:
            x = float(round(x))
        each = b if b > 1.0 else 1.0
        low, high = self.ladder.around(x)
        base, slope, since, until = self.curve(low).piece(c / each)
        if low < x:
            base2, slope2, since2, until2 = self.curve(high).piece(c / each)
            share = (x - low) / (high - low)
            base, slope = base + (base2 - base) * share, slope + (slope2 - slope) * share
            since, until = max(since, since2), min(until, until2)
        return base, slope / each, since * each, until * each

    def launches(self, b: float) -> float:
        _, high = self.ladder.around(b * self.source.lockstep)
        return self.at(high, self.usual).launches


class PromptSteps:
    """B(t, a) and E(p): steps of prompts alone."""

    def __init__(self, price: Price, source: Source, limits: Limits, errors: Errors) -> None:
        self.price, self.source, self.errors = price, source, errors
        self.attended = contexts(1, limits.context)
        self.curves: dict[float, Curve] = {}
        self.figures: dict[tuple[float, float], Figures] = {}
        own = (float(n) for n in limits.prompts if n <= limits.batch_tokens)
        self.ladder = Ladder([*powers(1, limits.batch_tokens), *own], self.check, errors, factor=2.0)

    def at(self, tokens: float, attended: float) -> Figures:
        """Compiled: `tokens` of every rank, each of which attends to `attended` on average: as one prompt behind a cached part of it, or
        where that is less than its own tokens attend to, as several."""
        key = (tokens, attended)
        found = self.figures.get(key)
        if found is None:
            pieces = pieces_of(int(tokens), attended)
            each = int(tokens) // pieces
            source = self.source
            knot = Knot(
                source.phase, prompts=pieces * source.lockstep * source.copies, tokens=each,
                attended=attended + (each - 1) / 2, microbatches=source.microbatches,
            )  # fmt: skip
            found = self.figures[key] = self.price(knot)
        return found

    def curve(self, tokens: float) -> Curve:
        """All but routed experts, by what a token attends to."""
        found = self.curves.get(tokens)
        if found is None:
            own = whole(tokens)
            routed_s = self.at(tokens, own).routed_s
            found = self.curves[tokens] = Curve(
                lambda attended: self.at(tokens, attended).time_s - routed_s,
                [*self.attended, own],
                self.errors,
                offset=routed_s,
            )
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        own = whole(mid)
        rest = between(mid, low, self.curve(low)(own), high, self.curve(high)(own))
        routed_s = between(mid, low, self.routed_at(low), high, self.routed_at(high))
        return rest + routed_s, self.at(mid, own).time_s

    def routed_at(self, tokens: float) -> float:
        return self.at(tokens, whole(tokens)).routed_s

    def rest(self, tokens: float, attended: float) -> float:
        """B."""
        low, high = self.ladder.around(tokens)
        found = self.curve(low)(attended)
        if tokens <= low:
            return found
        return found + (self.curve(high)(attended) - found) * ((tokens - low) / (high - low))

    def routed(self, tokens: float) -> float:
        """E."""
        low, high = self.ladder.around(tokens)
        return between(max(tokens, low), low, self.routed_at(low), high, self.routed_at(high))

    def launches(self, tokens: float) -> float:
        low, _ = self.ladder.around(tokens)
        return self.at(low, whole(low)).launches


class MixedSteps:
    """J, E, D and P of steps with both, from a few of them: with more prompt tokens each has more sequences in decode."""

    def __init__(self, price: Price, source: Source, decode: DecodeSteps, prompts: PromptSteps, limits: Limits) -> None:
        self.price, self.source, self.decode, self.prompts = price, source, decode, prompts
        sequences, tokens = powers(1, limits.slots), powers(1, limits.batch_tokens)
        n = max(len(sequences), len(tokens))
        self.pairs = [(sequences[min(i, len(sequences) - 1)], tokens[min(i, len(tokens) - 1)]) for i in range(n)]
        self.sums = [b + t for b, t in self.pairs]
        self.sequences, self.tokens = sequences, tokens
        self.figures: dict[tuple[float, float, float, float], Figures] = {}
        self.own_parts: dict[float, float] = {}

    def at(self, b: float, t: float, context: float, attended: float) -> Figures:
        """Compiled: b sequences and t prompt tokens on every rank."""
        key = (b, t, context, attended)
        found = self.figures.get(key)
        if found is None:
            ranks = self.source.lockstep * self.source.copies
            pieces = pieces_of(int(t), attended)
            each = int(t) // pieces
            knot = Knot(
                self.source.phase, int(b) * ranks, context, pieces * ranks, each, attended + (each - 1) / 2,
                self.source.microbatches,
            )  # fmt: skip
            found = self.figures[key] = self.price(knot)
        return found

    def pair(self, i: int) -> Figures:
        b, t = self.pairs[i]
        return self.at(b, t, self.decode.usual, whole(t))

    def joint(self, most: float, mean: float) -> float:
        """J of the rank with most tokens, and E of the mean."""
        if most == mean:
            return self.of_all(most, lambda f: f.time_s - f.decode_s - f.prompt_s)
        joint_s = self.of_all(most, lambda f: f.time_s - f.decode_s - f.prompt_s - f.routed_s)
        return joint_s + self.of_all(mean, lambda f: f.routed_s)

    def of_all(self, tokens: float, part: Callable[[Figures], float]) -> float:
        sums = self.sums
        if tokens <= sums[0]:
            return part(self.pair(0))
        i = min(bisect_right(sums, tokens), len(sums) - 1)
        return between(min(tokens, sums[-1]), sums[i - 1], part(self.pair(i - 1)), sums[i], part(self.pair(i)))

    def own_decode(self, b: float) -> float:
        """D(b) - A(b, c0)."""
        each = b if b > 1.0 else 1.0
        base, slope, _, _ = self.decode.line(b, self.decode.usual * each)
        return self.of_one(each, self.sequences, lambda f: f.decode_s) - (base + slope * self.decode.usual * each)

    def own_prompt(self, t: float) -> float:
        """P(t) - B(t, a0)."""
        knots = self.tokens
        low, high = self.around(t, knots)

        def at(i: int) -> float:
            return self.pair(i).prompt_s - self.prompts.curve(knots[i])(whole(knots[i]))

        return at(low) if low == high else between(t, knots[low], at(low), knots[high], at(high))

    def of_one(self, x: float, knots: list[float], part: Callable[[Figures], float]) -> float:
        low, high = self.around(x, knots)
        if low == high:
            return part(self.pair(low))
        return between(x, knots[low], part(self.pair(low)), knots[high], part(self.pair(high)))

    @staticmethod
    def around(x: float, knots: list[float]) -> tuple[int, int]:
        if x <= knots[0]:
            return 0, 0
        i = bisect_right(knots, x)
        return (len(knots) - 1, len(knots) - 1) if i == len(knots) else (i - 1, i)


class StepPrices:
    """Prices of the steps of a worker. `price`: compiles a step. `decode`, `prefill`, `mixed`: of which phases; a worker that does only
    one has only that. `tolerance`: relative error at which knots stand close enough, None: base knots alone, unchecked."""

    def __init__(
        self,
        price: Price,
        limits: Limits,
        host: Host,
        decode: Source | None = None,
        prefill: Source | None = None,
        mixed: Source | None = None,
        tolerance: float | None = 0.01,
    ) -> None:
        self.price, self.limits, self.host = price, limits, host
        self.errors = Errors(tolerance)
        self.sources = decode, prefill, mixed
        self.lines: dict[float, list[Line]] = {}

    @cached_property
    def decode(self) -> DecodeSteps:
        source = self.sources[0]
        assert source is not None, "a worker for prompts alone"
        return DecodeSteps(self.price, source, self.limits, self.errors)

    @cached_property
    def prefill(self) -> PromptSteps:
        source = self.sources[1] or self.sources[2]
        assert source is not None, "a worker without prompts"
        return PromptSteps(self.price, source, self.limits, self.errors)

    @cached_property
    def mixed(self) -> MixedSteps:
        decode, prefill, mixed = self.sources
        assert mixed is not None, "steps of prompts and decode are not mixed"
        own_decode = self.decode if mixed == decode else DecodeSteps(self.price, mixed, self.limits, self.errors)
        own_prompts = self.prefill if mixed == prefill else PromptSteps(self.price, mixed, self.limits, self.errors)
        return MixedSteps(self.price, mixed, own_decode, own_prompts, self.limits)

    @property
    def error(self) -> float:
        """The largest relative error of interpolation that checks found."""
        return self.errors.largest

    @property
    def points(self) -> int:
        """Compiled steps."""
        made = self.__dict__
        tables = [made[name] for name in ("decode", "prefill", "mixed") if name in made]
        if "mixed" in made:
            tables += [own for own in (self.mixed.decode, self.mixed.prompts) if own not in tables]
        return sum(len(table.figures) for table in tables)

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        """See `dagc.serving.records.StepPrices`."""
        if prompt:
            return self.with_prompts(sequences, context, prompt, pairs, most or prompt)
        for line in self.lines.get(sequences, ()):
            if line.since <= context < line.until:
                return line
        line = self.decode_line(sequences, context)
        self.lines.setdefault(sequences, []).append(line)
        return line

    def decode_line(self, b: float, c: float) -> Line:
        base, slope, since, until = self.decode.line(b, c)
        if self.host.graphs:
            return Line(base + self.host.host_s, slope, until, since)
        return self.launched(base, slope, since, until, c, self.decode.launches(b))

    def with_prompts(self, b: float, c: float, p: float, pairs: float, t: float) -> Line:
        a = max(1.0, pairs / t)
        if not b:
            base, slope, since, until = self.prefill.rest(t, a) + self.prefill.routed(p), 0.0, 0.0, inf
            launches = self.prefill.launches(t)
        else:
            mixed = self.mixed
            base, slope, since, until = mixed.decode.line(b, c)
            base += mixed.joint(b + t, b + p) + mixed.own_decode(b)
            base += mixed.prompts.rest(t, a) + mixed.own_prompt(t)
            launches = mixed.pair(0).launches
        if self.host.graphs and t <= self.host.captured:
            return Line(base + self.host.host_s, slope, until, since)
        return self.launched(base, slope, since, until, c, launches)

    def launched(self, base: float, slope: float, since: float, until: float, c: float, launches: float) -> Line:
        """The GPUs wait for a host that launches more slowly than they run."""
        host, least = self.host.host_s, launches * self.host.launch_s
        same = (
            (least - base) / slope if slope > 0 else -inf if base >= least else inf
        )  # context at which both take as long
        if c >= same:
            return Line(base + host, slope, until, max(since, same))
        return Line(least + host, 0.0, min(same, until), since)


def powers(low: int, high: int) -> list[float]:
    """Powers of two times `low` up to `high`, which is the last."""
    found = []
    x = max(1, low)
    while x < high:
        found.append(float(x))
        x *= 2
    return [*found, float(max(high, low))]


def contexts(low: int, high: int) -> list[float]:
    """Powers of four from 16 on, from `low` up to `high`."""
    return [float(low), *(float(4**k) for k in range(2, 20) if low < 4**k < high), float(max(high, low + 1))]


def whole(tokens: float) -> float:
    """Tokens that one of a whole prompt attends to on average, itself included."""
    return (tokens + 1) / 2


def pieces_of(tokens: int, attended: float) -> int:
    """Prompts that so many tokens are of, at least, so that each of them attends to no more on average."""
    least = max(1, min(tokens, -(-tokens // max(1, int(2 * attended - 1 + 1e-9)))))
    return next(k for k in range(least, tokens + 1) if tokens % k == 0)
