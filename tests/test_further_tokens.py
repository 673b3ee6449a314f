"""Layers that predict further tokens (MTP) in a training step: losses, gradients and places of their weights."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import spec_text
from tiers import spread
from training_steps import Step, small_step, training_text

import dagc
from dagc.base.axes import ENDS
from dagc.base.diagnostics import SpecError
from dagc.execute.prove import single
from dagc.execute.prove_training import TrainingProof, compared, whole_model
from dagc.execute.training import TrainingMachine
from dagc.ir.graph import Graph
from dagc.ir.op import RECOMPUTE
from dagc.ir.ops.attributes.losses import LabelsAttrs, LossAttrs

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
MODEL = "layers = 4, hidden = 16, vocab = 32, dtype = bf16, mtp_layers = {count}, tied = {tied}\nattention {{ heads = 4, kv_heads = 2 }}\n{rest}"
MLP = "mlp { hidden = 24 }"
MOE = "experts { count = 8, top_k = 2, hidden = 12, shared = 1 }"


def step(phase: str, count: int = 1, tied: str = "false", rest: str = MLP) -> Step:
    return small_step(f"mtp_loss = 0.3\n{phase}", MODEL.format(count=count, tied=tied, rest=rest))


def proof(of: Step, placed: Graph | None = None) -> TrainingProof:
    return compared(whole_model(of.unit), placed or of.placed, of.inputs(), of.unit.phase.gpu_count)


# -- another program's gradients -------------------------------------------------------------------------

PLAIN = """layers = 2, hidden = 16, vocab = 32, dtype = bf16, mtp_layers = 2, tied = {tied}
stack = [embed, 2 * plain, lm_head]
mlp {{ hidden = 24 }}"""


@needs_torch
@pytest.mark.parametrize("tied", ["false", "true"])
def test_losses_and_gradients_are_those_of_autograd(tied: str) -> None:
    """A model of feed-forward layers written in torch with one table and one head: two further tokens, as arXiv 2412.19437 has them
    (equations 21 to 25)."""
    import torch

    own = small_step(
        "mtp_loss = 0.3\ngpus = [0], microbatches = 2", PLAIN.format(tied=tied), extra="layer plain { mlp }"
    )
    inputs = own.inputs()
    machine = TrainingMachine(own.model, inputs, single())
    machine.step()
    given: dict[str, Any] = {}
    for segment, layer in own.model.layers:
        for weight in segment.weights:
            if not weight.tied:
                whole = machine.shards.whole_weight(segment, layer, weight.name)
                given[f"{layer} {weight.name[1:]}"] = torch.tensor(whole, requires_grad=True)

    def norm(x: Any, gain: Any) -> Any:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * gain

    def feed(x: Any, name: str) -> Any:
        gate, up, down = (given[f"{name}.{w}"] for w in ("Wg", "Wu", "Wd"))
        h = norm(x, given[f"{name}.h_gain"])
        return x + (torch.nn.functional.silu(h @ gate) * (h @ up)) @ down

    table = given["-1 embed.We"]
    matrix = table.T if tied == "true" else given["2 lm_head.Wo"]
    ids = torch.tensor(np.concatenate([inputs.tokens[:, :1], inputs.labels], axis=1))  # type: ignore[list-item]
    count = inputs.tokens.shape[1]
    state = table[ids[:, :count]]
    for layer in (0, 1):
        state = feed(state, f"{layer} mlp")

    def loss(of: Any, gain: str, ahead: int) -> Any:
        logits = norm(of, given[gain]) @ matrix
        wanted = ids[:, ahead : ahead + count]
        return torch.nn.functional.cross_entropy(logits.reshape(-1, 32), wanted.reshape(-1))

    total = loss(state, "2 lm_head.h_gain", 1)
    for k, stem in ((1, "2 mtp"), (2, "2 mtp2")):
        sides = (state, table[ids[:, k : k + count]])
        state = sum(
            norm(x, given[f"{stem}_{side}_mtp_side.n_gain"]) @ given[f"{stem}_{side}_mtp_side.Wp"]
            for x, side in zip(sides, ("state", "token"), strict=True)
        )
        state = feed(state, f"{stem}_mlp")
        total = total + 0.3 / 2 * loss(state, f"{stem}_lm_head.h_gain", k + 1)
    assert machine.loss == pytest.approx(total.item(), rel=1e-12)
    total.backward()
    found = {f"{layer} {name}": ranks[0] for (layer, name), (_, _, ranks) in machine.whole_gradients.items()}
    assert found.keys() == given.keys()
    for name, gradient in found.items():
        wanted = given[name].grad.numpy()
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-12 + 1e-9 * np.abs(wanted).max(), err_msg=name)


# -- any lowering ----------------------------------------------------------------------------------------

LOWERINGS = {
    "one rank": ("gpus = [0]", 2, "true", MLP),
    "one stage": ("gpus = 0..3, dp = 2, tp = 2, zero = 1", 1, "false", MLP),
    "two stages": ("gpus = 0..7, pp = 2, dp = 2, tp = 2, microbatches = 2, zero = 1, sequence_parallel = true", 2, "false", MLP),
    "tied": ("gpus = 0..7, pp = 2, dp = 2, tp = 2, microbatches = 2, zero = 2, recompute = full", 2, "true", MLP),
    "experts": (
        "gpus = 0..7, pp = 2, microbatches = 2, recompute = [moe_shared]\nattention { dp = 4 }\nexperts { ep = 4 }", 1, "true", MOE,
    ),
    "a ring": ("gpus = 0..7, pp = 2, sp = 2, tp = 2, sp_layout = zigzag, sp_method = ring, microbatches = 2", 2, "false", MLP),
    "shared out": ("gpus = 0..7, pp = 2, dp = 4, microbatches = 2, zero = 3", 2, "false", MLP),
    "a V": ("gpus = 0..3, pp = 2, dp = 2, microbatches = 4, schedule = zb_v, zero = 2", 1, "false", MLP),
}  # fmt: skip


@pytest.mark.parametrize("name", spread(LOWERINGS, ("one rank", "tied", "experts", "a V")))
def test_every_lowering_has_the_losses_and_gradients_of_the_model(name: str) -> None:
    found = proof(step(*LOWERINGS[name]))
    assert found.holds, found


def test_the_table_is_one() -> None:
    """Alone: nothing of its own; on another stage a copy that is summed over both ends, none beside a tied head's."""
    alone, apart, tied = (step(*LOWERINGS[name]).placed for name in ("one stage", "two stages", "tied"))
    copies = [[w.name for w in graph.head.weights if w.tied] for graph in (alone, apart, tied)]
    assert copies == [["@mtp_embed.We"], ["@mtp_embed.We"], ["@lm_head.Wo"]]
    assert [len([op for s in graph.segments for op in s.ops if ENDS in op.axes]) for graph in (alone, apart, tied)] == [
        0,
        2,
        2,
    ]
    assert all("We.new" not in op.name for op in alone.head.ops)
    heads = {
        name for op in apart.head.ops for name in op.inputs if name.startswith("@") and name.endswith("lm_head.Wo")
    }
    assert heads == {"@lm_head.Wo"}


