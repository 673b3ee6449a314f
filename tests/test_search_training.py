"""Search over training steps: the optimum, the front and every count equal what compiling each plan of the space says."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, examples, spec_text, whole
from tiers import exhaustive, spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.optimize.search import apart, best_first, optimum
from dagc.optimize.search.answer import Answer
from dagc.optimize.search.apart import Apart
from dagc.optimize.search.domains import domains
from dagc.optimize.search.exact import STEP_METRICS
from dagc.optimize.search.exact import Plan as Planned
from dagc.optimize.search.objectives import OF_STEPS
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.pieces import Pieces
from dagc.optimize.search.rules import Facts, fixed, names, rules
from dagc.optimize.search.space import Tally, Values, legal, size
from dagc.optimize.search.step_bound import StepBounds

SPACES = int(os.environ.get("DAGC_SPACES", examples(8)))
"""Random spaces that are searched and compiled plan by plan."""
MOST_PLANS = 40
"""Of one of them."""
TOY = (
    "layers = 4, hidden = 64, vocab = 512, dtype = bf16\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
    "experts { count = 8, top_k = 2, hidden = 32 }"
)
SCHEMA = json.loads((ROOT / "dagc" / "export" / "search.schema.json").read_text())
WORK = "sequences = 16, prompt = 64 tok"
CHOICES = {
    "pp": "any(1, 2, 3)", "microbatches": "any(1, 2, 4, 8)", "sequence_parallel": "any", "schedule": "any(one_f_one_b, gpipe, zb_h1, zb_v)",
    "virtual": "any(1, 2)", "zero": "any", "grad_overlap": "any", "recompute": "any(none, moe, [gqa, moe], full)", "dispatch": "any", "exchange_overlap": "any",
}  # fmt: skip


def opened(text: str) -> OpenSpec:
    return load_open(Source("plan.moe", text), Collector())


def training(phase: str, extra: str = "", model: str = TOY, workload: str = WORK) -> str:
    return spec_text(kind="step", phase=f"kind = train\n{phase}", model=model, workload=workload, extra=extra)


def drawn(seed: int) -> tuple[str, list[str]]:
    """A small open spec and what it is searched for."""
    rng = random.Random(seed)
    while True:
        sides = []
        for side, axes in (("attention", ("dp", "tp")), ("experts", ("ep", "tp"))):
            inner = [f"{axis} = {rng.choice(['any', 'any(1, 2, 4)', '1', '2'])}" for axis in axes]
            sides.append(f"{side} {{ {', '.join(inner)} }}")
        lines = [rng.choice(["gpus = 0..7", "gpus = any(4, 8)"]), *sides]
        lines += [f"{name} = {CHOICES[name]}" for name in rng.sample(sorted(CHOICES), rng.randrange(1, 4))]
        asked = rng.choice([
            ["throughput_per_gpu"], ["step_time"], ["mfu"], ["memory.peak"], ["memory.peak", "step_time"], ["gpus", "step_time"],
        ])  # fmt: skip
        limit = rng.choice([
            "", "", f'require "room" step.memory.peak <= {rng.choice([3, 5])} MB', 'require "fast" step.mfu >= 0.1%',
            'require "both" step.bubble <= 30%\nrequire "few" step.gpus <= 7',
        ])  # fmt: skip
        text = training("\n".join(lines), limit)
        if rng.random() < 0.3:
            text = text.replace("memory = 64 GB", f"memory = {rng.choice([3, 5])} MB")
        spec = opened(text)
        if 6 <= size(space(spec)) <= MOST_PLANS:
            return text, asked


def space(spec: OpenSpec) -> tuple[object, ...]:
    phase = spec.spec.phase("step")
    return domains(spec.of("step"), Facts(phase, spec.spec, phase.new_tokens))


def every_plan(text: str) -> list[tuple[Values, Plan | None]]:
    """Each plan of the space, compiled from its own text; None where it is refused."""
    spec = opened(text)
    own = space(spec)
    out: list[tuple[Values, Plan | None]] = []
    for values in product(*(d.values for d in own)):
        chosen = dict(zip((d.path for d in own), values, strict=True))
        try:
            out.append((chosen, whole(spec.text({"step": chosen}))))
        except SpecError:
            out.append((chosen, None))
    return out


def figures(plan: Plan, asked: list[str]) -> tuple[float, ...]:
    return tuple(float(STEP_METRICS[one].how(plan.subject("step")) or 0.0) for one in asked)


def brute_force(plans: list[tuple[Values, Plan | None]], asked: list[str]) -> list[tuple[float, ...]]:
    """Figures of the optimum, or of the front, of all plans that pass."""
    sign = [1 if OF_STEPS[one].better == "lower" else -1 for one in asked]
    found = {figures(plan, asked) for _, plan in plans if plan is not None and plan.passed}
    scores = {tuple(s * v for s, v in zip(sign, one, strict=True)): one for one in found}
    if len(asked) == 1:
        return [scores[min(scores)]] if scores else []
    front = [s for s in scores if not any(o != s and all(a <= b for a, b in zip(o, s, strict=True)) for o in scores)]
    return [scores[s] for s in sorted(front)]


def searched(text: str, *asked: str, top: int = 1) -> Answer:
    return search(opened(text), Asked(asked, top=top))


@pytest.mark.parametrize("seed", range(SPACES))
def test_the_optimum_is_that_of_every_plan_compiled(seed: int) -> None:
    """And rules reject what compile refuses, with its code."""
    text, asked = drawn(seed)
    found, plans = searched(text, *asked), every_plan(text)
    assert list(dict.fromkeys(one.figures for one in found.ranked)) == brute_force(plans, asked)
    assert found.complete and found.certificate.counted == found.certificate.size == len(plans)
    spec = opened(text)
    for one in found.ranked:
        plan = whole(spec.text(one.values))
        assert plan.passed and figures(plan, asked) == one.figures
    phase = spec.spec.phase("step")
    facts, own, tally = Facts(phase, spec.spec, phase.new_tokens), space(spec), Tally()
    rows = legal(own, fixed(facts), names(facts), rules(facts, [d.path for d in own]), tally)
    kept = [rows.values(k) for k in range(len(rows))]
    assert len(kept) + tally.total == len(plans)
    assert all(plan is None or values in kept for values, plan in plans)
    for one in tally:
        with pytest.raises(SpecError) as caught:
            whole(spec.text({"step": one.example}))
        assert one.code in {d.code for d in caught.value.diagnostics}


PRODUCTS = (
    "gpus = 0..7\nattention { dp = any(4, 8), tp = any(1, 2) }\nexperts { ep = 4 }\nzero = any(1, 3)\n"
    "matmul_dtype = any(bf16, fp8, fp8_block), quantised_weights = any, dispatch_dtype = bf16"
)


@pytest.mark.parametrize("zero", spread(["1", "any(1, 3)"]))
def test_what_products_compute_in_is_chosen_too(zero: str) -> None:
    """The front of memory against time equals that of all plans compiled; rules reject what cannot be stored so."""
    text, asked = training(PRODUCTS.replace("any(1, 3)", zero)), ["memory.peak", "step_time"]
    found, plans = searched(text, *asked), every_plan(text)
    assert list(dict.fromkeys(one.figures for one in found.ranked)) == brute_force(plans, asked)
    assert found.complete and found.certificate.counted == len(plans) == (24 if zero == "1" else 48)
    assert {one.code for one in found.certificate.rejected} >= {"E12"}
    assert {"fp8", "fp8_block"} & {one.values["step"]["matmul_dtype"] for one in found.ranked}


WIDE = (
    "gpus = any(8, 16), pp = any(1, 2), microbatches = any(2, 4, 8), sequence_parallel = any, schedule = any, virtual = any(1, 2)\n"
    "zero = any, grad_overlap = any, recompute = any(none, moe, full)"
)
FOLDED = "attention { dp = any, sp = any(1, 2), tp = any(1, 2) }, experts { ep = any(1, 4), tp = any(1, 2) }, exchange_overlap = any"
DENSE = (
    "layers = 4, hidden = 64, vocab = 512, dtype = bf16, tied = true\n"
    "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 128 }"
)
SPREAD = {
    "experts": training(f"{WIDE}\n{FOLDED}", workload="sequences = 24, prompt = 64 tok, routing = zipf(0.5)"),
    "products": training(f"{WIDE}\n{FOLDED}, matmul_dtype = any(fp8, fp8_block), quantised_weights = any"),
    "one table at both ends": training(
        f"{WIDE.replace('moe', 'mlp')}\ndp = any, sp = any(1, 2), tp = any(1, 2, 4)", model=DENSE
    ),
}


@pytest.mark.parametrize("text", spread(SPREAD.values(), lambda text: text != SPREAD["products"]), ids=SPREAD)
def test_no_step_takes_less_time_or_memory_than_its_bound(text: str) -> None:
    """Whatever bounds have learnt by then from other plans."""
    own = Apart(opened(text), "step", {}, searched=["step"])
    bounds = own.pieces.bounds
    assert isinstance(bounds, StepBounds) and len(own.rows) > 5_000
    rng, tight = random.Random(7), []
    for row in rng.sample(range(len(own.rows)), examples(12)):
        bounds.settle()
        before = float(bounds.time_s[row]), float(bounds.peak_B[row])
        (plan,) = own.pieces.evaluate([row])
        assert plan.refused is None or plan.refused[1] in ("E04", "R07"), (plan.refused, plan.why, own.rows.values(row))
        bounds.settle()
        exact = np.asarray([plan.costed.time_s, plan.costed.peak_B])
        for least in (before, (float(bounds.time_s[row]), float(bounds.peak_B[row]))):
            assert (np.asarray(least) <= exact * (1 + 1e-9)).all(), own.rows.values(row)
        tight.append(float(bounds.time_s[row]) / plan.costed.time_s)
    assert np.median(tight) > 0.9 and bounds.known(row)


def test_recompute_is_chosen_by_sets_of_blocks() -> None:
    """Of any: nothing, each set of blocks, all; each compiles, and reads as it is written."""
    text = training("gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, recompute = any")
    spec = opened(text)
    (own,) = space(spec)
    assert own.values == ("none", "gqa", "moe", "[gqa, moe]", "full")
    written = {str(value): whole(spec.text({"step": {"recompute": value}})).trainings["step"] for value in own.values}
    assert [written[word].training.recompute for word in own.values] == [
        (),
        ("gqa",),
        ("moe",),
        ("gqa", "moe"),
        ("full",),
    ]
    found = searched(text, "memory", "step_time", top=9)
    assert found.front and found.complete
    assert {one.values["step"]["recompute"] for one in found.ranked} >= {"none", "[gqa, moe]"}
    for one in found.ranked:
        step = written[str(one.values["step"]["recompute"])]
        assert one.figures == (step.worst.peak_B, step.time_s)


def test_a_plan_is_written_that_compiles_to_the_figures_that_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(training(
        "gpus = 0..7, pp = any(1, 2), microbatches = any(2, 4)  # of a step\nattention { dp = any }, experts { ep = 4 }\n"
        "schedule = any(one_f_one_b, zb_h1), recompute = any(none, [gqa, moe])",
        'require "some" step.mfu >= 0.01%',
    ))  # fmt: skip
    assert main(["search", str(path), "--objective", "mfu", "-o", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    best = said["plans"][0]
    plan = dagc.compile(tmp_path / "out" / "plan.1.moe")
    step = plan.trainings["step"]
    assert said["complete"] and said["objectives"][0]["name"] == "mfu"
    assert best["figures"] == [step.mfu] and best["phases"]["step"]["time_s"] == step.time_s
    assert best["phases"]["step"]["mfu"] == step.mfu and best["phases"]["step"]["peak_B"] == step.worst.peak_B
    assert "GB of the fullest GPU" in (tmp_path / "out" / "plan.step.front.svg").read_text()
    assert "# of a step" in best["spec"] and said["why"]["binding"] is not None
    assert sum(one["best_s"] - one["other_s"] for versus in said["why"]["versus"] for one in versus["parts"]) == pytest.approx(
        sum(versus["best_s"] - versus["other_s"] for versus in said["why"]["versus"])
    )  # fmt: skip
    assert [one["chosen"] for one in said["recompute"]].count(True) <= 1 and said["recompute"]
    jsonschema.validate(said, SCHEMA)
    assert dagc.search(path, objective="mfu").recompute() == said["recompute"]
    assert main(["search", str(path), "--against", str(tmp_path / "out" / "plan.1.moe")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "plan.1.moe: step.throughput_per_gpu" in out and "memory against time of the best plan" in out


def test_the_answer_is_the_same_whoever_costs_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagc.optimize.search import pieces
    from dagc.optimize.search.workers import Text

    monkeypatch.setattr(pieces, "FEW", 0)
    text = training(
        "gpus = 0..7, pp = any(1, 2), attention { dp = any }, experts { ep = 4 }, recompute = any(none, full)"
    )
    alone = searched(text, "step_time", top=3)
    shared = search(opened(text), Asked(("step_time",), workers=2), None, Text(text, "plan.moe", None))
    assert [one.figures for one in alone.ranked] == [one.figures for one in shared.ranked] and shared.complete
    assert [one.values for one in alone.ranked] == [one.values for one in shared.ranked]


REFUSED = {
    "an engine": (("--engine", "vllm"), "zero = any", "phase `step` trains: `--engine` is for inference alone"),
    "no such objective": (("--objective", "ttft"), "zero = any", "there is no objective `ttft`"),
    "no name": ((), "recompute = any(1, 2)", "`recompute` takes names"),
    "nothing open": ((), "zero = 1", "the spec leaves nothing open that could be searched"),
    "a word of inference": ((), "zero = any, draft = 1", "`draft` does not belong to a training phase"),
    "several phases": ((), "zero = any\n}\nphase decode { gpus = 0..7, tp = any, dp = any", "phase `step` trains, and is searched alone; 2 phases are open"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_searched_is_refused(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, phase, message = REFUSED[what]
    path = tmp_path / "plan.moe"
    path.write_text(training(f"gpus = 0..7, attention {{ dp = 8 }}, experts {{ ep = 8 }}\n{phase}"))
    assert main(["search", str(path), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_search_has_equal_stages(tmp_path: Path) -> None:
    """Bounds are of those: what else is asked for is refused with what to do."""
    path = tmp_path / "plan.moe"
    for words in ("stages = balanced, pp = any(1, 2)", "stages = any, pp = 2", "place = best, pp = any(1, 2)"):
        path.write_text(training(f"gpus = 0..1, {words}"))
        with pytest.raises(SpecError) as caught:
            dagc.search(path)
        (found,) = caught.value.diagnostics
        assert "trains: a search has equal stages" in found.message + "".join(found.because)


@exhaustive
def test_a_budget_is_kept_and_has_a_good_plan_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a glance takes a second and a plan of what was glanced at a tenth: bounds that promise much are not all that is looked
    at, and nothing is begun that there is no time for."""
    spent = [0.0]
    for module in (apart, best_first, optimum):
        monkeypatch.setattr(module, "perf_counter", lambda: spent[0])
    look, evaluate = Pieces.look, Pieces.evaluate

    def looked(self: Pieces, rows: Sequence[int]) -> None:
        spent[0] += len(rows)
        look(self, rows)

    def evaluated(self: Pieces, rows: Sequence[int]) -> list[Planned]:
        cheap = self.cheap()
        spent[0] += sum(0.1 if cheap[row] else 1.0 for row in rows)
        return evaluate(self, rows)

    monkeypatch.setattr(Pieces, "look", looked)
    monkeypatch.setattr(Pieces, "evaluate", evaluated)
    text = training(
        "gpus = 0..7, pp = any, microbatches = any, zero = any(0, 1), schedule = any(one_f_one_b, zb_h1), recompute = any(none, full)\nattention { dp = any, tp = any(1, 2) }\nexperts { ep = any(1, 2, 4) }"
    ).replace("memory = 64 GB", "memory = 5 MB")
    best = searched(text, "step_time")
    whole_s, spent[0] = spent[0], 0.0
    assert best.complete and whole_s > 30
    for budget_s in (4.0, 12.0):
        spent[0] = 0.0
        found = search(opened(text), Asked(("step_time",), top=1, budget_s=budget_s))
        assert not found.complete and budget_s <= spent[0] <= 1.1 * budget_s + 0.1
        assert found.ranked and found.ranked[0].figures[0] <= 1.4 * best.ranked[0].figures[0]
