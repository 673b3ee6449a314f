"""Search: the optimum, the front and every count equal what compiling each plan of the space says."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import product
from math import log
from pathlib import Path
from subprocess import CompletedProcess
from typing import cast

import in_process
import numpy as np
import pytest
from conftest import examples, spec_text, whole
from state_specs import GROUPED, state_spec
from tiers import exhaustive, left_out, spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.optimize.clusters import ClusterError
from dagc.optimize.search.answer import Answer
from dagc.optimize.search.apart import Apart
from dagc.optimize.search.best_first import Found, News, Search
from dagc.optimize.search.bound_pieces import OPS, Learnt, pieces_of
from dagc.optimize.search.domains import domains
from dagc.optimize.search.exact import METRICS, Judge, Told
from dagc.optimize.search.exact import Plan as SearchPlan
from dagc.optimize.search.glance import glanced, own_ops
from dagc.optimize.search.objectives import TABLE, Objective
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.pieces import Pieces
from dagc.optimize.search.plain_answer import findings
from dagc.optimize.search.rules import Facts, fixed, key, names, rules
from dagc.optimize.search.space import Rows, Tally, Values, distinct, legal, size
from dagc.optimize.search.workers import Text
from dagc.spec.phase import Phase
from dagc.spec.unit import Unit
from dagc.view.facts import found_plans as said

SPACES = int(os.environ.get("DAGC_SPACES", examples(8)))
"""Random spaces that are searched and compiled plan by plan; 200 of them take some minutes."""
MOST_PLANS = 48
"""Of one of them."""

PAIRS = int(os.environ.get("DAGC_PAIRS", "1"))
"""Random specs of two phases whose pairs are compiled."""

BETTER = {"throughput": -1, "throughput_per_gpu": -1, "ttft": 1, "tpot": 1, "gpus": 1}


def opened(text: str) -> OpenSpec:
    return load_open(Source("plan.moe", text), Collector())


def drawn(seed: int) -> tuple[str, str, list[str]]:
    """A small open spec, its phase, and what it is searched for."""
    rng = random.Random(seed)
    while True:
        text, name, asked = one_drawn(rng)
        spec = opened(text)
        phase = spec.spec.phase(name)
        if 2 <= size(domains(spec.of(name), Facts(phase, spec.spec, phase.new_tokens))) <= MOST_PLANS:
            return text, name, asked


def one_drawn(rng: random.Random) -> tuple[str, str, list[str]]:
    kind = rng.choice(["prefill", "decode"])
    time = "ttft" if kind == "prefill" else "tpot"
    gpus = rng.choice([4, 6, 8, 8, 16])
    lines = [rng.choice([f"gpus = 0..{gpus - 1}", f"gpus = 0..{gpus - 1}", f"gpus = any({gpus // 2}, {gpus})"])]
    choices = {
        "pp": "any(1, 2, 3)", "microbatches": "any(1, 2, 3, 4)", "dispatch": "any", "overlap": "any", "redundant": "any(0, 4, 8)",
        "sequence_parallel": "any", "sp_method": "any", "sequences": "any(8, 24, 64)", "dispatch_dtype": "any(fp8, bf16)",
    }  # fmt: skip
    if kind == "prefill":
        choices |= {"chunk": "any(64 tok, 100 tok, 256 tok)", "sp_layout": "any"}
    else:
        choices |= {"dcp": "any"}
    folded = rng.random() < 0.7
    sides = (
        (("attention", ("dp", "sp", "tp")), ("experts", ("ep", "tp"))) if folded else (("", ("dp", "ep", "sp", "tp")),)
    )
    free = 0
    for side, axes in sides:
        inner = []
        for axis in axes:
            if rng.random() < 0.65 and free < 4:
                free += 1
                inner.append(f"{axis} = {rng.choice(['any', 'any(1, 2, 4)', 'any(1, 3, 8)'])}")
            else:
                inner.append(f"{axis} = {rng.choice([1, 1, 1, 2])}")
        lines.append(f"{side} {{ {', '.join(inner)} }}" if side else ", ".join(inner))
    for name in rng.sample(sorted(choices), rng.randrange(3)):
        lines.append(f"{name} = {choices[name]}")
    if not any("any" in line for line in lines):
        lines.append("microbatches = any(1, 2)")
    extra = rng.choice([
        "", "", f"require \"fast\" {kind}.{time} <= {rng.choice([0.3, 1, 3])} ms",
        f"require \"room\" {kind}.memory.weights <= {rng.choice([1, 2])} MB",
        f"require \"both\" {kind}.throughput_per_gpu >= 1000 tok/s\nrequire \"few\" {kind}.gpus <= {gpus - 1}",
    ])  # fmt: skip
    text = spec_text(kind=kind, gpus=gpus, phase="\n".join(lines), extra=extra)
    if rng.random() < 0.3:
        text = text.replace("memory = 64 GB", f"memory = {rng.choice([2, 3, 5])} MB")
    asked = rng.choice(
        [["throughput_per_gpu"], ["throughput"], [time], ["gpus"], [time, "throughput_per_gpu"], ["gpus", time]]
    )
    return text, kind, asked


@cache
def every_plan(text: str, name: str) -> tuple[tuple[Values, Plan | None], ...]:
    """Each plan of the space, compiled from its own text; None where it is refused."""
    spec = opened(text)
    phase = spec.spec.phase(name)
    own = domains(spec.of(name), Facts(phase, spec.spec, phase.new_tokens))
    out: list[tuple[Values, Plan | None]] = []
    for values in product(*(d.values for d in own)):
        chosen = dict(zip((d.path for d in own), values, strict=True))
        try:
            out.append((chosen, whole(spec.text({name: chosen}))))
        except SpecError:
            out.append((chosen, None))
    return tuple(out)


def figures(plan: Plan, name: str, asked: list[str]) -> tuple[float, ...]:
    subject = plan.subject().of(name)
    return tuple(float(METRICS[one].how(subject) or 0.0) for one in asked)


def brute_force(text: str, name: str, asked: list[str]) -> list[tuple[float, ...]]:
    """Figures of the optimum, or of the front, of all plans that pass."""
    found = [figures(plan, name, asked) for _, plan in every_plan(text, name) if plan is not None and plan.passed]
    scores = {tuple(BETTER[o] * v for o, v in zip(asked, one, strict=True)): one for one in found}
    if len(asked) == 1:
        return [scores[min(scores)]] if scores else []
    front = [s for s in scores if not any(o != s and all(a <= b for a, b in zip(o, s, strict=True)) for o in scores)]
    return [scores[s] for s in sorted(front)]


def searched(text: str, asked: list[str], top: int = 1) -> Answer:
    return search(opened(text), Asked(tuple(asked), top=top))


@pytest.mark.parametrize("seed", range(SPACES))
def test_the_optimum_is_that_of_every_plan_compiled(seed: int) -> None:
    text, name, asked = drawn(seed)
    found = searched(text, asked)
    expected = brute_force(text, name, asked)
    assert list(dict.fromkeys(one.figures for one in found.ranked)) == expected
    assert found.complete
    assert found.certificate.counted == found.certificate.size == len(every_plan(text, name))
    for one in found.ranked:
        plan = whole(opened(text).text(one.values))
        assert plan.passed and figures(plan, name, asked) == one.figures


@pytest.mark.parametrize("seed", range(SPACES))
def test_rules_reject_what_compile_refuses_and_nothing_else_that_is_about_degrees(seed: int) -> None:
    """What a rule rejects is refused with its code; what it lets pass is refused for something else at most."""
    text, name, _ = drawn(seed)
    spec = opened(text)
    phase = spec.spec.phase(name)
    facts = Facts(phase, spec.spec, phase.new_tokens)
    own, tally = domains(spec.of(name), facts), Tally()
    rows = legal(own, fixed(facts), names(facts), rules(facts, [d.path for d in own]), tally)
    kept = [rows.values(k) for k in range(len(rows))]
    assert len(kept) + tally.total == size(own)
    for values, plan in every_plan(text, name):
        assert plan is None or values in kept
    for values in kept:
        assert spec.phase(name, values, Collector()) is not None
    for one in tally:
        with pytest.raises(SpecError) as caught:
            whole(spec.text({name: one.example}))
        assert one.code in {d.code for d in caught.value.diagnostics}


def two_phases(rng: random.Random, *, divided: bool) -> str:
    """Prefill and decode on the same GPUs, or on GPUs that they divide."""
    gpus = "gpus = any(1, 2, 3, 4)" if divided else "gpus = 0..3"
    each = [
        f"{gpus}, {rng.choice(['tp', 'dp', 'ep'])} = any, {rng.choice(['microbatches', 'pp'])} = any(1, 2)"
        for _ in range(2)
    ]
    room = rng.choice([60, 1500, 2500, 6000])
    both = rng.choice(
        [
            "",
            "",
            'require "both" prefill.ttft + 4 * decode.tpot <= 3 ms',
            'require "both" prefill.ttft + decode.tpot <= 1 ms',
        ]
    )
    text = spec_text(kind="prefill", gpus=4, phase=each[0], extra=f"phase decode {{\n{each[1]}\n}}\n{both}")
    memory = f"memory = {room} kB" if room > 60 else "memory = 64 GB"
    return text.replace("memory = 64 GB", f"{memory}, price = 2 $/h, power = 700 W")


def pairs(text: str, *, passing: bool = True) -> list[tuple[dict[str, Values], Plan]]:
    """All plans of a spec of two open phases that pass, each compiled from its own text."""
    spec = opened(text)
    spaces = []
    for name in spec.phases:
        phase = spec.spec.phase(name)
        own = domains(spec.of(name), Facts(phase, spec.spec, phase.new_tokens))
        kept = legal(
            own,
            fixed(f := Facts(phase, spec.spec, phase.new_tokens)),
            names(f),
            rules(f, [d.path for d in own]),
            Tally(),
        )
        spaces.append([kept.values(k) for k in range(len(kept))])
    out = []
    for one, other in product(*spaces):
        values: dict[str, Values] = dict(zip(spec.phases, (dict(one), dict(other)), strict=True))
        if "gpus" in one:
            first, second = int(one["gpus"]), int(other["gpus"])
            if first + second > 4:
                continue
            values["prefill"]["gpus"], values["decode"]["gpus"] = range(first), range(first, first + second)  # type: ignore[assignment]
        try:
            plan = whole(spec.text(values))
        except SpecError:
            continue
        if plan.passed or not passing:
            out.append((values, plan))
    return out


OF_PAIRS = {
    "throughput_per_gpu": 1, "cost": 1, "rate": 1, "energy": 1, "throughput": 1, "prefill.throughput decode.throughput": 1, "rate gpus": 2,
    "prefill.ttft decode.tpot": 1, "cost decode.tpot": 2, "decode.tpot decode.throughput_per_gpu": 2, "prefill.throughput": 1,
}  # fmt: skip
"""Objectives of prefill and decode; 2: their front is sought."""


def scores_of(plan: Plan, words: str) -> tuple[float, ...]:
    """By the formulas of the documentation, from compiled phases. Less is better."""
    prefill, decode = plan.phases["prefill"], plan.phases["decode"]
    each = prefill.throughput_tok_s / 256, decode.throughput_tok_s / 16
    shared = bool({*prefill.gpus} & {*decode.gpus})
    rate = 1 / (1 / each[0] + 1 / each[1]) if shared else min(each)
    gpus = len({*prefill.gpus, *decode.gpus})
    known = {
        "rate": -rate, "throughput": -rate * 16, "throughput_per_gpu": -rate * 16 / gpus, "gpus": gpus,
        "cost": gpus * 2 / 3600 / rate / 16, "energy": gpus * 700 / rate / 16, "prefill.ttft": prefill.time_s, "decode.tpot": decode.time_s,
        "prefill.throughput": -prefill.throughput_tok_s, "decode.throughput": -decode.throughput_tok_s,
        "decode.throughput_per_gpu": -decode.throughput_tok_s / len(decode.gpus),
    }  # fmt: skip
    if words == "prefill.throughput":
        words += " decode.throughput_per_gpu"  # what is usual
    found = tuple(known[word] for word in words.split())
    if OF_PAIRS.get(words, 1) == 2 or len(found) == 1:
        return found
    return (sum(log(abs(v)) * (1 if v > 0 else -1) for v in found),)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("seed", range(PAIRS))
def test_pairs_of_prefill_and_decode_are_as_good_as_any(seed: int, divided: bool) -> None:
    """On the same GPUs, and on GPUs that they divide; requirements over both; the best three, or the front."""
    text = two_phases(random.Random(seed), divided=divided)
    every = [plan for _, plan in pairs(text)]
    names = list(OF_PAIRS)
    for words in {names[(seed + k) % len(names)] for k in (0, 4, 7)}:
        found = search(opened(text), Asked(tuple(words.split()), top=3))
        assert found.complete and found.front == (OF_PAIRS[words] == 2)
        wanted = sorted(scores_of(plan, words) for plan in every)
        if found.front:
            wanted = [
                w
                for w in dict.fromkeys(wanted)
                if not any(o != w and all(a <= b for a, b in zip(o, w, strict=True)) for o in wanted)
            ]
        plans = [whole(one.text) for one in found.ranked]
        own = [scores_of(plan, words) for plan in plans]
        assert own == [pytest.approx(w, rel=1e-9) for w in (wanted if found.front else wanted[:3])], words
        for plan, one in zip(plans, found.ranked, strict=True):
            assert plan.passed
            if len(one.figures) == len(own[0]):
                signs = [1 if o.better == "lower" else -1 for o in found.objectives]
                assert tuple(s * f for s, f in zip(signs, one.figures, strict=True)) == pytest.approx(
                    scores_of(plan, words), rel=1e-9
                )


def everything(kind: str, gpus: int, model: str = "", workload: str = "", extra: str = "") -> str:
    return spec_text(
        kind=kind, gpus=gpus, phase=f"gpus = 0..{gpus - 1}, strategy = any, microbatches = any(1, 2, 4)\n{extra}", model=model,
        workload=workload or "sequences = 96, prompt = 240 tok, output = 16 tok, routing = zipf(0.7)",
    )  # fmt: skip


SHARED = """layers = 4, hidden = 64, vocab = 512, dtype = fp32, dense_first = 1
attention { kind = gqa, heads = 8, kv_heads = 2, head_dim = 8 }
experts { count = 12, top_k = 2, hidden = 48, shared = 1 }
mlp { hidden = 96 }"""


@pytest.mark.parametrize(
    "text",
    [
        everything("decode", 16),
        left_out((everything("prefill", 16),)),
        left_out((everything("decode", 12, SHARED),)),
        everything("prefill", 12, SHARED, extra="chunk = any(240 tok, 100 tok)"),
        left_out(
            (
                everything(
                    "prefill", 8, workload="sequences = 20, prompt = 240 tok, output = 16 tok, routing = power_law(0.5)"
                ),
            )
        ),
        everything("decode", 8)
        .replace("hardware pool {", 'hardware pool from "h100-sxm" {')
        .replace("memory = 64 GB", "memory = 80 GB"),
    ],
    ids=["decode", "prefill", "shared decode", "shared prefill", "few sequences", "measured"],
)
def test_no_plan_takes_less_than_its_bound(text: str) -> None:
    """Whatever was seen before: bounds learnt from some plans hold for all others."""
    pieces, rows, objectives = space_of(text)
    rng = random.Random(len(rows))
    drawn = rng.sample(range(len(rows)), min(len(rows), PLANS))
    exact: dict[int, tuple[float, ...]] = {}
    close = []
    for row in drawn:
        before = [float(column[row]) for column in pieces.bound(objectives)]
        (plan,) = pieces.evaluate([row])
        assert plan.estimate is not None
        exact[row] = tuple(float(o.score(plan.terms)) for o in objectives)
        assert all(b <= s + abs(s) * 1e-9 for b, s in zip(before, exact[row], strict=True))
    after = pieces.bound(objectives)
    for row, scores in exact.items():
        assert all(float(column[row]) <= s + abs(s) * 1e-9 for column, s in zip(after, scores, strict=True)), (
            rows.values(row)
        )
        close.append(float(after[1][row]) / scores[1])
    bounds = pieces.bounds
    assert bounds is not None
    for row, plan in pieces.known.items():
        pieces.look([row])
        stages = plan.the_estimate.memory.stages
        least_B = bounds.over_B[row] + bounds.room_B[row]
        assert 0 < least_B <= max(one.weights_B + one.kv_cache_B for one in stages)
    assert sorted(close)[len(close) // 2] > 0.6  # and says something


def space_of(text: str) -> tuple[Pieces, Rows, list[Objective]]:
    """The plans of a spec's only phase, and the objectives that they are bounded by."""
    spec = opened(text)
    (name,) = spec.phases
    phase = spec.spec.phase(name)
    facts = Facts(phase, spec.spec, phase.new_tokens)
    own = domains(spec.of(name), facts)
    rows = legal(own, fixed(facts), names(facts), rules(facts, [d.path for d in own]), Tally())
    columns = key(rows, facts)
    assert columns is not None
    rows = rows.where(distinct(rows, columns))
    pieces = Pieces(spec, name, facts, rows, Judge(spec.spec, name))
    return pieces, rows, [TABLE["throughput"], TABLE["ttft" if phase.takes_prompts else "tpot"]]


