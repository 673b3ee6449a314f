"""What a `serve` section says: which phases serve, what traffic comes, and how requests are scheduled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..base.frozen import field, record
from ..base.source import Span


@record
class Arrivals:
    """When requests come. `kind`: poisson, constant and gamma (variation `cv` of the gaps) at `rate_per_s`; closed: `clients`,
    each of which sends its next request `think_s` after the last one ended; burst: all at once; trace: as `path` says, at
    `speed` times its own rate."""

    kind: str
    rate_per_s: float = 0.0
    cv: float = 1.0
    clients: int = 0
    think_s: float = 0.0
    path: Path | None = None
    speed: float = 1.0


@record
class Lengths:
    """Tokens of prompts and outputs around the means `prompt` and `output`. `kind`: fixed; uniform between the shares `low` and
    `high` of them; lognormal with these means and the variation `cv`; histogram: as `path` says; trace: those of the trace."""

    kind: str = "fixed"
    prompt: int = 1
    output: int = 1
    low: float = 1.0
    high: float = 1.0
    cv: float = 0.0
    path: Path | None = None


@record
class Serve:
    """A serving of traffic. `prefill`, `decode`, `mixed`: names of phases (None: the spec has none). A prefill on the GPUs
    of the decode (all of them, some, or these and more) is of the same workers; on others it has `prefill_workers` of its own, which hand the cache over, `whole` or
    chunk by chunk. `roles` switch: those of workers of one pool change, each change takes `switch_s` (None: what moves then takes). `weights`: their GPUs
    store those of both phases, or of one at a time, and the others are moved.

    `requests` or `duration_s` end it (None: not given). Of an attention-DP rank: `slots` sequences at once, `kv_tokens` of cache (None: what
    the memory has room for) in blocks of `kv_block`. A step takes up to `batch_tokens`, of them `chunk` of one prompt;
    `prompts`: mixed into decode steps, or first, in steps of their own. `admit` whole: a request enters when prompt and
    all its output have room; prompt: when the prompt has. `queue`: requests that may wait, others are turned away (None:
    all may). `balance`: steps in which prompts may wait until every attention-DP rank has one (0: they do not), `gather`: more steps in
    which they wait for others once every rank has one. `prefix`: tokens of every prompt that all requests share. `host_s` of every step, `launch_s` of every layer of a step that no CUDA graph covers,
    `request_s` of every request before its first token: None, as measured for the engine."""

    name: str
    arrivals: Arrivals
    lengths: Lengths
    prefill: str | None = None
    decode: str | None = None
    mixed: str | None = None
    requests: int | None = None
    duration_s: float | None = None
    seed: int = 0
    policy: str = "fcfs"  # fcfs | priority | shortest
    prompts: str = "mixed"  # mixed | first
    batch_tokens: int = 8192
    chunk: int | None = None
    slots: int = 256
    kv_block: int = 16
    kv_tokens: int | None = None
    admit: str = "prompt"  # prompt | whole
    preempt: str = "recompute"  # recompute | swap
    prefix_cache: bool = False
    prefix: int = 0
    queue: int | None = None
    route: str = "round_robin"  # round_robin | least | prefix
    workers: int = 1
    prefill_workers: int = 1
    roles: str = "fixed"  # fixed | switch
    switch_s: float | None = None
    hand_over: str = "whole"  # whole | chunk
    host_s: float | None = None
    launch_s: float | None = None
    request_s: float | None = None
    balance: int = 0
    gather: int = 0
    weights: str = "both"  # both | moved
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    @property
    def moves(self) -> bool:
        """Whether GPUs store the weights of one phase at a time."""
        return self.weights == "moved"
