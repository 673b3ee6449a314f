"""Random plans in a random order, in one process: what was kept says of each what compiling it alone says, to the last bit."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import examples, whole
from test_kept_prices import differences

from dagc.api.face import Plan
from dagc.base.diagnostics import SpecError
from dagc.base.render import render
from dagc.pipeline import kept_lowerings, kept_phases, kept_prices
from dagc.serving.histogram import read_histogram

HARDWARE = (
    'hardware from "h200-sxm" { gpus = 16 }',
    'hardware from "h100-sxm" { gpus = 16, memory = 40 GB }',
    "hardware pool { gpus = 16, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 1.8 TB/s\n"
    "link node { bandwidth = 450 GB/s, latency = 2 us }\nlink cluster { bandwidth = 50 GB/s, latency = 6 us } }",
)
ATTENTION = (
    "attention { kind = gqa, heads = 8, kv_heads = 2, head_dim = 64 }",
    "attention { kind = gqa, heads = 16, kv_heads = 8, head_dim = 128, window = 96 }",
)
FEED_FORWARD = (
    "experts { count = 8, top_k = 2, hidden = 256 }",
    "experts { count = 16, top_k = 4, hidden = 128, shared = 1 }",
    "experts { count = 8, top_k = 2, hidden = 256, capacity = 1.25 }",
    "mlp { hidden = 512 }",
)
LAYOUT = (
    "gpus = 0..7, tp = 8", "gpus = 0..7, tp = 2, ep = 4", "gpus = 0..15, pp = 2, tp = 4, dp = 2", "gpus = 0..7, ep = 8, overlap = two_batch",
    "gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 }", "gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 3",
    "gpus = 0..7, ep = 8, redundant = 8", "gpus = 0..7, sp = 2, tp = 4", "gpus = 0..7, tp = 4, dcp = 2, dp = 2",
)  # fmt: skip
WORDS = {
    "prefill": (
        "", ", chunk = 64 tok", ", chunk = 100 tok", ", prefix = 16 tok, chunk = 40 tok", ", chunk = 64 tok, chunk_overlap = full, chunk_by = work",
        ", lengths = uniform(1%, 200%), packing = packed", ", attention_kernel = unfused",
    ),
    "decode": (
        "", ", draft = 3, acceptance = 0.7", ", context = 1000 tok", ", kv_block = 64", ", cuda_graph = false", ", fuse = []", ", window_cache = whole",
        ", kv_cache { keep = 64 tok, sinks = 4 tok }", ", kv_cache { offload = 50% }", ", exit = [at(layers = 2, share = 0.3)]",
        ", experts { resident = 4, cache = lru }",
    ),
    "mixed": (", decode = DECODE, prompt_tokens = PROMPT tok", ", decode = DECODE, prompts = [PROMPT tok, 17 tok]"),
}  # fmt: skip
ENGINE = ("", ", engine = vllm", ", engine = sglang", ", engine = trtllm")
SEQUENCES = (1, 2, 7, 8, 31, 32, 64, 65, 100, 256, 257, 4096)
PROMPTS = (1, 2, 17, 34, 63, 64, 65, 95, 96, 97, 100, 101, 128, 129, 256, 1000, 8192)
"""At borders: of windows, chunks, blocks, prefixes and calibrated ranges, and of what ranks divide."""


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What was answered by a line of arithmetic, which prices become at once."""
    lines: list[object] = []
    at = kept_prices.Prices.at

    def heard(self: kept_prices.Prices, *given: object) -> object:
        self.fresh = 0
        found = at(self, *given)  # type: ignore[arg-type]
        lines.extend([] if found is None else [found])
        return found

    monkeypatch.setattr(kept_prices.Prices, "at", heard)
    kept_phases.forget()
    yield lines
    kept_phases.forget()


def drawn(rng: random.Random) -> dict[str, str]:
    """Parts of a plan."""
    kind = rng.choice(tuple(WORDS))
    return {
        "hardware": rng.choice(HARDWARE),
        "model": f"layers = 4, hidden = 256, vocab = 1024, dtype = bf16\n{rng.choice(ATTENTION)}\n{rng.choice(FEED_FORWARD)}",
        "routing": rng.choice(("", ", routing = zipf(0.8)")),
        "phase": f"phase {kind} {{ {rng.choice(LAYOUT)}{rng.choice(ENGINE)}{rng.choice(WORDS[kind])} }}",
    }


def written(parts: dict[str, str], rng: random.Random) -> str:
    sequences, prompt, output = rng.choice(SEQUENCES), rng.choice(PROMPTS), rng.choice((1, 16, 33, 1000))
    phase = parts["phase"].replace("DECODE", str(rng.choice(SEQUENCES))).replace("PROMPT", str(rng.choice(PROMPTS)))
    above = "# more\n" * rng.randint(0, 1)
    workload = f"sequences = {sequences}, prompt = {prompt} tok, output = {output} tok{parts['routing']}"
    return (
        f"moe 1\n{parts['hardware']}\nmodel small {{ {parts['model']} }}\n{above}workload {{ {workload} }}\n{phase}\n"
    )


def said(text: str, keep: bool) -> tuple[tuple[object, ...], Plan | None]:
    """Everything that somebody sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_phases, "MOST", 16 * keep)
        patch.setattr(kept_lowerings, "MOST", 8 * keep)
        try:
            plan = whole(text)
        except SpecError as error:
            return (render(error.diagnostics),), None
    spans = [{key: (s.start, s.end) for key, s in unit.spans.items()} for unit in plan.units.values()]
    return (plan.to_json(), render(plan.diagnostics), spans), plan


def test_any_plans_in_any_order(keeping: list[object]) -> None:
    """A few plans at a time are edited: mostly their sizes, at times a part."""
    rng = random.Random(0)
    for _ in range(examples(2)):
        pool: list[dict[str, str]] = []
        while len(pool) < 2:
            parts = drawn(rng)
            pool += [parts] if said(written(parts, rng), keep=False)[1] is not None else []
        for _ in range(20):
            parts = rng.choice(pool)
            if rng.random() < 0.35:
                part = rng.choice(tuple(parts))
                parts = parts | {part: drawn(rng)[part]}
            compare(written(parts, rng))
    assert len(keeping) > 10


def compare(text: str) -> None:
    (found, plan), (wanted, alone) = said(text, keep=True), said(text, keep=False)
    assert found == wanted, text
    if plan is not None and alone is not None:
        for name in ("costs", "memory", "chunks", "collectives", "bound_by"):
            ours, theirs = ([getattr(one, name) for one in each.phases.values()] for each in (plan, alone))
            assert not list(differences(tuple(ours), tuple(theirs))), text


def test_a_file_is_read_anew_that_claims_to_be_as_old(tmp_path: Path) -> None:
    """As tools leave them that copy files with their times."""
    path = tmp_path / "lengths.csv"
    for name, rows, most in (
        (path, "100,10\n", 100),
        (path, "200,10\n", 200),
        (tmp_path / "other.csv", "300,10\n", 300),
    ):
        name.write_text(f"prompt_tokens,output_tokens\n{rows}")
        os.utime(name, ns=(10**18, 10**18))
        name.replace(path)
        assert read_histogram(path).most == (most, 10)
