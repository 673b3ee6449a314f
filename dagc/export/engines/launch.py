"""Plan in, launch files out: one server for each set of GPUs, by the rules of one engine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...base.units import TIME, Quantity, show, show_runs
from ...plan.plan import CompiledPlan
from ...spec.phase import Phase
from ...spec.spec import Spec
from .degrees import EngineDegrees, layout

SERVER_WIDE = ("redundant", "overlap", "dispatch", "sp_method", "sp_layout", "sequence_parallel", "shard")
"""Fields of a strategy that all phases of one server share."""
GATHERED = "dispatch = allgather: every rank has the tokens, computes its own experts, and they add up"
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@cache
def facts(engine: str) -> dict[str, Any]:
    """The engine's names of things, and the version that they were checked against."""
    import orjson

    found: dict[str, Any] = orjson.loads((files(__package__) / f"{engine}.json").read_bytes())
    return found


@record
class Refused:
    """A plan that an engine does not run. `rules`: those that it breaks; `lacking`: the engine could run it, but files for that are not
    written yet."""

    rules: tuple[str, ...]
    lacking: bool


@dataclass
class ServerDraft:
    """What an engine makes of one server. `refused`: rules that the plan breaks; `notes`: what the flags leave open."""

    engine: str
    layout: EngineDegrees
    model: str
    split: bool  # another server runs the other phase
    refused: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)  # what would fix them
    lacking: list[str] = field(default_factory=list)  # of those, what the engine can do and is not written yet
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, object] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()  # what does not fit

    def name(self, key: str) -> str:
        name: str = facts(self.engine)["names"][key]
        return name

    def flag(self, key: str, value: object = None) -> None:
        self.flags += [self.name(key)] if value is None else [self.name(key), str(value)]

    @property
    def exchange(self) -> str | None:
        """The engine's word for the kernels that all of its phases name for tokens; None: they name none, or it has no word."""
        named = {phase.exchange for phase in self.layout.phases}
        words: dict[str | None, str] = facts(self.engine).get("exchanges", {})
        return words.get(named.pop()) if len(named) == 1 else None

    def set(self, key: str, value: object) -> None:
        self.config[self.name(key)] = value

    def refuse(self, when: bool, rule: str) -> None:
        if when:
            self.refused.append(rule)

    def lack(self, when: bool, rule: str) -> None:
        """Refuse what the engine can do, and what is not written for it yet."""
        self.refuse(when, rule)
        if when:
            self.lacking.append(rule)

    def advise(self, when: bool, help: str) -> None:
        if when and help not in self.advice:
            self.advice.append(help)

    def ordered(self, attention: Sequence[str], experts: Sequence[str] = ()) -> None:
        """Refuse a plan whose GPUs are other ranks than the engine makes of them."""
        for what, order in (("attention", attention), ("experts", experts)):
            if not order or (what == "experts" and not self.layout.moe):
                continue
            wrong = self.layout.misplaced(order)
            self.refuse(bool(wrong), f"it numbers GPUs by {', '.join(order)} (outermost first) for {what}: {wrong}")


class Shell(str):
    """A word that the shell is to expand; every other word is quoted."""

    __slots__ = ()


NODE, HEAD = Shell('"$NODE"'), Shell('"$HEAD"')

Write = Callable[[ServerDraft], Mapping[str, str]]
"""Fills a draft, and writes its files: suffix -> text."""


def export(plan: CompiledPlan, engine: str, model: str | None, stem: str) -> dict[str, bytes]:
    """File name -> content for every server of the plan. Raises SpecError with E05 and every rule that it breaks."""
    write: Write = import_module(f".{engine}", __package__).write
    servers = merged([layout(result.graph, result.gpus, plan.units[name]) for name, result in plan.phases.items()])
    checkpoint = model if model is not None else next(iter(plan.units.values())).spec.model.name
    if checkpoint.startswith("-") or not checkpoint.isprintable():
        help = ("--model gives its name or path",)
        raise SpecError([Diagnostic("E05", f"`{checkpoint}` is not a name or path of a checkpoint", help=help)])
    out: dict[str, bytes] = {}
    errors = []
    for server in servers:
        draft = ServerDraft(engine, server, checkpoint, has_others(server), verdict=plan.overflow)
        common_rules(draft)
        left_open(draft)
        own_dtypes(draft, plan.spec)
        if model is None:
            draft.notes.append(f"`{draft.model}` is the model's name in the plan; --model gives the checkpoint's")
        written = write(draft)
        if draft.refused:
            message = f"{facts(engine)['engine']} {facts(engine)['version']} cannot express `{server.name}`"
            errors.append(
                Diagnostic(
                    "E05", message, server.phases[0].span, because=tuple(draft.refused), help=tuple(draft.advice)
                )
            )
        for suffix, text in written.items():
            out[f"{stem.removesuffix(f'.{server.name}')}.{server.name}.{engine}.{suffix}"] = text.encode()
    if errors:
        raise SpecError(errors)
    return out


