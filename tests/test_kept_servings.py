"""Figures of servings that are kept between runs: they never change an answer, whatever is in the user's cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import conftest
import pytest
import shared_runs
from conftest import ROOT, share_servings

import dagc
from dagc.base import user_cache
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline import kept_servings
from dagc.pipeline.compile import compile_source
from dagc.plan.goodput import limits
from dagc.plan.plan import CompiledPlan
from dagc.spec.metrics.known_metrics import of_serving

SPEC = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model small {
  layers = 2, hidden = 256, vocab = 1000, dtype = bf16
  attention { heads = 8, kv_heads = 8, head_dim = 32 }
  experts { count = 8, top_k = 2, hidden = 256 }
}
workload { sequences = 8, prompt = 512 tok, output = 16 tok }
phase prefill { gpus = 0..7, tp = 8 }
phase decode { gpus = 0..7, tp = 8 }
serve chat { prefill = prefill, decode = decode, arrivals = poisson(RATE req/s), requests = 20, prompts = first }
require "soon" chat.ttft.p99 <= LIMIT ms
"""
KEY = "0" * 64


def compiled(rate: int = 40, limit: int = 300, *, kept: bool = True) -> CompiledPlan:
    text = SPEC.replace("RATE", str(rate)).replace("LIMIT", str(limit))
    return compile_source(Source("spec", text), kept=kept)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for a dagc that is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DAGC_CACHE", raising=False)
    monkeypatch.setattr(user_cache, "identity", lambda: "installed")
    monkeypatch.setattr(user_cache.Use, "MOST", 0)  # of what tests here are not about
    return tmp_path / "dagc" / "kept"


@pytest.fixture(scope="module")
def plain() -> CompiledPlan:
    """Of which nothing is kept."""
    return compiled(kept=False)


def entries(home: Path) -> list[Path]:
    return sorted(home.glob("*.json"))


def test_an_earlier_run_gives_the_same_answer(home: Path) -> None:
    fresh = compiled()
    (entry,) = entries(home)
    assert entry.stat().st_mode & 0o777 == 0o600 and home.stat().st_mode & 0o777 == 0o700
    again = compiled()
    result, wanted = again.servings["chat"], fresh.servings["chat"]
    assert isinstance(result, kept_servings.KeptResult) and not isinstance(wanted, kept_servings.KeptResult)
    assert [(v.value, v.passed) for v in again.requirements] == [(v.value, v.passed) for v in fresh.requirements]
    of_both = [[m.how(plan.subject("chat")) for m in of_serving()] for plan in (fresh, again)]
    assert repr(of_both[0]) == repr(of_both[1])
    for name in ("arrived", "finished", "rate_per_s", "throughput_tok_s", "queue_mean", "hit_rate", "roles", "growth"):
        assert getattr(result, name) == getattr(wanted, name)
    assert "_whole" not in vars(result)  # nothing was simulated for all that
    assert result.outcome.end_s == wanted.outcome.end_s and result.setup.seed == wanted.setup.seed


