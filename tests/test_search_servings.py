"""Searches by figures of servings: what is compared, what is said of it."""

from __future__ import annotations

import pytest
from conftest import spec_text
from tiers import exhaustive

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.calib.accuracy import serving_errors
from dagc.lang.load import load
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.optimize.search.by_serving import errors_of
from dagc.optimize.search.objectives import NoObjective, of_serving
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.plain_answer import findings
from dagc.optimize.search.why import Explainer
from dagc.pipeline.compile import compile_spec
from dagc.view.report.search_report import reasons


def opened(text: str) -> OpenSpec:
    return load_open(Source("plan.moe", text), Collector())


def test_servings_of_phases_that_divide_the_gpus_are_compared_by_what_requests_see() -> None:
    text = spec_text(
        kind="prefill", gpus=4, phase="gpus = any(1, 2, 3), engine = vllm, tp = 1, dp = any",
        extra="phase decode { gpus = any(1, 2, 3), engine = vllm, tp = 1, dp = any }\n"
        "serve chat { arrivals = poisson(2000 req/s), requests = 16, prompts = first }",
    )  # fmt: skip
    spec = opened(text)
    for words, why in REFUSED.items():
        with pytest.raises(NoObjective, match=why):
            search(spec, Asked(tuple(words.split())))
    found = search(spec, asked := Asked(("chat.throughput",), top=9))
    counts = [
        tuple(len(plan.phases[n].gpus) for n in ("prefill", "decode"))
        for plan in (dagc.compile_text(o.text) for o in found.ranked)
    ]
    assert set(counts) == {(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1)} and all(
        one.gpus == sum(c) for one, c in zip(found.ranked, counts, strict=True)
    )
    shown = Explainer(spec, asked, found).explained(findings(found, "plan.moe"))
    (served,) = shown.served
    best, other = (
        dagc.compile_text(found.ranked[k].text).serve("chat") for k in (0, int(served.name.removeprefix("plan ")) - 1)
    )
    figures = {name: (own, of_other) for name, own, of_other in served.figures}
    assert figures["throughput"] == (best.throughput_tok_s, other.throughput_tok_s)
    assert all(own != of_other for own, of_other in figures.values())
    times = set(figures) & {"ttft.p50", "ttft.p99", "tpot.p50", "tpot.p99", "queue", "utilization"}
    assert len(times) > 3 and figures["utilization"] == (best.utilization, other.utilization)
    text = reasons(shown)
    assert "chat with the best plan, and with plan" in text and "utilization" in text
    assert found.errors == ()  # of these GPUs nothing was measured


REFUSED = {
    "ttft.p50 chat.goodput": "`ttft.p50` is no figure of a serving",
    "ttft.p50": "`ttft.p50` is a figure of a serving",
    "chat.goodput throughput": "`throughput` is no figure of a serving",
    "chat.godput": "no objective `chat.godput`",
}

MEASURED = """moe 1
hardware from "h200-sxm" { gpus = 8 }
model from "qwen3-30b-a3b" { weight_dtype = fp8_block }
workload { sequences = 8, prompt = 256 tok, output = 4 tok }
phase mixed { gpus = 0..0, engine = vllm, decode = 8 }
serve chat { arrivals = burst, requests = 2 }
require "met" chat.ttft.p99 <= 10 s
"""


def test_figures_of_servings_are_as_sure_as_the_times_that_they_follow_from() -> None:
    plan = compile_spec(load(Source("plan.moe", MEASURED), Collector()), Collector(), servings={"chat"})
    known = serving_errors("vllm")

    def medians(*words: str) -> list[float]:
        asked = [one for word in words if (one := of_serving(f"chat.{word}", ["chat"])) is not None]
        return [error.median for error in errors_of(plan, asked)]

    assert medians("ttft.p99") == [known["ttft"].median] and medians("itl.p50") == [known["tpot"].median]
    assert medians("throughput") == medians("goodput") == medians("cost_per_token") == [known["e2e"].median]
    assert medians("ttft.p50", "throughput") == [max(known["ttft"].median, known["e2e"].median)]
    assert medians("met") == medians("queue") == medians("throughput", "preemptions") == []