def test_wrong_labels_are_found() -> None:
    """A layer that is taught the next token, as if it were the head."""
    own = step(*LOWERINGS["two stages"])
    head = own.placed.head
    ops = tuple(
        replace(op, attrs=LabelsAttrs(2)) if isinstance(op.attrs, LabelsAttrs) and op.attrs.ahead == 3 else op
        for op in head.ops
    )
    assert ops != head.ops
    found = proof(own, replace(own.placed, segments=(*own.placed.segments[:-1], replace(head, ops=ops))))
    assert found.verdict == "differs" and found.loss_error > 1e-3


def test_factors_share_the_word_of_the_phase() -> None:
    head = step("gpus = [0]", 3).model.head
    factors = [op.attrs.factor for op in head.ops if op.kind == "cross_entropy" and isinstance(op.attrs, LossAttrs)]
    assert factors == pytest.approx([1.0, 0.1, 0.1, 0.1])
    assert sorted({op.attrs.ahead for op in head.ops if isinstance(op.attrs, LabelsAttrs)}) == [1, 2, 3, 4]


def test_they_are_done_anew_as_layers_are() -> None:
    kept, anew = (
        small_step(f"mtp_loss = 0.3\ngpus = [0]{words}", MODEL.format(count=1, tied="false", rest=MLP)).model.head
        for words in ("", ", recompute = full")
    )
    again = {op.block for op in anew.ops if op.cell == RECOMPUTE}
    assert again == {"gqa", "mlp"} and all(op.cell != RECOMPUTE for op in kept.ops)


# -- what is said ----------------------------------------------------------------------------------------


def errors(model: str, words: str = "mtp_loss = 0.1", extra: str = "") -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(training_text(f"gpus = [0]\n{words}", model, extra=extra))
    return [(d.code, d.message) for d in caught.value.diagnostics if d.severity == "error"]


def test_what_cannot_be_is_refused() -> None:
    plain = "layers = 2, hidden = 16, vocab = 32\nattention { heads = 4, kv_heads = 2 }\nmlp { hidden = 24 }"
    assert errors(plain) == [("E03", "`small` has no layers that predict further tokens")]
    assert errors(plain, "mtp_loss = -1")[0][0] == "E09"


def test_the_report_and_the_object_say_it() -> None:
    plan = dagc.compile_text(
        training_text("gpus = [0]\nmtp_loss = 0.25", MODEL.format(count=1, tied="false", rest=MLP))
    )
    assert "loss: cross entropy of the next token + 0.25 x that of further ones (MTP)" in str(plan.report())
    without = dagc.compile_text(training_text("gpus = [0]", MODEL.format(count=1, tied="false", rest=MLP)))
    assert "MTP" not in str(without.report())
    assert plan.params == without.params


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("y[batch, seq, inner] = rename(h) + h", "`rename` stands alone"),
        ("y[batch, seq, other] = rename(h)", "dimensions of the same sizes"),
        ("y[batch, inner] = rename(h)", "leaves `batch`"),
    ],
)
def test_rename_says_what_it_cannot(line: str, said: str) -> None:
    block = f"block odd(x) {{\nlet inner = hidden\nlet other = 2 * hidden\nh = rms_norm(x)\n{line}\nreturn x + h\n}}\nlayer plain {{ odd }}"
    text = spec_text(
        model="layers = 2, hidden = 16, vocab = 32\nstack = [embed, 2 * plain, lm_head]",
        extra=block,
        phase="gpus = [0]",
    )
    with pytest.raises(SpecError, match=said):
        dagc.compile_text(text)