@pytest.mark.parametrize(
    "text",
    [
        left_out((everything("decode", 8, SHARED, extra="fuse = full"),)),
        everything("prefill", 8, SHARED, extra="fuse = [gqa, moe_shared], sequence_parallel = any"),
        everything("decode", 8, extra="fuse = full")
        .replace("hardware pool {", 'hardware pool from "h100-sxm" {')
        .replace("memory = 64 GB", "memory = 80 GB"),
    ],
    ids=["decode", "prefill", "measured"],
)
def test_no_plan_of_fused_blocks_takes_less_than_its_bound(text: str) -> None:
    """Where exchanges are cuts kernels: what a plan's ops take says nothing of another one, but a graph without exchanges does."""
    pieces, rows, objectives = space_of(text)
    drawn = random.Random(len(rows)).sample(range(len(rows)), min(len(rows), PLANS))
    pieces.look(drawn[::2])
    plans = pieces.evaluate(drawn)
    pieces.look(drawn[1::2])
    close = []
    for row, plan in zip(drawn, plans, strict=True):
        scores = [float(o.score(plan.terms)) for o in objectives]
        bounds = [float(column[row]) for column in pieces.bound(objectives)]
        assert all(b <= s + abs(s) * 1e-9 for b, s in zip(bounds, scores, strict=True)), rows.values(row)
        close.append(bounds[1] / scores[1])
    assert sorted(close)[len(close) // 2] > 0.5


def test_a_cache_that_dcp_cannot_split_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One plan is lowered; all others of its dcp are refused with the same words."""
    degrees = "attention { dp = any(1, 2), tp = any(4, 8) }, experts { ep = 1 }"
    costed: list[int] = []
    plan = Judge.plan

    def heard(self: Judge, phase: Phase, seen: Told | None = None) -> SearchPlan:
        costed.append(phase.strategy.dcp)
        return plan(self, phase, seen)

    monkeypatch.setattr(Judge, "plan", heard)
    text = state_spec(GROUPED, f"gpus = 0..7, {degrees}, microbatches = any(1, 2, 4), dcp = any(1, 2)", "decode")
    found = searched(text, ["tpot"])
    told = {one.about: one.count for one in found.certificate.rejected if "splits no cache" in one.about}
    assert found.complete and found.ranked
    assert sum(told.values()) == 3 and costed.count(2) == 1


def test_fused_blocks_are_searched_as_they_are_compiled() -> None:
    """The best of every plan, compiled one by one; its text has the word."""
    phase = "gpus = 0..3, attention {{ tp = {}, dp = {} }}\nexperts {{ ep = {} }}\nfuse = full"
    degrees = "any(1, 2, 4)"
    found = searched(spec_text(kind="decode", phase=phase.format(degrees, degrees, degrees)), ["tpot"], top=2)
    every = []
    for tp, ep in product((1, 2, 4), (1, 2, 4)):
        with suppress(SpecError):
            every.append(whole(spec_text(kind="decode", phase=phase.format(tp, 4 // tp, ep))).phases["decode"].time_s)
    assert found.complete and [one.figures[0] for one in found.ranked] == pytest.approx(sorted(every)[:2])
    assert all("fuse = full" in one.text or "fuse = [full]" in one.text for one in found.ranked)


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_glance_tells_of_ops_what_compiling_tells(kind: str) -> None:
    """Ops without collectives take what they take with them, expert loads and splits of every degree included."""
    spec = opened(everything(kind, 8, SHARED))
    space = Apart(spec, kind, {})
    compiled: list[Learnt] = []
    for row in random.Random(0).sample(range(len(space.rows)), PLANS):
        phase = spec.phase(kind, space.rows.values(row), Collector())
        assert phase is not None
        own = own_ops(space.judge, Unit(spec.spec, phase, Collector()))
        space.judge.plan(phase, lambda graph, costs, own=own: compiled.append(pieces_of(graph, costs, own)))  # type: ignore[misc]
        seen = glanced(space.judge, phase)
        assert seen is not None
        for k, piece in enumerate(seen.pieces):
            assert (piece is not None) == (k in OPS) and (
                piece is None or np.array_equal(piece, compiled[-1].pieces[k])
            )  # type: ignore[arg-type]


PLANS = int(os.environ.get("DAGC_PLANS", examples(15)))
"""Plans of each space whose bounds are compared."""


def test_requirements_only_take_plans_away_and_wider_choices_only_add_some() -> None:
    """One more requirement never makes the best plan better, one more value never makes it worse."""
    narrow, wide = (
        spec_text(kind="decode", phase=f"gpus = 0..7, attention {{ dp = {dp}, tp = any(1, 2, 4, 8) }}\nexperts {{ ep = any(2, 4, 8) }}", extra=extra)
        for dp, extra in (("any(1, 2)", ""), ("any(1, 2, 4, 8)", ""))
    )  # fmt: skip
    few, many = (searched(text, ["throughput"]).ranked[0].figures[0] for text in (narrow, wide))
    assert many >= few
    limit = 'require "small" decode.memory.weights <= 1 MB'
    most = searched(wide + limit, ["throughput"])
    assert all(one.figures[0] <= many for one in most.ranked)


def test_of_equals_the_one_on_fewer_gpus_comes_first() -> None:
    text = spec_text(kind="decode", gpus=8, phase="gpus = any(8, 2, 4), dp = any, ep = 2")
    found = searched(text, ["memory.reserve"], top=3)
    assert [one.gpus for one in found.ranked] == [2, 4, 8] and len({one.figures for one in found.ranked}) == 1


def test_an_empty_space_has_a_plan_that_breaks_one_rule_alone() -> None:
    base = "gpus = 0..7, attention { dp = any, tp = any }\nexperts { ep = any }"
    slow = searched(spec_text(kind="decode", phase=base, extra='require "fast" decode.tpot <= 1 us'), ["throughput"])
    assert not slow.ranked and slow.complete
    near = slow.searched["decode"].near[0]
    assert near.rule == "requirement: fast" and "not <= 1 us" in near.words
    odd = searched(spec_text(kind="decode", phase="gpus = 0..7, dp = any(3, 5), tp = any(1, 2)"), ["throughput"])
    assert odd.searched["decode"].near[0].rule == "gpus"
    full = searched(spec_text(kind="decode", phase=base).replace("memory = 64 GB", "memory = 20 kB"), ["throughput"])
    assert full.searched["decode"].near[0].rule == "memory"
    assert {r.code for r in full.certificate.rejected} >= {"E04"}


DIVIDED = "gpus = any(1, 2), tp = any"
EMPTY = {
    "both": (
        "gpus = 0..3, tp = any",
        'require "both" prefill.ttft + decode.tpot <= 1 us',
        "requirement: both",
        "not <= 1 us",
    ),
    "divided": (DIVIDED, 'require "both" prefill.ttft + decode.tpot <= 1 us', "requirement: both", "not <= 1 us"),
    "several": (
        DIVIDED,
        'require "a" prefill.ttft + decode.tpot <= 1 us\nrequire "b" prefill.ttft + 2 * decode.tpot <= 1 us',
        "2 requirements",
        "b: ",
    ),
    "gpus": ("gpus = any(3, 4), dp = any", "", "gpus", "6 GPUs for both, of 4"),
}


@pytest.mark.parametrize("what", spread(EMPTY, lambda what: what != "divided"))
def test_phases_of_which_no_pair_works_have_the_rule_and_the_nearest_pair(what: str) -> None:
    phase, extra, rule, words = EMPTY[what]
    text = spec_text(kind="prefill", gpus=4, phase=phase, extra=f"phase decode {{\n{phase}\n}}\n{extra}")
    found = search(opened(text), Asked(("rate",)))
    assert not found.ranked and found.complete and found.joined is not None
    near = found.joined.near[0]
    assert (
        near.rule == rule
        and words in near.words
        and {"prefill", "decode"} == {path.partition(".")[0] for path in near.values}
    )
    assert found.joined.reasons[rule] == max(1, found.joined.refused)
    shown = said.near_text(near.rule, near.words, {})
    assert ("alone" in shown) == (what != "several") and rule in said.joined_text(
        findings(found, "a.moe").joined
    ) + shown
    if what != "gpus":  # no pair fails by less
        values: dict[str, Values] = {name: {} for name in ("prefill", "decode")}
        for path, value in near.values.items():
            name, _, own = path.partition(".")
            values[name][own] = value  # type: ignore[index]
        both = [sum(phase.time_s for phase in plan.phases.values()) for _, plan in pairs(text, passing=False)]
        plan = whole(opened(text).text(values))
        assert sum(phase.time_s for phase in plan.phases.values()) == pytest.approx(min(both), rel=1e-9)


def test_where_every_plan_fails_several_requirements_one_that_fails_fewest_is_shown() -> None:
    base = "gpus = 0..7, attention { dp = any, tp = any }\nexperts { ep = any }"
    extra = 'require "fast" decode.tpot <= 1 us\nrequire "few" decode.gpus <= 2'
    (near,) = searched(spec_text(kind="decode", phase=base, extra=extra), ["throughput"]).searched["decode"].near
    assert near.rule == "2 requirements" and "fast: " in near.words and "few: 8, not <= 2" in near.words


def test_a_search_that_stops_says_what_is_left_and_how_much_better_it_could_be() -> None:
    for budget_s in (0.2, 2.0, 20.0):  # a busy machine costs no plan in a moment
        found = search(opened(everything("decode", 8)), Asked(("throughput",), top=1, budget_s=budget_s))
        own = found.certificate
        assert own.counted == own.size
        if own.costed:
            break
    if own.left:  # a fast machine may be done
        assert not found.complete
        best = searched(everything("decode", 8), ["throughput"]).ranked[0].figures[0]
        assert own.bound is not None and own.bound >= best
        if found.best is not None:  # a slow one has none yet
            assert found.gap is not None and own.bound >= best >= found.best.figures[0]
            assert found.best.figures[0] * (1 + found.gap) >= best * (1 - 1e-9)


class FewRows:
    """Rows without values."""

    def __len__(self) -> int:
        return 2

    def values(self, row: int) -> Values:
        return {}


def test_a_search_by_several_objectives_ends_where_its_first_row_is_beaten() -> None:
    """Of two rows with the same first score the beaten one comes first in the order of all scores, the other one by its place."""
    spec = opened(SMALL).spec
    seen: list[int] = []

    def evaluate(rows: Sequence[int]) -> list[SearchPlan]:
        seen.extend(rows)
        assert len(seen) < 9
        return [SearchPlan(spec.phase("decode"), None, ("a rule", "E03")) for _ in rows]

    bounds = [np.array(column) for column in ((1.0, 1.0), (5.0, 2.0), (1.0, 9.0))]
    best = Found(7, {}, SearchPlan(spec.phase("decode"), None), (0.5, 1.0, 8.0))
    objectives = [TABLE["tpot"], TABLE["gpus"], TABLE["ttft"]]
    nothing: News = frozenset()
    own = Search(
        cast(Rows, FewRows()), lambda _: bounds, objectives, (), evaluate, lambda o, p: 0.0, lambda row: nothing, lambda row: nothing,
        lambda rows: None, lambda: np.zeros(2, dtype=bool), Tally(), 2, found=[best], edge=[best], budget_s=20.0,
    )  # fmt: skip
    found = own.run()
    assert seen == [0] and found.certificate.bounded == 1 and not found.certificate.left


def test_time_is_up_even_where_nothing_was_found() -> None:
    text = everything("decode", 8, extra="") + 'require "never" decode.tpot <= 1 ns\n'
    found = search(opened(text), Asked(("throughput",), budget_s=0.0))
    assert found.best is None and not found.complete and found.certificate.left > 0
    assert found.certificate.counted == found.certificate.size


def test_how_layers_are_cut_is_no_choice_where_nothing_is() -> None:
    base = "gpus = 0..7, attention { dp = any, tp = any }\nexperts { ep = any }"
    plain = searched(spec_text(kind="decode", phase=base), ["throughput"], top=3)
    cut = searched(spec_text(kind="decode", phase=base + ", stages = any"), ["throughput"], top=3)
    assert cut.certificate.size == 2 * plain.certificate.size
    assert [one.figures for one in cut.ranked] == [one.figures for one in plain.ranked]


def cli(*words: str, spec: str, folder: Path) -> CompletedProcess[str]:
    (folder / "plan.moe").write_text(spec)
    return in_process.dagc("search", "plan.moe", *words, folder=folder)


SMALL = spec_text(kind="decode", phase="gpus = any(2, 4), dp = any, tp = any(1, 2)")


def test_the_command_writes_plans_that_compile_to_the_figures_that_it_says(tmp_path: Path) -> None:
    done = cli("--objective", "tpot", "--json", "-o", "out", "--verify", spec=SMALL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["complete"] and answer == json.loads((tmp_path / "out" / "plan.search.json").read_text())
    for k, one in enumerate(answer["plans"], 1):
        plan = dagc.compile(tmp_path / "out" / f"plan.{k}.moe")
        assert plan.phases["decode"].time_s == one["figures"][0]
    assert "equal" in done.stderr or "proved" in done.stderr or "holds" in done.stderr


def test_degrees_of_any_number_of_many_gpus_are_listed_in_time() -> None:
    from dagc.optimize.search.domains import _divisors

    assert _divisors((6, 8)) == (1, 2, 3, 4, 6, 8)
    assert len(_divisors(range(1, 100_001))) == 100_000  # by trial of each below each this takes ten minutes


@pytest.mark.parametrize("place", ["taken", "taken/out"])
def test_a_folder_that_cannot_be_is_said_before_the_search(place: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    done = cli("-o", place, spec=SMALL, folder=tmp_path)
    assert done.returncode == 2 and not done.stdout and "taken`: it is not a directory" in done.stderr


@pytest.mark.parametrize(
    "words,text,message",
    [
        (("--objective", "tput"), SMALL, "there is no objective `tput`"),
        (("--objective", "ttft"), SMALL, "there is no objective `ttft`"),
        (("--objective", "cost"), SMALL, "gives no price"),
        (("--within", "gpus ~ 4"), SMALL, "is not of the form"),
        (("--within", "cpus <= 4"), SMALL, "has no `cpus`"),
        (("--phase", "prefill"), SMALL, "unknown phase `prefill`"),
        (("--budget", "soon"), SMALL, "is not a time"),
        (("--on", "dask://here"), SMALL, "is no address of a cluster"),
        ((), spec_text(), "leaves nothing open"),
        ((), spec_text(phase="gpus = 0..7, tp = 8, chunk = any, microbatches = any(" + ", ".join(map(str, range(1, 400))) + "), sp_layout = any,"
          "sp_method = any, dispatch = any, overlap = any, sequence_parallel = any, dispatch_dtype = any, exchange = any, sequences = any"), "the space has"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(words: tuple[str, ...], text: str, message: str, tmp_path: Path) -> None:
    done = cli(*words, spec=text, folder=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_interrupted_it_prints_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after the third plan: exit code 130."""

    def stopped(spec: OpenSpec, asked: Asked, *more: object) -> Answer:
        def told(one: Found, count: int) -> None:
            if count >= 3:
                raise KeyboardInterrupt

        return search(spec, replace(asked, workers=1), told)

    monkeypatch.setattr("dagc.optimize.search.optimum.search", stopped)
    (tmp_path / "plan.moe").write_text(everything("decode", 8))
    assert main(["search", str(tmp_path / "plan.moe")]) == 130
    out = capsys.readouterr().out
    assert "throughput_per_gpu" in out and "interrupted" in out


def test_the_answer_is_the_same_whoever_costs_the_plans() -> None:
    """Counts and all: batches do not depend on workers."""
    text = everything("decode", 4)
    spec = opened(text)
    one, two = (
        search(spec, Asked(("throughput", "tpot"), workers=workers), text=Text(text, "plan.moe", None))
        for workers in (1, 2)
    )
    assert [r.values for r in one.ranked] == [r.values for r in two.ranked] and len(one.ranked) > 1
    assert [r.figures for r in one.ranked] == [r.figures for r in two.ranked]
    assert replace(one.certificate, seconds=0.0) == replace(two.certificate, seconds=0.0)


@exhaustive
def test_the_answer_is_the_same_on_a_dask_cluster_and_a_lost_cluster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra: pip install -e '.[dask]'")
    text = everything("decode", 4)
    spec, readable = opened(text), Text(text, "plan.moe", None)
    here = search(spec, Asked(("throughput",)), text=readable)
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
        ) as cluster,
    ):
        url = f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"
        there = search(spec, Asked(("throughput",), on=url), text=readable)

        def told(one: Found, count: int) -> None:
            cluster.close()

        monkeypatch.setattr("dagc.optimize.clusters.CONNECT_S", 3.0)  # a client looks for its scheduler for as long
        with pytest.raises(ClusterError, match="went away"):
            search(spec, Asked(("throughput",), on=url), told, readable)
    assert [(r.values, r.figures, r.text) for r in here.ranked] == [(r.values, r.figures, r.text) for r in there.ranked]
    assert replace(here.certificate, seconds=0.0) == replace(there.certificate, seconds=0.0)


@exhaustive
def test_servings_choose_the_plan(tmp_path: Path) -> None:
    text = spec_text(
        kind="prefill", gpus=4, phase="gpus = 0..3, tp = any(2, 4), dp = any(1, 2)",
        extra="phase decode { gpus = 0..3, tp = 4 }\n"
        "serve chat { prefill = prefill, decode = decode, arrivals = poisson(200 req/s), requests = 12, slots = any(4, 32) }",
    )  # fmt: skip
    spec = opened(text)
    found = search(spec, Asked(("chat.throughput",), top=4))
    assert found.complete and found.joined is not None and found.joined.tried == 4
    for one in found.ranked:
        plan = whole(one.text)
        assert {"chat": "slots"}.keys() <= one.values.keys()
        assert plan.serve("chat").throughput_tok_s == one.figures[0]
    assert [one.figures[0] for one in found.ranked] == sorted((one.figures[0] for one in found.ranked), reverse=True)
