"""Collectives: what one call of each kind sends, as counts that prices, proofs and exports share.

What a call costs is a table of `dagc/cost/network.py` keyed by kind, what it computes one of each executor.
"""

from __future__ import annotations

from collections.abc import Callable

from .frozen import record


@record
class Collective:
    """`payload` is the local input buffer of one call; or, where a rank sends blocks of the result's layout
    (`sends_result`), one such block. Per byte of payload, among n ranks: `wire(n)` bytes that a rank sends, in
    `steps(n)` steps of a ring; `buffer(n)` bytes of its largest buffer, which is what nccl-tests calls the size.
    `reduces`: it resolves partial values. `scatters`: every rank gets another part of what a rank has, so that the
    payload is cut into n parts. `uneven`: between experts and the owners of tokens, ranks have unequal payloads, and
    all wait for the busiest. `across`: the ranks of one set, which share what is sent, send to each rank of another; the payload is
    what a rank gets, and what one sends is that times the ranks which get over those which send."""

    name: str
    wire: Callable[[int], float]
    steps: Callable[[int], int]
    buffer: Callable[[int], float] = lambda ranks: 1.0
    sends_result: bool = False
    reduces: bool = False
    scatters: bool = False
    uneven: bool = False
    across: bool = False


TO_EXPERTS, FROM_EXPERTS = "to_experts", "from_experts"


def _share(ranks: int) -> float:
    return (ranks - 1) / ranks


def _once(ranks: int) -> float:
    return 1.0


def _one_step(ranks: int) -> int:
    return 1 if ranks > 1 else 0


def _around(ranks: int) -> int:
    return ranks - 1


COLLECTIVES: dict[str, Collective] = {
    one.name: one
    for one in (
        # Bus-bandwidth factors: nccl-tests, PERFORMANCE.md.
        Collective(
            "all_reduce", lambda ranks: 2 * _share(ranks), lambda ranks: 2 * (ranks - 1), reduces=True, scatters=True
        ),
        Collective("all_gather", lambda ranks: ranks - 1.0, _around, buffer=float),
        Collective("reduce_scatter", _share, _around, reduces=True, scatters=True),
        Collective("all_to_all", _share, _around, scatters=True, uneven=True),
        Collective("permute", _once, _one_step, sends_result=True),
        # Where experts have GPUs of their own: M2N and N2M of MegaScale-Infer (arXiv 2504.02263).
        Collective(TO_EXPERTS, _once, _one_step, sends_result=True, uneven=True, across=True),
        Collective(FROM_EXPERTS, _once, _one_step, sends_result=True, uneven=True, across=True),
    )
}
"""Those between ranks of one stage, which are ops of the graph."""
ACROSS = tuple(one.name for one in COLLECTIVES.values() if one.across)

SEND = Collective("send", _once, _one_step)
"""From a stage to the next."""
SCATTER = Collective("scatter", _share, _one_step, scatters=True)
GATHER = Collective("gather", lambda ranks: ranks - 1.0, _one_step, buffer=float)
REQUESTS = {one.name: one for one in (SCATTER, GATHER)}
"""Between the front end, which is where the first rank of a group is, and the ranks: token ids to those that have them in
their part of the batch, and what they chose back. All messages at once; `wire` is what this first rank sends or takes in."""
TRANSFERS = COLLECTIVES | {SEND.name: SEND} | REQUESTS
REDUCTIONS = tuple(one.name for one in COLLECTIVES.values() if one.reduces)


def wire_bytes(kind: str, payload_B: float, ranks: int) -> float:
    """Bytes that one device puts on the wire in one call. One rank sends nothing."""
    return 0.0 if ranks == 1 else payload_B * TRANSFERS[kind].wire(ranks)


def is_token_exchange(kind: str, scope: str) -> bool:
    """Whether a collective takes tokens to their experts or back."""
    return kind in COLLECTIVES and COLLECTIVES[kind].uneven and scope == "experts"
