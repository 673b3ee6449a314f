"""Mutants of `expand`: what it writes is in both runs of the proof, so only models of another program see it wrong.

Two kinds: a fault in the model graph (an attribute changed or left out, a bias or gain forgotten, operands exchanged), and a fault in
the source of `expand` and of `dagc/lang/expand`. Either is judged by the logits of every reference model, prefill and decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from odd_blocks import COMPUTED, REFUSED, SAME, SUMS
from odd_blocks import text as odd_text

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.schema.attribute import Attribute
from dagc.base.source import Source
from dagc.execute.checkpoint import Checkpoint, read_arrays
from dagc.execute.inputs import History, Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.prove import Recording, distance, model_graph, single
from dagc.execute.reference import Reference, cache_after
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.attention_operands import attend_extras, attend_operands, entry_operands
from dagc.ir.ops.attributes.attrs import Value, schema, values
from dagc.ir.ops.elementwise import ACTIVATIONS
from dagc.ir.ops.op_set import OPS
from dagc.lang.expand import attention, block, builder, call, expand, functions, scope
from dagc.lang.expand import experts as routing
from dagc.lang.load import load
from dagc.lang.whole_sequence import every_position
from dagc.spec.unit import Unit

from .sources import SourceMutant, source_mutants

REFERENCES = Path(__file__).parent.parent / "data" / "reference"
CASES = tuple(sorted(p.parent.name for p in REFERENCES.glob("*/config.json")))
SEEN = 1e-9
"""Error from which on a model is another one; float64 and exact weights leave 1e-15."""
SPEC = """moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
{model}
workload {{ sequences = 2, prompt = 13 tok, output = 1 tok }}
phase prefill {{ gpus = [0] }}
phase decode {{ context = 13 tok, gpus = [0] }}
"""


@dataclass(frozen=True)
class Case:
    """One phase of a reference model. `history`: the cache that a decode step finds."""

    unit: Unit
    weights: Checkpoint
    ids: np.ndarray
    logits: np.ndarray
    history: History | None

    def graph(self) -> Graph:
        """By `expand` as it is now."""
        return model_graph(Unit(self.unit.spec, self.unit.phase))

    def error(self, graph: Graph) -> float:
        """Of a model graph's logits; infinite where it cannot be run."""
        inputs = Inputs(self.ids, self.unit.spec.workload.routing, weights=self.weights, history=self.history)
        machine = RankMachine(graph, inputs, single())
        seen = Recording(machine)
        try:
            with np.errstate(all="ignore"):
                machine.run()
                return distance(seen.whole(*seen.logits), self.logits)
        except Exception:
            return float("inf")


def model_text(folder: Path) -> str:
    """The model section: of the config, or of the blocks next to it where the library has no such architecture."""
    own = folder / "model.moe"
    return own.read_text().replace("moe 1\n", "") if own.exists() else 'model tiny from "config.json"'


@cache
def case(name: str, kind: str) -> Case:
    folder = REFERENCES / name
    spec = load(Source("s", SPEC.format(model=model_text(folder))), Collector(), {}, folder)
    spec = replace(spec, model=every_position(spec.model), requirements=())
    phase = next(p for p in spec.phases if p.kind == kind)
    unit = Unit(spec, phase)
    weights = Checkpoint(spec.model, read_arrays(folder / "weights.npz"))
    reference = Reference.open(folder / "reference.npz")
    if kind == "prefill":
        return Case(unit, weights, reference.input_ids, reference.logits, None)
    assert reference.decode_logits is not None
    ids = reference.input_ids
    return Case(unit, weights, ids[:, -1:], reference.decode_logits, cache_after(unit, weights, ids[:, :-1]))


@cache
def true_graph(name: str, kind: str) -> Graph:
    return case(name, kind).graph()


# -- faults of the model graph -----------------------------------------------------------------------

Change = Callable[[Op], Op | None]
"""The op with a fault, or None where it has none of the kind; `forwarded` replaces an op that is left out."""


