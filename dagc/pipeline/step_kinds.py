"""Steps of one kind: of decode alone, of prompts alone, and of both, each by the few figures that its time follows from.

    decode alone     A(b, c), by sequences and context
    prompts alone    B(t, a) + E(p)
    both             r(b, t) (J(n_t) + E(n_p) + [A(b, c) - A(b, c0) + D(b)] + [B(t, a) - B(t, a0) + P(t)])

per rank, with b sequences in decode and their context c, p prompt tokens (mean over ranks), of the rank that has most t, each of which
attends to a others on average; n_t, n_p: tokens of both. E is what routed experts take, whose tokens are of all ranks; B the
rest of steps of prompts. A step of both as compiled consists of J (of all tokens: products, collectives, exchanges) and E, D of its sequences
in decode, P of its prompts, at the context c0 and the attended a0 that it was compiled for; what other contexts take is as in steps of one
kind. r is 1 where that sum was found to hold; elsewhere (two batches that overlap) it is interpolated between compiled steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from math import inf, sqrt

from ..base.frozen import record
from .step_points import Figures, Knot, Price
from .step_tables import Chain, Curve, Errors, Ladder, Patch, Patches, Piece, between, middle


@record
class Source:
    """A phase that steps are compiled of: `copies` of a worker fit into it, each of `ranks` that run in lockstep with `microbatches`
    in flight. A micro-batch of a rank counts as a rank. `drafted`: tokens of a sequence that a decode step computes. `grain`: GPUs that
    may split the tokens of a rank; steps are compiled for numbers of tokens that these divide, and others priced as if filled up.
    `lanes`: batches that a rank overlaps."""

    phase: str
    copies: int = 1
    ranks: int = 1
    microbatches: int = 1
    drafted: int = 1
    grain: int = 1
    lanes: int = 1

    @property
    def lockstep(self) -> int:
        return self.ranks * self.microbatches


@record
class Limits:
    """What a rank may have at most: `slots` sequences, `batch_tokens` prompt tokens in a step, a `context`. `usual`: contexts that most
    sequences have. `sequences` (of a worker) and `prompts`: further knots, for values that occur often."""

    slots: int
    batch_tokens: int
    context: int
    usual: int
    sequences: tuple[int, ...] = ()
    prompts: tuple[int, ...] = ()


SHARES = (1 / 32, 1 / 4, 1.0)
"""Of what a token of one prompt attends to, what it does where the tokens are of so many prompts."""


class DecodeSteps:
    """A(b, c): steps without prompts."""

    def __init__(self, price: Price, source: Source, limits: Limits, errors: Errors) -> None:
        self.price, self.source, self.errors = price, source, errors
        self.usual = float(max(limits.usual, source.drafted))
        self.contexts = contexts(source.drafted, limits.context)
        self.curves: dict[float, Curve] = {}
        self.figures: dict[tuple[float, float], Figures] = {}
        ranks, full = source.lockstep, source.lockstep * source.lanes
        many = [float(ranks * n) for n in powers(1, limits.slots)]
        self.most = many[-1]
        own = [float(n) for n in limits.sequences if n <= ranks or n % full == 0]
        self.ladder = Ladder([*powers(1, ranks), *many, *own], self.check, errors, self.unit, 2.0, closed=True)

    def unit(self, sequences: float) -> float:
        """What sequences are a multiple of where no rank, and no lane of it, has an empty place."""
        ranks, full = self.source.lockstep, self.source.lockstep * self.source.lanes
        return full if sequences >= full else ranks if sequences >= ranks else 1

    def at(self, sequences: float, context: float) -> Figures:
        """Compiled: `sequences` of a whole worker."""
        key = (sequences, context)
        found = self.figures.get(key)
        if found is None:
            source = self.source
            knot = Knot(source.phase, int(sequences) * source.copies, round(context), microbatches=source.microbatches)
            found = self.figures[key] = self.price(knot)
        return found

    @cached_property
    def by_context(self) -> Ladder:
        """Of contexts, for all numbers of sequences: checked where attention has the largest share, with as many as a rank may have."""
        most = self.most
        found = self.curves[most] = Curve(lambda context: self.at(most, context).time_s)
        return found.on(self.contexts, self.errors).ladder

    def curve(self, sequences: float) -> Curve:
        """By context of a sequence."""
        ladder = self.by_context
        found = self.curves.get(sequences)
        if found is None:
            found = self.curves[sequences] = Curve(lambda context: self.at(sequences, context).time_s, ladder)
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        found = between(mid, low, self.at(low, self.usual).time_s, high, self.at(high, self.usual).time_s)
        return found, self.at(mid, self.usual).time_s

    def line(self, b: float, c: float) -> Piece:
        """Seconds by the context of the rank's sequences."""
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
        return Piece(base, slope / each, since * each, until * each)

    def launches(self, b: float) -> float:
        low, _ = self.ladder.around(b * self.source.lockstep)
        return self.at(low, self.usual).launches