def test_another_spec_limit_or_version_has_an_entry_of_its_own(
    home: Path, plain: CompiledPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plain
    (serve,) = plan.spec.serves
    limited = limits(plan.spec, "chat")
    keys = [kept_servings.key(plan.spec, serve, limited)]
    for other in (compiled(41, kept=False), compiled(40, 200, kept=False)):
        keys.append(kept_servings.key(other.spec, other.spec.serves[0], limits(other.spec, "chat")))
    monkeypatch.setattr(user_cache, "identity", lambda: "another version")
    keys.append(kept_servings.key(plan.spec, serve, limited))
    assert None not in keys and len(set(keys)) == 4
    monkeypatch.setattr(user_cache, "identity", lambda: None)
    assert kept_servings.key(plan.spec, serve, limited) is None  # a checkout
    assert entries(home) == []


@pytest.mark.parametrize("written", ["host = 0 ms", "launch = 125 us"])
def test_what_is_written_and_what_the_engine_does_have_entries_of_their_own(home: Path, written: str) -> None:
    """The same numbers, but an engine's are replaced by those that were measured."""
    text = SPEC.replace("RATE", "40").replace("LIMIT", "300").replace("h100-sxm", "h200-sxm")
    texts = [text.replace("tp = 8 }", f"tp = 8, engine = vllm{more} }}") for more in ("", f", {written}")]
    first, other = (load(Source("spec", one), Collector()) for one in texts)
    assert first.phases == other.phases
    keys = [kept_servings.key(spec, spec.serves[0], limits(spec, "chat")) for spec in (first, other)]
    assert None not in keys and keys[0] != keys[1]


def test_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGC_CACHE", "off")
    plan = compiled()
    assert not home.exists() and kept_servings.key(plan.spec, plan.spec.serves[0], limits(plan.spec, "chat")) is None


def test_what_was_reported_of_a_run_is_reported_again(home: Path) -> None:
    text = SPEC.replace("RATE", "40").replace("LIMIT", "300").replace("prompts = first", "balance = 2")
    told = [compile_source(Source("spec", text), kept=True).diagnostics for _ in range(2)]
    assert [d.message for d in told[0]] == [d.message for d in told[1]] and "has no effect" in str(told[1])
    assert entries(home) == []


def _text(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(change(path.read_text())) and None


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _deep(path: Path) -> None:
    body = "[" * 30_000
    path.write_text(f"{user_cache.digest(KEY + body)}\n{body}")


def _not_mine(path: Path) -> None:
    path.chmod(0o666)


def _open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def _of_another_key(path: Path) -> None:
    body = json.dumps({"a": 1})
    path.write_text(f"{user_cache.digest('1' * 64 + body)}\n{body}")


@pytest.mark.parametrize(
    "spoil",
    [
        _text(lambda t: t.replace('"x": 1', '"x": 2')),
        _text(lambda t: t[:-3]),
        _text(lambda t: ""),
        _text(lambda t: t + " " * user_cache.MAX_BYTES),
        lambda path: path.write_bytes(b"\xff\xfe\n{}"),
        _linked, _deep, _not_mine, _open_folder, _of_another_key,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)  # fmt: skip
def test_a_spoilt_entry_counts_as_absent(home: Path, spoil: Callable[[Path], Any]) -> None:
    user_cache.write(KEY, {"x": 1})
    assert user_cache.read(KEY) == {"x": 1}
    spoil(home / f"{KEY}.json")
    assert user_cache.read(KEY) is None


def test_a_folder_that_is_a_link_or_cannot_be_written_is_not_used(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    home.parent.mkdir()
    home.symlink_to(real)
    user_cache.write(KEY, {"x": 1})
    assert list(real.iterdir()) == [] and user_cache.read(KEY) is None
    home.unlink()
    home.write_text("a file where the folder would be")
    user_cache.write(KEY, {"x": 1})
    assert user_cache.read(KEY) is None


def test_it_stays_small_and_keeps_the_latest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_cache, "MAX_ENTRIES", 3)
    home.mkdir(parents=True, mode=0o700)
    (home / "notes.txt").write_text("not of dagc")
    for k in range(6):
        user_cache.write(f"{k:064}", k)
        os.utime(home / f"{k:064}.json", (k, k))
    assert [user_cache.read(f"{k:064}") for k in range(6)] == [None, None, None, 3, 4, 5]
    user_cache.write(KEY, "x" * user_cache.MAX_BYTES)
    assert user_cache.read(KEY) is None and (home / "notes.txt").exists()


def test_every_installation_has_an_identity_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what an interrupted upgrade left of the version before is found first."""
    monkeypatch.setattr(user_cache, "__file__", str(tmp_path / "dagc" / "base" / "user_cache.py"))
    found = [user_cache.identity()]
    for version, digest in (("1", "a"), ("2", "b"), ("2", "c")):
        folder = tmp_path / f"dagc_moe-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "RECORD").write_text(f"dagc/base/user_cache.py,sha256={digest},1\n")
        found.append(user_cache.identity())
    assert found[0] is None and None not in found[1:] and len(set(found)) == 4


def test_many_write_one_entry_at_once(home: Path) -> None:
    def work(number: int) -> Any:
        user_cache.write(KEY, [number] * 2000)
        return user_cache.read(KEY)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(64)))
    assert all(len(set(one)) == 1 and len(one) == 2000 for one in found)
    assert [file.name for file in home.iterdir()] == [f"{KEY}.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fine"}, {"ttft": None}, {"counts": {"arrived": -1}}, {"roles": [{}]}, {"met": "1"}, {"growth": {"piled": 0.0}},
        {"duration_s": True}, {"roles": 3},
    ],
)  # fmt: skip
def test_an_entry_of_another_form_counts_as_absent(plain: CompiledPlan, change: dict[str, Any]) -> None:
    plan = plain
    result = plan.servings["chat"]
    good = json.loads(json.dumps(kept_servings.entry(result)))
    assert kept_servings.restored(good, plan.spec.serves[0], result.limits, lambda: result) is not None
    for bad in ({**good, **change}, [], None, "x", {}):
        assert kept_servings.restored(bad, plan.spec.serves[0], result.limits, lambda: result) is None


def test_what_tests_share_is_what_they_would_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By other workers and runs, in files: the same figures, requests and steps."""
    monkeypatch.setattr(shared_runs, "FOLDER", tmp_path)
    path = ROOT / "examples" / "plan_b.moe"
    fresh = dagc.compile(path)
    made = []
    for _ in range(2):
        monkeypatch.setattr(conftest, "SERVED", {})
        with pytest.MonkeyPatch.context() as patch:
            share_servings(patch, keep=True)
            made.append(dagc.compile(path))
    assert len(list(tmp_path.rglob("*"))) == 2, "the folder of these sources, and a serving"
    for plan in made:
        assert plan.servings == fresh.servings and plan.to_json() == fresh.to_json()
        found, want = plan.servings["traffic"], fresh.servings["traffic"]
        assert found.outcome.series == want.outcome.series and found.outcome.gaps == want.outcome.gaps
        assert [*found.outcome.steps] == [*want.outcome.steps]
        assert plan.serving_svg("traffic", "steps") == fresh.serving_svg("traffic", "steps")
