"""Limits of a request, out of what a spec requires of a serving."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.plan.goodput import limits
from dagc.serving.result import Limits

SPEC = Path(__file__).parent.parent / "examples" / "mixtral_8xh100.moe"


def of(*requirements: str) -> Limits:
    text = SPEC.read_text() + "let most = 40 ms\n" + "".join(f"require {r}\n" for r in requirements)
    return limits(load(Source("spec", text), Collector(), {}, SPEC.parent), "decode")


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ((), Limits()),
        (("decode.ttft.p99 <= 2 s",), Limits(ttft_s=2.0)),
        (("decode.ttft.p50 <= 1 s", "decode.ttft.p99 < 2 s", "decode.ttft.p99 < 3 s"), Limits(ttft_s=2.0)),
        (("2 * most >= decode.tpot.p90", "decode.e2e.mean <= 60 s"), Limits(tpot_s=0.08, e2e_s=60.0)),
        (("decode.ttft.p99 >= 2 s", "prefill.ttft.p99 <= 1 s", "decode.itl.p99 <= 1 s", "decode.queue <= 4"), Limits()),
    ],
)  # fmt: skip
def test_a_request_is_held_to_the_highest_percentile(requirements: tuple[str, ...], expected: Limits) -> None:
    found = of(*requirements)
    assert found == expected
    assert found.any == bool(requirements and expected != Limits())
