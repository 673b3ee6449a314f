"""The script of a server: its command on each of its nodes, and what the options leave open as comments."""

from __future__ import annotations

import shlex

from ...base.units import show_runs
from .degrees import EngineDegrees, hosts
from .draft import ServerDraft
from .words import Address, Node, Shell, Told

NODE, HEAD = Told('"$NODE"', Node()), Told('"$HEAD"', Address())
REPLICA = "REPLICA"


def degrees_text(one: EngineDegrees) -> str:
    degrees = ", ".join(f"{a} {n}" for a, n in one.degree.items() if n > 1)
    copies = f"{one.copies} replicas, each " if one.copies > 1 else ""
    return f"{copies}{degrees or 'one rank'} on {len(one.gpus)} GPUs{one.of_pool}"


def comments(draft: ServerDraft) -> list[str]:
    return [f"# {line}" for line in remarks(draft)]


def remarks(draft: ServerDraft) -> list[str]:
    """What a reader of its files is told."""
    known = draft.facts
    between = " lies between versions that the options were checked against" if known.is_between else ""
    return [
        *draft.verdict,
        f"{draft.layout.name}: {degrees_text(draft.layout)}",
        f"{known.label}{between}" if between else f"flags checked against {known.label}",
        f"tp there: {known.tp}",
        *(f"not fixed by flags: {note}" for note in draft.notes),
    ]


def script(draft: ServerDraft, command: list[str]) -> str:
    """The command, run on each node with the node's number, for each replica with its number."""
    lines = ["#!/usr/bin/env bash", *comments(draft), *preamble(draft)]
    lines += [f"export {k}={v if isinstance(v, Shell) else shlex.quote(v)}" for k, v in draft.environment.items()]
    return "\n".join([*lines, broken(command)]) + "\n"


def preamble(draft: ServerDraft, *, by_node: bool = True) -> list[str]:
    """What the script has to be told, and which GPUs its server may see. `by_node`: it is started on each node by itself."""
    one = draft.layout
    told = {"NODE": "its number here", "HEAD": "address of number 0"} if by_node and len(one.nodes) > 1 else {}
    lines = []
    if one.copies > 1:
        lines.append(f"# run for each replica: {REPLICA}=<0 to {one.copies - 1}>")
    if told:
        lines.append(f"# run on each node: {' '.join(f'{k}=<{v}>' for k, v in told.items())}")
    if one.copies > 1 or told:
        for k, gpus in enumerate(one.replicas):
            for n, node in enumerate(hosts(gpus, one.per_host)):
                names = [f"{REPLICA}={k}"] * (one.copies > 1) + [f"NODE={n}"] * bool(told)
                lines.append(f"#   {' '.join(names)}: GPU {show_runs(node)}{one.of_pool or ' of the pool'}")
    needed = [*[REPLICA] * (one.copies > 1), *told]
    if needed:
        lines.append(": " + " ".join('"${' + name + ':?}"' for name in needed))
    if one.copies > 1:
        numbers = " ".join(f"{r}) GPU={gpus[0]};;" for r, gpus in enumerate(one.replicas))
        lines.append(f'case "${REPLICA}" in {numbers} *) echo "no replica ${REPLICA}" >&2; exit 2;; esac')
    return lines + devices(one)


def devices(one: EngineDegrees) -> list[str]:
    """Which GPUs of its node a server may see, where it does not get them all."""
    nodes = [hosts(gpus, one.per_host) for gpus in one.replicas]
    if all(len(node) == one.per_host for own in nodes for node in own):
        return []
    local = [[",".join(str(g % one.per_host) for g in node) for node in own] for own in nodes]
    if len({ids for own in local for ids in own}) == 1:
        return [f"export CUDA_VISIBLE_DEVICES={local[0][0]}"]
    each = {(r, n): f"export CUDA_VISIBLE_DEVICES={ids}" for r, own in enumerate(local) for n, ids in enumerate(own)}
    return cases(one, each)


def cases(one: EngineDegrees, each: dict[tuple[int, int], str]) -> list[str]:
    """One line by (replica, node), told apart by what the server has several of."""
    several = (one.copies > 1, len(one.nodes) > 1)
    names = [name for name, holds in zip(("$" + REPLICA, "$NODE"), several, strict=True) if holds]
    lines = []
    for key, line in each.items():
        case = ".".join(str(k) for k, holds in zip(key, several, strict=True) if holds)
        lines.append(f"{case}) {line};;")
    return [f'case "{".".join(names)}" in {" ".join(lines)} esac']


def broken(command: list[str]) -> str:
    """An option a line."""
    out = ""
    for word in command:
        quoted = word if isinstance(word, Shell) else shlex.quote(word)
        out += (" \\\n  " if word.startswith("--") else " " if out else "") + quoted
    return out
