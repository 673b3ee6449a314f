"""A plan's deployment: the servers that an engine makes of it, as many workers as its serving has, on hosts in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...base.diagnostics import SpecError
from ...base.frozen import replace
from ...engines.facts import facts
from ...plan.plan import CompiledPlan
from ...spec.serve import Serve
from ...spec.spec import Spec
from ..engines import SERVING
from ..engines.degrees import EngineDegrees, hosts
from ..engines.draft import ServerDraft
from ..engines.launch import drafted
from ..engines.router import ends_of, front, front_port, role
from ..engines.script import remarks
from ..engines.servers import command
from ..engines.shared_values import port_of
from .deployment import Deployment, Host, Place, Router, Server, refused


def deployment(plan: CompiledPlan, engine: str, model: str | None, stem: str, version: str | None = None) -> Deployment:
    """Raises SpecError with E05 where the engine does not serve, or refuses any server of the plan."""
    if engine not in SERVING:
        known = facts(engine, version)
        message = f"{known.engine} has no server: there is no deployment to start"
        without = "without --launcher its launch commands are written"
        raise refused(message, without, f"servers have {', '.join(SERVING)}")
    made = drafted(plan, engine, model, version)
    if made.refused:
        raise SpecError(list(made.refused))
    serve = _serving(plan.spec)
    notes = _missing([draft for draft, _ in made.servers], plan.spec)
    taken = {pool: set(gpus) for pool, gpus in _used(plan).items()}
    servers = [(_grown(draft, serve, taken, notes), files) for draft, files in made.servers]
    return _joined(servers, plan.spec, stem, notes)


def _serving(spec: Spec) -> Serve | None:
    return spec.serves[0] if spec.serves else None


def _missing(drafts: Sequence[ServerDraft], spec: Spec) -> list[str]:
    """Where only a part of the plan is deployed."""
    here = {p.name for draft in drafts for p in draft.layout.phases}
    names = [f"`{p.name}`" for p in spec.phases if p.name not in here]
    return [f"without {', '.join(names)} of the plan, and without a router to it"] if names else []


def _used(plan: CompiledPlan) -> Mapping[str, set[int]]:
    """GPUs of each pool that phases are on."""
    out: dict[str, set[int]] = {}
    for name, result in plan.phases.items():
        out.setdefault(plan.units[name].phase.hardware or "", set()).update(result.gpus)
    return out


def _grown(draft: ServerDraft, serve: Serve | None, taken: dict[str, set[int]], notes: list[str]) -> ServerDraft:
    """With the replicas that further workers of a serving are, on the next GPUs that nothing uses."""
    one = draft.layout
    names = {p.name for p in one.phases}
    if serve is None or not names & {serve.prefill, serve.decode, serve.mixed}:
        return draft
    count = serve.prefill_workers if role(draft) == "prefill" else serve.workers
    if count == 1:
        return draft
    pool = one.phases[0].hardware or ""
    worker = [gpu for own in one.replicas for gpu in own]
    one_host = len({gpu // one.per_host for gpu in worker}) == 1
    step = len(worker) if one_host and one.per_host % len(worker) == 0 else one.per_host
    replicas = list(one.replicas)
    start = min(worker)
    shift = -(start // step) * step
    for _ in range(count - 1):
        while taken[pool] & {gpu + shift for gpu in worker}:
            shift += step
        replicas += [tuple(gpu + shift for gpu in own) for own in one.replicas]
        taken[pool] |= {gpu + shift for gpu in worker}
    notes.append(f"{one.name}: {count} workers, as `{serve.name}` has, of which the plan places the first")
    beyond = max(gpu for own in replicas for gpu in own) + 1
    if beyond > one.spec.hardware.gpus:
        notes.append(f"{one.name}: they need {beyond} GPUs{one.of_pool}, the plan has {one.spec.hardware.gpus}")
    return replace(draft, layout=replace(one, replicas=tuple(replicas)))


def _joined(
    drafts: Sequence[tuple[ServerDraft, Mapping[str, str]]], spec: Spec, stem: str, notes: Sequence[str]
) -> Deployment:
    pools = list(dict.fromkeys(draft.layout.phases[0].hardware or "" for draft, _ in drafts))
    numbered = sorted({(pools.index(pool), host) for draft, _ in drafts for pool, host in _hosts(draft.layout)})
    index = {(pools[pool], host): k for k, (pool, host) in enumerate(numbered)}
    servers = tuple(_server(draft, files, index) for draft, files in drafts)
    sizes = {server.pool: server.gpus_per_host for server in servers}
    ends = ends_of([draft for draft, _ in drafts])
    made = front(ends, spec)
    first = drafts[0][0]
    return Deployment(
        re.sub(r"[^A-Za-z0-9_.-]", "_", stem),
        first.engine,
        first.facts.version,
        first.facts.label,
        first.model,
        servers,
        Router(made.command, made.file, front_port(ends)) if made is not None else None,
        tuple(Host(pool, host, sizes[pool]) for pool, host in index),
        tuple(notes),
        spec,
    )


def _hosts(one: EngineDegrees) -> set[tuple[str, int]]:
    return {(one.phases[0].hardware or "", gpu // one.per_host) for own in one.replicas for gpu in own}


def _server(draft: ServerDraft, files: Mapping[str, str], index: Mapping[tuple[str, int], int]) -> Server:
    one = draft.layout
    pool = one.phases[0].hardware or ""
    nodes = [hosts(own, one.per_host) for own in one.replicas]
    places = tuple(
        tuple(Place(index[pool, node[0] // one.per_host], tuple(gpu % one.per_host for gpu in node)) for node in own)
        for own in nodes
    )
    ports = {what: tuple(port_of(draft, what, r) for r in range(one.copies)) for what in draft.facts.words["ports"]}
    return Server(
        one.name,
        role(draft) or "both",
        draft.engine,
        draft.model,
        one.spec.hardware.vendor,
        pool,
        tuple(command(draft)),
        dict(draft.environment),
        {suffix: _settings(text) for suffix, text in files.items() if suffix != "sh"},
        places,
        one.per_host,
        ports,
        dict(one.degree),
        draft.facts.words.get("by_rank", False),
        tuple(remarks(draft)),
    )


def _settings(text: str) -> str:
    """Of a file, without the remarks that the server has by itself."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
