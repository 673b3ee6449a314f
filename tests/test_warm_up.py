"""Warm-up: how long a pipeline takes to fill and to drain, and what workers move that change between prompts and decode."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import compiled, spec_text
from tiers import spread

import dagc
from dagc.pipeline.moved import cache_relaid, relaid
from dagc.plan.result import PhaseResult
from dagc.plan.subject import phase_metrics, serving_metrics
from dagc.view.facts.timeline import bubbles, cells, representatives, slices


def small(stages: int, microbatches: int, kind: str = "prefill") -> PhaseResult:
    text = spec_text(kind=kind, phase=f"gpus = 0..{stages - 1}, pp = {stages}, microbatches = {microbatches}")
    return dagc.compile_text(text).phases[kind]


@pytest.mark.parametrize("microbatches", [1, 3, 40])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_pipeline_fills_while_its_first_micro_batch_travels(stages: int, microbatches: int) -> None:
    """By hand: the first micro-batch waits for nobody, so it takes each stage's own time and a send after each but the last."""
    schedule = small(stages, microbatches).schedule
    sends = [schedule.sends[stage, 0] for stage in range(stages - 1)]
    travels = sum(schedule.stage_s[: stages - 1]) + sum(end - start for start, end in sends)
    assert schedule.fill_s == pytest.approx(travels, rel=1e-9)
    if microbatches == 1:  # and then the first stage waits for the others
        assert schedule.drain_s == pytest.approx(
            schedule.latency_s - schedule.stage_s[0] if stages > 1 else 0.0, rel=1e-9
        )
    assert schedule.drain_s >= sum(schedule.stage_s[1:]) * (1 - 1e-9) or stages == 1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_figures_are_the_gaps_of_the_picture(phase: str) -> None:
    """The timeline finds gaps from single kernels; the metrics from runs of layers."""
    plan = compiled("plan_a")
    result = plan.phases[phase]
    stages = len(result.graph.stages)
    gaps = {}
    for member in representatives(result):
        if member.stage in (0, stages - 1):
            found = cells(slices(result, member))
            gaps.setdefault(member.stage, []).append(bubbles(found, result.schedule.host_s, result.schedule.latency_s))
    last = [idle[0][1] - idle[0][0] for idle in gaps[stages - 1]]
    first = [idle[-1][1] - idle[-1][0] for idle in gaps[0]]
    assert max(last) == pytest.approx(result.schedule.fill_s, rel=1e-6)
    assert min(first) == pytest.approx(result.schedule.drain_s, rel=1e-6)
    metrics = phase_metrics(plan.subject(phase))
    assert [metrics[name].value for name in ("fill", "drain", "bubble")] == [
        result.schedule.fill_s, result.schedule.drain_s, result.schedule.bubble,
    ]  # fmt: skip


def test_views_say_what_fills_and_what_drains() -> None:
    plan = compiled("plan_a")
    picture = plan.svg("prefill", "timeline")
    assert "fill 27.3%" in picture and "drain 27.3%" in picture
    assert "(fill 29.42 ms, drain 29.38 ms)" in " ".join(str(plan).split())
    assert ">fill " not in compiled("mixtral_8xh100").svg("prefill", "timeline")


# What a worker moves when it changes between prompts and decode.

SERVE = "serve chat { prefill = prefill, decode = decode, arrivals = burst, requests = 4, roles = switch WORDS }"
PAIRS = [
    ("gpus = 0..3, tp = 4", "gpus = 0..3, dp = 4"),
    ("gpus = 0..7, tp = 8", "gpus = 0..7, dp = 2, tp = 4"),
    ("gpus = 0..7, pp = 2, ep = 2, tp = 2", "gpus = 0..7, ep = 4, tp = 2"),
    ("gpus = 0..7, pp = 2, sp = 2, tp = 2", "gpus = 0..3, pp = 2, tp = 2"),
    ("gpus = 0..7, attention { dp = 2, tp = 4 }, experts { ep = 8 }", "gpus = 0..7, attention { tp = 8 }, experts { ep = 4, tp = 2 }"),
    ("gpus = 0..7, ep = 4, sp = 2", "gpus = 4..7, pp = 2, tp = 2"),
]  # fmt: skip


