"""A phase that was compiled is not compiled again for a spec that says the same of it, and nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import EXAMPLES, FEW, ROOT, spec_text
from tiers import spread

import dagc
from dagc.base.heard import LISTENERS
from dagc.base.render import render
from dagc.pipeline import compile as compiling
from dagc.pipeline import kept_phases
from dagc.spec.unit import Unit

TWO = spec_text(kind="prefill", phase="gpus = 0..7, ep = 4, tp = 2", extra="phase decode { gpus = 8..15, tp = 8 }")


@pytest.fixture(autouse=True)
def compiled_phases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the phases that were compiled, in order."""
    found: list[str] = []
    compile_phase = compiling.compile_phase

    def heard(unit: Unit) -> object:
        found.append(unit.phase.name)
        return compile_phase(unit)

    monkeypatch.setattr(compiling, "compile_phase", heard)
    monkeypatch.setattr(kept_phases, "MOST", 16)
    kept_phases.forget()
    yield found
    kept_phases.forget()


def said(plan: dagc.Plan) -> tuple[str, str]:
    return plan.to_json(), render(plan.diagnostics)


@pytest.mark.parametrize(
    "path", spread(EXAMPLES, lambda path: path.stem in {*FEW, "mixtral_pretrain"}), ids=lambda path: path.stem
)
def test_a_changed_text_compiles_to_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments above and below: what is told is at its new lines."""
    monkeypatch.chdir(path.parent)
    text = path.read_text().partition("\nserve ")[0].partition("\nrequire")[0]
    changed = text.replace("moe 1\n", "moe 1\n\n# more\n", 1) + "\n# further\n"
    dagc.compile_text(text)
    again = said(dagc.compile_text(changed))
    kept_phases.forget()
    assert again == said(dagc.compile_text(changed))


def test_what_is_said_alike_is_kept(compiled_phases: list[str]) -> None:
    first = dagc.compile_text(TWO)
    assert compiled_phases == ["prefill", "decode"]
    other = dagc.compile_text(TWO + 'require "quick" decode.tpot <= 1 s\n# more\n')
    assert compiled_phases == ["prefill", "decode"] and len(other.requirements) == 1
    assert other.phases["decode"] is first.phases["decode"] and other.units["decode"].spans
    dagc.compile_text(TWO.replace("tp = 8", "tp = 4, dp = 2"))
    assert compiled_phases == ["prefill", "decode", "decode"]


@pytest.mark.parametrize(
    ("old", "new"),
    spread([
        ("hbm = 1.8 TB/s", "hbm = 1.7 TB/s"), ("hidden = 64", "hidden = 128"), ("sequences = 64", "sequences = 32"),
        ("output = 16 tok", "output = 32 tok"), ("ep = 4, tp = 2", "ep = 2, tp = 4"), ("latency = 2 us", "latency = 3 us"),
        ("ep = 4, tp = 2", "ep = 4, tp = 2, chunk = 128 tok"), ("ep = 4, tp = 2", "ep = 4, tp = 2, host = 1 ms"),
    ], of=lambda change: change[0]),
)  # fmt: skip
def test_what_changes_a_phase_compiles_it(old: str, new: str) -> None:
    dagc.compile_text(TWO)
    text = TWO.replace(old, new)
    again = said(dagc.compile_text(text))
    kept_phases.forget()
    assert text != TWO and again == said(dagc.compile_text(text))


def test_a_draft_model_whose_file_changed_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phase says the same of it: its name."""
    monkeypatch.chdir(tmp_path)
    config = json.loads((ROOT / "tests/data/reference/llama/config.json").read_text())
    text = spec_text(kind="decode", phase='gpus = 0..7, tp = 8, draft = 2, draft_model = "config.json"')
    text = text.replace("vocab = 512", f"vocab = {config['vocab_size']}")
    model = {"num_attention_heads": 8, "num_key_value_heads": 8, "hidden_size": 32, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config | model))
    dagc.compile_text(text)
    (tmp_path / "config.json").write_text(json.dumps(config | model | {"intermediate_size": 4000}))
    again = said(dagc.compile_text(text))
    kept_phases.forget()
    assert again == said(dagc.compile_text(text))


def test_what_was_doubted_is_told_again_where_it_is_now() -> None:
    text = spec_text(kind="decode", phase="gpus = 0..7, pp = 4, tp = 2")
    (first,) = (d for d in dagc.compile_text(text).diagnostics if "idle" in d.message)
    (again,) = (d for d in dagc.compile_text(text.replace("moe 1", "moe 1\n#\n#")).diagnostics if "idle" in d.message)
    assert again.message == first.message and again.line == first.line + 2


def test_what_was_doubted_is_told_at_what_is_said_now() -> None:
    """Where the default is written, that is where it is told."""
    text = spec_text(kind="decode", phase="gpus = 0..7, pp = 4, tp = 2")
    dagc.compile_text(text)
    changed = text.replace("tp = 2", "tp = 2, microbatches = 1")
    again = said(dagc.compile_text(changed))
    kept_phases.forget()
    assert again == said(dagc.compile_text(changed)) and "microbatches = 1" in again[1]


def test_a_block_of_ones_own_is_kept_and_its_statements_move_with_it(compiled_phases: list[str]) -> None:
    """Also where its lines were indented anew: then it is compiled again, for its statements are elsewhere in it."""
    text = (EXAMPLES[0].parent / "custom_attention.moe").read_text().partition("\nserve ")[0]
    first = dagc.compile_text(text, phases=["decode"])

    def places(plan: dagc.Plan) -> dict[tuple[str, str], tuple[str, int, int]]:
        return {key: (span.source.name, span.start, span.end) for key, span in plan.units["decode"].spans.items()}

    for changed in (text.replace("moe 1", "moe 1\n\n# more\n"), text.replace("  a = o *", "    a = o   *")):
        again = dagc.compile_text(changed, phases=["decode"])
        kept_phases.forget()
        assert places(again) == places(dagc.compile_text(changed, phases=["decode"]))
        own = again.units["decode"].spans["sparse", "gated_mqa.a"]
        assert own.text.replace(" ", "") == "a=o*sigmoid(g)" and own.source.text == changed
        assert again.phases["decode"].costs.ops.keys() == first.phases["decode"].costs.ops.keys()
    other = text.replace("sigmoid(g)", "silu(g)")
    dagc.compile_text(text, phases=["decode"])
    met = len(compiled_phases)
    dagc.compile_text(other, phases=["decode"])
    dagc.compile_text(other + "# more\n", phases=["decode"])
    assert len(compiled_phases) == met + 1


def test_who_listens_hears_of_each_pass(compiled_phases: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And files of calibrations, which may change, are read each time."""
    dagc.compile_text(TWO)
    heard: list[str] = []

    class Listener:
        def took(self, phase: str, what: str, time_s: float) -> None:
            heard.append(what)

        def read(self, path: str) -> None: ...

    LISTENERS.append(Listener())
    try:
        dagc.compile_text(TWO)
    finally:
        LISTENERS.pop()
    assert "tp" in heard and len(compiled_phases) == 4


def test_few_are_kept(compiled_phases: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_phases, "MOST", 2)
    for tp in (1, 2, 4):
        dagc.compile_text(spec_text(phase=f"gpus = 0..7, tp = {tp}, dp = {8 // tp}"))
    assert len(kept_phases._KEPT) == 2 and len(compiled_phases) == 3
    dagc.compile_text(spec_text(phase="gpus = 0..7, tp = 1, dp = 8"))
    assert len(compiled_phases) == 4
