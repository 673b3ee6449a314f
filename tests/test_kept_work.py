"""Work of expert ranks that is kept between runs: it never changes an answer, whatever is in the user's cache folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import spec_text

from dagc.base import user_cache
from dagc.base.source import Source
from dagc.cost import kept_work, rank_work
from dagc.cost.expert_load import layer_work
from dagc.cost.expert_work import RankWork
from dagc.ir.routed_dims import NO_LIMIT, GroupLimit
from dagc.pipeline.compile import compile_source
from dagc.spec.workload import Routing

GIVEN: dict[str, Any] = {
    "routings": (Routing("power_law", 0.5),), "experts": 16, "top_k": 2, "ranks": 4, "redundant": 4, "tokens": 200.0,
    "full": float("inf"), "draws": 32, "limit": GroupLimit(4, 2), "nodes": 1, "how": "eplb",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for a dagc that is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DAGC_CACHE", raising=False)
    monkeypatch.setattr(user_cache, "identity", lambda: "installed")
    layer_work.cache_clear()
    return tmp_path / "dagc" / "kept"


def same(one: tuple[RankWork, ...], other: tuple[RankWork, ...]) -> bool:
    def parts(work: RankWork) -> list[Any]:
        return [
            *work.kernel,
            work.relative,
            work.read,
            work.slot_rows,
            work.distinct,
            work.plain,
            work.dropped,
            work.error,
        ]

    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(parts(a), parts(b), strict=True)]
    return all(np.array_equal(a, b) and np.shape(a) == np.shape(b) for a, b in pairs)


def again(**changes: Any) -> tuple[RankWork, ...]:
    """As another process would."""
    layer_work.cache_clear()
    with user_cache.using():
        return layer_work(*(GIVEN | changes).values())


def test_a_second_run_draws_no_more_and_finds_the_same_bit_for_bit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = layer_work(*GIVEN.values())
    assert not home.exists()
    assert same(again(), wanted) and home.exists()
    monkeypatch.setattr(rank_work, "busiest_ranks", lambda *args, **kwargs: pytest.fail("drawn again"))
    assert same(again(), wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [("routings", (Routing("power_law", 0.6),)), ("routings", (Routing("histogram", 0.5, (1.0,) * 16),)), ("experts", 32), ("top_k", 3), ("ranks", 2), ("redundant", 0),
     ("tokens", 201.0), ("full", 30.0), ("draws", 64), ("limit", NO_LIMIT), ("nodes", 2), ("how", "linear")],
)  # fmt: skip
def test_whatever_it_follows_from_is_in_the_key(home: Path, name: str, value: Any) -> None:
    again()
    kept = len(list(home.iterdir()))
    found = again(**{name: value})
    layer_work.cache_clear()
    assert same(found, layer_work(*(GIVEN | {name: value}).values())) and len(list(home.iterdir())) > kept


def test_a_compile_that_keeps_nothing_reads_nothing(home: Path) -> None:
    compile_source(Source("spec", spec_text()))
    assert not home.exists()
    layer_work.cache_clear()
    compile_source(Source("spec", spec_text()), kept=True)
    assert home.exists() and user_cache.in_use() is None


def test_few_are_kept_of_one_run(home: Path) -> None:
    layer_work.cache_clear()
    with user_cache.using():
        for tokens in range(20):
            layer_work(*(GIVEN | {"tokens": 100.0 + tokens, "redundant": 0, "how": "linear"}).values())
    assert len(list(home.iterdir())) == user_cache.Use.MOST


def test_an_entry_of_another_form_counts_as_absent(home: Path) -> None:
    again()
    (good, *_) = [json.loads(path.read_text().partition("\n")[2]) for path in home.iterdir()]
    assert kept_work.restored(good) is not None
    first = good[0]
    bad: list[Any] = [
        None, {}, [], [1], [{}], [first | {"error": "0"}], [first | {"more": 1.0}], [first | {"relative": first["relative"][1:]}],
        [first | {"kernel": first["kernel"][1:]}], [first | {"slot_rows": first["relative"]}], [first | {"read": ["x"]}],
    ]  # fmt: skip
    assert [kept_work.restored(entry) for entry in bad] == [None] * len(bad)
