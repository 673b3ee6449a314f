"""Defaults of transformers' config classes: dagc counts their parameters as torch does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiers import spread

from dagc.importers.huggingface import import_config
from dagc.lang import library

MODELS = json.loads((Path(__file__).parent / "data" / "config_defaults.json").read_text())["models"]


def test_most_architectures_have_defaults_to_compare_with() -> None:
    """Those that have none are named in docs/models.md."""
    without = set(library.architectures()) - set(MODELS)
    assert without == {"dbrx", "exaone4_5_text", "gshard", "kimi_k2", "switch_transformers"}


@pytest.mark.parametrize("kind", spread(sorted(MODELS), of=lambda kind: frozenset(MODELS[kind]["config"])))
def test_parameters_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS[kind]["config"]))
    counted = import_config(str(path)).params[0]
    assert counted == pytest.approx(
        MODELS[kind]["parameters"], rel=1e-6
    )  # torch leaves out biases of a choice, which are buffers


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["self_attn", "lm_head"]}


@pytest.mark.parametrize(
    "kind",
    spread(
        ["bamba", "falcon_h1", "gemma2", "kolibri1", "minimax", "olmo_hybrid"], ("gemma2", "kolibri1", "olmo_hybrid")
    ),
)
def test_quantised_checkpoints_of_every_kind_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for section, attention, others in ((AWQ, "int4_g128_zp", "int4_g128_zp"), (FP8, "bf16", "fp8_block")):
        path.write_text(json.dumps(MODELS[kind]["config"] | {"quantization_config": section}))
        model = import_config(str(path)).model
        assert model.weight_dtype == attention
        dtypes = dict(model.weight_dtypes)
        tables = [dtype for block, dtype in dtypes.items() if block.endswith(("embed", "head"))]
        assert set(tables) <= {"bf16"}
        rest = {dtype for block, dtype in dtypes.items() if not block.endswith(("embed", "head"))}
        assert rest == ({others} if attention != others else set()) or rest == {others}