def refused(layouts: list[EngineDegrees], engine: str) -> Refused | None:
    """By the same rules, for phases without a plan around them; None: the engine runs them."""
    write: Write = import_module(f".{engine}", __package__).write
    try:
        servers = merged(layouts)
    except SpecError as error:
        first = error.diagnostics[0]
        return Refused((first.message, *first.because), lacking=False)
    rules: list[str] = []
    lacking: list[str] = []
    for server in servers:
        draft = ServerDraft(engine, server, server.spec.model.name, has_others(server))
        common_rules(draft)
        left_open(draft)
        write(draft)
        rules += draft.refused
        lacking += draft.lacking
    return Refused(tuple(rules), len(lacking) == len(rules)) if rules else None


def merged(layouts: list[EngineDegrees]) -> list[EngineDegrees]:
    """Phases on the same GPUs are one server, which has one strategy."""
    out: list[EngineDegrees] = []
    for one in layouts:
        shared = next((k for k, other in enumerate(out) if other.serves(one.phases[0])), None)
        if shared is None:
            out.append(one)
            continue
        other = out[shared]
        if other.gpus != one.gpus or not _alike(other, one):
            message = f"`{other.name}` and `{one.name}` share GPUs, and one server has one strategy"
            because = tuple(f"{x.name}: {_degrees(x)}{_said(x, y)}" for x, y in ((other, one), (one, other)))
            help = ("lay both phases out in the same way, or give each its own GPUs; --phase exports one of them",)
            raise SpecError([Diagnostic("E05", message, one.phases[0].span, because=because, help=help)])
        out[shared] = replace(other, phases=(*other.phases, *one.phases))
    return out


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


def _degrees(one: EngineDegrees) -> str:
    degrees = ", ".join(f"{a} {n}" for a, n in one.degree.items() if n > 1)
    return f"{degrees or 'one rank'} on {len(one.gpus)} GPUs{one.of_pool}"


def common_rules(draft: ServerDraft) -> None:
    one, strategy = draft.layout, draft.layout.strategy
    draft.lack(strategy.replicas > 1, f"replicas = {strategy.replicas}: a launch is one replica; export it with one")
    draft.refuse(bool(strategy.shard), "`shard` rules of the plan have no flag")
    draft.refuse(bool(strategy.passes), "what a plugin's graph pass changed has no flag")
    width, tp = one.spec.model.count("mlp.hidden", 0), one.degree["tp"]
    draft.refuse(width % tp > 0, f"the mlp width {width} does not divide by tp {tp}, which every engine wants")
    counts = {len(node) for node in one.nodes}
    draft.refuse(len(counts) > 1, f"nodes have unequal numbers of its GPUs: {sorted(counts)}")
    context_parallel = "context_parallel" in facts(draft.engine)
    (draft.lack if context_parallel else draft.refuse)(
        one.degree["sp"] > 1,
        f"sp = {one.degree['sp']} ({strategy.sp_method}, {strategy.sp_layout}): its own context parallelism moves other data than the plan's",
    )
    if strategy.microbatches > 1:
        draft.notes.append(f"microbatches = {strategy.microbatches}: the engine forms its own batches as requests come")
    if strategy.redundant:
        draft.notes.append("redundant experts are placed by the load that the engine sees, not by the plan's routing")
    draft.notes.append("weights and their dtypes are those of the checkpoint")