def test_a_serving_that_no_default_fits_is_known() -> None:
    """Its phases share GPUs until pools are chosen, and then prefill has workers of its own."""
    text = MEASURED.replace('hardware from "h200-sxm" { gpus = 8 }', 'hardware a from "h100-sxm" { gpus = 2 }\nhardware b from "h200-sxm" { gpus = 2 }\nlink a to b { bandwidth = 50 GB/s, latency = 5 us }')  # fmt: skip
    text = text.replace(
        "phase mixed { gpus = 0..0, engine = vllm, decode = 8 }",
        "phase prefill { hardware = any, gpus = 0..0, engine = vllm }\nphase decode { hardware = any, gpus = 0..0, engine = vllm }",
    )
    text = text.replace("requests = 2", "requests = 2, prefill_workers = 1, workers = 1")
    found = search(opened(text), Asked(("chat.throughput",), top=9))
    assert (
        found.complete
        and found.joined is not None
        and (found.joined.tried, found.joined.refused, len(found.ranked)) == (4, 2, 2)
    )
    assert {tuple(own["hardware"] for own in one.values.values()) for one in found.ranked} == {("a", "b"), ("b", "a")}


def under_traffic(limit: str, prefill: str = "attention { tp = 2 }") -> str:
    return spec_text(
        kind="prefill", gpus=2, phase=f"gpus = 0..1, engine = vllm, {prefill}, experts {{ ep = 2 }}",
        extra="phase decode { gpus = 0..1, engine = vllm, attention { dp = any, tp = any }, experts { ep = 2 } }\n"
        "serve chat { arrivals = poisson(200 req/s), requests = 12, prompts = first }\n"
        f'require "first token" chat.ttft.p99 <= {limit}',
    )  # fmt: skip


def test_what_is_required_of_servings_counts_where_figures_of_phases_are_searched() -> None:
    """Plans are simulated in the order of their own figures: the answer is the first that `dagc check` passes."""
    every = search(opened(under_traffic("3600 s")), Asked(top=4))
    seen = [dagc.compile_text(one.text).serve("chat").ttft.p99_s for one in every.ranked]
    assert len(seen) == 2 and every.complete and seen[0] != seen[1]
    best = min((0, 1), key=seen.__getitem__)
    found = search(opened(under_traffic(f"{sum(seen) / 2 * 1e6:.6f} us")), Asked(top=1))
    assert found.best is not None and found.complete and found.best.values == every.ranked[best].values


@exhaustive
def test_a_search_that_finds_none_says_how_near_the_nearest_is() -> None:
    either = "attention { dp = any, tp = any }"
    found = search(opened(under_traffic("1 us", either)), Asked(top=1))
    assert found.best is None and found.complete and found.joined is not None and found.joined.refused == 4
    (near,) = found.joined.near
    assert near.rule == "requirement: first token" and "not <= 1 us" in near.words
    front = search(opened(under_traffic("1 us", either)), Asked(("prefill.ttft", "decode.tpot", "gpus")))
    assert not front.ranked and not front.complete  # what those are better than is not known


@pytest.mark.parametrize("wrong", ["chat.ttft.p99 <= 1 day", "decode.tpot <= 1 day", "chat.tft <= 1 s"])
def test_a_requirement_that_cannot_be_read_is_an_error_of_the_spec(wrong: str) -> None:
    spec = opened(under_traffic(f'1 s\nrequire "wrong" {wrong}'))
    with pytest.raises(SpecError) as caught:
        search(spec, Asked(top=1))
    assert [d.code for d in caught.value.diagnostics if d.code.startswith("E")] == ["E02"]
    assert caught.value.diagnostics[0].help


def test_a_cache_that_ranks_share_has_room_for_contexts_of_any_length() -> None:
    """`dcp` cuts a context into equal parts: how full the cache gets is asked at one that can be cut so."""
    text = spec_text(
        kind="prefill", gpus=2, phase="gpus = 0..1, engine = vllm, tp = 2",
        extra="phase decode { gpus = 0..1, engine = vllm, tp = 2, dcp = 2 }\n"
        "serve chat { arrivals = poisson(200 req/s), requests = 4, prompts = first, prompt = 251 tok, output = 4 tok }\n"
        'require "first token" chat.ttft.p99 <= 1 s',
    ).replace("kv_heads = 4", "kv_heads = 1")  # fmt: skip
    plan = dagc.compile_text(text)
    assert plan.passed and plan.serve("chat").finished == 4
