"""vLLM: attention is tensor parallel inside a data-parallel rank; experts take all ranks of both, either whole experts
on each (expert parallel) or a part of every expert on each."""

from __future__ import annotations

from collections.abc import Mapping

from . import shared_values as values
from .draft import Check, ServerDraft, Value, fill, judge
from .rules import COMMON
from .script import HEAD, NODE, script
from .words import Others, Told


def write(draft: ServerDraft) -> Mapping[str, str]:
    judge(draft, CHECKS)
    if not any(one.rule.name in ("experts_all_or_nothing", "sequence_split") for one in draft.refused):
        draft.ordered(("dp", "pp", "sp", "tp"))
    fill(draft, VALUES)
    return {"sh": script(draft, command(draft))}


def command(draft: ServerDraft) -> list[str]:
    """The server, on each of its nodes; all but the first run without a front end."""
    start = ["vllm", "serve", draft.model, *draft.flags]
    nodes = len(draft.layout.nodes)
    if nodes == 1:
        return start
    # Which ranks a node runs follows from its number; a start rank on node 0 would ask for a server on every node.
    option = draft.name("headless")
    others = Told(f'$([ "$NODE" = 0 ] || echo {option})', Others(option))
    port = values.own_port(draft, "master")
    where = [draft.name("nodes"), str(nodes), draft.name("node"), NODE, draft.name("master"), HEAD]
    where += [draft.name("master_port"), port]
    if draft.layout.degree["dp"] > 1 and any(
        values.port_of(draft, "ranks", replica) != values.port_first(draft, "ranks")
        for replica in range(draft.layout.copies)
    ):
        # Its default is the port of the first server of a host.
        where += [draft.name("dp_port"), values.own_port(draft, "ranks")]
    return [*start, *where, others]


def has_whole_experts(draft: ServerDraft) -> bool:
    d = draft.layout.degree
    return d["ep"] == d["dp"] * d["tp"] and d["etp"] == 1


def experts_all_or_nothing(draft: ServerDraft) -> str:
    d = draft.layout.degree
    ranks = d["dp"] * d["tp"]
    if not draft.layout.moe or has_whole_experts(draft) or (d["ep"] == 1 and d["etp"] == ranks):
        return ""
    return (
        f"experts ep {d['ep']} x tp {d['etp']} over {ranks} ranks (edp {d['edp']}): expert parallelism is all or "
        f"nothing, ep {ranks} with tp 1 or ep 1 with tp {ranks}"
    )


def experts_order(draft: ServerDraft) -> str:
    one, axis = draft.layout, "ep" if has_whole_experts(draft) else "etp"
    if not one.moe or experts_all_or_nothing(draft) or one.follows(axis, ("dp", "tp")):
        return ""
    return f"{axis} of a rank is dp x {one.degree['tp']} + tp there"


def redundant_without_ep(draft: ServerDraft) -> str:
    one = draft.layout
    whole = one.moe and has_whole_experts(draft) and one.degree["ep"] > 1
    if whole or not values.placed_by_load(draft):
        return ""
    return "redundant experts need ep" if one.strategy.redundant else "experts are placed by loads with ep alone"


def two_batch(draft: ServerDraft) -> str:
    one = draft.layout
    lacks = one.strategy.overlap == "two_batch" and (one.degree["dp"] == 1 or not one.exchanges)
    return "overlap = two_batch needs dp and an exchange of tokens" if lacks else ""


def rank_and_node(draft: ServerDraft) -> str:
    one = draft.layout
    each, held = one.degree["pp"] * one.degree["tp"], len(one.nodes[0])
    if len(one.nodes) == 1 or not (held % each and each % held):
        return ""
    return f"a data-parallel rank of {each} GPUs neither fills nodes of {held} nor divides them"


LATENCY_TOKENS = 1024
"""Tokens of a rank in a step that the exchange for latency takes."""


def latency_tokens(draft: ServerDraft) -> str:
    tokens = draft.layout.decode_tokens
    if exchange(draft) not in draft.facts.words["buffered"] or tokens <= LATENCY_TOKENS:
        return ""
    return f"{tokens:,} tokens of a rank in a step of decode: the exchange for latency takes up to {LATENCY_TOKENS}"


