"""How much each phase takes at once, so that its engine is told what the command told it; and what is left for a serving to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from ...base.frozen import record, replace
from ...spec.engines import SCHEDULING, by_card
from .server import Server
from .unsaid import Given

USUAL_SEQUENCES = 64
"""Of a data-parallel rank at once, where nobody says."""
MANY_BATCHES = 8
"""Micro-batches of a pass, up to which sequences of a prefill are taken for one pass: more are a limit that is seldom reached."""


@record
class Pass:
    """Of a phase: `sequences` of all ranks and replicas; `chunk` of a prompt, 0 where it is whole."""

    sequences: int
    chunk: int = 0
    microbatches: int = 1


@record
class Steps:
    """`passes` by (id of the server, kind). `serve`: attributes of the serving. `clients`: requests at once, 0 where that follows from the phases.
    `differs`: servers store caches in different dtypes."""

    passes: dict[tuple[int, str], Pass]
    serve: dict[str, str]
    notes: tuple[str, ...]
    clients: int = 0
    differs: bool = False


def steps(servers: Sequence[Server], new: int, given: Given) -> Steps:
    """`new`: tokens of a prompt that are not cached."""
    notes: list[str] = []
    passes: dict[tuple[int, str], Pass] = {}
    serve: dict[str, str] = {}
    serves = sorted(kind for one in servers for kind in one.kinds) == ["decode", "prefill"]
    slots = _slots(servers, new, given) if serves else None
    alike = serves and _steps_alike(servers)
    exact = True
    for one in servers:
        if "decode" in one.kinds:
            passes[(id(one), "decode")] = Pass(_decode(one, given, slots, notes))
        if "prefill" in one.kinds:
            if "decode" in one.kinds:
                passes[(id(one), "prefill")] = _beside(one, new, notes)
            else:
                found, fits = _alone(one, new, slots, serves, alike, notes)
                passes[(id(one), "prefill")] = found
                exact = exact and fits
    clients = 0
    if serves:
        if slots is not None:
            serve["slots"] = str(slots)
            decode = next(one for one in servers if "decode" in one.kinds)
            clients = slots * decode.dp * decode.replicas
        exact = exact and all(_fits(one, passes[(id(one), "decode")]) for one in servers if one.kinds == ("decode",))
        for one in servers:
            own = passes.get((id(one), "prefill"))
            lone = one.cuts and not all(other.cuts for other in servers)
            if own is not None and lone and not own.chunk and not exact and alike and new > 1:
                passes[(id(one), "prefill")] = replace(own, chunk=ceil(new / 2))
                notes.append("this server alone cuts prompts, and does not say where: in two")
        _limits(servers, passes, serve, exact, given, notes)
    caches = {one.kv_dtype for one in servers}
    return Steps(passes, serve, tuple(notes), clients, len(caches) > 1)


def _steps_alike(servers: Sequence[Server]) -> bool:
    """Whether all servers say one number of tokens of a step, which a serving can say for them."""
    said = [one.step_tokens for one in servers if one.buffered is None or one.step_tokens != one.buffered]
    return None not in said and len(set(said)) == 1


def _slots(servers: Sequence[Server], new: int, given: Given) -> int | None:
    """Sequences of a rank that all servers take, where their phases have fewer; None: they have those, or servers differ."""
    each = {one.rank_sequences for one in servers}
    decode = next(one for one in servers if "decode" in one.kinds)
    if decode.rank_sequences is None or len(each) > 1:
        return None
    wanted = decode.graph_sequences if decode.graphs else None
    if given.concurrency is not None:
        wanted = ceil(given.concurrency / (decode.dp * decode.replicas))
    fewer = wanted is not None and 0 < wanted < decode.rank_sequences
    return decode.rank_sequences if fewer or any(_crowded(one, new) for one in servers) else None


def _crowded(one: Server, new: int) -> bool:
    """Whether prompts of all its sequences are far more than it takes in a step: a limit that is seldom reached."""
    each = min(one.chunk or new, new)
    alone = one.kinds == ("prefill",) and one.rank_sequences is not None and one.step_tokens is not None
    return alone and (one.rank_sequences or 0) * each > max(MANY_BATCHES, 4 * one.pp) * (one.step_tokens or 1)


def _decode(one: Server, given: Given, slots: int | None, notes: list[str]) -> int:
    """Sequences of its step, over all ranks and replicas."""
    if given.concurrency is not None:
        return given.concurrency
    if slots is not None and one.graph_sequences is not None and one.graph_sequences < slots:
        notes.append(
            f"a step of decode has {one.graph_sequences} sequences of a rank, the most that are CUDA graphs; up to {slots} are there at once"
        )
        return one.graph_sequences * one.dp * one.replicas
    if one.sequences is not None:
        return one.sequences * one.replicas
    notes.append(
        f"requests at once are not said: {USUAL_SEQUENCES} of each data-parallel rank, fewer than the engine takes (--concurrency)"
    )
    return USUAL_SEQUENCES * one.dp * one.replicas


def _usual_limit(one: Server) -> int:
    """Tokens of a step of a serving that does not say them."""
    return by_card(SCHEDULING.get(one.engine, SCHEDULING[None]).batch_tokens, one.pool.hardware)


def usual_tokens(one: Server) -> int:
    """Tokens of prompts that a rank takes in a step unless its command says so."""
    if one.usual_step is not None:
        return one.usual_step
    own = SCHEDULING.get(one.engine, SCHEDULING[None])
    tokens = by_card(own.chunk or own.batch_tokens, one.pool.hardware)
    return max(1, tokens // one.dp) if "chunk" in own.divided and one.moe else tokens


def _beside(one: Server, new: int, notes: list[str]) -> Pass:
    """Prompts of a step of a server that decodes too."""
    tokens = one.step_tokens
    if tokens is None:
        tokens = usual_tokens(one)
        notes.append(f"a step takes {tokens:,} tokens of a rank, as {one.engine} does by itself")
    chunk = min(one.chunk or tokens, tokens)
    if one.cuts is False and tokens < new:
        notes.append(f"prompts of {new:,} tokens are cut: the server would refuse more than {tokens:,}")
    if chunk >= new:
        return Pass(max(1, tokens // new) * one.dp * one.replicas)
    return Pass(max(1, tokens // chunk) * one.dp * one.replicas, chunk)


def _alone(one: Server, new: int, slots: int | None, serves: bool, alike: bool, notes: list[str]) -> tuple[Pass, bool]:
    """A pass of a server that takes in prompts and does nothing else; and whether its engine is told the same for it. A serving says
    the tokens of a step where it is not; `serves`: there is one, `alike`: it can."""
    most, tokens = one.rank_sequences, one.step_tokens
    if tokens is None:
        tokens = usual_tokens(one)
        notes.append(f"a step takes {tokens:,} tokens of a rank, as {one.engine} does by itself")
    limited = most if slots is None else None
    for piece in _pieces(one, new, limited, tokens) if limited is not None else ():
        assert limited is not None
        batches = ceil(limited * piece / tokens)
        told = tokens > one.chunk if one.chunk is not None and serves else piece < new and tokens > piece
        if batches > max(MANY_BATCHES, 4 * one.pp) or (one.says_chunk and told != (one.chunk is not None)):
            continue
        if ceil(limited / batches) * piece == tokens:
            return Pass(_total(one, limited), piece if piece < new else 0, batches), True
    piece = min(one.chunk or new, new, tokens)
    chunk, count = piece if piece < new else 0, max(1, tokens // piece)
    if limited is not None and alike:
        batches = ceil(limited / count)
        return Pass(_total(one, limited), chunk, batches if batches > MANY_BATCHES else 1), False
    if limited is not None and limited != count:
        notes.append(
            f"a pass over prompts has {count} sequences of a rank, as a step has room for; {limited} is a limit"
        )
    fits = slots is not None and count * piece == tokens and not (one.says_chunk and chunk and tokens > chunk)
    return Pass(count * one.dp * one.replicas, chunk), fits


def _pieces(one: Server, new: int, most: int, tokens: int) -> list[int]:
    """Tokens of one prompt in a step, as they may be: as it is said, a whole prompt or what a step has room for, an equal share of a step."""
    if one.cuts is False:
        return [new]
    pieces = [min(one.chunk or new, new), min(tokens, new)]
    counts = [ceil(most / batches) for batches in range(1, MANY_BATCHES + 1)]
    shares = [min(tokens // count, new) for count in counts if tokens % count == 0]
    return [*shares[:1], *pieces, *shares[1:]] if one.cuts else [*pieces, *shares]


def _total(one: Server, most: int) -> int:
    return one.replicas * (one.sequences if one.sequences is not None else most * one.dp)


def _fits(one: Server, own: Pass) -> bool:
    """Whether a server of decode alone is told the same for its phase: a step of all its sequences, drafts among them."""
    if one.step_tokens is None:
        return True
    return one.step_tokens == ceil(own.sequences / (one.dp * one.replicas)) * (1 + one.draft)


def _whole(one: Server, passes: Mapping[tuple[int, str], Pass]) -> bool:
    """Whether its phases have whole prompts or none, from which nobody sees that the server would cut them."""
    return "prefill" not in one.kinds or not passes[(id(one), "prefill")].chunk


def _limits(
    servers: Sequence[Server],
    passes: Mapping[tuple[int, str], Pass],
    serve: dict[str, str],
    exact: bool,
    given: Given,
    notes: list[str],
) -> None:
    """What a serving says of all of them."""
    both = [one for one in servers if len(one.kinds) > 1]
    told = {one.step_tokens for one in servers if one.step_tokens is not None and one.step_tokens != one.buffered}
    if both or not exact:
        if len(told) == 1 and (both or all(one.step_tokens is not None for one in servers)):
            serve["batch_tokens"] = f"{next(iter(told))} tok"
        elif told:
            notes.append("steps of the servers have different limits, which one serving does not have")
    chunks = {one.chunk for one in servers if one.chunk is not None}
    other = any(
        one.chunk is not None and "prefill" in one.kinds and passes[(id(one), "prefill")].chunk != one.chunk
        for one in servers
    )
    said = both or other or all(one.chunk is not None for one in servers)
    most = told.pop() if "batch_tokens" in serve else min(_usual_limit(one) for one in servers)
    if said and len(chunks) == 1 and (chunk := chunks.pop()) <= most:
        serve["chunk"] = f"{chunk} tok"
    elif cutting := {
        one.step_tokens for one in servers if one.cuts and one.step_tokens is not None and _whole(one, passes)
    }:
        serve["chunk"] = f"{min(max(cutting), most)} tok"  # prompts are cut where a step is full
    caches = {one.prefix_cache for one in servers}
    if len(caches) == 1 and (cached := caches.pop()) is not None:
        serve["prefix_cache"] = str(cached).lower()
        if cached:
            serve["prefix"] = f"{given.prefix or 1} tok"
            if not given.prefix:
                notes.append("what prompts share is not said: their first token (--prefix-tokens)")
    policies = {one.policy for one in servers if one.policy}
    if len(policies) == 1 and (policy := policies.pop()) != "fcfs":
        serve["policy"] = policy
    for name in ("prompts", "admit"):
        words = {getattr(one, name) for one in servers if getattr(one, name)}
        if len(words) == 1:
            serve[name] = words.pop()
    room = {one.kv_tokens for one in servers if one.generates}
    if len(room) == 1 and (tokens := room.pop()) is not None:
        serve["kv_tokens"] = f"{tokens} tok"
    for name in ("balance", "gather"):
        if value := max(getattr(one, name) for one in servers):
            serve[name] = str(value)
