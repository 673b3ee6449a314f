"""What a simulation takes and gives: requests, prices of steps, workers and their rules, and what was served."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..base.frozen import field, mutable, record


class Request(NamedTuple):
    """`blocks`: ids of the prompt's leading blocks (of `Engine.prefix_block` tokens each); an id names its text and all before it. A
    smaller `priority` goes first."""

    arrival_s: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()
    priority: int = 0


@record(slots=False)
class Load:
    """Traffic. Open (`clients` 0): each request comes at its `arrival_s`; times never fall. Closed: `clients` of them send one each at once, and the
    next one `think_s` after the last one ended: of the requests only the lengths count, in the order in which they are sent.
    `until_s`: none comes later. The run ends when all that came have ended."""

    requests: Iterable[Request]
    clients: int = 0
    think_s: float = 0.0
    until_s: float | None = None


class Line(NamedTuple):
    """Seconds of a step: `base_s + per_token_s * context`, where context is the sum over the sequences in decode of a rank
    (of the rank that has most), while `since <= context < until`. A worker keeps the lines of decode steps by their number of
    sequences; one that does not say `since` is asked for again at every event."""

    base_s: float
    per_token_s: float
    until: float
    since: float = math.inf


class StepPrices(Protocol):
    """What one step costs; compiled on demand and kept. Everything is per attention-DP rank: `sequences` in decode (mean over
    ranks, so that products, experts and collectives see all tokens), their summed `context` (of the fullest rank), `prompt`
    tokens of prompts (mean over ranks), and `pairs`: of a prompt's token and a token it attends to (of the fullest rank). `most`: prompt
    tokens of the rank that has most (0: the mean)."""

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line: ...


@record
class Engine:
    """The rules of a worker: `ranks` attention-DP ranks in lockstep, each with its own queue, `slots` and `kv_blocks` of `kv_block` tokens.
    Other fields as in `dagc.spec.serve.Serve`. A step brings a sequence `tokens_per_step` tokens (of up to `most_tokens_per_step`:
    drafts, of which it has room for all; `tokens_reached`: chance that at least so many of them are accepted, where each position has its own); `draft_seed`: the steps of a request are drawn (None: every request takes the mean). `prefix_block`: tokens of an id of
    `Request.blocks`, a multiple of `kv_block` (0: `kv_block`). `balance`: steps in which prompts may wait for other ranks (0: they do not; 1 is
    the same), `gather`: more of them from when all ranks have one. `swap_s`: seconds per token of cache that goes to the host or comes
    back; `request_s`: from arrival to the queue."""

    prices: StepPrices
    ranks: int = 1
    slots: int = 256
    kv_blocks: int = 1 << 40
    kv_block: int = 16
    batch_tokens: int = 8192
    chunk: int = 8192
    policy: str = "fcfs"
    prompts: str = "mixed"
    admit: str = "prompt"
    preempt: str = "recompute"
    prefix_cache: bool = False
    queue: int | None = None
    balance: int = 0
    gather: int = 0
    tokens_per_step: float = 1.0
    most_tokens_per_step: int = 1
    tokens_reached: tuple[float, ...] = ()
    draft_seed: int | None = None
    prefix_block: int = 0
    swap_s: float = 0.0
    request_s: float = 0.0


@record
class Workers:
    """`count` equal workers. `role`: both, prefill or decode. `gpus` of one of them; so many of them work in steps of prompts alone,
    and in all other steps (0: all). `hardware`: name of their pool, where there are several."""

    role: str
    count: int
    engine: Engine
    gpus: int = 1
    prompt_gpus: int = 0
    decode_gpus: int = 0
    hardware: str = ""


@record
class Transfer:
    """Hand-over of a request's cache from a prefill worker, which sends one after the other: `latency_s` and `per_token_s`.
    `chunks`: each chunk is sent while the next one is computed."""

    latency_s: float = 0.0
    per_token_s: float = 0.0
    chunks: bool = False


@record
class Switch:
    """Workers of one pool change roles; each change takes `cost_s`, back to prompts `back_s` (None: as long), in which the worker does nothing,
    after its own requests ended; one alone, which keeps them, also `per_token_s` for each token of cache, in blocks, before it decodes.
    `moved_B`: bytes of weights that all its GPUs fetch to decode, and back.
    A role gains a worker when `backlog` requests wait per worker of it, and more than `ratio` (>= 1) times as many as in the other role."""

    cost_s: float = 0.0
    backlog: float = 4.0
    ratio: float = 2.0
    back_s: float | None = None
    per_token_s: float = 0.0
    moved_B: tuple[float, float] = (0.0, 0.0)

    def takes(self, *, decodes: bool, tokens: int = 0) -> float:
        """Time of a change: to decode, with so many tokens of cache, or to prompts."""
        if decodes:
            return self.cost_s + self.per_token_s * tokens if self.per_token_s else self.cost_s
        return self.cost_s if self.back_s is None else self.back_s


@record
class Setup:
    """Workers of one kind (aggregated), or prefill and decode workers with a transfer between them."""

    workers: tuple[Workers, ...]
    route: str = "round_robin"
    transfer: Transfer = Transfer()
    switch: Switch | None = None
    seed: int = 0


def _doubles() -> array[float]:
    return array("d")


def _ints() -> array[int]:
    return array("q")


@mutable
class Served:
    """Columns over finished requests, in the order in which they ended: 56 bytes each. `queued_s`: from arrival to the first step that holds a
    part of it (or its cache); `e2e_s`: from arrival to the last token; `cached`: tokens of its prompt that the prefix cache had."""

    arrival_s: array[float] = field(default_factory=_doubles)
    queued_s: array[float] = field(default_factory=_doubles)
    ttft_s: array[float] = field(default_factory=_doubles)
    e2e_s: array[float] = field(default_factory=_doubles)
    prompt: array[int] = field(default_factory=_ints)
    output: array[int] = field(default_factory=_ints)
    cached: array[int] = field(default_factory=_ints)

    @property
    def columns(self) -> tuple[Any, ...]:
        """All of them, in the order of a row."""
        return (self.arrival_s, self.queued_s, self.ttft_s, self.e2e_s, self.prompt, self.output, self.cached)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Served) and self.columns == other.columns

    __hash__ = None  # type: ignore[assignment]


class Stretch(NamedTuple):
    """`steps` equal steps of a worker (numbered over all `Workers` in their order), or of one of its ranks (-1: all in lockstep):
    `sequences` in decode and `prompt` tokens of prompts in each of them."""

    worker: int
    rank: int
    start_s: float
    end_s: float
    steps: int
    sequences: int
    prompt: int


@record(slots=False)
class Outcome:
    """Of a whole run. `gaps`: histogram of the gaps between tokens (see `dagc.serving.gaps`); `steps`: the first stretches, for a
    timeline.

    `counts`: arrived, finished, rejected, preempted, steps, events, hit_tokens (of prompts, found in a prefix cache),
    prompt_tokens, output_tokens, switches. The others have keys `ROLE.what` (both, prefill, decode), summed over the
    workers and ranks of a role. `integrals`, times seconds: waiting, running, blocks (held), tokens (in held blocks: what is left of
    a block is waste), busy (workers in a step), prompts (in one of prompts alone), queued (1 while anything waits). `series`: `time_s` and, at these moments, waiting, running
    and blocks. `most`: exact peaks of these three. `loads`: by role, tokens of the requests that ended on each rank of each worker."""

    served: Served
    end_s: float
    counts: Mapping[str, int]
    integrals: Mapping[str, float]
    gaps: Mapping[int, float]
    series: Mapping[str, array[float]]
    most: Mapping[str, int] = field(default_factory=dict)
    loads: Mapping[str, Sequence[int]] = field(default_factory=dict)
    steps: Sequence[Stretch] = ()
