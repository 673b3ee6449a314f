"""Phases as servers: those on the same GPUs are one, which an engine runs or refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from ...base.diagnostics import Diagnostic
from ...base.frozen import record, replace
from ...engines.facts import Facts, facts
from .degrees import EngineDegrees
from .draft import ServerDraft
from .script import degrees_text

SERVER_WIDE = (
    "redundant",
    "expert_placement",
    "overlap",
    "dispatch",
    "sp_method",
    "sp_layout",
    "sequence_parallel",
    "shard",
)
"""Fields of a strategy that all phases of one server share."""


Write = Callable[[ServerDraft], Mapping[str, str]]
"""Judges and fills a draft, and writes its files: suffix -> text."""


@record
class Refused:
    """A plan that an engine does not run. `rules`: those that it breaks, in words; `change`: parts of the plan that may be changed to keep them;
    `lacking`: the engine could run it, but files for that are not written yet; `names`: of the rules."""

    rules: tuple[str, ...]
    lacking: bool
    change: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def writer(engine: str) -> Write:
    write: Write = import_module(f".{engine}", __package__).write
    return write


def command(draft: ServerDraft) -> list[str]:
    """The words of a server that serves over HTTP, on any of its nodes."""
    words: list[str] = import_module(f".{draft.engine}", __package__).command(draft)
    return words


def refused(layouts: list[EngineDegrees], engine: str | Facts) -> Refused | None:
    """By the same rules, for phases without a plan around them; None: the engine runs them."""
    known = facts(engine) if isinstance(engine, str) else engine
    write = writer(known.name)
    servers, errors = merged(layouts)
    if errors:
        return Refused((errors[0].message, *errors[0].because), lacking=False)
    broken = []
    for server in servers:
        draft = ServerDraft(known, server, server.spec.model.name, has_others(server))
        write(draft)
        broken += draft.refused
    if not broken:
        return None
    change = tuple(dict.fromkeys(part for one in broken for part in one.rule.change))
    names = tuple(one.rule.name for one in broken)
    return Refused(tuple(one.text for one in broken), all(one.rule.lacking for one in broken), change, names)


def merged(layouts: Sequence[EngineDegrees]) -> tuple[list[EngineDegrees], list[Diagnostic]]:
    """Phases on the same GPUs are one server, which has one strategy; and why some are none."""
    cpu = next((one for one in layouts if one.spec.hardware.kind == "cpu"), None)
    if cpu is not None:
        message = f"`{cpu.spec.hardware.name}` is a CPU (`kind = cpu`), and what engines are told here is for GPUs"
        help = ("name the GPUs of the deployment in `hardware`; `dagc run` runs a plan on CPUs",)
        return [], [Diagnostic("E05", message, cpu.spec.hardware.span, help=help)]
    groups: list[list[EngineDegrees]] = []
    for one in layouts:
        own = next((group for group in groups if any(other.serves(one.phases[0]) for other in group)), None)
        if own is None:
            groups.append([one])
        else:
            own.append(one)
    servers, errors = [], []
    for first, *others in groups:
        apart = next((one for one in others if first.replicas != one.replicas or not _alike(first, one)), None)
        if apart is None:
            servers.append(replace(first, phases=tuple(p for one in (first, *others) for p in one.phases)))
            continue
        message = f"`{first.name}` and `{apart.name}` share GPUs, and one server has one strategy"
        because = tuple(f"{x.name}: {degrees_text(x)}{_said(x, y)}" for x, y in ((first, apart), (apart, first)))
        help = ("lay both phases out in the same way, or give each its own GPUs; --phase exports one of them",)
        errors.append(Diagnostic("E05", message, apart.phases[0].span, because=because, help=help))
    return servers, errors


def _alike(a: EngineDegrees, b: EngineDegrees) -> bool:
    same = all((a.at[axis] == b.at[axis]).all() for axis in a.at) and a.degree == b.degree and a.layers == b.layers
    same = same and a.phases[0].precision == b.phases[0].precision
    return same and all(getattr(a.strategy, f) == getattr(b.strategy, f) for f in SERVER_WIDE)


def _said(one: EngineDegrees, other: EngineDegrees) -> str:
    """What its strategy says otherwise, besides degrees."""
    ours, theirs = one.strategy, other.strategy
    dtypes = [p.precision for p in (one.phases[0], other.phases[0])]
    if dtypes[0] != dtypes[1]:
        return f", {one.spec.model.precision}"
    differences = [f"{f} {getattr(ours, f)}" for f in SERVER_WIDE if getattr(ours, f) != getattr(theirs, f)]
    return "".join(f", {words}" for words in differences)


def has_others(server: EngineDegrees) -> bool:
    """Another server runs other phases of the spec, also where only one of them is exported. One that runs mixed steps
    needs none."""
    return not any(p.is_packed for p in server.phases) and any(
        p.name not in {own.name for own in server.phases} and not server.serves(p) for p in server.spec.phases
    )
