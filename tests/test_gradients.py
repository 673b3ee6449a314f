"""Gradients: of every kind of op those of torch, of whole models those of finite differences, of any lowering those of the model."""

from __future__ import annotations

import importlib.util
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_plans
from conftest import ROOT, examples
from gradient_cases import CASES, SIZES
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants.expansion import model_text
from test_empty_experts import text_of
from tiers import spread
from training_steps import Step, differences, library_text, sharded_run, small_step, step_of, whole_run

from dagc.base.arrays import NDArray
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost.price import price
from dagc.execute.checkpoint import Checkpoint
from dagc.execute.dispatcher import OpCall
from dagc.execute.failure import ExecutionError
from dagc.execute.inputs import Inputs, WeightSource, random_weight
from dagc.execute.machine import RankMachine
from dagc.execute.numpy.rules import NUMPY, Notes
from dagc.execute.prove import single
from dagc.execute.prove_training import TrainingProof, compared, step_inputs, whole_model
from dagc.execute.shards import Shards
from dagc.execute.training import Key, TrainingMachine
from dagc.execute.twin import Twin, twin_of
from dagc.execute.values import Floats, Ragged
from dagc.ir.graph import Graph
from dagc.ir.op import FORWARD, Loops, Op, Weight
from dagc.ir.ops.attributes.attention import AttendGradAttrs
from dagc.ir.ops.attributes.elementwise import ScaleAttrs
from dagc.ir.ops.attributes.training import AccumulateAttrs
from dagc.ir.ops.elementwise import ACTIVATIONS
from dagc.ir.ops.op_set import OPS
from dagc.ir.ops.sizes import local_bytes
from dagc.ir.ops.transpose import TRANSPOSE
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.verify.operands import verify_op
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.lang.load import load
from dagc.passes.backward import Differentiated
from dagc.spec.unit import Unit
from dagc.spec.workload import Routing

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
Values = dict[str, NDArray[np.float64]]


# -- op by op --------------------------------------------------------------------------------------


def layer(name: str) -> tuple[Graph, Segment, Op]:
    """A layer of one op. Its operands are weights, or come from nowhere, as the gradient of its result does."""
    given, op, result = CASES[name]
    of = result.rpartition(" int64, ")[2]
    lines = [f"{n} : {of}" if n.startswith("@") else f"%{n} = given() : {of}" for n, of in given.items()]
    named = "%y" if result == of else "%y, %y.weights"
    graph = parse_graph(
        f"graph one (train, model, fp32)\nsegment one (%x0: [batch, seq, hidden]) {{\n  sizes [{SIZES}]\n  "
        + "\n  ".join([*lines, f"%up = given() : {of}", f"{named} = {op} : {result}"])
        + "\n  return %y\n}\n"
    )
    return graph, graph.segments[0], graph.segments[0].ops[-1]


def operands(segment: Segment, name: str) -> Values:
    """Random numbers for every value and weight that is given; indices are of the sizes that they index."""
    draw, sizes = np.random.default_rng(7), segment.sizes
    found: Values = {}
    for one in (*(op.name for op in segment.ops[:-1]), *segment.weight):
        shape = tuple(int(sizes[d]) for d in segment.dims_of(one))
        found[one] = draw.normal(size=shape) + (4.0 if name == "rsqrt" and one == "x" else 0.0)
    if "ids" in found:
        found["ids"] = draw.integers(0, int(sizes["low"]), found["ids"].shape)
    if "chosen" in found:  # a token, the one before it and the first
        places = np.arange(int(sizes["seq"]))[:, None]
        found["chosen"] = np.broadcast_to(np.maximum(places - [0, 1, 99], 0), found["chosen"].shape).copy()
    return found


def call_of(graph: Graph, segment: Segment, op: Op, host: object) -> OpCall:
    shards = Shards(graph, Inputs(np.zeros((2, 6), dtype=np.int64), Routing()), single())
    return OpCall(shards, segment, 0, op, {}, tuple(map(segment.dims_of, op.inputs)), op.dims, host)