def context_parallel(draft: ServerDraft, flag: str) -> None:
    """The flag of decode context parallelism, which a server has for all of its decode phases."""
    one = draft.layout
    if one.dcp == 1:
        return
    own = {phase.strategy.dcp for phase in one.phases if not phase.takes_prompts}
    draft.refuse(len(own) > 1, f"dcp = {' and '.join(map(str, sorted(own)))}: one server has one")
    draft.refuse(one.windows, f"dcp = {one.dcp} where some layers see a part of the context: it was not checked")
    draft.flag(flag, one.dcp)
    if any(phase.takes_prompts for phase in one.phases):
        draft.notes.append(
            "the engine splits caches of prompts by dcp as well; the plan's passes over prompts keep them whole"
        )


def has_others(server: EngineDegrees) -> bool:
    """Another server runs other phases of the spec, also where only one of them is exported. One that runs mixed steps
    needs none."""
    return not any(p.is_packed for p in server.phases) and any(
        p.name not in {own.name for own in server.phases} and not server.serves(p) for p in server.spec.phases
    )


def left_open(draft: ServerDraft) -> None:
    """What a phase asks of a server that has no flag here: refused where it would compute something else, noted where it
    is about time only."""
    model, work = draft.layout.spec.model, draft.layout.spec.workload
    capacity = model.attributes.get("experts.capacity")
    if isinstance(capacity, Quantity) and capacity.value:
        draft.refuse(True, f"experts.capacity = {capacity.value:g} drops tokens, which the engine does not")
    own = {p.name for p in draft.layout.phases}
    for other in draft.layout.spec.phases:
        if other.name not in own and draft.layout.serves(other):
            draft.notes.append(f"`{other.name}`, on the same GPUs, runs in this layout too, not in its own")
    for phase in draft.layout.phases:
        drafted_tokens(draft, phase)
        prefix = work.prompt - phase.new_tokens if phase.takes_prompts and not phase.parts else 0
        said = {
            f"chunk = {phase.tokens} tok: the engine cuts prompts by its own token budget": phase.passes > 1,
            "which prompts and sequences in decode share a step follows from the requests": bool(phase.parts),
            f"prefix = {prefix} tok: whether a prefix is cached follows from the requests": prefix > 0,
            f"dispatch_dtype = {phase.dispatch_dtype}: the engine chooses what tokens travel in": bool(
                phase.dispatch_dtype
            ),
            f"exchange = {phase.exchange}: the engine chooses the kernels": phase.exchange is not None
            and not (draft.exchange and draft.layout.exchanges),
            f"quantise = {phase.quantise}: the engine chooses which kernels quantise": phase.quantise != "fused",
            f"expert_activations = {phase.expert_activations}: the engine chooses its kernels of MXFP4 experts": bool(
                phase.expert_activations
            ),
            f"engine = {phase.engine}: times are those of its communication kernels": phase.engine != draft.engine,
            f"host = {show(phase.host_s, TIME)} is an input of the estimate": phase.host_s > 0,
            f"launch = {show(phase.launches.layer_s, TIME)} is an input of the estimate": "launch" in phase.spans,
            "window_cache = whole: the engine decides what its cache keeps behind a window": phase.window_cache
            != "freed",
            "memory { } of the plan is an input of its estimate": "memory" in phase.spans,
            f"kv_block = {phase.kv_block} tok: the engine chooses the blocks of its cache": phase.kv_block != 16,
            "cuda_graph = false: the server captures graphs unless all its phases do without": not phase.cuda_graph
            and (draft.layout.graphs or "no_graphs" not in facts(draft.engine)["names"]),
        }
        draft.notes += [words for words, holds in said.items() if holds and words not in draft.notes]


def own_dtypes(draft: ServerDraft, spec: Spec) -> None:
    """Where phases have dtypes of their own: the checkpoint of this server, and caches that other servers store otherwise."""
    one = draft.layout
    said = one.phases[0].precision
    if said is not None and said.weight_dtype is not None:
        draft.notes.append(f"weight_dtype = {said.weight_dtype}: this server needs a checkpoint in {said.weight_dtype}")
    for other in spec.phases:
        dtype = spec.of(other).model.kv_dtype
        if not one.serves(other) and dtype != one.spec.model.kv_dtype:
            draft.notes.append(
                f"caches are {one.spec.model.kv_dtype} here and {dtype} in `{other.name}`: whether it converts them on the way is not checked"
            )


