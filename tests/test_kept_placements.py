"""GPUs of `place = best` that are kept between runs: they never change an answer, whatever is in the user's cache folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dagc.base import user_cache
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline import kept_phases, kept_placements, place_best
from dagc.pipeline.compile import compile_source
from dagc.plan.plan import CompiledPlan
from dagc.spec.spec import Spec

SPEC = """moe 1
hardware from "h100-sxm" { gpus = 32 }
model small {
  layers = 4, hidden = 256, vocab = 1000, dtype = bf16
  attention { heads = 8, kv_heads = 8, head_dim = 32 }
  experts { count = 8, top_k = 2, hidden = 256 }
}
workload { sequences = 32, prompt = PROMPT tok, output = 16 tok }
phase prefill { gpus = 0..31, sp = 4, ep = 4, tp = 2, place = best }
phase decode { gpus = 0..31, pp = 2, dp = 4, ep = 2, tp = 2, place = best }
require "soon" prefill.ttft <= 1 s
"""


def text(prompt: int = 512) -> str:
    return SPEC.replace("PROMPT", str(prompt))


def spec_of(words: str) -> Spec:
    return load(Source("spec", words), Collector(), {}, None)


def shown(plan: CompiledPlan) -> list[object]:
    return [(r.placement, r.graph.the_mesh.the_gpus.ids, r.schedule.period_s) for r in plan.phases.values()]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for a dagc that is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DAGC_CACHE", raising=False)
    monkeypatch.setattr(user_cache, "identity", lambda: "installed")
    monkeypatch.setattr(user_cache.Use, "MOST", 0)  # of what tests here are not about
    return tmp_path / "dagc" / "kept"


def test_a_second_run_searches_no_more_and_says_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = shown(compile_source(Source("spec", text())))
    assert not home.exists()
    assert shown(compile_source(Source("spec", text()), kept=True)) == wanted and len(list(home.iterdir())) == 1
    monkeypatch.setattr(place_best, "placed", lambda spec: pytest.fail("searched again"))
    assert shown(compile_source(Source("spec", "# another comment\n" + text()), kept=True)) == wanted
    assert any(one.moved for one, _, _ in wanted)  # type: ignore[misc]


def test_a_process_searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until something else is said than a comment, or a requirement."""
    asked: list[Spec] = []
    search = place_best.placed

    def heard(spec: Spec) -> object:
        asked.append(spec)
        return search(spec)

    monkeypatch.setattr(place_best, "placed", heard)
    wanted = shown(compile_source(Source("spec", text())))
    monkeypatch.setattr(kept_phases, "MOST", 16)
    kept_phases.forget()
    for words in (text(), "# another comment\n" + text().replace("1 s", "2 s"), text()):
        assert shown(compile_source(Source("spec", words))) == wanted
    assert len(asked) == 2
    compile_source(Source("spec", text(1024)))
    kept_phases.forget()
    compile_source(Source("spec", text()))
    assert len(asked) == 4
    kept_phases.forget()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 512 tok", "= 1024 tok"),
        ("ep = 4", "ep = 4, microbatches = 2"),
        ("h100", "h200"),
        ("pp = 2, dp = 4", "dp = 8"),
    ],
)
def test_whatever_the_search_reads_is_in_the_key(home: Path, old: str, new: str) -> None:
    keys = [kept_placements.key_of(spec_of(words), "p") for words in (text(), text().replace(old, new))]
    assert None not in keys and len(set(keys)) == 2
    assert kept_placements.key_of(spec_of(text().replace("<= 1 s", "<= 2 s")), "p") == keys[0]


def test_an_entry_of_another_form_counts_as_absent(home: Path) -> None:
    spec = spec_of(text())
    good = json.loads(json.dumps(kept_placements.entry(spec, place_best.placed(spec))))
    assert kept_placements.restored(good, spec) == place_best.placed(spec)

    def changed(*path: str, to: Any) -> Any:
        entry = json.loads(json.dumps(good))
        within = entry
        for name in path[:-1]:
            within = within[name]
        within[path[-1]] = to
        return entry

    ids = good["phases"]["prefill"]["ids"]
    bad: list[Any] = [
        None, [], {}, {"phases": good["phases"]},
        changed("phases", "prefill", "ids", to=ids[1:]), changed("phases", "prefill", "ids", to=[*ids[1:], 99]),
        changed("phases", "prefill", "ids", to=[*ids[1:], float(ids[0])]), changed("phases", "prefill", "best", to=1),
        changed("phases", "other", to=good["phases"]["prefill"]), changed("placements", "other", to=good["placements"]["prefill"]),
        changed("placements", "prefill", "before_s", to="1"), changed("placements", "prefill", "more", to=1),
        changed("placements", "prefill", "inside", to=[["node", {"tp": 2.5}]]), changed("placements", "prefill", "levels", to=[["node", 1]]),
    ]  # fmt: skip
    for entry in bad:
        assert kept_placements.restored(entry, spec) is None
