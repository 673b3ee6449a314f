"""Trees of drafted tokens and acceptance by position: expected tokens against formulas, runs of engines and drawn steps; masks against paths."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tiers
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.base.draft_trees import (
    depths,
    expected_tokens,
    is_tree,
    levels,
    lineage,
    nodes,
    parents,
    reached,
    spread,
    word,
)
from dagc.execute.inputs import Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.prove import Recording, model_graph, single
from dagc.export.engines.launch import export
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import VerifyError, verify
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.estimates import Estimates
from dagc.serving.draft_steps import DraftSteps

MODEL = (
    "layers = 2, hidden = 64, vocab = 512, dtype = bf16, mtp_layers = 1\n"
    "attention { heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
)


def compiled(phase: str, name: str = "decode") -> Plan:
    return dagc.compile_text(spec_text(phase=f"gpus = 0..7, {phase}", kind=name, model=MODEL))


def faults(phase: str, name: str = "decode") -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        compiled(phase, name)
    return [(d.code, d.span.text if d.span is not None else "") for d in caught.value.diagnostics if d.help]


# -- expected tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_chain_is_the_formula_of_speculative_decoding(chance: float, count: int) -> None:
    """(1 - a^(n+1)) / (1 - a) tokens: arXiv 2211.17192, equation 1."""
    formula = count + 1 if chance == 1 else (1 - chance ** (count + 1)) / (1 - chance)
    own = reached((1,) * count, ((chance,),) * count)
    assert expected_tokens(own) == pytest.approx(formula)
    phase = compiled(f"dp = 8, draft = {count}, acceptance = {chance}").spec.phases[0]
    assert phase.tokens_per_step == pytest.approx(formula)
    by_position = compiled(f"dp = 8, draft = {count}, acceptance = [{', '.join([str(chance)] * count)}]").spec.phases[0]
    assert by_position.tokens_per_step == pytest.approx(formula)


@pytest.mark.parametrize(
    "rates, length",
    [
        # github.com/vllm-project/vllm/pull/24127: "Mean acceptance length: 5.44", and the rates by position
        ((0.983, 0.949, 0.915, 0.881, 0.712), 5.44),
        # github.com/ggml-org/llama.cpp/pull/24536: EAGLE 3, "mean acceptance length = 2.92"
        ((0.805, 0.632, 0.483), 2.92),
    ],
)
def test_lengths_that_engines_print(rates: tuple[float, ...], length: float) -> None:
    """Their rates are of all steps; a chance is of the steps that come so far."""
    chances = [rate / before for rate, before in zip(rates, (1.0, *rates), strict=False)]
    said = ", ".join(f"{chance:.6f}" for chance in chances)
    phase = compiled(f"dp = 8, draft = {len(rates)}, acceptance = [{said}]").spec.phases[0]
    assert phase.reached == pytest.approx(rates, abs=1e-5)
    assert phase.tokens_per_step == pytest.approx(length, abs=0.005)


TREE = (3, 2, 1)
CHANCES = ((0.6, 0.15, 0.05), (0.5, 0.2), (0.4,))


def test_a_tree_is_the_sum_over_its_nodes() -> None:
    """As Medusa counts (arXiv 2401.10774): each node adds the product of the chances on the way to it."""
    total = 1.0
    for depth in range(1, len(TREE) + 1):
        for way in product(*(range(width) for width in TREE[:depth])):
            total += prod(CHANCES[d][rank] for d, rank in enumerate(way))
    assert expected_tokens(reached(TREE, CHANCES)) == pytest.approx(total)


def test_a_tree_against_steps_that_are_drawn() -> None:
    """Mean and variance of 40,000 steps: at each node the right candidate is drawn, or none is."""
    random, kept = Random(7), []
    for _ in range(40_000):
        tokens = 1
        for width, own in zip(TREE, CHANCES, strict=True):
            at, right = random.random(), None
            for rank in range(width):
                at -= own[rank]
                if at < 0:
                    right = rank
                    break
            if right is None:
                break
            tokens += 1
        kept.append(tokens)
    own = reached(TREE, CHANCES)
    assert np.mean(kept) == pytest.approx(expected_tokens(own), abs=4 * np.sqrt(spread(own) / len(kept)))
    assert np.var(kept) == pytest.approx(spread(own), rel=0.03)


def test_independent_candidates_are_tried_in_turn() -> None:
    """A number for a depth of several candidates: 1 - (1 - p)^w that one of them is right."""
    phase = compiled("dp = 8, tree = [3, 2], acceptance = [50%, 40%]").spec.phases[0]
    assert phase.reached == pytest.approx((1 - 0.5**3, (1 - 0.5**3) * (1 - 0.6**2)))
    assert compiled("dp = 8, tree = [3, 2], acceptance = 50%").spec.phases[0].reached[0] == pytest.approx(1 - 0.5**3)


def test_a_tree_of_ones_is_a_chain() -> None:
    tree = compiled("dp = 8, tree = [1, 1, 1], acceptance = 70%, drafter = mtp").phases["decode"]
    chain = compiled("dp = 8, draft = 3, acceptance = 70%, drafter = mtp").phases["decode"]
    assert tree.time_s == pytest.approx(chain.time_s, rel=1e-12) and tree.memory == chain.memory
    assert tree.flops_per_token == pytest.approx(chain.flops_per_token, rel=1e-12)


@pytest.mark.parametrize("tree", [(1,), (2, 3), (4, 2, 1), (1, 3)])
def test_numbers_of_nodes(tree: tuple[int, ...]) -> None:
    before, deep = parents(tree), depths(tree)
    assert len(before) == len(deep) == 1 + nodes(tree) == sum(levels(tree))
    assert all(deep[before[node]] == deep[node] - 1 for node in range(1, len(deep)))
    children = np.bincount(before[1:], minlength=len(deep))
    assert all(children[node] == (*tree, 0)[depth] for node, depth in enumerate(deep))
    assert sum(1 for _ in lineage(tree)) == sum(depth + 1 for depth in deep)


@pytest.mark.parametrize(
    "text, fits", [("4x2x1", True), ("0x2", False), ("", False), ("999x999", False), ("2x", False)]
)
def test_words_of_trees(text: str, fits: bool) -> None:
    assert is_tree(text) == fits
    assert word((4, 2, 1)) == "4x2x1"


# -- graph and proof --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree() -> Plan:
    return compiled("dp = 2, tp = 4, tree = [3, 2, 1], acceptance = [[60%, 15%, 5%], [50%, 20%], 40%], drafter = mtp")


def test_the_graph_says_the_tree(tree: Plan) -> None:
    graph = tree.phases["decode"].graph
    assert graph.body[0].size("seq") == 1 + nodes(TREE)
    kinds = {op.kind for s in graph.segments for op in s.ops if getattr(op.attrs, "tree", "") == "3x2x1"}
    assert kinds == {"rope", "attend"}
    text = print_graph(graph)
    assert 'tree="3x2x1"' in text and print_graph(parse_graph(text)) == text
    with pytest.raises(VerifyError, match="tree"):
        verify(parse_graph(text.replace('tree="3x2x1"', 'tree="3x3x1"')))


@pytest.mark.parametrize("name, phase", [
    ("decode", "dp = 2, tp = 4, tree = [3, 2, 1]"),
    ("mixed", "dp = 2, tp = 4, tree = [2, 2], decode = 16, prompts = [40 tok, 24 tok]"),
])  # fmt: skip
def test_a_step_with_branches_is_proved(name: str, phase: str) -> None:
    proof = compiled(phase, name).prove(name)
    assert proof.verdict == "equal", proof


def test_a_branch_is_as_if_it_were_alone() -> None:
    """Each node sees the context and the tokens on the way to it, at the positions of a chain, and nothing else."""
    from dagc.execute.numpy.ops import visible

    before = 5
    related = np.zeros((1 + nodes(TREE),) * 2, dtype=bool)
    related[tuple(np.array(list(lineage(TREE))).T)] = True
    deep = np.array(depths(TREE))
    context = np.concatenate([np.arange(before), before + deep])
    seen = visible(before + deep, context, True, np.inf, np.inf)
    seen &= np.concatenate([np.ones((len(deep), before), dtype=bool), related], axis=1)
    for node in range(len(deep)):
        way = [at for own, at in lineage(TREE) if own == node]
        assert set(np.flatnonzero(seen[node])) == {*range(before), *(before + at for at in way)}
        assert sorted(context[seen[node]]) == list(range(before + deep[node] + 1))  # the positions of a chain


def logits(drafted: str, tokens: np.ndarray, before: int, history: dict[tuple[int, str], np.ndarray]) -> np.ndarray:
    """Of every new token [sequences, tokens, vocabulary] of a step on one rank, behind a cache that is given."""
    context = before + tokens.shape[1]
    phase = f"gpus = 0..0, sequences = {len(tokens)}, context = {context} tok, {drafted}"
    plan = dagc.compile_text(
        spec_text(phase=phase, kind="decode", model=MODEL, workload="sequences = 2, prompt = 8 tok")
    )
    unit = plan.units["decode"]
    graph = model_graph(unit)
    for segment, layer in graph.layers:
        for op in segment.ops:
            if OPS[op.kind].tokens is Tokens.CACHE:
                shape = [before if d == "context" else int(segment.sizes[d]) for d in op.dims]
                random = np.random.default_rng(layer * 100 + len(op.name))
                history.setdefault((layer, op.name), random.standard_normal(shape))
    seen = Recording(RankMachine(graph, Inputs(tokens, unit.routing, history=history), single()))
    seen.machine.run()
    return seen.whole(*seen.logits)


def test_logits_of_a_branch_are_those_of_a_chain() -> None:
    """The step runs: each node's logits are as if the tokens on the way to it had been drafted alone."""
    ids = np.random.default_rng(4).integers(0, 512, (2, 1 + nodes(TREE)))
    history: dict[tuple[int, str], np.ndarray] = {}
    branched = logits("tree = [3, 2, 1]", ids, 20, history)
    leaves = [node for node, deep in enumerate(depths(TREE)) if deep == len(TREE)]
    for leaf in leaves:
        way = sorted(at for node, at in lineage(TREE) if node == leaf)
        chain = logits(f"draft = {len(TREE)}", ids[:, way], 20, history)
        assert np.abs(branched[:, way] - chain).max() < 1e-12 * np.abs(chain).max()
    wrong = logits(f"draft = {nodes(TREE)}", ids, 20, history)
    assert np.abs(branched - wrong).max() > 1e-3 * np.abs(wrong).max()