def by_rules(name: str) -> Values:
    """The gradient of every operand that gets one: the ops that the kind's rule emits, run in NumPy."""
    graph, segment, op = layer(name)
    values = operands(segment, name)
    made = NUMPY[op.kind](call_of(graph, segment, op, Notes()), [values[n] for n in op.inputs])
    results = made if isinstance(made, tuple) else (made,)
    values |= zip((value.name for value in op.results), results, strict=True)
    back = Differentiated(segment, "fp32", "adamw")
    back.pieces[op.results[-1].name] = ["up"]
    back.back(op)
    for one in back.ops:
        verify_op(back.segment, one)
        call = call_of(graph, back.segment, one, Notes())
        values[one.name] = NUMPY[one.kind](call, [values[n] for n in one.inputs])
    return {of: sum(values[piece] for piece in pieces) for of, pieces in back.pieces.items() if of in op.inputs}


def by_torch(name: str) -> Values:
    """The same, by autograd through the op's own rule in torch."""
    import torch

    from dagc.execute.torch.resident import Resident
    from dagc.execute.torch.rules import TORCH

    graph, segment, op = layer(name)
    given = {n: torch.as_tensor(v) for n, v in operands(segment, name).items()}
    numbers = {n: given[n].requires_grad_() for n in op.inputs if given[n].is_floating_point()}
    call = call_of(graph, segment, op, None)
    call = call_of(graph, segment, op, Resident(call.shards, {}, torch.device("cpu"), torch.float64))
    made = TORCH[op.kind](call, [given[n] for n in op.inputs])
    result = made[-1] if isinstance(made, tuple) else made
    found = torch.autograd.grad(result, list(numbers.values()), given["up"])
    return {n: gradient.numpy() for n, gradient in zip(numbers, found, strict=True)}


@needs_torch
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_an_op_are_those_of_autograd(name: str) -> None:
    found, wanted = by_rules(name), by_torch(name)
    assert found.keys() == wanted.keys()
    for of, gradient in wanted.items():
        assert found[of].shape == gradient.shape
        np.testing.assert_allclose(found[of], gradient, rtol=1e-9, atol=1e-11, err_msg=f"{name}: {of}")
        assert np.abs(gradient).max() > 0, f"{name}: {of} has no gradient here"


def test_every_kind_that_has_a_rule_is_tried() -> None:
    """But for those whose operands are rows of experts, the loss and dropout: whole models have these."""
    tried = {op.split("(")[0] for _, op, _ in CASES.values()}
    untried = {
        "dispatch",
        "empty_weight",
        "combine",
        "choice_rows",
        "cross_entropy",
        "router_loss",
        "expert_share",
        "dropout",
        "quantise",
    }
    assert set(TRANSPOSE) - tried == untried
    assert tried <= set(TRANSPOSE) <= set(OPS)


# -- whole models ------------------------------------------------------------------------------------

MODELS = (
    "mixtral-8x7b",
    "qwen3-next-80b-a3b",
    "deepseek-v3.2",
    "gpt-oss-120b",
    "phi-3.5-moe",
    "llama-4-maverick-17b-128e",
)
STEP = 1e-5


@cache
def small_twin(model: str, phase: str = "gpus = [0]", more: str = "") -> Twin:
    """A library model at small sizes: attention of every kind, shared experts, biases, routers, linear attention."""
    step = step_of(library_text(model, "train", phase, more))
    return twin_of(step.placed, whole_model(step.unit), step.unit.routing)


def moved(directions: dict[Key, Floats], by: float) -> WeightSource:
    """Random weights, moved along directions."""

    def weights(segment: Segment, layer: int, weight: Weight) -> Floats:
        found = random_weight(segment, layer, weight)
        direction = directions.get((layer, weight.name.removeprefix("@")))
        return found if direction is None else found + by * direction

    return weights


def loss_of(twin: Twin, weights: WeightSource) -> float:
    inputs = step_inputs(twin)
    return float(np.mean(RankMachine(twin.model, replace(inputs, weights=weights), single()).run()))