@dataclass(frozen=True)
class GraphMutant:
    """`what` is (kind of op, attribute or part)."""

    what: tuple[str, str]
    how: str
    change: Change

    @property
    def name(self) -> str:
        return f"{'.'.join(self.what)}: {self.how}"

    def graph(self, name: str, kind: str) -> Graph | None:
        """The graph of a case with the fault in all ops of the kind; None where there are none."""
        found = true_graph(name, kind)
        segments, touched = [], False
        for segment in found.segments:
            ops, alias = [], {}
            for op in segment.ops:
                op = replace(op, inputs=tuple(alias.get(n, n) for n in op.inputs))
                changed = self.change(op)
                if changed is None:
                    ops.append(op)
                    continue
                touched = True
                if changed.kind == LEFT_OUT:
                    alias[op.name] = changed.inputs[0]
                else:
                    ops.append(changed)
            segments.append(replace(segment, ops=tuple(ops), output=alias.get(segment.output, segment.output)))
        return replace(found, segments=tuple(segments)) if touched else None


LEFT_OUT = "left out"


def attr(op: Op, name: str) -> Any:
    return values(op.attrs).get(name)


def with_attr(op: Op, name: str, value: Value) -> Op:
    """None: as an op has it that does not say it."""
    default = next(f.default for f in op.attrs.fields if f.name == name)
    return replace(op, attrs=op.attrs.but(**{name: default if value is None else value}))


def other_values(wanted: Attribute, value: Any) -> Iterator[tuple[str, Value]]:
    if wanted.kind == "flag":
        yield "turned round", not value
    elif wanted.kind == "word":
        for word in wanted.words:
            if word != value:
                yield f"`{word}`", word
    elif wanted.kind == "count":
        yield "one more", value + 1
        yield "one less", value - 1
    elif wanted.kind == "text":
        yield "backwards", " ".join(reversed(str(value).split()))
    else:
        yield "a quarter more", value * 1.25


LANGUAGE: Mapping[str, Mapping[str, Attribute]] = {
    **{name: f.keywords for name, f in functions.FUNCTIONS.items() if f.keywords and name != "select"},
    **{kind: schema(OPS[kind].attrs) for kind in ("scale", "shift")},
}
"""Attributes that blocks of the language may write, by the op that carries them."""


NEEDS = {"top_k": ("route",), "factor": ("scale",), "by": ("shift",)}
"""Attributes without which an op cannot be."""


def of_attribute(kind: str, name: str, wanted: Attribute) -> Iterator[GraphMutant]:
    def dropped(op: Op) -> Op | None:
        return with_attr(op, name, None) if op.kind == kind else None

    if kind not in NEEDS.get(name, ()):
        yield GraphMutant((kind, name), "left out", dropped)
    for i, how in enumerate(dict.fromkeys(h for v in (True, False, "", 1.0) for h, _ in _tried(wanted, v))):

        def changed(op: Op, i: int = i, how: str = how) -> Op | None:
            value = attr(op, name)
            if (
                op.kind != kind
                or value in (None, "")
                or (not isinstance(value, bool) and value in (0, np.inf, -np.inf))
            ):
                return None
            new = next((v for h, v in other_values(wanted, value) if h == how), None)
            return None if new is None else with_attr(op, name, new)

        yield GraphMutant((kind, name), how, changed)


def _tried(wanted: Attribute, value: Value) -> Iterator[tuple[str, Value]]:
    if wanted.kind in ("word", "text") or (
        isinstance(value, bool) == (wanted.kind == "flag") and not isinstance(value, str)
    ):
        yield from other_values(wanted, value)


def input_left_out(what: str, kind: str, which: Callable[[Op], int | None]) -> GraphMutant:
    """An operand that the op can do without."""

    def change(op: Op) -> Op | None:
        at = which(op) if op.kind == kind else None
        if at is None:
            return None
        done = replace(op, inputs=(*op.inputs[:at], *op.inputs[at + 1 :]))
        return with_attr(done, "chosen", 0) if what == "selected" else done

    return GraphMutant((kind, what), "left out", change)


def op_left_out(kind: str, what: str, which: Callable[[Op], bool] = lambda op: True, keep: int = 0) -> GraphMutant:
    """Its operand instead of its result."""

    def change(op: Op) -> Op | None:
        return replace(op, kind=LEFT_OUT, inputs=(op.inputs[keep],)) if op.kind == kind and which(op) else None

    return GraphMutant((kind, what), "left out", change)


