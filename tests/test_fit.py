"""`dagc fit`: every answer against all values and all layouts of small plans, compiled from their text."""

from __future__ import annotations

import json
from itertools import islice, product
from math import prod
from pathlib import Path
from random import Random

import pytest
from conftest import ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import all_tests, exhaustive, spread

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.cli import main
from dagc.lang.load import load
from dagc.lang.open_spec import load_open
from dagc.optimize.fewest import Fewest, fewest, together
from dagc.optimize.largest import largest
from dagc.optimize.layouts import LeastMemory, layout_words, layouts
from dagc.optimize.room import Fit, Largest
from dagc.optimize.search.optimum import Asked, search
from dagc.pipeline.changed import Changes, Held
from dagc.pipeline.compile import compile_spec
from dagc.plan.plan import CompiledPlan
from dagc.spec.phase import Phase

Capture = pytest.CaptureFixture[str]
FOLDED = "attention { dp = 2, tp = 2 }, experts { ep = 4 }"


def text(
    phases: str, *, memory: str = "2 MB", sequences: int = 4, prompt: int = 64, gpus: int = 8, hidden: int = 32
) -> str:
    """A model of a few hundred kilobytes on GPUs of a few megabytes."""
    return f"""moe 1
hardware pool {{
  gpus = {gpus}, per_node = 4
  compute = 400 TFLOP/s, memory = {memory}, hbm = 1.8 TB/s
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
  layers = 4, hidden = 64, vocab = 256, dtype = fp32
  attention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }}
  experts {{ count = 8, top_k = 2, hidden = {hidden} }}
}}
workload {{ sequences = {sequences}, prompt = {prompt} tok, output = 16 tok }}
{phases}
"""


def fit_of(source: str) -> Fit:
    return Fit(load(Source("x.moe", source), Collector()))


def found(source: str, phase: str) -> dict[str, Largest]:
    return {one.what: one for one in fit_of(source).largest(phase)}


def compiled(source: str) -> CompiledPlan:
    """Without looking for what would make it fit, which takes most of the time."""
    return compile_spec(load(Source("x.moe", source), Collector()), Collector())


def fits(source: str, phase: str) -> bool:
    """The spec compiled from its text."""
    plan = compiled(source)
    return all(pool.fits for pool in plan.pools if phase in pool.phases) and plan.phases[phase].memory.fits


@settings(max_examples=examples(60))
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**9), st.floats(0.001, 0.3))
def test_the_largest_is_found_wherever_shares_do_not_fall(start: int, most: int, seed: int, rise: float) -> None:
    rng = Random(seed)
    rises = [rng.choice((0.0, rng.uniform(0, rise))) for _ in range(300)]
    shares = [sum(rises[:k]) for k in range(1, most + 1)]
    assert largest(lambda k: shares[k - 1], start, most) == sum(share <= 1 for share in shares)


PHASES = {
    "prefill": "phase prefill { gpus = 0..3, %s, sequences = SEQ }",
    "decode": "phase decode { gpus = 0..3, %s, sequences = SEQ, context = CTX tok }",
}


