"""What a step of serving costs: the GPUs' time, interpolated between compiled steps (`step_kinds.py`), and the host's."""

from __future__ import annotations

from functools import cached_property
from math import inf

from ..base.frozen import record
from ..serving.records import Line
from .step_kinds import DecodeSteps, Limits, MixedSteps, PromptSteps, Source
from .step_points import Price
from .step_tables import Errors

MOST_KEPT = 1 << 16
"""Prices of prompts that are remembered."""


@record
class Host:
    """The host's part of every step, `host_s`, and `launch_s` of every layer of a step that no CUDA graph covers, while which the GPUs
    may run. Graphs cover steps with prompts of up to `captured` tokens on a rank, and, where `graphs`, those without. What prompts add
    to a step takes `prompt_factor` times what their kernels take."""

    host_s: float = 0.0
    launch_s: float = 0.0
    captured: int = 0
    graphs: bool = True
    prompt_factor: float = 1.0


class StepPrices:
    """Prices of the steps of a worker of `ranks` in lockstep. `price` compiles a step. `decode`, `prefill`, `mixed`: of which phases; a
    worker that does only one has only that, and without `mixed` its ranks do one after the other. `tolerance`: relative error at which knots stand close enough, None: base knots
    alone, unchecked."""

    def __init__(
        self,
        price: Price,
        limits: Limits,
        host: Host,
        decode: Source | None = None,
        prefill: Source | None = None,
        mixed: Source | None = None,
        tolerance: float | None = 0.01,
        ranks: int = 0,
    ) -> None:
        self.price, self.limits, self.host = price, limits, host
        self.errors = Errors(tolerance)
        self.sources = decode, prefill or mixed or decode, mixed
        main = next(source for source in (decode, mixed, prefill) if source is not None)
        self.ranks = ranks or main.lockstep
        self.lines: dict[float, list[Line]] = {}
        self.prompts: dict[tuple[float, float, float], tuple[float, float]] = {}

    @cached_property
    def decode(self) -> DecodeSteps:
        source = self.sources[0]
        assert source is not None, "a worker for prompts alone"
        return DecodeSteps(self.price, source, self.limits, self.errors)

    @cached_property
    def prefill(self) -> PromptSteps:
        source = self.sources[1]
        assert source is not None, "a worker without prompts"
        return PromptSteps(self.price, source, self.limits, self.errors)

    @cached_property
    def alone(self) -> PromptSteps | None:
        """Where several micro-batches are in flight: steps of one, whose way through the stages no other shortens."""
        source = self.sources[1]
        if source is None or source.microbatches == 1:
            return None
        one = Source(source.phase, source.copies, source.ranks, 1, source.drafted)
        return PromptSteps(self.price, one, self.limits, self.errors)

    @cached_property
    def mixed(self) -> MixedSteps:
        decode, prefill, mixed = self.sources
        assert mixed is not None, "steps of prompts and decode are not mixed"
        own_decode = self.decode if mixed == decode else DecodeSteps(self.price, mixed, self.limits, self.errors)
        own_prompts = self.prefill if mixed == prefill else PromptSteps(self.price, mixed, self.limits, self.errors)
        return MixedSteps(self.price, mixed, own_decode, own_prompts, self.limits, self.errors)

    @cached_property
    def scale(self) -> float:
        """Ranks of the worker for one of the phase of steps with both."""
        return self.ranks / self.mixed.source.lockstep

    @cached_property
    def mixed_launches(self) -> float:
        return self.mixed.pair(0).launches

    @property
    def error(self) -> float:
        """The largest relative error of interpolation that checks found."""
        return self.errors.largest

    @property
    def points(self) -> int:
        """Compiled steps."""
        made = self.__dict__
        tables = [made[name] for name in ("decode", "prefill", "mixed", "alone") if made.get(name) is not None]
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
        piece: PieceLike = self.decode.line(b, c)
        if not self.host.graphs:
            piece = at_least(piece, c, self.decode.launches(b) * self.host.launch_s)
        base, slope, since, until = piece
        return Line(base + self.host.host_s, slope, until, since)

    def with_prompts(self, b: float, c: float, p: float, pairs: float, most: float) -> Line:
        a = pairs / most
        if a < 1.0:
            a = 1.0
        host, tokens = self.host, most
        if not b:
            base, launches = self.prompts_alone(p, a, most)
            slope, since, until = 0.0, 0.0, inf
        elif self.sources[2] is None:
            return self.one_after_the_other(b, c, p, a, most)
        else:
            mixed = self.mixed
            t = most if mixed.source.microbatches == 1 else p
            scale = self.scale
            if scale == 1.0:
                base, slope, since, until = mixed.line(b, c, p, a, t)
            else:
                found = mixed.line(b * scale, c * scale, p * scale, a, max(t, p * scale))
                base, slope, since, until = scaled(found, scale)
            launches = self.mixed_launches
            tokens += b * mixed.source.drafted
        if self.alone is not None:
            base, slope, since, until = at_least((base, slope, since, until), c, self.alone.time_s(most, a, most))
        if host.prompt_factor != 1.0:
            base, slope, since, until = self.longer((base, slope, since, until), b, c)
        least = launches * host.launch_s
        if base + slope * since < least and (not host.graphs or tokens > host.captured):
            base, slope, since, until = at_least((base, slope, since, until), c, least)
        return Line(base + host.host_s, slope, until, since)

    def longer(self, piece: PieceLike, b: float, c: float) -> PieceLike:
        """What the step has over one of decode alone, times the engine's factor."""
        base, slope, since, until = piece
        factor = self.host.prompt_factor
        if not b:
            return base * factor, slope * factor, since, until
        plain = self.step(b, c)
        alone_s = plain.base_s - self.host.host_s
        return (
            alone_s + (base - alone_s) * factor, plain.per_token_s + (slope - plain.per_token_s) * factor,
            max(since, plain.since), min(until, plain.until),
        )  # fmt: skip

    def one_after_the_other(self, b: float, c: float, p: float, a: float, most: float) -> Line:
        """Prompts on some ranks and decode on others, where no step does both."""
        first = self.with_prompts(0, 0, p, a * most, most)
        then = self.step(b, c)
        return Line(first.base_s + then.base_s, then.per_token_s, then.until, then.since)

    def prompts_alone(self, p: float, a: float, most: float) -> tuple[float, float]:
        """(seconds, layers to launch) of a step of prompts alone."""
        key = (p, a, most)
        found = self.prompts.get(key)
        if found is None:
            source = self.prefill.source
            mean = p * self.ranks / source.lockstep
            if (
                source.lockstep > self.ranks
            ):  # prompts that a rank of the worker has are spread, each on one of the phase's
                most = min(most, 2 * a - 1)
            t = max(most, mean) if source.microbatches == 1 else mean
            found = self.prefill.time_s(t, a, mean), self.prefill.launches(t)
            if len(self.prompts) < MOST_KEPT:
                self.prompts[key] = found
        return found


PieceLike = tuple[float, float, float, float]
"""A `Piece`."""


def at_least(piece: PieceLike, c: float, least: float) -> PieceLike:
    """The larger of both, as it is at c and around: the GPUs wait for a host that launches more slowly than they run."""
    base, slope, since, until = piece
    if base + slope * since >= least:
        return piece
    same = (least - base) / slope if slope > 0 else inf  # context at which both take as long
    if c >= same:
        return base, slope, max(since, same), until
    return least, 0.0, since, min(same, until)


def scaled(piece: PieceLike, scale: float) -> PieceLike:
    """By the context of a rank of the worker, of whose a rank of the source has `scale`."""
    base, slope, since, until = piece
    return base, slope * scale, since / scale, until / scale