@pytest.mark.parametrize(
    "model",
    spread(
        [*MODELS, "mixtral-8x7b, dropout = 30%"], {"deepseek-v3.2", "qwen3-next-80b-a3b", "mixtral-8x7b, dropout = 30%"}
    ),
)
def test_gradients_of_a_model_are_the_slopes_of_its_loss(model: str) -> None:
    """By central differences, along a random direction in the weights of each layer."""
    name, _, words = model.partition(", ")
    twin = small_twin(name, f"gpus = [0], {words}" if words else "gpus = [0]")
    machine = TrainingMachine(twin.model, step_inputs(twin), single())
    machine.step()
    assert machine.loss == pytest.approx(loss_of(twin, random_weight), rel=1e-12)
    draw = np.random.default_rng(3)
    layers: dict[int, dict[Key, Floats]] = {}
    for key, (_, _, ranks) in machine.gradients.items():
        layers.setdefault(key[0], {})[key] = draw.normal(size=ranks[0].shape)
    for directions in layers.values():
        slopes = {key: float((machine.gradients[key][2][0] * d).sum()) for key, d in directions.items()}
        ends = [loss_of(twin, moved(directions, by)) for by in (STEP, -STEP)]
        slope = (ends[0] - ends[1]) / (2.0 * STEP)
        assert abs(slope - sum(slopes.values())) <= 1e-6 * sum(map(abs, slopes.values())), f"{slope}: {slopes}"


def test_the_gradient_of_values_does_not_read_them() -> None:
    """Nor does it state, price or keep them: what it moves is the upstream gradient, queries, keys and its result."""
    step = small_step("gpus = 0..1, tp = 2", SMALL, "sequences = 4, prompt = 4 tok, output = 1 tok")
    graph = step.placed
    (segment,) = graph.body
    found = {op.of(AttendGradAttrs).operand: op for op in segment.ops if op.kind == "attend_grad"}
    assert found[0].inputs == found[1].inputs
    assert found[2].inputs == (*found[0].inputs[:3], *found[0].inputs[4:]) and found[0].inputs[3] not in found[2].inputs
    sizes = [
        local_bytes(segment, name, layout.dims, graph.the_mesh)
        for name in (*found[2].inputs, found[2].name)
        if (layout := segment.sharding_of(name))
    ]
    assert price(graph, step.unit).ops[segment.name, found[2].name].bytes == sum(sizes)


@pytest.mark.parametrize("model", spread(MODELS, ("mixtral-8x7b", "deepseek-v3.2")))
def test_weights_without_a_gradient_are_those_that_choose(model: str) -> None:
    """Of the indexer of a sparse attention, and the bias that shifts choices alone."""
    twin = small_twin(model)
    for segment in twin.model.segments:
        kept = {f"@{op.attrs.weight}" for op in segment.ops if isinstance(op.attrs, AccumulateAttrs)}
        missing = {name.partition(".")[2] for name in segment.weight if name not in kept}
        assert missing <= {"Wiq", "Wik", "Wiw", "nk_in_gain", "bik", "Wb"}, (segment.name, missing)


# -- another program's gradients ---------------------------------------------------------------------

DISTINCT = (
    "deepseek_v2",
    "deepseek_v32",
    "gemma2",
    "gpt_neox",
    "gpt_oss_yarn",
    "llama4",
    "llama_bias_tied",
    "longcat_flash",
    "minimax_m2",
    "nemotron",
    "qwen3_next",
)
"""Together they have every kind of op that any of them has."""
REFERENCES = [path.parent for path in sorted((ROOT / "tests" / "data" / "reference").glob("*/slopes.npz"))]


REFERENCE = """moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
{model}
workload {{ sequences = 2, prompt = 12 tok, output = 1 tok }}
phase step {{ kind = train, gpus = [0] }}
"""