def both(prefill: str, decode: str, words: str = "") -> dagc.Plan:
    text = spec_text(
        phase=prefill, extra=f"phase decode {{ {decode} }}\n{SERVE.replace('WORDS', words)}\nrequire chat.met >= 0",
        workload="sequences = 8, prompt = 64 tok, output = 16 tok",
    )  # fmt: skip
    return dagc.compile_text(text.replace("gpus = 64, per_node = 8", "gpus = 8, per_node = 4"))


def boxes(result: PhaseResult, cached: bool) -> dict[int, dict[tuple[int, str], np.ndarray]]:
    """GPU -> (layer, what) -> which elements of it the GPU has, one by one. Of caches: sequences and tokens in eighths."""
    graph, mesh = result.graph, result.graph.the_mesh
    out: dict[int, dict[tuple[int, str], np.ndarray]] = {}
    layer = 0
    ranks = int(np.prod(mesh.shape))
    for stage in graph.stages:
        gpus = result.gpus[stage.index * ranks : (stage.index + 1) * ranks]
        for name, count in stage.layers:
            segment = graph.segment(name)
            tensors = [op for op in segment.ops if op.kind == "cache"] if cached else list(segment.weights)
            for number in range(layer, layer + count):
                for k, tensor in enumerate(tensors):
                    sizes = [
                        8 if cached and d in ("batch", "context") else int(segment.size(d, tensor.scope))
                        for d in tensor.dims
                    ]
                    for gpu, at in zip(gpus, np.ndindex(*mesh.shape), strict=True):
                        place = dict(zip(mesh.sizes, at, strict=True))
                        mask = np.zeros(sizes, dtype=bool)
                        mask[
                            tuple(
                                mesh.part(s, axes, place) for s, axes in zip(sizes, tensor.sharding.dims, strict=True)
                            )
                        ] = True
                        own = out.setdefault(gpu, {}).setdefault((number, str(k) if cached else tensor.name), mask)
                        own |= mask
            layer += count
    return out


def fetched(before: PhaseResult, after: PhaseResult, cached: bool) -> tuple[float, float, float]:
    """(bytes inside nodes, between them, seconds of the slowest GPU), element by element: from the own node, where anyone there has it."""
    have, want = boxes(before, cached), boxes(after, cached)
    near_B = far_B = slowest_s = 0.0
    for gpu, tensors in want.items():
        own_near = own_far = 0.0
        for key, mask in tensors.items():
            missing = mask & ~have.get(gpu, {}).get(key, np.zeros_like(mask))
            beside = np.zeros_like(mask)
            for other, held in have.items():
                if other // 4 == gpu // 4 and key in held:
                    beside |= held[key]
            own_near += 4.0 * int((missing & beside).sum())
            own_far += 4.0 * int((missing & ~beside).sum())
        near_B, far_B = near_B + own_near, far_B + own_far
        slowest_s = max(slowest_s, own_near / 450e9 + own_far / 50e9)
    return near_B, far_B, slowest_s


@pytest.mark.parametrize(("prefill", "decode"), spread(PAIRS, PAIRS[2::2]))
def test_what_moves_is_what_elements_show(prefill: str, decode: str) -> None:
    plan = both(prefill, decode)
    one, other = plan.phases["prefill"], plan.phases["decode"]
    for before, after in ((one, other), (other, one)):
        moved = relaid(plan, before.name, after.name)
        assert (moved.node_B, moved.cluster_B, moved.time_s) == pytest.approx(fetched(before, after, cached=False))
        assert moved.storage_B == moved.pools_B == 0
    caches = cache_relaid(plan, "prefill", "decode")
    want = [x / 64 for x in fetched(one, other, cached=True)]  # of 8 x 8 shares of sequences and tokens
    assert (caches.node_B, caches.cluster_B, caches.time_s) == pytest.approx(want)


def test_by_hand_tensor_parallel_ranks_become_replicas() -> None:
    """Each of four GPUs has a quarter of what is split and fetches the rest from its node; back it has all that it needs."""
    plan = both(*PAIRS[0], words=", weights = moved")
    switch = plan.servings["chat"].setup.switch
    total = plan.params[0] * 4
    split = total - 4 * (64 * (4 * 2 + 1) + 4 * 64 * 8)  # all but norms and routers
    assert switch is not None and (switch.back_s, switch.moved_B[1]) == (0.0, 0.0)
    assert switch.moved_B[0] == pytest.approx(4 * 0.75 * split)
    assert switch.cost_s == pytest.approx(switch.moved_B[0] / 4 / 450e9)
    metrics = serving_metrics(plan.subject("chat"))
    got = [metrics[f"switch.{name}"].value for name in ("to_decode", "to_prefill", "bytes")]
    assert got == [switch.cost_s, 0.0, switch.moved_B[0]]


