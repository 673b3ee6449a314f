"""Dropout of training: which numbers stay, that ranks and what is done anew agree, what its masks take, and what Megatron-LM is told."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT
from test_capacity_drops import STEPS, text
from test_megatron_training import script
from test_training_language import spec
from tiers import spread

import dagc
from dagc.execute.dropout_mask import kept
from dagc.execute.prove_training import prove_training
from dagc.plan.trained import TrainingResult
from dagc.spec.unit import Unit


def step(words: str) -> TrainingResult:
    return dagc.compile_text(spec(words)).trainings["pretrain"]


def test_masks_are_even_and_told_apart() -> None:
    """As many as are asked for stay, to three standard errors; another layer, dropout or token has another mask, and a part the part's."""

    def mask(layer: int, number: int, first: int = 0) -> np.ndarray:
        return kept([np.array([layer]), np.array([number]), first + np.arange(8), np.arange(32), np.arange(64)], 0.1)[
            0, 0
        ]

    whole = mask(0, 0)
    assert abs(whole.mean() - 0.9) < 3 * np.sqrt(0.09 / whole.size)
    for other in (mask(1, 0), mask(0, 1), mask(0, 0, 8), whole.transpose(0, 2, 1).reshape(whole.shape)):
        assert abs((whole & other).mean() - 0.81) < 0.01
    np.testing.assert_array_equal(mask(0, 0, 4)[:4], whole[4:])
    for axes in ((0, 1), (0, 2), (1, 2)):  # no row is more likely than another: four standard errors of the fewest
        assert np.abs(whole.mean(axis=axes) - 0.9).max() < 4 * np.sqrt(0.09 / 256)


@pytest.mark.parametrize("words", spread(STEPS.values(), [STEPS["exchange"], STEPS["done anew"]]), ids=list(STEPS))
def test_ranks_drop_what_the_model_alone_drops(words: str) -> None:
    """Of split batches, widths, sequences in zigzag, and of layers that are done anew."""
    plan = dagc.compile_text(text("train", f"{words}, dropout = 20%").replace("capacity = 0.75", "capacity = 0"))
    proof = prove_training(plan.trainings["p"], Unit(plan.spec, plan.spec.trainings[0]))
    assert proof.verdict == "equal", proof


def test_a_mask_is_kept_of_what_each_block_adds() -> None:
    """A byte of each number: two blocks a layer, and the embedding's rows; its FLOPs are none of the model's to speak of."""
    plain, dropped = step("zero = 1"), step("zero = 1, dropout = 10%")
    graph = dropped.graph
    each = graph.segment("sparse")
    made = [op.name for op in each.ops if op.kind == "dropout"]
    assert made == ["gqa.y.dropped", "moe.y.dropped"]
    assert [op.kind for op in graph.embedding.ops if op.kind == "dropout"] == ["dropout"]
    tokens = 64 * 1024 / 8 / 4  # of a micro-batch on a data-parallel rank
    masks_B = tokens * 4096 * (4 * len(made) + 1)
    more_B = dropped.kept[0].whole_B - plain.kept[0].whole_B
    assert more_B == pytest.approx(masks_B)
    assert dropped.time_s > plain.time_s and dropped.flops_per_token == pytest.approx(plain.flops_per_token, rel=1e-4)


def test_nothing_dropped_is_the_same_plan() -> None:
    one, other = (dagc.compile_text(spec(words)) for words in ("zero = 1", "zero = 1, dropout = 0"))
    assert one.to_json() == other.to_json()


def test_megatron_is_told() -> None:
    source = (ROOT / "examples" / "mixtral_pretrain.moe").read_text().replace("pretrain", "step")
    assert "--hidden-dropout 0 " in flat(script(source))
    assert "--hidden-dropout 0.1 " in flat(script(source.replace("zero = 1,", "zero = 1, dropout = 10%,")))


def flat(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())