def test_what_is_drafted_at_a_depth_is_one_pass(tree: Plan) -> None:
    drafter = tree.phases["decode"].drafter
    assert drafter is not None and drafter.count == len(TREE)
    assert [(one.graph.body[0].size("seq"), one.chunk.count) for one in drafter.passes] == [(1, 1), (3, 1), (6, 1)]


def test_a_tree_is_written_and_read_back(tree: Plan) -> None:
    spec = tree.spec
    again = dagc.compile_text(print_spec(spec)).spec.phases[0]
    assert (again.tree, again.chances, again.reached) == (
        spec.phases[0].tree,
        spec.phases[0].chances,
        spec.phases[0].reached,
    )
    chain = dagc.compile_text(print_spec(compiled("dp = 8, draft = 2, acceptance = [70%, 60%]").spec)).spec.phases[0]
    assert [own for (own,) in chain.chances] == pytest.approx([0.7, 0.6])
    data = json.loads(dumps(graph_object(tree, "decode")))
    back = plan_of(data)
    assert back.spec.phases[0].tree == TREE
    assert back.phases["decode"].tokens_per_step == tree.phases["decode"].tokens_per_step
    plain = graph_object(compiled("dp = 8"), "decode")
    assert not {"tree", "chances"} & set(plain["plan"]["phase"])