class PromptSteps:
    """B(t, a) and E(p): steps of prompts alone. Prompts without a cached part are interpolated at equal shares of what one whole prompt
    attends to, those behind one at equal cached parts: the first token behind a cached part may cost more than one."""

    def __init__(self, price: Price, source: Source, limits: Limits, errors: Errors) -> None:
        self.price, self.source, self.errors = price, source, errors
        self.prefixes = [x for x in contexts(1, limits.context) if x > 1]
        self.behind: dict[float, Curve] = {}
        self.figures: dict[tuple[float, int, int], Figures] = {}
        self.tokens = prompt_knots(source, limits)
        own = (float(n) for n in limits.prompts if n <= limits.batch_tokens and n % source.grain == 0)
        self.ladder = Ladder([*self.tokens, *own], self.check, errors, lambda _: source.grain, 2.0, closed=True)
        self.fresh, self.cached = Patches(self.fresh_patch), Patches(self.cached_patch)
        self.checked_shares: set[tuple[float, float]] = set()
        self.routed_patch = Patches(self.patch_of_routed)

    def at(self, tokens: float, prompts: int = 1, prefix: int = 0) -> Figures:
        """Compiled: `tokens` of every rank, of so many prompts, each behind a cached part."""
        key = (tokens, prompts, prefix)
        found = self.figures.get(key)
        if found is None:
            source = self.source
            prompts, each, end = halves(tokens, prompts, prefix, source)
            knot = Knot(
                source.phase, prompts=prompts * source.lockstep * source.copies, tokens=each, attended=end,
                microbatches=source.microbatches,
            )  # fmt: skip
            found = self.figures[key] = self.price(knot)
        return found

    def check(self, low: float, high: float, mid: float) -> tuple[float, float]:
        return between(mid, low, self.at(low).time_s, high, self.at(high).time_s), self.at(mid).time_s

    def rest_at(self, tokens: float, prompts: int = 1) -> float:
        """All but routed experts, without a cached part."""
        return self.at(tokens, prompts).time_s - self.routed_at(tokens)

    def routed_at(self, tokens: float) -> float:
        return self.at(tokens).routed_s

    @cached_property
    def by_prefix(self) -> Ladder:
        """Of cached parts, for all numbers of tokens: checked with as many as a step may have."""
        most = self.tokens[-1]
        found = self.behind[most] = Curve(self.behind_part(most), None, self.routed_at(most))
        return found.on(self.prefixes, self.errors).ladder

    def behind_part(self, tokens: float) -> Callable[[float], float]:
        """All but routed experts, of a prompt by its cached part."""
        routed_s = self.routed_at(tokens)
        return lambda prefix: self.at(tokens, 1, round(prefix)).time_s - routed_s

    def curve(self, tokens: float) -> Curve:
        """All but routed experts, of a prompt by its cached part."""
        ladder = self.by_prefix
        found = self.behind.get(tokens)
        if found is None:
            found = self.behind[tokens] = Curve(self.behind_part(tokens), ladder)
        return found

    def fresh_patch(self, tokens: float, share: float) -> Patch:
        """B without cached parts: `share` of what the tokens of one prompt attend to, which several prompts have."""
        low, high = self.ladder.around(tokens)
        i = bisect_right(SHARES, share + 1e-9)
        if i == len(SHARES):
            one, two = self.rest_at(low), self.rest_at(high)
            return Patch(low, high, 1.0 - 1e-9, inf, one, one, two, two)
        few, many = SHARES[i], SHARES[max(0, i - 1)]
        self.check_share(low, many, few)
        at = [self.rest_at(t, round(1 / y)) for t in (low, high) for y in (many, few)]
        return Patch(low, high, many if i else 0.0, few - 1e-9, *at)

    def check_share(self, tokens: float, many: float, few: float) -> None:
        """Between two numbers of prompts, where they are first asked for."""
        prompts = round(1 / sqrt(many * few))
        if (many, few) in self.checked_shares or many == few or tokens < prompts * self.source.grain:
            return
        self.checked_shares.add((many, few))
        if self.errors.tolerance is None:
            return
        found = between(
            1 / prompts, many, self.rest_at(tokens, round(1 / many)), few, self.rest_at(tokens, round(1 / few))
        )
        actual = self.at(tokens, prompts).time_s
        self.errors.accept(self.errors.of(found + self.routed_at(tokens), actual))

    def cached_patch(self, tokens: float, prefix: float) -> Patch:
        """B behind a cached part."""
        low, high = self.ladder.around(tokens)
        one, two = self.curve(low), self.curve(high)
        (a0, a1), (a2, a3) = one.ladder.around(prefix), two.ladder.around(prefix)
        since, until = max(a0, a2), min(a1, a3)
        if since == until:  # shorter than any that was compiled
            return Patch(low, high, 0.0, until, one(since), one(since), two(since), two(since))
        return Patch(low, high, since, until, one(since), one(until), two(since), two(until))

    def rest(self, tokens: float, attended: float) -> float:
        """B."""
        own = (tokens + 1) / 2
        if attended <= own * (1 + 1e-9):
            return self.fresh(tokens, attended / own)
        return self.cached(tokens, attended - own)

    def patch_of_routed(self, tokens: float, _: float) -> Patch:
        low, high = self.ladder.around(tokens)
        one, two = self.routed_at(low), self.routed_at(high)
        return Patch(low, high, 0.0, inf, one, one, two, two)

    def routed(self, tokens: float) -> float:
        """E."""
        return self.routed_patch(tokens, 0.0)

    def time_s(self, tokens: float, attended: float, mean: float) -> float:
        return self.rest(tokens, attended) + self.routed(mean)

    def launches(self, tokens: float) -> float:
        return self.at(self.ladder.around(tokens)[0]).launches