def exchanged(kind: str, i: int, j: int, what: str) -> GraphMutant:
    def change(op: Op) -> Op | None:
        if op.kind != kind or len(op.inputs) <= max(i, j):
            return None
        inputs = list(op.inputs)
        inputs[i], inputs[j] = inputs[j], inputs[i]
        return replace(op, inputs=tuple(inputs))

    return GraphMutant((kind, what), "exchanged", change)


def other_kind(kind: str, new: str) -> GraphMutant:
    return GraphMutant((kind, "kind"), f"`{new}`", lambda op: replace(op, kind=new) if op.kind == kind else None)


def graph_mutants() -> Iterator[GraphMutant]:
    for kind, attributes in LANGUAGE.items():
        for name, wanted in attributes.items():
            if wanted.kind != "tensor" and name != "gain":
                yield from of_attribute(kind, name, wanted)
    yield GraphMutant(("attend", "chosen"), "one more", lambda op: _counted(op, "chosen", 1))
    yield input_left_out("bias", "route", lambda op: 1 if len(op.inputs) == 2 and not attr(op, "empty") else None)
    yield GraphMutant(("route", "empty_bias"), "left out", _unbiased)
    yield GraphMutant(("route", "tokens"), "left out", _by_scores)
    yield input_left_out("factors", "rope", lambda op: 1 if len(op.inputs) > 1 else None)
    yield input_left_out("sinks", "attend", lambda op: _where(op, attend_extras(op)[0]))
    yield input_left_out("selected", "attend", lambda op: _where(op, attend_extras(op)[1]))
    yield GraphMutant(("attend", "entries"), "left out", _tokens_alone)
    yield GraphMutant(("attend", "entry_values"), "those of tokens", _values_of_tokens)
    yield exchanged("pool", 0, 1, "contents and gates")
    for kind in ("rms_norm", "layer_norm"):
        yield input_left_out("gain", kind, lambda op: 1 if len(op.inputs) > 1 else None)
        yield op_left_out(kind, "whole")
    yield op_left_out("add", "bias", lambda op: op.inputs[1].startswith("@"))
    yield op_left_out("add", "residual", lambda op: not op.inputs[1].startswith("@"))
    yield op_left_out("multiply", "factor")
    for kind in ("rope", "scale", "shift", "clamp", "temper", "conv", *ACTIVATIONS, "rsqrt"):
        yield op_left_out(kind, "whole")
    yield exchanged("attend", 0, 1, "queries and keys")
    yield exchanged("attend", 1, 2, "keys and values")
    yield exchanged("delta", 0, 1, "queries and keys")
    yield exchanged("delta", 3, 4, "decay and rate")
    for kind in ACTIVATIONS:
        yield other_kind(kind, {"silu": "gelu", "gelu": "gelu_tanh", "gelu_tanh": "gelu"}.get(kind, "silu"))
    yield other_kind("rms_norm", "layer_norm")
    yield other_kind("layer_norm", "rms_norm")


def _unbiased(op: Op) -> Op | None:
    """A router of empty experts without its biases."""
    return replace(op, inputs=op.inputs[:2]) if op.kind == "route" and len(op.inputs) == 4 else None


def _tokens_alone(op: Op) -> Op | None:
    """Attention without its entries of groups."""
    if op.kind != "attend" or not attr(op, "entries"):
        return None
    keys, values = entry_operands(op)
    inputs = list(op.inputs)
    for name in (*keys, *values, *(n for n in attend_extras(op)[1:] if n)):
        inputs.remove(name)
    return with_attr(with_attr(replace(op, inputs=tuple(inputs)), "entries", False), "chosen_entries", 0)


def _values_of_tokens(op: Op) -> Op | None:
    if op.kind != "attend" or not attr(op, "entries"):
        return None
    _, (name,) = entry_operands(op)
    at = len(op.inputs) - 1 - op.inputs[::-1].index(name)
    return replace(op, inputs=(*op.inputs[:at], attend_operands(op)[2], *op.inputs[at + 1 :]))


def _by_scores(op: Op) -> Op | None:
    """A router whose scores choose, not the ids of tokens."""
    return with_attr(replace(op, inputs=op.inputs[:1]), "by_token", False) if attr(op, "by_token") else None


def _counted(op: Op, name: str, more: int) -> Op | None:
    value = attr(op, name)
    return with_attr(op, name, value + more) if value else None


