"""Prices of the steps of a serving: what is compiled, what stands between, and the workers that a plan makes."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
from conftest import examples
from tiers import all_tests, left_out, spread

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.analyse import held
from dagc.pipeline.compile import compile_phase, compile_spec
from dagc.pipeline.drafts import held_with_drafter
from dagc.pipeline.lower import lowered
from dagc.pipeline.serve import CannotServe, Servings
from dagc.pipeline.serving_roles import grain
from dagc.pipeline.step_kinds import Limits
from dagc.pipeline.step_kinds import Source as Phases
from dagc.pipeline.step_points import Knot, Steps, compiled, phase_of
from dagc.pipeline.step_prices import Host, StepPrices
from dagc.pipeline.step_tables import Chain, Curve, Errors, Patch, Patches
from dagc.plan.plan import CompiledPlan
from dagc.plan.result import passes_s
from dagc.serving.offered import load_of
from dagc.serving.records import Line, Setup, Transfer
from dagc.serving.simulate import simulate
from dagc.spec.engines import ENGINES
from dagc.spec.host_constants import HostConstants, constants
from dagc.spec.phase import Launches
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

MOST = 0.02
"""Of a step's time: more than any point of these plans is off, whose checks find up to 0.01."""


def spec_of(model: str, strategy: str, serve: str = "", *, engine: str = "", drafts: str = "") -> Spec:
    common = f"gpus = 0..7\n{engine}\n{strategy}\n"
    text = f"""moe 1
hardware from "h100-sxm" {{ gpus = 8 }}
model from "{model}" {{ {"mtp_layers = 1" if drafts else ""} }}
workload {{ sequences = 8, prompt = 1024 tok, output = 128 tok }}
phase prefill {{ {common} }}
phase decode {{ {common}{drafts} }}
{serve}"""
    return load(Source("<test>", text), Collector())


def plan_of(spec: Spec) -> CompiledPlan:
    return compile_spec(spec, Collector())


DENSE = ("qwen3-32b", "tp = 8")
EXPERTS = ("mixtral-8x7b", "attention { dp = 2, tp = 4 }\nexperts { ep = 8 }")
LATENT = ("deepseek-v2-lite", "attention { dp = 4, tp = 2 }\nexperts { ep = 8 }")
DRAFTS = "draft = 1, acceptance = 80%, drafter = mtp"


@cache
def plan(model: str, strategy: str, drafts: str = "") -> CompiledPlan:
    chat = "serve chat { arrivals = burst, requests = 1 }\n"
    return plan_of(spec_of(model, strategy, chat, engine="engine = vllm", drafts=drafts))


def prices(own: CompiledPlan) -> StepPrices:
    (workers,) = Servings(own).setup(own.spec.serves[0]).workers
    assert isinstance(workers.engine.prices, StepPrices)
    return workers.engine.prices


def at(line: Line, context: float) -> float:
    assert line.since <= context < line.until
    return line.base_s + line.per_token_s * context


@pytest.mark.parametrize("drafts", ["", DRAFTS], ids=["plain", "mtp"])
@pytest.mark.parametrize(
    "knot", [Knot("decode", 16, 1000), Knot("decode", prompts=4, tokens=704, attended=904), Knot("decode", 16, 500, 4, 256, 512)],
    ids=lambda k: k.kind,
)  # fmt: skip
def test_a_step_costs_what_its_phase_compiles_to(knot: Knot, drafts: str) -> None:
    spec = spec_of(*LATENT, drafts=drafts)
    phase = replace(phase_of(knot, spec), launches=Launches())
    whole = compile_phase(Unit(spec, phase, Collector()))
    found = compiled(knot, spec)
    assert found.time_s == passes_s(whole.all_passes)
    parts = (found.routed_s, found.decode_s, found.prompt_s)
    assert found.routed_s > 0 and sum(parts) < found.time_s
    assert (found.decode_s > 0, found.prompt_s > 0) == (
        (True, True) if knot.kind == "mixed" else (bool(drafts) and knot.kind == "decode", False)
    )