def direction(name: str, shape: tuple[int, ...]) -> Floats:
    """As `tools/reference_slopes.py` has it."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)


@pytest.mark.parametrize(
    "folder", spread(REFERENCES, lambda folder: folder.name in DISTINCT), ids=lambda folder: folder.name
)
def test_gradients_are_those_of_transformers(folder: Path) -> None:
    """Its parameters are read as weights are; the loss and its slope along a direction in each are those that autograd gave."""
    with np.load(folder / "weights.npz") as data:
        tensors = {name: np.asarray(data[name], dtype=np.float64) for name in data.files}
    with np.load(folder / "slopes.npz") as data:
        wanted = {name: float(data[name]) for name in data.files}
    with np.load(folder / "reference.npz") as data:
        ids = data["input_ids"]
    spec = load(Source("step.moe", REFERENCE.format(model=model_text(folder))), Collector(), {}, folder)
    unit = Unit(spec, spec.trainings[0])
    graph = whole_model(unit)
    checkpoint = Checkpoint(spec.model, tensors)
    machine = TrainingMachine(graph, Inputs(ids[:, :-1], unit.routing, checkpoint, labels=ids[:, 1:]), single())
    machine.step()
    assert machine.loss == pytest.approx(wanted.pop("loss"), rel=1e-12)
    scale = max(map(abs, wanted.values()))
    for name, slope in wanted.items():
        along = Checkpoint(spec.model, {**tensors, name: tensors[name] + direction(name, tensors[name].shape)})
        found = sum(
            float((ranks[0] * (along(at, layer, weight) - checkpoint(at, layer, weight))).sum())
            for (layer, plain), (at, _, ranks) in machine.gradients.items()
            for weight in [at.weight[f"@{plain}"]]
        )
        assert found == pytest.approx(slope, rel=1e-8, abs=1e-10 * scale), name


# -- any lowering ------------------------------------------------------------------------------------

NOT_TRAINED = r"(?m)^(?:chunk|prefix|draft|host) = .*\n?|redundant = \d+, |, overlap = two_batch"


@st.composite
def training_plans(draw: st.DrawFn) -> str:
    """A random model under a random strategy, which trains it: copies of experts are experts of their own."""
    kind, text = draw(random_plans.plans())
    own = f"kind = train, zero = {draw(st.integers(0, 3))}"
    own += draw(st.sampled_from(["", "", ", recompute = full", ", recompute = [attend, silu, rms_norm]"]))
    own += draw(st.sampled_from(["", ", optimizer = sgd"]))
    own += draw(
        st.sampled_from(
            ["", ", aux_loss = 0.3", ", aux_loss = 0.3, aux_loss_over = micro_batch, z_loss = 0.1", ", mtp_loss = 0.3"]
        )
    )
    copies = int(re.findall(r"redundant = (\d+)", text)[0])
    text = re.sub(r"experts \{ count = (\d+)", lambda found: f"experts {{ count = {int(found[1]) + copies}", text)
    text = text.replace(
        "dtype = fp32\n", f"dtype = fp32, mtp_layers = 1, tied = {draw(st.sampled_from(['false', 'true']))}\n"
    )
    return re.sub(NOT_TRAINED, "", text).replace(f"phase {kind} {{", f"phase step {{\n{own}")


def weights_of(graph: Graph) -> int:
    """Gradients of weights over all layers; what is added to a shared table's is no other one."""
    return sum(
        isinstance(op.attrs, AccumulateAttrs)
        and (not segment.weight[f"@{op.attrs.weight}"].tied or bool(op.attrs.over))
        for segment, _ in graph.layers
        for op in segment.ops
    )


def proved(step: Step, placed: Graph | None = None) -> TrainingProof:
    return compared(whole_model(step.unit), placed or step.placed, step.inputs(), step.unit.phase.gpu_count)


@settings(max_examples=examples(3))
@given(training_plans())
def test_any_lowering_has_the_gradients_of_the_model(text: str) -> None:
    """Loss, gradients of all weights and new weights; what is not legal is refused by a diagnostic."""
    try:
        step = step_of(text)
    except SpecError:
        return
    proof = proved(step)
    assert proof.holds, proof
    assert proof.weights == weights_of(step.placed)