def _where(op: Op, name: str | None) -> int | None:
    return None if name is None else op.inputs.index(name)


EQUAL = {
    "attend.causal: left out": "attention is causal where nothing else is said",
    "attend.chosen: one more": "it counts what is read; which tokens are seen says the operand",
}
"""Faults of the model graph that change nothing that is computed."""


# -- judging -----------------------------------------------------------------------------------------


def pairs() -> list[tuple[str, str]]:
    return [(name, kind) for name in CASES for kind in ("prefill", "decode")]


def catches_graph(mutant: GraphMutant, name: str, kind: str) -> bool | None:
    """None where the case has nothing of the kind."""
    graph = mutant.graph(name, kind)
    return None if graph is None or graph == true_graph(name, kind) else case(name, kind).error(graph) > SEEN


def catches_source(mutant: SourceMutant, name: str, kind: str) -> bool | None:
    """None where `expand` writes the same graph."""
    found, true = case(name, kind), true_graph(name, kind)
    with mutant.applied():
        try:
            graph = found.graph()
        except Exception:
            return True
    return None if graph == true else found.error(graph) > SEEN


def source_mutants_of_expand() -> Iterator[SourceMutant]:
    for module in (expand, attention, block, call, functions, builder, scope, routing):
        yield from source_mutants(module)


@cache
def refusals() -> tuple[str, ...]:
    """The diagnostics of every odd block, by the rules as they are now."""
    return tuple(_refusal(body) for body in ODD.values())


def wrong_sums() -> str:
    """What is wrong with the arithmetic of blocks, as it is now, on a block whose value is known without it."""
    found = []
    for body in (SUMS, SAME):
        try:
            unit = _odd_unit(body)
            graph = model_graph(Unit(unit.spec, unit.phase))
            ids = np.arange(32).reshape(4, 8) % 16
            found.append(Recording(RankMachine(graph, Inputs(ids, unit.spec.workload.routing), single())))
            found[-1].machine.run()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    sizes = found[0].machine.graph.segment("mine").sizes
    if [sizes[d] for d in ("n", "m", "w")] != [4, 2, 4]:
        return "sizes"
    values = [seen.whole(*seen.logits) for seen in found]
    return "" if distance(*values) < SEEN else "values"


def _refusal(body: str) -> str:
    try:
        unit = _odd_unit(body)
        model_graph(Unit(unit.spec, unit.phase))
    except SpecError as error:
        return "; ".join(f"{d.code} {d.message} {d.help} {d.span and d.span.start}" for d in error.diagnostics)
    except Exception as error:
        return type(error).__name__
    return "nothing"


@cache
def _odd_unit(body: str) -> Unit:
    spec = load(Source("odd", odd_text(body)), Collector(), {}, None)
    return Unit(spec, spec.phases[0])


@dataclass(frozen=True)
class ExpandVerdict:
    """`caught`: the reference model that sees the mutant, or the odd block with other diagnostics.
    `unseen`: models whose graph is another one and whose logits are the same."""

    mutant: SourceMutant
    caught: str
    unseen: tuple[str, ...] = ()


def judge_source(mutant: SourceMutant) -> ExpandVerdict:
    said = refusals()
    unseen = []
    for name, kind in (*FIRST, *(p for p in pairs() if p not in FIRST)):
        seen = catches_source(mutant, name, kind)
        if seen:
            return ExpandVerdict(mutant, f"{name} ({kind})")
        if seen is False:
            unseen.append(f"{name} ({kind})")
    with mutant.applied():
        if wrong_sums():
            return ExpandVerdict(mutant, "arithmetic of a block")
        for (block_name, body), before in zip(ODD.items(), said, strict=True):
            if _refusal(body) != before:
                return ExpandVerdict(mutant, f"odd block: {block_name}")
    return ExpandVerdict(mutant, "", tuple(unseen))


ODD = {**{name: body for name, (body, *_) in REFUSED.items()}, **COMPUTED}
"""Blocks that are refused, and unusual ones that are not."""
FIRST = tuple(
    (name, kind)
    for name in ("gpt_oss_bounds", "deepseek_v32", "qwen3_next", "gemma2", "llama4")
    for kind in ("prefill", "decode")
)
"""The models with the most parts, tried first."""