@pytest.mark.parametrize(
    "model",
    spread(
        ["mixtral-8x7b", "deepseek-v2-lite", "gpt-oss-20b", "qwen3-next-80b-a3b", "deepseek-v3.2"],
        {"gpt-oss-20b", "deepseek-v3.2"},
    ),
)
def test_a_graph_serves_other_contexts(model: str) -> None:
    """As if it had been lowered for them: windows, chunks, latent caches and states, and those that choose among cached tokens."""
    spec = spec_of(model, "attention { dp = 2, tp = 4 }\nexperts { ep = 8 }")
    steps = Steps(spec)
    for context in (4096, 64, 20000):
        for knot in (Knot("decode", 16, context), Knot("prefill", prompts=2, tokens=64, attended=context)):
            assert steps(knot) == compiled(knot, spec)
    assert len(steps.layouts.known) < 6  # of as many steps


@pytest.mark.parametrize("own", [left_out((DENSE,)), EXPERTS, (*LATENT, DRAFTS)], ids=["dense", "experts", "latent"])
def test_steps_between_knots_are_as_near_as_said(own: tuple[str, ...]) -> None:
    """At random steps of every kind, against the same steps compiled whole."""
    found, spec = prices(plan(*own)), plan(*own).spec
    source = found.sources[0]
    assert source is not None
    rng, gpu = random.Random(7), without_host(found)
    ranks, worst = source.ranks, 0.0
    for _ in range(examples(3)):
        b, m, t, x = (
            rng.randint(1, 60),
            rng.randint(100, 4000),
            rng.randint(20, 4000),
            rng.choice([0, rng.randint(1, 3000)]),
        )
        pairs = t * x + t * (t + 1) / 2
        for line, knot in (
            (gpu.step(b, b * m), Knot("decode", b * ranks, m)),
            (gpu.step(0, 0, t, pairs, t), Knot("prefill", 0, 1, ranks, t, t + x)),
            (gpu.step(b, b * m, t, pairs, t), Knot("decode", b * ranks, m, ranks, t, t + x)),
            (gpu.step(b, b * m, t / ranks, pairs, t), Knot("decode", b * ranks, m, 1, t, t + x)),
        ):
            exact = compiled(knot, spec).time_s
            worst = max(worst, abs(at(line, b * m) / exact - 1))
    assert worst <= MOST, (worst, gpu.error)
    assert 0 < gpu.error <= MOST


def without_host(found: StepPrices) -> StepPrices:
    """Of the GPUs alone."""
    return StepPrices(found.price, found.limits, Host(), *found.sources, ranks=found.ranks)