@pytest.mark.parametrize("model", spread(MODELS, ("mixtral-8x7b", "qwen3-next-80b-a3b", "deepseek-v3.2")))
def test_ranks_of_a_split_sequence_do_what_is_said(model: str) -> None:
    """Masks leave them unequal pairs of tokens, and equal rows, which are what the gradient of sinks adds up."""
    twin = small_twin(model, "gpus = 0..1, sp = 2")
    proof = compared(twin.model, twin.placed, step_inputs(twin), 2)
    assert proof.holds, proof


@dataclass
class OnTorch(TrainingMachine):
    """Each op is done in torch, too, on the same operands. `compared`: kinds of op."""

    compared: set[str] = field(default_factory=set)
    hosts: dict[tuple[tuple[str, int], ...], object] = field(default_factory=dict)

    def done(self, call: OpCall, x: Sequence[Any], value: object) -> None:
        import torch

        from dagc.execute.torch import rules
        from dagc.execute.torch.resident import Resident

        def given(one: Any) -> Any:
            if isinstance(one, Ragged):
                return Ragged(
                    torch.as_tensor(one.physical), torch.as_tensor(one.keys), torch.as_tensor(one.data), one.held
                )
            return {e: torch.as_tensor(w) for e, w in one.items()} if isinstance(one, dict) else torch.as_tensor(one)

        super().done(call, x, value)
        rank = tuple(call.rank.items())
        host = self.hosts.setdefault(rank, Resident(self.shards, call.rank, torch.device("cpu"), torch.float64))
        found = rules.BACKEND.compute(replace(call, host=host), [given(one) for one in x])
        found = found[0] if isinstance(found, tuple) else found
        assert isinstance(found, Ragged) == isinstance(value, Ragged)
        mine, wanted = (one.data if isinstance(one, Ragged) else one for one in (found, value))
        np.testing.assert_allclose(
            mine.numpy(), wanted, rtol=1e-8, atol=1e-11, err_msg=f"{call.op.name} ({call.op.kind})"
        )
        self.compared.add(call.op.kind)


ON_TORCH = {
    "qwen3-next-80b-a3b": "gpus = 0..1, sp = 2, sp_layout = zigzag, optimizer = sgd",
    "gpt-oss-120b": "gpus = [0], aux_loss = 0.1, aux_loss_over = micro_batch, dropout = 20%",
    "phi-3.5-moe": "gpus = 0..1, tp = 2, shard { hidden = tp }, recompute = full, aux_loss = 0.1, z_loss = 0.1",
    "mixtral-8x7b": "gpus = 0..1, tp = 2, sequence_parallel = true, optimizer = sgd",
}
OTHERWISE = {"mixtral-8x7b": "streams { count = 3, iterations = 3 }"}
"""What models have in these steps beside their own."""


@needs_torch
def test_a_step_in_torch_is_that_in_numpy() -> None:
    """Every op on every rank, kinds of gradients all."""
    kinds: set[str] = set()
    empty = step_of(text_of("phase t { kind = train, gpus = 0..1, tp = 2 }"))
    twins = [small_twin(model, phase, OTHERWISE.get(model, "")) for model, phase in ON_TORCH.items()]
    for twin in (*twins, twin_of(empty.placed, whole_model(empty.unit), empty.unit.routing)):
        machine = OnTorch(twin.placed, step_inputs(twin), twin.placed.the_mesh)
        machine.step()
        kinds |= machine.compared
    others = {f"{name}_grad" for name in ACTIVATIONS}
    wanted = {name for name, kind in OPS.items() if kind.gradient_of} | {
        "accumulate",
        "adamw",
        "sgd",
        "store",
        "row_dot",
    }
    wanted |= {"choice_rows", "choice_back", "choice_dot", "sum_dims", "labels", "pick", "cross_entropy", "row_exp_sum"}
    assert wanted - kinds <= others, wanted - kinds - others


# -- what is wrong is found --------------------------------------------------------------------------

SMALL = (
    "layers = 1, hidden = 8, vocab = 16, dtype = fp32\nattention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }\n"
    "experts { count = 4, top_k = 2, hidden = 8, shared = 1 }"
)


