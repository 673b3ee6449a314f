"""A phase of inference as text."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.phase_kinds import DECODE
from ...base.units import show_runs
from ...spec.kv_cache import KvCache
from ...spec.phase import BatchLengths, EngineMemory, Phase
from .strategy import attention_use_text, expert_use_text, strategy_text
from .training import precision_text, trained_text
from .workload import routing_text
from .written import number, section_text, value_text


def phase_text(p: Phase) -> str:
    return trained_text(p, p.training) if p.training is not None else _served(p)


def _served(p: Phase) -> str:
    return section_text(
        f"phase {p.name}",
        [
            *(
                _batch(p, p.lengths)
                if p.lengths is not None
                else _mixed(p)
                if p.parts
                else (f"kind = {p.kind}, context = {p.context} tok, sequences = {p.sequences}",)
            ),
            f"{f'hardware = {p.hardware}, ' if p.hardware else ''}gpus = [{show_runs(p.gpus)}]",
            *_new_tokens(p),
            *(
                [f"exit = [{', '.join(f'at(layers = {e.layer}, share = {number(e.share)})' for e in p.exits)}]"]
                if p.exits
                else []
            ),
            *precision_text(p.precision),
            *([f"dispatch_dtype = {p.dispatch_dtype}"] if p.dispatch_dtype else []),
            *([f"exchange = {p.exchange}"] if p.exchange else []),
            f"quantise = {p.quantise}",
            *([f"fuse = [{', '.join(p.fuse)}]" if p.fuse else "fuse = none"] if p.fuse is not None else []),
            *([f"expert_activations = {p.expert_activations}"] if p.expert_activations else []),
            *([f"engine = {p.engine}"] if p.memory.engine is not None else []),
            f"host = {number(p.host_s, 's')}, cuda_graph = {value_text(p.cuda_graph)}",
            *([f"launch = {number(p.launches.layer_s, 's')}"] if p.launches.layer_s or p.memory.engine else []),
            f"memory_fraction = {number(p.memory.fraction)}",
            *_beside(p.memory),
            f"window_cache = {p.window_cache}, kv_block = {p.kv_block} tok",
            *_cache(p.cache),
            *(
                [f"routing = {routing_text(p.routing)}"]
                if p.routing is not None and p.strategy.rebalance is None
                else []
            ),
            *strategy_text(
                p.strategy, "redundant", use={"experts": expert_use_text(p.experts), "attention": attention_use_text(p)}
            ),
        ],
    )


def _beside(m: EngineMemory) -> Iterator[str]:
    parts = {"graphs": m.graphs_B, "communication": m.communication_B, "padding": m.padding_B}
    sizes = (f"{name} = {number(size, 'B')}" for name, size in parts.items() if size is not None)
    yield f"memory {{ tokens = {m.tokens} tok, sequences = {m.sequences}, {', '.join(sizes)} }}"


def _cache(c: KvCache) -> Iterator[str]:
    said = [f"keep = {c.keep} tok, sinks = {c.sinks} tok, heavy = {number(c.heavy)}"] if c.keep else []
    said += [f"ratio = {number(c.ratio)}"] if c.ratio != 1.0 else []
    said += [f"offload = {number(c.offload)}, prefetch = {value_text(c.prefetch)}"] if c.offload else []
    said += [f"dtypes {{ {', '.join(f'{name} = {dtype}' for name, dtype in c.dtypes)} }}"] if c.dtypes else []
    if said:
        yield f"kv_cache {{ {', '.join(said)} }}"


def _mixed(p: Phase) -> Iterator[str]:
    decode, prompts = ([q for q in p.parts if is_prompt == (q.scope != DECODE.name)] for is_prompt in (False, True))
    yield f"kind = {p.kind}"
    yield from (f"decode = {q.sequences}, context = {q.context} tok" for q in decode)
    if prompts:
        each = [q for q in prompts for _ in range(q.sequences)]
        yield f"prompts = [{', '.join(f'{q.tokens} tok' for q in each)}]"
        yield f"prefixes = [{', '.join(f'{q.context - q.tokens} tok' for q in each)}]"


def _batch(p: Phase, lengths: BatchLengths) -> Iterator[str]:
    yield f"kind = {p.kind}, sequences = {p.sequences}, lengths = {lengths.form}, packing = {lengths.packing}"
    if p.parts and p.context > p.tokens:
        yield f"prefix = {p.context - p.tokens} tok"


def _new_tokens(p: Phase) -> Iterator[str]:
    if p.parts and not p.speculative:
        return
    if p.speculative:
        drafter = f", drafter = {p.drafter}" if p.drafter != "none" else ""
        drafter += f', draft_model = "{p.draft_model.name}"' if p.draft_model is not None else ""
        drafted = f"tree = [{', '.join(map(str, p.tree))}]" if p.tree else f"draft = {p.speculative}"
        yield f"{drafted}, acceptance = {_acceptance(p)}{drafter}"
    elif p.takes_prompts and p.tokens < p.context:
        yield f"prefix = {p.context - p.new_tokens} tok" + _chunks(p)


def _chunks(p: Phase) -> str:
    if p.passes == 1:
        return ""
    by = ", chunk_by = work" if p.by_work else ""
    return f", chunk = {p.chunk if p.by_work else p.tokens} tok{by}" + (
        ", chunk_overlap = full" if p.chunks_overlap else ""
    )


def _acceptance(p: Phase) -> str:
    if not p.chances:
        return number(p.acceptance)
    positions = (", ".join(map(number, own)) for own in p.chances)
    return f"[{', '.join(f'[{own}]' if len(p.chances[i]) > 1 else own for i, own in enumerate(positions))}]"
