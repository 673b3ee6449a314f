"""Mutants of the passes: does the verifier or the proof see the plans that a broken pass makes?"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np

import dagc
from dagc.base.diagnostics import SpecError
from dagc.execute.prove import Alone, prove_graph
from dagc.execute.prove import alone as model_alone
from dagc.ir import axes, chains, moves
from dagc.ir import mesh as ir_mesh
from dagc.ir.graph import Graph
from dagc.ir.ops import attention as op_attention
from dagc.ir.ops import experts as op_experts
from dagc.ir.ops import op_set, sizes
from dagc.passes import dp, ep, mesh, norms, place, pp, reshard, sp, tp
from dagc.pipeline import gpu_ids
from dagc.pipeline.lower import lower
from dagc.spec import factors
from dagc.spec.unit import Unit

from .plans import EXPERTS, GQA, MLA, PLANS, SHARED, SPEC
from .sources import SourceMutant, rewritten, source_mutants
from .strategy import not_carried_out, wrong_ids

MORE: dict[str, tuple[str, str, str, str]] = {
    "order": ("prefill", "gpus = 0..7, order = [tp, pp, ep, sp, dp], pp = 2, tp = 2, dp = 2, layers_per_stage = [2, 2]", GQA, EXPERTS),
    "ids that are not in order": ("prefill", "gpus = [5, 3, 1, 7], ep = 2, tp = 2", GQA, EXPERTS),
    "replicas": ("prefill", "gpus = 0..3, replicas = 2, tp = 2", GQA, EXPERTS),
    "experts gathered": ("prefill", "gpus = 0..3, ep = 2, tp = 2, dispatch = allgather", GQA, EXPERTS),
    "experts repeated": ("prefill", "gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 2 }", GQA, EXPERTS),
    "experts in tp, cut": ("prefill", "gpus = 0..3\nattention { sp = 2, tp = 2 }\nexperts { ep = 4 }", GQA, SHARED),
    "experts folded over the sequence": ("prefill", "gpus = 0..3\nattention { sp = 4 }\nexperts { ep = 2, tp = 2 }", GQA, EXPERTS),
    "two lanes": ("prefill", "gpus = 0..1, ep = 2, overlap = two_batch", GQA, EXPERTS),
    "tp beyond KV heads": ("decode", "gpus = 0..3, tp = 4", GQA, SHARED),
    "decode, folded": ("decode", "gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }", MLA, EXPERTS),
    "an expression for ids": ("prefill", "gpus = 0..7, dp = 2, tp = 4, place gpu = -(dp * 4 + tp) / 1 + 2 * 3.5", GQA, EXPERTS),
    "a rule": ("prefill", "gpus = 0..3, tp = 4, shard { hidden = tp }", GQA, EXPERTS),
    "decode, mla, context over tp": ("decode", "gpus = 0..3, tp = 4, dcp = 4", MLA, EXPERTS),
    "decode, mla, context over half of tp": ("decode", "gpus = 0..3, tp = 4, dcp = 2", MLA, SHARED),
    "decode, context over sp and tp": ("decode", "gpus = 0..7, sp = 2, tp = 4, dcp = 2", GQA, EXPERTS),
    "decode, context over tp, experts too": ("decode", "gpus = 0..7, dcp = 2\nattention { dp = 2, tp = 4 }\nexperts { ep = 4, tp = 2 }", GQA, EXPERTS),
    "decode, drafts, context over tp": ("decode", "gpus = 0..3, tp = 4, dcp = 2, draft = 1", GQA, EXPERTS),
    "experts on GPUs of their own": ("prefill", "gpus = 0..1\nattention { dp = 2 }\nexperts { gpus = 2..5, ep = 2, tp = 2 }", GQA, EXPERTS),
    "decode, experts on GPUs of their own": ("decode", "gpus = [3, 1]\nattention { tp = 2 }\nexperts { gpus = [6, 2, 5, 4], ep = 4 }", MLA, SHARED),
    "turns, experts on GPUs of their own": ("decode", "gpus = 0..3, microbatches = 2\nattention { dp = 2, tp = 2 }\nexperts { gpus = 4..7, ep = 2, tp = 2 }", GQA, SHARED),
    "decode, experts by load": ("decode", "gpus = 0..3, ep = 2, tp = 2, expert_placement = eplb, routing = histogram([5, 4, 1, 2])", GQA, SHARED),
}  # fmt: skip
"""Plans for what those of placed graphs leave out."""

LINEAR = """
block linear(x) {
  let key_heads = 2
  let value_group = 2
  let key_dim = 4
  let value_dim = 4
  let taps = 3
  h = rms_norm(x)
  q[batch, seq, key_heads, key_dim] = h * Wq[hidden, key_heads, key_dim]
  k[batch, seq, key_heads, key_dim] = h * Wk[hidden, key_heads, key_dim]
  v[batch, seq, key_heads, value_group, value_dim] = h * Wv[hidden, key_heads, value_group, value_dim]
  c = conv(k, T[key_heads, key_dim, taps])
  f[batch, seq, key_heads, value_group] = h * Wf[hidden, key_heads, value_group]
  b[batch, seq, key_heads, value_group] = h * Wb[hidden, key_heads, value_group]
  o = delta(q, c, v, softplus(f), sigmoid(b))
  y[batch, seq, hidden] = o * Wo[key_heads, value_group, value_dim, hidden]
  return x + y
}
"""
SPARSE = """
block chosen_tokens(x) {
  let finders = 2
  let finder_dim = 4
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, heads, head_dim] = h * Wk[hidden, heads, head_dim]
  p[batch, seq, finders, finder_dim] = h * Wp[hidden, finders, finder_dim]
  n[batch, seq, finder_dim] = h * Wn[hidden, finder_dim]
  w[batch, seq, finders] = h * Ww[hidden, finders]
  c = select(p, n, w, top_k = 3)
  o = attend(q, k, k, selected = c)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