def drafted_tokens(draft: ServerDraft, phase: Phase) -> None:
    """Flags by which an engine drafts with the layers that the model has for it; without these, a drafter is not named."""
    count, layers = phase.speculative, draft.layout.spec.model.count("mtp_layers", 0)
    if not count:
        return
    write = DRAFTS.get(draft.engine)
    why = "needs a drafter, and the model has no `mtp_layers`" if write is not None else "has no flag"
    if write is None or not layers:
        draft.refuse(True, f"draft = {count}: speculative decoding {why}")
        return
    write(draft, count)
    note = "the plan's times are without its drafter: `drafter = mtp` counts the model's MTP layers"
    draft.notes += [note] if phase.drafter == "none" and note not in draft.notes else []


def _vllm_drafts(draft: ServerDraft, count: int) -> None:
    draft.flag("speculative", json.dumps({"method": "mtp", "num_speculative_tokens": count}))


def _sglang_drafts(draft: ServerDraft, count: int) -> None:
    """One token a step of the drafter, and no tree of them."""
    for name, value in (("algorithm", "EAGLE"), ("steps", count), ("eagle_topk", 1), ("tokens", count + 1)):
        draft.flag(f"speculative_{name}", value)


def _trtllm_drafts(draft: ServerDraft, count: int) -> None:
    draft.set("speculative", {"decoding_type": "MTP", "num_nextn_predict_layers": count})


DRAFTS: dict[str, Callable[[ServerDraft, int], None]] = {
    "vllm": _vllm_drafts,
    "sglang": _sglang_drafts,
    "trtllm": _trtllm_drafts,
}
"""How an engine is told to draft so many tokens by the model's own layers."""


def memory_share(draft: ServerDraft) -> float | None:
    """The share of a GPU that the plan says the engine fills; None: it says none, or one that counts other things."""
    said = [phase.memory for phase in draft.layout.phases if "memory_fraction" in phase.spans]
    if not said:
        return None
    counts = {"vllm": "all", "sglang": "static", "trtllm": "free"}.get(draft.engine)
    share = min(memory.fraction for memory in said)
    if any(memory.of != counts for memory in said):
        draft.notes.append(
            f"memory_fraction = {share:g} counts differently from its own share: `engine = {draft.engine}` fits"
        )
        return None
    return share


def comments(draft: ServerDraft) -> list[str]:
    known = facts(draft.engine)
    lines = [
        *draft.verdict,
        f"{draft.layout.name}: {_degrees(draft.layout)}",
        f"flags checked against {known['engine']} {known['version']}",
        f"tp there: {known['tp']}",
        *(f"not fixed by flags: {note}" for note in draft.notes),
    ]
    return [f"# {line}" for line in lines]


def script(draft: ServerDraft, command: list[str]) -> str:
    """The command, run on each node with the node's number."""
    one = draft.layout
    lines = ["#!/usr/bin/env bash", *comments(draft)]
    if len(one.nodes) > 1:
        lines.append("# run on each node: NODE=<its number here> HEAD=<address of number 0>")
        lines += [
            f"#   NODE={k}: GPU {show_runs(gpus)}{one.of_pool or ' of the pool'}" for k, gpus in enumerate(one.nodes)
        ]
        lines.append(': "${NODE:?}" "${HEAD:?}"')
    lines += [f"export {k}={shlex.quote(v)}" for k, v in draft.environment.items()]
    lines += devices(one)
    return "\n".join([*lines, _broken(command)]) + "\n"


def devices(one: EngineDegrees) -> list[str]:
    """Which GPUs of its node a server may see, where it does not get them all."""
    local = [",".join(str(g % one.per_host) for g in gpus) for gpus in one.nodes]
    if all(len(gpus) == one.per_host for gpus in one.nodes):
        return []
    if len(set(local)) == 1:
        return [f"export CUDA_VISIBLE_DEVICES={local[0]}"]
    cases = "; ".join(f"{k}) export CUDA_VISIBLE_DEVICES={ids}" for k, ids in enumerate(local))
    return [f'case "$NODE" in {";; ".join(cases.split("; "))};; esac']


def _broken(command: list[str]) -> str:
    """An option a line."""
    out = ""
    for word in command:
        quoted = word if isinstance(word, Shell) else shlex.quote(word)
        out += (" \\\n  " if word.startswith("--") else " " if out else "") + quoted
    return out