class MixedSteps:
    """J, E, D, P and r of steps with both, from a few of them: with more prompt tokens each has more sequences in decode."""

    def __init__(
        self, price: Price, source: Source, decode: DecodeSteps, prompts: PromptSteps, limits: Limits, errors: Errors
    ) -> None:
        self.price, self.source, self.decode, self.prompts, self.errors = price, source, decode, prompts, errors
        sequences, tokens = powers(1, limits.slots), prompt_knots(source, limits)
        n = max(len(sequences), len(tokens))
        pairs = [(sequences[min(i, len(sequences) - 1)], tokens[min(i, len(tokens) - 1)]) for i in range(n)]
        self.pairs = [(b, self.aligned(b, t)) for b, t in pairs]
        self.sums = sums = [b * source.drafted + t for b, t in self.pairs]
        self.figures: dict[tuple[float, float, int, int], Figures] = {}
        self.routed = Chain(sums, lambda i: self.pair(i).routed_s)
        self.dense = Chain(sums, lambda i: self.joint_of(i) - self.pair(i).routed_s)
        self.joint = Chain(sums, self.joint_of)
        self.own_decode = Chain(sequences, lambda i: self.pair(i).decode_s)
        self.own_prompt = Chain([t for _, t in self.pairs[: len(tokens)]], self.own_prompt_of)
        self.fresh = Patches(lambda t, share: self.with_own(prompts.fresh_patch(t, share)))
        self.cached = Patches(lambda t, prefix: self.with_own(prompts.cached_patch(t, prefix)))
        self.kept: dict[float, list[Piece]] = {}
        self.fine = sequences, tokens
        self.corners = coarse(sequences), coarse(tokens)
        self.ratios: dict[tuple[int, int], Patches | None] = {}

    def at(self, b: float, t: float, context: int, ranks: int = 0) -> Figures:
        """Compiled: b sequences of a context on every rank, and on some of a worker's ranks (0: all) a prompt of t tokens."""
        key = (b, t, context, ranks)
        found = self.figures.get(key)
        if found is None:
            source = self.source
            every, some = (n * source.copies for n in (source.lockstep, ranks or source.lockstep))
            prompts, each, end = halves(t, 1, 0, source)
            knot = Knot(source.phase, int(b) * every, context, some * prompts, each, end, source.microbatches)
            found = self.figures[key] = self.price(knot)
        return found

    def aligned(self, b: float, t: float) -> float:
        """Prompt tokens beside b sequences, so that all together are filled up."""
        grain = self.source.grain
        return t - b * self.source.drafted % grain if t > grain else t

    def own_prompt_of(self, i: int) -> float:
        """P - B at a knot."""
        _, t = self.pairs[i]
        return self.pair(i).prompt_s - self.prompts.fresh(t, 1.0)

    def pair(self, i: int) -> Figures:
        b, t = self.pairs[i]
        return self.at(b, t, round(self.decode.usual))

    def joint_of(self, i: int) -> float:
        found = self.pair(i)
        return found.time_s - found.decode_s - found.prompt_s

    def line(self, b: float, c: float, p: float, a: float, t: float) -> tuple[float, float, float, float]:
        """Seconds by the context of the rank's sequences in decode: a `Piece`. Asked for at every event with prompts, so the chains
        are read in place."""
        for part in self.kept.get(b, ()):
            if part[2] <= c < part[3]:
                break
        else:
            part = self.decode_part(b, c)
        base, slope, since, until = part
        tokens = b * self.source.drafted
        sums = self.sums
        if p == t:
            n = tokens + t
            constant, each = self.joint.pieces[bisect_right(sums, n)] or self.joint.piece_at(n)
            base += constant + each * n
        else:
            n = tokens + t
            constant, each = self.dense.pieces[bisect_right(sums, n)] or self.dense.piece_at(n)
            base += constant + each * n
            n = tokens + p
            constant, each = self.routed.pieces[bisect_right(sums, n)] or self.routed.piece_at(n)
            base += constant + each * n
        own = (t + 1) / 2
        base += self.fresh(t, a / own) if a <= own * (1 + 1e-9) else self.cached(t, a - own)
        if self.errors.tolerance is None:
            return base, slope, since, until
        if b < 1.0:
            b = 1.0
        rows, columns = self.corners
        ratios = self.ratios.get((bisect_right(rows, b), bisect_right(columns, t)), self)
        if ratios is None:
            return base, slope, since, until
        ratio = self.ratio(b, t)
        return base * ratio, slope * ratio, since, until

    def decode_part(self, b: float, c: float) -> Piece:
        """A(b, c) - A(b, c0) + D(b)."""
        each = b if b > 1.0 else 1.0
        usual = self.decode.usual * each
        at_usual = self.decode.line(b, usual)
        base, slope, since, until = self.decode.line(b, c)
        base += self.own_decode(each) - (at_usual.base + at_usual.slope * usual)
        found = Piece(base, slope, since, until)
        self.kept.setdefault(b, []).append(found)
        return found

    def with_own(self, found: Patch) -> Patch:
        """Of B(t, a) that of B(t, a) - B(t, a0) + P(t)."""
        low, high = self.own_prompt(found.x0), self.own_prompt(found.x1)
        return found._replace(
            at_00=found.at_00 + low, at_01=found.at_01 + low, at_10=found.at_10 + high, at_11=found.at_11 + high
        )

    # -- where the sum does not hold ---------------------------------------------------------------

    def ratio(self, b: float, t: float) -> float:
        """r."""
        rows, columns = self.corners
        key = (bisect_right(rows, b), bisect_right(columns, t))
        if key not in self.ratios:
            i, j = (min(max(1, k), len(knots) - 1) for k, knots in zip(key, self.corners, strict=True))
            self.ratios[key] = self.checked(rows[i - 1], rows[i], columns[j - 1], columns[j])
        found = self.ratios[key]
        return 1.0 if found is None else found(b, t)

    def checked(self, b0: float, b1: float, t0: float, t1: float) -> Patches | None:
        """Of a rectangle: None where the sum holds in its middle, at twice the contexts that it was made of."""
        tolerance = self.errors.tolerance
        b, t = middle(b0, b1) or b0, middle(t0, t1, self.source.grain) or t0
        longer = round(self.decode.usual)
        if self.source.ranks > 1 and self.source.microbatches == self.source.lanes == 1:  # a prompt on one rank alone
            self.errors.accept(self.errors.of(1.0, self.found(b, t, longer, 1)))
        error = self.errors.of(1.0, self.found(b, t, longer))
        if tolerance is None or error <= tolerance:
            self.errors.accept(error)
            return None

        def check(low: float, high: float, mid: float) -> tuple[float, float]:
            return between(mid, low, self.found(b, low), high, self.found(b, high)), self.found(b, mid)

        inside = [x for x in self.fine[1] if t0 <= x <= t1]
        ladder = Ladder(inside, check, self.errors, lambda _: self.source.grain, 2.0, closed=True)
        patches = Patches(lambda b, t: self.patch(ladder, b, t))
        self.errors.accept(self.errors.of(patches(b, t), self.found(b, t, longer)))
        return patches

    def patch(self, ladder: Ladder, b: float, t: float) -> Patch:
        """Compiled steps over sums, at the knots around."""
        (b0, b1), (t0, t1) = _around(b, self.fine[0]), ladder.around(t)
        return Patch(b0, b1, t0, t1, self.found(b0, t0), self.found(b0, t1), self.found(b1, t0), self.found(b1, t1))

    def found(self, b: float, t: float, longer: int = 0, ranks: int = 0) -> float:
        """A compiled step over the sum, where contexts are `longer`; `ranks`: that have prompts (0: all)."""
        t = self.aligned(b, t)
        context = round(self.decode.usual) + longer
        base, slope, _, _ = self.decode_part(b, b * context)
        tokens, mean = b * self.source.drafted, t * (ranks or self.source.lockstep) / self.source.lockstep
        sum_s = base + slope * b * context + self.dense(tokens + t) + self.routed(tokens + mean) + self.fresh(t, 1.0)
        return self.at(b, t, context, ranks).time_s / sum_s


