"""Servers as a spec: a phase for what each does, on GPUs of its own, and a serving with their limits."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from math import lcm

from ...base.diagnostics import Collector, Diagnostic, SpecError
from ...base.frozen import record, replace
from ...base.harmless import harmless
from ...base.source import Source
from ...base.syntax.format import format_source
from ...base.units import show_runs
from ...lang.load import load
from ...spec.engines import SCHEDULING
from .batches import Pass, Steps, steps
from .known import Known
from .reading import UNKNOWN
from .seats import seats
from .server import Pool, Server
from .unsaid import Given

USUAL_TOKENS = 1024
"""Of prompts and outputs, where nobody says."""


@record
class Text:
    text: str
    notes: tuple[str, ...]


@record
class Lengths:
    prompt: int
    output: int
    context: int | None
    notes: tuple[str, ...]


def spec_text(servers: Sequence[Server], model: Known, checkpoint: str, given: Given, notes: Sequence[str]) -> Text:
    """Raises SpecError where no plan follows from the commands."""
    lengths = _lengths(servers, given)
    given = replace(given, context=lengths.context)
    every = [*notes, *lengths.notes, *(n for s in servers for n in s.notes)]
    placed: list[tuple[int, ...]] = [()] * len(servers)
    hardware = []
    pools = {one.pool.name: one.pool for one in servers}
    for pool in pools.values():
        own = [k for k, one in enumerate(servers) if one.pool.name == pool.name]
        found = seats([servers[k] for k in own], pool.hardware.per_host)
        for k, ids in zip(own, found, strict=True):
            placed[k] = ids
        hardware.append(_hardware(pool, found, given))
    links, said = _links([*pools.values()])
    every += said
    done = steps(servers, lengths.prompt - given.prefix, given)
    every += done.notes
    names = _names(servers)
    phases = [
        _phase(name, kind, one, ids, model, given, done)
        for one, ids, own in zip(servers, placed, names, strict=True)
        for kind, name in own.items()
    ]
    sequences = sum(p.sequences for (_, kind), p in done.passes.items() if kind == "decode") or max(
        p.sequences for p in done.passes.values()
    )
    clients = given.concurrency or done.clients or sequences
    workload = f"workload {{ sequences = {sequences}, prompt = {lengths.prompt} tok, output = {lengths.output} tok }}"
    parts = ["moe 1", *hardware, *links, _model(servers, model, given), workload, *phases]
    if serve := _serve(names, done, clients):
        parts.append(serve)
        every.append(f"closed({clients}): so many clients, each of which waits for its answer")
    every = list(dict.fromkeys(every))
    body = "\n\n".join([*_head(servers, checkpoint, every), *parts]) + "\n"
    source = Source("the import", body)
    _check(source, servers, given)
    return Text(format_source(source), tuple(every))


def _check(source: Source, servers: Sequence[Server], given: Given) -> None:
    """Raises SpecError, which names options that nobody knows: one of them may be what the layout lacks."""
    strange = [line.option for one in servers for line in one.lines if line.outcome == UNKNOWN]
    out = Collector()
    try:
        load(source, out, allow_import=given.allow_import)
        out.check()
    except SpecError as error:
        if strange:
            shown = ", ".join(f"`{harmless(option)[:80]}`" for option in dict.fromkeys(strange[:8]))
            found = Diagnostic("E05", f"the engine has no option {shown}: what it says is not in the plan")
            raise SpecError([*error.diagnostics, found]) from None
        raise


def _hardware(pool: Pool, placed: Sequence[Sequence[int]], given: Given) -> str:
    count = max(gpu_id for ids in placed for gpu_id in ids) + 1
    hosts = -(-count // pool.hardware.per_host) * pool.hardware.per_host
    gpus = given.gpus or hosts
    if gpus < count:
        raise SpecError(
            [Diagnostic("E05", f"the servers need {count} GPUs, and there are {gpus}", help=(f"--gpus {hosts}",))]
        )
    return f'hardware {pool.name} from "{pool.preset}" {{ gpus = {gpus} }}'


def _links(pools: Sequence[Pool]) -> tuple[list[str], list[str]]:
    """Between pools, and what is assumed of them: no command says it."""
    if len(pools) < 2:
        return [], []
    ends = [pool.hardware.cluster for pool in pools]
    bandwidth, latency = min(end.bandwidth_Bps for end in ends), max(end.latency_s for end in ends)
    first, second = (pool.name for pool in pools)
    text = f"link {first} to {second} {{ bandwidth = {bandwidth / 1e9:g} GB/s, latency = {latency * 1e6:g} us }}"
    return [text], [
        f"caches travel between both kinds of GPUs as fast as the slower network is: {bandwidth / 1e9:g} GB/s"
    ]


def _head(servers: Sequence[Server], checkpoint: str, notes: Sequence[str]) -> list[str]:
    """Comments: what was imported, how each option was read, and what is assumed."""
    lines = []
    for one in servers:
        lines.append(f"{one.command.name or one.role}: {_shown(' '.join(one.command.argv))}")
        lines += [f"  {line.option}: {line.outcome}{f', {line.words}' if line.words else ''}" for line in one.lines]
    lines += [f"Assumed: {note}." for note in notes]
    lines.append(f"Back: dagc export SPEC --to {servers[0].engine} --model {shlex.quote(checkpoint)}")
    return ["\n".join(f"# {_shown(line)}" for line in lines)]


def _shown(line: str) -> str:
    plain = harmless(line.replace("\n", " "))
    return plain if len(plain) <= 400 else f"{plain[:400]}..."


def _lengths(servers: Sequence[Server], given: Given) -> Lengths:
    notes = []
    limit = min((s.context for s in servers if s.context is not None), default=None)
    prompt, output = given.prompt, given.output
    if prompt is None:
        room = None if limit is None else limit - (output or 1)
        prompt = max(
            1, min(USUAL_TOKENS, room if room is not None and output is not None else (limit or 2 * USUAL_TOKENS) // 2)
        )
        notes.append(f"prompts are not said: {prompt:,} tokens (--prompt-tokens)")
    if output is None:
        output = max(1, min(USUAL_TOKENS, limit - prompt if limit is not None else USUAL_TOKENS))
        notes.append(f"outputs are not said: {output:,} tokens (--output-tokens)")
    if limit is not None and prompt + output > limit:
        message = f"{prompt:,} tokens of prompt and {output:,} of output are more than the {limit:,} of a sequence that the server takes"
        raise SpecError([Diagnostic("E05", message)])
    if given.prefix >= prompt:
        raise SpecError(
            [Diagnostic("E05", f"a prefix of {given.prefix:,} tokens leaves nothing of a prompt of {prompt:,}")]
        )
    if limit is not None and limit > prompt + output and given.context is None:
        notes.append(f"sequences may have {limit:,} tokens, and those of the plan have {prompt + output:,}")
    context, parts = given.context, lcm(*(s.dcp for s in servers))
    if context is None and (prompt + output) % parts:
        context = -(-(prompt + output) // parts) * parts
        notes.append(f"a step of decode has {context:,} tokens of each sequence, which dcp cuts evenly")
    return Lengths(prompt, output, context, tuple(notes))


def _names(servers: Sequence[Server]) -> list[dict[str, str]]:
    """Of the phases of each server, by kind: a number where a kind has several."""
    kinds = [kind for s in servers for kind in s.kinds]
    counts: dict[str, int] = {}
    out = []
    for one in servers:
        own = {}
        for kind in one.kinds:
            counts[kind] = counts.get(kind, 0) + 1
            own[kind] = kind if kinds.count(kind) == 1 else f"{kind}{counts[kind]}"
        out.append(own)
    return out


def _model(servers: Sequence[Server], model: Known, given: Given) -> str:
    dtypes = {s.dtype for s in servers if s.dtype}
    attributes = {}
    own = next(iter(dtypes)) if len(dtypes) == 1 else model.model.dtype
    if own != model.model.dtype:
        attributes["dtype"] = own
    weights = given.weight_dtype or next((s.weight_dtype for s in servers if s.weight_dtype), "") or model.weights
    if weights and (weights != model.model.weight_dtype or model.model.weight_dtypes):  # of parts too
        attributes["weight_dtype"] = weights
    caches = {_cache(s, own) for s in servers}
    if len(caches) == 1 and (cache := caches.pop()) and cache != model.model.kv_dtype:
        attributes["kv_dtype"] = cache
    said = ", ".join(f"{k} = {v}" for k, v in attributes.items())
    if model.preset:
        return f'model from "{model.preset}" {{ {said} }}'
    return model.text if not said else _with(model, attributes)


def _with(model: Known, attributes: dict[str, str]) -> str:
    """Of a model that is written out."""
    from ...lang.printer.model import model_parts

    return "\n\n".join(model_parts(replace(model.model, **attributes), lean=True))


def _cache(one: Server, dtype: str) -> str:
    return dtype if one.kv_dtype == "auto" else one.kv_dtype


def _phase(name: str, kind: str, one: Server, gpus: Sequence[int], model: Known, given: Given, done: Steps) -> str:
    own: Pass = done.passes[(id(one), kind)]
    ids = show_runs(list(gpus)).replace("-", "..")
    said: list[str] = [f"kind = {kind}"] if name != kind else []
    said += [
        f"gpus = [{ids}]" if "," in ids or ".." not in ids else f"gpus = {ids}",
    ]
    if one.pool.name:
        said.insert(0, f"hardware = {one.pool.name}")
    if one.engine in SCHEDULING:
        said.append(f"engine = {one.engine}")
    said.append(f"sequences = {own.sequences}")
    said += [
        f"{k} = {v}"
        for k, v in (("replicas", one.replicas), ("pp", one.pp), ("microbatches", own.microbatches))
        if v > 1
    ]
    if one.layers:
        said.append(f"layers_per_stage = [{', '.join(map(str, one.layers))}]")
    said += _degrees(one)
    if one.order:
        said.append(f"order = [{', '.join(one.order)}]")
    if one.ep > 1 and one.dispatch:
        said.append(f"dispatch = {one.dispatch}")
    if one.ep > 1 and one.dispatch == "all_to_all" and one.exchange:
        said.append(f"exchange = {one.exchange}")
    if one.redundant:
        said.append(f"redundant = {one.redundant}")
    elif one.by_load:
        said.append("expert_placement = eplb")
    if one.sequence_parallel:
        said.append("sequence_parallel = true")
    if one.two_batch:
        said.append("overlap = two_batch")
    if kind == "decode":
        if one.dcp > 1:
            said.append(f"dcp = {one.dcp}")
        if one.draft:
            said.append(f"draft = {one.draft}")
            if one.drafter == "mtp" and model.model.count("mtp_layers", 0):
                said.append("drafter = mtp")
        if given.context is not None:
            said.append(f"context = {given.context} tok")
    else:
        if own.chunk:
            said.append(f"chunk = {own.chunk} tok")
        if given.prefix:
            said.append(f"prefix = {given.prefix} tok")
    if one.kv_block is not None:
        said.append(f"kv_block = {one.kv_block} tok")
    if one.memory is not None:
        said.append(f"memory_fraction = {one.memory!r}")
    if not one.graphs:
        said.append("cuda_graph = false")
    if done.differs and (cache := _cache(one, model.model.dtype)):
        said.append(f"kv_dtype = {cache}")
    return f"phase {name} {{\n" + "\n".join(said) + "\n}"


def _degrees(one: Server) -> list[str]:
    if not one.moe:
        return [f"{axis} = {n}" for axis, n in (("dp", one.dp), ("tp", one.tp)) if n > 1]
    if one.dp == 1 and one.ep == 1 and one.etp == one.tp:
        return [f"tp = {one.tp}"] if one.tp > 1 else []
    attention = ", ".join(f"{axis} = {n}" for axis, n in (("dp", one.dp), ("tp", one.tp)) if n > 1)
    experts = ", ".join(f"{axis} = {n}" for axis, n in (("ep", one.ep), ("tp", one.etp)) if n > 1)
    return [f"attention {{ {attention} }}", f"experts {{ {experts} }}"]


def _serve(names: Sequence[dict[str, str]], done: Steps, clients: int) -> str:
    """Nothing where the phases are not those of one serving."""
    kinds: dict[str, list[str]] = {}
    for own in names:
        for kind, name in own.items():
            kinds.setdefault(kind, []).append(name)
    if {kind: len(found) for kind, found in kinds.items()} != {"prefill": 1, "decode": 1}:
        return ""
    said = [f"prefill = {kinds['prefill'][0]}, decode = {kinds['decode'][0]}"]
    said.append(f"arrivals = closed({clients}), requests = {10 * clients}")
    said += [f"{k} = {v}" for k, v in done.serve.items()]
    return "serve load {\n" + "\n".join(said) + "\n}"
