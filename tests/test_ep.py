"""Experts on ranks that repeat their tokens: cut the tokens before the exchange, or select and sum, whichever is cheaper."""

from __future__ import annotations

import pytest
from conftest import spec_text
from tiers import spread

import dagc
from dagc.execute.prove import prove
from dagc.plan.result import PhaseResult

FOLD = "gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }"


def layer(
    top_k: int, phase: str = FOLD, kind: str = "prefill", shared: int = 0
) -> tuple[PhaseResult, dict[str, tuple[str, ...]]]:
    """The compiled phase, and kind -> axes of the collectives of its experts' block."""
    model = (
        "layers = 4, hidden = 64, vocab = 512, dtype = fp32\nattention { heads = 8, head_dim = 8 }\n"
        f"experts {{ count = 16, top_k = {top_k}, hidden = 32, shared = {shared} }}"
    )
    result = dagc.compile_text(spec_text(kind=kind, phase=phase, model=model)).phases[kind]
    ops = [op for op in result.graph.segment("sparse").ops if op.is_collective and op.block.startswith("moe")]
    return result, {op.kind: op.axes for op in ops}


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_a_sequence_that_does_not_divide_stays_whole(kind: str) -> None:
    """A decode step has one token a sequence."""
    _, found = layer(top_k=2, kind=kind)
    assert ("all_gather" in found) == (kind == "prefill")


WHOLE = "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }"


@pytest.mark.parametrize(("said", "cut"), [("", True), ("engine = vllm", False), ("engine = sglang", False),
                                           ("engine = trtllm", False), ("engine = sglang, exchange = deepep_ht", True)])  # fmt: skip
def test_engines_leave_tokens_whole_that_every_rank_has(said: str, cut: bool) -> None:
    """With one choice a token, cutting sends the fewest bytes; engines do so only for a back end that takes tokens."""
    _, found = layer(top_k=1, phase=f"{WHOLE}\n{said}")
    assert set(found) == ({"all_to_all", "all_gather"} if cut else {"all_reduce"})


def test_order_says_which_ranks_share_experts() -> None:
    """Four experts' ranks of eight: the inner axes of `order` have different experts, the outer one repeats them."""
    fold = "gpus = 0..7, sequence_parallel = true, order = [pp, {}, ep]\nattention {{ dp = 2, sp = 2, tp = 2 }}\nexperts {{ ep = 4 }}"
    for order, want in (("dp, sp, tp", {"sp", "tp"}), ("sp, dp, tp", {"dp", "tp"}), ("tp, sp, dp", {"sp", "dp"})):
        result, found = layer(top_k=2, phase=fold.format(order))
        assert set(found["all_to_all"]) == want == set(result.graph.the_mesh.of("ep"))


STRATEGIES = (
    "attention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "attention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 8 }",
    "attention { sp = 4, tp = 2 }\nexperts { ep = 8 }",
    "attention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 4, tp = 2 }",
    "sequence_parallel = true\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "sequence_parallel = true\nattention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 8 }",
    "dispatch = allgather\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "ep = 4, tp = 2",
    "engine = vllm\nattention { tp = 8 }\nexperts { ep = 8 }",
)


TWO_COUNTS = [(strategy, k) for i, strategy in enumerate(STRATEGIES) for at, k in enumerate((1, 2, 8)) if at != i % 3]
"""Each under two numbers of choices, in turn."""
SHOWN = [next(pair for pair in TWO_COUNTS if pair[0] == STRATEGIES[k]) for k in (0, 3, 4, 6, 8)]
"""One of every way that tokens take."""


@pytest.mark.parametrize(("strategy", "top_k"), spread(TWO_COUNTS, SHOWN))
def test_experts_lie_alike_in_every_phase(strategy: str, top_k: int) -> None:
    """However prefill and decode exchange tokens, one layout of the weights serves both, and a pass has one exchange
    in and one out."""
    model = (
        "layers = 2, hidden = 64, vocab = 512, dtype = fp32\nattention { heads = 8, head_dim = 8 }\n"
        f"experts {{ count = 16, top_k = {top_k}, hidden = 32 }}"
    )
    text = spec_text(
        phase=f"gpus = 0..7\n{strategy}",
        model=model,
        workload="sequences = 8, prompt = 16 tok, output = 16 tok",
        extra=f"phase decode {{ gpus = 0..7\n{strategy}\n}}",
    )
    plan = dagc.compile_text(text)
    graphs = [result.graph for result in plan.phases.values()]
    layouts = [{w.name: w.sharding for s in graph.segments for w in s.weights} for graph in graphs]
    assert layouts[0] == layouts[1]
    for graph in graphs:
        experts = [op for op in graph.segment("sparse").ops if op.is_collective and op.scope == "experts"]
        assert sum(op.kind == "all_to_all" for op in experts) <= 2
        assert not any(op.kind == "permute" for op in experts)
        assert prove(plan, graph.phase).holds