@pytest.mark.parametrize(
    ("kind", "strategy"),
    spread([
        ("decode", "tp = 4"), ("prefill", "ep = 4, microbatches = 2"), ("decode", FOLDED), ("prefill", "sp = 2, tp = 2"),
        ("decode", "pp = 2, tp = 2, microbatches = 3"), ("prefill", "dp = 4"),
    ], lambda case: case[1] == FOLDED or "sp = 2" in case[1]),
)  # fmt: skip
def test_batch_and_context_are_those_of_all_values_tried(kind: str, strategy: str) -> None:
    phase = PHASES[kind] % strategy

    def with_values(sequences: int, context: int) -> str:
        body = phase.replace("SEQ", str(sequences)).replace("CTX", str(context))
        return text(body, memory="2 MB", prompt=context if kind == "prefill" else 64)

    answer = found(with_values(4, 64), kind)
    most = answer["sequences"].at
    assert most is not None and answer["sequences"].beyond is not None
    assert answer["sequences"].beyond.value == most.value + 1
    near = range(1, 5) if all_tests() else range(1, 2)
    for n in (1, most.value // 2, most.value - 1, *(most.value + more for more in near), 2 * most.value):
        assert fits(with_values(n, 64), kind) == (n <= most.value), n
    longest = answer["context"].at
    step = 2 if "sp = 2" in strategy else 1
    assert longest is not None and answer["context"].beyond is not None
    assert answer["context"].beyond.value == longest.value + step
    for k in (-3, -1, 0, 1, 2, 3, 7, 50) if all_tests() else (-1, 0, 1, 50):
        assert fits(with_values(4, longest.value + k * step), kind) == (k <= 0), k


def test_what_is_printed_is_what_compiles_there() -> None:
    source = text(PHASES["decode"].replace("SEQ", "4").replace("CTX", "64") % FOLDED)
    one = found(source, "decode")["sequences"]
    for edge in (one.at, one.beyond):
        assert edge is not None
        plan = compiled(text(PHASES["decode"].replace("SEQ", str(edge.value)).replace("CTX", "64") % FOLDED))
        assert plan.pools[0].peak_B == edge.peak_B and plan.fits == edge.fits


def test_balanced_stages_are_cut_anew_at_every_value() -> None:
    body = "phase decode { gpus = 0..2, pp = 3, stages = balanced, sequences = %d, context = 64 tok }"
    one = found(text(body % 4), "decode")["sequences"]
    assert one.at is not None and one.beyond is not None
    assert fits(text(body % one.at.value), "decode") and not fits(text(body % one.beyond.value), "decode")


def test_other_phases_on_the_same_gpus_take_their_part() -> None:
    alone = found(text("phase decode { gpus = 0..3, tp = 4, context = 64 tok }"), "decode")
    both = text(
        "phase prefill { gpus = 0..3, ep = 4, sequences = 8 }\nphase decode { gpus = 0..3, tp = 4, context = 64 tok }"
    )
    shared = found(both, "decode")
    for what in ("sequences", "context", "kv_tokens"):
        one, other = alone[what].at, shared[what].at
        assert one is not None and other is not None and other.value < one.value


def test_a_cache_of_so_many_tokens_is_what_is_left() -> None:
    one = found(text("phase decode { gpus = 0..3, tp = 4, context = 64 tok }"), "decode")["kv_tokens"]
    assert one.at is not None and one.beyond is not None and one.at.fits and not one.beyond.fits
    token_B = 2 * 4 * 8 * 4 * 4 / 4  # K and V of four heads in four layers, split over four GPUs
    assert one.beyond.peak_B - one.at.peak_B == pytest.approx(token_B)


def test_prompts_are_cut_as_written_also_where_they_were_whole() -> None:
    body = "phase prefill { gpus = 0..3, tp = 4, chunk = 96 tok, prefix = 16 tok }"
    short = load(Source("x.moe", text(body, prompt=64)), Collector()).phase("prefill")
    for prompt in (17, 64, 112, 113, 300):
        assert short.at_context(prompt) == load(Source("x.moe", text(body, prompt=prompt)), Collector()).phase(
            "prefill"
        )


def test_a_context_too_short_for_its_drafts_is_not_taken_for_too_long() -> None:
    one = found(text("phase decode { gpus = 0, draft = 8, context = 9 tok, sequences = 1 }", memory="4 MB"), "decode")
    assert one["context"].at is not None and one["context"].at.value > 9


def test_what_never_fits_has_no_answer(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(text("phase decode { gpus = 0, sequences = 4 }", memory="300 kB", gpus=2))
    assert main(["fit", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["phases"]["decode"]["sequences"]["fits"] is None
    assert told["phases"]["decode"]["sequences"]["next"]["value"] == 1
    one = told["fewest_gpus"][1]
    assert one["gpus"] is None and {rule["rule"] for rule in one["one_fewer"]} == {"memory"}


# -- the fewest ------------------------------------------------------------------------------------


def every_layout(gpus: int) -> list[str]:
    """All degrees on so many GPUs, written without the code that is tested."""
    out = []
    for pp in range(1, gpus + 1):
        for tp, dp in product(range(1, gpus + 1), repeat=2):
            if pp * tp * dp != gpus or pp > 4:
                continue
            cut = [4 // pp + (i < 4 % pp) for i in range(pp)]
            for ep, etp in product(range(1, gpus + 1), repeat=2):
                if (dp * tp) % (ep * etp) == 0:
                    spare = -8 % ep
                    out.append(
                        f"gpus = 0..{gpus - 1}, pp = {pp}, layers_per_stage = {cut}, redundant = {spare}, "
                        f"attention {{ dp = {dp}, tp = {tp} }}, experts {{ ep = {ep}, tp = {etp} }}"
                    )
    return out


@pytest.mark.parametrize(("memory", "sequences"), spread([("700 kB", 4), ("900 kB", 12)]))
def test_no_layout_on_fewer_gpus_fits(memory: str, sequences: int) -> None:
    def spec(body: str) -> str:
        return text(f"phase decode {{ {body}, context = 32 tok, sequences = {sequences} }}", memory=memory)

    fit = fit_of(spec("gpus = 0..7, tp = 8"))
    answer = fewest(fit, ["decode"])
    assert answer.complete and answer.gpus > 1 and answer.edge is not None and answer.edge.fits
    for count in range(1, answer.gpus + 1):
        held = []
        for body in every_layout(count):
            try:
                held.append(compiled(spec(body)).fits)
            except dagc.SpecError:
                continue
        assert any(held) == (count == answer.gpus), count
    assert sum(rule.count for rule in answer.fewer) == len(
        list(layouts(answer.layout[0], answer.gpus - 1, fit.spec.model))
    )
    assert fits(spec(f"gpus = 0..{answer.gpus - 1}, {layout_words(answer.layout[0])}{stages(answer)}"), "decode")


@pytest.mark.parametrize("gpus", [1, 6, 12])
def test_layouts_are_all_products(gpus: int) -> None:
    """In the order in which ties are broken: pp, tp, sp, ep and tp of the experts rise."""
    own = fit_of(text("phase prefill { gpus = 0..3, sp = 2, tp = 2 }"))
    phase = own.plan.spec.phases[0]
    wanted = [
        (pp, tp, sp, ep, etp)
        for pp, tp, sp, ep, etp in product(range(1, gpus + 1), repeat=5)
        if gpus % pp == 0 and gpus // pp % (tp * sp) == 0 and gpus // pp % (ep * etp) == 0
    ]
    found = []
    for s in layouts(phase, gpus, own.plan.spec.model):
        assert s.attention is not None and s.experts is not None
        a, e = dict(s.attention.degrees), dict(s.experts.degrees)
        assert s.pp * a["dp"] * a["sp"] * a["tp"] == gpus
        found.append((s.pp, a["tp"], a["sp"], e["ep"], e["tp"]))
    assert found == wanted


def stages(answer: Fewest) -> str:
    cut = answer.layout[0].strategy.layers_per_stage
    return "" if cut is None else f", layers_per_stage = {list(cut)}"


@pytest.mark.parametrize(
    ("kind", "phase"),
    spread([
        ("prefill", "gpus = 0..7, tp = 8"), ("decode", "gpus = 0..7, ep = 8, microbatches = 2"), ("decode", "gpus = 0..7, sp = 8")
    ], of=lambda case: case[0]),
)  # fmt: skip
def test_the_bound_is_never_above_what_a_layout_holds(kind: str, phase: str) -> None:
    spec = load(Source("x.moe", text(f"phase {kind} {{ {phase} }}", sequences=5)), Collector())
    plan = compiled(text(f"phase {kind} {{ {phase} }}", sequences=5))
    changes = Changes(spec, plan.phases)
    own = spec.phase(kind)
    least = LeastMemory(changes, own)
    seen = 0
    for count in (1, 3, 4, 6):
        for s in islice(layouts(own, count, spec.model), 0, None, 2):
            changed: Phase = _on(own, count, s)
            held = changes.held([changed]) if changes.refusal(changed) is None else None
            if isinstance(held, Held):
                seen += 1
                assert least.of(s) <= held.fullest.peak_B * (1 + 1e-12)
    assert seen >= 10


def _on(phase: Phase, count: int, strategy: object) -> Phase:
    from dataclasses import replace

    return replace(phase, gpus=tuple(range(count)), strategy=strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", spread(["700 kB", "900 kB", "1500 kB"]))
def test_it_agrees_with_a_search_for_the_fewest_gpus(memory: str) -> None:
    """The search has no uneven stages and no spare copies to fill ranks with: it finds as few only where none are needed."""
    pins = "replicas = 1, microbatches = 1, sequence_parallel = false, sp_method = allgather, dispatch = all_to_all, overlap = none"
    body = f"gpus = any, strategy = any, attention {{ sp = 1 }}, {pins}, context = 32 tok"
    source = text(f"phase decode {{ {body} }}", memory=memory)
    found = search(load_open(Source("x.moe", source), Collector()), Asked(("gpus",)))
    assert found.best is not None and found.complete
    mine = fewest(fit_of(text("phase decode { gpus = 0..7, tp = 8, context = 32 tok }", memory=memory)), ["decode"])
    s = mine.layout[0].strategy
    assert mine.gpus <= found.best.gpus
    assert mine.gpus == found.best.gpus or s.redundant or s.layers_per_stage is not None


def test_phases_of_one_engine_are_laid_out_together() -> None:
    fit = fit_of(
        text(
            "phase prefill { gpus = 0..3, tp = 4 }\nphase decode { gpus = 0..3, ep = 4 }\n"
            "phase other { kind = decode, gpus = 4..7, tp = 4 }"
        )
    )
    assert together(fit, ["decode", "other"]) == [("prefill", "decode"), ("other",)]
    one = fewest(fit, ("prefill", "decode"))
    first, second = one.layout
    assert first.gpus == second.gpus and layout_words(first) == layout_words(second)
    assert prod([one.gpus]) <= 4


# -- the command -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(
        "moe 1\nparam batch = 4\n"
        + text(
            "phase prefill { gpus = 0..3, tp = 4 }\nphase decode { gpus = 0..3, ep = 4, sequences = batch }"
        ).removeprefix("moe 1")
    )
    assert main(["fit", str(path), "--phase", "decode"]) == 0
    out = capsys.readouterr().out
    assert "decode on 4 GPUs" in out and "prefill on" not in out and "too much" in out
    assert main(["fit", str(path), "--phase", "nothing"]) == 2
    assert "unknown phase `nothing`" in capsys.readouterr().err
    assert main(["fit", str(path), "--json", "--set", "batch = 2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["phases"]["decode"]["sequences"]["written"] == 2
    assert told["phases"]["decode"]["sequences"]["next"]["fits"] is False


@exhaustive
def test_an_example(capsys: Capture) -> None:
    assert main(["fit", str(ROOT / "examples" / "mixtral_8xh100.moe")]) == 0
    out = capsys.readouterr().out
    assert "prefill and decode, 64 sequences: 2 of 8 written: gpus = [0..1], pp = 2" in out
    assert max(map(len, out.splitlines())) <= 80 and "\u00a0" not in out


def test_an_open_spec_is_refused(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(text("phase decode { gpus = 0..3, tp = any }"))
    assert main(["fit", str(path)]) == 2
    assert "E19" in capsys.readouterr().err
