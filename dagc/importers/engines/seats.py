"""Which GPUs of a pool servers get: those that they say, else the next that are free."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from .server import Server

MOST_GPUS = 1_000_000


def seats(servers: Sequence[Server], per_host: int) -> list[tuple[int, ...]]:
    """Ids of each server, replica by replica. Raises SpecError where a server's GPUs are not those that its ranks need."""
    used: set[int] = set()
    out = []
    for one in servers:
        if one.ranks * one.replicas + len(used) > MOST_GPUS:
            raise SpecError([_wrong(one, f"{one.ranks:,} GPUs x {one.replicas:,} replicas are more than a pool has")])
        own: list[int] = []
        for replica in range(one.replicas):
            ids = _replica(one, replica, used, per_host)
            used |= set(ids)
            own += ids
        out.append(tuple(own))
    return out


def _replica(one: Server, replica: int, used: set[int], per_host: int) -> list[int]:
    offsets = _offsets(one, per_host)
    if replica < len(one.command.first_gpus):
        ids = [one.command.first_gpus[replica] - offsets[0] + offset for offset in offsets]
        if min(ids) < 0 or used & set(ids):
            raise SpecError([_wrong(one, f"GPU {ids[0]} of replica {replica} is another server's")])
        return ids
    host = 0
    while True:
        # On one host a server may begin at any GPU, unless it says which it sees.
        starts = range(per_host - len(offsets) + 1) if not one.local and len(offsets) <= per_host else (0,)
        for start in starts:
            ids = [host * per_host + start + offset for offset in offsets]
            if not used & set(ids):
                return ids
        host += 1


def _offsets(one: Server, per_host: int) -> list[int]:
    """Of its GPUs from the first of its first host."""
    each = (
        len(one.local)
        or one.command.gpus_per_node
        or (one.ranks // one.nodes if one.nodes else min(one.ranks, per_host))
    )
    held = one.command.nodes * one.command.gpus_per_node
    if 0 < held < one.ranks:
        raise SpecError(
            [
                _wrong(
                    one, f"{one.command.nodes} x {one.command.gpus_per_node} GPUs are fewer than its {one.ranks} ranks"
                )
            ]
        )
    local = one.local or tuple(range(each))
    if len(local) > 1 and one.ranks < len(local):
        local = local[: one.ranks]  # it takes the first of those that it sees
    if not local or one.ranks % len(local) or len(set(local)) < len(local) or max(local) >= per_host:
        raise SpecError(
            [
                _wrong(
                    one,
                    f"{one.ranks} ranks do not fill hosts of which each has the GPUs {', '.join(map(str, local))} of {per_host}",
                )
            ]
        )
    return [host * per_host + gpu for host in range(one.ranks // len(local)) for gpu in sorted(local)]


def _wrong(one: Server, words: str) -> Diagnostic:
    return Diagnostic("E05", f"{one.command.where}: {words}", one.command.span)