def _around(x: float, knots: list[float]) -> tuple[float, float]:
    i = min(max(1, bisect_right(knots, x)), len(knots) - 1)
    return (knots[i - 1], knots[i]) if len(knots) > 1 else (knots[0], knots[0])


def coarse(knots: list[float]) -> list[float]:
    """Every third one, and the last."""
    return list(dict.fromkeys([*knots[:-1:3], knots[-1]]))


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
    return [float(low), *(float(4**k) for k in range(2, 20) if low < 4**k < high / 1.5), float(max(high, low + 1))]


def halves(tokens: float, prompts: int, prefix: int, source: Source) -> tuple[int, int, int]:
    """(prompts, tokens of each, what its last one attends to) of so many tokens of a rank behind a cached part. Two batches that
    overlap have a half of a single prompt each, which attend to as many tokens together as the whole one."""
    whole = int(tokens)
    half = whole // (2 * source.grain) * source.grain
    if prompts > 1:
        each = max(1, round(tokens / prompts / source.grain)) * source.grain
        return prompts, each, each + prefix
    if source.lanes == 1 or not half:
        return 1, whole, whole + prefix
    return 2, half, half + half // 2 + prefix


def prompt_knots(source: Source, limits: Limits) -> list[float]:
    """Numbers of prompt tokens in a step."""
    grain = source.grain
    return [grain * n for n in powers(1, -(-limits.batch_tokens // grain))]