def test_weights_of_one_phase_at_a_time_need_no_second_copies() -> None:
    kept, moved = both(*PAIRS[2]), both(*PAIRS[2], words=", weights = moved")
    assert any(d.code == "W06" and "second copies" in d.message for d in kept.diagnostics)
    assert not any("second copies" in d.message for d in moved.diagnostics)
    for before, after in zip(kept.pools, moved.pools, strict=True):
        assert (
            after.weights_B == pytest.approx(before.weights_B - before.copies_B)
            and after.copies_B == 0 < before.copies_B
        )
    assert moved.servings["chat"].setup.switch.cost_s > 0 == kept.servings["chat"].setup.switch.cost_s


def test_equal_layouts_change_at_no_cost_and_a_given_time_counts() -> None:
    same = both("gpus = 0..3, tp = 4", "gpus = 0..3, tp = 4").servings["chat"].setup.switch
    assert (same.cost_s, same.takes(decodes=False), same.per_token_s) == (0.0, 0.0, 0.0)
    given = both(*PAIRS[1], words=", switch = 2 s, weights = moved").servings["chat"].setup.switch
    assert (given.cost_s, given.takes(decodes=False), given.per_token_s) == (2.0, 2.0, 0.0)


def test_a_worker_alone_waits_for_its_caches() -> None:
    """Each time before it decodes, as long as what it holds takes: requests end later by that, and no earlier than without."""
    free, paid = (both(*PAIRS[3], words=words).servings["chat"] for words in (", switch = 0 s", ""))
    switch = paid.setup.switch
    assert switch.per_token_s > 0 and free.count("switches") == paid.count("switches") > 0
    held = 4 * 64  # four prompts of whole blocks
    assert paid.e2e.p99_s - free.e2e.p99_s == pytest.approx(switch.per_token_s * held, rel=1e-6)


def test_weights_are_read_host_by_host() -> None:
    """Two hosts of four GPUs, one stage on each: the host of the fuller stage reads what its four GPUs hold; or a GPU's link is slower."""
    text = spec_text(phase="gpus = 0..7, pp = 2, tp = 4", gpus=8).replace(
        "per_node = 8", "per_node = 4, disk = 2 GB/s, host_link = 25 GB/s"
    )
    plan = dagc.compile_text(text)
    stages = plan.phases["prefill"].memory.stages
    want = max(4 * stage.weights_B / 2e9 for stage in stages)
    assert phase_metrics(plan.subject("prefill"))["load"].value == pytest.approx(want)
    slow = dagc.compile_text(text.replace("disk = 2 GB/s, host_link = 25 GB/s", "disk = 200 GB/s, host_link = 1 GB/s"))
    assert phase_metrics(slow.subject("prefill"))["load"].value == pytest.approx(max(s.weights_B for s in stages) / 1e9)
    assert "load" not in phase_metrics(dagc.compile_text(spec_text()).subject("prefill"))


def test_caches_have_room_where_second_copies_were() -> None:
    """What weights that are moved leave free is room for more tokens of cache."""
    found = []
    for words in ("", ", weights = moved"):
        plan = both(*PAIRS[4], words=words)
        limit = plan.pools[0].capacity_B
        found.append((limit - plan.pools[0].peak_B, plan.subject("decode").room))
    assert found[1][0] - found[0][0] == pytest.approx(both(*PAIRS[4]).pools[0].copies_B) and found[1][1] > found[0][1]


def test_replicas_are_workers_of_their_own() -> None:
    """Two replicas of the phases fetch twice as much as one, and each as long."""
    one = both("gpus = 0..3, tp = 4", "gpus = 0..3, ep = 4", words=", weights = moved").servings["chat"].setup
    two = (
        both("gpus = 0..7, replicas = 2, tp = 4", "gpus = 0..7, replicas = 2, ep = 4", words=", weights = moved")
        .servings["chat"]
        .setup
    )
    assert sum(w.count for w in two.workers) == 2 * sum(w.count for w in one.workers)
    assert two.switch.moved_B == pytest.approx(one.switch.moved_B) and one.switch.moved_B[0] > 0
    assert two.switch.cost_s == pytest.approx(one.switch.cost_s)