CHECKS: dict[str, Check] = {
    **COMMON,
    "experts_all_or_nothing": experts_all_or_nothing,
    "experts_order": experts_order,
    "redundant_without_ep": redundant_without_ep,
    "two_batch": two_batch,
    "rank_and_node": rank_and_node,
    "latency_tokens": latency_tokens,
}


def exchange(draft: ServerDraft) -> object:
    """How tokens come to their experts. Without dp the ranks all have them: each computes its own experts, and they add up."""
    one, words = draft.layout, draft.facts.words
    if not one.moe or one.degree["ep"] == 1 or one.degree["dp"] == 1:
        return None
    if not one.exchanges:
        return words["gathered"]
    return draft.exchange or draft.by_vendor("latency" if one.kinds == {"decode"} else "throughput")


def exchange_said(draft: ServerDraft) -> object:
    chosen, one = exchange(draft), draft.layout
    if chosen in draft.facts.words["uncaptured"] and "decode" in one.kinds and one.graphs:
        draft.note("vLLM captures no CUDA graphs with this exchange; the times of decode steps assume them")
    return chosen


def budget(draft: ServerDraft) -> object:
    """Its buffers have room for a step of so many tokens."""
    tokens = values.budget(draft)
    if exchange(draft) not in draft.facts.words["buffered"] or not isinstance(tokens, int) or tokens <= LATENCY_TOKENS:
        return tokens
    draft.note(f"the exchange for latency takes {LATENCY_TOKENS} tokens of a rank in a step, the plan {tokens:,}")
    return LATENCY_TOKENS


def redundant_experts(draft: ServerDraft) -> object:
    count, every = values.redundant(draft), values.rebalanced_every(draft)
    said = {"num_redundant_experts": count, "step_interval": every}
    return {name: value for name, value in said.items() if value} or None


def prompt_chunk(draft: ServerDraft) -> object:
    """Where a step holds more than a chunk of one prompt."""
    tokens = values.chunk(draft)
    return tokens if tokens and values.step_tokens(draft) > tokens else None


def draft_config(draft: ServerDraft) -> object:
    for phase in draft.layout.phases:
        if phase.draft_model is not None:
            name, count = phase.draft_model.name, phase.speculative
            draft.note(f"`{name}` is the name of the model that drafts in the plan: put its checkpoint in its place")
            return {"method": draft.facts.words["draft_model"], "model": name, "num_speculative_tokens": count}
    count = values.drafted(draft)
    return {"method": "mtp", "num_speculative_tokens": count} if count else None


def one_domain(chosen: str) -> Value:
    """Whether hosts of a server are joined by the links that GPUs of one host have, so that this exchange may use them."""

    def value(draft: ServerDraft) -> object:
        one, size = draft.layout, draft.layout.spec.hardware.per_node
        together = len(one.nodes) > 1 and len({gpu // size for gpu in one.gpus}) == 1
        return True if together and exchange(draft) == draft.facts.words["domain"][chosen] else None

    return value


def transfer(draft: ServerDraft) -> object:
    return {"kv_connector": "NixlConnector", "kv_role": "kv_both"} if draft.split else None


def side_port(draft: ServerDraft) -> object:
    """A data-parallel rank adds its number: so far apart that no two servers of the plan meet on a host."""
    return values.own_port(draft, "side_channel") if draft.split else None


VALUES: dict[str, Value] = {
    **values.SHARED,
    "exchange": exchange_said,
    "budget": budget,
    "redundant_experts": redundant_experts,
    "two_batch_tokens": lambda draft: (
        2 if values.two_batch(draft) else None
    ),  # a token for each batch: fewer are refused
    "chunk": prompt_chunk,
    "draft": draft_config,
    "domain_latency": one_domain("latency"),
    "domain_throughput": one_domain("throughput"),
    "transfer": transfer,
    "side_host": lambda draft: values.OWN if draft.split else None,
    "side_port": side_port,
}