# -- another model drafts ---------------------------------------------------------------------------

OTHER = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "llama-3.1-70b" { }
workload { sequences = 64, prompt = 512 tok, output = 64 tok }
"""


def test_a_model_that_drafts_is_priced_as_its_own_decode_step() -> None:
    text = OTHER + 'phase decode { gpus = 0..7, pp = 2, tp = 4, draft = 3, draft_model = "llama-3.1-8b" }'
    result = dagc.compile_text(text).phases["decode"]
    assert result.drafter is not None and result.drafter.count == 3 and result.drafter.name == "llama-3.1-8b"
    alone = dagc.compile_text(OTHER.replace("70b", "8b") + "phase decode { gpus = 4..7, tp = 4, context = 576 tok }")
    own = alone.phases["decode"]
    assert result.drafter.time_s == pytest.approx(3 * own.time_s, rel=1e-9)
    assert result.drafter.params == alone.params[0] == pytest.approx(8.03e9, rel=1e-3)
    assert result.drafter.weights_B == own.memory.worst.weights_B
    assert result.drafter.kv_cache_B == own.memory.worst.kv_cache_B
    plain = dagc.compile_text(OTHER + "phase decode { gpus = 0..7, pp = 2, tp = 4, draft = 3 }").phases["decode"]
    assert result.memory.stages[0] == plain.memory.stages[0]
    assert result.memory.stages[1].weights_B == plain.memory.stages[1].weights_B + own.memory.worst.weights_B


def test_estimates_and_a_serving_have_the_model_that_drafts() -> None:
    phase = 'phase decode {{ gpus = 0..7, tp = 8, draft = {}, draft_model = "llama-3.1-8b" }}\n'
    spec = dagc.compile_text(OTHER + phase.format(3))
    found = Estimates(spec.spec)(spec.spec.phases[0])
    assert found.time_s == spec.phases["decode"].time_s and found.memory == spec.phases["decode"].memory
    served = dagc.compile_text(
        OTHER + phase.format(2) + "phase prefill { gpus = 0..7, tp = 8 }\n"
        "serve chat { arrivals = closed(4), requests = 8, prompts = first }"
    )
    assert served.serve("chat").setup.workers[0].engine.most_tokens_per_step == 3


def test_drafted_tokens_read_a_cache_together() -> None:
    """Heads of a group times tokens of a step are no model of so many heads: a fifth token costs about what the fourth did."""
    steps = [
        dagc.compile_text(OTHER + f"phase decode {{ gpus = 0..3, tp = 4, draft = {n} }}").phases["decode"]
        for n in (2, 3, 4)
    ]
    times = [one.costs.ops["dense", "gqa.o"].time_s.max() for one in steps]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0], rel=0.5)


@pytest.mark.parametrize("said", ["", ", drafter = mtp", ', draft_model = "llama-3.1-8b"'])
def test_no_drafts_is_a_number_of_drafts(said: str, tmp_path: Path) -> None:
    """A sweep begins without, whatever would draft; and a search chooses it beside others, though its head picks no token then."""
    text = OTHER.replace("{ }", "{ mtp_layers = 1 }", 1) if "mtp" in said else OTHER
    phase = "phase decode {{ gpus = 0..7, tp = 8, draft = {}{} }}"
    plain = dagc.compile_text(OTHER + phase.format(0, "")).phases["decode"]
    found = dagc.compile_text(text + phase.format(0, said)).phases["decode"]
    assert found.time_s == plain.time_s and found.memory == plain.memory and found.graph == plain.graph
    (tmp_path / "s.moe").write_text(text + phase.format("any(0, 2), acceptance = 90%", said))
    assert {row["decode.draft"] for row in dagc.search(tmp_path / "s.moe", top=2).rows()} == {"0", "2"}


def test_prompts_have_no_drafter() -> None:
    phase = 'phase prefill { gpus = 0..7, tp = 8, draft = 0, draft_model = "llama-3.1-8b" }'
    with pytest.raises(dagc.SpecError, match="`draft_model` belongs to a decode phase"):
        dagc.compile_text(OTHER + phase)


# -- what is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase, code, marked", [
    ("dp = 8, tree = [2, 2], draft = 3", "E12", "3"),
    ("dp = 8, tree = [2, 0]", "E09", "[2, 0]"),
    ("dp = 8, tree = [100, 100, 100]", "E09", "[100, 100, 100]"),
    ("dp = 8, draft = 3, acceptance = [80%, 70%]", "E03", "[80%, 70%]"),
    ("dp = 8, tree = [3, 1], acceptance = [[60%, 20%], 50%]", "E03", "[60%, 20%]"),
    ("dp = 8, tree = [2, 1], acceptance = [[60%, 50%], 50%]", "E09", "[60%, 50%]"),
    ("dp = 4, sp = 2, tree = [2, 1]", "E03", "[2, 1]"),
    ("dp = 8, draft = 2, drafter = model", "E12", "model"),
    ('dp = 8, draft = 2, drafter = mtp, draft_model = "llama-3.1-8b"', "E12", "mtp"),
    ('dp = 8, draft_model = "llama-3.1-8b"', "E12", '"llama-3.1-8b"'),
    ('dp = 8, draft = 2, draft_model = "llama-3.1-8b"', "E03", '"llama-3.1-8b"'),
    ('dp = 8, draft = 2, draft_model = "llama-3.1-8bb"', "E02", '"llama-3.1-8bb"'),
])  # fmt: skip
def test_faults_are_marked_with_help(phase: str, code: str, marked: str) -> None:
    assert (code, marked) in faults(phase)


def test_a_tree_needs_sequences_in_decode() -> None:
    with pytest.raises(SpecError, match="belongs to a decode phase"):
        compiled("dp = 8, tree = [2, 1]", "prefill")


def test_layers_with_a_state_check_no_tree() -> None:
    with pytest.raises(SpecError, match="has one past"):
        dagc.compile_text(
            'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "qwen3-next-80b-a3b" { }\n'
            "workload { sequences = 8, prompt = 64 tok }\nphase decode { gpus = 0..7, tp = 8, tree = [2, 1] }"
        )


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engines_are_not_told_of_a_tree(engine: str) -> None:
    plan = dagc.compile_text(
        OTHER.replace("64 tok }", "64 tok }")
        + f"phase decode {{ gpus = 0..7, tp = 8, engine = {engine}, tree = [2, 1] }}"
    )
    with pytest.raises(SpecError) as caught:
        export(plan, engine, "org/model", "p")
    assert "tree = [2, 1]" in " ".join(caught.value.diagnostics[0].because)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engines_are_told_of_a_model_that_drafts_or_refuse(engine: str) -> None:
    phase = f'phase decode {{ gpus = 0..7, tp = 8, engine = {engine}, draft = 3, draft_model = "llama-3.1-8b" }}'
    plan = dagc.compile_text(OTHER + phase)
    if engine == "vllm":
        text = b"".join(export(plan, engine, "org/model", "p").values()).decode()
        assert '{"method": "draft_model", "model": "llama-3.1-8b", "num_speculative_tokens": 3}' in text
        assert "put its checkpoint in its place" in text
        return
    with pytest.raises(SpecError) as caught:
        export(plan, engine, "org/model", "p")
    assert 'draft_model = "llama-3.1-8b"' in " ".join(caught.value.diagnostics[0].because)


# -- servings ------------------------------------------------------------------------------------------


def test_steps_of_a_serving_have_the_spread_of_their_positions() -> None:
    own = reached((1, 1, 1), ((0.9,), (0.6,), (0.2,)))
    steps = DraftSteps(expected_tokens(own), 4, 5, own)
    drawn = [steps.of(400) for _ in range(3000)]
    mean = float(steps.mean)
    assert np.mean(drawn) == pytest.approx(400 / mean, rel=0.01)
    assert np.std(drawn) == pytest.approx(np.sqrt(400 * spread(own) / mean**3), rel=0.1)


def test_a_tree_in_a_serving_has_room_for_all_and_keeps_a_path() -> None:
    serve = "serve chat { arrivals = closed(8), requests = 16, prompt = 64 tok, output = 40 tok, slots = 8, batch_tokens = 256 tok }"
    text = spec_text(
        phase="gpus = 0..7, dp = 8, tree = [3, 2], acceptance = [[60%, 15%, 5%], [50%, 20%]]",
        kind="decode",
        model=MODEL,
    )
    plan = dagc.compile_text(text + "\n" + "phase prefill { gpus = 0..7, dp = 8 }\n" + serve)
    engine = plan.serve("chat").setup.workers[0].engine
    phase = plan.spec.phase("decode")
    assert engine.most_tokens_per_step == 1 + 3 + 6 and engine.tokens_reached == phase.reached
    assert engine.tokens_per_step == phase.tokens_per_step == pytest.approx(1 + 0.8 + 0.8 * 0.7)


@pytest.mark.parametrize("said", tiers.spread(["acceptance = [80%, 50%, 20%]", "acceptance = 60%"]))
def test_a_search_counts_the_tokens_that_are_kept(said: str, tmp_path: Path) -> None:
    """Complete: its bounds and its plans count the same, and the best is that of all plans compiled."""
    phase = f"gpus = 0..7, dp = any, tp = any, draft = any(0, 1, 3), {said}"
    (tmp_path / "s.moe").write_text(spec_text(phase=phase, kind="decode", model=MODEL))
    found = dagc.search(tmp_path / "s.moe")
    assert found.complete
    rates = [
        compiled(f"dp = {dp}, tp = {8 // dp}, draft = {draft}, {said}").phases["decode"].throughput_tok_s
        for dp in (1, 2, 4, 8)
        for draft in (0, 1, 3)
    ]
    assert found.compiled().phases["decode"].throughput_tok_s == pytest.approx(max(rates))
