"""Defaults of transformers' config classes: dagc counts their parameters as torch does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dagc.importers.huggingface import import_config
from dagc.lang import library

MODELS = json.loads((Path(__file__).parent / "data" / "config_defaults.json").read_text())["models"]


def test_most_architectures_have_defaults_to_compare_with() -> None:
    """Those that have none are named in docs/models.md."""
    without = set(library.architectures()) - set(MODELS)
    assert without == {"dbrx", "exaone4_5_text", "gshard", "kimi_k2", "switch_transformers"}


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_parameters_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS[kind]["config"]))
    counted = import_config(str(path)).params[0]
    assert counted == pytest.approx(
        MODELS[kind]["parameters"], rel=1e-6
    )  # torch leaves out biases of a choice, which are buffers