def test_two_batches_that_overlap_share_a_prompt() -> None:
    """A half each, which attend to as many tokens together as the whole one; what does not add up is corrected."""
    own = plan(EXPERTS[0], f"{EXPERTS[1]}\noverlap = two_batch")
    found = without_host(prices(own))
    assert found.sources[0] is not None and found.sources[0].lanes == 2
    for b, m, t in ((0, 0, 512), (8, 1000, 512), (24, 2000, 1500), (6, 600, 200)):
        halves = (2 * 2, t // 2, t // 2 + t // 4)
        exact = compiled(Knot("decode", 2 * b, m or 1, *halves), own.spec).time_s
        line = found.step(b, b * m, t, t * (t + 1) / 2)
        assert at(line, b * m) == pytest.approx(exact, rel=0.05), (b, m, t)
    assert found.error < 0.05


def test_a_knot_is_exact_and_lines_hold_where_they_say() -> None:
    spec = spec_of(*EXPERTS)
    limits, source = Limits(64, 2048, 1280, 1152), Phases("decode", ranks=2)
    found = StepPrices(lambda knot: compiled(knot, spec), limits, Host(host_s=1e-3), source, source, source)
    line = found.step(8.0, 8 * 256.0)
    assert at(line, 8 * 256) == pytest.approx(1e-3 + compiled(Knot("decode", 16, 256), spec).time_s, rel=1e-12)
    before = found.points
    assert found.step(8.0, line.since) is line and found.points == before
    assert at(found.step(8.0, line.until), line.until) == pytest.approx(at(line, line.until * (1 - 1e-12)), rel=1e-9)
    whole = compiled(Knot("decode", prompts=2, tokens=512, attended=512), spec).time_s
    assert found.step(0, 0, 512, 512 * 513 / 2).base_s == pytest.approx(1e-3 + whole, rel=1e-12)


def test_the_host_counts_as_in_a_compiled_phase() -> None:
    """Once: what takes longer, its launches or the GPUs, and what comes before a step."""
    spec = spec_of(*EXPERTS)
    spec = replace(spec, phases=tuple(replace(p, host_s=3e-3, launches=Launches(1e-3, 128)) for p in spec.phases))
    source = Phases("decode", ranks=2)
    found = StepPrices(
        lambda knot: compiled(knot, spec), Limits(64, 2048, 1280, 1152), Host(3e-3, 1e-3, 128), source, source, source
    )
    for b, t in (
        ((4, 0), (0, 64), (8, 128)) if not all_tests() else ((4, 0), (0, 64), (0, 256), (0, 2048), (8, 64), (8, 128))
    ):
        knot = Knot("decode", 2 * b, 1152, 2 if t else 0, t, t)
        exact = passes_s(compile_phase(Unit(spec, phase_of(knot, spec), Collector())).all_passes)
        assert at(found.step(b, b * 1152, t, t * (t + 1) / 2), b * 1152) == pytest.approx(exact, rel=0.01), (b, t)


def test_what_prompts_add_takes_a_measured_factor_longer() -> None:
    """Of a step of prompts alone all of it; of a step of both what it has over the step without them."""
    spec = spec_of(*EXPERTS)
    limits, source = Limits(64, 2048, 1280, 1152), Phases("decode", ranks=2)
    plain, slow = (
        StepPrices(lambda knot: compiled(knot, spec), limits, Host(1e-3, prompt_factor=factor), source, source, source)
        for factor in (1.0, 1.5)
    )
    pairs = 512 * 513 / 2
    assert slow.step(0, 0, 512, pairs).base_s == pytest.approx(
        1e-3 + 1.5 * (plain.step(0, 0, 512, pairs).base_s - 1e-3)
    )
    c = 8 * 1024.0
    without, both, slower = (
        at(line, c) for line in (plain.step(8, c), plain.step(8, c, 512, pairs), slow.step(8, c, 512, pairs))
    )
    assert slower - without == pytest.approx(1.5 * (both - without), rel=1e-9)
    assert slow.step(8, c) == plain.step(8, c)


def test_every_engine_has_host_constants_with_a_source() -> None:
    assert {name for name in ENGINES if constants(name).source} == set(ENGINES)
    assert constants(None) == HostConstants()
    assert all(0 <= constants(name).host_s < 0.1 and 0 <= constants(name).request_s < 10 for name in ENGINES)


@pytest.mark.parametrize(
    ("phase", "serve", "host_s", "request_s"),
    [
        ("", "", constants("sglang").host_s, constants("sglang").request_s),
        ("host = 7 ms", "", 7e-3, constants("sglang").request_s),
        ("host = 7 ms", ", host = 3 ms, request = 1 s", 3e-3, 1.0),
    ],
    ids=["engine", "phase", "serving"],
)
def test_the_serving_overrules_the_phase_and_the_phase_its_engine(
    phase: str, serve: str, host_s: float, request_s: float
) -> None:
    chat = f"serve chat {{ arrivals = burst, requests = 1{serve} }}\n"
    spec = spec_of(*EXPERTS, chat, engine=f"engine = sglang\n{phase}")
    (workers,) = Servings(plan_of(spec)).setup(spec.serves[0]).workers
    assert isinstance(workers.engine.prices, StepPrices)
    assert workers.engine.prices.host.host_s == pytest.approx(host_s)
    assert workers.engine.request_s == pytest.approx(request_s)


def test_a_pipeline_is_priced_by_rotations() -> None:
    """With as many micro-batches in flight as stages, one micro-batch of each in a rotation: twice the prompts in the same time;
    a prompt alone takes the way through all stages."""
    spec = spec_of(
        "mixtral-8x7b",
        "pp = 2\nattention { tp = 4 }\nexperts { ep = 4 }",
        "serve s { arrivals = burst, requests = 1 }",
        engine="engine = vllm",
    )
    servings = Servings(
        plan_of(
            replace(spec, phases=tuple(replace(p, strategy=replace(p.strategy, microbatches=2)) for p in spec.phases))
        )
    )
    (workers,) = servings.setup(spec.serves[0]).workers
    assert workers.engine.ranks == 2
    found = without_host(workers.engine.prices)  # type: ignore[arg-type]
    pairs = 1024 * 1025 / 2
    full, alone = found.step(0, 0, 1024, pairs, 1024).base_s, found.step(0, 0, 512, pairs, 1024).base_s
    way = compiled(Knot("prefill", prompts=1, tokens=1024, attended=1024, microbatches=1), servings.spec).time_s
    assert alone == pytest.approx(way, rel=0.01) and full == pytest.approx(way, rel=0.05)


@pytest.mark.parametrize(("prefill", "decode"), spread([((1, 8), (8, 1)), ((8, 1), (1, 8)), ((2, 4), (4, 2))]))
def test_phases_of_a_worker_may_have_other_ranks(prefill: tuple[int, int], decode: tuple[int, int]) -> None:
    """(dp, tp) of each: prompts on every rank of the worker, and one alone, cost what the prefill phase compiles to."""
    phases = "".join(
        f"phase {kind} {{ gpus = 0..7, engine = sglang, attention {{ dp = {dp}, tp = {tp} }}, experts {{ ep = 8 }} }}\n"
        for kind, (dp, tp) in (("prefill", prefill), ("decode", decode))
    )
    head = 'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "qwen3-30b-a3b" { }\nworkload { sequences = 8, prompt = 1024 tok }\n'
    chat = "serve chat { arrivals = burst, requests = 1, output = 8 tok }\n"
    spec = load(Source("<test>", head + phases + chat), Collector())
    found = without_host(prices(plan_of(spec)))
    ranks, pairs = decode[0], 1024 * 1025 / 2
    assert found.ranks == ranks
    every = max(prefill[0], ranks)
    each = every // ranks  # prompts that a rank of the worker has
    for prompts, on_a_rank in ((1, 1), (every, each)):
        exact = compiled(Knot("prefill", prompts=prompts, tokens=1024, attended=1024), spec).time_s
        line = found.step(0, 0, 1024 * prompts / ranks, on_a_rank * pairs, 1024 * on_a_rank)
        assert line.base_s == pytest.approx(exact, rel=0.02), (prompts, on_a_rank)


def test_one_request_alone_takes_its_phases_own_times() -> None:
    """Prefill, then a decode step a token."""
    spec = spec_of(*DENSE, "serve chat { arrivals = burst, requests = 1, request = 0 s, host = 0 s }\n")
    servings = Servings(plan_of(spec))
    result = servings.run(spec.serves[0])
    first = compiled(Knot("prefill", prompts=1, tokens=1024, attended=1024), spec).time_s
    step = Steps(spec)
    steps = [step(Knot("decode", 1, 1024 + k)).time_s for k in range(1, 128)]
    assert result.ttft.mean_s == pytest.approx(first, rel=1e-9)
    assert result.e2e.mean_s == pytest.approx(first + sum(steps), rel=2e-3)


def test_a_setup_has_the_plans_workers_ranks_and_room() -> None:
    own = plan(*EXPERTS)
    (workers,) = Servings(own).setup(own.spec.serves[0]).workers
    assert (workers.role, workers.count, workers.gpus, workers.engine.ranks) == ("both", 1, 8, 2)
    room = workers.engine.kv_blocks * workers.engine.kv_block
    assert 0.8 < room * 2 / min(own.kv_tokens("decode")) < 1.2
    (dense,) = (
        Servings(plan_of(spec_of("qwen3-8b", "dp = 4, tp = 2", "serve s { arrivals = burst, requests = 1 }\n")))
        .setup(spec_of("qwen3-8b", "dp = 4, tp = 2", "serve s { arrivals = burst, requests = 1 }\n").serves[0])
        .workers
    )
    assert (dense.count, dense.gpus, dense.engine.ranks) == (4, 2, 1)  # ranks that exchange nothing are workers


@pytest.mark.parametrize(("layout", "drafts"), [(EXPERTS, ""), (LATENT, DRAFTS)])
def test_room_is_what_the_largest_steps_leave_compiled_as_phases_are(layout: tuple[str, str], drafts: str) -> None:
    """For the room memory alone is found; here all else is, too."""
    own = plan(*layout, drafts)
    unit = Unit(own.spec, replace(own.spec.phase("decode"), sequences=16, context=2048), Collector())
    wanted = compile_phase(unit).memory
    graph = lowered(unit)
    assert held_with_drafter(held(graph, unit), graph, unit) == wanted
    assert bool(wanted.stages[-1].drafter_B) == bool(drafts)


def test_a_request_that_no_rank_can_hold_is_refused_by_name() -> None:
    text = "serve chat { arrivals = burst, requests = 1, prompt = 9000000 tok, output = 10 tok }\n"
    spec = spec_of(*EXPERTS, text)
    with pytest.raises(CannotServe, match=r"a request of 9,000,000 \+ 10 tokens cannot be held: a rank has room for"):
        Servings(plan_of(spec)).setup(spec.serves[0])


def test_ranks_that_split_the_context_take_no_prompts_into_their_steps() -> None:
    spec = spec_of(
        "mixtral-8x7b",
        "attention { sp = 2, tp = 4 }\nexperts { ep = 8 }",
        "serve s { arrivals = burst, requests = 1 }\n",
    )
    with pytest.raises(CannotServe, match="cannot take prompts in"):
        Servings(plan_of(spec)).setup(spec.serves[0])
    first = replace(spec.serves[0], prompts="first")
    assert Servings(plan_of(spec)).run(first).finished == 1


APART = """moe 1
hardware from "h100-sxm" {{ gpus = 16 }}
model from "mixtral-8x7b" {{ }}
workload {{ sequences = 8, prompt = 1024 tok, output = 128 tok }}
phase prefill {{ gpus = 8..15, attention {{ tp = 8 }}, experts {{ ep = 8 }} }}
phase decode {{ gpus = 0..7, attention {{ tp = 8 }}, experts {{ ep = 8 }} }}
serve chat {{ arrivals = closed({clients}), requests = {requests}, workers = {workers}, prefill_workers = {prefill} {more} }}
"""


def served(**words: object) -> tuple[Servings, Setup, Spec]:
    spec = load(
        Source(
            "<test>", APART.format(**{"clients": 1, "requests": 1, "workers": 1, "prefill": 1, "more": "", **words})
        ),
        Collector(),
    )
    servings = Servings(plan_of(spec))
    return servings, servings.setup(spec.serves[0]), spec


def test_one_request_apart_takes_its_phases_own_times_and_the_way_between() -> None:
    servings, setup, spec = served()
    assert [(w.role, w.count, w.gpus) for w in setup.workers] == [("prefill", 1, 8), ("decode", 1, 8)]
    bytes_s = servings.plan.subject("prefill").transfer
    assert bytes_s is not None
    sent_s = setup.transfer.latency_s + 1024 * setup.transfer.per_token_s
    assert sent_s == pytest.approx(bytes_s[1], rel=1e-9)
    result = servings.run(spec.serves[0])
    first = compiled(Knot("prefill", prompts=1, tokens=1024, attended=1024), spec).time_s
    step = Steps(spec)
    steps = sum(step(Knot("decode", 1, 1024 + k)).time_s for k in range(1, 128))
    assert result.ttft.mean_s == pytest.approx(first, rel=1e-9)
    assert result.e2e.mean_s == pytest.approx(first + sent_s + steps, rel=2e-3)


@pytest.mark.parametrize(("workers", "prefill", "slow"), [(4, 1, "prefill"), (1, 4, "decode")])
def test_apart_with_free_links_the_slower_pool_sets_the_pace(workers: int, prefill: int, slow: str) -> None:
    """Many clients: as many requests a second as the slower pool alone takes."""
    clients, requests = (256, 2560) if slow == "prefill" else (8, 160)
    _, setup, spec = served(clients=clients, requests=requests, workers=workers, prefill=prefill)
    outcome = simulate(replace(setup, transfer=Transfer()), load_of(spec.serves[0]))
    (decode,) = (w.engine.prices for w in setup.workers if w.role == "decode")
    if slow == "prefill":
        (takes,) = (w.engine.prices for w in setup.workers if w.role == "prefill")
        together = 8192 // 1024
        pace = together / takes.step(0, 0, 8192, together * 1024 * 1025 / 2).base_s
    else:
        line = decode.step(clients, clients * (1024 + 64))
        pace = clients / (127 * (line.base_s + line.per_token_s * clients * (1024 + 64)))
    assert outcome.counts["finished"] / outcome.end_s == pytest.approx(pace, rel=0.1)


def test_workers_that_change_roles_are_of_one_kind() -> None:
    servings, setup, spec = served(workers=2, prefill=1, more=", roles = switch, switch = 1 s")
    assert [(w.role, w.count, w.gpus) for w in setup.workers] == [("both", 3, 8)]
    assert setup.switch is not None and setup.switch.cost_s == 1.0 and setup.transfer.per_token_s > 0
    assert servings.run(spec.serves[0]).finished == 1


def test_between_knots_the_error_is_below_what_is_said() -> None:
    errors = Errors(0.01)
    curve = Curve(lambda x: 1e4 + x**2).on([16.0, 64.0, 256.0, 1024.0], errors)
    found = {x: curve(x) for x in range(16, 1024)}
    for x, value in found.items():
        assert abs(value - (1e4 + x**2)) <= errors.largest * (1e4 + x**2)
    assert 0.0 < errors.largest <= 0.01


def test_chains_and_patches_are_linear_between_their_values() -> None:
    asked = []
    chain = Chain([1.0, 2.0, 4.0], lambda i: asked.append(i) or 10.0 * i)  # type: ignore[func-returns-value]
    assert [chain(x) for x in (0.5, 1.5, 3.0, 9.0)] == [0.0, 5.0, 15.0, 20.0]
    assert sorted(set(asked)) == [0, 1, 2]
    made = []

    def make(x: float, y: float) -> Patch:
        made.append((x, y))
        x0, y0 = x // 2 * 2, y // 2 * 2
        corners = [(x0 + i) * (y0 + j) for i in (0, 2) for j in (0, 2)]
        return Patch(x0, x0 + 2, y0, y0 + 2, *corners)

    patches = Patches(make)
    for _ in range(2):
        for k in range(40):
            x, y = (k * 7 % 80) / 10, (k * 13 % 60) / 10
            assert patches(x, y) == pytest.approx(x * y, abs=1e-12)
    assert len(made) == len({(x // 2, y // 2) for x, y in made})


def test_tokens_that_ranks_split_are_compiled_whole() -> None:
    own = plan(*EXPERTS)
    assert grain(own.phases["decode"], own.spec.phase("decode")) == 1  # its engine leaves them whole
    other = plan_of(spec_of(*EXPERTS))
    assert grain(other.phases["decode"], other.spec.phase("decode")) == 4
