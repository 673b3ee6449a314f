"""Specs that leave choices open: what is free, what a choice reads as, and the text with choices made."""

from __future__ import annotations

import random

import pytest
from conftest import spec_text

from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.lang.choices import FREED, attribute_of
from dagc.lang.load import load
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.spec.choice import Chosen

FLAT = """moe 1
param batch = 64 in [32, 64]
let ring = 3    # a constant with the name of a word
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = batch, prompt = 2048 tok, output = 256 tok }
phase prefill {
  # ids follow
  gpus = any(8, 16), dp = any, ep = any(1, 2, 4..8), tp = any(batch / 16, 8)   # degrees
  microbatches = any, sp = any, sp_method = any, sequence_parallel = any, overlap = any(none, two_batch)
  dispatch = any(all_to_all, allgather)
  chunk = any(512 tok, 1024), dispatch_dtype = any(fp8, bf16), redundant = any, replicas = any, pp = any
}
phase decode { gpus = any, sequences = any(16, 32, 64), attention { dp = any, tp = any(4, 8) }, experts { ep = any } }
serve chat { arrivals = poisson(4 req/s), requests = 100 }
require "fits" decode.memory.peak <= 95% * hardware.memory
"""
ALL = """moe 1
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..15, strategy = any, pp = 1, microbatches = any(1, 2) }  # one line
phase decode {
  strategy = any    # the rest
  gpus = 0..7
  experts { ep = 8 }
}
"""


def opened(text: str, **settings: str) -> OpenSpec:
    return load_open(Source("plan.moe", text), Collector(), settings)


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        opened(text)
    return caught.value.diagnostics


def drawn(spec: OpenSpec, rng: random.Random) -> dict[str, dict[str, Chosen | None]]:
    """Any values: half of the time with degrees that multiply to the GPUs."""

    def value(path: str, values: tuple[int | str | bool, ...]) -> Chosen | None:
        if values:
            return rng.choice(values)
        if path == "gpus":
            first = rng.randrange(8)
            return rng.choice([8, 16, range(first, first + 8)])
        attribute = attribute_of(path)
        if attribute.kind == "flag":
            return rng.random() < 0.5
        if attribute.words:
            return rng.choice(attribute.words)
        return rng.choice([1, 2, 4, 8] if attribute.low else [0, 8])

    made: dict[str, dict[str, Chosen | None]] = {}
    for name in spec.phases:
        free = {c.path: c.values for c in spec.of(name)}
        made[name] = {path: value(path, values) for path, values in free.items() if rng.random() < 0.8}
        if rng.random() < 0.5:
            made[name] |= {
                path: 1 for path in ("pp", "replicas", "dp", "sp", "attention.dp", "attention.sp") if path in free
            }
            made[name] |= {"gpus": 8} if "gpus" in free else {}
            made[name] |= {"redundant": 0} if "redundant" in free else {}
            pair = ("attention.dp", "attention.tp") if "attention.dp" in free else ("ep", "tp")
            made[name] |= dict(
                zip(pair, rng.choice([(1, 8), (2, 4)] if name == "decode" or "ep" in free else [(2, 8)]), strict=True)
            )
            made[name] |= {"experts.ep": 8} if "experts.ep" in free else {}
            made[name] |= {"experts.tp": rng.choice([1, 2])} if "experts.tp" in free else {}
    return made


@pytest.mark.parametrize(("text", "settings"), [(FLAT, {}), (FLAT, {"batch": "32"}), (ALL, {})])
def test_a_choice_reads_as_what_is_written_out(text: str, settings: dict[str, str]) -> None:
    """The text that is written is formatted, has its comments, leaves nothing open, and reads as the very same spec; and where it
    is refused, so is the choice, in the same words."""
    spec = opened(text, **settings)
    rng = random.Random(7)
    legal = 0
    for _ in range(100):
        values = drawn(spec, rng)
        written = spec.text(values)
        assert format_source(Source("plan.moe", written)) == written and "any" not in written
        assert all(word in written for word in ("# ids follow", "# degrees") if word in text)
        found = Collector()
        closed = spec.closed(values, found)
        try:
            plain = load(Source("plan.moe", written), Collector())
        except SpecError as error:
            assert closed is None and {(d.code, d.message) for d in error.diagnostics} == {
                (d.code, d.message) for d in found.items
            }
            continue
        legal += 1
        assert closed == plain
        assert all(spec.phase(p.name, values[p.name], Collector()) == p for p in plain.phases)
    assert legal > 5


def test_what_is_free() -> None:
    spec = opened(FLAT)
    free = {c.path: c.values for c in spec.of("prefill")}
    assert free["ep"] == (1, 2, 4, 5, 6, 7, 8) and free["tp"] == (4, 8) and free["gpus"] == (8, 16)
    assert free["dp"] == () and free["chunk"] == (512, 1024) and free["overlap"] == ("none", "two_batch")
    assert [c.path for c in spec.of("decode")] == ["gpus", "sequences", "attention.dp", "attention.tp", "experts.ep"]
    assert spec.choices == spec.of("prefill") + spec.of("decode")
    every = opened(ALL)
    assert {c.path for c in every.of("prefill")} == {*FREED} - {"pp"}
    assert {c.path for c in every.of("decode")} == {*FREED} - {"experts.ep"}
    with pytest.raises(KeyError):
        every.phase("decode", {"pp": 1, "experts.ep": 4}, Collector())


def test_a_plain_spec_leaves_nothing_open() -> None:
    spec = opened(spec_text())
    assert spec.choices == () and spec.spec == load(Source("plan.moe", spec_text()), Collector())
    assert spec.text({}) == format_source(Source("plan.moe", spec_text()))
