"""What a config of an unknown type is most like, by its fields: known ones under another name find themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiers import all_tests

from dagc.base.diagnostics import SpecError
from dagc.importers.huggingface import import_config
from dagc.lang import library
from dagc.lang.huggingface.likeness import alike, another

DATA = Path(__file__).parent / "data"


def test_most_configs_find_their_own_architecture() -> None:
    known = library.architectures()
    found = []
    for path in [*sorted(DATA.glob("reference/*/config.json")), *sorted(DATA.glob("hf_configs/*.json"))][
        :: 1 if all_tests() else 3
    ]:
        fields = json.loads(path.read_text())
        fields |= fields.get("text_config") or {}
        if fields.get("model_type") in known:
            own = fields["model_type"], another(fields["model_type"])
            found.append(not set(own).isdisjoint(alike(fields, known)))
    assert len(found) > (80 if all_tests() else 25) and sum(found) >= 0.9 * len(found)


def test_an_unknown_type_is_told_what_it_is_like(tmp_path: Path) -> None:
    fields = json.loads((DATA / "reference" / "deepseek_v3_yarn" / "config.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields | {"model_type": "qwen9"}))
    with pytest.raises(SpecError, match="the architecture `qwen9` is not in the library") as caught:
        import_config(str(path))
    told, *_ = caught.value.help
    assert "its fields are most like those of" in told and "`deepseek_v3`" in told


def test_architectures_under_another_name_are_named_by_the_one_that_they_are() -> None:
    assert [another(kind) for kind in ("internlm3", "kimi_k2", "llama")] == ["llama", "deepseek_v3", None]
    fields = json.loads((DATA / "reference" / "internlm3" / "config.json").read_text())
    assert "llama" in alike(fields, ["exaone", "internlm3", "llama"]) and "internlm3" not in alike(
        fields, library.architectures()
    )


def test_fields_that_nobody_reads_are_like_nothing(tmp_path: Path) -> None:
    assert alike({"colour": "red", "model_type": "x"}, library.architectures()) == []
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "mixtrall"}))
    with pytest.raises(SpecError) as caught:
        import_config(str(path))
    assert caught.value.help[0] == "did you mean `mixtral`?"