@cache
def small() -> Step:
    phase = "gpus = 0..3, tp = 2, ep = 2, sequence_parallel = true, zero = 1, recompute = silu"
    return small_step(phase, SMALL, "sequences = 4, prompt = 4 tok, output = 1 tok")


def mutants(segment: Segment) -> Iterator[tuple[str, Segment]]:
    """A layer with one thing wrong in what hands gradients back: a move left out, a factor of two, half of a sum, another operand."""
    for op in segment.ops:
        if op.cell == FORWARD:
            continue
        if op.is_collective:
            yield f"without {op.name}", rewired(segment, op.name, op.inputs[0])
        elif op.kind in ("contract", "multiply", "accumulate", "rms_norm_grad", "cross_entropy_grad"):
            twice = replace(
                op, name=f"{op.name}.twice", kind="scale", inputs=(op.name,), attrs=ScaleAttrs(2.0), loops=loops(op)
            )
            yield f"{op.name} twice", with_ops(rewired(segment, op.name, twice.name), op, (op, twice))
        if op.kind == "add":
            yield f"{op.name} without its second half", rewired(segment, op.name, op.inputs[0])
        for place, name in enumerate(op.inputs):
            if not is_read(op, place):
                continue
            for other in others(segment, op, name):
                inputs = (*op.inputs[:place], other, *op.inputs[place + 1 :])
                yield f"{op.name} of {other}", with_ops(segment, op, (replace(op, inputs=inputs),))
                break


def is_read(op: Op, place: int) -> bool:
    """Weights of choices are not asked where rows are not weighed."""
    weighted = getattr(op.attrs, "weighted", True)
    return bool(weighted) or place < 2


def loops(op: Op) -> Loops:
    assert op.sharding is not None
    return tuple((d, axes) for d, axes in zip(op.dims, op.sharding.dims, strict=True) if axes)


def others(segment: Segment, op: Op, name: str) -> Iterator[str]:
    """Values made before that look like an operand and come from somewhere else."""
    for one in segment.ops[: segment.ops.index(op)]:
        alike = one.dims == segment.dims_of(name) and one.sharding == segment.sharding_of(name)
        if alike and one.dtype == segment.dtype_of(name) and source(segment, one.name) != source(segment, name):
            yield one.name


def source(segment: Segment, name: str) -> str:
    """What a value is, however often it was moved, or done anew."""
    while name in segment.by_name and OPS[segment.by_name[name].kind].move is not None:
        name = segment.by_name[name].inputs[0]
    return name.replace(".again", "")


def rewired(segment: Segment, name: str, other: str) -> Segment:
    """What read a value reads another one."""
    ops = tuple(replace(op, inputs=tuple(other if n == name else n for n in op.inputs)) for op in segment.ops)
    return replace(segment, ops=ops, downstream=other if segment.downstream == name else segment.downstream)


def with_ops(segment: Segment, op: Op, new: tuple[Op, ...]) -> Segment:
    at = next(i for i, one in enumerate(segment.ops) if one.name == op.name)
    return replace(segment, ops=(*segment.ops[:at], *new, *segment.ops[at + 1 :]))


@cache
def small_whole() -> TrainingMachine:
    return whole_run(small())


def is_found(graph: Graph) -> str:
    """Who finds what is wrong: the verifier, or the comparison with the model."""
    try:
        verify(graph)
    except VerifyError:
        return "verifier"
    try:
        return "comparison" if max(differences(small_whole(), sharded_run(small(), graph)).values()) > 1e-9 else ""
    except ExecutionError:
        return "comparison"


def test_a_wrong_gradient_is_found() -> None:
    step, found = small(), Counter[str]()
    assert not is_found(step.placed)
    broken = [
        (
            f"{segment.name}/{what}",
            replace(step.placed, segments=tuple(new if s is segment else s for s in step.placed.segments)),
        )
        for segment in step.placed.segments
        for what, new in mutants(segment)
    ]
    tried = random.Random(5).sample(broken, min(len(broken), examples(20, 8)))
    for what, graph in tried:
        by = is_found(graph)
        assert by, what
        found[by] += 1
    assert min(found["verifier"], found["comparison"]) >= 1, found