"""
GROUPS = """
block grouped(x) {
  let span = 2
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  z[batch, seq, kv_heads, head_dim] = h * Wz[hidden, kv_heads, head_dim]
  c[batch, seq, head_dim] = h * Wc[hidden, head_dim]
  e = pool(k, z, B[span, kv_heads, head_dim])
  o = attend(q, k, k, window = 3, entries = e)
  p = attend(q, c, c, entries = pool(c, c, Bc[span, head_dim]))
  s = o + p
  y[batch, seq, hidden] = s * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
"""
POOLED = "attention { kind = grouped, heads = 4, kv_heads = 2, head_dim = 4 }"
OWN: dict[str, tuple[str, str, str, str, str]] = {
    "groups of tokens": ("prefill", "gpus = 0..3, sp = 2, tp = 2", POOLED, EXPERTS, GROUPS),
    "groups of tokens, decode": ("decode", "gpus = 0..3, sp = 2, tp = 2", POOLED, EXPERTS, GROUPS),
    "linear attention": ("prefill", "gpus = 0..3, sp = 2, tp = 2", "attention { kind = linear, heads = 4, kv_heads = 2, head_dim = 4 }", EXPERTS, LINEAR),
    "linear attention, decode": ("decode", "gpus = 0..3, sp = 2, tp = 2", "attention { kind = linear, heads = 4, kv_heads = 2, head_dim = 4 }", EXPERTS, LINEAR),
    "chosen tokens": ("prefill", "gpus = 0..3, sp = 2, tp = 2", "attention { kind = chosen_tokens, heads = 4, kv_heads = 4, head_dim = 4 }", EXPERTS, SPARSE),
    "chosen tokens, decode": ("decode", "gpus = 0..3, sp = 2, tp = 2", "attention { kind = chosen_tokens, heads = 4, kv_heads = 4, head_dim = 4 }", EXPERTS, SPARSE),
}  # fmt: skip
"""Plans of blocks that the library does not have."""

HEADS = "attention { kind = own_heads, heads = 4, kv_heads = 4, head_dim = 4 }"
OWN_HEADS = """
block own_heads(x) {
  let mine = 4
  h = rms_norm(x)
  q[batch, seq, mine, head_dim] = h * Wq[hidden, mine, head_dim]
  k[batch, seq, mine, head_dim] = h * Wk[hidden, mine, head_dim]
  o = attend(q, k, k)
  y[batch, seq, hidden] = o * Wo[mine, head_dim, hidden]
  return x + y
}
"""
LIN = "attention { kind = linear, heads = 4, kv_heads = 2, head_dim = 4 }"
FOUND = "attention { kind = chosen_tokens, heads = 4, kv_heads = 4, head_dim = 4 }"
OWN |= {
    "rules for linear attention": ("prefill", "gpus = 0..3, tp = 4, shard { key_dim = tp, value_dim = tp, taps = tp }", LIN, EXPERTS, LINEAR.replace("let taps = 3", "let taps = 4")),
    "rules for chosen tokens": ("prefill", "gpus = 0..3, tp = 4, shard { finders = tp, finder_dim = tp, head_dim = tp }", FOUND, EXPERTS, SPARSE),
    "a rule for the width of heads": ("prefill", "gpus = 0..3, tp = 4, shard { head_dim = tp }", GQA, EXPERTS),
}  # fmt: skip
OWN |= {
    "doubtful heads, tp": ("prefill", "gpus = 0..1, tp = 2", HEADS, EXPERTS, OWN_HEADS),
    "doubtful heads, ulysses": ("prefill", "gpus = 0..1, sp = 2, sp_method = ulysses", HEADS, EXPERTS, OWN_HEADS),
    "heads that no part of tp divides": (
        "prefill",
        "gpus = 0..1, tp = 2",
        HEADS,
        EXPERTS,
        OWN_HEADS.replace("mine = 4", "key_heads = 3").replace("mine", "key_heads"),
    ),
    "no heads, tp": ("prefill", "gpus = 0..1, tp = 2", HEADS, EXPERTS, OWN_HEADS.replace("mine, ", "")),
}
VIEWS = """
block views(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  near[batch, seq, head_dim] = h * Wr[hidden, head_dim]
  block_of[batch, seq, head_dim] = h * Wb[hidden, head_dim]
  far[batch, seq, head_dim] = h * Wf[hidden, head_dim]
  p[batch, seq, kv_heads, head_dim] = h * Wp[hidden, kv_heads, head_dim]
  w[batch, seq, kv_heads] = h * Ww[hidden, kv_heads]
  c = select(p, far, w, top_k = 3)
  a = attend(q, k, k)
  b = attend(q, near, near, window = 3)
  d = attend(q, block_of, block_of, chunk = 4)
  e = attend(q, far, far, selected = c)
  o = a + b + d + e
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
"""
"""Of the caches, that of `k` alone is seen whole."""
SEEN = "attention { kind = views, heads = 4, kv_heads = 1, head_dim = 4 }"
OWN["caches seen in part, context over tp"] = ("decode", "gpus = 0..3, tp = 4, dcp = 2", SEEN, EXPERTS, VIEWS)
CUT = "experts in tp, cut first"
MORE[CUT] = (
    "prefill",
    "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }",
    "attention { kind = gqa, heads = 8, kv_heads = 8, head_dim = 4 }",
    "experts { count = 8, top_k = 1, hidden = 4 }",
)
"""Tokens are many and links answer at once, so that cutting them before dispatch is the cheaper way."""
BEST = "where it costs least"
MORE[BEST] = ("prefill", "gpus = 0..7, dp = 2, tp = 4, order = [tp, pp, ep, sp, dp], place = best", GQA, EXPERTS)
"""Nodes of two GPUs, so that the order of the axes is not the best one."""
OTHER_POOLS = {CUT: (("prompt = 4", "prompt = 8"), ("2 us", "0.001 us")), BEST: (("per_node = 8", "per_node = 2"),)}

REFUSED: dict[str, tuple[str, str, str, str]] = {
    "stages that do not divide": ("prefill", "gpus = 0..2, pp = 3", GQA, EXPERTS),
    "layers that are not there": ("prefill", "gpus = 0..1, pp = 2, layers_per_stage = [1, 2]", GQA, EXPERTS),
    "a stage too few": ("prefill", "gpus = 0..1, pp = 2, layers_per_stage = [4]", GQA, EXPERTS),
    "ids given twice": ("prefill", "gpus = 0..3, dp = 2, tp = 2, place gpu = dp + tp", GQA, EXPERTS),
    "ids that are no whole numbers": ("prefill", "gpus = 0..3, dp = 2, tp = 2, place gpu = (dp * 2 + tp) / 2", GQA, EXPERTS),
    "ids outside": ("prefill", "gpus = 0..3, dp = 2, tp = 2, place gpu = dp * 2 + tp + 4 / 1", GQA, EXPERTS),
    "ids by zero": ("prefill", "gpus = 0..3, dp = 2, tp = 2, place gpu = dp * 2 + tp / (tp - tp)", GQA, EXPERTS),
    "sides that do not nest": ("prefill", "gpus = 0..5\nattention { dp = 3, tp = 2 }\nexperts { ep = 2, tp = 3 }", GQA, "experts { count = 6, top_k = 2, hidden = 6 }"),
    "no cache that is seen whole": ("decode", "gpus = 0..3, tp = 4, dcp = 2", SEEN, EXPERTS, VIEWS.replace("attend(q, k, k)", "attend(q, k, k, window = 3)").replace("selected = c", "window = 2")),
    "a cache that a rule splits": ("decode", "gpus = 0..3, tp = 4, dcp = 2, shard { head_dim = tp }", GQA, EXPERTS),
}  # fmt: skip
"""Phases that a pass refuses."""

FACTORING = ("refine", "_owner", "head_cuts", "axis_coordinates", "batch_axes")
"""Functions of `ir.mesh` that factor the GPUs of a stage."""
LAYOUTS = (
    "input_layout", "result_layout", "loop_dims", "loop_axes", "by_loops", "_at_home", "tokens_needed", "rows_needed",
    "rows_at_home", "choices_at_home", "_new_tokens", "_cache_leaves", "_around_the_ring",
)  # fmt: skip
"""Functions of `ir.ops` that say where values are."""


@cache
def unit_of(name: str) -> Unit:
    kind = {**PLANS, **MORE, **OWN}[name][0]
    text = text_of(name)
    return dagc.compile_text(text).units[kind]


def text_of(name: str) -> str:
    kind, phase, attention, experts, *own = {**PLANS, **MORE, **OWN, **REFUSED}[name]
    piped = "pp" in phase
    text = SPEC.format(
        kind=kind, phase=phase, attention=attention, experts=experts, layers=4 if piped else 1, dense=int(piped)
    ) + "".join(own)
    for before, after in OTHER_POOLS.get(name, ()):
        text = text.replace(before, after)
    return text


def refusal(name: str) -> str:
    """What the passes as they are now say of a refused phase."""
    try:
        dagc.compile_text(text_of(name))
    except SpecError as error:
        return "; ".join(f"{d.code} {d.message} {d.because}" for d in error.diagnostics if d.code.startswith("E"))
    return "nothing"


@cache
def true_refusal(name: str) -> str:
    return refusal(name)


def placed(name: str) -> tuple[Graph, Unit]:
    """Lowered by the passes as they are now."""
    given = unit_of(name)
    unit = Unit(given.spec, given.phase)
    *_, (_, graph) = lower(unit)
    return graph, unit


@cache
def true_graph(name: str) -> Graph:
    return placed(name)[0]


@cache
def alone(name: str) -> Alone:
    """The model of a plan, which no pass has touched."""
    return model_alone(placed(name)[1])


@cache
def true_words(name: str) -> list[str]:
    return words(placed(name)[1])


def words(unit: Unit) -> list[str]:
    """The diagnostics of a phase."""
    return [f"{d.message} {d.because} {d.help}" for d in unit.out.items]


@dataclass(frozen=True)
class PassVerdict:
    """`killed`: by what and in which plan, empty when nothing was noticed. `lowered`: plans that were lowered otherwise
    and are still right."""

    mutant: SourceMutant
    killed: str
    lowered: tuple[str, ...] = ()

    @property
    def survived(self) -> bool:
        return not self.killed


def mutants() -> Iterator[SourceMutant]:
    for module in (tp, sp, ep, dp, pp, mesh, reshard, norms, place, axes, factors, gpu_ids):
        yield from source_mutants(
            module, lambda name: not name.rsplit(".", 1)[-1].startswith(("warn", "_warn", "describe"))
        )
    for module in (op_set, sizes, op_experts, op_attention):
        yield from source_mutants(module, lambda name: name.rsplit(".", 1)[-1] in LAYOUTS)
    for module in (moves, chains):
        yield from source_mutants(module)
    yield from source_mutants(ir_mesh, lambda name: name.rsplit(".", 1)[-1] in FACTORING)
    yield rewritten(place, "Place.run", "ids[s.index].ravel()", "ids[s.index].ravel()[::-1]")
    yield rewritten(place, "Place.run", "ids[s.index].ravel()", "ids[s.index].ravel(order='F')")
    yield rewritten(place, "Place.run", "ids[s.index]", "ids[-1 - s.index]")


LIMIT_S = 20


@contextmanager
def limited() -> Iterator[None]:
    """A mutant that does not come to its end is stopped; by time of this process, so that a busy machine stops none that does."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def judge(mutant: SourceMutant) -> PassVerdict:
    """The first plan in which the mutant is noticed ends it."""
    names = [*PLANS, *MORE, *OWN]
    lowered = []
    for name in names:
        true_graph(name), true_words(name)  # before anything is broken
        with mutant.applied(), np.errstate(all="ignore"), limited():
            try:
                graph, unit = placed(name)
            except Exception as error:
                return PassVerdict(mutant, f"stopped: {name}: {type(error).__name__}")
        if words(unit) != true_words(name):
            return PassVerdict(mutant, f"diagnostics: {name}")
        if graph == true_graph(name):
            continue
        if wrong_ids(graph, unit.phase):
            return PassVerdict(mutant, f"GPU ids: {name}")
        other = not_carried_out(graph, unit.phase)
        if other:
            return PassVerdict(mutant, f"strategy: {name}: {other}")
        with np.errstate(all="ignore"):
            try:
                proof = prove_graph(graph, unit, alone=alone(name))
            except Exception as error:
                return PassVerdict(mutant, f"stopped: {name}: {type(error).__name__}")
        if not proof.holds:
            return PassVerdict(mutant, f"differs: {name}: {proof.first}")
        lowered.append(name)
    for name in REFUSED:
        with mutant.applied(), np.errstate(all="ignore"), limited():
            try:
                said = refusal(name)
            except Exception as error:
                return PassVerdict(mutant, f"stopped: {name}: {type(error).__name__}")
        if said != true_refusal(name):
            return PassVerdict(mutant, f"refusal: {name}")
    return PassVerdict(mutant, "", tuple(lowered))
